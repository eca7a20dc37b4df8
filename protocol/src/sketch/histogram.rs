//! Counts per bin with everything that falls outside, and the moments of what falls anywhere.

use super::bins::{Bins, MAX_BINS, Place};
use super::counting::{Block, Counted, LANES, Moments, passed};

/// Counts of so few bits cannot overflow when all of a histogram are added, and then need not be looked at one by one.
const SMALL_BITS: u32 = 58;
const _: () = assert!(MAX_BINS + 2 <= 1 << (u64::BITS - SMALL_BITS));

/// What was seen of one feature. Counts saturate instead of wrapping. What it looks like on the wire is in `packed`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Count per bin, in order.
    pub counts: heapless::Vec<u64, MAX_BINS>,
    /// Values below the first edge.
    pub under: u64,
    /// Values at or above the last edge.
    pub over: u64,
    /// Values absent or not a number.
    pub missing: u64,
    /// Mean of the finite values; roughly, once infinities were seen.
    pub mean: f64,
    /// Sum of squared distances from the mean (Welford).
    pub m2: f64,
}

/// Two histograms have different bins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("histograms of {left} and {right} bins cannot be merged")]
pub struct MergeError {
    /// Bins of one.
    pub left: usize,
    /// Bins of the other.
    pub right: usize,
}

impl Histogram {
    /// An empty histogram over `bins`.
    pub fn over_bins(bins: &Bins) -> Self {
        let mut counts = heapless::Vec::new();
        // `Bins` holds at most MAX_BINS bins.
        let _ = counts.resize(bins.len(), 0);
        Self { counts, ..Self::default() }
    }

    /// Counts `value`; NaN counts as missing. Allocates nothing.
    pub fn record(&mut self, bins: &Bins, value: f32) {
        if value.is_finite() {
            // Welford (1962).
            let (before, value) = (self.present() as f64, f64::from(value));
            let delta = value - self.mean;
            self.mean += delta / (before + 1.0);
            self.m2 += delta * (value - self.mean);
        }
        self.count(bins.locate(value));
    }

    /// Counts `values`, in less time than one by one. Allocates nothing.
    pub fn record_all(&mut self, bins: &Bins, values: impl IntoIterator<Item = f32>) {
        let mut values = values.into_iter();
        self.record_blocks(bins, || Block::fill(&mut values));
    }

    /// Counts one value of each of `rows` rows of `width` little-endian single-precision values: that at `place`. What a
    /// row that was cut short lacks is missing. The same as [`Self::record_all`] over them, but compiled in this crate,
    /// for speed, and not in the one that calls it, which on a device is compiled for size.
    pub fn record_column(
        &mut self,
        bins: &Bins,
        values: &[[u8; 4]],
        place: usize,
        width: usize,
        rows: usize,
    ) {
        let mut column = values.get(place..).unwrap_or_default();
        if rows == 1 {
            let value = column.first().map_or(f32::NAN, |raw| f32::from_le_bytes(*raw));
            return self.record(bins, value);
        }
        let mut left = rows;
        self.record_blocks(bins, || {
            let block = Block::fill_raw(column, width, left);
            left -= block.held;
            column = column.get(block.held.saturating_mul(width)..).unwrap_or_default();
            block
        });
    }

    fn record_blocks(&mut self, bins: &Bins, mut next: impl FnMut() -> Block) {
        let mut block = next();
        if block.held < LANES {
            self.record_few(bins, block.values.get(..block.held).unwrap_or_default());
            return;
        }
        let mut counted = Counted::of(bins, &block);
        while block.held == LANES {
            block = next();
            counted.take(bins, &block);
        }
        self.add(bins, &counted);
    }

    /// Counts fewer values than a block has, each by itself, and their moments together.
    pub(super) fn record_few(&mut self, bins: &Bins, values: &[f32]) {
        let before = self.present() as f64;
        for value in values {
            self.count(bins.locate(*value));
        }
        let finite = || values.iter().filter(|value| value.is_finite()).map(|value| f64::from(*value));
        let count = finite().count() as f64;
        if count > 0.0 {
            let mean = finite().sum::<f64>() / count;
            let m2 = finite().map(|value| (value - mean) * (value - mean)).sum();
            self.add_moments(before, count, mean, m2);
        }
    }

    /// Counts a block of values.
    pub(super) fn record_block(&mut self, bins: &Bins, values: &[f32; LANES]) {
        let before = self.present() as f64;
        let mut moments = Moments::about(values);
        moments.take(values);
        let last = bins.edges().len();
        for (edges, value) in passed(bins, values).as_flattened().iter().zip(values) {
            let place = match *edges as usize {
                0 if value.is_nan() => Place::Missing,
                0 => Place::Under,
                all if all == last => Place::Over,
                some => Place::Bin(some - 1),
            };
            self.count(place);
        }
        let (count, mean, m2) = moments.done();
        self.add_moments(before, count, mean, m2);
    }

    fn add(&mut self, bins: &Bins, counted: &Counted) {
        let before = self.present() as f64;
        let add = |counter: &mut u64, count: u64| *counter = counter.saturating_add(count);
        add(&mut self.under, counted.at(0));
        add(&mut self.over, counted.at(bins.len() + 1));
        add(&mut self.missing, counted.missing());
        for bin in 0..bins.len() {
            add(self.counter(Place::Bin(bin)), counted.at(bin + 1));
        }
        let (count, mean, m2) = counted.moments();
        self.add_moments(before, count, mean, m2);
    }

    /// Counts a value at `place`, without its moments: for categories, which have none. Allocates nothing.
    pub fn count(&mut self, place: Place) {
        let counter = self.counter(place);
        *counter = counter.saturating_add(1);
    }

    fn counter(&mut self, place: Place) -> &mut u64 {
        match place {
            Place::Missing => &mut self.missing,
            Place::Under => &mut self.under,
            Place::Over => &mut self.over,
            // Only when recorded with bins it was not made for is there none; never lose the count.
            Place::Bin(bin) => self.counts.get_mut(bin).unwrap_or(&mut self.over),
        }
    }

    /// Moments of `more` values are added to those of the `n` there were.
    ///
    /// Chan, Golub, `LeVeque` (1979), pairwise update.
    fn add_moments(&mut self, n: f64, more: f64, mean: f64, m2: f64) {
        if more > 0.0 {
            let delta = mean - self.mean;
            self.mean += delta * more / (n + more);
            self.m2 += m2 + delta * delta * n * more / (n + more);
        }
    }

    /// Adds what `other` saw over the same bins.
    pub fn merge(&mut self, other: &Self) -> Result<(), MergeError> {
        if self.counts.len() != other.counts.len() {
            return Err(MergeError { left: self.counts.len(), right: other.counts.len() });
        }
        let (mine, theirs) = self.add_counts(other);
        self.add_moments(mine as f64, theirs as f64, other.mean, other.m2);
        self.missing = self.missing.saturating_add(other.missing);
        Ok(())
    }

    /// Adds the counts of `other`, which has as many bins; returns how many values were present here before, and there.
    fn add_counts(&mut self, other: &Self) -> (u64, u64) {
        // Merging is what a server does most: in one pass, where nothing can overflow.
        let (under, over) = (self.under | other.under, self.over | other.over);
        let both = self.counts.iter().zip(&other.counts);
        if both.fold(under | over, |bits, (mine, theirs)| bits | mine | theirs) >> SMALL_BITS == 0 {
            let mut present = (self.under.wrapping_add(self.over), other.under.wrapping_add(other.over));
            for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
                present = (present.0.wrapping_add(*mine), present.1.wrapping_add(*theirs));
                *mine = mine.wrapping_add(*theirs);
            }
            self.under = self.under.wrapping_add(other.under);
            self.over = self.over.wrapping_add(other.over);
            return present;
        }
        let present = (self.present(), other.present());
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine = mine.saturating_add(*theirs);
        }
        self.under = self.under.saturating_add(other.under);
        self.over = self.over.saturating_add(other.over);
        present
    }

    /// Values that were there, in range or not.
    pub fn present(&self) -> u64 {
        let (fours, rest) = self.counts.as_chunks::<4>();
        let (mut sums, mut bits) = ([0_u64; 4], self.under | self.over);
        for four in fours {
            for (sum, count) in sums.iter_mut().zip(four) {
                *sum = sum.wrapping_add(*count);
            }
            bits = four.iter().fold(bits, |bits, count| bits | count);
        }
        let bits = rest.iter().fold(bits, |bits, count| bits | count);
        if bits >> SMALL_BITS == 0 {
            let outside = self.under.wrapping_add(self.over);
            return sums.iter().chain(rest).fold(outside, |sum, count| sum.wrapping_add(*count));
        }
        let inside = self.counts.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
        inside.saturating_add(self.under).saturating_add(self.over)
    }

    /// Everything recorded, the missing too.
    pub fn total(&self) -> u64 {
        self.present().saturating_add(self.missing)
    }

    /// All categories in a fixed order: under, bins, over, missing.
    pub fn categories(&self) -> impl Iterator<Item = u64> + '_ {
        core::iter::once(self.under).chain(self.counts.iter().copied()).chain([self.over, self.missing])
    }

    /// Whether the parts can have come from recording: finite moments and no negative spread.
    pub fn is_sane(&self) -> bool {
        self.mean.is_finite() && self.m2.is_finite() && self.m2 >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn bins() -> Bins {
        Bins::new(&[-1.0, 0.0, 0.5, 2.0]).expect("valid")
    }

    fn seen(values: &[f32]) -> Histogram {
        let mut histogram = Histogram::over_bins(&bins());
        values.iter().for_each(|value| histogram.record(&bins(), *value));
        histogram
    }

    fn counts(histogram: &Histogram) -> Vec<u64> {
        histogram.categories().collect()
    }

    #[test]
    fn everything_recorded_is_counted_somewhere() {
        let histogram = seen(&[f32::NAN, -2.0, -1.0, 0.25, 2.0, f32::INFINITY]);
        assert_eq!(counts(&histogram), [1, 1, 1, 0, 2, 1]);
        assert_eq!(histogram.total(), 6);
        assert!(histogram.is_sane());
    }

    #[test]
    fn a_column_of_rows_is_counted_and_what_a_cut_row_lacks_is_missing() {
        let values: Vec<[u8; 4]> = (0..59_u8).map(|at| (f32::from(at % 3) - 0.5).to_le_bytes()).collect();
        let mut histogram = Histogram::over_bins(&bins());
        histogram.record_column(&bins(), &values, 2, 3, 20);
        assert_eq!(counts(&histogram), [0, 0, 0, 19, 0, 1]);
        histogram.record_column(&bins(), &values, 0, 3, 20);
        assert_eq!(counts(&histogram), [0, 20, 0, 19, 0, 1]);
    }

    #[test]
    fn bins_of_another_histogram_lose_no_count() {
        let mut histogram = seen(&[]);
        histogram.record_all(&Bins::unit(10), (0..100_u8).map(|value| f32::from(value) / 100.0));
        histogram.record(&Bins::unit(10), 0.95);
        assert_eq!(counts(&histogram), [0, 10, 10, 10, 71, 0]);
    }

    #[test]
    fn counts_beyond_all_bounds_stay_at_the_largest() {
        let full = |under: u64, count: u64| Histogram {
            counts: heapless::Vec::from_slice(&[count, 0, 1]).expect("fits"),
            under,
            over: 5,
            missing: u64::MAX,
            ..Histogram::default()
        };
        for (first, second, merged) in [
            ((1, 2), (3, 4), [4, 6, 0, 2, 10, u64::MAX]),
            ((u64::MAX, 2), (1, 2), [u64::MAX, 4, 0, 2, 10, u64::MAX]),
            ((1, 1 << 63), (1, 1 << 63), [2, u64::MAX, 0, 2, 10, u64::MAX]),
        ] {
            let mut histogram = full(first.0, first.1);
            histogram.merge(&full(second.0, second.1)).expect("same bins");
            assert_eq!(counts(&histogram), merged);
        }
    }

    #[test]
    fn other_bins_are_refused() {
        let mut histogram = seen(&[]);
        let other = Histogram::over_bins(&Bins::unit(7));
        assert_eq!(histogram.merge(&other), Err(MergeError { left: 3, right: 7 }));
    }

    proptest! {
        #[test]
        fn values_together_are_counted_as_one_by_one(
            values in prop::collection::vec(prop_oneof![
                8 => -3.0_f32..3.0,
                1 => prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0, 0.5, 2.0, -0.0]),
            ], 0..200),
            already in prop::collection::vec(-3.0_f32..3.0, 0..3),
        ) {
            let (mut together, mut single) = (seen(&already), seen(&already));
            together.record_all(&bins(), values.iter().copied());
            values.iter().for_each(|value| single.record(&bins(), *value));
            prop_assert_eq!(counts(&together), counts(&single));
            // How many infinities there were is not kept: they count as present, so that moments are then only about right.
            if values.iter().all(|value| !value.is_infinite()) {
                prop_assert!((together.mean - single.mean).abs() < 1e-9);
                prop_assert!((together.m2 - single.m2).abs() < 1e-6);
            }
        }

        #[test]
        fn merging_equals_recording_together_in_any_grouping(
            a in prop::collection::vec(-3.0_f32..3.0, 0..40),
            b in prop::collection::vec(-3.0_f32..3.0, 0..40),
            c in prop::collection::vec(-3.0_f32..3.0, 0..40),
        ) {
            let together = seen(&[a.clone(), b.clone(), c.clone()].concat());
            let (a, b, c) = (seen(&a), seen(&b), seen(&c));
            let mut left = a.clone();
            left.merge(&b).expect("same bins");
            left.merge(&c).expect("same bins");
            let mut right = c;
            right.merge(&b).expect("same bins");
            right.merge(&a).expect("same bins");
            prop_assert_eq!(counts(&left), counts(&together));
            prop_assert_eq!(counts(&right), counts(&together));
            for merged in [&left, &right] {
                prop_assert!((merged.mean - together.mean).abs() < 1e-9);
                prop_assert!((merged.m2 - together.m2).abs() < 1e-6);
            }
        }
    }
}
