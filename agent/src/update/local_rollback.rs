//! Whether the active release breaks the policy that its owner signed for devices on their own. Pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serin_protocol::ids::{BasisPoints, Millis};
use serin_protocol::manifest::{CollapseLimit, ErrorLimit, LocalRollback};
use serin_protocol::message::Reason;
use serin_protocol::sketch::MAX_BINS;

use crate::telemetry::Conduct;

/// Watches one release by its policy.
///
/// What it does is looked at in blocks, each of as many requests as the policy asks for at least and as few as come
/// between two looks: what went well long ago does not hide what goes wrong now.
#[derive(Clone, Debug)]
pub struct Guard {
    policy: LocalRollback,
    /// What it had done when the open block of each kind began.
    errors_from: Conduct,
    classes_from: Conduct,
    /// Since when every block has been a collapse.
    collapsed_since: Option<Millis>,
}

impl Guard {
    /// For a release with `policy`, which has done `so_far` before it is watched.
    pub const fn new(policy: LocalRollback, so_far: Conduct) -> Self {
        Self { policy, errors_from: so_far, classes_from: so_far, collapsed_since: None }
    }

    /// How the policy is broken by what was done until `now`, on the monotonic clock, if it is.
    pub fn look(&mut self, now: Millis, done: &Conduct) -> Option<Reason> {
        let errors = self.policy.errors.and_then(|limit| self.too_many_errors(limit, done));
        let collapse = self.policy.collapse.and_then(|limit| self.collapsed(limit, now, done));
        errors.or(collapse)
    }

    fn too_many_errors(&mut self, limit: ErrorLimit, done: &Conduct) -> Option<Reason> {
        let block = done.counters.since(self.errors_from.counters);
        if block.requests < u64::from(limit.requests) {
            return None;
        }
        self.errors_from = *done;
        let count = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let (errors, requests) = (count(block.errors), count(block.requests));
        exceeds(block.errors, block.requests, limit.share)
            .then_some(Reason::TooManyErrors { errors, requests })
    }

    fn collapsed(&mut self, limit: CollapseLimit, now: Millis, done: &Conduct) -> Option<Reason> {
        let mut block = [0_u64; MAX_BINS];
        let before = self.classes_from.classes;
        for (count, (now, before)) in block.iter_mut().zip(done.classes.iter().zip(before)) {
            *count = now.saturating_sub(before);
        }
        let predictions: u64 = block.iter().sum();
        if predictions < u64::from(limit.predictions) {
            return None;
        }
        self.classes_from = *done;
        let (class, most) = block.iter().copied().enumerate().max_by_key(|(_, count)| *count)?;
        if !exceeds(most, predictions, limit.share) {
            self.collapsed_since = None;
            return None;
        }
        let since = *self.collapsed_since.get_or_insert(now);
        (now.0.saturating_sub(since.0) >= limit.hold.0).then(|| Reason::Collapsed {
            class: u16::try_from(class).unwrap_or(u16::MAX),
            share: BasisPoints::ratio(most, predictions),
            predictions: u32::try_from(predictions).unwrap_or(u32::MAX),
        })
    }
}

/// Whether `part` is a larger share of `whole` than allowed.
fn exceeds(part: u64, whole: u64, allowed: BasisPoints) -> bool {
    u128::from(part) * 10_000 > u128::from(whole) * u128::from(allowed.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Counters;
    use proptest::prelude::*;

    const NOTHING: Conduct =
        Conduct { counters: Counters { requests: 0, errors: 0, refused: 0 }, classes: [0; MAX_BINS] };

    fn errors(share: u16, requests: u32) -> LocalRollback {
        LocalRollback { errors: Some(ErrorLimit { share: BasisPoints(share), requests }), collapse: None }
    }

    fn collapse(share: u16, predictions: u32, hold: u64) -> LocalRollback {
        let limit = CollapseLimit { share: BasisPoints(share), predictions, hold: Millis(hold) };
        LocalRollback { errors: None, collapse: Some(limit) }
    }

    /// More of the same: requests, errors, and predictions by class.
    fn after(mut so_far: Conduct, requests: u64, errors: u64, classes: &[u64]) -> Conduct {
        so_far.counters.requests += requests;
        so_far.counters.errors += errors;
        so_far.classes.iter_mut().zip(classes).for_each(|(count, more)| *count += more);
        so_far
    }

    #[test]
    fn errors_count_once_there_are_requests_enough() {
        let mut guard = Guard::new(errors(500, 100), NOTHING);
        let few = after(NOTHING, 99, 99, &[]);
        assert_eq!(guard.look(Millis(0), &few), None);
        let enough = after(few, 1, 0, &[]);
        let reason = Reason::TooManyErrors { errors: 99, requests: 100 };
        assert_eq!(guard.look(Millis(0), &enough), Some(reason));
        // Five of a hundred are allowed.
        let fine = after(enough, 100, 5, &[]);
        assert_eq!(guard.look(Millis(0), &fine), None);
    }

    #[test]
    fn a_good_past_does_not_hide_a_bad_present() {
        let past = after(NOTHING, 1_000_000, 0, &[]);
        let mut guard = Guard::new(errors(500, 100), past);
        let good = after(past, 100_000, 0, &[]);
        assert_eq!(guard.look(Millis(0), &good), None);
        assert!(guard.look(Millis(1), &after(good, 100, 50, &[])).is_some());
    }

    #[test]
    fn a_collapse_must_hold() {
        let mut guard = Guard::new(collapse(9_000, 10, 1000), NOTHING);
        let one = after(NOTHING, 10, 0, &[0, 10]);
        assert_eq!(guard.look(Millis(0), &one), None);
        let two = after(one, 10, 0, &[0, 10]);
        assert_eq!(guard.look(Millis(999), &two), None);
        let three = after(two, 10, 0, &[0, 10]);
        let reason = Reason::Collapsed { class: 1, share: BasisPoints::WHOLE, predictions: 10 };
        assert_eq!(guard.look(Millis(1000), &three), Some(reason));
    }

    #[test]
    fn a_block_that_is_none_ends_the_collapse() {
        let mut guard = Guard::new(collapse(9_000, 10, 1000), NOTHING);
        let one = after(NOTHING, 10, 0, &[0, 10]);
        assert_eq!(guard.look(Millis(0), &one), None);
        let mixed = after(one, 10, 0, &[1, 9]);
        assert_eq!(guard.look(Millis(500), &mixed), None, "nine of ten are allowed");
        let again = after(mixed, 10, 0, &[10]);
        assert_eq!(guard.look(Millis(1500), &again), None, "it begins anew");
        assert!(guard.look(Millis(2500), &after(again, 10, 0, &[10])).is_some(), "whichever class it is");
    }

    proptest! {
        #[test]
        fn what_keeps_to_the_policy_is_never_taken_back(
            steps in prop::collection::vec((0_u64..400, 0_u64..2000), 1..60)
        ) {
            let policy = LocalRollback { collapse: collapse(6_000, 50, 0).collapse, ..errors(5_000, 20) };
            let mut guard = Guard::new(policy, NOTHING);
            let (mut done, mut now) = (NOTHING, 0);
            for (requests, passed) in steps {
                now += passed;
                // A half fails, and the rest is spread evenly.
                done = after(done, requests * 2, requests, &[requests, requests]);
                prop_assert_eq!(guard.look(Millis(now), &done), None);
            }
        }
    }
}
