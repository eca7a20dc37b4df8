//! Strategies, selectors, rates, windows, drills and the way back, told as stories.

use serin_protocol::message::WorkerDeath;

use super::super::super::evidence::{Evidence, ShadowEvidence};
use super::super::super::plan::schedule::OFFSET_TAG;
use super::super::super::plan::{Ab, Bandit, BigBang, FailureBudget, Metric, OnTie, Rate, Selector, Shadow};
use super::super::super::preview::Preview;
use super::super::super::verdict::GateName;
use super::*;

const HOUR: Millis = Millis::from_secs(3600);

fn started(plan: Plan, devices: u32) -> World {
    World::new(plan, devices, |_| Manner::Healthy)
}

fn told(world: &World) -> u32 {
    world.rollout.fleet().tally().exposed
}

#[test]
fn a_stage_that_wants_approval_waits_for_it_with_everything_shown() {
    let mut plan = small_plan();
    let Strategy::Canary(canary) = &mut plan.strategy else { panic!("a canary") };
    canary.stages[1].approval = true;
    let mut world = started(plan, 12);
    world.pass(HOUR);
    assert!(matches!(world.rollout.state(), State::AwaitingOperator { .. }));
    assert!(world.said(Decision::AwaitApproval).contains("wants an operator's approval"));
    assert_eq!(told(&world), 3);
    world.order(Command::Promote { reason: "seen on site".to_owned() }).expect("awaiting");
    world.pass(MINUTE);
    assert_eq!(world.outcome(), Some(Outcome::Completed));
}

#[test]
fn devices_are_told_at_a_growing_rate_and_watched_once_all_are() {
    let mut plan = small_plan();
    let rate: Rate = toml::from_str("per_minute = 2\ngrowth = 2.0\nmax_per_minute = 8").expect("valid");
    plan.rate = Some(rate);
    let Strategy::Canary(canary) = &mut plan.strategy else { panic!("a canary") };
    canary.stages.iter_mut().for_each(|stage| stage.timeout = HOUR);
    let mut world = started(plan, 100);
    assert_eq!(told(&world), 1, "the first at once");
    world.pass(MINUTE);
    assert_eq!(told(&world), 3);
    world.pass(MINUTE);
    assert_eq!(told(&world), 7);
    assert_eq!(world.rollout.stage().settled_at, None, "others are still to be told");
    world.pass(MINUTE.plus(MINUTE).plus(MINUTE));
    assert_eq!((told(&world), world.rollout.stage().index), (25, 0));
    world.pass(HOUR);
    assert_eq!(world.outcome(), Some(Outcome::Completed), "{}", world.last_words());
}

#[test]
fn nobody_is_told_outside_the_windows_of_its_own_local_time() {
    let mut plan = small_plan();
    plan.schedule = toml::from_str("windows = ['22:00-05:00']").expect("valid");
    let Strategy::Canary(canary) = &mut plan.strategy else { panic!("a canary") };
    canary.stages.iter_mut().for_each(|stage| stage.timeout = Millis::from_secs(48 * 3600));
    // 1970-01-01 00:16:40 UTC, at night; in Tokyo it is morning.
    let mut start = started(plan, 12).start;
    for seen in start.devices.iter_mut().filter(|seen| seen.device.as_str().ends_with('0')) {
        seen.traits.tags.insert(OFFSET_TAG.to_owned(), "+09:00".to_owned());
    }
    let far = start.devices.iter().filter(|seen| !seen.traits.tags.is_empty()).count();
    let (mut rollout, effects) = Rollout::start(start).expect("valid");
    let given =
        |effects: &Effects| effects.iter().filter(|effect| matches!(effect, Effect::Assign { .. })).count();
    assert_eq!(given(&effects), 3, "those where it is night");
    let promote = Command::Promote { reason: String::new() };
    let order = OperatorOrder { expected: None, by: "ana".to_owned(), command: promote };
    let effects = rollout.handle(UnixMillis(1_000_001), RolloutEvent::Operator(order));
    assert_eq!(given(&effects), 9 - far);
    // 22:00 in Tokyo is 13:00 UTC.
    assert_eq!(rollout.next_told(), Some(UnixMillis(13 * 3_600_000)));
}

#[test]
fn a_plan_means_some_devices_and_those_that_come_to_match() {
    let tagged = |number: u32, site: &str| {
        let mut seen = sighting(&device(number), Some("v1"));
        seen.traits.tags.insert("site".to_owned(), site.to_owned());
        seen
    };
    let mut start = started(small_plan(), 12).start;
    start.plan.who = toml::from_str("tags = { site = 'lisbon' }").expect("valid");
    start.devices =
        (0..12).map(|number| tagged(number, if number < 8 { "lisbon" } else { "porto" })).collect();
    let (mut rollout, _) = Rollout::start(start.clone()).expect("valid");
    assert_eq!(rollout.fleet().len(), 8);
    let _ = rollout.handle(start.at, RolloutEvent::DeviceSeen(tagged(9, "lisbon")));
    let _ = rollout.handle(start.at, RolloutEvent::DeviceSeen(tagged(12, "porto")));
    assert_eq!(rollout.fleet().len(), 9, "one has moved to Lisbon");
    start.plan.who.dynamic = false;
    let (mut rollout, _) = Rollout::start(start.clone()).expect("valid");
    let _ = rollout.handle(start.at, RolloutEvent::DeviceSeen(tagged(9, "lisbon")));
    assert_eq!(rollout.fleet().len(), 8, "nobody joins");
    start.plan.who = toml::from_str("dynamic = false\ntags = { site = 'rome' }").expect("valid");
    assert_eq!(Rollout::start(start).err(), Some(StartError::Nobody(12)));
}

#[test]
fn a_stage_may_be_so_many_devices_and_have_a_budget_of_its_own() {
    let mut plan = small_plan();
    let Strategy::Canary(canary) = &mut plan.strategy else { panic!("a canary") };
    canary.stages[0].share = Size::Count(5);
    canary.stages[0].failures = Some(FailureBudget { max_devices: 1, max_share: BasisPoints(0) });
    let mut world = started(plan, 100);
    assert_eq!(told(&world), 5);
    let first = world.line().remove(0);
    let bad = Some(Reason::LoadFailed(Detail::new("x")));
    world.transition(&first, release("v2"), Phase::RolledBack, bad);
    world.pass(HOUR);
    assert!(matches!(world.rollout.state(), State::AwaitingOperator { .. }), "{}", world.last_words());
    assert!(world.last_words().contains("devices failed with it"), "{}", world.last_words());
}

#[test]
fn each_kind_of_device_has_its_share_of_the_canary() {
    let mut start = started(small_plan(), 40).start;
    for seen in start.devices.iter_mut().take(8) {
        seen.traits.target = "linux-aarch64".parse().expect("name");
    }
    for salt in 0..20 {
        start.salt = Salt(salt);
        let (rollout, _) = Rollout::start(start.clone()).expect("valid");
        let exposed = rollout.fleet().iter().filter(|(_, record)| record.standing.is_exposed());
        let small = exposed.filter(|(_, record)| record.traits.target.as_str() == "linux-aarch64").count();
        // 10 of 40, of which a fifth are of this kind; its controls may be more than its part.
        assert!((1..=3).contains(&small), "{small} with salt {salt}");
    }
}

#[test]
fn some_devices_are_taken_back_and_the_rollout_goes_on_without_them() {
    let mut world = started(small_plan(), 12);
    let first = world.line().remove(0);
    let who = Selector { devices: [first.clone()].into(), ..Selector::default() };
    let take = |who: Selector| Command::RollBack {
        reason: "customer asks".to_owned(),
        who: Some(Box::new(who)),
        to: None,
        at_once: false,
    };
    world.order(take(who.clone())).expect("running");
    assert_eq!(world.orders[&first], Order::RollBack { from: release("v2"), to: reference("v1") });
    assert!(world.said(Decision::TakeBack).contains("from 1 devices by ana: customer asks"));
    let refused = world.order(take(who));
    assert!(matches!(refused, Err(Refusal::Nothing(_))), "{refused:?}");
    world.orders.clear();
    world.pass(HOUR);
    assert_eq!(world.outcome(), Some(Outcome::Completed), "{}", world.last_words());
    assert!(!world.orders.contains_key(&first), "and it is not given the release again");
}

#[test]
fn a_rollback_goes_to_a_named_release_as_fast_as_the_plan_says() {
    let mut plan = small_plan();
    plan.rollback_rate = Some(toml::from_str("per_minute = 4").expect("valid"));
    let mut world = started(plan, 12);
    world.pass(MINUTE);
    assert_eq!(world.outcome(), Some(Outcome::Completed));
    world.orders.clear();
    let to = Some(reference("v0"));
    let back = |at_once| Command::RollBack { reason: "x".to_owned(), who: None, to: to.clone(), at_once };
    world.order(back(false)).expect("completed");
    assert_eq!(world.orders.len(), 1);
    assert!(
        world
            .orders
            .values()
            .all(|order| matches!(order, Order::RollBack { to, .. } if to.id == release("v0")))
    );
    world.pass(MINUTE);
    assert_eq!(world.orders.len(), 5);
    world.order(back(true)).expect("faster");
    assert_eq!(world.orders.len(), 12);
    assert_eq!(world.outcome(), Some(Outcome::RolledBack));
    let words = world.said(Decision::RolledBack);
    assert!(words.starts_with("12 devices returned within 1m of the decision, each in 0s"), "{words}");
}

#[test]
fn a_drill_proves_the_way_back_and_says_how_long_it_takes() {
    let mut world = started(small_plan(), 12);
    world.pass(MINUTE);
    assert_eq!(world.outcome(), Some(Outcome::Completed));
    world.deaf = true;
    let drill = || Command::Drill { devices: 2, reason: "quarterly".to_owned() };
    world.order(drill()).expect("completed");
    assert!(matches!(world.order(drill()), Err(Refusal::NotNow { .. })), "one at a time");
    let line = world.line();
    world.now = world.now.plus(Millis::from_secs(3));
    world.transition(&line[0], release("v2"), Phase::RolledBack, Some(Reason::FleetRollback));
    assert!(matches!(world.orders[&line[0]], Order::Run { .. }), "and comes again");
    world.now = world.now.plus(Millis::from_secs(2));
    world.say(RolloutEvent::DeviceSeen(sighting(&line[1], Some("v1"))));
    assert_eq!(
        world.said(Decision::Drill),
        "the way back works: 2 of 2 devices returned, each in 5s at the median and 5s at the slowest"
    );
    for device in &line[..2] {
        world.transition(device, release("v2"), Phase::Committed, None);
    }
    assert_eq!(world.running(), 12);
    world.order(drill()).expect("again");
    world.pass(Millis::from_secs(3601));
    assert!(world.said(Decision::Drill).contains("failed on 2 of 2 devices"));
    assert_eq!(world.rollout.fleet().tally().drilling, 0);
}

#[test]
fn a_gate_is_set_aside_only_with_a_reason_and_in_one_stage() {
    let mut world = World::new(small_plan(), 40, |_| Manner::Mispredicts);
    let skip = |reason: &str| Command::SkipGate { gate: GateName::Predictions, reason: reason.to_owned() };
    assert_eq!(world.order(skip(" ")), Err(Refusal::NoReason("skipped gate")));
    world.order(skip("new label order")).expect("running");
    assert!(world.said(Decision::SkipGate).contains("by ana: new label order"));
    world.pass(MINUTE);
    let words = "every gate passed but predictions, which an operator set aside";
    assert!(world.verdicts.iter().any(|verdict| verdict.sentence.contains(words)), "{:#?}", world.verdicts);
}

#[test]
fn in_an_emergency_everybody_gets_it_but_the_hard_guards_stay() {
    let hurry = |reason: &str| Command::Emergency { reason: reason.to_owned() };
    let mut plan = small_plan();
    plan.rate = Some(toml::from_str("per_minute = 1").expect("valid"));
    let mut world = started(plan.clone(), 40);
    assert_eq!(told(&world), 1);
    assert!(matches!(world.order(hurry("")), Err(Refusal::NoReason(_))));
    world.order(hurry("the old model leaks")).expect("running");
    assert_eq!(told(&world), 40);
    let mut world = World::new(plan, 40, |_| Manner::CannotLoad);
    let _ = world.order(hurry("the old model leaks"));
    assert_eq!(world.outcome(), Some(Outcome::RolledBack), "{:#?}", world.verdicts);
}

#[test]
fn workers_that_die_more_often_than_beside_it_roll_back_at_once() {
    let mut world = started(small_plan(), 400);
    let (line, all) = (world.line(), world.rollout.fleet().len());
    assert_eq!(all, 400);
    let crash = |world: &mut World, device: &DeviceId, version: &str| {
        let release = release(version);
        world.say(RolloutEvent::DeviceCrashed { device: device.clone(), release });
    };
    crash(&mut world, &line[399], "v1");
    for device in &line[..3] {
        crash(&mut world, device, "v2");
        crash(&mut world, device, "v2");
    }
    assert_eq!(*world.rollout.state(), State::Running, "three of a hundred may be chance");
    for device in &line[3..12] {
        crash(&mut world, device, "v2");
    }
    assert_eq!(world.outcome(), Some(Outcome::RolledBack));
    assert!(world.said(Decision::RollBack).contains("workers died on"), "{}", world.last_words());
    let _ = WorkerDeath::Hung;
}

/// What a rollout is shown at its next look.
fn show(world: &mut World, evidence: &Evidence) {
    let _ = world.rollout.handle(world.now, RolloutEvent::Tick);
    let judgement = world.rollout.judge(evidence);
    world.say(RolloutEvent::Judged(Box::new(judgement)));
}

fn shadow_plan() -> Plan {
    let Strategy::Canary(canary) = small_plan().strategy else { panic!("a canary") };
    let shadow = Shadow {
        share: Size::Count(3),
        bake: Millis::from_secs(10),
        min_devices: 3,
        min_pairs: 500,
        max_disagreement: BasisPoints(200),
        timeout: Millis::from_secs(300),
        stages: canary.stages,
        control: canary.control,
    };
    Plan { strategy: Strategy::Shadow(shadow), ..small_plan() }
}

fn shadows(world: &World, disagreements: u64) -> Evidence {
    let shadows = world.rollout.fleet().iter().filter_map(|(device, record)| {
        let shadowing = matches!(record.standing, Standing::Shadowing { .. });
        shadowing.then(|| ShadowEvidence { device: device.clone(), pairs: 1000, disagreements })
    });
    Evidence { devices: Vec::new(), shadows: shadows.collect() }
}

#[test]
fn what_agrees_in_the_shadow_on_a_few_devices_goes_on_to_the_canary() {
    let mut world = started(shadow_plan(), 12);
    assert_eq!((told(&world), world.rollout.fleet().tally().shadowing), (0, 3));
    world.now = world.now.plus(Millis::from_secs(11));
    let evidence = shadows(&world, 4);
    show(&mut world, &evidence);
    assert_eq!(world.rollout.stage().index, 1, "{}", world.last_words());
    assert!(world.said(Decision::Promote).contains("in the shadow on 3 devices"));
    assert_eq!((told(&world), world.rollout.fleet().tally().shadowing), (3, 0));
    world.pass(MINUTE);
    assert_eq!(world.outcome(), Some(Outcome::Completed), "{}", world.last_words());
}

#[test]
fn what_disagrees_in_the_shadow_never_answers_anybody() {
    let mut world = started(shadow_plan(), 12);
    let evidence = shadows(&world, 90);
    show(&mut world, &evidence);
    assert_eq!((world.outcome(), told(&world)), (Some(Outcome::RolledBack), 0));
    assert!(world.said(Decision::RollBack).contains("in the shadow it disagreed in 9 % of 3000 pairs"));
    let mut world = started(shadow_plan(), 12);
    show(&mut world, &Evidence::default());
    assert!(world.last_words().contains("0 of 3 devices have reported pairs"), "{}", world.last_words());
}

fn ab_plan(on_tie: OnTie) -> Plan {
    let ab = Ab {
        share: Size::Share(BasisPoints(5000)),
        horizon: HOUR,
        metric: Metric::Confidence,
        on_tie,
        min_devices: 20,
        min_requests: 1000,
        timeout: Millis::from_secs(7200),
    };
    Plan { strategy: Strategy::Ab(ab), ..small_plan() }
}

/// Confidence that spreads alike in both arms, with a release that adds `more`.
fn confident(world: &World, more: f64) -> Evidence {
    let mut numbers = [0_u32; 2];
    let shown = world.rollout.fleet().iter().filter_map(|(device, record)| {
        let active = record.active.clone()?;
        let mut shown = evidence(device, active.version.as_str());
        let new = active == release("v2");
        let number = &mut numbers[usize::from(new)];
        *number += 1;
        shown.confidence.mean = 4.5 + f64::from(*number % 7) * 0.01 + if new { more } else { 0.0 };
        Some(shown)
    });
    answered(shown.collect())
}

#[test]
fn an_a_b_test_is_decided_at_its_horizon_and_not_before() {
    for (more, on_tie, outcome) in [
        (0.1, OnTie::RollBack, Some(Outcome::Completed)),
        (-0.1, OnTie::Promote, Some(Outcome::RolledBack)),
        (0.0, OnTie::Promote, Some(Outcome::Completed)),
        (0.0, OnTie::RollBack, Some(Outcome::RolledBack)),
        (0.0, OnTie::Operator, None),
    ] {
        let mut world = started(ab_plan(on_tie), 100);
        assert_eq!(told(&world), 50);
        world.now = world.now.plus(Millis::from_secs(1800));
        let early = confident(&world, more);
        show(&mut world, &early);
        assert_eq!(world.rollout.stage().index, 0, "{}", world.last_words());
        assert_eq!(*world.rollout.state(), State::Running);
        world.now = world.now.plus(Millis::from_secs(1801));
        let late = confident(&world, more);
        show(&mut world, &late);
        match outcome {
            Some(Outcome::Completed) => assert_eq!(world.rollout.stage().index, 1, "{}", world.last_words()),
            Some(other) => assert_eq!(world.outcome(), Some(other), "{}", world.last_words()),
            None => assert!(matches!(world.rollout.state(), State::AwaitingOperator { .. })),
        }
    }
}

#[test]
fn a_bandit_gives_the_better_arm_more_and_ends_when_it_has_won() {
    let bandit = Bandit {
        floor: BasisPoints(1000),
        window: HOUR,
        windows: 10,
        metric: Metric::Confidence,
        win: BasisPoints(9999),
        min_devices: 10,
        min_requests: 1000,
    };
    let plan = Plan { strategy: Strategy::Bandit(bandit), ..small_plan() };
    let mut world = started(plan, 100);
    assert_eq!(told(&world), 50, "both arms begin alike");
    let window = |world: &mut World, more: f64| {
        world.now = world.now.plus(HOUR);
        let evidence = confident(world, more);
        show(world, &evidence);
    };
    window(&mut world, 0.004);
    let more = told(&world);
    assert!(more > 60 && more <= 90, "{more}: {}", world.last_words());
    window(&mut world, -0.004);
    let less = world.running();
    assert!((10..50).contains(&less), "{less}: {}", world.last_words());
    assert_eq!(world.rollout.stage().index, 0);
    window(&mut world, 0.5);
    assert_eq!(world.rollout.stage().index, 1, "{}", world.last_words());
    let mut world = started(world.rollout.plan().clone(), 100);
    world.now = world.now.plus(HOUR);
    let evidence = confident(&world, -0.5);
    show(&mut world, &evidence);
    assert_eq!(world.outcome(), Some(Outcome::RolledBack), "{}", world.last_words());
}

#[test]
fn a_big_bang_is_watched_by_hard_guards_only() {
    let all = BigBang { bake: Millis::from_secs(10), min_requests: 0, timeout: HOUR };
    let plan = Plan { strategy: Strategy::BigBang(all), deadline: Millis::from_secs(120), ..Plan::default() };
    let mut world = started(plan, 40);
    assert_eq!(told(&world), 40);
    world.pass(MINUTE);
    assert_eq!(world.outcome(), Some(Outcome::Completed), "{}", world.last_words());
}

#[test]
fn small_fleets_are_told_that_no_test_decides() {
    let mut world = started(small_plan(), 12);
    world.pass(MINUTE);
    let words = world.said(Decision::Promote);
    assert_eq!(world.outcome(), Some(Outcome::Completed));
    let small = world.verdicts.iter().any(|verdict| verdict.sentence.contains("9 devices are few"));
    assert!(small, "{words}");
}

#[test]
fn a_preview_says_who_is_told_when_and_the_rollout_does_just_that() {
    let mut plan = small_plan();
    plan.rate = Some(toml::from_str("per_minute = 2").expect("valid"));
    let Strategy::Canary(canary) = &mut plan.strategy else { panic!("a canary") };
    canary.stages.iter_mut().for_each(|stage| stage.timeout = HOUR);
    let mut world = started(plan, 12);
    let preview = Preview::of(world.start.clone()).expect("valid");
    assert_eq!(preview.stages.iter().map(|stage| stage.told.len()).collect::<Vec<_>>(), [3, 9]);
    assert_eq!(preview.control.len(), 3);
    let at: Vec<u64> =
        preview.stages[0].told.iter().map(|(_, at)| at.since(world.start.at).0 / 1000).collect();
    assert_eq!(at, [0, 30, 60]);
    world.pass(HOUR);
    let first: Vec<_> = world.line().into_iter().take(3).collect();
    assert_eq!(preview.stages[0].told.iter().map(|(device, _)| device.clone()).collect::<Vec<_>>(), first);
}
