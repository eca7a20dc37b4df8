//! How surprising a distance between two binned samples is, and what is left of that when many were looked at. Surprise
//! alone says nothing about size: whoever asks also demands a distance worth acting on, or everything drifts once
//! there are values enough.

use statrs::distribution::{ChiSquared, ContinuousCDF as _};

/// A chi-square test of homogeneity of two samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChiSquare {
    /// The statistic.
    pub statistic: f64,
    /// Categories that occur, less one.
    pub freedom: f64,
    /// Probability of a statistic at least as large if both samples come from one distribution.
    pub p: f64,
    /// Cramér's V, 0 to 1: the size of the effect whatever the numbers of values (Cramér 1946, 21.9).
    pub effect: f64,
}

/// Pearson's test of whether counts over the same categories come from one distribution; `None` without values on
/// either side, with fewer than two categories that occur, or where they differ in number.
pub fn chi_square(a: &[f64], b: &[f64]) -> Option<ChiSquare> {
    let (total_a, total_b) = (a.iter().sum::<f64>(), b.iter().sum::<f64>());
    let all = total_a + total_b;
    if a.len() != b.len() || !(total_a > 0.0 && total_b > 0.0 && all.is_finite()) {
        return None;
    }
    let occurring = || a.iter().zip(b).filter(|(x, y)| **x + **y > 0.0);
    let freedom = occurring().count() as f64 - 1.0;
    if freedom < 1.0 {
        return None;
    }
    let term = |(x, y): (&f64, &f64)| {
        let both = x + y;
        let (expected_a, expected_b) = (both * total_a / all, both * total_b / all);
        (x - expected_a).powi(2) / expected_a + (y - expected_b).powi(2) / expected_b
    };
    let statistic: f64 = occurring().map(term).sum();
    let p = ChiSquared::new(freedom).ok()?.sf(statistic);
    Some(ChiSquare { statistic, freedom, p: p.clamp(0.0, 1.0), effect: (statistic / all).sqrt().min(1.0) })
}

/// The PSI that samples of `n` and `m` values over `categories` that occur stay below with probability `level` when
/// nothing has moved: it then is about `(1/n + 1/m)` times a chi-square of one degree less (Yurdakul 2018).
pub fn psi_floor(n: f64, m: f64, categories: usize, level: f64) -> Option<f64> {
    let freedom = (categories.checked_sub(1)?) as f64;
    if !(n > 0.0 && m > 0.0 && freedom >= 1.0 && level > 0.0 && level < 1.0) {
        return None;
    }
    Some((1.0 / n + 1.0 / m) * ChiSquared::new(freedom).ok()?.inverse_cdf(level))
}

/// Probabilities adjusted for how many there are (Benjamini and Hochberg 1995), in the order given: of those at or
/// below `q` a share of `q` at most is expected to be chance.
pub fn benjamini_hochberg(ps: &[f64]) -> Vec<f64> {
    let count = ps.len() as f64;
    let mut order: Vec<usize> = (0..ps.len()).collect();
    let p = |at: usize| ps.get(at).copied().unwrap_or(1.0);
    order.sort_by(|a, b| p(*b).total_cmp(&p(*a)));
    let mut adjusted = vec![1.0; ps.len()];
    let mut least = 1.0_f64;
    for (from_largest, at) in order.into_iter().enumerate() {
        let rank = count - from_largest as f64;
        least = least.min(p(at) * (count / rank));
        if let Some(place) = adjusted.get_mut(at) {
            *place = least;
        }
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::distance::psi;
    use crate::stats::random::SplitMix64;
    use proptest::prelude::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-9 * b.abs().max(1e-3), "{a} is not {b}");
    }

    // Expected values: scipy 1.14, `chi2_contingency([a, b], correction=False)`; `false_discovery_control(ps)`.
    #[test]
    fn chi_square_is_what_scipy_computes() {
        let test = chi_square(&[10.0, 20.0, 30.0, 0.0], &[15.0, 15.0, 25.0, 5.0]).expect("values");
        close(test.statistic, 7.168_831_168_831_169);
        close(test.p, 0.066_706_863_920_475_88);
        close(test.freedom, 3.0);
        let same = chi_square(&[10.0, 20.0], &[100.0, 200.0]).expect("values");
        assert!(same.statistic < 1e-12 && same.effect < 1e-6 && same.p > 0.999_999);
        assert_eq!(chi_square(&[10.0, 0.0], &[7.0, 0.0]), None, "a constant column");
        assert_eq!(chi_square(&[0.0, 0.0], &[7.0, 1.0]), None);
        assert_eq!(chi_square(&[1.0], &[7.0, 1.0]), None);
    }

    #[test]
    fn probabilities_are_adjusted_as_scipy_does() {
        let adjusted = benjamini_hochberg(&[0.01, 0.04, 0.03, 0.005, 0.9]);
        for (a, b) in adjusted.into_iter().zip([0.025, 0.05, 0.05, 0.025, 0.9]) {
            close(a, b);
        }
        assert_eq!(benjamini_hochberg(&[]), Vec::<f64>::new());
    }

    /// Ten thousand pairs of samples from one distribution of 16 equal bins: as many lie above the floor as it says.
    #[test]
    fn the_floor_is_where_chance_ends() {
        let mut random = SplitMix64::new(7);
        let draw = |random: &mut SplitMix64, count: usize| {
            let mut counts = [0.0; 16];
            for _ in 0..count {
                counts[random.below(16)] += 1.0;
            }
            counts
        };
        let floor = psi_floor(2000.0, 1000.0, 16, 0.99).expect("sizes");
        let above = (0..10_000)
            .filter(|_| {
                let (a, b) = (draw(&mut random, 2000), draw(&mut random, 1000));
                psi(&a, &b).expect("values") > floor
            })
            .count();
        assert!((50..200).contains(&above), "{above} of 10000, expected about 100");
    }

    proptest! {
        #[test]
        fn whatever_is_counted_results_are_probabilities(
            a in prop::collection::vec(0_u32..1000, 5), b in prop::collection::vec(0_u32..1000, 5)
        ) {
            let (a, b): (Vec<f64>, Vec<f64>) = (a.into_iter().map(f64::from).collect(), b.into_iter().map(f64::from).collect());
            if let Some(test) = chi_square(&a, &b) {
                prop_assert!((0.0..=1.0).contains(&test.p) && (0.0..=1.0).contains(&test.effect));
                prop_assert_eq!(chi_square(&b, &a).map(|other| (other.p * 1e9).round()), Some((test.p * 1e9).round()));
            }
        }

        #[test]
        fn adjusting_keeps_the_order_and_never_lowers(ps in prop::collection::vec(0.0_f64..=1.0, 0..40)) {
            let adjusted = benjamini_hochberg(&ps);
            for (p, adjusted) in ps.iter().zip(&adjusted) {
                prop_assert!(adjusted >= p && *adjusted <= 1.0);
            }
            for (a, p) in adjusted.iter().zip(&ps) {
                for (b, q) in adjusted.iter().zip(&ps) {
                    prop_assert!(p > q || a <= b);
                }
            }
        }
    }
}
