//! Downloading one object as retained chunks: which topics to subscribe to, when to let go of them, and
//! which chunk to believe. A window of subscriptions is the flow control: it slides only after a write.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod hashes;
mod pace;
mod tracker;

use serin_protocol::chunk::{ChunkMap, ChunkMapError, ChunkSet, ObjectRef};
use serin_protocol::ids::{ByteCount, Millis};

use super::backoff::{Backoff, Jitter, after};
use tracker::{Found, Tracker, Tried};

pub use hashes::{ChunkHashes, ChunkHashesError};
use pace::Meter;
pub use pace::{Pace, Window};

/// Wait before another try of a silent, wrong or unwritable chunk.
const RETRY: Backoff = Backoff { first: Millis::from_secs(1), cap: Millis::from_secs(60) };
/// Wait between two requests to the server to publish chunks again: each is a numbered event.
const ASK: Backoff = Backoff { first: Millis::from_secs(60), cap: Millis::from_secs(1800) };
/// Runs of missing chunks named in one go.
const MAX_ASKS: usize = 4;
/// Wrong copies of one chunk after which the transfer is given up: they cost the user's data.
pub const MAX_REFUSALS: u32 = 5;
/// Failed writes of one chunk after which the transfer is given up: the disk is full or broken.
pub const MAX_WRITE_FAILURES: u32 = 3;
/// Refusals reported per transfer; more tell nothing new and would fill the outbox.
pub const MAX_REPORTED: u32 = 16;

/// What happens to a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// The session with the broker is there, and nothing is subscribed in it.
    Connected,
    /// The session is gone, with all its subscriptions.
    Disconnected,
    /// The broker has confirmed the subscription to this chunk.
    Subscribed(u32),
    /// A message on the topic of this chunk.
    Chunk {
        /// Its number, from the topic.
        index: u32,
        /// Its payload.
        bytes: &'a [u8],
    },
    /// The chunk is in the file.
    Written(u32),
    /// It could not be written.
    WriteFailed(u32),
    /// A deadline has passed.
    Tick,
}

/// What is to be done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Subscribe to this chunk's topic, to be delivered at least once.
    Subscribe(u32),
    /// Unsubscribe from it.
    Unsubscribe(u32),
    /// Write the bytes just handed in at this chunk's place; answer with [`Input::Written`] or
    /// [`Input::WriteFailed`].
    Write {
        /// Number of the chunk.
        index: u32,
    },
    /// Report that the broker does not have these chunks.
    AskRepublish {
        /// The first.
        first: u32,
        /// How many from there.
        count: u32,
    },
    /// Report that a message was refused.
    Refuse {
        /// The number in its topic.
        index: u32,
        /// What is wrong with it.
        detail: String,
    },
    /// Every chunk is written. The last effect there is; the whole object's digest is still to be checked.
    Complete,
    /// The transfer was given up. The last effect there is.
    Stalled(Stall),
}

/// Why a transfer was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stall {
    /// The broker delivers a wrong chunk again and again.
    #[error("chunk {index} arrived wrong {MAX_REFUSALS} times")]
    Refused {
        /// Number of the chunk.
        index: u32,
    },
    /// The disk does not take a chunk.
    #[error("chunk {index} could not be written {MAX_WRITE_FAILURES} times")]
    WriteFailed {
        /// Number of the chunk.
        index: u32,
    },
    /// The broker hands out next to nothing.
    #[error("slow retrieval: {} bytes came within {} s, {} are due", bytes.0, pace.patience.0 / 1000, pace.due().0)]
    Slow {
        /// What came.
        bytes: ByteCount,
        /// What should have come.
        pace: Pace,
    },
}

/// Effects in order.
pub type Effects = Vec<Effect>;

/// The download of one object.
#[derive(Debug)]
pub struct Transfer {
    object: ObjectRef,
    map: ChunkMap,
    hashes: Option<ChunkHashes>,
    have: ChunkSet,
    jitter: Jitter,
    connected: bool,
    ended: bool,
    tracker: Tracker,
    pace: Pace,
    meter: Meter,
    asks: u32,
    next_ask: Millis,
    reported: u32,
}

impl Transfer {
    /// The transfer of `object`, of which `have` is on disk. Without `hashes`, as for the chunk list
    /// itself, chunks are checked by length only and the whole digest must be checked at the end. A
    /// `have` that is not of this object counts as empty.
    pub fn new(
        object: ObjectRef,
        hashes: Option<ChunkHashes>,
        have: ChunkSet,
        pace: Pace,
        jitter: Jitter,
    ) -> Result<Self, ChunkMapError> {
        let map = ChunkMap::new(object.size)?;
        let have = if have.count() == map.count() { have } else { ChunkSet::empty(map) };
        Ok(Self {
            object,
            map,
            hashes,
            have,
            jitter,
            connected: false,
            ended: false,
            tracker: Tracker::new(pace.window),
            pace,
            meter: Meter::new(pace),
            asks: 0,
            next_ask: Millis(0),
            reported: 0,
        })
    }

    /// The object.
    pub const fn object(&self) -> ObjectRef {
        self.object
    }

    /// The chunks that are written.
    pub const fn have(&self) -> &ChunkSet {
        &self.have
    }

    /// Bytes that are written.
    pub fn bytes_here(&self) -> ByteCount {
        let missing: u64 = self.have.missing().map(|index| self.map.len(index) as u64).sum();
        ByteCount(self.object.size.0.saturating_sub(missing))
    }

    /// Takes in what happened at `now`, on a monotonic clock.
    #[must_use]
    pub fn handle(&mut self, now: Millis, input: Input<'_>) -> Effects {
        let mut effects = Effects::new();
        if self.ended {
            return effects;
        }
        match input {
            Input::Connected => {
                self.tracker.disconnected();
                self.connected = true;
                self.meter.connected(now);
            }
            Input::Disconnected => {
                self.tracker.disconnected();
                self.connected = false;
                self.meter.disconnected(now);
            }
            Input::Subscribed(index) => self.tracker.confirmed(now, index),
            Input::Chunk { index, bytes } => self.arrived(now, index, bytes, &mut effects),
            Input::Written(index) => self.written(now, index, &mut effects),
            Input::WriteFailed(index) => self.write_failed(now, index, &mut effects),
            Input::Tick => {}
        }
        self.advance(now, &mut effects);
        effects
    }

    /// Gives the transfer up: lets go of every subscription. What is written stays.
    #[must_use]
    pub fn stop(&mut self) -> Effects {
        let mut effects = Effects::new();
        self.end(&mut effects);
        effects
    }

    /// Chunks that are subscribed now.
    pub fn subscribed(&self) -> Vec<u32> {
        self.tracker.subscribed()
    }

    /// When [`Input::Tick`] is due; none while there is nothing to wait for but the session or the disk.
    pub fn next_deadline(&self) -> Option<Millis> {
        if self.ended || !self.connected {
            return None;
        }
        let ask = self.tracker.wanting().next().map(|_| self.next_ask);
        self.tracker.next_deadline().into_iter().chain(ask).chain(self.meter.deadline()).min()
    }

    fn arrived(&mut self, now: Millis, index: u32, bytes: &[u8], effects: &mut Effects) {
        if self.have.contains(index) {
            return;
        }
        let (chunk, subscribed) = match self.tracker.find(index) {
            Some(Found::Writing) => return,
            Some(Found::Awaited(chunk)) => (chunk, true),
            Some(Found::Parked(chunk)) => (chunk, false),
            None => {
                self.report(index, "it was not asked for", effects);
                return;
            }
        };
        match self.check(index, bytes) {
            // A late answer to a subscription given up: taken if there is a place to hold it.
            Ok(()) if subscribed || self.tracker.has_place() => {
                self.tracker.write(now, chunk, subscribed);
                effects.push(Effect::Write { index });
            }
            Ok(()) => {}
            Err(detail) => self.refuse(now, chunk, subscribed, &detail, effects),
        }
    }

    fn refuse(
        &mut self,
        now: Millis,
        mut chunk: Tried,
        subscribed: bool,
        detail: &str,
        effects: &mut Effects,
    ) {
        self.report(chunk.index, detail, effects);
        chunk.refusals += 1;
        if chunk.refusals >= MAX_REFUSALS {
            self.give_up(Stall::Refused { index: chunk.index }, effects);
        } else {
            self.retry(now, chunk, chunk.refusals, subscribed, effects);
        }
    }

    fn written(&mut self, now: Millis, index: u32, effects: &mut Effects) {
        let Some((_, subscribed)) = self.tracker.take_written(index) else {
            return;
        };
        self.have.insert(index);
        self.asks = 0;
        self.meter.brought(now, self.map.len(index) as u64);
        if subscribed {
            effects.push(Effect::Unsubscribe(index));
        }
    }

    fn write_failed(&mut self, now: Millis, index: u32, effects: &mut Effects) {
        let Some((mut chunk, subscribed)) = self.tracker.take_written(index) else {
            return;
        };
        chunk.write_failures += 1;
        let failures = chunk.write_failures;
        self.retry(now, chunk, failures, subscribed, effects);
        if failures >= MAX_WRITE_FAILURES {
            self.give_up(Stall::WriteFailed { index }, effects);
        }
    }

    /// Another try after a wait that grows with `failures`.
    fn retry(&mut self, now: Millis, chunk: Tried, failures: u32, subscribed: bool, effects: &mut Effects) {
        let until = after(now, RETRY.wait(failures, &mut self.jitter));
        self.tracker.park(chunk, until);
        if subscribed {
            effects.push(Effect::Unsubscribe(chunk.index));
        }
    }

    /// Everything that follows from time and from places in the window.
    fn advance(&mut self, now: Millis, effects: &mut Effects) {
        if self.ended {
            return;
        }
        if self.have.is_complete() {
            self.ended = true;
            effects.push(Effect::Complete);
            return;
        }
        if self.meter.deadline().is_some_and(|at| at <= now) {
            self.give_up(Stall::Slow { bytes: self.meter.bytes(), pace: self.pace }, effects);
            return;
        }
        if self.connected {
            self.expire(now, effects);
            self.ask(now, effects);
            self.fill(now, effects);
        }
    }

    fn expire(&mut self, now: Millis, effects: &mut Effects) {
        for mut chunk in self.tracker.overdue(now) {
            chunk.silences = chunk.silences.saturating_add(1);
            self.retry(now, chunk, chunk.silences, true, effects);
        }
    }

    /// Asks for what was silent or wrong too often, in runs. What follows the last of these and is missing too
    /// belongs to its run: had the broker had it, it would have come by now.
    fn ask(&mut self, now: Millis, effects: &mut Effects) {
        if now < self.next_ask {
            return;
        }
        let mut wanted: Vec<u32> = self.tracker.wanting().map(|chunk| chunk.index).collect();
        if wanted.is_empty() {
            return;
        }
        wanted.sort_unstable();
        if let Some(last) = wanted.last().copied() {
            wanted.extend((last + 1..self.map.count()).take_while(|index| !self.have.contains(*index)));
        }
        let runs = wanted.chunk_by(|left, right| left + 1 == *right);
        for run in runs.take(MAX_ASKS) {
            let Some(first) = run.first().copied() else {
                continue;
            };
            effects.push(Effect::AskRepublish { first, count: run.len() as u32 });
        }
        self.asks += 1;
        self.next_ask = after(now, ASK.wait(self.asks, &mut self.jitter));
    }

    fn fill(&mut self, now: Millis, effects: &mut Effects) {
        while self.tracker.has_place() {
            let Some(chunk) = self.tracker.next(now, &self.have) else {
                break;
            };
            effects.push(Effect::Subscribe(chunk.index));
            self.tracker.await_message(now, chunk);
        }
    }

    fn check(&self, index: u32, bytes: &[u8]) -> Result<(), String> {
        let expected = self.map.len(index);
        if bytes.len() != expected {
            return Err(format!("it has {} bytes, not {expected}", bytes.len()));
        }
        match &self.hashes {
            Some(hashes) if !hashes.matches(index, bytes) => Err("its hash is not the signed one".into()),
            Some(_) | None => Ok(()),
        }
    }

    fn report(&mut self, index: u32, what: &str, effects: &mut Effects) {
        if self.reported < MAX_REPORTED {
            self.reported += 1;
            let detail = format!("chunk {index} of {}: {what}", self.object.digest);
            effects.push(Effect::Refuse { index, detail });
        }
    }

    fn give_up(&mut self, stall: Stall, effects: &mut Effects) {
        self.end(effects);
        effects.push(Effect::Stalled(stall));
    }

    fn end(&mut self, effects: &mut Effects) {
        self.ended = true;
        effects.extend(self.tracker.clear().into_iter().map(Effect::Unsubscribe));
    }
}

#[cfg(test)]
mod tests;
