//! What a release has cost since the agent started, for the statistics that apps may ask for. Pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serin_protocol::ids::UnixMillis;

/// Sums over inferences; times in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    /// Inferences answered.
    pub answered: u64,
    /// Inferences that failed.
    pub failed: u64,
    /// Rows answered.
    pub rows: u64,
    /// Runs of the worker. Fewer than inferences where those that waited were run together.
    pub runs: u64,
    /// Waiting for the worker, over answered inferences.
    pub waited_micros: u64,
    /// In pipeline and model, over answered inferences; each counts its whole run.
    pub computed_micros: u64,
    /// From question to answer, over answered inferences.
    pub answered_micros: u64,
    /// From question to failure, over failed inferences.
    pub failed_micros: u64,
    /// When the last inference ended, by the device's clock.
    pub last: Option<UnixMillis>,
}

impl Effort {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            answered: self.answered.saturating_add(other.answered),
            failed: self.failed.saturating_add(other.failed),
            rows: self.rows.saturating_add(other.rows),
            runs: self.runs.saturating_add(other.runs),
            waited_micros: self.waited_micros.saturating_add(other.waited_micros),
            computed_micros: self.computed_micros.saturating_add(other.computed_micros),
            answered_micros: self.answered_micros.saturating_add(other.answered_micros),
            failed_micros: self.failed_micros.saturating_add(other.failed_micros),
            last: self.last.max(other.last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_stay_at_their_bounds_and_the_last_time_wins() {
        let full = Effort { rows: u64::MAX, runs: 1, last: Some(UnixMillis(5)), ..Effort::default() };
        let more =
            Effort { rows: 7, runs: 2, failed_micros: 3, last: Some(UnixMillis(4)), ..Effort::default() };
        let sum = full.plus(more);
        assert_eq!((sum.rows, sum.runs, sum.failed_micros, sum.last), (u64::MAX, 3, 3, Some(UnixMillis(5))));
        assert_eq!(Effort::default().plus(more), more);
    }
}
