//! Several rollouts side by side: no device is in two of them, whatever joins, changes its tags or comes back.

use super::*;
use crate::fleet::deciding::MAX_LIVE;

/// All at once to those whom `who` (TOML) means.
fn plan(who: &str) -> Plan {
    let who = toml::from_str(who).expect(who);
    Plan { who, ..Plan::all_at_once(Millis(500), 0) }
}

fn tag(rig: &Rig, name: &str, kind: &str) -> Vec<Outgoing> {
    rig.fleet.tag_device(&id(name), &[("kind".into(), Some(kind.into()))], NOW).expect("tagged");
    rig.sent()
}

fn told(sent: &[Outgoing]) -> Vec<(DeviceId, Option<RolloutId>)> {
    // Who is early is drawn by lot.
    let mut told: Vec<_> =
        assigned(sent).into_iter().map(|assignment| (assignment.device, assignment.rollout)).collect();
    told.sort();
    told
}

fn why(outcome: Result<RolloutId, FleetError>) -> String {
    match outcome {
        Err(FleetError::Conflict(why)) => why,
        other => panic!("no conflict: {other:?}"),
    }
}

/// Two cameras and a door, and a rollout to cameras and one to doors.
fn side_by_side() -> (Rig, [ReleaseId; 2], [RolloutId; 2]) {
    let rig = Rig::new();
    for (name, kind) in [("cam-1", "camera"), ("cam-2", "camera"), ("door-1", "door")] {
        rig.hello(name, |_| {});
        tag(&rig, name, kind);
    }
    let releases = ["1", "2"].map(|version| rig.release(version));
    let start = |release: &ReleaseId, who: &str| rig.fleet.start_rollout(release, Some(plan(who)), None, NOW);
    let cameras = start(&releases[0], "tags = { kind = 'camera' }").expect("starts");
    let doors = start(&releases[1], "tags = { kind = 'door' }").expect("starts beside it");
    (rig, releases, [cameras, doors])
}

#[test]
fn rollouts_to_different_devices_run_side_by_side() {
    let (rig, [first, second], [cameras, doors]) = side_by_side();
    let both = [(id("cam-1"), Some(cameras)), (id("cam-2"), Some(cameras)), (id("door-1"), Some(doors))];
    assert_eq!(told(&rig.sent()), both);

    // Each ends by what its own devices say, over a restart.
    let rig = rig.restart();
    for (name, release) in [("cam-1", &first), ("cam-2", &first), ("door-1", &second)] {
        rig.event(name, 1, moved(release, Phase::Committed));
        rig.hello(name, |hello| hello.active = Some(release.clone()));
    }
    (1..10).for_each(|step| rig.fleet.tick(UnixMillis(NOW.0 + step * 200)).expect("ticks"));
    let states = rig.fleet.rollouts(|rollout| (rollout.fleet().len(), rollout.state().to_string()));
    assert_eq!(states, [(2, "completed".to_owned()), (1, "completed".to_owned())]);

    // Late devices get what is meant for them, and either can still be ordered about.
    rig.sent();
    rig.hello("cam-3", |_| {});
    assert_eq!(told(&tag(&rig, "cam-3", "camera")), [(id("cam-3"), Some(cameras))]);
    let order = || OperatorOrder {
        expected: None,
        by: "me".into(),
        command: Command::Abort { reason: "over".into() },
    };
    for rollout in [cameras, doors] {
        let answer = rig.fleet.order(rollout, order(), NOW);
        assert!(!matches!(answer, Err(FleetError::Conflict(_))), "{answer:?}");
    }
}

#[test]
fn a_device_is_never_in_two() {
    let (rig, [first, second], [cameras, doors]) = side_by_side();
    let start = |who: &str| rig.fleet.start_rollout(&second, Some(plan(who)), None, NOW);
    assert!(why(start("devices = ['cam-1']\ndynamic = false")).contains("on 1 of these devices"));
    assert!(why(rig.fleet.start_rollout(&second, None, None, NOW)).contains("one rollout at a time"));
    // Nobody is in both today; somebody could be tomorrow.
    rig.hello("other", |_| {});
    assert!(why(start("tags = { site = 'lisbon' }")).contains("could be meant by both"));
    start("devices = ['other']\ndynamic = false").expect("nobody joins it");
    rig.sent();

    // A door that becomes a camera stays where it is until that is over.
    assert!(told(&tag(&rig, "door-1", "camera")).is_empty());
    let known = |rollout, device: &str| {
        rig.fleet.rollout(rollout, |it| it.fleet().get(&id(device)).is_some()).expect("there")
    };
    assert!(known(doors, "door-1") && !known(cameras, "door-1"));
    assert_eq!(rig.fleet.rollout(cameras, |rollout| rollout.release().id.clone()).expect("there"), first);
}

#[test]
fn what_a_younger_rollout_took_is_no_longer_the_older_ones() {
    let rig = Rig::new();
    for name in ["a", "b"] {
        rig.hello(name, |_| {});
    }
    let (first, second) = (rig.release("1"), rig.release("2"));
    let everybody = rig.fleet.start_rollout(&first, Some(plan("")), None, NOW).expect("starts");
    for name in ["a", "b"] {
        rig.event(name, 1, moved(&first, Phase::Committed));
        rig.hello(name, |hello| hello.active = Some(first.clone()));
    }
    (1..10).for_each(|step| rig.fleet.tick(UnixMillis(NOW.0 + step * 200)).expect("ticks"));
    rig.sent();
    // Whoever comes later is meant by it, too, and may not join.
    let only_a = plan("except = ['b']\ndynamic = false");
    let some = rig.fleet.start_rollout(&second, Some(only_a), None, NOW).expect("starts");
    assert_eq!(told(&rig.sent()), [(id("a"), Some(some))]);
    // Seen without the old release, `a` is not given it again; `b` is, and so is a newcomer.
    let lost = |name: &str| told(&rig.hello(name, |hello| hello.sequence = SequenceNumber(9)));
    assert!(lost("a").iter().all(|(_, rollout)| *rollout == Some(some)));
    assert_eq!(lost("c"), [(id("c"), Some(everybody))]);
    let order = OperatorOrder { expected: None, by: "me".into(), command: Command::Pause };
    let refused = rig.fleet.order(everybody, order, NOW);
    assert!(matches!(refused, Err(FleetError::Conflict(why)) if why.contains("took its place")));
}

#[test]
fn late_devices_are_not_in_an_aborted_rollout_and_get_what_was_completed_before_it() {
    let rig = Rig::new();
    rig.hello("a", |_| {});
    let (first, second) = (rig.release("1"), rig.release("2"));
    let completed = rig.fleet.start_rollout(&first, Some(plan("")), None, NOW).expect("starts");
    rig.event("a", 1, moved(&first, Phase::Committed));
    rig.hello("a", |hello| hello.active = Some(first.clone()));
    (1..10).for_each(|step| rig.fleet.tick(UnixMillis(NOW.0 + step * 200)).expect("ticks"));
    let aborted = rig.fleet.start_rollout(&second, Some(plan("")), None, NOW).expect("starts");
    let command = Command::Abort { reason: "over".into() };
    let order = OperatorOrder { expected: None, by: "me".into(), command };
    rig.fleet.order(aborted, order, NOW).expect("aborted");
    rig.sent();
    assert_eq!(told(&rig.hello("late", |_| {})), [(id("late"), Some(completed))]);
    let rig = rig.restart();
    let known = |rollout| rig.fleet.rollout(rollout, |it| it.fleet().len()).expect("there");
    assert_eq!((known(completed), known(aborted)), (2, 1));
}

#[test]
fn there_is_an_end_to_how_many_run() {
    let rig = Rig::new();
    let release = rig.release("1");
    let start = |at: usize| {
        let name = format!("d-{at}");
        rig.hello(&name, |_| {});
        rig.fleet.start_rollout(
            &release,
            Some(plan(&format!("devices = ['{name}']\ndynamic = false"))),
            None,
            NOW,
        )
    };
    for at in 0..MAX_LIVE {
        start(at).expect("starts");
    }
    assert!(why(start(MAX_LIVE)).contains("a further one must wait"));
}
