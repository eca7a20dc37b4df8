//! The machine behind every alert: how long something must be bad before it rings, and how long good before it is
//! over. A signal that is neither leaves a quiet alert quiet and a ringing one ringing.

use serde::{Deserialize, Serialize};
use serin_protocol::ids::{Millis, UnixMillis};

/// What one look showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Beyond the limit.
    Bad,
    /// Within the limit, but not beyond the one at which an alert clears.
    Between,
    /// Clear of both.
    Good,
    /// There was nothing to judge.
    Unknown,
}

/// Where an alert stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Standing {
    /// Nothing is wrong.
    #[default]
    Quiet,
    /// Bad, not yet for long enough.
    Pending {
        /// Since then.
        since: UnixMillis,
    },
    /// It rings.
    Firing {
        /// Since then.
        since: UnixMillis,
    },
    /// It rings, and has been good for a while, not yet for long enough.
    Clearing {
        /// It rings since then.
        since: UnixMillis,
        /// Good since then.
        good: UnixMillis,
    },
}

impl Standing {
    /// Where it stands after a look. `hold`: how long it must be bad before it rings; `clear`: how long good before
    /// that is over. Unknown changes nothing but that what was clearing has to begin again.
    #[must_use]
    pub fn step(self, now: UnixMillis, signal: Signal, hold: Millis, clear: Millis) -> Self {
        match (self, signal) {
            (Self::Quiet, Signal::Bad) if hold == Millis(0) => Self::Firing { since: now },
            (Self::Quiet, Signal::Bad) => Self::Pending { since: now },
            (Self::Pending { since }, Signal::Bad) if now.since(since) >= hold => Self::Firing { since: now },
            (Self::Firing { since }, Signal::Good) if clear > Millis(0) => {
                Self::Clearing { since, good: now }
            }
            (Self::Clearing { since, .. }, Signal::Bad | Signal::Between | Signal::Unknown) => {
                Self::Firing { since }
            }
            (Self::Clearing { since, good }, Signal::Good) if now.since(good) < clear => {
                Self::Clearing { since, good }
            }
            (Self::Pending { .. }, Signal::Bad | Signal::Unknown)
            | (Self::Firing { .. }, Signal::Bad | Signal::Between | Signal::Unknown) => self,
            (Self::Quiet, Signal::Between | Signal::Good | Signal::Unknown)
            | (Self::Pending { .. }, Signal::Between | Signal::Good)
            | (Self::Firing { .. } | Self::Clearing { .. }, Signal::Good) => Self::Quiet,
        }
    }

    /// Since when it rings, if it does.
    pub const fn firing(self) -> Option<UnixMillis> {
        match self {
            Self::Firing { since } | Self::Clearing { since, .. } => Some(since),
            Self::Quiet | Self::Pending { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOLD: Millis = Millis(10);
    const CLEAR: Millis = Millis(20);

    fn after(steps: &[(u64, Signal)]) -> Standing {
        let step = |standing: Standing, (at, signal): &(u64, Signal)| {
            standing.step(UnixMillis(*at), *signal, HOLD, CLEAR)
        };
        steps.iter().fold(Standing::default(), step)
    }

    #[test]
    fn it_rings_only_after_it_was_bad_for_long_enough() {
        assert_eq!(after(&[(1, Signal::Bad)]), Standing::Pending { since: UnixMillis(1) });
        assert_eq!(after(&[(1, Signal::Bad), (10, Signal::Bad)]).firing(), None);
        assert_eq!(after(&[(1, Signal::Bad), (11, Signal::Bad)]).firing(), Some(UnixMillis(11)));
        let interrupted = [(1, Signal::Bad), (5, Signal::Good), (6, Signal::Bad), (12, Signal::Bad)];
        assert_eq!(after(&interrupted).firing(), None);
    }

    #[test]
    fn it_is_over_only_after_it_was_good_for_long_enough_without_a_break() {
        let fired = [(1, Signal::Bad), (11, Signal::Bad)];
        let then = |more: &[(u64, Signal)]| after(&[&fired, more].concat()).firing();
        assert_eq!(then(&[(12, Signal::Good), (31, Signal::Good)]), Some(UnixMillis(11)));
        assert_eq!(then(&[(12, Signal::Good), (32, Signal::Good)]), None);
        for broken in [Signal::Bad, Signal::Between, Signal::Unknown] {
            let steps = [(12, Signal::Good), (20, broken), (21, Signal::Good), (40, Signal::Good)];
            assert_eq!(then(&steps), Some(UnixMillis(11)), "{broken:?}");
        }
    }

    proptest! {
        /// Whatever comes: it never begins to ring but by a bad look, and never ends but by a good one.
        #[test]
        fn only_bad_looks_ring_and_only_good_ones_end_it(
            looks in prop::collection::vec((0_u64..30, 0_u8..4), 0..200), hold in 0_u64..40, clear in 0_u64..40
        ) {
            let (mut standing, mut now) = (Standing::default(), 0);
            for (step, signal) in looks {
                now += step;
                let signal = match signal {
                    0 => Signal::Bad,
                    1 => Signal::Between,
                    2 => Signal::Good,
                    _ => Signal::Unknown,
                };
                let next = standing.step(UnixMillis(now), signal, Millis(hold), Millis(clear));
                match (standing.firing(), next.firing()) {
                    (None, Some(_)) => prop_assert_eq!(signal, Signal::Bad),
                    (Some(_), None) => prop_assert_eq!(signal, Signal::Good),
                    (before, after) => prop_assert_eq!(before, after),
                }
                standing = next;
            }
        }
    }
}
