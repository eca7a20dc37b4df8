//! Orders: for others, old, expired, forged, below the owner's floor; and reports in another's name.

use anyhow::{Context as _, Result};
use ed25519_dalek::Signer as _;
use serin_protocol::assignment::Order;
use serin_protocol::envelope::{PublicKey, Signed, seal_to_vec};
use serin_protocol::ids::{BootId, ByteCount, DeviceId, Digest, EventNumber, SequenceNumber, UnixMillis};
use serin_protocol::message::{Coverage, Event, EventKind, Hello, Presence, Report, Role, Turn};
use serin_protocol::sketch::{Histogram, LatencyHistogram};
use serin_protocol::tag::{TagKey, seal_tagged_to_vec};
use serin_protocol::topic::Topic;
use serin_protocol::trust::TargetFile;
use serin_protocol::trust::forge::key;
use serin_protocol::trust::metadata::Serial;
use serin_tests::adversary::{Adversary, publish_once, signing_key, victim};
use serin_tests::device::Device;
use serin_tests::lab::{Broker, Lab, PATIENCE};
use serin_tests::server::{FLEET, Server};

#[test]
fn an_order_is_good_once_for_one_device_in_one_fleet_and_for_a_while() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let second = adversary.v2.clone();
    adversary.release(&second)?;
    let honest = adversary.assignment(&second);

    let mut elsewhere = honest.clone();
    elsewhere.fleet = "other".parse()?;
    adversary.say_assignment(&victim(), &elsewhere)?;
    adversary.until_told(&["refused", "the assignment is for another fleet"])?;

    let mut old = honest.clone();
    old.sequence = SequenceNumber(0);
    adversary.say_assignment(&victim(), &old)?;
    adversary.until_told(&["refused", "the assignment is a replay: number 0, already at 1"])?;

    let mut expired = honest.clone();
    expired.expires = UnixMillis(expired.issued.0 - 1);
    adversary.say_assignment(&victim(), &expired)?;
    adversary.until_told(&["2.0.0", "rejected", "expired"])?;

    adversary.assign_as(99);
    let forged = adversary.assignment(&second);
    adversary.say_assignment(&victim(), &forged)?;
    adversary.until_told(&["refused", "assignment", "unknown key"])?;
    adversary.still_runs_v1()?;

    // Replayed to another device of the fleet.
    let bystander = Device::start(&adversary.folder(), "bystander", &adversary.provision())?;
    adversary.assign_as(6);
    adversary.say_assignment(&"bystander".parse()?, &honest)?;
    serin_tests::until("the bystander refuses", PATIENCE, || {
        let history = bystander.engineer(&["history"]).ok()?.to_string();
        history.contains("the assignment is for another device").then_some(())
    })?;
    assert_eq!(bystander.active(), None);
    adversary.accepts_v2()
}

#[test]
fn nothing_below_the_owners_floor_is_installed_and_the_way_back_stays_open() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let second = adversary.v2.clone();
    adversary.release(&second)?;
    adversary.accepts_v2()?;
    adversary.repository.digits.floor.insert("digits".into(), Serial(2));
    adversary.repository.release();
    adversary.publish()?;
    let first = adversary.v1.clone();
    adversary.assign(&first)?;
    adversary.until_told(&["1.0.0", "rejected", "is number 1 of its owner's releases, below the floor 2"])?;
    assert!(adversary.device.runs("2.0.0"));
    // Nor is it brought back by the fleet, although the device has it.
    let mut back = adversary.assignment(&first);
    back.order = Order::RollBack { from: second.release.id.clone(), to: first.reference() };
    adversary.forget_heard();
    adversary.say_assignment(&victim(), &back)?;
    adversary.until_told(&["1.0.0", "rejected", "is number 1 of its owner's releases, below the floor 2"])?;
    assert!(adversary.device.runs("2.0.0"));
    // The engineer on site decides for this device, offline too.
    adversary.device.engineer(&["rollback"])?;
    adversary.until_runs("1.0.0")
}

#[test]
fn what_one_device_says_in_anothers_name_is_counted_and_not_taken() -> Result<()> {
    let mut lab = Lab::new(Broker::Mosquitto)?;
    lab.add_devices(2)?;
    let key = signing_key(&lab.devices[1])?;
    let before = lab.server.json("/api/v1/devices/device-01")?;
    let say = |topic: Topic, payload: Vec<u8>| -> Result<()> {
        let counted = refused(&lab.server)?;
        publish_once(lab.server.mqtt, topic.name(&FLEET.parse()?).as_str(), &payload)?;
        serin_tests::until("the forgery is counted", PATIENCE, || {
            refused(&lab.server).is_ok_and(|now| now > counted).then_some(())
        })
    };
    let victim: DeviceId = "device-01".parse()?;

    let event = Event {
        device: victim.clone(),
        number: EventNumber(1_000_000),
        at: UnixMillis(1),
        sequence: SequenceNumber(1),
        rollout: None,
        kind: EventKind::Unpinned { uid: 4711 },
    };
    say(Topic::Event(victim.clone()), seal_to_vec(&event, &key)?)?;
    let events = lab.server.events("device-01")?;
    assert!(!events.iter().any(|event| event.contains("4711")), "{events:?}");

    say(Topic::Report(victim.clone()), seal_to_vec(&forged_report(victim.clone()), &key)?)?;
    // Under tags: the forger's own for the server, and what it has in common with the victim, as if it were the server.
    let keys = lab.server.json("/api/v1/keys")?;
    let server: PublicKey = keys["fleet"].as_str().context("the fleet's key")?.parse()?;
    let victims = PublicKey::of(&signing_key(&lab.devices[0])?);
    for tag in [TagKey::of_device(&key, &server)?, TagKey::of_server(&key, &victims)?] {
        say(Topic::Report(victim.clone()), seal_tagged_to_vec(&forged_report(victim.clone()), &tag)?)?;
    }
    // A tag counts for reports only; and one of a report of the forger's own, which is genuine, not on this topic.
    let tag = TagKey::of_device(&key, &server)?;
    let own = seal_tagged_to_vec(&forged_report("device-02".parse()?), &tag)?;
    for topic in [Topic::Report(victim.clone()), Topic::Event("device-02".parse()?)] {
        say(topic, own.clone())?;
    }

    // A hello brings its own key: with the forger's, and with the victim's that the forger lacks.
    for shown in [PublicKey::of(&key), PublicKey::of(&signing_key(&lab.devices[0])?)] {
        let hello = Hello {
            device: victim.clone(),
            fleet: FLEET.parse()?,
            key: shown,
            boot: BootId(4711),
            turn: Turn::default(),
            presence: Presence::Online,
            agent: "6.6.6".parse()?,
            target: "linux-x86_64".parse()?,
            memory_budget: ByteCount(1),
            free_space: ByteCount(1),
            sequence: SequenceNumber(4711),
            active: Some("digits@6.6.6".parse()?),
            previous: None,
            candidate: None,
            pinned: true,
            decoders: serin_protocol::release::Decoders::new(),
        };
        say(Topic::Hello(victim.clone()), seal_to_vec(&hello, &key)?)?;
    }
    let after = lab.server.json("/api/v1/devices/device-01")?;
    for field in ["agent", "active", "sequence", "pinned", "target"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    Ok(())
}

/// Messages that the server has refused.
fn refused(server: &Server) -> Result<u64> {
    let metrics = server.get("/metrics")?;
    let lines = metrics.lines().filter(|line| line.contains("messages_refused_total{"));
    Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum())
}

fn forged_report(device: DeviceId) -> Report {
    Report {
        device,
        boot: BootId(1),
        sequence: 1,
        start: UnixMillis(0),
        end: UnixMillis(2000),
        coverage: Coverage::Complete,
        release: "digits@1.0.0".parse().expect("a name"),
        profile: Digest([0; 32]),
        segment: serin_protocol::ids::SegmentNumber(0),
        requests: 1000,
        errors: 1000,
        refused: 0,
        latency: LatencyHistogram::default(),
        first_feature: 0,
        features: [].into_iter().collect(),
        predictions: Histogram::default(),
        confidence: Histogram::default(),
        entropy: serin_protocol::sketch::Histogram::default(),
        quality: None,
        worker_peak: ByteCount(0),
        worker_deaths: 0,
        role: Role::Answers,
        comparison: None,
        dropped_reports: 0,
    }
}

#[test]
fn a_target_whose_path_leads_elsewhere_is_not_even_looked_for() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let (plain, trick) = ("9.9.9.9.9.9.9", "../../../evil");
    let path = format!("models/digits/{trick}.release");
    let statement = adversary.v2.statement.clone();
    let listed = TargetFile::of(&statement).with_serial(Serial(2));
    adversary.repository.digits.targets.insert(path, listed);
    adversary.repository.release();
    adversary.publish()?;
    // Signed by the fleet's key, like any order, but for the version of the release in it.
    let packed = adversary.v2.clone().stating(|release| release.id.version = plain.parse().expect("a name"));
    let assignment = adversary.assignment(&packed);
    let mut sealed = seal_to_vec(&assignment, &key(6))?;
    let at = sealed.windows(plain.len()).position(|part| part == plain.as_bytes()).expect("it is there");
    sealed[at..at + plain.len()].copy_from_slice(trick.as_bytes());
    // Version byte, length of the payload as one or two bytes of seven bits, payload, key, signature.
    let (length, begin) = match sealed[1] {
        short @ ..128 => (usize::from(short), 2),
        long => (usize::from(long & 127) | usize::from(sealed[2]) << 7, 3),
    };
    assert_eq!(sealed[begin], serin_protocol::assignment::Assignment::PURPOSE);
    let signature = key(6).sign(&sealed[begin..begin + length]).to_bytes();
    let end = sealed.len() - signature.len();
    sealed[end..].copy_from_slice(&signature);
    let topic = Topic::Assign(victim()).name(&FLEET.parse()?);
    publish_once(adversary.provision().mqtt, topic.as_str(), &sealed)?;
    adversary.until_told(&["refused", "assignment", "malformed message"])?;
    adversary.still_runs_v1()?;
    adversary.sequence -= 1;
    let second = adversary.v2.clone();
    adversary.release(&second)?;
    adversary.accepts_v2()
}

#[test]
fn a_stolen_fleet_key_stops_no_device_for_longer_than_it_is_trusted() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let second = adversary.v2.clone();
    adversary.release(&second)?;
    let mut poisoned = adversary.assignment(&second);
    poisoned.issued = UnixMillis(u64::MAX);
    adversary.say_assignment(&victim(), &poisoned)?;
    adversary.until_told(&["refused", "assignment", "the metadata it rests on ends at"])?;
    let mut last = adversary.assignment(&second);
    last.sequence = SequenceNumber(u64::MAX);
    adversary.say_assignment(&victim(), &last)?;
    adversary.until_told(&["refused", "assignment", "is too far above 1"])?;
    adversary.still_runs_v1()?;
    adversary.accepts_v2()
}
