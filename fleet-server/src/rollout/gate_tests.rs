//! Gates: what passes, what breaches, and what shows too little.

use proptest::prelude::*;
use serin_protocol::ids::{BasisPoints, Digest};
use serin_protocol::sketch::{Bins, Histogram};

use super::super::plan::{DriftGate, Thousandths};
use super::super::test_fleet::{balanced, device, evidence, histogram, latency, skewed};
use super::super::verdict::Judgement;
use super::*;

fn plan() -> Plan {
    let mut plan = Plan::default();
    plan.gates.confidence = Some(DriftGate::default());
    plan
}

fn arm(
    version: &str,
    devices: core::ops::Range<u32>,
    change: impl Fn(u32, &mut DeviceEvidence),
) -> Vec<DeviceEvidence> {
    devices
        .map(|number| {
            let mut shown = evidence(&device(number), version);
            change(number, &mut shown);
            shown
        })
        .collect()
}

fn judge_at(plan: &Plan, stage: usize, canary: &[DeviceEvidence], control: &[DeviceEvidence]) -> Judgement {
    let count = |arm: &[DeviceEvidence]| u32::try_from(arm.len()).expect("small");
    let member = |shown| Member { shown, stratum: 0 };
    Look {
        plan,
        stages: &plan.stages(),
        stage,
        looks: 0,
        seed: 11,
        canary: canary.iter().map(member).collect(),
        control: control.iter().map(member).collect(),
        shadows: Vec::new(),
        crashed: LogRank::default(),
        baked: true,
        canary_reachable: count(canary),
        canary_running: count(canary),
        control_reachable: count(control),
        control_waiting: count(control),
        shadowing: 0,
    }
    .judge()
}

fn judge(canary: &[DeviceEvidence], control: &[DeviceEvidence]) -> Judgement {
    judge_at(&plan(), 0, canary, control)
}

fn gate(judgement: &Judgement, name: GateName) -> &GateResult {
    judgement.gates.iter().find(|gate| gate.name == name).expect("in the plan")
}

fn healthy(version: &str, devices: core::ops::Range<u32>) -> Vec<DeviceEvidence> {
    arm(version, devices, |_, _| {})
}

#[test]
fn two_equal_arms_pass_every_gate() {
    let judgement = judge(&healthy("v2", 0..20), &healthy("v1", 20..60));
    assert_eq!(judgement.lacking, None);
    assert!(judgement.gates.iter().all(|gate| gate.verdict == GateVerdict::Pass), "{judgement:#?}");
    assert_eq!(judgement.gates.len(), 7);
}

#[test]
fn twice_the_errors_are_shown_over_devices_that_differ() {
    let spread = |number: u32, factor: u64| 2 + u64::from(number * 7 % 5) * factor;
    let canary = arm("v2", 0..30, |number, shown| shown.errors = spread(number, 2) + 3);
    let control = arm("v1", 30..120, |number, shown| shown.errors = spread(number, 1));
    let judgement = judge(&canary, &control);
    let result = gate(&judgement, GateName::ErrorRate);
    assert_eq!((result.verdict, result.on_breach), (GateVerdict::Breach, OnBreach::RollBack));
    // 0.01 / 2 stages / 6 gates · 0.8 / 5 looks: what a planned look may spend.
    assert!(result.p_value.is_some_and(|p| p <= 0.000_14), "{result:?}");
    assert_eq!(
        result.sentence,
        "4.5 % of inferences failed, 2 % on 90 control devices (limit 3 %); by chance this is seen with \
         probability 0.000044, 0.00013 is allowed"
    );
}

#[test]
fn three_times_next_to_nothing_is_still_next_to_nothing() {
    let canary = arm("v2", 0..30, |number, shown| shown.errors = u64::from(number % 2));
    let control = arm("v1", 30..120, |number, shown| shown.errors = u64::from(number % 6 == 0));
    assert_eq!(gate(&judge(&canary, &control), GateName::ErrorRate).verdict, GateVerdict::Pass);
}

#[test]
fn a_hard_limit_needs_no_control_and_holds_in_the_last_stage_too() {
    let canary = arm("v2", 0..20, |_, shown| shown.errors = 50);
    for stage in 0..3 {
        let judgement = judge_at(&plan(), stage, &canary, &[]);
        assert_eq!(gate(&judgement, GateName::ErrorRate).verdict, GateVerdict::Breach, "stage {stage}");
    }
    let few = arm("v2", 0..1, |_, shown| (shown.requests, shown.errors) = (29, 29));
    let judgement = judge(&few, &healthy("v1", 20..60));
    assert_eq!(gate(&judgement, GateName::ErrorRate).verdict, GateVerdict::Insufficient);
}

#[test]
fn the_last_stage_has_nothing_to_compare_with_and_says_so() {
    let judgement = judge_at(&plan(), 2, &healthy("v2", 0..60), &[]);
    assert_eq!(judgement.lacking, None);
    assert!(judgement.gates.iter().all(|gate| gate.verdict == GateVerdict::NotCompared));
}

#[test]
fn missing_data_is_never_a_pass() {
    let silent = arm("v1", 20..60, |_, shown| shown.requests = 0);
    for (canary, control, words) in [
        (vec![], healthy("v1", 20..60), "0 of 1 canary devices have reported"),
        (healthy("v2", 0..20), vec![], "0 of 1 control devices have reported"),
        (healthy("v2", 0..20), silent, "0 of 20 control devices have reported"),
        (healthy("v2", 0..9), healthy("v1", 20..60), "1800 of 2000 inferences by the canary"),
    ] {
        let judgement = judge(&canary, &control);
        assert_eq!(judgement.lacking.as_deref(), Some(words));
        assert!(judgement.gates.iter().all(|gate| gate.verdict != GateVerdict::Pass));
    }
}

#[test]
fn slow_inferences_are_counted_above_the_controls_tail_and_above_the_floor() {
    let slow = |micros| arm("v2", 0..20, |_, shown| shown.latency = latency(micros, 200));
    let judgement = judge(&slow(9000), &healthy("v1", 20..60));
    let result = gate(&judgement, GateName::Latency);
    assert_eq!((result.verdict, result.canary, result.control), (GateVerdict::Breach, Some(1.0), Some(0.0)));
    // Four times as slow, and all of it under a millisecond: nobody waits for that.
    let control = arm("v1", 20..60, |_, shown| shown.latency = latency(200, 200));
    assert_eq!(gate(&judge(&slow(800), &control), GateName::Latency).verdict, GateVerdict::Pass);
}

#[test]
fn moved_predictions_are_a_breach_and_an_unseen_class_is_finite() {
    let canary = arm("v2", 0..20, |_, shown| shown.predictions = skewed());
    let judgement = judge(&canary, &healthy("v1", 20..60));
    assert_eq!(gate(&judgement, GateName::Predictions).verdict, GateVerdict::Breach);
    let unseen = arm("v2", 0..20, |_, shown| {
        shown.predictions = Histogram { over: 200, ..Histogram::over_bins(&Bins::classes(10)) };
    });
    let judgement = judge(&unseen, &healthy("v1", 20..60));
    let psi = gate(&judgement, GateName::Predictions).canary.expect("compared");
    assert!(psi > 5.0 && psi.is_finite());
}

#[test]
fn predictions_in_other_bins_are_not_compared_and_do_not_pass() {
    let canary = arm("v2", 0..20, |_, shown| shown.binning.predictions = Digest::of(b"other"));
    let judgement = judge(&canary, &healthy("v1", 20..60));
    let result = gate(&judgement, GateName::Predictions);
    assert_eq!(result.verdict, GateVerdict::Insufficient);
    assert_eq!(
        result.sentence,
        "predicted classes of the two releases are counted in different bins, or not at all"
    );
}

#[test]
fn a_model_that_declares_no_prediction_is_not_judged_by_it() {
    let none = |_: u32, shown: &mut DeviceEvidence| shown.predictions = Histogram::default();
    let (canary, control) = (arm("v2", 0..20, none), arm("v1", 20..60, none));
    assert_eq!(gate(&judge(&canary, &control), GateName::Predictions).verdict, GateVerdict::NotCompared);
    let judgement = judge(&canary, &healthy("v1", 20..60));
    assert_eq!(gate(&judgement, GateName::Predictions).verdict, GateVerdict::Insufficient);
}

#[test]
fn one_broken_input_feature_holds() {
    let canary = arm("v2", 0..20, |_, shown| shown.features = vec![skewed(), histogram(&[200])]);
    let judgement = judge(&canary, &healthy("v1", 20..60));
    let result = gate(&judgement, GateName::Inputs);
    assert_eq!((result.verdict, result.on_breach), (GateVerdict::Breach, OnBreach::Hold));
    assert!(result.sentence.starts_with("input feature 0 moved by PSI 2.2"), "{}", result.sentence);
    assert!(result.sentence.contains(" against 40 control devices (limit 0.1)"), "{}", result.sentence);
}

#[test]
fn inputs_in_other_bins_are_compared_by_mean_and_spread() {
    let other = |change: fn(&mut DeviceEvidence)| {
        arm("v2", 0..20, move |_, shown| {
            shown.binning.features = Digest::of(b"other");
            change(shown);
        })
    };
    let judgement = judge(&other(|_| {}), &healthy("v1", 20..60));
    assert_eq!(gate(&judgement, GateName::Inputs).verdict, GateVerdict::Pass);
    let judgement =
        judge(&other(|shown| shown.features = vec![skewed(), histogram(&[200])]), &healthy("v1", 20..60));
    let result = gate(&judgement, GateName::Inputs);
    assert_eq!(result.verdict, GateVerdict::Breach);
    assert!(result.sentence.contains("by mean and spread as their bins differ"), "{}", result.sentence);
    let judgement = judge(&other(|shown| shown.features = vec![balanced()]), &healthy("v1", 20..60));
    assert_eq!(gate(&judgement, GateName::Inputs).verdict, GateVerdict::Insufficient);
}

#[test]
fn a_device_that_reports_other_sketches_than_its_like_is_left_out() {
    let canary = arm("v2", 0..20, |number, shown| {
        if number == 3 {
            shown.predictions = histogram(&[200]);
            shown.features = vec![];
        }
    });
    let judgement = judge(&canary, &healthy("v1", 20..60));
    assert!(judgement.gates.iter().all(|gate| gate.verdict == GateVerdict::Pass), "{judgement:#?}");
}

#[test]
fn arms_too_small_for_any_test_say_so() {
    let plan = plan();
    let canary = arm("v2", 0..1, |_, shown| (shown.requests, shown.predictions) = (2000, skewed()));
    let control = arm("v1", 20..22, |_, shown| shown.requests = 2000);
    let judgement = judge_at(&plan, 0, &canary, &control);
    let result = gate(&judgement, GateName::Predictions);
    assert_eq!(result.verdict, GateVerdict::Insufficient);
    assert!(result.sentence.ends_with("1 against 2 devices are too few for any test at this alpha"));
}

/// A release that changes nothing, on devices whose error rates differ widely: what a pooled test takes
/// for certain harm is ordinary luck of the draw.
#[test]
fn healthy_releases_are_hardly_ever_rolled_back_however_devices_differ() {
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / f64::from(1_u32 << 31)
    };
    let mut plan = plan();
    // Only the error rate, all of the alpha in one place, and no floor to hide behind.
    plan.gates.latency = None;
    plan.gates.predictions = None;
    plan.gates.confidence = None;
    plan.gates.inputs = None;
    plan.alpha = BasisPoints(1000);
    if let Some(gate) = &mut plan.gates.error_rate {
        gate.floor = BasisPoints(0);
        gate.max_ratio = Thousandths(1001);
    }
    let breaches = (0..400).filter(|_| {
        // Exponential rates: a coefficient of variation of 1.
        let rates: Vec<f64> = (0..100).map(|_| -0.02 * (1.0 - random()).ln()).collect();
        let shown = |version, devices| {
            arm(version, devices, |number, shown: &mut DeviceEvidence| {
                shown.requests = 1000;
                shown.errors = (rates[number as usize] * 1000.0) as u64;
            })
        };
        let judgement = judge_at(&plan, 0, &shown("v2", 0..20), &shown("v1", 20..100));
        gate(&judgement, GateName::ErrorRate).verdict == GateVerdict::Breach
    });
    // One look of the first of two stages may spend 10 % / 2 / 2: 10 of 400, standard deviation 3.1.
    let breaches = breaches.count();
    assert!(breaches <= 22, "{breaches} of 400");
}

fn any_histogram() -> impl Strategy<Value = Histogram> {
    let bins = prop::collection::vec(prop_oneof![Just(0_u64), 0_u64..1000, any::<u64>()], 0..6);
    (bins, any::<u64>(), any::<f64>(), 0.0..f64::MAX).prop_map(|(counts, missing, mean, m2)| Histogram {
        counts: counts.into_iter().collect(),
        missing,
        mean,
        m2,
        ..Histogram::default()
    })
}

fn any_evidence() -> impl Strategy<Value = DeviceEvidence> {
    let features = prop::collection::vec(any_histogram(), 0..3);
    (
        0_u32..20,
        any::<bool>(),
        any::<u64>(),
        any::<u64>(),
        any_histogram(),
        any_histogram(),
        features,
        0_u8..2,
    )
        .prop_map(|(number, fresh, requests, errors, predictions, confidence, features, bins)| {
            let mut shown = evidence(&device(number), if fresh { "v2" } else { "v1" });
            shown.binning.features = Digest::of(&[bins]);
            DeviceEvidence { requests, errors, predictions, confidence, features, ..shown }
        })
}

proptest! {
    #[test]
    fn any_evidence_gets_a_finite_answer(shown in prop::collection::vec(any_evidence(), 0..16), stage in 0_usize..5) {
        let (canary, control): (Vec<_>, Vec<_>) =
            shown.into_iter().partition(|device| device.release.version.as_str() == "v2");
        let judgement = judge_at(&plan(), stage, &canary, &control);
        for gate in &judgement.gates {
            let numbers = [gate.canary, gate.control, gate.p_value, Some(gate.threshold)];
            prop_assert!(numbers.into_iter().flatten().all(f64::is_finite), "{gate:?}");
            prop_assert!(judgement.lacking.is_none() || gate.verdict != GateVerdict::Pass);
            prop_assert!(!gate.sentence.is_empty());
        }
        let json = serde_json::to_string(&judgement).expect("plain data");
        prop_assert_eq!(serde_json::from_str::<Judgement>(&json).expect("plain data"), judgement);
    }
}
