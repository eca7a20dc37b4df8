//! What holds whatever devices, time, evidence and people do.

use proptest::prelude::*;

use serin_protocol::assignment::Order;
use serin_protocol::ids::BasisPoints;
use serin_protocol::message::{Detail, Phase, Reason};

use super::super::event::{Command, OperatorOrder};
use super::super::evidence::{DeviceEvidence, Evidence};
use super::super::notation::size::Size;
use super::super::plan::{Canary, OnInconclusive, Selector, Strategy as Strategies};
use super::super::test_fleet::{answered, device, evidence, reference, release, sighting, skewed};
use super::super::verdict::GateName;
use super::*;

const DEVICES: u32 = 14;

/// Something that happens; what needs the rollout's state is made from it when it happens.
#[derive(Clone, Debug)]
enum Happening {
    Tick,
    Seen(Sighting),
    Crashed(u32, &'static str),
    Moved(u32, &'static str, Phase, Option<Reason>),
    Judged(Shows),
    Ordered(Command, bool),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shows {
    Nothing,
    Health,
    Harm,
}

fn plan(on_inconclusive: OnInconclusive) -> Plan {
    let stage = |share| Stage {
        min_devices: 2,
        min_requests: 100,
        timeout: Millis::from_secs(200),
        ..Stage::of(Size::Share(BasisPoints(share)), Millis::from_secs(10))
    };
    let stages = vec![stage(2000), stage(5000), stage(10_000)];
    Plan {
        strategy: Strategies::Canary(Canary { stages, control: BasisPoints(2500) }),
        deadline: Millis::from_secs(90),
        on_inconclusive,
        ..Plan::default()
    }
}

fn start(salt: u64, known: u32, on_inconclusive: OnInconclusive) -> Start {
    Start {
        id: RolloutId(1),
        plan: plan(on_inconclusive),
        release: reference("v2"),
        baselines: vec![reference("v1"), reference("v0")],
        salt: Salt(salt),
        at: UnixMillis(5_000),
        devices: (0..known).map(|number| sighting(&device(number), Some("v1"))).collect(),
    }
}

fn any_sighting() -> impl Strategy<Value = Sighting> {
    let active =
        prop_oneof![4 => Just(Some("v1")), 4 => Just(Some("v2")), 1 => Just(Some("v9")), 1 => Just(None)];
    let presence = prop_oneof![4 => Just(Presence::Online), 1 => Just(Presence::Offline)];
    (0..DEVICES, presence, active, prop::bool::weighted(0.2), prop::bool::weighted(0.1)).prop_map(
        |(number, presence, active, candidate, pinned)| Sighting {
            presence,
            candidate: candidate.then(|| release("v2")),
            pinned,
            ..sighting(&device(number), active)
        },
    )
}

fn any_phase() -> impl Strategy<Value = Phase> {
    prop_oneof![
        1 => Just(Phase::Assigned),
        1 => Just(Phase::Fetching),
        2 => Just(Phase::Probation),
        8 => Just(Phase::Committed),
        1 => Just(Phase::Rejected),
        1 => Just(Phase::RolledBack),
    ]
}

fn any_reason() -> impl Strategy<Value = Option<Reason>> {
    prop_oneof![
        Just(None),
        Just(Some(Reason::LoadFailed(Detail::new("x")))),
        Just(Some(Reason::Superseded)),
        Just(Some(Reason::Cancelled)),
        Just(Some(Reason::Expired)),
        Just(Some(Reason::FieldRollback)),
        Just(Some(Reason::FleetRollback)),
    ]
}

fn any_command() -> impl Strategy<Value = Command> {
    let reason = || "because".to_owned();
    prop_oneof![
        3 => Just(Command::Pause),
        3 => Just(Command::Resume),
        1 => Just(Command::Abort { reason: reason() }),
        1 => any::<(bool, bool)>().prop_map(move |(some, at_once)| {
            let named = Selector { devices: (0..3).map(device).collect(), ..Selector::default() };
            let who = some.then(|| Box::new(named));
            Command::RollBack { reason: "because".to_owned(), who, to: None, at_once }
        }),
        1 => Just(Command::Promote { reason: reason() }),
        1 => Just(Command::SkipGate { gate: GateName::ErrorRate, reason: reason() }),
        1 => (1_u32..4).prop_map(|devices| Command::Drill { devices, reason: "because".to_owned() }),
        1 => Just(Command::Emergency { reason: reason() }),
    ]
}

fn any_happening() -> impl Strategy<Value = Happening> {
    let release = prop_oneof![8 => Just("v2"), 1 => Just("v1"), 1 => Just("v9")];
    let shows = prop_oneof![1 => Just(Shows::Nothing), 8 => Just(Shows::Health), 1 => Just(Shows::Harm)];
    prop_oneof![
        6 => Just(Happening::Tick),
        6 => any_sighting().prop_map(Happening::Seen),
        10 => (0..DEVICES, release, any_phase(), any_reason()).prop_map(|(d, r, p, why)| Happening::Moved(d, r, p, why)),
        2 => (0..DEVICES, prop_oneof![Just("v1"), Just("v2")]).prop_map(|(d, r)| Happening::Crashed(d, r)),
        5 => shows.prop_map(Happening::Judged),
        1 => (any_command(), any::<bool>()).prop_map(|(command, stale)| Happening::Ordered(command, stale)),
    ]
}

fn any_course() -> impl Strategy<Value = Vec<(u64, Happening)>> {
    let wait = prop_oneof![4 => 0_u64..3_000, 2 => 3_000_u64..20_000, 1 => 20_000_u64..300_000];
    prop::collection::vec((wait, any_happening()), 1..120)
}

fn event_of(rollout: &Rollout, happening: &Happening) -> RolloutEvent {
    match happening {
        Happening::Tick => RolloutEvent::Tick,
        Happening::Seen(seen) => RolloutEvent::DeviceSeen(seen.clone()),
        Happening::Moved(number, version, to, reason) => RolloutEvent::DeviceTransition {
            device: device(*number),
            release: release(version),
            to: *to,
            reason: reason.clone(),
        },
        Happening::Crashed(number, version) => {
            RolloutEvent::DeviceCrashed { device: device(*number), release: release(version) }
        }
        Happening::Judged(shows) => RolloutEvent::Judged(Box::new(rollout.judge(&answered(shown(*shows))))),
        Happening::Ordered(command, stale) => RolloutEvent::Operator(OperatorOrder {
            expected: Some(StateVersion(rollout.version().0 + u64::from(*stale))),
            by: "op".to_owned(),
            command: command.clone(),
        }),
    }
}

fn shown(shows: Shows) -> Vec<DeviceEvidence> {
    if shows == Shows::Nothing {
        return Vec::new();
    }
    let all = (0..DEVICES).flat_map(|number| ["v1", "v2"].map(|version| evidence(&device(number), version)));
    all.map(|mut device| {
        if shows == Shows::Harm && device.release == release("v2") {
            device.errors = device.requests;
            device.predictions = skewed();
        }
        device
    })
    .collect()
}

/// Devices told to run the release that had not been before, checked against plan and control group.
fn check_shares(before: &Rollout, after: &Rollout, effects: &Effects) -> Result<(), TestCaseError> {
    let is_last = after.stage().index + 1 == after.stages().len();
    let size = after.stages()[after.stage().index].share;
    let fresh = effects.iter().filter_map(|effect| match effect {
        Effect::Assign { device, order: Order::Run { .. }, .. } => Some(device),
        _ => None,
    });
    for device in fresh {
        let was = before.fleet().get(device).is_some_and(|record| record.standing.is_exposed());
        let record = after.fleet().get(device).expect("told");
        if !was && record.attempts == 1 {
            prop_assert!(is_last || !record.control, "{device} is control");
            let tally = after.fleet().tally();
            prop_assert!(tally.reached() as usize <= size.of(tally.eligible() as usize));
        }
        // Who was waited for until now is told before his word is heard that an engineer has him, and refuses.
        let waited_for = before.fleet().get(device).and_then(|record| record.standing.deadline());
        prop_assert!(!record.pinned || waited_for.is_some_and(|until| until <= after.clock));
    }
    Ok(())
}

fn check_deadlines(rollout: &Rollout, event: &RolloutEvent) -> Result<(), TestCaseError> {
    let next = rollout.next_deadline();
    for (device, record) in rollout.fleet().iter() {
        let waited_for = matches!(
            record.standing,
            Standing::Installing { .. }
                | Standing::Left { .. }
                | Standing::Drilling { .. }
                | Standing::Returning { .. }
        );
        prop_assert_eq!(waited_for, record.standing.deadline().is_some());
        if let Some(deadline) = record.standing.deadline() {
            prop_assert!(next.is_some_and(|next| next <= deadline), "{} is forgotten", device);
        }
    }
    if *event == RolloutEvent::Tick {
        prop_assert!(next.is_none_or(|next| next > rollout.clock), "a tick leaves nothing due");
    }
    Ok(())
}

fn is_ended(state: &State) -> bool {
    matches!(
        state,
        State::RollingBack { .. } | State::Finished { outcome: Outcome::RolledBack | Outcome::Aborted, .. }
    )
}

/// After the word to stop or return, nobody is told to run the release.
fn check_cancel(before: &Rollout, effects: &Effects) -> Result<(), TestCaseError> {
    let mut ended = is_ended(before.state());
    for effect in effects {
        match effect {
            Effect::StateChanged { state, .. } => {
                prop_assert!(!ended || is_ended(state), "an ended rollout began again");
                ended = is_ended(state);
            }
            Effect::Assign { order: Order::Run { .. }, .. } => prop_assert!(!ended, "cancel did not win"),
            _ => {}
        }
    }
    Ok(())
}

/// A stage is left forwards only by a look that showed everything, or by an operator's word.
fn check_promotion(before: &Rollout, after: &Rollout, event: &RolloutEvent) -> Result<(), TestCaseError> {
    let completed =
        |rollout: &Rollout| matches!(rollout.state(), State::Finished { outcome: Outcome::Completed, .. });
    let advanced = after.stage().index > before.stage().index || (completed(after) && !completed(before));
    let allowed = match event {
        RolloutEvent::Judged(judgement) => judgement.lacking.is_none(),
        RolloutEvent::Operator(order) => {
            matches!(order.command, Command::Promote { .. } | Command::Emergency { .. })
        }
        RolloutEvent::DeviceSeen(_)
        | RolloutEvent::DeviceTransition { .. }
        | RolloutEvent::DeviceCrashed { .. }
        | RolloutEvent::Tick => false,
    };
    prop_assert!(!advanced || allowed, "promoted by {event:?}");
    let hurried = after.is_emergency() && !before.is_emergency();
    prop_assert!(hurried || after.stage().index <= before.stage().index + 1);
    Ok(())
}

fn any_policy() -> impl Strategy<Value = OnInconclusive> {
    prop_oneof![Just(OnInconclusive::Operator), Just(OnInconclusive::Hold), Just(OnInconclusive::RollBack)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_rules_hold_after_every_event(
        salt: u64, known in 0..DEVICES, policy in any_policy(), course in any_course(), stop: prop::sample::Index
    ) {
        let start = start(salt, known, policy);
        let (mut rollout, effects) = Rollout::start(start.clone()).expect("valid");
        let nobody = Rollout { fleet: Fleet::default(), ..rollout.clone() };
        check_shares(&nobody, &rollout, &effects)?;
        let mut now = start.at;
        let mut log = Vec::new();
        let stop = stop.index(course.len());
        for (at, (wait, happening)) in course.iter().enumerate() {
            now = now.plus(Millis(*wait));
            let event = event_of(&rollout, happening);
            let before = rollout.clone();
            let effects = rollout.handle(now, event.clone());
            check_shares(&before, &rollout, &effects)?;
            check_deadlines(&rollout, &event)?;
            check_cancel(&before, &effects)?;
            check_promotion(&before, &rollout, &event)?;
            log.push((now, event));
            if at == stop {
                // The server restarts here.
                let json = serde_json::to_string(&rollout).expect("plain data");
                let restored: Rollout = serde_json::from_str(&json).expect("plain data");
                prop_assert_eq!(&restored, &rollout);
                rollout = restored;
                let bytes = postcard::to_allocvec(&log).expect("plain data");
                prop_assert_eq!(&postcard::from_bytes::<Vec<(UnixMillis, RolloutEvent)>>(&bytes).expect("plain data"), &log);
            }
        }
        prop_assert_eq!(Rollout::replay(start, log).expect("valid"), rollout);
    }

    #[test]
    fn nothing_is_in_progress_for_ever(
        salt: u64, known in 0..DEVICES, policy in any_policy(), course in any_course()
    ) {
        let start = start(salt, known, policy);
        let (mut rollout, _) = Rollout::start(start.clone()).expect("valid");
        let mut now = start.at;
        for (wait, happening) in &course {
            now = now.plus(Millis(*wait));
            let event = event_of(&rollout, happening);
            let _ = rollout.handle(now, event);
        }
        // From here on everybody is silent.
        let end = now.plus(Millis::from_secs(24 * 3600));
        for _ in 0..5_000 {
            match rollout.next_deadline().filter(|due| *due <= end) {
                Some(due) => now = now.max(due),
                None => break,
            }
            for effect in rollout.handle(now, RolloutEvent::Tick) {
                if let Effect::Gather(_) = effect {
                    let judgement = rollout.judge(&Evidence::default());
                    let _ = rollout.handle(now, RolloutEvent::Judged(Box::new(judgement)));
                }
            }
        }
        let decided = match rollout.state() {
            State::Running | State::RollingBack { .. } => false,
            State::Holding { .. } => policy == OnInconclusive::Hold,
            State::Paused { .. } | State::AwaitingOperator { .. } | State::Finished { .. } => true,
        };
        prop_assert!(decided, "{:?}", rollout.state());
        let live = rollout.fleet().iter().find(|(_, record)| record.standing.deadline().is_some());
        prop_assert!(live.is_none(), "{live:?}");
    }

    #[test]
    fn no_data_never_promotes(salt: u64, known in 0..DEVICES, course in any_course()) {
        let (mut rollout, _) = Rollout::start(start(salt, known, OnInconclusive::Hold)).expect("valid");
        let mut now = UnixMillis(5_000);
        for (wait, happening) in &course {
            now = now.plus(Millis(*wait));
            let happening = match happening {
                Happening::Judged(_) => Happening::Judged(Shows::Nothing),
                Happening::Ordered(Command::Promote { .. } | Command::Emergency { .. }, _) => Happening::Tick,
                other => other.clone(),
            };
            let event = event_of(&rollout, &happening);
            let _ = rollout.handle(now, event);
            let completed = matches!(rollout.state(), State::Finished { outcome: Outcome::Completed, .. });
            prop_assert!(rollout.stage().index == 0 && !completed);
        }
    }

    #[test]
    fn a_clock_set_back_is_a_clock_that_stands(course in any_course(), back in prop::collection::vec(0_u64..400_000, 120)) {
        let start = start(3, 8, OnInconclusive::Operator);
        let (mut steady, _) = Rollout::start(start.clone()).expect("valid");
        let (mut shaken, _) = Rollout::start(start.clone()).expect("valid");
        let mut now = start.at;
        for ((wait, happening), back) in course.iter().zip(back) {
            now = now.plus(Millis(*wait));
            let _ = (steady.handle(now, RolloutEvent::Tick), shaken.handle(now, RolloutEvent::Tick));
            let event = event_of(&steady, happening);
            let earlier = UnixMillis(now.0.saturating_sub(back));
            prop_assert_eq!(steady.handle(now, event.clone()), shaken.handle(earlier, event));
            prop_assert_eq!(&steady, &shaken);
        }
    }
}
