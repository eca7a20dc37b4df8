//! The fleet over a real store, with what it sends caught instead of sent.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use serin_protocol::assignment::{Assignment, Order};
use serin_protocol::enrolment::{ClaimToken, Enrolled, Enrolment, EnrolmentRefusal};
use serin_protocol::envelope::{KeyRing, PublicKey, open, seal_to_vec};
use serin_protocol::ids::{BootId, ByteCount, DeviceId, EventNumber, ReleaseId, SequenceNumber, UnixMillis};
use serin_protocol::message::{Ack, CrashAction, Event, EventKind, Hello, Phase, Presence, Turn};
use serin_protocol::pause::{MAX_PAUSE, Pause};
use serin_protocol::topic::Topic;

use super::metrics::Metrics;
use super::{Delivery, Fleet, FleetError, FleetParts, Message, Outgoing, alerts, samples};
use crate::broker::publish::Job;
use crate::fleet::enrolment::Policy;
use crate::registry::made;
use crate::registry::objects::ObjectStore;
use crate::review::SampleKey;
use crate::rollout::event::{Command, OperatorOrder};
use crate::rollout::plan::Plan;
use crate::rollout::state::State;
use crate::rollout::verdict::Verdict;
use crate::store::Store;
use crate::store::sled::SledStore;
use serin_protocol::ids::{Millis, RolloutId};

mod clearing;
mod deciding;
mod watching;

const NOW: UnixMillis = UnixMillis(1_000_000_000);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn id(name: &str) -> DeviceId {
    name.parse().expect("name")
}

/// A device with the key of `seed` that holds nothing.
fn hello_of(name: &str, seed: u8) -> Hello {
    Hello {
        device: id(name),
        fleet: "f".parse().expect("name"),
        key: PublicKey::of(&key(seed)),
        boot: BootId(1),
        turn: Turn { connection: 1, number: 1 },
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

struct Rig {
    folder: tempfile::TempDir,
    fleet: Fleet,
    /// Whether owners list releases.
    listed: Arc<AtomicBool>,
    sent: Arc<Mutex<Vec<Outgoing>>>,
    /// Each hello comes by a connection of its own, if not said otherwise.
    connection: Cell<u32>,
}

impl Rig {
    fn new() -> Self {
        Self::open(tempfile::tempdir().expect("folder"))
    }

    fn open(folder: tempfile::TempDir) -> Self {
        Self::open_with(folder, Policy::Open)
    }

    fn open_with(folder: tempfile::TempDir, policy: Policy) -> Self {
        let store: Arc<dyn Store> = Arc::new(SledStore::open(&folder.path().join("store")).expect("opens"));
        let sent = Arc::<Mutex<Vec<Outgoing>>>::default();
        let outlet = Arc::clone(&sent);
        let listed = Arc::new(AtomicBool::new(true));
        let listing = Arc::clone(&listed);
        let fleet = Fleet::open(FleetParts {
            id: "f".parse().expect("name"),
            signers: vec![key(1)],
            named: Box::new(Vec::new),
            listed: Box::new(move |_, _| listing.load(Ordering::Relaxed)),
            policy,
            revoked: Arc::default(),
            store,
            objects: Arc::new(ObjectStore::open(folder.path()).expect("opens")),
            metrics: Arc::new(Metrics::default()),
            outlet: Box::new(move |outgoing| outlet.lock().expect("whole").push(outgoing)),
            alerts: alerts::AlertParts::default(),
            raw_reports: super::retention::RAW,
            review: samples::ReviewParts { key: SampleKey::new([3; 32]), keep: Millis::from_secs(3600) },
        });
        Self { folder, fleet: fleet.expect("opens"), listed, sent, connection: Cell::new(0) }
    }

    fn restart(self) -> Self {
        let Self { folder, fleet, connection, .. } = self;
        drop(fleet);
        Self { connection, ..Self::open(folder) }
    }

    fn say(&self, topic: Topic, sealed: Vec<u8>) -> Vec<Outgoing> {
        let message = Message { topic, payload: Bytes::from(sealed), delivery: Delivery::Live };
        self.fleet.take_in(&[message], NOW).expect("taken in");
        self.sent()
    }

    fn sent(&self) -> Vec<Outgoing> {
        std::mem::take(&mut *self.sent.lock().expect("whole"))
    }

    fn hello(&self, name: &str, change: impl FnOnce(&mut Hello)) -> Vec<Outgoing> {
        let mut hello = hello_of(name, 9);
        self.connection.set(self.connection.get() + 1);
        hello.turn.connection = self.connection.get();
        change(&mut hello);
        self.say(Topic::Hello(id(name)), seal_to_vec(&hello, &key(9)).expect("fits"))
    }

    fn event(&self, name: &str, number: u64, kind: EventKind) -> Vec<Outgoing> {
        let event = Event {
            device: id(name),
            number: EventNumber(number),
            at: NOW,
            sequence: SequenceNumber(1),
            rollout: None,
            kind,
        };
        self.say(Topic::Event(id(name)), seal_to_vec(&event, &key(9)).expect("fits"))
    }

    /// Adds a release and has it published.
    fn release(&self, version: &str) -> ReleaseId {
        let packed = made::pack(version, 100);
        self.fleet.objects().put(packed.bundle.as_slice()).expect("stored");
        let release = self.fleet.add_release(&packed.statement, NOW).expect("accepted");
        assert!(self.sent().contains(&Outgoing::Publish(Job::Release(release.clone()))));
        self.fleet.store.set_published(&release).expect("set");
        self.fleet.release_published(&release, NOW).expect("noted");
        release
    }

    fn stored_events(&self, name: &str) -> Vec<u64> {
        let (_, events) = self.fleet.device(&id(name)).expect("known");
        events.iter().map(|event| event.number.0).collect()
    }
}

fn ours() -> KeyRing<1> {
    KeyRing::new([PublicKey::of(&key(1))]).expect("fits")
}

fn acknowledged(sent: &[Outgoing]) -> Option<u64> {
    sent.iter().rev().find_map(|outgoing| match outgoing {
        Outgoing::Message { topic: Topic::Ack(_), payload, retain: false } => {
            Some(open::<Ack, 1>(payload, &ours()).expect("ours").stored.0)
        }
        Outgoing::Message { .. } | Outgoing::Publish(_) | Outgoing::Clear { .. } => None,
    })
}

fn assigned(sent: &[Outgoing]) -> Vec<Assignment> {
    let assignment = |outgoing: &Outgoing| match outgoing {
        Outgoing::Message { topic: Topic::Assign(_), payload, retain: true } => {
            Some(open::<Assignment, 1>(payload, &ours()).expect("ours"))
        }
        Outgoing::Message { .. } | Outgoing::Publish(_) | Outgoing::Clear { .. } => None,
    };
    sent.iter().filter_map(assignment).collect()
}

fn moved(release: &ReleaseId, to: Phase) -> EventKind {
    EventKind::Transition { release: release.clone(), from: Phase::Idle, to, reason: None }
}

#[test]
fn an_event_is_stored_once_and_acknowledged_every_time_over_restarts() {
    let rig = Rig::new();
    rig.hello("a", |_| {});
    let unpinned = || EventKind::Unpinned { uid: 0 };
    assert_eq!(acknowledged(&rig.event("a", 1, unpinned())), Some(1));
    assert_eq!(acknowledged(&rig.event("a", 2, unpinned())), Some(2));
    assert_eq!(acknowledged(&rig.event("a", 1, unpinned())), Some(2));
    let rig = rig.restart();
    assert_eq!(acknowledged(&rig.event("a", 2, unpinned())), Some(2));
    assert_eq!(rig.stored_events("a"), [1, 2]);
}

#[test]
fn events_lost_on_the_way_are_not_acknowledged_away() {
    let rig = Rig::new();
    rig.hello("a", |_| {});
    let unpinned = || EventKind::Unpinned { uid: 0 };
    rig.event("a", 1, unpinned());
    assert_eq!(acknowledged(&rig.event("a", 4, unpinned())), Some(1));
    for number in 2..=4 {
        assert_eq!(acknowledged(&rig.event("a", number, unpinned())), Some(number));
    }
    assert_eq!(rig.stored_events("a"), [1, 2, 3, 4]);
    // A gap that the device cannot fill, because it lost its journal.
    assert_eq!(acknowledged(&rig.event("a", 9, unpinned())), Some(4));
    assert_eq!(acknowledged(&rig.event("a", 9, unpinned())), Some(9));
}

#[test]
fn a_last_will_says_only_that_the_device_is_gone() {
    let rig = Rig::new();
    let release: ReleaseId = "digits@1".parse().expect("id");
    rig.hello("a", |hello| hello.active = Some(release.clone()));
    rig.hello("a", |hello| hello.presence = Presence::Offline);
    let (record, _) = rig.fleet.device(&id("a")).expect("known");
    assert_eq!(record.hello.presence, Presence::Offline);
    assert_eq!(record.hello.active, Some(release));
}

#[test]
fn what_an_earlier_start_of_the_agent_said_is_not_believed_again() {
    let rig = Rig::new();
    let release: ReleaseId = "digits@1".parse().expect("id");
    rig.hello("a", |_| {});
    rig.hello("a", |hello| (hello.boot, hello.active) = (BootId(2), Some(release.clone())));
    rig.hello("a", |_| {});
    rig.hello("a", |hello| hello.presence = Presence::Offline);
    let rig = rig.restart();
    rig.hello("a", |_| {});
    let (record, _) = rig.fleet.device(&id("a")).expect("known");
    assert_eq!((record.hello.active, record.hello.presence), (Some(release), Presence::Online));
    for boot in 3..200 {
        rig.hello("a", |hello| hello.boot = BootId(boot));
    }
    assert!(rig.fleet.device(&id("a")).expect("known").0.past_boots.len() <= 64);
}

#[test]
fn within_one_start_of_the_agent_an_earlier_hello_is_not_believed_again() {
    let rig = Rig::new();
    let release = |version: &str| -> Option<ReleaseId> { format!("digits@{version}").parse().ok() };
    let say = |connection, number, presence, active| {
        rig.hello("a", |hello| {
            hello.turn = Turn { connection, number };
            (hello.presence, hello.active) = (presence, active);
        });
        let hello = rig.fleet.device(&id("a")).expect("known").0.hello;
        (hello.presence, hello.active)
    };
    let (here, gone) = (Presence::Online, Presence::Offline);
    say(1, 1, here, release("1"));
    assert_eq!(say(1, 2, here, release("2")), (here, release("2")));
    assert_eq!(say(1, 1, here, release("1")), (here, release("2")), "the first one again");
    assert_eq!(say(1, 2, here, release("2")), (here, release("2")), "the broker repeats what it keeps");
    // The device comes by another way before the broker has noticed that the first one is dead.
    assert_eq!(say(2, 1, here, release("2")), (here, release("2")));
    assert_eq!(say(1, 0, gone, None), (here, release("2")), "the will of the connection before");
    assert_eq!(say(2, 0, gone, None), (gone, release("2")));
    assert_eq!(say(2, 1, here, release("2")), (gone, release("2")), "its connection is over");
    assert_eq!(say(3, 1, here, release("2")), (here, release("2")));
}

#[test]
fn after_a_broker_has_been_started_nobody_is_there_until_they_say_so() {
    let rig = Rig::new();
    rig.hello("a", |_| {});
    let presence = || rig.fleet.device(&id("a")).expect("known").0.hello.presence;
    rig.fleet.nobody_is_there(NOW).expect("noted");
    assert_eq!(presence(), Presence::Offline);
    // What the broker kept from before says nothing about now.
    let mut hello = rig.fleet.device(&id("a")).expect("known").0.hello;
    hello.presence = Presence::Online;
    let payload = Bytes::from(seal_to_vec(&hello, &key(9)).expect("fits"));
    let kept = Message { topic: Topic::Hello(id("a")), payload, delivery: Delivery::Earlier };
    rig.fleet.take_in(&[kept], NOW).expect("taken in");
    assert_eq!(presence(), Presence::Offline);
    rig.hello("a", |_| {});
    assert_eq!(presence(), Presence::Online);
}

#[test]
fn a_device_that_was_quicker_than_the_server_to_reach_a_started_broker_is_there_once_it_speaks() {
    let rig = Rig::new();
    rig.hello("a", |_| {});
    rig.fleet.nobody_is_there(NOW).expect("noted");
    let mut hello = rig.fleet.device(&id("a")).expect("known").0.hello;
    let say = |hello: &Hello, delivery| {
        let payload = Bytes::from(seal_to_vec(hello, &key(9)).expect("fits"));
        rig.fleet
            .take_in(&[Message { topic: Topic::Hello(id("a")), payload, delivery }], NOW)
            .expect("taken in");
        rig.fleet.device(&id("a")).expect("known").0.hello
    };
    // Its new connection's first word is found as one that the broker kept.
    hello.presence = Presence::Online;
    hello.turn = Turn { connection: hello.turn.connection + 1, number: 1 };
    assert_eq!(say(&hello, Delivery::Earlier).presence, Presence::Offline);
    // What a broker repeats is no sign of life, the next word is; also where it has the number of the first.
    assert_eq!(say(&hello, Delivery::Kept).presence, Presence::Offline);
    hello.active = Some("m@9".parse().expect("id"));
    let known = say(&hello, Delivery::Live);
    assert_eq!((known.presence, &known.active), (Presence::Online, &hello.active));
    // So it is with anything else that it says.
    hello.turn = Turn { connection: hello.turn.connection + 1, number: 1 };
    assert_eq!(say(&hello, Delivery::Earlier).presence, Presence::Offline);
    rig.event("a", 1, EventKind::Unpinned { uid: 0 });
    assert_eq!(rig.fleet.device(&id("a")).expect("known").0.hello.presence, Presence::Online);
    // Its will ends that connection for good.
    let will = Hello { presence: Presence::Offline, ..hello.clone() };
    assert_eq!(say(&will, Delivery::Live).presence, Presence::Offline);
    assert_eq!(say(&hello, Delivery::Live).presence, Presence::Offline);
}

#[test]
fn a_device_may_come_back_with_a_new_key_once_it_is_forgotten() {
    let rig = Rig::new();
    rig.hello("a", |_| {});
    let mut hello = rig.fleet.device(&id("a")).expect("known").0.hello;
    hello.key = PublicKey::of(&key(10));
    let say = || rig.say(Topic::Hello(id("a")), seal_to_vec(&hello, &key(10)).expect("fits"));
    say();
    assert_eq!(rig.fleet.device(&id("a")).expect("known").0.key, PublicKey::of(&key(9)));
    rig.fleet.forget_device(&id("a"), NOW).expect("forgotten");
    rig.sent();
    say();
    assert_eq!(rig.fleet.device(&id("a")).expect("known").0.key, PublicKey::of(&key(10)));
}

#[test]
fn an_assignment_is_said_again_until_the_device_has_it() {
    let rig = Rig::new();
    rig.hello("a", |_| {});
    let release = rig.release("1");
    rig.fleet.start_rollout(&release, None, None, NOW).expect("starts");
    let first = assigned(&rig.sent());
    assert_eq!(first.len(), 1);
    assert!(matches!(&first[0].order, Order::Run { release: told, .. } if told.id == release));
    // The device comes back without it, and the server restarts.
    assert_eq!(assigned(&rig.hello("a", |_| {})), first);
    let rig = rig.restart();
    rig.fleet.reconnected(NOW).expect("says again");
    assert_eq!(assigned(&rig.sent()), first);
    // Now it has it.
    rig.hello("a", |hello| hello.sequence = SequenceNumber(1));
    rig.fleet.reconnected(NOW).expect("says again");
    assert!(assigned(&rig.sent()).is_empty());
}

#[test]
fn numbers_grow_beyond_what_a_device_accepted_from_a_lost_server() {
    let rig = Rig::new();
    rig.hello("a", |hello| hello.sequence = SequenceNumber(41));
    let release = rig.release("1");
    rig.fleet.start_rollout(&release, None, None, NOW).expect("starts");
    assert_eq!(assigned(&rig.sent())[0].sequence, SequenceNumber(42));
}

#[test]
fn only_what_is_published_is_rolled_out_and_once_at_a_time() {
    let rig = Rig::new();
    rig.hello("a", |_| {});
    let packed = made::pack("2", 100);
    rig.fleet.objects().put(packed.bundle.as_slice()).expect("stored");
    let early = rig.fleet.add_release(&packed.statement, NOW).expect("accepted");
    assert!(matches!(rig.fleet.start_rollout(&early, None, None, NOW), Err(FleetError::Conflict(_))));
    let release = rig.release("1");
    rig.listed.store(false, Ordering::Relaxed);
    let withdrawn = rig.fleet.start_rollout(&release, None, None, NOW);
    assert!(matches!(withdrawn, Err(FleetError::Conflict(why)) if why.contains("no longer lists it")));
    rig.listed.store(true, Ordering::Relaxed);
    rig.fleet.start_rollout(&release, None, None, NOW).expect("starts");
    let again = rig.fleet.start_rollout(&release, None, None, NOW);
    assert!(matches!(again, Err(FleetError::Conflict(why)) if why.contains("one rollout at a time")));
    let unknown = "digits@9".parse().expect("id");
    assert!(matches!(rig.fleet.start_rollout(&unknown, None, None, NOW), Err(FleetError::NotFound(_))));
}

#[test]
fn a_version_is_never_changed() {
    let rig = Rig::new();
    let release = rig.release("1");
    let same = made::pack("1", 100);
    assert_eq!(rig.fleet.add_release(&same.statement, NOW).expect("the same"), release);
    let other = made::pack("1", 200);
    rig.fleet.objects().put(other.bundle.as_slice()).expect("stored");
    assert!(matches!(rig.fleet.add_release(&other.statement, NOW), Err(FleetError::Conflict(_))));
}

#[test]
fn a_rollout_goes_on_after_a_restart_from_events_and_from_a_snapshot() {
    let mut rig = Rig::new();
    for name in ["a", "b"] {
        rig.hello(name, |_| {});
    }
    let release = rig.release("1");
    let plan = Plan::all_at_once(Millis(500), 0);
    let rollout = rig.fleet.start_rollout(&release, Some(plan), None, NOW).expect("starts");
    rig.event("a", 1, moved(&release, Phase::Fetching));
    let before = rig.fleet.rollout(rollout, Clone::clone).expect("there");
    rig = rig.restart();
    assert_eq!(rig.fleet.rollout(rollout, Clone::clone).expect("there"), before);

    // Presence that comes and goes is stored as it happens, and folded.
    for _ in 0..600 {
        rig.hello("b", |hello| hello.presence = Presence::Offline);
        rig.hello("b", |_| {});
    }
    let stored = rig.fleet.store.rollouts().expect("readable").remove(0);
    assert!(stored.snapshot.is_some() && stored.events.len() < 1000, "{}", stored.events.len());
    let before = rig.fleet.rollout(rollout, Clone::clone).expect("there");
    rig = rig.restart();
    assert_eq!(rig.fleet.rollout(rollout, Clone::clone).expect("there"), before);

    for (name, number) in [("a", 2), ("b", 1)] {
        rig.event(name, number, moved(&release, Phase::Committed));
        rig.hello(name, |hello| hello.active = Some(release.clone()));
    }
    for step in 1..10 {
        rig.fleet.tick(UnixMillis(NOW.0 + step * 200)).expect("ticks");
    }
    let state = rig.fleet.rollout(rollout, |rollout| rollout.state().to_string()).expect("there");
    assert_eq!(state, "completed");
}

#[test]
fn nobody_sees_a_rollout_over_without_the_verdict_that_ended_it() {
    let rig = Rig::new();
    rig.hello("a", |_| {});
    let release = rig.release("1");
    std::thread::scope(|scope| {
        let ordering = scope.spawn(|| {
            for _ in 0..40 {
                let plan = Plan::all_at_once(Millis(500), 0);
                let rollout = rig.fleet.start_rollout(&release, Some(plan), None, NOW).expect("starts");
                let command = Command::Abort { reason: String::new() };
                let abort = OperatorOrder { expected: None, by: "me".into(), command };
                rig.fleet.order(rollout, abort, NOW).expect("aborted");
            }
        });
        while !ordering.is_finished() {
            let ids = rig.fleet.rollouts(crate::rollout::Rollout::id);
            let Some(last) = ids.last() else { continue };
            let look = |rollout: &crate::rollout::Rollout, verdicts: &[Verdict]| {
                (matches!(rollout.state(), State::Finished { .. }), verdicts.len())
            };
            let (finished, verdicts) = rig.fleet.rollout_with_verdicts(*last, look).expect("there");
            assert!(!finished || verdicts > 0, "{last} is over, and nothing says why");
        }
    });
    let outcomes = rig.fleet.rollouts(|rollout| matches!(rollout.state(), State::Finished { .. }));
    assert!(outcomes.len() == 40 && outcomes.iter().all(|finished| *finished));
}

#[test]
fn an_operator_is_obeyed_once_and_told_when_things_have_changed() {
    let rig = Rig::new();
    rig.hello("a", |_| {});
    let release = rig.release("1");
    let rollout = rig.fleet.start_rollout(&release, None, None, NOW).expect("starts");
    let version = rig.fleet.rollout(rollout, crate::rollout::Rollout::version).expect("there");
    let order = |command| OperatorOrder { expected: Some(version), by: "me".into(), command };
    rig.fleet.order(rollout, order(Command::Pause), NOW).expect("paused");
    let late = rig.fleet.order(rollout, order(Command::Abort { reason: String::new() }), NOW);
    assert!(matches!(late, Err(FleetError::Refused(_))), "{late:?}");
    let paused = rig.fleet.rollout(rollout, |rollout| matches!(rollout.state(), State::Paused { .. }));
    assert!(paused.expect("there"));
    let nowhere = rig.fleet.order(RolloutId(99), order(Command::Pause), NOW);
    assert!(matches!(nowhere, Err(FleetError::NotFound(_))));
}

#[test]
fn chunks_are_published_again_only_of_our_own_releases() {
    let rig = Rig::new();
    rig.hello("a", |_| {});
    let release = rig.release("1");
    let object = rig.fleet.release(&release).expect("there").record.release.bundle.digest;
    let missing = |object| EventKind::ChunksMissing { object, first: 0, count: u32::MAX };
    let sent = rig.event("a", 1, missing(object));
    assert!(sent.contains(&Outgoing::Publish(Job::Chunks { object, first: 0, count: 64 })));
    let sent = rig.event("a", 2, missing(serin_protocol::ids::Digest([3; 32])));
    assert!(!sent.iter().any(|outgoing| matches!(outgoing, Outgoing::Publish(_))));
}

/// What a device with the key of `seed` says to be taken in.
fn enrolment(name: &str, seed: u8, token: &ClaimToken) -> Enrolment {
    let hello = hello_of(name, seed);
    let proof = token.proof(&hello.fleet, &hello.device, &hello.key);
    Enrolment { hello, token: token.id, proof }
}

impl Rig {
    fn enrol_at(&self, now: UnixMillis, seed: u8, enrolment: &Enrolment) -> Option<EnrolmentRefusal> {
        let topic = Topic::Enrol(enrolment.hello.device.clone());
        let sealed = seal_to_vec(enrolment, &key(seed)).expect("fits");
        let message = Message { topic, payload: Bytes::from(sealed), delivery: Delivery::Live };
        self.fleet.take_in(&[message], now).expect("taken in");
        let answers = self.sent().into_iter().filter_map(|outgoing| match outgoing {
            Outgoing::Message { topic: Topic::Enrolled(_), payload, retain: false } => Some(payload),
            _ => None,
        });
        let answers: Vec<Bytes> = answers.collect();
        let [answer] = answers.as_slice() else { panic!("{answers:?}") };
        open::<Enrolled, 1>(answer, &ours()).expect("ours").refused
    }

    fn enrol(&self, name: &str, seed: u8, token: &ClaimToken) -> Option<EnrolmentRefusal> {
        self.enrol_at(NOW, seed, &enrolment(name, seed, token))
    }
}

#[test]
fn a_token_takes_one_device_in_once_and_in_time() {
    let rig = Rig::open_with(tempfile::tempdir().expect("folder"), Policy::Token);
    rig.hello("a", |_| {});
    assert!(rig.fleet.devices().is_empty(), "a hello alone is not enough");

    let day = Millis::from_secs(24 * 3600);
    let (token, record) = rig.fleet.invite(None, day, NOW).expect("made");
    let stranger = ClaimToken::new(token.id, [0; 32]);
    assert_eq!(rig.enrol("a", 9, &stranger), Some(EnrolmentRefusal::Token));
    let unknown = ClaimToken::new(serin_protocol::enrolment::TokenId(1), [0; 32]);
    assert_eq!(rig.enrol("a", 9, &unknown), Some(EnrolmentRefusal::Token));
    let ours = enrolment("a", 9, &token);
    assert_eq!(rig.enrol_at(record.expires, 9, &ours), Some(EnrolmentRefusal::Expired));
    // A proof that was overheard, with another key or for another name.
    let mut stolen = enrolment("a", 8, &token);
    stolen.proof = ours.proof;
    assert_eq!(rig.enrol_at(NOW, 8, &stolen), Some(EnrolmentRefusal::Token));

    assert_eq!(rig.enrol("a", 9, &token), None);
    assert_eq!(rig.enrol("a", 9, &token), None, "the answer was lost: the same again");
    assert_eq!(rig.enrol("b", 8, &token), Some(EnrolmentRefusal::Used));
    assert_eq!(rig.enrol("a", 8, &token), Some(EnrolmentRefusal::Used));
    let (bound, _) = rig.fleet.invite(Some(id("b")), day, NOW).expect("made");
    assert_eq!(rig.enrol("c", 8, &bound), Some(EnrolmentRefusal::OtherDevice));
    let (second, _) = rig.fleet.invite(None, day, NOW).expect("made");
    assert_eq!(rig.enrol("a", 8, &second), Some(EnrolmentRefusal::NameTaken));
    rig.fleet.withdraw_token(second.id, NOW).expect("there");
    assert_eq!(rig.enrol("d", 8, &second), Some(EnrolmentRefusal::Token));
    assert_eq!(rig.fleet.devices().len(), 1);
}

#[test]
fn a_revoked_device_says_nothing_more_until_it_is_forgotten() {
    let rig = Rig::new();
    rig.hello("a", |_| {});
    rig.event("a", 1, EventKind::Unpinned { uid: 0 });
    rig.fleet.revoke_device(&id("a"), NOW).expect("there");
    rig.sent();
    assert!(rig.fleet.revoked.contains(&id("a")));
    assert_eq!(rig.event("a", 2, EventKind::Unpinned { uid: 0 }), [], "nothing is acknowledged");
    assert_eq!(rig.stored_events("a"), [1]);
    let (token, _) = rig.fleet.invite(None, Millis::from_secs(60), NOW).expect("made");
    assert_eq!(rig.enrol("a", 9, &token), Some(EnrolmentRefusal::Revoked));
    let rig = rig.restart();
    assert!(rig.fleet.revoked.contains(&id("a")), "it survives a restart");
    rig.fleet.forget_device(&id("a"), NOW).expect("there");
    assert!(!rig.fleet.revoked.contains(&id("a")));
    // What it said and may say again brings it back under no name; another key may have the name.
    for name in ["a", "b"] {
        rig.hello(name, |_| {});
        assert_eq!(rig.enrol(name, 9, &token), Some(EnrolmentRefusal::Revoked));
    }
    let rig = rig.restart();
    rig.hello("a", |_| {});
    assert!(rig.fleet.devices().is_empty(), "not after a restart either");
    assert_eq!(rig.enrol("a", 8, &token), None);
    assert_eq!(rig.fleet.devices().len(), 1);
}

fn pauses(sent: &[Outgoing]) -> Vec<Pause> {
    let pause = |outgoing: &Outgoing| match outgoing {
        Outgoing::Message { topic: Topic::Pause(_), payload, retain: true } => {
            Some(open::<Pause, 1>(payload, &ours()).expect("ours"))
        }
        Outgoing::Message { .. } | Outgoing::Publish(_) | Outgoing::Clear { .. } => None,
    };
    sent.iter().filter_map(pause).collect()
}

#[test]
fn a_device_is_asked_to_hold_back_again_whenever_it_says_hello_until_the_pause_is_over() {
    let rig = Rig::new();
    rig.hello("a", |_| {});
    let until = NOW.plus(Millis::from_secs(3600));
    rig.fleet.pause_device(&id("a"), Millis::from_secs(3600), NOW).expect("there");
    let said = pauses(&rig.sent());
    assert_eq!(said.iter().map(|pause| (pause.issued, pause.until)).collect::<Vec<_>>(), [(NOW, until)]);
    let rig = rig.restart();
    let said = pauses(&rig.hello("a", |_| {}));
    assert_eq!(said.iter().map(|pause| pause.until).collect::<Vec<_>>(), [until]);
    // Gone on before its time: said once.
    rig.fleet.pause_device(&id("a"), Millis(0), NOW).expect("there");
    let said = pauses(&rig.sent());
    assert_eq!(said.iter().map(|pause| pause.until).collect::<Vec<_>>(), [NOW]);
    assert_eq!(pauses(&rig.hello("a", |_| {})), []);
    let longest = rig.fleet.pause_device(&id("a"), Millis(u64::MAX), NOW).expect("there");
    assert_eq!(longest.paused_until, Some(NOW.plus(MAX_PAUSE)));
    let unknown = rig.fleet.pause_device(&id("b"), Millis(1), NOW);
    assert!(matches!(unknown, Err(FleetError::NotFound(_))));
}

#[test]
fn safe_mode_is_shown_until_the_device_runs_another_release() {
    let rig = Rig::new();
    rig.hello("a", |_| {});
    let safe = |rig: &Rig| rig.fleet.device(&id("a")).expect("known").0.safe_mode;
    let crash = |action| EventKind::CrashLoop { starts: 5, action };
    rig.event("a", 1, crash(CrashAction::RolledBack));
    assert!(!safe(&rig));
    rig.event("a", 2, crash(CrashAction::SafeMode));
    assert!(safe(&rig));
    let release: ReleaseId = "m@1".parse().expect("id");
    rig.event("a", 3, moved(&release, Phase::Assigned));
    let rig = rig.restart();
    assert!(safe(&rig), "an order alone changes nothing");
    rig.event("a", 4, moved(&release, Phase::Probation));
    assert!(!safe(&rig));
}

#[test]
fn a_token_that_was_used_does_not_bring_a_forgotten_device_back() {
    let rig = Rig::open_with(tempfile::tempdir().expect("folder"), Policy::Token);
    let (token, _) = rig.fleet.invite(None, Millis::from_secs(60), NOW).expect("made");
    let overheard = enrolment("a", 9, &token);
    assert_eq!(rig.enrol_at(NOW, 9, &overheard), None);
    rig.fleet.forget_device(&id("a"), NOW).expect("there");
    rig.sent();
    assert_eq!(rig.enrol_at(NOW, 9, &overheard), Some(EnrolmentRefusal::Token));
    // A token that one of the fleet has used is no answer to another's loss.
    let (second, _) = rig.fleet.invite(None, Millis::from_secs(60), NOW).expect("made");
    assert_eq!(rig.enrol("a", 8, &second), None);
    assert_eq!(rig.enrol("b", 8, &second), Some(EnrolmentRefusal::Used));
    assert!(rig.fleet.tokens().iter().all(|left| left.id == second.id));
}
