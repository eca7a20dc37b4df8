//! The chunks that are neither written nor untouched. A chunk is *active* while it is awaited or being
//! written, *parked* while it waits for another try. Parked chunks do not hold up the others.

use serin_protocol::chunk::ChunkSet;
use serin_protocol::ids::Millis;

use super::Window;
use crate::link::backoff::{Backoff, after};

/// How long a subscription may stay silent before it is tried again; doubled at every try, because a
/// slow link is no reason to send everything twice. Any chunk that arrives renews the patience with all.
const SILENCE: Backoff = Backoff { first: Millis::from_secs(10), cap: Millis::from_secs(120) };
/// Silent tries, and wrong chunks, after which the server is asked to publish again.
const ASK_AFTER: u32 = 2;
/// Chunks active or parked at a time: enough to go on while some are missing, and no more state than that.
pub(super) const MAX_TRACKED: usize = 64;

/// The history of one chunk that is not written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tried {
    pub(super) index: u32,
    pub(super) silences: u32,
    pub(super) refusals: u32,
    pub(super) write_failures: u32,
}

impl Tried {
    const fn never(index: u32) -> Self {
        Self { index, silences: 0, refusals: 0, write_failures: 0 }
    }

    pub(super) const fn wants_republishing(&self) -> bool {
        self.silences >= ASK_AFTER || self.refusals >= ASK_AFTER
    }

    fn deadline(&self, now: Millis) -> Millis {
        after(now, SILENCE.full(self.silences + 1))
    }
}

/// Where a chunk is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    /// Subscribed: its message is due.
    Awaited(Tried),
    /// Not subscribed: waiting for another try.
    Parked(Tried),
    /// Handed to the disk.
    Writing,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Awaited { deadline: Millis },
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

#[derive(Debug)]
pub(super) struct Tracker {
    window: Window,
    /// At most `window`.
    active: Vec<Active>,
    /// With `active` at most [`MAX_TRACKED`].
    parked: Vec<Parked>,
    /// Every missing chunk below is active or parked.
    fresh_from: u32,
}

impl Tracker {
    pub(super) fn new(window: Window) -> Self {
        Self { window, active: Vec::with_capacity(window.chunks()), parked: Vec::new(), fresh_from: 0 }
    }

    pub(super) const fn has_place(&self) -> bool {
        self.active.len() < self.window.chunks()
    }

    pub(super) fn find(&self, index: u32) -> Option<Found> {
        let active = self.active.iter().map(|active| match active.stage {
            Stage::Awaited { .. } => (active.chunk.index, Found::Awaited(active.chunk)),
            Stage::Writing { .. } => (active.chunk.index, Found::Writing),
        });
        let parked = self.parked.iter().map(|parked| (parked.chunk.index, Found::Parked(parked.chunk)));
        let found = active.chain(parked).find(|(found, _)| *found == index);
        found.map(|(_, found)| found)
    }

    /// Begins to wait for a chunk; the caller has made sure of a place.
    pub(super) fn await_message(&mut self, now: Millis, chunk: Tried) {
        let deadline = chunk.deadline(now);
        self.put(chunk, Stage::Awaited { deadline });
    }

    /// A chunk came: it goes to the disk. A sign that the link is alive, so that the others are given more
    /// time.
    pub(super) fn write(&mut self, now: Millis, chunk: Tried, subscribed: bool) {
        self.put(chunk, Stage::Writing { subscribed });
        for active in &mut self.active {
            if let Stage::Awaited { deadline } = &mut active.stage {
                *deadline = (*deadline).max(active.chunk.deadline(now));
            }
        }
    }

    /// Takes out a chunk that was being written, and whether it is still subscribed.
    pub(super) fn take_written(&mut self, index: u32) -> Option<(Tried, bool)> {
        let at = self.active.iter().position(|active| active.chunk.index == index)?;
        match self.active.get(at)?.stage {
            Stage::Writing { subscribed } => Some((self.active.swap_remove(at).chunk, subscribed)),
            Stage::Awaited { .. } => None,
        }
    }

    pub(super) fn park(&mut self, chunk: Tried, until: Millis) {
        self.remove(chunk.index);
        self.parked.push(Parked { chunk, until });
    }

    /// The wait for the message starts again with the broker's confirmation.
    pub(super) fn confirmed(&mut self, now: Millis, index: u32) {
        for active in self.active.iter_mut().filter(|active| active.chunk.index == index) {
            if let Stage::Awaited { deadline } = &mut active.stage {
                *deadline = active.chunk.deadline(now);
            }
        }
    }

    /// All subscriptions are gone. What was awaited is due at once in the next session: a cut is not the
    /// chunk's fault.
    pub(super) fn disconnected(&mut self) {
        for active in std::mem::take(&mut self.active) {
            match active.stage {
                Stage::Awaited { .. } => self.park(active.chunk, Millis(0)),
                Stage::Writing { .. } => self.put(active.chunk, Stage::Writing { subscribed: false }),
            }
        }
    }

    /// Awaited chunks whose message is overdue.
    pub(super) fn overdue(&self, now: Millis) -> Vec<Tried> {
        let overdue =
            |active: &&Active| matches!(active.stage, Stage::Awaited { deadline } if deadline <= now);
        self.active.iter().filter(overdue).map(|active| active.chunk).collect()
    }

    /// Chunks for which the server should be asked, in no order.
    pub(super) fn wanting(&self) -> impl Iterator<Item = &Tried> {
        let awaited = |active: &&Active| matches!(active.stage, Stage::Awaited { .. });
        let active = self.active.iter().filter(awaited).map(|active| &active.chunk);
        let parked = self.parked.iter().map(|parked| &parked.chunk);
        active.chain(parked).filter(|chunk| chunk.wants_republishing())
    }

    /// The chunk to try next. Those that the broker seems to lack come last.
    pub(super) fn next(&mut self, now: Millis, have: &ChunkSet) -> Option<Tried> {
        self.next_due(now, |chunk| !chunk.wants_republishing())
            .or_else(|| self.next_fresh(have))
            .or_else(|| self.next_due(now, Tried::wants_republishing))
    }

    /// When something is due; a parked chunk without a place waits for the active ones.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        let awaited = self.active.iter().filter_map(|active| match active.stage {
            Stage::Awaited { deadline } => Some(deadline),
            Stage::Writing { .. } => None,
        });
        let parked = self.parked.iter().filter(|_| self.has_place());
        awaited.chain(parked.map(|parked| parked.until)).min()
    }

    /// What is subscribed.
    pub(super) fn subscribed(&self) -> Vec<u32> {
        let subscribed = |active: &&Active| match active.stage {
            Stage::Awaited { .. } => true,
            Stage::Writing { subscribed } => subscribed,
        };
        self.active.iter().filter(subscribed).map(|active| active.chunk.index).collect()
    }

    /// Forgets everything; returns what is subscribed.
    pub(super) fn clear(&mut self) -> Vec<u32> {
        let subscribed = self.subscribed();
        self.parked.clear();
        self.active.clear();
        subscribed
    }

    #[cfg(test)]
    pub(super) const fn sizes(&self) -> (usize, usize) {
        (self.active.len(), self.parked.len())
    }

    fn put(&mut self, chunk: Tried, stage: Stage) {
        self.remove(chunk.index);
        self.active.push(Active { chunk, stage });
    }

    fn remove(&mut self, index: u32) {
        self.active.retain(|active| active.chunk.index != index);
        self.parked.retain(|parked| parked.chunk.index != index);
    }

    fn next_due(&mut self, now: Millis, which: impl Fn(&Tried) -> bool) -> Option<Tried> {
        let due = |(_, parked): &(usize, &Parked)| parked.until <= now && which(&parked.chunk);
        let (at, _) =
            self.parked.iter().enumerate().filter(due).min_by_key(|(_, parked)| parked.chunk.index)?;
        Some(self.parked.swap_remove(at).chunk)
    }

    fn next_fresh(&mut self, have: &ChunkSet) -> Option<Tried> {
        if self.active.len() + self.parked.len() >= MAX_TRACKED {
            return None;
        }
        let index = (self.fresh_from..have.count()).find(|index| !have.contains(*index));
        self.fresh_from = index.map_or(have.count(), |index| index + 1);
        index.map(Tried::never)
    }
}
