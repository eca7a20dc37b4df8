//! What devices may say, and what is refused by name.

use super::*;
use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use serin_protocol::envelope::seal_to_vec;
use serin_protocol::ids::{BootId, ByteCount, Digest, EventNumber, SequenceNumber};
use serin_protocol::message::{Coverage, EventKind, Presence, Role, Turn};
use serin_protocol::sketch::LatencyHistogram;
use serin_protocol::tag::seal_tagged_to_vec;

const NOW: UnixMillis = UnixMillis(1_000_000_000);

fn fleet() -> FleetId {
    "f".parse().expect("name")
}

fn device(name: &str) -> DeviceId {
    name.parse().expect("name")
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(seed: u8) -> PublicKey {
    PublicKey::of(&key(seed))
}

fn hello(name: &str, fleet: &str, seed: u8) -> Hello {
    Hello {
        device: device(name),
        fleet: fleet.parse().expect("name"),
        key: PublicKey::of(&key(seed)),
        boot: BootId(1),
        turn: Turn::default(),
        presence: Presence::Online,
        agent: "1".parse().expect("fits"),
        target: "t".parse().expect("name"),
        memory_budget: ByteCount(1),
        free_space: ByteCount(1),
        sequence: SequenceNumber(0),
        active: None,
        previous: None,
        candidate: None,
        pinned: false,
        decoders: serin_protocol::release::Decoders::new(),
    }
}

fn event(name: &str, number: u64) -> Event {
    Event {
        device: device(name),
        number: EventNumber(number),
        at: NOW,
        sequence: SequenceNumber(0),
        rollout: None,
        kind: EventKind::Unpinned { uid: 0 },
    }
}

fn report(name: &str) -> Report {
    Report {
        device: device(name),
        boot: BootId(1),
        sequence: 1,
        start: UnixMillis(NOW.0 - 10),
        end: NOW,
        coverage: Coverage::Complete,
        release: "m@1".parse().expect("id"),
        profile: Digest([0; 32]),
        segment: serin_protocol::ids::SegmentNumber(0),
        requests: 5,
        errors: 5,
        refused: 0,
        latency: LatencyHistogram::default(),
        first_feature: 0,
        features: heapless::Vec::new(),
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

fn heard_report(change: impl FnOnce(&mut Report)) -> Result<Heard, Refused> {
    let mut report = report("a");
    change(&mut report);
    heard(&Topic::Report(device("a")), &report, 1, Some(public(1)))
}

#[test]
fn segments_and_truths_that_cannot_be_are_refused() {
    use serin_protocol::sketch::{ClassQuality, Quality, ValueQuality};
    let right =
        |labelled, right| Some(Quality::Classes(ClassQuality { labelled, right, ..ClassQuality::default() }));
    assert!(heard_report(|report| report.segment.0 = 4).is_ok());
    assert!(matches!(heard_report(|report| report.segment.0 = 5), Err(Refused::Insane(_))));
    assert!(heard_report(|report| report.quality = right(3, 2)).is_ok());
    assert!(matches!(heard_report(|report| report.quality = right(2, 3)), Err(Refused::Insane(_))));
    let endless = ValueQuality { absolute: f64::NAN, ..ValueQuality::default() };
    let endless = heard_report(|report| report.quality = Some(Quality::Values(endless)));
    assert!(matches!(endless, Err(Refused::Insane(_))));
}

fn heard<T: Signed>(
    topic: &Topic,
    message: &T,
    seed: u8,
    known: Option<PublicKey>,
) -> Result<Heard, Refused> {
    heard_bytes(topic, &seal_to_vec(message, &key(seed)).expect("fits").into(), known, &[])
}

/// At a server whose keys `ours` are named.
fn heard_bytes(
    topic: &Topic,
    payload: &Bytes,
    known: Option<PublicKey>,
    ours: &[SigningKey],
) -> Result<Heard, Refused> {
    let signers: Vec<Signer<'_>> = ours.iter().map(Signer::new).collect();
    let mut tag = None;
    let spare = &mut None;
    let sender = known.map(|key| Sender { key, signers: &signers, tag: &mut tag, spare });
    hear(topic, payload, &fleet(), sender, NOW)
}

/// A report of `device`, whose key `seed` is, under a tag for `server`.
fn tagged(name: &str, seed: u8, server: u8) -> Bytes {
    let tag = TagKey::of_device(&key(seed), &public(server)).expect("honest keys");
    seal_tagged_to_vec(&report(name), &tag).expect("fits").into()
}

#[test]
fn a_tagged_report_counts_under_a_key_of_ours_that_is_named() {
    let topic = Topic::Report(device("a"));
    let ours = [key(7), key(8)];
    for server in [7, 8] {
        let heard = heard_bytes(&topic, &tagged("a", 1, server), Some(public(1)), &ours);
        let Ok(Heard::Report { report: told, message }) = heard else { panic!("{heard:?}") };
        assert_eq!(*told, report("a"));
        assert_eq!(Report::read(&message, None).expect("reads").0, told);
    }
    // A key that was rotated out, or somebody else's.
    let elsewhere =
        heard_bytes(&topic, &tagged("a", 1, 7), Some(public(1)), &ours[1..]).expect_err("refused");
    assert_eq!(elsewhere, Refused::Envelope(OpenError::UnknownServer(public(7).id())));
    assert_eq!(elsewhere.label(), "other_server");
    // Replayed to the topic of another device; made by another; from a stranger.
    let other = heard_bytes(&Topic::Report(device("b")), &tagged("a", 1, 7), Some(public(2)), &ours);
    assert_eq!(other, Err(Refused::OtherKey));
    let other = heard_bytes(&topic, &tagged("a", 2, 7), Some(public(1)), &ours);
    assert_eq!(other, Err(Refused::OtherKey));
    let about = heard_bytes(&topic, &tagged("b", 1, 7), Some(public(1)), &ours);
    assert_eq!(about, Err(Refused::OtherDevice(device("b"))));
    assert_eq!(heard_bytes(&topic, &tagged("a", 1, 7), None, &ours), Err(Refused::UnknownDevice));
    // On topics where only signatures count.
    for topic in [Topic::Event(device("a")), Topic::Hello(device("a"))] {
        let refused = heard_bytes(&topic, &tagged("a", 1, 7), Some(public(1)), &ours).expect_err("refused");
        assert!(matches!(refused, Refused::Envelope(OpenError::Tagged)), "{refused:?}");
        assert_eq!(refused.label(), "tag");
    }
}

#[test]
fn what_a_device_and_a_key_have_in_common_is_drawn_anew_when_either_is_another() {
    let topic = Topic::Report(device("a"));
    let ours = [key(7), key(8)];
    let signers: Vec<Signer<'_>> = ours.iter().map(Signer::new).collect();
    let mut tag = None;
    for (seed, server) in [(1, 7), (1, 7), (1, 8), (2, 8), (1, 7)] {
        let sender = Sender { key: public(seed), signers: &signers, tag: &mut tag, spare: &mut None };
        assert!(hear(&topic, &tagged("a", seed, server), &fleet(), Some(sender), NOW).is_ok());
        let drawn = tag.as_ref().expect("drawn");
        assert_eq!((drawn.device(), drawn.server()), (public(seed).id(), public(server).id()));
    }
}

#[test]
fn a_first_hello_brings_its_key_and_later_ones_need_it() {
    let topic = || Topic::Hello(device("a"));
    let first = heard(&topic(), &hello("a", "f", 1), 1, None);
    assert_eq!(first, Ok(Heard::Hello(Box::new(hello("a", "f", 1)))));
    assert!(heard(&topic(), &hello("a", "f", 1), 1, Some(public(1))).is_ok());
    assert_eq!(heard(&topic(), &hello("a", "f", 2), 2, Some(public(1))), Err(Refused::OtherKey));
    // Signed by the known key but naming another: the next hello would be refused.
    assert_eq!(heard(&topic(), &hello("a", "f", 2), 1, Some(public(1))), Err(Refused::OtherKey));
    // Somebody else's key named, without owning it.
    let forged = heard(&topic(), &hello("a", "f", 1), 2, None);
    assert!(matches!(forged, Err(Refused::Envelope(OpenError::UnknownKey(_)))));
}

#[test]
fn a_message_is_about_the_device_of_its_topic_and_this_fleet() {
    let other = Err(Refused::OtherDevice(device("b")));
    assert_eq!(heard(&Topic::Hello(device("a")), &hello("b", "f", 1), 1, None), other);
    assert_eq!(heard(&Topic::Event(device("a")), &event("b", 1), 1, Some(public(1))), other);
    assert_eq!(heard(&Topic::Report(device("a")), &report("b"), 1, Some(public(1))), other);
    let foreign = heard(&Topic::Hello(device("a")), &hello("a", "g", 1), 1, None);
    assert_eq!(foreign, Err(Refused::OtherFleet("g".parse().expect("name"))));
}

#[test]
fn nothing_but_a_hello_is_taken_from_a_stranger() {
    assert_eq!(heard(&Topic::Event(device("a")), &event("a", 1), 1, None), Err(Refused::UnknownDevice));
    assert_eq!(heard(&Topic::Report(device("a")), &report("a"), 1, None), Err(Refused::UnknownDevice));
    assert_eq!(heard(&Topic::Event(device("a")), &event("a", 1), 2, Some(public(1))), Err(Refused::OtherKey));
}

#[test]
fn a_signed_message_on_the_wrong_topic_is_refused() {
    let refused = heard(&Topic::Report(device("a")), &event("a", 1), 1, Some(public(1)));
    assert!(matches!(refused, Err(Refused::Envelope(OpenError::Purpose { .. }))));
    for topic in [Topic::Assign(device("a")), Topic::Ack(device("a")), Topic::Pause(device("a"))] {
        assert_eq!(heard(&topic, &event("a", 1), 1, Some(public(1))), Err(Refused::Topic));
    }
}

#[test]
fn what_is_too_large_is_refused_before_it_is_parsed() {
    let topic = Topic::Event(device("a"));
    let payload = vec![1; topic.max_payload() + 1].into();
    let refused = heard_bytes(&topic, &payload, Some(public(1)), &[]);
    assert!(matches!(refused, Err(Refused::TooLarge { .. })));
    assert_eq!(refused.expect_err("refused").label(), "too_large");
}

#[test]
fn reports_that_contradict_themselves_are_refused() {
    let changes: [fn(&mut Report); 5] = [
        |report| report.end = report.start,
        |report| report.errors = report.requests + 1,
        |report| report.end = UnixMillis(NOW.0 + 3 * 24 * 3600 * 1000),
        |report| report.predictions.m2 = f64::NAN,
        |report| report.start = UnixMillis(0),
    ];
    for change in changes {
        let mut report = report("a");
        change(&mut report);
        let refused = heard(&Topic::Report(device("a")), &report, 1, Some(public(1)));
        assert!(matches!(refused, Err(Refused::Insane(_))), "{report:?}");
    }
    assert!(heard(&Topic::Report(device("a")), &report("a"), 1, Some(public(1))).is_ok());
    let zero = heard(&Topic::Event(device("a")), &event("a", 0), 1, Some(public(1)));
    assert!(matches!(zero, Err(Refused::Insane(_))));
}

proptest! {
    #[test]
    fn any_bytes_are_refused_without_a_crash(bytes: Vec<u8>, kind in 0..3_u8, known: bool) {
        let topic = match kind {
            0 => Topic::Hello(device("a")),
            1 => Topic::Event(device("a")),
            _ => Topic::Report(device("a")),
        };
        let key = known.then(|| public(1));
        prop_assert!(heard_bytes(&topic, &bytes.into(), key, &[self::key(7)]).is_err());
    }
}
