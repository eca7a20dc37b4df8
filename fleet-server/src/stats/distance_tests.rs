//! Distances against values computed independently, and their laws.

use super::*;
use proptest::prelude::*;

// Expected values: Python 3.11, numpy 2 and scipy 1 in a scratch virtual environment.
//   k = (a + b) > 0; p = (a[k] + .5) / (a.sum() + k.sum() / 2); q likewise; ((p - q) * np.log(p / q)).sum()
//   scipy.stats.ks_2samp over the bin numbers repeated by their counts
//   scipy.spatial.distance.jensenshannon(a, b, base=2) ** 2
const A: [f64; 8] = [0.0, 120.0, 80.0, 40.0, 10.0, 3.0, 0.0, 7.0];
const B: [f64; 8] = [5.0, 90.0, 95.0, 60.0, 30.0, 12.0, 1.0, 0.0];

fn close(left: Option<f64>, right: f64) {
    let left = left.expect("both sides have counts");
    assert!((left - right).abs() < 1e-12, "{left} is not {right}");
}

#[test]
fn distances_agree_with_numpy_and_scipy() {
    close(psi(&A, &B), 0.285_966_359_097_827_64);
    close(kolmogorov_smirnov(&A, &B), 0.137_306_379_627_198_77);
    close(jensen_shannon(&A, &B), 0.054_893_609_001_039_03);
}

#[test]
fn a_category_seen_on_one_side_only_is_far_but_finite() {
    let (one, other) = ([100.0, 0.0, 0.0], [0.0, 0.0, 1000.0]);
    close(psi(&one, &other), 12.834_376_645_609_186);
    close(jensen_shannon(&one, &other), 1.0);
    close(kolmogorov_smirnov(&one, &other), 1.0);
}

#[test]
fn a_constant_column_has_not_moved_whatever_the_sizes() {
    let (few, many) = ([0.0, 7.0, 0.0], [0.0, 90_000.0, 0.0]);
    close(psi(&few, &many), 0.0);
    close(jensen_shannon(&few, &many), 0.0);
    close(kolmogorov_smirnov(&few, &many), 0.0);
    let constant = |n| Moments { n, mean: 3.7, variance: 0.0 };
    close(normal_divergence(constant(7.0), constant(9e4)), 0.0);
}

#[test]
fn no_data_is_not_a_distance_of_zero() {
    for distance in [psi, kolmogorov_smirnov, jensen_shannon] {
        assert_eq!(distance(&[0.0, 0.0], &[1.0, 2.0]), None);
        assert_eq!(distance(&[1.0, 2.0], &[0.0, 0.0]), None);
        assert_eq!(distance(&[], &[]), None);
        assert_eq!(distance(&[1.0], &[1.0, 2.0]), None);
    }
    let none = Moments { n: 0.0, mean: 0.0, variance: 0.0 };
    assert_eq!(normal_divergence(none, Moments { n: 1.0, ..none }), None);
}

#[test]
fn normal_distributions_have_their_closed_form() {
    // KL(N(1,4) ‖ N(3,9)) + KL(N(3,9) ‖ N(1,4)), with KL(m,v ‖ n,w) = ½ (ln(w/v) + (v + (m−n)²)/w − 1).
    let (a, b) = (Moments { n: 9.0, mean: 1.0, variance: 4.0 }, Moments { n: 4.0, mean: 3.0, variance: 9.0 });
    close(normal_divergence(a, b), 1.069_444_444_444_444_4);
    close(normal_divergence(b, a), 1.069_444_444_444_444_4);
}

#[test]
fn two_different_constants_are_very_far_apart_and_finite() {
    let constant = |mean| Moments { n: 5.0, mean, variance: 0.0 };
    close(normal_divergence(constant(0.0), constant(1e300)), LARGEST_DIVERGENCE);
    close(normal_divergence(constant(1.0), constant(2.0)), LARGEST_DIVERGENCE);
}

proptest! {
    #[test]
    fn distances_are_symmetric_finite_and_zero_on_equal(
        pairs in prop::collection::vec((any::<u64>(), any::<u64>()), 1..40)
    ) {
        let (a, b): (Vec<f64>, Vec<f64>) = pairs.iter().map(|(x, y)| (*x as f64, *y as f64)).unzip();
        for distance in [psi, kolmogorov_smirnov, jensen_shannon] {
            let (there, back) = (distance(&a, &b), distance(&b, &a));
            prop_assert_eq!(there.is_some(), back.is_some());
            if let (Some(there), Some(back)) = (there, back) {
                prop_assert!(there.is_finite() && there >= 0.0);
                prop_assert!((there - back).abs() <= 1e-9 * (1.0 + there));
                prop_assert!(distance(&a, &a).expect("counts") < 1e-12);
            }
        }
    }

    #[test]
    fn the_closed_form_is_symmetric_and_finite(
        n in 0.0..1e9_f64, means in (any::<f64>(), any::<f64>()), variances in (0.0..1e300_f64, 0.0..1e300_f64)
    ) {
        let a = Moments { n, mean: means.0, variance: variances.0 };
        let b = Moments { n, mean: means.1, variance: variances.1 };
        prop_assert_eq!(normal_divergence(a, b), normal_divergence(b, a));
        if let Some(divergence) = normal_divergence(a, b) {
            prop_assert!((0.0..=LARGEST_DIVERGENCE).contains(&divergence));
        }
    }
}

#[test]
fn wasserstein_is_the_way_that_values_have_moved() {
    let edges: Vec<f32> = (0..=10_u8).map(f32::from).collect();
    let bins = serin_protocol::sketch::Bins::new(&edges).expect("edges");
    let of = |values: &[f32]| {
        let mut histogram = Histogram::over_bins(&bins);
        histogram.record_all(&bins, values.iter().copied());
        histogram
    };
    let near = of(&[1.5, 2.5, 3.5, f32::NAN]);
    let far = of(&[4.5, 5.5, 6.5]);
    let way = wasserstein(&near, &far, &edges).expect("values");
    assert!((way - 3.0).abs() < 1e-9, "{way}");
    assert_eq!(wasserstein(&near, &near, &edges), Some(0.0));
    assert_eq!(wasserstein(&near, &of(&[]), &edges), None);
    assert_eq!(wasserstein(&near, &far, &edges[1..]), None);
}
