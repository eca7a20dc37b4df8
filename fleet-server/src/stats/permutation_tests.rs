//! Permutation tests against values computed independently.

use super::*;
use proptest::prelude::*;

fn mean_difference(values: &[f64], group: &[usize]) -> f64 {
    let total: f64 = values.iter().sum();
    let chosen: f64 = group.iter().map(|index| values[*index]).sum();
    let rest = (values.len() - group.len()) as f64;
    chosen / group.len() as f64 - (total - chosen) / rest
}

const fn one(units: usize, chosen: usize) -> Stratum {
    Stratum { units, chosen }
}

fn test(values: &[f64], chosen: usize, draws: u64, seed: u64) -> Permutation {
    permutation_test(&[one(values.len(), chosen)], draws, seed, |group| mean_difference(values, group))
        .expect("two groups")
}

#[test]
fn small_groups_are_enumerated_and_agree_with_scipy() {
    // scipy.stats.permutation_test(([4.1, 5.0, 6.2], [1.0, 2.5, 3.0, 4.5, 0.5, 2.0]),
    //   lambda x, y: x.mean() - y.mean(), alternative='greater', n_resamples=np.inf).pvalue == 2 / 84
    let found = test(&[4.1, 5.0, 6.2, 1.0, 2.5, 3.0, 4.5, 0.5, 2.0], 3, 0, 0);
    assert_eq!((found.as_extreme, found.divisions, found.exact), (2, 84, true));
    assert!((found.p_value - 0.023_809_523_809_523_808).abs() < 1e-15);
    assert!(!found.is_most_extreme());
}

#[test]
fn three_of_twelve_can_show_one_in_220_at_best() {
    let values = [9.0, 8.0, 7.0, 1.0, 1.1, 1.2, 0.9, 0.8, 1.0, 1.3, 0.7, 1.0];
    let found = test(&values, 3, 0, 0);
    assert_eq!((found.as_extreme, found.divisions), (1, 220));
    assert!(found.is_most_extreme());
    assert!((found.smallest - 1.0 / 220.0).abs() < 1e-15);
}

#[test]
fn one_odd_device_in_the_canary_is_not_shown() {
    let values = [90.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
    assert!((test(&values, 3, 0, 0).p_value - 0.25).abs() < 1e-12);
}

#[test]
fn large_groups_are_drawn_reproducibly_and_stop_early_when_nothing_is_there() {
    let values: Vec<f64> = (0..200_u32).map(|index| f64::from(index * 7919 % 199)).collect();
    let found = test(&values, 50, 10_000, 42);
    assert_eq!(found, test(&values, 50, 10_000, 42));
    assert!(!found.exact && found.divisions < 10_000 && found.p_value > 0.01);
    let shifted: Vec<f64> =
        values.iter().enumerate().map(|(at, value)| value + if at < 50 { 150.0 } else { 0.0 }).collect();
    let found = test(&shifted, 50, 10_000, 42);
    assert_eq!((found.as_extreme, found.divisions), (1, 10_001));
    assert!(found.is_most_extreme());
}

#[test]
fn without_two_groups_there_is_no_test() {
    assert_eq!(permutation_test(&[one(3, 0)], 10, 0, |_| 1.0), None);
    assert_eq!(permutation_test(&[one(3, 3)], 10, 0, |_| 1.0), None);
    assert_eq!(permutation_test(&[one(3, 1)], 10, 0, |_| f64::NAN), None);
}

#[test]
fn every_choice_is_visited_once() {
    let mut seen = std::collections::BTreeSet::new();
    for_each_choice(7, 3, |group| assert!(seen.insert(group.to_vec())));
    assert_eq!((seen.len(), divisions(7, 3)), (35, Some(35)));
    assert_eq!(divisions(1000, 500), None);
    assert_eq!(divisions(12, 12), Some(1));
}

#[test]
fn healthy_groups_cross_five_percent_in_about_five_percent() {
    let mut random = SplitMix64::new(1);
    let crossed = (0..1000).filter(|_| {
        let values: Vec<f64> = (0..12).map(|_| random.below(1_000_000) as f64).collect();
        test(&values, 4, 0, 0).p_value <= 0.05
    });
    // Binomial(1000, 0.05): mean 50, standard deviation 6.9; four of them.
    let crossed = crossed.count();
    assert!((22..=78).contains(&crossed), "{crossed}");
}

proptest! {
    #[test]
    fn p_values_are_probabilities(values in prop::collection::vec(-1e3_f64..1e3, 2..60), cut: prop::sample::Index, seed: u64) {
        let chosen = 1 + cut.index(values.len() - 1);
        let found = test(&values, chosen, 200, seed);
        prop_assert!(found.p_value > 0.0 && found.p_value <= 1.0);
        prop_assert!(found.as_extreme >= 1 && found.as_extreme <= found.divisions);
    }

    #[test]
    fn equal_units_show_nothing(value in -1e3_f64..1e3, units in 2_usize..40, cut: prop::sample::Index) {
        let values = vec![value; units];
        let found = test(&values, 1 + cut.index(units - 1), 100, 7);
        prop_assert!(found.p_value > 0.9, "{found:?}");
    }
}

/// Two classes of devices, one slow by nature and mostly in the canary: across them there is a difference, within
/// them there is none.
#[test]
fn what_strata_explain_is_not_laid_to_the_release() {
    let values = [9.0, 9.2, 9.1, 9.0, 1.0, 1.0, 1.2, 1.1, 1.1, 0.9];
    let strata = [one(4, 3), one(6, 1)];
    let group = |strata: &[Stratum]| {
        permutation_test(strata, 999, 1, |group| mean_difference(&values, group)).expect("two groups")
    };
    let found = group(&strata);
    assert_eq!((found.divisions, found.exact), (4 * 6, true));
    assert!(found.p_value > 0.3, "{found:?}");
    assert_eq!(permutation_test(&[one(2, 2), one(3, 0)], 999, 1, |_| 1.0), None);
}
