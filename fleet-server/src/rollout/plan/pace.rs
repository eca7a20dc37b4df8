//! How fast devices are told: so many a minute, more with every interval in which nothing stopped the rollout.

use serde::{Deserialize, Serialize};
use serin_protocol::ids::Millis;

use super::super::notation::{decimal::Thousandths, span};

/// A rate that may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Devices per minute at first.
    pub per_minute: u32,
    /// By how much it is multiplied after each interval.
    #[serde(default = "steady")]
    pub growth: Thousandths,
    /// The interval.
    #[serde(with = "span", default = "minute")]
    pub every: Millis,
    /// It grows no further than this.
    #[serde(default = "unlimited")]
    pub max_per_minute: u32,
}

const fn steady() -> Thousandths {
    Thousandths(1000)
}

const fn minute() -> Millis {
    Millis::from_secs(60)
}

const fn unlimited() -> u32 {
    1_000_000
}

/// A device takes this many units of allowance: thousandths of a device, times milliseconds of a minute.
const DEVICE: u128 = 1000 * 60_000;

impl Rate {
    /// How many devices may have been told after `elapsed`; the first at once.
    pub fn allowed(self, elapsed: Millis) -> u64 {
        let mut left = u128::from(elapsed.0);
        let mut units = 0_u128;
        for (rate, length) in self.intervals() {
            let here = left.min(length);
            units = units.saturating_add(rate.saturating_mul(here));
            left -= here;
            if left == 0 {
                break;
            }
        }
        u64::try_from(units / DEVICE + 1).unwrap_or(u64::MAX)
    }

    /// When one more device than `told` may be told, from the beginning.
    pub fn next(self, told: u64) -> Millis {
        let mut missing = u128::from(told).saturating_mul(DEVICE);
        let mut elapsed = 0_u128;
        for (rate, length) in self.intervals() {
            let here = rate.saturating_mul(length);
            if here >= missing {
                elapsed = elapsed.saturating_add(missing.div_ceil(rate.max(1)));
                break;
            }
            missing -= here;
            elapsed = elapsed.saturating_add(length);
        }
        Millis(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    /// Rates in thousandths of a device per minute with their lengths; the last one never ends. As a rate of
    /// 1 grows by a thousandth at least, or not at all, there are some 14,000 at most.
    fn intervals(self) -> impl Iterator<Item = (u128, u128)> {
        let most = u128::from(self.max_per_minute.max(1)) * 1000;
        let growth = u128::from(self.growth.0);
        let every = u128::from(self.every.0.max(1));
        let first = (u128::from(self.per_minute.max(1)) * 1000).min(most);
        let mut next = Some(first);
        std::iter::from_fn(move || {
            let rate = next?;
            let grown = (rate * growth / 1000).min(most);
            let last = grown <= rate;
            next = (!last).then_some(grown);
            Some((rate, if last { u128::MAX / (most * 2) } else { every }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ten_a_minute_doubling_to_forty() {
        let rate: Rate = toml::from_str("per_minute = 10\ngrowth = 2.0\nmax_per_minute = 40").expect("valid");
        let minutes = |count: u64| rate.allowed(Millis::from_secs(count * 60));
        assert_eq!([0, 1, 2, 3, 4].map(minutes), [1, 11, 31, 71, 111]);
        assert_eq!(rate.next(0), Millis(0));
        assert_eq!(rate.next(11), Millis::from_secs(63));
    }

    proptest! {
        #[test]
        fn the_next_device_is_told_when_it_is_allowed_and_no_sooner(
            per_minute in 1_u32..5000, growth in 1000_u32..4000, every in 1_u64..600_000, told in 0_u64..100_000
        ) {
            let rate = Rate { per_minute, growth: Thousandths(growth), every: Millis(every), max_per_minute: 100_000 };
            let at = rate.next(told);
            prop_assert!(rate.allowed(at) > told);
            prop_assert!(at.0 == 0 || rate.allowed(Millis(at.0 - 1)) <= told);
        }
    }
}
