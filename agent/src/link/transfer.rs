//! Downloading one object as retained chunks: which topics to subscribe to, when to let go of them, and
//! which chunk to believe. A window of subscriptions is the flow control: it slides only after a write.
//!
//! A chunk is *active* while it is subscribed or being written, *parked* while it waits for another
//! try, and done once written. Parked chunks do not hold up the others.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serin_protocol::chunk::{ChunkMap, ChunkMapError, ChunkSet, ObjectRef};
use serin_protocol::ids::{ByteCount, Digest, Millis};
use serin_protocol::message::Detail;

use super::backoff::{Backoff, Jitter, after};

/// How long a subscription may stay silent before it is tried again; doubled at every try, because a
/// slow link is no reason to send everything twice. Any chunk that arrives renews the patience with all.
const SILENCE: Backoff = Backoff {
    first: Millis::from_secs(10),
    cap: Millis::from_secs(120),
};
/// Wait before another try of a silent, wrong or unwritable chunk.
const RETRY: Backoff = Backoff {
    first: Millis::from_secs(1),
    cap: Millis::from_secs(60),
};
/// Wait between two requests to the server to publish chunks again: each is a numbered event.
const ASK: Backoff = Backoff {
    first: Millis::from_secs(60),
    cap: Millis::from_secs(1800),
};
/// Silent tries, and wrong chunks, after which the server is asked to publish again.
const ASK_AFTER: u32 = 2;
/// Runs of missing chunks named in one go.
const MAX_ASKS: usize = 4;
/// Wrong copies of one chunk after which the transfer is given up: they cost the user's data.
pub const MAX_REFUSALS: u32 = 5;
/// Failed writes of one chunk after which the transfer is given up: the disk is full or broken.
pub const MAX_WRITE_FAILURES: u32 = 3;
/// Refusals reported per transfer; more tell nothing new and would fill the outbox.
pub const MAX_REPORTED: u32 = 16;
/// Chunks active or parked at a time: enough to go on while some are missing, and no more state than that.
const MAX_TRACKED: usize = 64;

/// The signed digests of an object's chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkHashes(Vec<Digest>);

/// A chunk list does not fit its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunk list has {actual} bytes, {expected} are needed for {chunks} chunks")]
pub struct ChunkHashesError {
    /// Chunks of the object.
    pub chunks: u32,
    /// Bytes needed.
    pub expected: usize,
    /// Bytes given.
    pub actual: usize,
}

impl ChunkHashes {
    /// Parses a chunk list: 32 bytes for each chunk of an object cut as `map`, in order.
    pub fn parse(bytes: &[u8], map: ChunkMap) -> Result<Self, ChunkHashesError> {
        let (hashes, rest) = bytes.as_chunks::<32>();
        if hashes.len() != map.count() as usize || !rest.is_empty() {
            return Err(ChunkHashesError {
                chunks: map.count(),
                expected: map.count() as usize * 32,
                actual: bytes.len(),
            });
        }
        Ok(Self(hashes.iter().copied().map(Digest).collect()))
    }

    /// Whether `bytes` are chunk `index`.
    pub fn matches(&self, index: u32, bytes: &[u8]) -> bool {
        self.0.get(index as usize) == Some(&Digest::of(bytes))
    }
}

/// How many chunks may be subscribed or unwritten at a time: 2 to 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window(u8);

impl Default for Window {
    /// 8: half a megabyte in flight fills any link a device has.
    fn default() -> Self {
        Self(8)
    }
}

impl Window {
    /// `chunks`, if it is within the bounds.
    pub const fn new(chunks: u8) -> Option<Self> {
        match chunks {
            2..=16 => Some(Self(chunks)),
            _ => None,
        }
    }

    /// The number.
    pub const fn chunks(self) -> usize {
        self.0 as usize
    }
}

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
    /// Subscribe to this chunk's topic, QoS 1.
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
        detail: Detail,
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
}

/// Effects in order.
pub type Effects = Vec<Effect>;

/// The history of one chunk that is not done.
#[derive(Clone, Copy, Debug)]
struct Tried {
    index: u32,
    silences: u32,
    refusals: u32,
    write_failures: u32,
}

impl Tried {
    const fn wants_republishing(&self) -> bool {
        self.silences >= ASK_AFTER || self.refusals >= ASK_AFTER
    }
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Subscribed: the message is due.
    Awaited { deadline: Millis },
    /// Handed to the disk; `subscribed` still, in this session.
    Writing { subscribed: bool },
}

#[derive(Clone, Copy, Debug)]
struct Active {
    chunk: Tried,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
struct Parked {
    chunk: Tried,
    until: Millis,
}

/// The download of one object.
#[derive(Debug)]
pub struct Transfer {
    object: ObjectRef,
    map: ChunkMap,
    hashes: Option<ChunkHashes>,
    have: ChunkSet,
    window: Window,
    jitter: Jitter,
    connected: bool,
    ended: bool,
    /// At most `window`.
    active: Vec<Active>,
    /// With `active` at most [`MAX_TRACKED`].
    parked: Vec<Parked>,
    /// Every missing chunk below is active or parked.
    fresh_from: u32,
    asks: u32,
    next_ask: Millis,
    /// When the last right chunk came, or the session began.
    last_arrival: Millis,
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
        window: Window,
        jitter: Jitter,
    ) -> Result<Self, ChunkMapError> {
        let map = ChunkMap::new(object.size)?;
        let have = if have.count() == map.count() {
            have
        } else {
            ChunkSet::empty(map)
        };
        Ok(Self {
            object,
            map,
            hashes,
            have,
            window,
            jitter,
            connected: false,
            ended: false,
            active: Vec::with_capacity(window.chunks()),
            parked: Vec::new(),
            fresh_from: 0,
            asks: 0,
            next_ask: Millis(0),
            last_arrival: Millis(0),
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
                self.disconnected();
                self.connected = true;
                self.last_arrival = now;
            }
            Input::Disconnected => self.disconnected(),
            Input::Subscribed(index) => self.subscribed(now, index),
            Input::Chunk { index, bytes } => self.arrived(now, index, bytes, &mut effects),
            Input::Written(index) => self.written(index, &mut effects),
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

    /// When [`Input::Tick`] is due; none while there is nothing to wait for but the session or the disk.
    pub fn next_deadline(&self) -> Option<Millis> {
        if self.ended || !self.connected {
            return None;
        }
        let awaited = self.active.iter().filter_map(|active| match active.stage {
            Stage::Awaited { deadline } => Some(deadline),
            Stage::Writing { .. } => None,
        });
        // A parked chunk that is due, but for which there is no place, waits for the active ones.
        let free = self.active.len() < self.window.chunks();
        let parked = self.parked.iter().filter(|_| free).map(|parked| parked.until);
        let ask = self.wanting().next().map(|_| self.next_ask);
        awaited.chain(parked).chain(ask).min()
    }

    fn disconnected(&mut self) {
        self.connected = false;
        let (writing, awaited): (Vec<Active>, Vec<Active>) = self
            .active
            .drain(..)
            .partition(|active| matches!(active.stage, Stage::Writing { .. }));
        self.active.extend(writing.into_iter().map(|active| Active {
            stage: Stage::Writing { subscribed: false },
            ..active
        }));
        // Due at once in the next session; a cut is not the chunk's fault.
        self.parked.extend(awaited.into_iter().map(|active| Parked {
            chunk: active.chunk,
            until: Millis(0),
        }));
    }

    /// The wait for the message starts again with the broker's confirmation.
    fn subscribed(&mut self, now: Millis, index: u32) {
        for active in self
            .active
            .iter_mut()
            .filter(|active| active.chunk.index == index)
        {
            if let Stage::Awaited { deadline } = &mut active.stage {
                *deadline = after(now, SILENCE.full(active.chunk.silences + 1));
            }
        }
    }

    fn arrived(&mut self, now: Millis, index: u32, bytes: &[u8], effects: &mut Effects) {
        if self.have.contains(index) || self.is_writing(index) {
            return;
        }
        let Some((chunk, subscribed)) = self.tracked(index) else {
            self.report(index, "it was not asked for", effects);
            return;
        };
        match self.check(index, bytes) {
            Ok(()) => self.accept(now, chunk, subscribed, effects),
            Err(detail) => self.refuse(now, chunk, subscribed, &detail, effects),
        }
    }

    fn accept(&mut self, now: Millis, chunk: Tried, subscribed: bool, effects: &mut Effects) {
        if !subscribed && self.active.len() >= self.window.chunks() {
            // A late answer to a subscription given up: no place to hold it now.
            return;
        }
        self.untrack(chunk.index);
        self.last_arrival = now;
        for other in &mut self.active {
            if let Stage::Awaited { deadline } = &mut other.stage {
                *deadline = (*deadline).max(after(now, SILENCE.full(other.chunk.silences + 1)));
            }
        }
        self.active.push(Active {
            chunk,
            stage: Stage::Writing { subscribed },
        });
        effects.push(Effect::Write { index: chunk.index });
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
            return;
        }
        let until = after(now, RETRY.wait(chunk.refusals, &mut self.jitter));
        self.park(chunk, until, subscribed, effects);
    }

    fn written(&mut self, index: u32, effects: &mut Effects) {
        let Some((_, subscribed)) = self.take_writing(index) else {
            return;
        };
        self.have.insert(index);
        self.asks = 0;
        if subscribed {
            effects.push(Effect::Unsubscribe(index));
        }
    }

    fn write_failed(&mut self, now: Millis, index: u32, effects: &mut Effects) {
        let Some((mut chunk, subscribed)) = self.take_writing(index) else {
            return;
        };
        chunk.write_failures += 1;
        if chunk.write_failures >= MAX_WRITE_FAILURES {
            if subscribed {
                effects.push(Effect::Unsubscribe(index));
            }
            self.give_up(Stall::WriteFailed { index }, effects);
            return;
        }
        let until = after(now, RETRY.wait(chunk.write_failures, &mut self.jitter));
        self.park(chunk, until, subscribed, effects);
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
        if self.connected {
            self.expire(now, effects);
            self.ask(now, effects);
            self.fill(now, effects);
        }
    }

    fn expire(&mut self, now: Millis, effects: &mut Effects) {
        let silent: Vec<Tried> = self
            .active
            .iter()
            .filter(|active| matches!(active.stage, Stage::Awaited { deadline } if deadline <= now))
            .map(|active| active.chunk)
            .collect();
        for mut chunk in silent {
            chunk.silences = chunk.silences.saturating_add(1);
            let until = after(now, RETRY.wait(chunk.silences, &mut self.jitter));
            self.park(chunk, until, true, effects);
        }
    }

    /// Asks for what was silent or wrong too often. When that is a window or more and nothing else came
    /// either, the broker has lost more than what was tried, and the last run goes on as far as chunks
    /// are missing.
    fn ask(&mut self, now: Millis, effects: &mut Effects) {
        if now < self.next_ask {
            return;
        }
        let mut wanted: Vec<u32> = self.wanting().map(|chunk| chunk.index).collect();
        if wanted.is_empty() {
            return;
        }
        wanted.sort_unstable();
        let quiet = now >= after(self.last_arrival, SILENCE.full(ASK_AFTER));
        if let Some(last) = wanted.last().copied()
            && quiet
            && wanted.len() >= self.window.chunks()
        {
            wanted.extend((last + 1..self.map.count()).take_while(|index| !self.have.contains(*index)));
        }
        let runs = wanted.chunk_by(|left, right| left + 1 == *right);
        for run in runs.take(MAX_ASKS) {
            let Some(first) = run.first().copied() else {
                continue;
            };
            effects.push(Effect::AskRepublish {
                first,
                count: run.len() as u32,
            });
        }
        self.asks += 1;
        self.next_ask = after(now, ASK.wait(self.asks, &mut self.jitter));
    }

    fn fill(&mut self, now: Millis, effects: &mut Effects) {
        while self.active.len() < self.window.chunks() {
            // Chunks that the broker seems to lack come last, so that they do not hold up the others.
            let promising = self.next_due(now, |chunk| !chunk.wants_republishing());
            let Some(chunk) = promising
                .or_else(|| self.next_fresh())
                .or_else(|| self.next_due(now, Tried::wants_republishing))
            else {
                break;
            };
            let deadline = after(now, SILENCE.full(chunk.silences + 1));
            effects.push(Effect::Subscribe(chunk.index));
            self.active.push(Active {
                chunk,
                stage: Stage::Awaited { deadline },
            });
        }
    }

    fn next_due(&mut self, now: Millis, which: impl Fn(&Tried) -> bool) -> Option<Tried> {
        let due = self
            .parked
            .iter()
            .enumerate()
            .filter(|(_, parked)| parked.until <= now && which(&parked.chunk));
        let (at, _) = due.min_by_key(|(_, parked)| parked.chunk.index)?;
        Some(self.parked.swap_remove(at).chunk)
    }

    fn next_fresh(&mut self) -> Option<Tried> {
        if self.active.len() + self.parked.len() >= MAX_TRACKED {
            return None;
        }
        while self.fresh_from < self.map.count() {
            let index = self.fresh_from;
            self.fresh_from += 1;
            if !self.have.contains(index) {
                return Some(Tried {
                    index,
                    silences: 0,
                    refusals: 0,
                    write_failures: 0,
                });
            }
        }
        None
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

    fn report(&mut self, index: u32, detail: &str, effects: &mut Effects) {
        if self.reported < MAX_REPORTED {
            self.reported += 1;
            let text = format!("chunk {index} of {}: {detail}", self.object.digest);
            effects.push(Effect::Refuse {
                index,
                detail: Detail::new(&text),
            });
        }
    }

    /// Moves a chunk to the parked ones, letting go of its subscription if it has one.
    fn park(&mut self, chunk: Tried, until: Millis, subscribed: bool, effects: &mut Effects) {
        self.untrack(chunk.index);
        if subscribed {
            effects.push(Effect::Unsubscribe(chunk.index));
        }
        self.parked.push(Parked { chunk, until });
    }

    fn give_up(&mut self, stall: Stall, effects: &mut Effects) {
        self.end(effects);
        effects.push(Effect::Stalled(stall));
    }

    fn end(&mut self, effects: &mut Effects) {
        self.ended = true;
        for active in self.active.drain(..) {
            match active.stage {
                Stage::Awaited { .. } | Stage::Writing { subscribed: true } => {
                    effects.push(Effect::Unsubscribe(active.chunk.index));
                }
                Stage::Writing { subscribed: false } => {}
            }
        }
    }

    fn is_writing(&self, index: u32) -> bool {
        let writing = |active: &Active| matches!(active.stage, Stage::Writing { .. });
        self.active
            .iter()
            .any(|active| active.chunk.index == index && writing(active))
    }

    /// An awaited or parked chunk, and whether it is subscribed.
    fn tracked(&self, index: u32) -> Option<(Tried, bool)> {
        let active = self.active.iter().map(|active| (active.chunk, true));
        let parked = self.parked.iter().map(|parked| (parked.chunk, false));
        active.chain(parked).find(|(chunk, _)| chunk.index == index)
    }

    fn untrack(&mut self, index: u32) {
        self.active.retain(|active| active.chunk.index != index);
        self.parked.retain(|parked| parked.chunk.index != index);
    }

    /// Takes out a chunk that is being written, and whether it is subscribed.
    fn take_writing(&mut self, index: u32) -> Option<(Tried, bool)> {
        let at = self
            .active
            .iter()
            .position(|active| active.chunk.index == index)?;
        match self.active.get(at)?.stage {
            Stage::Writing { subscribed } => Some((self.active.swap_remove(at).chunk, subscribed)),
            Stage::Awaited { .. } => None,
        }
    }

    /// Chunks for which the server should be asked, in no order.
    fn wanting(&self) -> impl Iterator<Item = &Tried> {
        let awaited = |active: &&Active| matches!(active.stage, Stage::Awaited { .. });
        let active = self.active.iter().filter(awaited).map(|active| &active.chunk);
        let parked = self.parked.iter().map(|parked| &parked.chunk);
        active.chain(parked).filter(|chunk| chunk.wants_republishing())
    }
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
