//! Data sets of which is known what drifts and when: that is found, at once, and nothing else is.

use serin_fleet_server::fleet::drift::cause::Cause;
use serin_tests::drifting::{KNOWN, Table, Watch};

/// Windows within which a change is found; the second where values that go missing lie about the smallest size worth a word.
const PATIENCE: usize = 2;

#[test]
fn what_is_known_to_drift_is_found_and_what_is_known_to_be_stable_is_not() {
    let mut wrong = Vec::new();
    for known in KNOWN {
        for found in known.play().expect("fetched by tests/needs.sh") {
            let (alarms, delay) = (found.alarms_before(known.change), found.delay_from(known.change));
            let drifts = known.drifting.contains(&found.feature.as_str());
            println!(
                "{}, {}: {alarms} false alarms, found after {delay:?} windows",
                known.name, found.feature
            );
            let right = alarms == 0
                && if drifts { delay.is_some_and(|delay| delay < PATIENCE) } else { delay.is_none() };
            if !right {
                wrong.push(format!("{}: {found:?}", known.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_changed_world_is_told_from_a_release_that_prepares_a_feature_wrongly() {
    let [loans, ..] = &KNOWN;
    let (reference, later) = loans.tables().expect("fetched by tests/needs.sh");
    let watch =
        Watch::new(&reference, &["car_value", "debt_to_income_ratio", "driver_tenure"]).expect("columns");
    // Every second row comes to a device with the new release, after the world has changed.
    let after = later.rows(|row| row >= later.len() / 2);
    let control = after.rows(|row| row % 2 == 0);
    let release = after.rows(|row| row % 2 == 1);
    let causes = |release: &Table| {
        let findings = watch.judge(release, Some(&control)).expect("columns");
        findings.into_iter().map(|(_, finding)| finding.cause).collect::<Vec<_>>()
    };
    assert_eq!(causes(&release), [Cause::World, Cause::Steady, Cause::Steady]);
    // It takes months for years.
    let broken = release.with("driver_tenure", |years| years / 12.0);
    assert_eq!(causes(&broken), [Cause::World, Cause::Steady, Cause::Release]);
}
