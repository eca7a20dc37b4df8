//! Bins for amounts, chosen on the reference data, and what else is kept of them.

use alloc::vec::Vec;

use crate::sketch::bins::{Bins, MAX_BINS};

/// At most `count` bins over the finite `values`, cut at quantiles, heavy values apart. One bin around
/// zero when there is no finite value.
pub(super) fn quantile_bins(values: &[f32], count: usize) -> Bins {
    let sorted = sorted(values);
    let (Some(first), Some(last)) = (sorted.first().copied(), sorted.last().copied()) else {
        return Bins::classes(1);
    };
    let mut edges: Vec<f32> = Vec::new();
    edges.push(first);
    // Walk over runs of equal values; close a bin when it has its share, and before a heavy run.
    let share = sorted.len().div_ceil(count.clamp(1, MAX_BINS));
    let mut held = 0_usize;
    for run in sorted.chunk_by(|a, b| a.total_cmp(b).is_eq()) {
        let Some(value) = run.first().copied() else {
            continue;
        };
        let heavy = run.len() >= share;
        if held > 0 && (heavy || held >= share) {
            edges.push(value);
            held = 0;
        }
        held += run.len();
        if heavy && value < last {
            edges.push(value.next_up());
            held = 0;
        }
    }
    edges.push(last.next_up());
    edges.dedup();
    // Light remainders between heavy values can make up to two bins per share: merge from the right.
    while edges.len() > MAX_BINS + 1 {
        edges.remove(edges.len() - 2);
    }
    // −0.0 and 0.0 are equal and f32::MAX has no finite successor; both leave edges that Bins refuses.
    Bins::new(&edges).unwrap_or_else(|_| Bins::classes(1))
}

/// Different finite values.
pub(super) fn distinct(values: &[f32]) -> u32 {
    #[expect(clippy::float_cmp, reason = "the same value or another")]
    let runs = sorted(values).chunk_by(|a, b| a == b).count();
    u32::try_from(runs).unwrap_or(u32::MAX)
}

/// Smallest and largest finite value.
pub(super) fn extremes(values: &[f32]) -> Option<(f32, f32)> {
    let finite = values.iter().copied().filter(|value| value.is_finite());
    finite.map(|value| (value, value)).reduce(|(low, high), (value, _)| (low.min(value), high.max(value)))
}

fn sorted(values: &[f32]) -> Vec<f32> {
    let mut sorted: Vec<f32> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_unstable_by(f32::total_cmp);
    sorted
}
