//! From a configuration to a running supervisor.

use std::cell::Cell;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serin_protocol::envelope::seal_to_vec;
use serin_protocol::ids::{BootId, Millis, UnixMillis};
use serin_protocol::message::{Detail, EventKind, Hello, Presence, Turn};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::clock::Clock;
use super::jobs::Jobs;
use super::policy::Watch;
use super::refusals::Refusals;
use super::service::Service;
use super::settling::Settling;
use super::trust::Trust;
use super::{FIELD_QUEUE, INBOX, Supervisor, answers};
use crate::conditions::hardware;
use crate::config::{Config, PolicyError, Review};
use crate::disk::boot_record::{BootError, BootStore};
use crate::disk::install;
use crate::disk::journal::JournalError;
use crate::disk::journal_home::{self, Opened};
use crate::disk::losses::Losses;
use crate::disk::partial::PartialStore;
use crate::disk::releases::ReleaseStore;
use crate::disk::seam::{FileError, Files};
use crate::disk::spent::SpentFile;
use crate::disk::starts::StartLog;
use crate::folder;
use crate::gateway::listen::{Listener, serve};
use crate::gateway::socket::{LocalSocket, SocketError};
use crate::gateway::{Gateway, Limits, Router};
use crate::identity::{self, IdentityError};
use crate::link::backoff::Jitter;
use crate::link::mqtt::{self, LinkOptions, Transport};
use crate::link::outbox::Outbox;
use crate::link::pause::Pausing;
use crate::link::tls::{self, TimeFloor, TlsError};
use crate::logs::Logs;
use crate::review::{self, Tray};
use crate::telemetry::Stamp;
use crate::trust::client::Client;
use crate::trust::store::{TrustStore, TrustStoreError};
use crate::update::crash_loop::{CrashPolicy, counted};
use crate::update::machine::{Identity, Machine};
use crate::update::record::{Record, RecordError};
use crate::worker::{self, group::Delegated};

/// A data folder that the agent makes: the socket's group may pass through to the socket. All else in it is for the
/// agent's user alone.
const DATA_MODE: u32 = 0o710;

/// Why the agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be made or locked.
    #[error("{path}: {source}")]
    Folder {
        /// The folder or lock file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another agent runs on the same data.
    #[error("{0} is in use by another agent")]
    InUse(PathBuf),
    /// The device key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The boot record cannot be read.
    #[error("the boot record cannot be read: {0}")]
    Boot(#[from] BootError),
    /// The boot record is whole and not ours.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The disk failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The broker's TLS files.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The policy names what is not here.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// There is no root to trust.
    #[error(transparent)]
    Trust(#[from] TrustStoreError),
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The gateway cannot listen.
    #[error("gateway.listen: {address}: {source}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The Unix socket cannot be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Signals cannot be heard.
    #[error("signals cannot be heard: {0}")]
    Signals(std::io::Error),
    /// The system has no randomness.
    #[error("no randomness")]
    Random,
}

impl StartError {
    /// What to do about it, where the error itself does not say.
    pub fn next(&self) -> Option<String> {
        Some(match self {
            Self::Folder { path, source } => match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    let path = path.display();
                    format!("run the agent as a user who may write {path}, or have `data` in its configuration name another folder")
                }
                _ => "check `data` in the configuration, and the disk that it is on".into(),
            },
            Self::InUse(_) => "stop the other agent first, or have `data` in this one's configuration name another folder".into(),
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                "stop what listens there (`ss -ltnp`), or have gateway.listen in the configuration name another port".into()
            }
            Self::Listen { .. } => "have gateway.listen in the configuration name an address of this device".into(),
            Self::Socket(SocketError::Io { .. }) => {
                "have `socket` in the configuration name a place where the agent may write".into()
            }
            Self::Tls(_) => "check the files that broker.tls in the configuration names".into(),
            Self::Boot(_) | Self::File(_) | Self::Journal(_) | Self::Trust(TrustStoreError::File(_)) => {
                "check the disk that `data` in the configuration is on, and that the agent may write there".into()
            }
            Self::Trust(TrustStoreError::Root { .. }) => {
                "put the first root.json that your publisher made where trust.root says".into()
            }
            Self::Record(_) => "run the version of the agent that wrote it, or a later one".into(),
            Self::Identity(_)
            | Self::Policy(_)
            | Self::Trust(_)
            | Self::Socket(SocketError::Taken { .. } | SocketError::NotASocket { .. })
            | Self::Signals(_)
            | Self::Random => return None,
        })
    }
}

/// Runs the agent until it is told to stop by SIGTERM or SIGINT. `logs` has what it logs.
pub async fn run(config: Config, logs: Logs) -> Result<(), StartError> {
    folder::keep_private();
    let _lock = lock(&config)?;
    let time_floor = TimeFloor::default();
    let tls_files = config.broker.tls.as_ref();
    let transport = tls_files.map_or(Ok(Transport::Tcp), |files| tls::transport(files, &time_floor))?;
    let files = Files::real();
    let key = identity::load_or_make(&files, &config.data.join("device.key"))?;
    let (record_store, loaded) = BootStore::open(files.clone(), config.data.join("boot"))?;
    let record = match &loaded.record {
        Some((_, payload)) => Record::decode(payload)?,
        None => Record::default(),
    };
    time_floor.set(record.clock_floor);
    let backlog = config.telemetry.backlog;
    let Opened { mut journal, loss, sheltered } =
        journal_home::open(&files, &config.data, record.event_floor, backlog)?;
    let losses = Losses::open(&files, &config.data).unwrap_or_else(|error| {
        tracing::warn!(%error, "what is lost is known only until the agent ends");
        Losses::default()
    });
    let boot = BootId(random()?);
    let clock = Clock::start();
    let trusted = TrustStore::open(files.clone(), &config.data, &config.trust.root, record.root_floor)?;
    let trust = Trust::new(Client::new(trusted, Jitter::new(boot.0)));
    let stored = journal.stored()?;
    // Numbers begin at 1, and what is acknowledged is dropped.
    let taken_in = stored.first_event.0 > 1;
    let outbox = Outbox::new(stored, Jitter::new(boot.0));

    let (stop_sender, stop) = watch::channel(false);
    let (inbox, inbox_receiver) = mpsc::channel(INBOX);
    let (field_sender, field) = mpsc::channel(FIELD_QUEUE);
    let router = Arc::new(Router::default());
    let limits = Limits {
        answers: config.telemetry.answers,
        answers_for: config.telemetry.answers_for,
        ..Limits::default()
    };
    let gateway = Gateway::new(Arc::clone(&router), field_sender, limits);
    let remembered = gateway.remembered();
    let releases = ReleaseStore::open(files.clone(), &config.data)?;
    // Before anybody can ask for it.
    let now = clock.now(record.clock_floor);
    let recordings = answers::recall(&mut journal, &remembered, &releases, &record, config.window(), now);
    let address = config.gateway.listen;
    let listen = |source| StartError::Listen { address, source };
    let tcp = TcpListener::bind(address).await.map_err(listen)?;
    tracing::info!(address = %tcp.local_addr().map_err(listen)?, "gateway listens");
    let local = LocalSocket::bind_anywhere(&config.socket())?;
    let apps = tokio::spawn(serve(Arc::clone(&gateway), Listener::Tcp(tcp), stop.clone()));
    let site = tokio::spawn(serve(gateway, Listener::Local(local), stop.clone()));
    stop_on_signals(stop_sender)?;

    let identity = Identity {
        device: config.device.clone(),
        fleet: config.fleet.clone(),
        memory_budget: config.models.memory,
        patience: config.job_deadline(),
        crash_policy: config.crash_loop(),
        seed: boot.0,
    };
    let spent = SpentFile::new(files.clone(), &config.data);
    let watch = Watch::new(&config.policy, spent, clock.now(record.clock_floor))?;
    let (hold_link, link_hold) = watch::channel(None);
    let partials = PartialStore::open(files.clone(), &config.data)?;
    // After the last step that can fail: a wrong configuration is no crash.
    let starts = StartLog::new(files, config.data.clone());
    let started = clock.now(record.clock_floor).wall;
    let restarts = count_start(&starts, config.crash_loop(), started);
    let groups = Delegated::find().map(Arc::new);
    let hardware = hardware::read(Path::new("/"), worker::kernel_features(groups.is_some()));
    let class_lacks = config.class_lacks(&hardware);
    class_lacks
        .iter()
        .for_each(|lacks| tracing::warn!(class = %config.target, %lacks, "less than its class"));
    let mut supervisor = Supervisor {
        clock,
        boot,
        key,
        trust,
        machine: Machine::new(identity, record),
        record_store,
        time_floor,
        starts,
        restarts,
        class_lacks,
        hardware,
        started,
        groups,
        releases,
        partials,
        journal,
        sheltered: None,
        losses,
        outbox,
        router,
        session: None,
        hellos: Cell::new(0),
        pausing: Pausing::default(),
        hold_link,
        hello_due: Cell::new(false),
        assignment_due: Cell::new(false),
        link_since: clock.now(UnixMillis(0)).wall,
        link_problem: None,
        awaited: None,
        jitter: Jitter::new(boot.0),
        download: None,
        fetched: None,
        workers: std::collections::HashMap::new(),
        recordings,
        stamp: Stamp::new(config.device.clone(), boot),
        remembered,
        answers_at: Millis(0),
        tray: Tray::new(config.device.clone(), boot, sample_limits(&config)),
        probation: None,
        guard: None,
        trial: None,
        inbox,
        taken_in,
        enrolling: None,
        refusals: Refusals::new(),
        service: Service::new(),
        settling: Settling::new(now.elapsed),
        pulsed_at: Millis(0),
        watch,
        jobs: Jobs::new(config.job_deadline()),
        doors: vec![apps.abort_handle(), site.abort_handle()],
        pending: None,
        logs,
        receiving: false,
        sideloading: None,
        config,
    };
    for fault in &loaded.faults {
        tracing::warn!(?fault, "a copy of the boot record is useless");
    }
    install::tidy(&supervisor.releases, &supervisor.partials, supervisor.machine.record(), &loaded);
    if let Some(loss) = loss {
        supervisor.report_now(EventKind::JournalLost { detail: Detail::new(&loss.detail.to_string()) });
    }
    if let Some(why) = sheltered {
        supervisor.note_shelter(&why);
    }
    let link = mqtt::start(supervisor.link_options(transport), link_hold);
    // On a thread of its own, for it waits for the disk, and no app shall wait with it. All tasks stay on this
    // thread, which lives as long as the process: workers end with the thread that started them.
    let runtime = Handle::current();
    let run = move || runtime.block_on(Box::pin(supervisor.run(link, inbox_receiver, field, stop)));
    if let Err(error) = tokio::task::spawn_blocking(run).await
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
    // Requests that were begun are answered before the process ends; bounded by the gateway.
    let _ = tokio::join!(apps, site);
    Ok(())
}

impl Supervisor {
    fn link_options(&self, transport: Transport) -> LinkOptions {
        let (key, hello) = (self.key.clone(), self.hello(Presence::Offline));
        let will = move |connection| {
            let turn = Turn { connection, number: 0 };
            // It fits, as every hello does.
            seal_to_vec(&Hello { turn, ..hello.clone() }, &key).unwrap_or_default()
        };
        LinkOptions {
            host: self.config.broker.host.clone(),
            port: self.config.broker.port,
            device: self.config.device.clone(),
            fleet: self.config.fleet.clone(),
            transport,
            will: Box::new(will),
            seed: self.boot.0,
        }
    }
}

fn sample_limits(config: &Config) -> review::Limits {
    let Review { per_day, bytes_per_day, .. } = config.review;
    review::Limits { per_day, bytes_per_day }
}

/// Takes note of this start; returns how many before it ended without a stop. A disk that does not take it
/// keeps nothing from running.
fn count_start(log: &StartLog, policy: CrashPolicy, now: UnixMillis) -> u32 {
    let before = log.read().unwrap_or_else(|error| {
        tracing::warn!(%error, "earlier starts are not known");
        Vec::new()
    });
    let mut starts = counted(policy, &before, now);
    // At most as many as the policy says.
    let restarts = starts.len() as u32;
    starts.push(now);
    if let Err(error) = log.write(&starts) {
        tracing::warn!(%error, "this start is not counted");
    }
    restarts
}

/// One agent per data folder. The lock ends with the process.
fn lock(config: &Config) -> Result<File, StartError> {
    let failed = |path: &PathBuf, source| StartError::Folder { path: path.clone(), source };
    let data = &config.data;
    folder::make(data, DATA_MODE).map_err(|source| failed(data, source))?;
    let path = data.join("lock");
    let opened = File::create(&path).or_else(|error| match error.kind() {
        // As good for a lock.
        io::ErrorKind::ReadOnlyFilesystem => File::open(&path),
        _ => Err(error),
    });
    let file = opened.map_err(|source| failed(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse(data.clone())),
        Err(TryLockError::Error(source)) => Err(failed(&path, source)),
    }
}

fn stop_on_signals(stop: watch::Sender<bool>) -> Result<(), StartError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
        // Kept until the end: listeners take a dropped sender for a stop as well.
        std::future::pending::<()>().await;
    });
    Ok(())
}

fn random() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|_| StartError::Random)?;
    Ok(u64::from_ne_bytes(bytes))
}
