//! A device that says what a real one says, over real MQTT, without running models. It keeps its events
//! until they are acknowledged, as real ones do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ed25519_dalek::SigningKey;
use rumqttc::{Client, Event as MqttEvent, Incoming, LastWill, MqttOptions, QoS};
use serin_protocol::assignment::{Assignment, Order, ReleaseRef};
use serin_protocol::envelope::{KeyRing, PublicKey, open, seal_to_vec};
use serin_protocol::ids::{
    BootId, ByteCount, DeviceId, EventNumber, FleetId, ReleaseId, RolloutId, SequenceNumber, UnixMillis,
};
use serin_protocol::message::{
    Ack, Coverage, Event, EventKind, Hello, Phase, Presence, Reason, Report, Role, Turn,
};
use serin_protocol::sketch::profile::Profile;
use serin_protocol::sketch::{Histogram, LatencyHistogram};
use serin_protocol::topic::Topic;

use super::server::{FLEET, Server};

/// Inferences per report.
const REQUESTS: u64 = 20;
/// Between two reports.
const WINDOW: Duration = Duration::from_millis(100);

/// The version that answers always the same.
pub const BROKEN: &str = "3";

pub struct FakeDevice {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FakeDevice {
    pub fn start(number: u8, server: &Server, profile: &Profile) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let mut device = Device::new(number, server, profile.clone());
        let thread = std::thread::spawn(move || device.run(&told));
        Self { stop, thread: Some(thread) }
    }
}

/// A device that finds all chunks of a release missing, and says so once.
pub struct Asking(#[allow(dead_code)] FakeDevice);

impl Asking {
    pub fn start(server: &Server, packed: &super::release::Packed) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let mut device = Device::new(77, server, packed.profile.clone());
        let object = packed.release.bundle.digest;
        device.note(EventKind::ChunksMissing { object, first: 0, count: 64 });
        let thread = std::thread::spawn(move || device.run(&told));
        Self(FakeDevice { stop, thread: Some(thread) })
    }
}

impl Drop for FakeDevice {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub fn fleet() -> FleetId {
    FLEET.parse().expect("name")
}

pub fn options(client: &str, port: u16) -> MqttOptions {
    let mut options = MqttOptions::new(client, "127.0.0.1", port);
    options.set_keep_alive(Duration::from_secs(5));
    options.set_max_packet_size(260 * 1024, 260 * 1024);
    options
}

pub fn now() -> UnixMillis {
    UnixMillis(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64)
}

struct Device {
    id: DeviceId,
    key: SigningKey,
    server: KeyRing<1>,
    port: u16,
    profile: Profile,
    connection: u32,
    accepted: SequenceNumber,
    rollout: Option<RolloutId>,
    active: Option<ReleaseId>,
    previous: Option<ReleaseId>,
    last_event: u64,
    unacknowledged: BTreeMap<u64, Vec<u8>>,
    last_report: u64,
}

impl Device {
    fn new(number: u8, server: &Server, profile: Profile) -> Self {
        Self {
            id: format!("edge-{number}").parse().expect("name"),
            key: SigningKey::from_bytes(&[100 + number; 32]),
            server: KeyRing::new([server.fleet_key()]).expect("one"),
            port: server.mqtt,
            profile,
            connection: 0,
            accepted: SequenceNumber(0),
            rollout: None,
            active: None,
            previous: None,
            last_event: 0,
            unacknowledged: BTreeMap::new(),
            last_report: 0,
        }
    }

    fn run(&mut self, stop: &AtomicBool) {
        let mut options = options(self.id.as_str(), self.port);
        let will =
            LastWill::new(self.topic(Topic::Hello), self.hello(Presence::Offline), QoS::AtLeastOnce, true);
        options.set_last_will(will);
        let (client, mut connection) = Client::new(options, 1000);
        let mut connected = false;
        let mut reported = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            match connection.recv_timeout(Duration::from_millis(10)) {
                Ok(Ok(MqttEvent::Incoming(Incoming::ConnAck(_)))) => {
                    connected = true;
                    self.connection += 1;
                    self.greet(&client);
                }
                Ok(Ok(MqttEvent::Incoming(Incoming::Publish(publish)))) => {
                    self.heard(&client, &publish.topic, &publish.payload);
                }
                Ok(Err(_)) => {
                    connected = false;
                    std::thread::sleep(Duration::from_millis(50));
                }
                Ok(Ok(_)) | Err(_) => {}
            }
            if connected && reported.elapsed() > WINDOW {
                reported = Instant::now();
                self.report(&client);
            }
        }
    }

    fn greet(&mut self, client: &Client) {
        for topic in [self.topic(Topic::Assign), self.topic(Topic::Ack)] {
            client.try_subscribe(topic, QoS::AtLeastOnce).expect("queued");
        }
        self.say_hello(client);
        for sealed in self.unacknowledged.values() {
            client
                .try_publish(self.topic(Topic::Event), QoS::AtLeastOnce, false, sealed.clone())
                .expect("queued");
        }
    }

    fn heard(&mut self, client: &Client, topic: &str, payload: &[u8]) {
        match Topic::parse(&fleet(), topic).expect("our topic") {
            Topic::Ack(_) => {
                let ack: Ack = open(payload, &self.server).expect("the server's word");
                self.unacknowledged.retain(|number, _| *number > ack.stored.0);
            }
            Topic::Assign(_) => {
                let assignment: Assignment = open(payload, &self.server).expect("the server's word");
                assert_eq!(assignment.device, self.id);
                if assignment.sequence > self.accepted {
                    self.obey(client, assignment);
                }
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    fn obey(&mut self, client: &Client, assignment: Assignment) {
        self.accepted = assignment.sequence;
        self.rollout = assignment.rollout;
        match assignment.order {
            Order::Run { release: ReleaseRef { id, .. }, .. } => {
                let phases =
                    [Phase::Idle, Phase::Assigned, Phase::Fetching, Phase::Probation, Phase::Committed];
                for (from, to) in phases.iter().zip(phases.iter().skip(1)) {
                    self.moved(client, &id, *from, *to, None);
                }
                self.switch(Some(id));
            }
            Order::RollBack { from, to } => {
                if self.active.as_ref() == Some(&from) {
                    let reason = Some(Reason::FleetRollback);
                    self.moved(client, &from, Phase::Committed, Phase::RolledBack, reason);
                    self.switch(Some(to.id));
                }
            }
            Order::Try { .. } | Order::Stay => {}
        }
        self.say_hello(client);
    }

    fn switch(&mut self, to: Option<ReleaseId>) {
        self.previous = std::mem::replace(&mut self.active, to);
    }

    fn moved(
        &mut self,
        client: &Client,
        release: &ReleaseId,
        from: Phase,
        to: Phase,
        reason: Option<Reason>,
    ) {
        let sealed = self.note(EventKind::Transition { release: release.clone(), from, to, reason });
        client.try_publish(self.topic(Topic::Event), QoS::AtLeastOnce, false, sealed).expect("queued");
    }

    /// Numbers and keeps an event until it is acknowledged.
    fn note(&mut self, kind: EventKind) -> Vec<u8> {
        self.last_event += 1;
        let event = Event {
            device: self.id.clone(),
            number: EventNumber(self.last_event),
            at: now(),
            sequence: self.accepted,
            rollout: self.rollout,
            kind,
        };
        let sealed = seal_to_vec(&event, &self.key).expect("fits");
        self.unacknowledged.insert(self.last_event, sealed.clone());
        sealed
    }

    fn report(&mut self, client: &Client) {
        let Some(release) = self.active.clone() else {
            return;
        };
        self.last_report += 1;
        let end = now();
        let mut latency = LatencyHistogram::default();
        let predictions = self.profile.predictions.as_ref().expect("declared");
        let confidence = self.profile.confidence.as_ref().expect("declared");
        let [mut said, mut sure] = [predictions, confidence].map(|sketch| Histogram::over_bins(&sketch.bins));
        let mut features = heapless::Vec::new();
        let sketch = &self.profile.features[0].sketch;
        let mut seen = Histogram::over_bins(&sketch.bins);
        for at in 0..REQUESTS {
            let class = if release.version.as_str() == BROKEN { 0 } else { at % 4 };
            said.record(&predictions.bins, class as f32);
            sure.record(&confidence.bins, 0.9);
            seen.record(&sketch.bins, at as f32);
            latency.record_micros(50);
        }
        features.push(seen).expect("fits");
        let report = Report {
            device: self.id.clone(),
            boot: BootId(1),
            sequence: self.last_report,
            start: UnixMillis(end.0 - 1),
            end,
            coverage: Coverage::Complete,
            release,
            profile: serin_protocol::ids::Digest::of(&self.profile.encode().expect("small")),
            segment: serin_protocol::ids::SegmentNumber(0),
            requests: REQUESTS,
            errors: 0,
            refused: 0,
            latency,
            first_feature: 0,
            features,
            predictions: said,
            confidence: sure,
            entropy: serin_protocol::sketch::Histogram::default(),
            quality: None,
            worker_peak: ByteCount(1),
            worker_deaths: 0,
            role: Role::Answers,
            comparison: None,
            dropped_reports: 0,
        };
        let sealed = seal_to_vec(&report, &self.key).expect("fits");
        // Full while the server is away: then this window is lost, as on a device with a full disk.
        let _ = client.try_publish(self.topic(Topic::Report), QoS::AtLeastOnce, false, sealed);
    }

    fn say_hello(&self, client: &Client) {
        let hello = self.hello(Presence::Online);
        client.try_publish(self.topic(Topic::Hello), QoS::AtLeastOnce, true, hello).expect("queued");
    }

    fn hello(&self, presence: Presence) -> Vec<u8> {
        let hello = Hello {
            device: self.id.clone(),
            fleet: fleet(),
            key: PublicKey::of(&self.key),
            boot: BootId(1),
            turn: Turn {
                connection: self.connection.max(1),
                number: u32::from(presence == Presence::Online),
            },
            presence,
            agent: "0.1".parse().expect("fits"),
            target: "linux-x86_64".parse().expect("name"),
            memory_budget: ByteCount::from_mib(64),
            free_space: ByteCount::from_mib(512),
            sequence: self.accepted,
            active: self.active.clone(),
            previous: self.previous.clone(),
            candidate: None,
            pinned: false,
            decoders: serin_protocol::release::Decoders::new(),
        };
        seal_to_vec(&hello, &self.key).expect("fits")
    }

    fn topic(&self, of: impl Fn(DeviceId) -> Topic) -> String {
        of(self.id.clone()).name(&fleet()).as_str().to_owned()
    }
}
