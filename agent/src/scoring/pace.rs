//! How many rows a request has: as many as the model answers in about a second. It begins with one, so that not even the
//! first request is more than a worker takes.

use std::time::Duration;

/// The longest an answer should take: well below the deadline at which a worker counts as hung (5 s unless configured),
/// and whoever else asks the model waits no longer behind it.
const AIM: Duration = Duration::from_secs(1);

/// How many rows to ask about at once.
#[derive(Debug)]
pub(super) struct Pace {
    rows: usize,
    /// More than these killed a worker by their number.
    most: usize,
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self { rows: 1, most: usize::MAX }
    }

    /// Rows of the next request.
    pub(super) const fn rows(&self) -> usize {
        self.rows
    }

    /// A request of `rows` rows was answered in `took`.
    pub(super) fn answered(&mut self, rows: usize, took: Duration) {
        if took > AIM {
            self.rows = (rows.min(self.rows) / 2).max(1);
        } else if rows >= self.rows && took < AIM / 4 {
            // Twice as many take half of the aim, then; between that and the aim it is as it should be.
            self.rows = rows.saturating_mul(2).min(self.most);
        }
    }

    /// A worker died of a request.
    pub(super) const fn died(&mut self) {
        self.rows = 1;
    }

    /// A worker died of `rows` rows, none of which killed one alone.
    pub(super) fn too_many(&mut self, rows: usize) {
        self.most = self.most.min(rows / 2).max(1);
        self.rows = self.rows.min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(3);

    #[test]
    fn a_fast_model_is_soon_asked_about_many_rows_and_a_slow_one_about_few() {
        let mut pace = Pace::new();
        let mut requests = 0;
        while pace.rows() < 256 {
            pace.answered(pace.rows(), FAST);
            requests += 1;
        }
        assert_eq!(requests, 8);
        pace.answered(256, Duration::from_millis(1100));
        assert_eq!(pace.rows(), 128);
        pace.answered(128, Duration::from_millis(550));
        assert_eq!(pace.rows(), 128);
        // Fewer rows than it might be say nothing of as many.
        pace.answered(5, FAST);
        assert_eq!(pace.rows(), 128);
        pace.answered(1, Duration::from_secs(4));
        assert_eq!(pace.rows(), 1);
    }

    #[test]
    fn as_many_rows_as_killed_a_worker_are_not_asked_about_again() {
        let mut pace = Pace::new();
        (0..6).for_each(|_| pace.answered(pace.rows(), FAST));
        assert_eq!(pace.rows(), 64);
        pace.died();
        assert_eq!(pace.rows(), 1);
        pace.too_many(64);
        (0..9).for_each(|_| pace.answered(pace.rows(), FAST));
        assert_eq!(pace.rows(), 32);
    }
}
