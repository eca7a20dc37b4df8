//! Latency on 32 logarithmic bins that are the same for every release of every model, so that any two
//! can be compared.

use serde::{Deserialize, Serialize};

/// Number of bins: three per factor of four from 10 µs to about 17 s.
pub const LATENCY_BINS: usize = 32;

// Upper edges in microseconds, each 2^(2/3) ≈ 1.587 times the one before, rounded.
const UPPER_EDGES: [u64; LATENCY_BINS - 1] = [
    10, 16, 25, 40, 63, 101, 160, 254, 403, 640, 1_016, 1_613, 2_560, 4_064, 6_451, 10_240, 16_255, 25_803,
    40_960, 65_020, 103_213, 163_840, 260_080, 412_851, 655_360, 1_040_319, 1_651_405, 2_621_440, 4_161_275,
    6_605_620, 10_485_760,
];

/// Counts of durations. The last bin takes everything from 10.5 s on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyHistogram {
    counts: [u64; LATENCY_BINS],
}

/// Exclusive upper edge of bin `bin` in microseconds; `None` for the last, open bin.
pub fn latency_edge_micros(bin: usize) -> Option<u64> {
    UPPER_EDGES.get(bin).copied()
}

impl LatencyHistogram {
    /// Counts one duration.
    pub fn record_micros(&mut self, micros: u64) {
        let bin = UPPER_EDGES.partition_point(|edge| *edge <= micros);
        if let Some(count) = self.counts.get_mut(bin) {
            *count = count.saturating_add(1);
        }
    }

    /// Adds what `other` saw.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine = mine.saturating_add(theirs);
        }
    }

    /// Durations recorded.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Count per bin.
    pub const fn counts(&self) -> &[u64; LATENCY_BINS] {
        &self.counts
    }

    /// The smallest bin edge at or above the `share` quantile (0 to 1), in microseconds; `None` when
    /// nothing was recorded.
    ///
    /// At most 59 % above the exact quantile (the ratio of neighbouring edges), never below it, between
    /// 10 µs and 10.5 s; outside that range it is the nearest of these two.
    pub fn quantile_micros(&self, share: f64) -> Option<u64> {
        let total = self.total();
        if total == 0 {
            return None;
        }
        let rank = (total as f64 * share.clamp(0.0, 1.0)).max(1.0);
        let mut below = 0.0;
        for (bin, count) in self.counts.iter().enumerate() {
            below += *count as f64;
            if below >= rank {
                return Some(latency_edge_micros(bin).unwrap_or(10_485_760));
            }
        }
        None
    }

    /// Durations in bins that lie wholly at or above `micros`.
    pub fn count_from(&self, micros: u64) -> u64 {
        let first = UPPER_EDGES.partition_point(|edge| *edge < micros).saturating_add(1);
        self.counts.iter().skip(first).fold(0, |sum, count| sum.saturating_add(*count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn nothing_recorded_has_no_quantile() {
        assert_eq!(LatencyHistogram::default().quantile_micros(0.99), None);
    }

    #[test]
    fn counting_from_an_edge_leaves_out_what_lies_below_it() {
        let mut histogram = LatencyHistogram::default();
        [5, 10, 639, 640, 5_000, 20_000_000].iter().for_each(|micros| histogram.record_micros(*micros));
        assert_eq!(histogram.count_from(640), 3);
        assert_eq!(histogram.count_from(10), 5);
    }

    proptest! {
        #[test]
        fn quantiles_are_never_below_and_at_most_59_percent_above(
            mut values in prop::collection::vec(10_u64..10_000_000, 1..200), share in 0.0_f64..=1.0
        ) {
            let mut histogram = LatencyHistogram::default();
            values.iter().for_each(|value| histogram.record_micros(*value));
            values.sort_unstable();
            let rank = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len());
            let exact = values[rank - 1];
            let estimate = histogram.quantile_micros(share).expect("not empty");
            prop_assert!(estimate >= exact, "{estimate} below {exact}");
            prop_assert!(estimate as f64 <= exact as f64 * 1.61, "{estimate} far above {exact}");
        }

        #[test]
        fn merging_is_adding(a: Vec<u32>, b: Vec<u32>) {
            let seen = |values: &[u32]| {
                let mut histogram = LatencyHistogram::default();
                values.iter().for_each(|value| histogram.record_micros(u64::from(*value)));
                histogram
            };
            let together = seen(&[a.clone(), b.clone()].concat());
            let (mut left, mut right) = (seen(&a), seen(&b));
            left.merge(&seen(&b));
            right.merge(&seen(&a));
            prop_assert_eq!(left, together);
            prop_assert_eq!(right, together);
        }
    }
}
