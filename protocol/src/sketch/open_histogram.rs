//! A histogram while it is recorded. Values that come one at a time wait until they fill a block, which is counted in a
//! fraction of the time that each would take by itself.

use super::bins::{Bins, Place};
use super::counting::LANES;
use super::histogram::Histogram;

/// Counts what comes. Allocates nothing.
#[derive(Clone, Debug)]
pub struct OpenHistogram {
    histogram: Histogram,
    /// Not counted yet; the first `held` of them are meant.
    waiting: [f32; LANES],
    held: usize,
}

impl OpenHistogram {
    /// Nothing so far, over `bins`: every call must bring the same ones.
    pub fn over_bins(bins: &Bins) -> Self {
        Self { histogram: Histogram::over_bins(bins), waiting: [0.0; LANES], held: 0 }
    }

    /// Takes one value; NaN counts as missing.
    pub fn record(&mut self, bins: &Bins, value: f32) {
        if let Some(slot) = self.waiting.get_mut(self.held) {
            *slot = value;
            self.held += 1;
        }
        if self.held == LANES {
            self.held = 0;
            self.histogram.record_block(bins, &self.waiting);
        }
    }

    /// Takes `values`.
    pub fn record_all(&mut self, bins: &Bins, values: impl IntoIterator<Item = f32>) {
        values.into_iter().for_each(|value| self.record(bins, value));
    }

    /// See [`Histogram::record_column`].
    pub fn record_column(
        &mut self,
        bins: &Bins,
        values: &[[u8; 4]],
        place: usize,
        width: usize,
        rows: usize,
    ) {
        if rows == 1 {
            let value = values.get(place).map_or(f32::NAN, |raw| f32::from_le_bytes(*raw));
            return self.record(bins, value);
        }
        self.histogram.record_column(bins, values, place, width, rows);
    }

    /// Counts a value at `place`, without its moments: for categories, which have none.
    pub fn count(&mut self, place: Place) {
        self.histogram.count(place);
    }

    /// Everything that came, the missing too.
    pub fn total(&self) -> u64 {
        self.histogram.total().saturating_add(self.held as u64)
    }

    /// All that came, counted; from now on anew.
    pub fn take(&mut self, bins: &Bins) -> Histogram {
        let waiting = self.waiting.get(..self.held).unwrap_or_default();
        self.histogram.record_few(bins, waiting);
        self.held = 0;
        core::mem::replace(&mut self.histogram, Histogram::over_bins(bins))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn what_waits_is_counted_as_if_it_had_not(
            values in prop::collection::vec(prop_oneof![
                8 => -3.0_f32..3.0,
                1 => prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0, 0.5, 2.0, -0.0]),
            ], 0..100),
            at_once in 1_usize..4,
        ) {
            let bins = Bins::new(&[-1.0, 0.0, 0.5, 2.0]).expect("valid");
            let (mut recording, mut plain) = (OpenHistogram::over_bins(&bins), Histogram::over_bins(&bins));
            let raw: Vec<[u8; 4]> = values.iter().map(|value| value.to_le_bytes()).collect();
            for (rows, some) in raw.chunks(at_once).zip(values.chunks(at_once)) {
                recording.record_column(&bins, rows, 0, 1, rows.len());
                some.iter().for_each(|value| plain.record(&bins, *value));
                prop_assert_eq!(recording.total(), plain.total());
            }
            let counted = recording.take(&bins);
            prop_assert!(counted.categories().eq(plain.categories()));
            if values.iter().all(|value| !value.is_infinite()) {
                prop_assert!((counted.mean - plain.mean).abs() < 1e-9);
                prop_assert!((counted.m2 - plain.m2).abs() < 1e-6);
            }
            prop_assert_eq!(recording.total(), 0);
            prop_assert_eq!(recording.take(&bins), Histogram::over_bins(&bins));
        }
    }
}
