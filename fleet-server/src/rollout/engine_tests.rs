//! Rollouts told as stories, over a fleet whose devices do what they are told.

use std::collections::BTreeMap;

use serin_protocol::assignment::Order;
use serin_protocol::ids::BasisPoints;
use serin_protocol::message::{Detail, Reason};

use super::super::event::{Command, OperatorOrder, Refusal};
use super::super::evidence::EvidenceWanted;
use super::super::notation::size::Size;
use super::super::plan::{Canary, DriftGate, OnBreach, OnInconclusive, Strategy, Thousandths};
use super::super::state::Failure;
use super::super::test_fleet::{answered, device, evidence, reference, release, sighting, skewed};
use super::super::verdict::Decision;
use super::*;

/// Everything, at the plan's rate, to what ran before.
fn take_back(reason: String) -> Command {
    Command::RollBack { reason, who: None, to: None, at_once: false }
}

const MINUTE: Millis = Millis::from_secs(60);

/// 25 % and all, as in the demo.
fn small_plan() -> Plan {
    let stage = |share, min_requests| Stage {
        min_devices: 3,
        min_requests,
        timeout: Millis::from_secs(300),
        ..Stage::of(Size::Share(BasisPoints(share)), Millis::from_secs(10))
    };
    let stages = vec![stage(2500, 300), stage(10_000, 300)];
    let mut plan = Plan {
        strategy: Strategy::Canary(Canary { stages, control: BasisPoints(2500) }),
        deadline: Millis::from_secs(120),
        ..Plan::default()
    };
    plan.gates.predictions = Some(DriftGate {
        threshold: Thousandths(500),
        on_breach: OnBreach::RollBack,
        hard: Some(Thousandths(1000)),
    });
    plan
}

/// What a device does with a release.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Healthy,
    Mispredicts,
    CannotLoad,
    Silent,
}

struct World {
    rollout: Rollout,
    start: Start,
    events: Vec<(UnixMillis, RolloutEvent)>,
    now: UnixMillis,
    manner: Box<dyn Fn(&DeviceId) -> Manner>,
    orders: BTreeMap<DeviceId, Order>,
    verdicts: Vec<Verdict>,
    /// Most devices that had been told to run the release, per stage.
    told: BTreeMap<usize, u32>,
    deaf: bool,
}

impl World {
    fn new(plan: Plan, devices: u32, manner: impl Fn(&DeviceId) -> Manner + 'static) -> Self {
        let start = Start {
            id: RolloutId(7),
            plan,
            release: reference("v2"),
            baselines: vec![reference("v1")],
            salt: Salt(99),
            at: UnixMillis(1_000_000),
            devices: (0..devices).map(|number| sighting(&device(number), Some("v1"))).collect(),
        };
        let (rollout, effects) = Rollout::start(start.clone()).expect("a valid plan");
        let mut world = Self {
            rollout,
            now: start.at,
            start,
            events: Vec::new(),
            manner: Box::new(manner),
            orders: BTreeMap::new(),
            verdicts: Vec::new(),
            told: BTreeMap::new(),
            deaf: false,
        };
        world.carry_out(effects);
        world
    }

    fn say(&mut self, event: RolloutEvent) {
        let _ = self.say_and_hear(event);
    }

    fn say_and_hear(&mut self, event: RolloutEvent) -> Effects {
        self.events.push((self.now, event.clone()));
        let effects = self.rollout.handle(self.now, event);
        self.carry_out(effects.clone());
        effects
    }

    fn carry_out(&mut self, effects: Effects) {
        let exposed = self.rollout.fleet().tally().exposed;
        let told = self.told.entry(self.rollout.stage().index).or_default();
        *told = (*told).max(exposed);
        for effect in effects {
            match effect {
                Effect::Assign { device, order, .. } => {
                    self.orders.insert(device.clone(), order.clone());
                    if !self.deaf {
                        self.obey(&device, &order);
                    }
                }
                Effect::Gather(wanted) => self.report(&wanted),
                Effect::Record(verdict) => self.verdicts.push(verdict),
                Effect::Shadow { .. } | Effect::StateChanged { .. } | Effect::Reply(_) => {}
            }
        }
    }

    fn obey(&mut self, device: &DeviceId, order: &Order) {
        let manner = (self.manner)(device);
        match order {
            Order::Run { release, .. } if manner == Manner::CannotLoad => {
                let reason = Some(Reason::LoadFailed(Detail::new("operator Foo")));
                self.transition(device, release.id.clone(), Phase::Rejected, reason);
            }
            Order::Run { .. } if manner == Manner::Silent => {}
            Order::Run { release, .. } => {
                self.transition(device, release.id.clone(), Phase::Probation, None);
                self.transition(device, release.id.clone(), Phase::Committed, None);
                self.say(RolloutEvent::DeviceSeen(sighting(device, Some("v2"))));
            }
            Order::RollBack { from, .. } => {
                self.transition(device, from.clone(), Phase::RolledBack, Some(Reason::FleetRollback));
                self.say(RolloutEvent::DeviceSeen(sighting(device, Some("v1"))));
            }
            // No rollout gives the first.
            Order::Try { .. } | Order::Stay => {}
        }
    }

    fn transition(&mut self, device: &DeviceId, release: ReleaseId, to: Phase, reason: Option<Reason>) {
        self.say(RolloutEvent::DeviceTransition { device: device.clone(), release, to, reason });
    }

    fn report(&mut self, wanted: &EvidenceWanted) {
        assert_eq!(self.rollout.evidence_wanted().as_ref(), Some(wanted));
        let showing = self.rollout.fleet().iter().filter_map(|(device, record)| {
            let active = record.active.as_ref().filter(|_| record.presence == Presence::Online)?;
            let (bad, manner) = (*active == self.rollout.release().id, (self.manner)(device));
            let mut shown = evidence(device, active.version.as_str());
            if bad && manner == Manner::Mispredicts {
                shown.predictions = skewed();
            }
            (manner != Manner::Silent).then_some(shown)
        });
        let judgement = self.rollout.judge(&answered(showing.collect()));
        self.say(RolloutEvent::Judged(Box::new(judgement)));
    }

    /// Ticks whenever the rollout asks for it, for `span`.
    fn pass(&mut self, span: Millis) {
        let end = self.now.plus(span);
        for _ in 0..10_000 {
            let Some(due) = self.rollout.next_deadline().filter(|due| *due <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(due);
            self.say(RolloutEvent::Tick);
            let next = self.rollout.next_deadline();
            assert!(next.is_none_or(|next| next > self.now), "a tick leaves nothing due");
        }
        panic!("the rollout ticks for ever");
    }

    fn order(&mut self, command: Command) -> Result<StateVersion, Refusal> {
        let order = OperatorOrder { expected: None, by: "ana".to_owned(), command };
        let effects = self.say_and_hear(RolloutEvent::Operator(order));
        let mut replies = effects.into_iter().filter_map(|effect| match effect {
            Effect::Reply(reply) => Some(reply),
            Effect::Assign { .. }
            | Effect::Shadow { .. }
            | Effect::Gather(_)
            | Effect::Record(_)
            | Effect::StateChanged { .. } => None,
        });
        replies.next().expect("every order is answered")
    }

    fn outcome(&self) -> Option<Outcome> {
        match self.rollout.state() {
            State::Finished { outcome, .. } => Some(*outcome),
            _ => None,
        }
    }

    fn decisions(&self) -> Vec<Decision> {
        let decisions = self.verdicts.iter().map(|verdict| verdict.decision);
        decisions.filter(|decision| *decision != Decision::Hold).collect()
    }

    fn said(&self, decision: Decision) -> String {
        let found = self.verdicts.iter().rev().find(|verdict| verdict.decision == decision);
        found.map(|verdict| verdict.sentence.clone()).unwrap_or_default()
    }

    fn last_words(&self) -> &str {
        self.verdicts.last().map_or("", |verdict| &verdict.sentence)
    }

    fn running(&self) -> u32 {
        self.rollout.fleet().tally().running
    }

    /// The first `count` of the line.
    fn line(&self) -> Vec<DeviceId> {
        let mut line: Vec<_> =
            self.rollout.fleet().iter().map(|(id, record)| (record.position, id.clone())).collect();
        line.sort();
        line.into_iter().map(|(_, id)| id).collect()
    }
}

#[test]
fn a_healthy_release_reaches_a_quarter_and_then_all() {
    let mut world = World::new(small_plan(), 12, |_| Manner::Healthy);
    assert_eq!(world.running(), 3);
    world.pass(Millis(9_999));
    assert_eq!((world.rollout.stage().index, world.running()), (0, 3), "not before the bake is over");
    assert!(world.rollout.stage().looks > 1, "looked at meanwhile, at the cost of some alpha");
    world.pass(MINUTE);
    assert_eq!(world.outcome(), Some(Outcome::Completed), "{}", world.last_words());
    assert_eq!(world.running(), 12);
    assert_eq!(world.decisions(), [Decision::Promote, Decision::Promote]);
    assert_eq!(world.told, BTreeMap::from([(0, 3), (1, 12)]));
}

#[test]
fn broken_predictions_are_rolled_back_in_the_first_stage() {
    let mut world = World::new(small_plan(), 12, |_| Manner::Mispredicts);
    world.pass(MINUTE);
    assert_eq!(world.outcome(), Some(Outcome::RolledBack), "{}", world.last_words());
    assert_eq!(world.told, BTreeMap::from([(0, 3)]), "no fourth device ever had it");
    assert_eq!(world.rollout.fleet().tally().returned, 3);
    assert_eq!(
        world.said(Decision::RollBack),
        "v2 is rolled back: predicted classes moved by PSI 2.23 against 9 control devices (limit 0.5); 3 against 9 \
         devices are too few for any test at this alpha, though none of the 219 other divisions of them shows as \
         much: beyond the hard limit"
    );
}

#[test]
fn one_odd_canary_device_does_not_condemn_the_release() {
    let mut plan = small_plan();
    plan.gates.predictions =
        Some(DriftGate { threshold: Thousandths(100), on_breach: OnBreach::RollBack, hard: None });
    let mut world = World::new(plan, 12, |_| Manner::Healthy);
    let odd = world.line().remove(0);
    world.manner = Box::new(move |device| if *device == odd { Manner::Mispredicts } else { Manner::Healthy });
    world.pass(Millis::from_secs(400));
    assert_eq!(world.decisions(), [Decision::Inconclusive]);
    assert!(matches!(world.rollout.state(), State::AwaitingOperator { .. }), "{}", world.last_words());
}

#[test]
fn devices_that_cannot_load_it_stop_the_rollout_at_once() {
    let world = World::new(small_plan(), 12, |_| Manner::CannotLoad);
    assert_eq!(world.now, world.start.at, "no time has passed");
    assert_eq!(world.outcome(), Some(Outcome::RolledBack));
    assert_eq!(
        world.said(Decision::RollBack),
        "v2 is rolled back: 3 of 3 devices rejected it, took it back themselves or were not done in time"
    );
    let failures = world.rollout.fleet().iter().filter(|(_, record)| {
        matches!(
            &record.standing,
            Standing::Failed { failure: Failure::Rejected(Some(Reason::LoadFailed(_))), .. }
        )
    });
    assert_eq!(failures.count(), 3, "each with its own reason");
}

#[test]
fn a_few_failures_among_many_stop_it_when_they_reach_the_budget() {
    let mut world = World::new(small_plan(), 100, |_| Manner::Healthy);
    let line = world.line();
    let fail = |world: &mut World, device: &DeviceId| {
        let reason = Some(Reason::WorkerDied(serin_protocol::message::WorkerDeath::MemoryLimit));
        world.transition(device, release("v2"), Phase::RolledBack, reason);
    };
    line[..2].iter().for_each(|device| fail(&mut world, device));
    assert_eq!(*world.rollout.state(), State::Running, "2 of 25 are below 3 devices");
    fail(&mut world, &line[2]);
    assert_eq!(world.outcome(), Some(Outcome::RolledBack), "3 of 25 are 3 devices and 5 %");
    assert_eq!(world.rollout.fleet().tally().returned, 22);
}

#[test]
fn one_failed_device_of_three_goes_to_the_operator() {
    let mut world = World::new(small_plan(), 12, |_| Manner::Silent);
    let line = world.line();
    let bad = Some(Reason::WorkerDied(serin_protocol::message::WorkerDeath::Hung));
    world.transition(&line[0], release("v2"), Phase::RolledBack, bad);
    world.manner = Box::new(|_| Manner::Healthy);
    for device in &line[1..3] {
        world.transition(device, release("v2"), Phase::Committed, None);
    }
    world.pass(Millis::from_secs(301));
    assert!(matches!(world.rollout.state(), State::AwaitingOperator { .. }));
    assert!(world.last_words().contains("1 of 3 devices failed with it"), "{}", world.last_words());
    world.order(Command::Promote { reason: "known bad disk".to_owned() }).expect("awaiting");
    world.pass(MINUTE);
    assert_eq!(world.outcome(), Some(Outcome::Completed), "{}", world.last_words());
    assert!(world.verdicts.iter().any(|verdict| verdict.sentence.contains("by ana: known bad disk")));
}

#[test]
fn a_pause_stops_the_spreading_but_not_the_guard() {
    let mut world = World::new(small_plan(), 12, |_| Manner::Healthy);
    world.order(Command::Pause).expect("running");
    world.pass(Millis::from_secs(1000));
    assert!(matches!(world.rollout.state(), State::Paused { .. }));
    assert_eq!(world.running(), 3);
    world.order(Command::Resume).expect("paused");
    world.pass(MINUTE);
    assert_eq!(world.outcome(), Some(Outcome::Completed));

    let mut world = World::new(small_plan(), 12, |_| Manner::Healthy);
    world.order(Command::Pause).expect("running");
    world.manner = Box::new(|_| Manner::Mispredicts);
    world.pass(MINUTE);
    assert_eq!(world.outcome(), Some(Outcome::RolledBack), "{}", world.last_words());
}

#[test]
fn late_devices_take_their_place_in_the_line() {
    let mut world = World::new(small_plan(), 12, |_| Manner::Healthy);
    for number in 12..16 {
        world.say(RolloutEvent::DeviceSeen(sighting(&device(number), Some("v1"))));
    }
    // A quarter of 16, and of these no control and nobody who had it lost it.
    assert_eq!(world.running(), 4);
    let line = world.line();
    let has =
        |id: &DeviceId| world.rollout.fleet().get(id).is_some_and(|record| record.standing.is_exposed());
    assert!(line.iter().rev().take(3).all(|id| !has(id)), "the end of the line is control");
    world.pass(MINUTE);
    assert_eq!(world.outcome(), Some(Outcome::Completed));
    assert_eq!(world.running(), 16);
    world.say(RolloutEvent::DeviceSeen(sighting(&device(16), Some("v1"))));
    assert_eq!(world.running(), 17, "after the end as well");
}

#[test]
fn a_rollout_that_has_ended_without_its_release_takes_nobody_in() {
    let mut aborted = World::new(small_plan(), 12, |_| Manner::Healthy);
    aborted.order(Command::Abort { reason: "enough".into() }).expect("running");
    let mut taken_back = World::new(small_plan(), 12, |_| Manner::Healthy);
    taken_back
        .order(Command::RollBack { reason: "bad".into(), who: None, to: None, at_once: true })
        .expect("running");
    taken_back.pass(MINUTE);
    assert_eq!(taken_back.outcome(), Some(Outcome::RolledBack));
    for world in [&mut aborted, &mut taken_back] {
        world.say(RolloutEvent::DeviceSeen(sighting(&device(12), Some("v1"))));
        assert_eq!(world.rollout.fleet().len(), 12);
    }
    // Whoever turns up with what was taken back is told to return; one that was aborted stays where it is.
    aborted.say(RolloutEvent::DeviceSeen(sighting(&device(13), Some("v2"))));
    assert_eq!(aborted.rollout.fleet().len(), 12);
    taken_back.say(RolloutEvent::DeviceSeen(sighting(&device(13), Some("v2"))));
    assert_eq!((taken_back.rollout.fleet().len(), taken_back.running()), (13, 0));
}

#[test]
fn a_fleet_that_registers_during_the_rollout_gets_it_all_the_same() {
    let mut world = World::new(small_plan(), 0, |_| Manner::Healthy);
    for number in 0..40 {
        world.say(RolloutEvent::DeviceSeen(sighting(&device(number), Some("v1"))));
        let tally = world.rollout.fleet().tally();
        assert!(tally.exposed <= tally.known.div_ceil(4));
    }
    world.pass(MINUTE);
    assert_eq!((world.outcome(), world.running()), (Some(Outcome::Completed), 40), "{}", world.last_words());
}

#[test]
fn offline_devices_do_not_block_the_last_stage_and_get_it_when_they_return() {
    let mut world = World::new(small_plan(), 12, |_| Manner::Healthy);
    let away = world.line().split_off(8);
    for device in &away {
        let gone = Sighting { presence: Presence::Offline, ..sighting(device, Some("v1")) };
        world.say(RolloutEvent::DeviceSeen(gone));
    }
    world.pass(MINUTE);
    assert_eq!((world.outcome(), world.running()), (Some(Outcome::Completed), 8), "{}", world.last_words());
    world.say(RolloutEvent::DeviceSeen(sighting(&away[0], Some("v1"))));
    assert_eq!(world.running(), 9);
}

#[test]
fn a_device_that_vanishes_while_installing_is_told_again_when_it_is_back() {
    let mut world = World::new(small_plan(), 12, |_| Manner::Silent);
    let first = world.line().remove(0);
    let gone = Sighting { presence: Presence::Offline, ..sighting(&first, Some("v1")) };
    world.say(RolloutEvent::DeviceSeen(gone));
    for device in world.line().drain(1..3) {
        world.transition(&device, release("v2"), Phase::Committed, None);
    }
    world.manner = Box::new(|_| Manner::Healthy);
    world.pass(Millis::from_secs(121));
    let standing = |world: &World| world.rollout.fleet().get(&first).expect("known").standing.clone();
    assert!(matches!(standing(&world), Standing::Unreachable { .. }));
    assert_eq!(world.rollout.fleet().tally().failed, 0);
    world.say(RolloutEvent::DeviceSeen(sighting(&first, Some("v1"))));
    assert!(matches!(standing(&world), Standing::Running { .. }));
}

#[test]
fn no_data_ends_with_the_operator_not_with_a_promotion() {
    let mut world = World::new(small_plan(), 12, |_| Manner::Silent);
    for device in world.line().drain(..3) {
        world.transition(&device, release("v2"), Phase::Committed, None);
    }
    world.pass(Millis::from_secs(100_000));
    assert_eq!(world.decisions(), [Decision::Inconclusive]);
    assert!(matches!(world.rollout.state(), State::AwaitingOperator { .. }));
    assert!(world.last_words().contains("0 of 3 canary devices have reported"), "{}", world.last_words());
    assert!(world.verdicts.len() < 10, "the same thing is said once");
    assert_eq!(world.rollout.stage().looks, 0, "and looking at nothing has spent nothing of the alpha");
}

#[test]
fn an_inconclusive_stage_can_be_held_or_rolled_back_instead() {
    let mut plan = small_plan();
    plan.on_inconclusive = OnInconclusive::RollBack;
    let mut world = World::new(plan.clone(), 12, |_| Manner::Silent);
    world.pass(Millis::from_secs(1000));
    assert_eq!(world.outcome(), Some(Outcome::RolledBack));
    plan.on_inconclusive = OnInconclusive::Hold;
    plan.deadline = MINUTE.plus(MINUTE);
    let mut world = World::new(plan, 12, |_| Manner::Silent);
    for device in world.line().drain(..3) {
        world.transition(&device, release("v2"), Phase::Committed, None);
    }
    world.pass(Millis::from_secs(1000));
    assert!(matches!(world.rollout.state(), State::Holding { .. }));
    world.manner = Box::new(|_| Manner::Healthy);
    world.pass(Millis::from_secs(1000));
    assert_eq!(world.outcome(), Some(Outcome::Completed), "{}", world.last_words());
}

#[test]
fn cancel_wins_over_whatever_is_under_way() {
    let mut world = World::new(small_plan(), 12, |_| Manner::Silent);
    world.order(Command::Abort { reason: "wrong model".to_owned() }).expect("running");
    assert_eq!(world.outcome(), Some(Outcome::Aborted));
    let orders: Vec<_> = world.orders.values().collect();
    assert_eq!(orders, [&Order::Stay; 3]);
    world.orders.clear();
    world.pass(Millis::from_secs(10_000));
    assert!(world.orders.is_empty() && world.rollout.next_deadline().is_none(), "nothing is left waiting");
}

#[test]
fn a_complete_rollout_can_still_be_taken_back_and_returning_devices_follow() {
    let mut world = World::new(small_plan(), 12, |_| Manner::Healthy);
    world.pass(MINUTE);
    let away = world.line().remove(0);
    let gone = Sighting { presence: Presence::Offline, ..sighting(&away, Some("v2")) };
    world.deaf = true;
    world.say(RolloutEvent::DeviceSeen(gone));
    world.order(take_back("complaints".to_owned())).expect("completed");
    assert_eq!(world.rollout.fleet().tally().returning, 12);
    for device in world.line().drain(1..) {
        world.transition(&device, release("v2"), Phase::RolledBack, Some(Reason::FleetRollback));
    }
    assert_eq!(world.outcome(), Some(Outcome::RolledBack), "the one that is away is not waited for");
    world.pass(Millis::from_secs(4000));
    world.orders.clear();
    world.say(RolloutEvent::DeviceSeen(sighting(&away, Some("v2"))));
    let back = Order::RollBack { from: release("v2"), to: reference("v1") };
    assert_eq!(world.orders.get(&away), Some(&back));
    world.say(RolloutEvent::DeviceSeen(sighting(&away, Some("v1"))));
    assert_eq!(world.rollout.fleet().tally().returned, 12);
}

#[test]
fn a_rollback_ends_although_nobody_answers() {
    let mut world = World::new(small_plan(), 12, |_| Manner::Healthy);
    world.deaf = true;
    world.order(take_back("drill".to_owned())).expect("running");
    assert!(matches!(world.rollout.state(), State::RollingBack { .. }));
    world.pass(Millis::from_secs(3601));
    assert_eq!(world.outcome(), Some(Outcome::RolledBack));
    assert_eq!(world.rollout.fleet().tally().not_returned, 3, "and it is shown who did not");
}

#[test]
fn pinned_devices_are_left_alone_and_come_back_when_unpinned() {
    let mut world = World::new(small_plan(), 12, |_| Manner::Healthy);
    let engineered = world.line().remove(0);
    world.transition(&engineered, release("v2"), Phase::RolledBack, Some(Reason::FieldRollback));
    let tally = world.rollout.fleet().tally();
    assert_eq!((tally.pinned, tally.failed, tally.running), (1, 0, 3), "the next in line took its place");
    world.pass(MINUTE);
    assert_eq!((world.outcome(), world.running()), (Some(Outcome::Completed), 11));
    world.say(RolloutEvent::DeviceSeen(sighting(&engineered, Some("v1"))));
    assert_eq!(world.running(), 12);
}

#[test]
fn a_device_that_an_engineer_gave_something_else_is_left_alone_until_he_gives_it_back() {
    let mut world = World::new(small_plan(), 12, |_| Manner::Healthy);
    let engineered = world.line().remove(0);
    let brought = |pinned| Sighting { pinned, ..sighting(&engineered, Some("v9")) };
    world.orders.clear();
    world.say(RolloutEvent::DeviceSeen(brought(true)));
    assert_eq!(world.rollout.fleet().tally().pinned, 1);
    world.pass(MINUTE);
    world.pass(Millis::from_secs(3601));
    let tally = world.rollout.fleet().tally();
    assert_eq!((tally.pinned, tally.failed, tally.unreachable), (1, 0, 0));
    assert!(!world.orders.contains_key(&engineered), "nobody fights over it");
    world.say(RolloutEvent::DeviceSeen(brought(false)));
    assert_eq!(world.running(), 12);
}

#[test]
fn a_release_a_device_took_back_itself_is_not_pushed_on_it_again() {
    let mut world = World::new(small_plan(), 40, |_| Manner::Healthy);
    let first = world.line().remove(0);
    world.orders.clear();
    // The hello comes before the event that says why.
    world.say(RolloutEvent::DeviceSeen(sighting(&first, Some("v1"))));
    let reason = Some(Reason::ErrorRate { errors: 9, requests: 20 });
    world.transition(&first, release("v2"), Phase::RolledBack, reason);
    world.pass(Millis::from_secs(200));
    assert!(!world.orders.contains_key(&first));
    assert_eq!(world.rollout.fleet().tally().failed, 1);
}

#[test]
fn a_reimaged_device_is_given_the_release_again() {
    let mut world = World::new(small_plan(), 12, |_| Manner::Healthy);
    let first = world.line().remove(0);
    world.orders.clear();
    world.say(RolloutEvent::DeviceSeen(sighting(&first, Some("v1"))));
    assert_eq!(world.running(), 2);
    world.pass(Millis::from_secs(61));
    assert!(matches!(world.orders.get(&first), Some(Order::Run { .. })));
    world.pass(MINUTE);
    assert_eq!((world.outcome(), world.running()), (Some(Outcome::Completed), 12));
}

#[test]
fn two_operators_who_act_at_once_get_a_conflict() {
    let mut world = World::new(small_plan(), 12, |_| Manner::Healthy);
    let seen = world.rollout.version();
    world.order(Command::Pause).expect("running");
    let late = OperatorOrder { expected: Some(seen), by: "bo".to_owned(), command: Command::Resume };
    let effects = world.say_and_hear(RolloutEvent::Operator(late));
    let actual = world.rollout.version();
    assert_eq!(effects, [Effect::Reply(Err(Refusal::Conflict { expected: seen, actual }))]);
    let refused = world.order(Command::Pause);
    assert_eq!(refused, Err(Refusal::NotNow { command: "pause", state: "paused".to_owned() }));
}

#[test]
fn a_device_that_runs_the_release_already_counts_as_done() {
    let mut start = World::new(small_plan(), 12, |_| Manner::Healthy).start;
    start.devices.iter_mut().for_each(|seen| seen.active = Some(release("v2")));
    let (rollout, effects) = Rollout::start(start).expect("valid");
    assert_eq!(rollout.fleet().tally().running, 12);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Assign { .. })));
}

#[test]
fn a_first_release_needs_no_control_and_no_traffic() {
    let mut start = World::new(Plan::all_at_once(Millis::from_secs(5), 0), 12, |_| Manner::Healthy).start;
    start.baselines.clear();
    start.devices.iter_mut().for_each(|seen| seen.active = None);
    let (rollout, _) = Rollout::start(start.clone()).expect("valid");
    assert_eq!(rollout.fleet().tally().installing, 12);
    let mut world = World::new(Plan::all_at_once(Millis::from_secs(5), 0), 12, |_| Manner::Healthy);
    world.pass(MINUTE);
    assert_eq!((world.outcome(), world.running()), (Some(Outcome::Completed), 12), "{}", world.last_words());
}

#[test]
fn a_restarted_server_goes_on_exactly_where_it_was() {
    let mut world = World::new(small_plan(), 12, |_| Manner::Healthy);
    world.pass(Millis::from_secs(15));
    let replayed = Rollout::replay(world.start.clone(), world.events.clone()).expect("valid");
    assert_eq!(replayed, world.rollout);
    let json = serde_json::to_vec(&world.rollout).expect("plain data");
    assert_eq!(serde_json::from_slice::<Rollout>(&json).expect("plain data"), world.rollout);
    let bytes = postcard::to_allocvec(&world.rollout).expect("plain data");
    assert_eq!(postcard::from_bytes::<Rollout>(&bytes).expect("plain data"), world.rollout);
}

#[test]
fn a_plan_that_cannot_work_is_refused_before_anything_moves() {
    let mut start = World::new(small_plan(), 1, |_| Manner::Healthy).start;
    start.plan.failures.max_devices = 0;
    assert!(
        matches!(Rollout::start(start.clone()), Err(StartError::Plan(error)) if error.field == "failures.max_devices")
    );
    start.plan = small_plan();
    start.baselines = vec![reference("v2")];
    assert_eq!(Rollout::start(start).err(), Some(StartError::ReleaseIsBaseline(release("v2"))));
}

#[path = "engine_strategy_tests.rs"]
mod strategies;
