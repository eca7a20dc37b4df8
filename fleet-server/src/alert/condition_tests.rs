//! Readings near every limit, and readings that show nothing.

use super::*;

fn condition(text: &str) -> Condition {
    #[derive(Deserialize)]
    struct Of {
        when: Condition,
    }
    let Of { when } = toml::from_str(text).expect(text);
    when.check().expect("makes sense");
    when
}

fn signal(text: &str, reading: &Reading) -> Signal {
    condition(text).judge(reading).signal
}

fn timed(fast: u64, slow: u64) -> Reading {
    let mut reading = Reading::default();
    (0..fast).for_each(|_| reading.latency.record_micros(1000));
    (0..slow).for_each(|_| reading.latency.record_micros(80_000));
    reading
}

#[test]
fn latency_is_bad_when_more_than_the_rest_of_the_quantile_is_slow() {
    let text = "when.latency = { quantile = 0.9, above = '50ms', clear_below = '2ms' }";
    assert_eq!(signal(text, &timed(90, 10)), Signal::Good, "just the tenth that may be slow");
    assert_eq!(signal(text, &timed(89, 11)), Signal::Bad);
    assert_eq!(signal(text, &timed(5, 5)), Signal::Unknown, "ten are too few");
    let mut middling = timed(0, 0);
    (0..100).for_each(|_| middling.latency.record_micros(10_000));
    assert_eq!(signal(text, &middling), Signal::Between);
    let judged = condition(text).judge(&timed(89, 11));
    assert!(judged.text.starts_with("90.0 % of 100 inferences within"), "{}", judged.text);
}

#[test]
fn a_limit_inside_a_bin_is_never_exceeded_by_the_bin_alone() {
    // 70 ms lies inside a bin: what may be below it does not count as above it.
    let text = "when.latency = { quantile = 0.5, above = '70ms' }";
    let mut reading = Reading::default();
    (0..100).for_each(|_| reading.latency.record_micros(66_000));
    assert_eq!(signal(text, &reading), Signal::Good);
}

#[test]
fn errors_and_coverage_are_shares_with_two_limits() {
    let text = "when.error_rate = { above = '5%', clear_below = '2%' }";
    let reading = |errors| Reading { requests: 100, errors, ..Reading::default() };
    assert_eq!(signal(text, &reading(6)), Signal::Bad);
    assert_eq!(signal(text, &reading(5)), Signal::Between);
    assert_eq!(signal(text, &reading(2)), Signal::Good);
    assert_eq!(signal(text, &Reading { requests: 19, errors: 19, ..Reading::default() }), Signal::Unknown);

    let text = "when.coverage = { below = '80%', clear_above = '90%' }";
    let reading = |reporting| Reading { devices: 10, reporting, ..Reading::default() };
    assert_eq!(signal(text, &reading(7)), Signal::Bad);
    assert_eq!(signal(text, &reading(8)), Signal::Between);
    assert_eq!(signal(text, &reading(9)), Signal::Good);
    assert_eq!(signal(text, &Reading::default()), Signal::Unknown);
}

#[test]
fn drift_needs_more_than_chance_and_names_what_moved() {
    let shift = |name: &str, psi, moved| Shift { name: name.into(), psi, moved };
    let features = vec![
        shift("age", 0.9, Some(false)),
        shift("light", 0.3, Some(true)),
        shift("noise", 0.5, Some(true)),
        shift("rare", 4.0, None),
    ];
    let reading = Reading { features, ..Reading::default() };
    let judged = condition("when.feature_drift = { above = 0.25 }").judge(&reading);
    assert_eq!((judged.signal, judged.value), (Signal::Bad, Some(0.5)));
    assert_eq!(judged.moved, [("noise".into(), 0.5), ("light".into(), 0.3)]);
    assert_eq!(signal("when.feature_drift = { feature = 'age' }", &reading), Signal::Good);
    assert_eq!(signal("when.feature_drift = { feature = 'rare' }", &reading), Signal::Unknown);
    assert_eq!(signal("when.feature_drift = { feature = 'no' }", &reading), Signal::Unknown);
    assert_eq!(signal("when.prediction_drift = {}", &reading), Signal::Unknown);
}

#[test]
fn quality_without_labels_is_unknown_not_fine() {
    let text = "when.quality = { below = '90%' }";
    assert_eq!(signal(text, &Reading::default()), Signal::Unknown);
    assert_eq!(signal(text, &Reading { quality: Some((10, 0)), ..Reading::default() }), Signal::Unknown);
    assert_eq!(signal(text, &Reading { quality: Some((100, 89)), ..Reading::default() }), Signal::Bad);
    assert_eq!(signal(text, &Reading { quality: Some((100, 90)), ..Reading::default() }), Signal::Good);
}

#[test]
fn one_rollback_is_enough_unless_said_otherwise() {
    assert_eq!(signal("when.rollbacks = {}", &Reading { rollbacks: 1, ..Reading::default() }), Signal::Bad);
    assert_eq!(
        signal("when.rollbacks = { above = 1 }", &Reading { rollbacks: 1, ..Reading::default() }),
        Signal::Good
    );
}
