//! Someone who holds the broker, the server and whatever keys a test gives them, against a real device.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use ed25519_dalek::SigningKey;
use rumqttc::{Client, Connection, Event as MqttEvent, Incoming, MqttOptions, QoS};
use serin_fleet_server::bundle::statement::{chunk_list, describe};
use serin_protocol::assignment::{Assignment, Order, Probation, ReleaseRef};
use serin_protocol::chunk::CHUNK_BYTES;
use serin_protocol::envelope::{KeyRing, PublicKey, open, seal_to_vec};
use serin_protocol::ids::{DeviceId, Digest, FleetId, Millis, SequenceNumber, UnixMillis};
use serin_protocol::message::{Ack, Event};
use serin_protocol::release::Release;
use serin_protocol::topic::{FileName, Topic};
use serin_protocol::trust::forge::{Repository, key};
use serin_protocol::trust::layout::{bundle_path, statement_path};
use serin_protocol::trust::metadata::Serial;
use serin_protocol::trust::{MetadataVersion, TargetFile, UtcSeconds};
use tempfile::TempDir;

use crate::broker::Mosquitto;
use crate::bundles::Owner;
use crate::device::{Device, Provision};
use crate::lab::PATIENCE;
use crate::server::FLEET;

/// The device that is attacked.
pub const VICTIM: &str = "victim";

/// A packed bundle with its statement.
#[derive(Clone)]
pub struct Packed {
    pub release: Release,
    pub statement: Vec<u8>,
    pub bundle: Vec<u8>,
    pub chunk_list: Vec<u8>,
}

impl Packed {
    /// The release as an assignment names it.
    pub fn reference(&self) -> ReleaseRef {
        ReleaseRef { id: self.release.id.clone(), statement: Digest::of(&self.statement) }
    }

    /// The same with another statement.
    #[must_use]
    pub fn stating(mut self, change: impl FnOnce(&mut Release)) -> Self {
        change(&mut self.release);
        self.statement = self.release.to_bytes().expect("fits").to_vec();
        self
    }

    /// The same release with other contents, truly described but for what unpacking shows.
    #[must_use]
    pub fn containing(self, bundle: Vec<u8>) -> Self {
        let chunk_list: Vec<u8> = bundle.chunks(CHUNK_BYTES).flat_map(|chunk| Digest::of(chunk).0).collect();
        let object = |bytes: &[u8]| {
            let size = serin_protocol::ids::ByteCount(bytes.len() as u64);
            serin_protocol::chunk::ObjectRef { digest: Digest::of(bytes), size }
        };
        let (whole, list) = (object(&bundle), object(&chunk_list));
        let stated = self.stating(|release| (release.bundle, release.chunk_list) = (whole, list));
        Self { bundle, chunk_list, ..stated }
    }
}

/// The adversary and the victim.
pub struct Adversary {
    pub repository: Repository,
    pub device: Device,
    pub v1: Packed,
    pub v2: Packed,
    pub sequence: u64,
    /// The seed of the key that signs assignments and acknowledgements.
    fleet_key: Arc<AtomicU8>,
    mouth: Mouth,
    heard: Arc<Mutex<Vec<String>>>,
    provision: Provision,
    _mosquitto: Mosquitto,
    folder: TempDir,
}

/// A client whose publications are waited for.
struct Mouth {
    client: Client,
    taken: Arc<AtomicUsize>,
    said: usize,
}

impl Mouth {
    fn say(&mut self, topic: &Topic, payload: &[u8]) -> Result<()> {
        let name = topic.name(&fleet());
        self.client.publish(name.as_str(), QoS::AtLeastOnce, true, payload)?;
        self.said += 1;
        crate::until("the broker has it", Duration::from_secs(20), || {
            (self.taken.load(Ordering::Relaxed) >= self.said).then_some(())
        })
    }
}

fn fleet() -> FleetId {
    FLEET.parse().expect("a name")
}

pub fn victim() -> DeviceId {
    VICTIM.parse().expect("a name")
}

fn now() -> UnixMillis {
    UnixMillis(u64::try_from(UNIX_EPOCH.elapsed().unwrap_or_default().as_millis()).unwrap_or(u64::MAX))
}

/// Now, as metadata counts.
pub fn seconds() -> UtcSeconds {
    UtcSeconds(i64::try_from(now().0 / 1000).unwrap_or(i64::MAX))
}

impl Adversary {
    /// A device that runs version 1, honestly released; nothing has gone wrong yet.
    pub fn begin() -> Result<Self> {
        Self::begin_with("", None)
    }

    /// The same with further lines of configuration, and a clock as [`Provision::clock`] has it.
    pub fn begin_with(extra: &str, clock: Option<&str>) -> Result<Self> {
        let mut adversary = Self::with_device(extra, clock)?;
        let first = adversary.v1.clone();
        adversary.release(&first)?;
        adversary.assign(&first)?;
        adversary.until_runs("1.0.0")?;
        Ok(adversary)
    }

    /// A device that has seen nothing but its configuration.
    fn with_device(extra: &str, clock: Option<&str>) -> Result<Self> {
        let folder = TempDir::new()?;
        let mosquitto = Mosquitto::start(folder.path())?;
        let owner = Owner::new(&folder.path().join("owner"))?;
        let (v1, v2) = (pack(&owner, "digits/v1")?, pack(&owner, "digits/v2")?);
        let repository = Repository::at(seconds());
        let root = folder.path().join("1.root.json");
        std::fs::write(&root, &repository.roots[&1])?;
        let provision = Provision {
            mqtt: mosquitto.port,
            root,
            extra: extra.into(),
            clock: clock.map(ToOwned::to_owned),
            environment: Vec::new(),
        };
        let device = Device::start(folder.path(), VICTIM, &provision)?;
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let fleet_key = Arc::new(AtomicU8::new(6));
        let mouth = listen(
            mosquitto.port,
            PublicKey::of(&signing_key(&device)?),
            Arc::clone(&heard),
            Arc::clone(&fleet_key),
        )?;
        Ok(Self {
            repository,
            device,
            v1,
            v2,
            sequence: 0,
            fleet_key,
            mouth,
            heard,
            provision,
            _mosquitto: mosquitto,
            folder,
        })
    }

    /// What another device would be configured with.
    pub fn provision(&self) -> Provision {
        self.provision.clone()
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().into()
    }

    /// Lists a release in the owner's metadata as the newest.
    pub fn list(&mut self, packed: &Packed) {
        let id = &packed.release.id;
        let targets = &mut self.repository.digits.targets;
        let serial = targets.values().map(TargetFile::serial).max().map_or(Serial(1), Serial::next);
        targets.insert(statement_path(id), TargetFile::of(&packed.statement).with_serial(serial));
        targets.insert(bundle_path(id), TargetFile::of(&packed.bundle));
    }

    /// Does what an honest publisher and server would: hands a release out, lists it, publishes.
    pub fn release(&mut self, packed: &Packed) -> Result<()> {
        self.hand_out(packed)?;
        self.list(packed);
        self.repository.release();
        self.publish()
    }

    /// Says all current metadata, what is named before what names it.
    pub fn publish(&mut self) -> Result<()> {
        let files = self.repository.files();
        self.say_files(&files)
    }

    /// Says these files, the timestamp last.
    pub fn say_files(&mut self, files: &BTreeMap<String, Vec<u8>>) -> Result<()> {
        let (last, first): (Vec<_>, Vec<_>) = files.iter().partition(|(name, _)| *name == "timestamp.json");
        first.into_iter().chain(last).try_for_each(|(name, bytes)| self.say_file(name, bytes))
    }

    /// Says one metadata file.
    pub fn say_file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.mouth.say(&Topic::Metadata(FileName::new(name)?), bytes)
    }

    /// Says statement, chunk list and chunks of a release.
    pub fn hand_out(&mut self, packed: &Packed) -> Result<()> {
        self.say_statement(packed)?;
        self.say_object(&packed.chunk_list, packed.release.chunk_list.digest)?;
        self.say_object(&packed.bundle, packed.release.bundle.digest)
    }

    pub fn say_statement(&mut self, packed: &Packed) -> Result<()> {
        let file = FileName::of_release(&Digest::of(&packed.statement));
        self.mouth.say(&Topic::Metadata(file), &packed.statement)
    }

    fn say_object(&mut self, bytes: &[u8], object: Digest) -> Result<()> {
        for (index, chunk) in bytes.chunks(CHUNK_BYTES).enumerate() {
            self.say_chunk(object, u32::try_from(index)?, chunk)?;
        }
        Ok(())
    }

    pub fn say_chunk(&mut self, object: Digest, index: u32, bytes: &[u8]) -> Result<()> {
        self.mouth.say(&Topic::Chunk { object, index }, bytes)
    }

    /// Orders the victim to run a release.
    pub fn assign(&mut self, packed: &Packed) -> Result<()> {
        let assignment = self.assignment(packed);
        self.say_assignment(&victim(), &assignment)
    }

    /// The next assignment for the victim.
    pub fn assignment(&mut self, packed: &Packed) -> Assignment {
        self.sequence += 1;
        Assignment {
            device: victim(),
            fleet: fleet(),
            sequence: SequenceNumber(self.sequence),
            rollout: None,
            issued: now(),
            expires: now().plus(Millis::from_secs(3600)),
            order: Order::Run {
                release: packed.reference(),
                probation: Probation { duration: Millis::from_secs(1), ..Probation::default() },
            },
        }
    }

    /// Whoever signs assignments from now on.
    pub fn assign_as(&self, seed: u8) {
        self.fleet_key.store(seed, Ordering::Relaxed);
    }

    /// Signs with the fleet's key and says it to `device`.
    pub fn say_assignment(&mut self, device: &DeviceId, assignment: &Assignment) -> Result<()> {
        let sealed = seal_to_vec(assignment, &key(self.fleet_key.load(Ordering::Relaxed)))?;
        self.mouth.say(&Topic::Assign(device.clone()), &sealed)
    }

    /// Waits until the victim has reported something that contains all of `words`.
    pub fn until_told(&self, words: &[&str]) -> Result<()> {
        let looked = crate::until(&format!("the device tells of {words:?}"), PATIENCE, || {
            let heard = self.heard();
            heard.iter().any(|event| words.iter().all(|word| event.contains(word))).then_some(())
        });
        looked.map_err(|error| error.context(format!("it told {:#?}\n{}", self.heard(), self.device.said())))
    }

    /// Everything it has reported.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it reported until now does not count.
    pub fn forget_heard(&self) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Waits until the victim trusts the targets of this version.
    pub fn until_trusts(&self, version: MetadataVersion) -> Result<()> {
        let path = self.device.folder.join("trust/roles/targets.json");
        crate::until(&format!("the device trusts targets {version}"), PATIENCE, || {
            let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
            (kept["signed"]["version"] == version.0.get()).then_some(())
        })
    }

    /// Waits until the victim answers with this version, its probation over.
    pub fn until_runs(&self, version: &str) -> Result<()> {
        let looked = crate::until(&format!("the device runs {version}"), PATIENCE, || {
            let status = self.device.status().ok()?;
            let committed = status["phase"] == "idle" && self.device.runs(version);
            committed.then_some(())
        });
        looked.map_err(|error| error.context(format!("it told {:#?}\n{}", self.heard(), self.device.said())))
    }

    /// Orders version 2, waits for a refusal that contains `words`, and sees that version 1 goes on.
    pub fn refuses_v2(&mut self, words: &[&str]) -> Result<()> {
        self.forget_heard();
        let second = self.v2.clone();
        self.assign(&second)?;
        self.until_told(&[&["2.0.0", "rejected"], words].concat())?;
        self.still_runs_v1()
    }

    pub fn still_runs_v1(&self) -> Result<()> {
        // Its worker may just be starting.
        let rows = crate::traffic::rows()?;
        let answer = crate::until("the device answers", PATIENCE, || self.device.infer(&rows[..1]).ok())?;
        anyhow::ensure!(answer["model_version"] == "1.0.0", "{answer}");
        Ok(())
    }

    /// Releases version 2 as it should be, which the victim must take: nothing has broken it.
    pub fn accepts_v2(&mut self) -> Result<()> {
        let second = self.v2.clone();
        self.hand_out(&second)?;
        self.assign(&second)?;
        self.until_runs("2.0.0")
    }
}

fn pack(owner: &Owner, model: &str) -> Result<Packed> {
    let path = owner.pack(model)?;
    let release = describe(&path)?;
    let statement = release.to_bytes()?.to_vec();
    Ok(Packed { release, statement, bundle: std::fs::read(&path)?, chunk_list: chunk_list(&path)? })
}

/// A device's own key.
pub fn signing_key(device: &Device) -> Result<SigningKey> {
    let text = std::fs::read_to_string(device.folder.join("device.key"))?;
    let seed: Digest = text.trim().parse()?;
    Ok(SigningKey::from_bytes(&seed.0))
}

/// Says one thing as anybody could at a broker without access rules, and waits until the broker has it.
pub fn publish_once(port: u16, topic: &str, payload: &[u8]) -> Result<()> {
    let (client, mut connection) = Client::new(MqttOptions::new("anybody", "127.0.0.1", port), 10);
    client.publish(topic, QoS::AtLeastOnce, false, payload)?;
    for event in connection.iter() {
        if let MqttEvent::Incoming(Incoming::PubAck(_)) = event? {
            break;
        }
    }
    Ok(())
}

/// Hears and acknowledges all that the victim says.
fn listen(
    port: u16,
    device: PublicKey,
    heard: Arc<Mutex<Vec<String>>>,
    fleet_key: Arc<AtomicU8>,
) -> Result<Mouth> {
    let mut options = MqttOptions::new("adversary", "127.0.0.1", port);
    options.set_max_packet_size(300_000, 300_000);
    let (client, connection) = Client::new(options, 100);
    let name = Topic::Event(victim()).name(&fleet());
    client.subscribe(name.as_str(), QoS::AtLeastOnce)?;
    let taken = Arc::<AtomicUsize>::default();
    let (answers, counter) = (client.clone(), Arc::clone(&taken));
    std::thread::spawn(move || hear(connection, device, &answers, &counter, (&heard, &fleet_key)));
    Ok(Mouth { client, taken, said: 0 })
}

fn hear(
    mut connection: Connection,
    device: PublicKey,
    answers: &Client,
    taken: &AtomicUsize,
    (heard, fleet_key): (&Mutex<Vec<String>>, &AtomicU8),
) {
    let keys = KeyRing::<1>::new([device]).expect("one");
    let topic = Topic::Ack(victim()).name(&fleet());
    for event in connection.iter() {
        match event {
            Ok(MqttEvent::Incoming(Incoming::PubAck(_))) => {
                taken.fetch_add(1, Ordering::Relaxed);
            }
            Ok(MqttEvent::Incoming(Incoming::Publish(publish))) => {
                let Ok(event) = open::<Event, 1>(&publish.payload, &keys) else { continue };
                let text = serde_json::to_string(&event.kind).unwrap_or_default();
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                let ack = Ack { device: victim(), stored: event.number };
                if let Ok(sealed) = seal_to_vec(&ack, &key(fleet_key.load(Ordering::Relaxed))) {
                    // At most once, so that it is not counted as said.
                    let _ = answers.try_publish(topic.as_str(), QoS::AtMostOnce, false, sealed);
                }
            }
            Ok(_) => {}
            // The test is over.
            Err(_) => return,
        }
    }
}
