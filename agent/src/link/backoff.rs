//! The one retry policy: capped exponential back-off with jitter, so that a fleet that lost its broker
//! at one moment does not come back at one moment.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serin_protocol::ids::Millis;

/// The moment `wait` after `now` on the monotonic clock, saturating.
pub(super) const fn after(now: Millis, wait: Millis) -> Millis {
    Millis(now.0.saturating_add(wait.0))
}

/// How long to wait between tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait.
    pub first: Millis,
    /// The longest wait.
    pub cap: Millis,
}

impl Backoff {
    /// The full wait after `failures` failures in a row: doubled each time, up to the cap.
    pub fn full(self, failures: u32) -> Millis {
        let doublings = failures.saturating_sub(1).min(63);
        let factor = 1_u64 << doublings;
        Millis(self.first.0.saturating_mul(factor).min(self.cap.0))
    }

    /// The wait after `failures` failures in a row: between half of the full one and all of it.
    pub fn wait(self, failures: u32, jitter: &mut Jitter) -> Millis {
        let full = self.full(failures).0;
        let half = full / 2;
        Millis(half + jitter.below(full - half + 1))
    }
}

/// Pseudo-random numbers from a seed that is an argument: splitmix64 (Steele, Lea, Flood 2014). Spreads
/// load; nothing secret depends on it.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// Numbers that follow from `seed`; give every device another.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`; zero when that is zero. The bias of the remainder is far below what
    /// matters for spreading load.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        if bound == 0 { 0 } else { mixed % bound }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: Backoff = Backoff { first: Millis(100), cap: Millis(1000) };

    #[test]
    fn waits_double_up_to_the_cap() {
        let full: Vec<u64> = (0..7).map(|failures| POLICY.full(failures).0).collect();
        assert_eq!(full, [100, 100, 200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn two_devices_wait_differently() {
        let waits = |seed| {
            let mut jitter = Jitter::new(seed);
            (1..20).map(|failures| POLICY.wait(failures, &mut jitter)).collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }

    proptest! {
        #[test]
        fn a_wait_lies_between_half_and_all(first in 0..10_000_u64, cap: u64, failures: u32, seed: u64) {
            let policy = Backoff { first: Millis(first), cap: Millis(cap) };
            let wait = policy.wait(failures, &mut Jitter::new(seed));
            prop_assert!(wait <= policy.full(failures) && wait.0 >= policy.full(failures).0 / 2);
            prop_assert!(wait.0 <= cap);
        }
    }
}
