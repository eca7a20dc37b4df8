//! When the agent gives back memory that what it did last took: a worker's start, a download, a report, an engineer's
//! question. Pure.

use serin_protocol::ids::Millis;

/// So long after the first such work: what follows soon needs the same pages.
const AFTER: Millis = Millis(10_000);

/// Whether anything is to be given back, and when.
#[derive(Debug)]
pub(super) struct Settling {
    at: Option<Millis>,
}

impl Settling {
    /// Starting is the first work.
    pub(super) const fn new(now: Millis) -> Self {
        Self { at: Some(now.plus(AFTER)) }
    }

    /// Something was done.
    pub(super) fn worked(&mut self, now: Millis) {
        self.at.get_or_insert(now.plus(AFTER));
    }

    /// When to give back, if there is anything.
    pub(super) const fn deadline(&self) -> Option<Millis> {
        self.at
    }

    /// Whether to give back now: once after all that was done.
    pub(super) fn due(&mut self, now: Millis) -> bool {
        self.at.take_if(|at| *at <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_and_by_work_without_end_from_time_to_time() {
        let mut settling = Settling::new(Millis(0));
        assert!(!settling.due(Millis(9_999)));
        assert!(settling.due(Millis(10_000)));
        assert!(!settling.due(Millis(60_000)), "nothing was done");
        let busy = (60_000..120_000).filter(|now| {
            settling.worked(Millis(*now));
            settling.due(Millis(*now))
        });
        assert_eq!(busy.count(), 5);
    }
}
