//! One simulated device: the shell around the real cores, as the agent's supervisor is on a real one.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serin_agent::disk::boot_record::BootStore;
use serin_agent::disk::install;
use serin_agent::disk::partial::{Complete, PartialStore};
use serin_agent::disk::releases::ReleaseStore;
use serin_agent::disk::seam::Files;
use serin_agent::disk::virtual_disk::VirtualDisk;
use serin_agent::identity;
use serin_agent::link::backoff::Jitter;
use serin_agent::supervisor::download::Download;
use serin_agent::trust::client::{self, Client};
use serin_agent::trust::offline::refresh;
use serin_agent::trust::store::TrustStore;
use serin_agent::update::crash_loop::CrashPolicy;
use serin_agent::update::effect::{Event, FieldOrder, FieldOutcome, FieldRefusal, Now};
use serin_agent::update::machine::{Identity, Machine};
use serin_agent::update::record::{Record, Slot};
use serin_agent::update::shell::feed;
use serin_protocol::bundle::BundleFile;
use serin_protocol::ids::{ByteCount, Digest, Millis, UnixMillis};
use serin_protocol::message::{Detail, EventKind, Phase, RefusedKind};
use serin_protocol::topic::FileName;

use super::broker::{self, BEGIN, Broker};
use super::publisher::Published;

mod link;
mod shell;

/// Turns of the loop after which a device that is still not idle never will be: each turn goes to the next
/// deadline, and there are a few for each chunk.
const MAX_TURNS: usize = 400;

/// Fixtures are far smaller.
const MAX_FILE_BYTES: usize = 1 << 20;

/// Where the agent keeps everything.
pub fn data() -> PathBuf {
    PathBuf::from("/data")
}

/// The publisher's first root, delivered with the device.
fn configured_root() -> PathBuf {
    PathBuf::from("/etc/root.json")
}

/// A device that is on.
pub struct Device {
    pub machine: Machine,
    /// Everything it said.
    pub said: Vec<EventKind>,
    /// Answers to the field engineer.
    pub replies: Vec<Result<FieldOutcome, FieldRefusal>>,
    /// The release that answers.
    pub serving: Option<Digest>,
    broker: Broker,
    files: Files,
    disk: VirtualDisk,
    now: Now,
    boot: BootStore,
    releases: ReleaseStore,
    partials: PartialStore,
    trust: Client,
    trust_effects: VecDeque<client::Effect>,
    download: Option<Download>,
    fetched: Option<(Digest, Complete)>,
    /// What an engineer brought, until it is asked for.
    brought: Option<Vec<u8>>,
    workers: BTreeSet<Digest>,
    inbox: VecDeque<Event>,
    connected: bool,
}

/// A disk as it leaves the factory: the publisher's root, and an empty folder for the agent.
pub fn factory_disk(broker: &Broker) -> Result<VirtualDisk> {
    let disk = VirtualDisk::new(ByteCount::from_mib(8));
    let files = Files::on(disk.clone());
    for folder in ["/etc", "/data"] {
        files.create_dir(Path::new(folder))?;
    }
    let mut root = files.create(&configured_root())?;
    root.append(broker.repository.roots.get(&1).context("a first root")?)?;
    root.sync()?;
    for folder in ["/etc", "/data", "/"] {
        files.sync_dir(Path::new(folder))?;
    }
    Ok(disk)
}

impl Device {
    /// Switches the device on, without a link.
    ///
    /// # Errors
    /// The agent does not start: its service manager would try again.
    pub fn power_on(disk: &VirtualDisk, broker: &Broker) -> Result<Self> {
        Self::power_on_at(disk, broker, Millis(0))
    }

    /// The same, so long after the simulation began.
    ///
    /// # Errors
    /// The agent does not start.
    pub fn power_on_at(disk: &VirtualDisk, broker: &Broker, elapsed: Millis) -> Result<Self> {
        let files = Files::on(disk.clone());
        let data = data();
        identity::load_or_make(&files, &data.join("device.key"))?;
        let (boot, loaded) = BootStore::open(files.clone(), data.join("boot"))?;
        let record = match &loaded.record {
            Some((_, payload)) => Record::decode(payload)?,
            None => Record::default(),
        };
        let trusted = TrustStore::open(files.clone(), &data, &configured_root(), record.root_floor)?;
        let identity = Identity {
            device: broker.device().clone(),
            fleet: broker::fleet(),
            memory_budget: ByteCount::from_mib(512),
            patience: Millis::from_secs(600),
            crash_policy: CrashPolicy::default(),
            seed: 1,
        };
        let mut device = Self {
            machine: Machine::new(identity, record),
            said: Vec::new(),
            replies: Vec::new(),
            serving: None,
            broker: broker.clone(),
            disk: disk.clone(),
            now: Now { wall: UnixMillis(BEGIN * 1000).plus(elapsed), elapsed },
            boot,
            releases: ReleaseStore::open(files.clone(), &data)?,
            partials: PartialStore::open(files.clone(), &data)?,
            files,
            trust: Client::new(trusted, Jitter::new(1)),
            trust_effects: VecDeque::new(),
            download: None,
            fetched: None,
            brought: None,
            workers: BTreeSet::new(),
            inbox: VecDeque::new(),
            connected: false,
        };
        install::tidy(&device.releases, &device.partials, device.machine.record(), &loaded);
        feed(&mut device, Event::Boot { restarts: 0 });
        device.settle();
        Ok(device)
    }

    /// The link is there.
    pub fn connect(&mut self) {
        self.connected = true;
        let effects = self.trust.connected(self.now);
        self.trust_effects.extend(effects);
        if let Some(download) = &mut self.download {
            let notices = download.connected(self.now.elapsed);
            self.take(notices);
        }
        self.settle();
    }

    /// The link is gone.
    pub fn disconnect(&mut self) {
        self.connected = false;
        self.trust.disconnected();
        if let Some(download) = &mut self.download {
            let notices = download.disconnected(self.now.elapsed);
            self.take(notices);
        }
        self.settle();
    }

    /// Lets time pass until `elapsed` after the simulation began.
    pub fn advance(&mut self, elapsed: Millis) {
        for _ in 0..MAX_TURNS {
            self.settle();
            if !self.disk.is_powered() || self.next_deadline().is_none_or(|next| next > elapsed) {
                break;
            }
            self.pass_time();
        }
        if self.now.elapsed < elapsed {
            self.now.wall = self.now.wall.plus(Millis(elapsed.0 - self.now.elapsed.0));
            self.now.elapsed = elapsed;
        }
    }

    /// The broker says something new: a timestamp, and perhaps another assignment.
    pub fn hear(&mut self, broker: &Broker) {
        self.broker = broker.clone();
        self.ask(&FileName::new("timestamp.json").expect("a name"));
        self.hear_assignment();
        self.settle();
    }

    /// A field engineer's order.
    pub fn order(&mut self, order: FieldOrder) {
        feed(self, Event::Field(1000, order));
        self.settle();
    }

    /// A field engineer brings a release.
    pub fn sideload(&mut self, published: &Published) {
        let papers = self.broker.papers(published);
        let wall = self.now.wall;
        let (checked, effects) = self.trust.lend(self.now, |store| refresh(store, wall, &papers));
        self.trust_effects.extend(effects);
        match checked {
            Ok(release) => {
                self.brought = Some(published.bundle.clone());
                let (statement, means) = (published.digest, self.means(published.digest));
                self.order(FieldOrder::Sideload { statement, release: Box::new(release), means });
            }
            Err(error) => {
                let detail = Detail::new(&error.to_string());
                self.said.push(EventKind::Refused { kind: RefusedKind::Sideload, detail });
            }
        }
    }

    /// Lets time pass until nothing is unfinished, or for as long as that could take.
    pub fn until_idle(&mut self) {
        for _ in 0..MAX_TURNS {
            self.settle();
            if self.machine.phase() == Phase::Idle
                && self.machine.record().attempt.is_none()
                && self.answers()
            {
                return;
            }
            if !self.pass_time() {
                return;
            }
        }
    }

    /// Lets time pass until the update is in this phase.
    pub fn until_phase(&mut self, phase: Phase) {
        for _ in 0..MAX_TURNS {
            self.settle();
            if self.machine.phase() == phase || !self.pass_time() {
                return;
            }
        }
    }

    /// The slots in which something is, by name.
    pub fn slots(&self) -> Vec<(&'static str, Slot)> {
        let record = self.machine.record();
        let slots = [("active", &record.active), ("previous", &record.previous)];
        slots.into_iter().filter_map(|(name, slot)| Some((name, slot.clone()?))).collect()
    }

    /// Reads every file of a release and compares it with what its owner signed.
    ///
    /// # Errors
    /// It is not here, or not what was signed.
    pub fn verify(&self, statement: Digest) -> Result<()> {
        let signed = self.broker.statement(statement).context("nobody signed it")?;
        let release = self.releases.open_release(statement)?.context("it is not here")?;
        Ok(self.releases.verify(&release, Some(signed))?)
    }

    /// A file of a release that is here.
    pub fn read(&self, statement: Digest, file: BundleFile) -> Result<Vec<u8>> {
        let release = self.releases.open_release(statement)?.context("it is not here")?;
        Ok(self.files.read_at_most(&release.path(file), MAX_FILE_BYTES)?)
    }

    /// Digests of the releases that are unpacked here.
    pub fn unpacked(&self) -> Result<Vec<Digest>> {
        Ok(self.releases.list()?)
    }

    /// Names of what is in a folder below the agent's.
    pub fn folder(&self, name: &str) -> Result<Vec<String>> {
        let entries = self.files.list(&data().join(name))?;
        Ok(entries.iter().map(|entry| entry.name.to_string_lossy().into_owned()).collect())
    }

    fn answers(&self) -> bool {
        self.machine.record().active.as_ref().map(|slot| slot.statement) == self.serving
    }

    /// Goes to the next deadline. False when there is none.
    fn pass_time(&mut self) -> bool {
        let Some(next) = self.next_deadline() else { return false };
        let step = next.0.saturating_sub(self.now.elapsed.0).max(1);
        self.now.elapsed = self.now.elapsed.plus(Millis(step));
        self.now.wall = self.now.wall.plus(Millis(step));
        feed(self, Event::Tick);
        let effects = self.trust.tick(self.now);
        self.trust_effects.extend(effects);
        if let Some(download) = &mut self.download {
            let notices = download.tick(self.now.elapsed);
            self.take(notices);
        }
        true
    }

    fn next_deadline(&self) -> Option<Millis> {
        let download = self.download.as_ref().and_then(|download| download.next_deadline(self.now.elapsed));
        let deadlines = [self.machine.next_deadline(self.now), self.trust.next_deadline(), download];
        deadlines.into_iter().flatten().min()
    }

    /// Does what can be done now.
    fn settle(&mut self) {
        while self.disk.is_powered() {
            if let Some(event) = self.inbox.pop_front() {
                feed(self, event);
            } else if let Some(effect) = self.trust_effects.pop_front() {
                self.attend(effect);
            } else if let Some((object, index)) = self.wanted_chunk() {
                self.deliver(object, index);
            } else {
                return;
            }
        }
    }
}
