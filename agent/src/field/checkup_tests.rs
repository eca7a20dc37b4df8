//! What a doctor finds.

use super::*;
use crate::field::protections;

fn well() -> Facts {
    Facts {
        clock: UnixMillis(1_795_000_000_000),
        clock_floor: UnixMillis(1_794_000_000_000),
        free: ByteCount::from_mib(1000),
        reserve: ByteCount::from_mib(64),
        policy: Outlook::default(),
        memory: Some(ByteCount::from_mib(512)),
        models: ByteCount::from_mib(256),
        connected: true,
        link_problem: None,
        tls: true,
        certificates: vec![
            LinkFile { what: "ca", good: Ok(Some(UnixMillis(1_895_000_000_000))) },
            LinkFile { what: "key", good: Ok(None) },
        ],
        device: "kiosk".parse().expect("name"),
        waiting: Some(0),
        trusted_until: Some(UnixMillis(1_795_100_000_000)),
        trust_problem: None,
        sandbox: Some(protections::WHOLE),
        kernel: KernelFeature::ALL.to_vec(),
        active: Some(("m@2".parse().expect("id"), true)),
        previous: Some(WayBack { release: "m@1".parse().expect("id"), condemned: false, why: None }),
        restarts: 0,
        sheltered: None,
        safe_mode: false,
        class_lacks: Vec::new(),
    }
}

fn found(change: impl FnOnce(&mut Facts), what: &str) -> CheckLine {
    let mut facts = well();
    change(&mut facts);
    let checkup = doctor(&facts);
    let line = checkup.lines.iter().find(|line| line.what == what).expect("is looked at").clone();
    assert_eq!(checkup.worst(), line.level, "nothing else is wrong: {checkup:?}");
    assert_eq!(line.remedy.is_some(), line.level != Level::Ok, "{line:?}");
    line
}

#[test]
fn a_device_that_is_well_needs_nothing() {
    let checkup = doctor(&well());
    assert_eq!(checkup.worst(), Level::Ok, "{checkup:?}");
    assert_eq!(checkup.lines.len(), 13);
}

#[test]
fn what_is_wrong_is_named_with_its_remedy() {
    let level = |line: CheckLine| line.level;
    let dead_clock = found(|facts| facts.clock_floor = facts.clock.plus(Millis(1)), "clock");
    assert_eq!(level(dead_clock), Level::Fail);
    assert_eq!(level(found(|facts| facts.free = ByteCount::from_mib(63), "disk")), Level::Fail);
    assert_eq!(level(found(|facts| facts.free = ByteCount::from_mib(100), "disk")), Level::Warn);
    let sheltered = found(|facts| facts.sheltered = Some("Read-only file system".into()), "disk");
    assert!(sheltered.finding.contains("Read-only"), "{sheltered:?}");
    assert_eq!(level(sheltered), Level::Fail);
    assert_eq!(level(found(|facts| facts.memory = Some(ByteCount(1)), "memory")), Level::Warn);
    let open = Sandbox { files_closed: false, ..protections::WHOLE };
    assert_eq!(level(found(|facts| facts.sandbox = Some(open), "sandbox")), Level::Warn);
    assert_eq!(level(found(|facts| facts.waiting = Some(3), "fleet")), Level::Warn);
    assert_eq!(level(found(|facts| facts.active = None, "model")), Level::Warn);
    assert_eq!(level(found(|facts| facts.restarts = 2, "agent")), Level::Warn);
    let safe = found(
        |facts| (facts.safe_mode, facts.active) = (true, Some(("m@2".parse().expect("id"), false))),
        "agent",
    );
    assert_eq!(safe.level, Level::Fail);
    let silent = found(|facts| facts.active = Some(("m@2".parse().expect("id"), false)), "model");
    assert_eq!(level(silent), Level::Fail);
}

#[test]
fn a_broker_that_refuses_the_device_is_told_from_one_that_is_not_there() {
    let lost = |refused: bool| {
        let problem = Problem { text: "so it is".into(), refused };
        found(|facts| (facts.connected, facts.link_problem) = (false, Some(problem)), "broker")
    };
    let (away, out) = (lost(false), lost(true));
    for line in [&away, &out] {
        assert!(line.level == Level::Fail && line.finding.contains("so it is"), "{line:?}");
    }
    let says =
        |line: &CheckLine, word: &str| line.remedy.as_ref().is_some_and(|remedy| remedy.contains(word));
    assert!(says(&away, "broker.port") && !says(&away, "revoked"), "{away:?}");
    assert!(says(&out, "device show kiosk") && !says(&out, "broker.port"), "{out:?}");
}

#[test]
fn a_device_that_the_fleet_never_took_in_is_told_to_enrol() {
    let line = found(|facts| facts.waiting = None, "fleet");
    assert!(line.level == Level::Warn && line.finding.starts_with("not enrolled"), "{line:?}");
    assert!(line.remedy.is_some_and(|remedy| remedy.contains("serin-agent enroll")));
}

#[test]
fn a_release_that_was_taken_back_is_no_way_back_without_its_name() {
    let condemned = || WayBack {
        release: "m@3".parse().expect("id"),
        condemned: true,
        why: Some(Reason::WorkerDied(serin_protocol::message::WorkerDeath::Hung)),
    };
    let line = found(|facts| facts.previous = Some(condemned()), "rollback");
    assert!(line.level == Level::Warn && line.finding.contains("m@3 was taken back"), "{line:?}");
    let reason = condemned().why.expect("said").to_string();
    assert!(line.finding.contains(&reason), "{line:?}");
    let mut facts = well();
    (facts.previous, facts.safe_mode) = (Some(condemned()), true);
    facts.active = Some(("m@2".parse().expect("id"), false));
    let remedies: Vec<_> = doctor(&facts).lines.into_iter().filter_map(|line| line.remedy).collect();
    assert!(remedies.iter().all(|remedy| remedy.contains("rollback --to 3")), "{remedies:?}");
    facts.previous = None;
    assert!(!format!("{:?}", doctor(&facts)).contains("serin-agent rollback"), "there is none");
}

#[test]
fn certificates_are_watched_before_they_end() {
    let until = |days: u64| {
        move |facts: &mut Facts| {
            let until = facts.clock.plus(Millis::from_secs(days * 24 * 3600));
            facts.certificates.push(LinkFile { what: "certificate", good: Ok(Some(until)) });
        }
    };
    assert_eq!(found(until(31), "certificates").level, Level::Ok);
    let soon = found(until(30), "certificates");
    assert!(soon.level == Level::Warn && soon.finding.contains("broker.tls.certificate"), "{soon:?}");
    assert_eq!(found(until(0), "certificates").level, Level::Fail);
    let missing = LinkFile { what: "key", good: Err("No such file".into()) };
    let missing = found(|facts| facts.certificates.push(missing), "certificates");
    assert!(missing.level == Level::Fail && missing.finding.contains("broker.tls.key"), "{missing:?}");
    assert_eq!(found(|facts| facts.certificates.clear(), "certificates").level, Level::Ok);
}

#[test]
fn trust_is_watched_before_it_ends() {
    let until = |seconds: u64| {
        move |facts: &mut Facts| {
            facts.trusted_until = Some(facts.clock.plus(Millis::from_secs(seconds)));
        }
    };
    assert_eq!(found(until(13 * 3600), "trust").level, Level::Ok);
    assert_eq!(found(until(11 * 3600), "trust").level, Level::Warn);
    assert_eq!(found(until(0), "trust").level, Level::Fail);
    assert_eq!(found(|facts| facts.trusted_until = None, "trust").level, Level::Fail);
    let failing = found(|facts| facts.trust_problem = Some("freeze".into()), "trust");
    assert!(failing.level == Level::Warn && failing.finding.contains("freeze"), "{failing:?}");
}
