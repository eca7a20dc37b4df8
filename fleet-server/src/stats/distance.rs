//! Distances between two distributions given as counts over the same categories. All are symmetric,
//! zero for equal counts, and `None` where one side has no counts or the categories differ in number:
//! no data is not a distance of zero.

use serin_protocol::sketch::Histogram;

/// Counts per category: under, bins, over, missing.
pub fn counts(histogram: &Histogram) -> Vec<f64> {
    histogram.categories().map(|count| count as f64).collect()
}

/// Population stability index, `Σ (p − q) ln(p / q)`: the symmetrised Kullback-Leibler divergence.
///
/// Shares are smoothed as `(c + ½) / (n + B / 2)` over the `B` categories that occur on either side
/// (Krichevsky and Trofimov 1981), so that a category seen on one side only counts without being infinite,
/// and a constant column is 0 whatever the sizes.
pub fn psi(a: &[f64], b: &[f64]) -> Option<f64> {
    let (total_a, total_b) = totals(a, b)?;
    let occurring = || a.iter().zip(b).filter(|(x, y)| **x + **y > 0.0);
    let half = occurring().count() as f64 / 2.0;
    let terms = occurring().map(|(x, y)| {
        let (p, q) = ((x + 0.5) / (total_a + half), (y + 0.5) / (total_b + half));
        (p - q) * (p / q).ln()
    });
    Some(terms.sum::<f64>().max(0.0))
}

/// The Kolmogorov-Smirnov distance on bins: the largest difference of the cumulated shares, 0 to 1. Categories
/// count in the order given; the missing ones come last.
pub fn kolmogorov_smirnov(a: &[f64], b: &[f64]) -> Option<f64> {
    let (total_a, total_b) = totals(a, b)?;
    let (mut below_a, mut below_b, mut largest) = (0.0_f64, 0.0_f64, 0.0_f64);
    for (x, y) in a.iter().zip(b) {
        below_a += x;
        below_b += y;
        largest = largest.max((below_a / total_a - below_b / total_b).abs());
    }
    Some(largest.min(1.0))
}

/// The Jensen-Shannon divergence in bits, 0 to 1 (Lin 1991). Its root is a metric.
pub fn jensen_shannon(a: &[f64], b: &[f64]) -> Option<f64> {
    let (total_a, total_b) = totals(a, b)?;
    let bits = |share: f64, middle: f64| if share > 0.0 { share * (share / middle).log2() } else { 0.0 };
    let terms = a.iter().zip(b).map(|(x, y)| {
        let (p, q) = (x / total_a, y / total_b);
        let middle = p.midpoint(q);
        bits(p, middle).midpoint(bits(q, middle))
    });
    Some(terms.sum::<f64>().clamp(0.0, 1.0))
}

/// The Wasserstein distance of what lies within the bins, in the unit of the values: the area between the two cumulated
/// shares, which are taken to be straight within a bin. Missing values count on neither side; what lies beyond the
/// outermost edges lies at them.
pub fn wasserstein(a: &Histogram, b: &Histogram, edges: &[f32]) -> Option<f64> {
    let cumulated = |histogram: &Histogram| {
        let present = histogram.present() as f64;
        let below = std::iter::once(histogram.under).chain(histogram.counts.iter().copied());
        let cumulate = |sum: &mut u64, count: u64| {
            *sum = sum.saturating_add(count);
            Some(*sum as f64 / present)
        };
        let shares: Vec<f64> = below.scan(0_u64, cumulate).collect();
        (present > 0.0 && shares.len() == edges.len()).then_some(shares)
    };
    let (a, b) = (cumulated(a)?, cumulated(b)?);
    let gaps: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
    let area = |(gap, edge): (&[f64], &[f32])| match (gap, edge) {
        ([from, to], [low, high]) => {
            let width = f64::from(*high) - f64::from(*low);
            if from * to >= 0.0 {
                from.abs().midpoint(to.abs()) * width
            } else {
                // Two triangles, where the lines cross within the bin.
                (from * from + to * to) / (2.0 * (from.abs() + to.abs())) * width
            }
        }
        _ => 0.0,
    };
    Some(gaps.windows(2).zip(edges.windows(2)).map(area).sum())
}

/// Number, mean and variance of values, for distributions whose bins cannot be compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// How many values.
    pub n: f64,
    /// Their mean.
    pub mean: f64,
    /// Their variance.
    pub variance: f64,
}

/// Upper bound of [`normal_divergence`], where two different constants would be infinitely far apart.
pub const LARGEST_DIVERGENCE: f64 = 1e6;

/// The PSI that two normal distributions with these moments have: the symmetrised Kullback-Leibler
/// divergence in closed form (Jeffreys 1946), `½ (v/w + w/v) − 1 + ½ δ² (1/v + 1/w)`. On the scale of [`psi`],
/// so that the same threshold fits; at most [`LARGEST_DIVERGENCE`].
pub fn normal_divergence(a: Moments, b: Moments) -> Option<f64> {
    let usable = |side: &Moments| {
        side.n > 0.0 && side.mean.is_finite() && side.variance.is_finite() && side.variance >= 0.0
    };
    if !usable(&a) || !usable(&b) {
        return None;
    }
    let delta = a.mean - b.mean;
    // Rounding alone must not look like a spread: the last eight digits of the means count for nothing.
    let rounding = (a.mean.abs().max(b.mean.abs()) * 1e-8).powi(2).max(f64::MIN_POSITIVE);
    let (v, w) = (a.variance + rounding, b.variance + rounding);
    let divergence = 0.5 * (v / w + w / v) - 1.0 + 0.5 * delta * delta * (1.0 / v + 1.0 / w);
    // What has overflown or is no number is not below either.
    Some(if divergence < LARGEST_DIVERGENCE { divergence.max(0.0) } else { LARGEST_DIVERGENCE })
}

fn totals(a: &[f64], b: &[f64]) -> Option<(f64, f64)> {
    let (total_a, total_b) = (a.iter().sum::<f64>(), b.iter().sum::<f64>());
    let usable = |total: f64| total > 0.0 && total.is_finite();
    (a.len() == b.len() && usable(total_a) && usable(total_b)).then_some((total_a, total_b))
}

#[cfg(test)]
#[path = "distance_tests.rs"]
mod tests;
