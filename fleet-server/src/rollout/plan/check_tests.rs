//! Plans that make no sense are refused with the field named.

use super::super::{Canary, OnBreach, Plan, Strategy, Thousandths};
use super::*;
use proptest::prelude::*;

const WRITTEN: &str = r#"
alpha = "2.5%"
deadline = "1h"
on_inconclusive = "hold"

[probation]
duration = "90s"
max_error_rate = "5%"
min_requests = 20
max_worker_deaths = 1

[failures]
max_devices = 2

[[strategy.canary.stages]]
share = "25%"
bake = "1h30m"
min_devices = 3
min_requests = 300

[[strategy.canary.stages]]
share = "100%"
bake = "10m"

[gates.predictions]
threshold = 0.5
on_breach = "roll_back"
"#;

fn stages(plan: &mut Plan) -> &mut Vec<Stage> {
    match &mut plan.strategy {
        Strategy::Canary(Canary { stages, .. }) => stages,
        other => panic!("{other:?}"),
    }
}

fn share_of(points: u16) -> Size {
    Size::Share(BasisPoints(points))
}

fn refused(change: impl Fn(&mut Plan)) -> String {
    let mut plan = Plan::default();
    change(&mut plan);
    plan.check().expect_err("refused").field
}

#[test]
fn a_plan_is_read_as_people_write_it() {
    let plan: Plan = toml::from_str(WRITTEN).expect("valid TOML");
    assert_eq!(plan.check(), Ok(()));
    assert_eq!(plan.alpha, BasisPoints(250));
    assert_eq!(plan.stages()[0].bake, Millis(5_400_000));
    assert_eq!(plan.probation.duration, Millis(90_000));
    assert_eq!((plan.failures.max_devices, plan.failures.max_share), (2, BasisPoints(500)));
    let predictions = plan.gates.predictions.expect("named");
    assert_eq!((predictions.threshold, predictions.on_breach), (Thousandths(500), OnBreach::RollBack));
    assert!(plan.gates.error_rate.is_some(), "what is not named keeps its default");
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    for (line, name) in [
        ("canary = 1", "canary"),
        ("[gates.predictions]\nthreshold = 0.5\non_breach = \"hold\"\nfloor = 1", "floor"),
        ("[[strategy.canary.stages]]\nshare = \"100%\"\nbake = \"1m\"\nsoak = \"1m\"", "soak"),
        ("[failures]\nmax = 3", "max"),
        ("[strategy.big_band]", "big_band"),
    ] {
        let error = toml::from_str::<Plan>(line).expect_err(line).to_string();
        assert!(error.contains(name), "{error}");
    }
    let error = toml::from_str::<Plan>("alpha = 1").expect_err("not a share").to_string();
    assert!(error.contains("alpha"), "{error}");
}

#[test]
fn the_defaults_and_the_first_release_make_sense() {
    assert_eq!(Plan::default().check(), Ok(()));
    assert_eq!(Plan::all_at_once(Millis::from_secs(5), 0).check(), Ok(()));
}

#[test]
fn every_refusal_names_its_field() {
    assert_eq!(refused(|plan| stages(plan).clear()), "strategy.canary.stages");
    assert_eq!(refused(|plan| stages(plan)[1].share = share_of(400)), "strategy.canary.stages[1].share");
    assert_eq!(refused(|plan| stages(plan)[1].share = share_of(9500)), "strategy.canary.stages[1].share");
    assert_eq!(refused(|plan| stages(plan)[2].share = share_of(9999)), "strategy.canary.stages[2].share");
    assert_eq!(refused(|plan| stages(plan)[0].bake = Millis(0)), "strategy.canary.stages[0].bake");
    assert_eq!(refused(|plan| stages(plan)[0].timeout = Millis(5000)), "strategy.canary.stages[0].timeout");
    assert_eq!(refused(|plan| stages(plan)[0].min_requests = 0), "strategy.canary.stages[0].min_requests");
    assert_eq!(refused(|plan| plan.alpha = BasisPoints(0)), "alpha");
    assert_eq!(refused(|plan| plan.max_silent = BasisPoints(10_001)), "max_silent");
    assert_eq!(refused(|plan| plan.deadline = Millis::from_secs(60)), "deadline");
    assert_eq!(refused(|plan| plan.rollback_deadline = Millis(u64::MAX)), "rollback_deadline");
    assert_eq!(refused(|plan| plan.failures.max_devices = 0), "failures.max_devices");
    assert_eq!(refused(|plan| plan.probation.max_worker_deaths = 0), "probation.max_worker_deaths");
    assert_eq!(
        refused(|plan| plan.gates.error_rate.iter_mut().for_each(|gate| gate.max_ratio = Thousandths(999))),
        "gates.error_rate.max_ratio"
    );
    assert_eq!(
        refused(|plan| plan.gates.latency.iter_mut().for_each(|gate| gate.max_share = BasisPoints(500))),
        "gates.latency.max_share"
    );
    assert_eq!(
        refused(|plan| plan.gates.inputs.iter_mut().for_each(|gate| gate.threshold = Thousandths(0))),
        "gates.inputs.threshold"
    );
    assert_eq!(
        refused(|plan| {
            plan.gates = super::super::Gates {
                error_rate: None,
                crashes: true,
                reporting: true,
                latency: None,
                predictions: None,
                confidence: None,
                inputs: None,
            };
        }),
        "gates"
    );
}

proptest! {
    #[test]
    fn plans_survive_toml_json_and_postcard(
        share in 1_u16..9000, bake in 100_u64..10_000_000, alpha in 1_u16..2000, threshold in 1_u32..100_000
    ) {
        let mut plan = Plan { alpha: BasisPoints(alpha), ..Plan::default() };
        stages(&mut plan).remove(1);
        stages(&mut plan)[0].share = share_of(share);
        stages(&mut plan)[0].bake = Millis(bake);
        plan.gates.inputs.iter_mut().for_each(|gate| gate.threshold = Thousandths(threshold));
        prop_assert_eq!(plan.check(), Ok(()));
        let toml = toml::to_string(&plan).expect("plain data");
        prop_assert_eq!(&toml::from_str::<Plan>(&toml).expect("own text"), &plan);
        let json = serde_json::to_string(&plan).expect("plain data");
        prop_assert_eq!(&serde_json::from_str::<Plan>(&json).expect("own text"), &plan);
        let bytes = postcard::to_allocvec(&plan).expect("plain data");
        prop_assert_eq!(&postcard::from_bytes::<Plan>(&bytes).expect("own bytes"), &plan);
    }
}
