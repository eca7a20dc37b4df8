//! Intervals against values computed independently.

use super::*;

fn near(found: Estimate, expected: [f64; 3]) {
    for (found, expected) in [found.value, found.low, found.high].into_iter().zip(expected) {
        assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
    }
}

fn share(events: f64, n: f64) -> Share {
    Share { value: events / n, worth: n }
}

#[test]
fn shares_of_few_have_wide_intervals_that_stay_within_0_and_1() {
    // statsmodels.stats.proportion.proportion_confint(count, nobs, method="wilson")
    near(share(8.0, 10.0).estimate(), [0.8, 0.490_162_48, 0.943_317_85]);
    near(share(10.0, 10.0).estimate(), [1.0, 0.722_467_2, 1.0]);
    near(share(0.0, 1.0).estimate(), [0.0, 0.0, 0.793_450_69]);
}

#[test]
fn differences_agree_with_newcombe() {
    // statsmodels.stats.proportion.confint_proportions_2indep(56, 70, 48, 80, method="newcomb")
    near(share(56.0, 70.0).minus(share(48.0, 80.0)), [0.2, 0.052_431_47, 0.333_872_65]);
    near(share(9.0, 10.0).minus(share(3.0, 10.0)), [0.6, 0.170_522_72, 0.809_017_97]);
}

#[test]
fn devices_that_differ_are_worth_less_than_their_labels() {
    let alike: Vec<Counted> = vec![(8.0, 10.0); 20];
    let unlike: Vec<Counted> = (0..20).map(|at| (if at % 5 == 0 { 0.0 } else { 10.0 }, 10.0)).collect();
    let (alike, unlike) = (Share::over(&alike).expect("some"), Share::over(&unlike).expect("some"));
    assert!((alike.value - 0.8).abs() < 1e-12 && (alike.worth - 200.0).abs() < 1e-9, "{alike:?}");
    assert!((unlike.value - 0.8).abs() < 1e-12 && (18.0..22.0).contains(&unlike.worth), "{unlike:?}");
    assert_eq!(Share::over(&[]), None);
    assert_eq!(Share::over(&[(3.0, 3.0)]), Some(Share { value: 1.0, worth: 3.0 }));
}

#[test]
fn means_agree_with_scipy() {
    // scipy.stats.t.interval(0.95, 4, loc=3, scale=scipy.stats.sem([1, 2, 3, 4, 5]))
    let five = Mean::of(5, 15.0, 55.0).expect("enough");
    near(five.estimate(), [3.0, 1.036_756_8, 4.963_243_2]);
    // scipy.stats.ttest_ind([1, 2, 3, 4, 5], [2, 4, 9], equal_var=False).confidence_interval()
    let three = Mean::of(3, 15.0, 101.0).expect("enough");
    near(five.minus(three), [-2.0, -9.923_547_85, 5.923_547_85]);
    assert_eq!(Mean::of(1, 1.0, 1.0), None);
    let constant = Mean::of(4, 8.0, 16.0).expect("enough");
    near(constant.minus(constant), [0.0, 0.0, 0.0]);
}
