//! A broker inside the server process: a single binary is a whole fleet server.

use std::error::Error;
use std::fs::{self, File, TryLockError};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use rmqtt::context::ServerContext;
use rmqtt::net::{Builder, Listener};
use rmqtt::server::MqttServer;
use rmqtt::types::QoS;
use serin_protocol::ids::FleetId;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::hooks::{self, Gate, RetainedTopics, TLS_LISTENER};
use super::identity::{Authenticator, ServerPassword};
use super::limits::{self, Limits};
use super::retained::{RetainedError, RetainedStore};
use super::revoked::Revoked;
use super::tls::{TlsError, TlsFiles};
use super::uplink::Uplink;
use super::withdrawn::Withdrawn;
use crate::registry::objects::ObjectStore;

/// Sessions at a time unless configured otherwise: 20,000 file descriptors are a common limit of a process,
/// and objects, logs and the HTTP side need some.
pub const DEFAULT_MAX_SESSIONS: u32 = 16_000;

/// How much of what was retained last a power cut may take.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The number of the listener without TLS inside the engine.
const LISTENER: u16 = 1;

/// What an embedded broker needs.
#[derive(Debug, Clone)]
pub struct EmbeddedBrokerConfig {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The fleet it serves.
    pub fleet: FleetId,
    /// Where chunks are read from.
    pub objects: Arc<ObjectStore>,
    /// What the server's own client proves itself with.
    pub server_password: ServerPassword,
    /// Folder for what is retained; created when missing. One broker at a time may use it.
    pub retained_dir: PathBuf,
    /// Most sessions at a time, such as [`DEFAULT_MAX_SESSIONS`].
    pub max_sessions: u32,
    /// With it devices come in by mutual TLS, and the server by a listener of its own.
    pub tls: Option<TlsFiles>,
    /// Devices that are cut off.
    pub revoked: Arc<Revoked>,
}

/// Why a broker could not start or stop.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The address could not be listened on.
    #[error("listening on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What went wrong.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Another broker uses the folder for what is retained.
    #[error("{} is in use by another broker", .0.display())]
    InUse(PathBuf),
    /// The folder for what is retained could not be locked.
    #[error("locking {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The list of revoked certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The retained messages could not be read or written.
    #[error("the retained messages")]
    Retained(#[from] RetainedError),
}

/// A running broker. Dropping it closes the door; [`stop`](Self::stop) also sees everybody out.
pub struct EmbeddedBroker {
    local_addr: SocketAddr,
    server_addr: SocketAddr,
    engine: ServerContext,
    gate: Arc<Gate>,
    accepting: JoinHandle<()>,
    syncing: JoinHandle<()>,
    cutting_off: JoinHandle<()>,
    /// Held as long as the broker runs.
    _folder: File,
}

impl EmbeddedBroker {
    /// Starts listening. When it returns, clients can connect.
    pub async fn start(config: EmbeddedBrokerConfig) -> Result<Self, BrokerError> {
        let EmbeddedBrokerConfig {
            listen,
            fleet,
            objects,
            server_password,
            retained_dir,
            max_sessions,
            tls,
            revoked,
        } = config;
        let folder = lock(&retained_dir)?;
        let retained = Arc::new(RetainedStore::open(&retained_dir, fleet.clone(), objects)?);
        let (own, certified, local_addr, server_addr) = listeners(listen, max_sessions, tls.as_ref())?;
        let withdrawn = tls.as_ref().map(|files| Withdrawn::open(&files.list(), &files.ca)).transpose()?;
        let withdrawn = withdrawn.map(Arc::new);
        let engine = ServerContext::new()
            .mqtt_max_sessions(isize::try_from(max_sessions).unwrap_or(isize::MAX))
            // It would refuse connections whenever the machine is busy with something else.
            .busy_check_enable(false)
            .build()
            .await;
        let gate = Arc::new(Gate {
            fleet,
            authenticator: Authenticator::new(server_password),
            retained: Arc::clone(&retained),
            uplink: Uplink::new(),
            tls: withdrawn.clone(),
            revoked,
            stopping: AtomicBool::new(false),
        });
        *engine.extends.retain_mut().await = Box::new(RetainedTopics(Arc::clone(&retained)));
        *engine.extends.fitter_mgr_mut().await = Box::new(Limits);
        hooks::install(&gate, engine.extends.hook_mgr()).await;
        let mut server = MqttServer::new(engine.clone()).listener_by_id(own, LISTENER);
        if let Some(listener) = certified {
            server = server.listener_by_id(listener, TLS_LISTENER);
        }
        let server = server.build();
        let accepting = tokio::spawn(async move {
            if let Err(error) = server.run().await {
                error!(%error, "the broker no longer accepts connections");
            }
        });
        info!(address = %local_addr, retained = retained.count(), "broker started");
        Ok(Self {
            local_addr,
            server_addr,
            engine: engine.clone(),
            gate: Arc::clone(&gate),
            accepting,
            syncing: tokio::spawn(sync_regularly(retained)),
            cutting_off: tokio::spawn(cut_off(engine, Arc::clone(&gate), withdrawn)),
            _folder: folder,
        })
    }

    /// Where devices come in, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where the server's own client comes in, with the real port.
    pub fn server_addr(&self) -> SocketAddr {
        self.server_addr
    }

    /// Stops listening, ends every session (without publishing wills: it is not the devices that left) and
    /// writes down what is retained. Takes at most some five seconds.
    pub async fn stop(mut self) -> Result<(), BrokerError> {
        self.gate.stopping.store(true, Ordering::Release);
        self.accepting.abort();
        // Awaited, so that the port is free and nobody comes in behind our back.
        let _ = (&mut self.accepting).await;
        let sessions: Vec<_> = self.engine.extends.shared().await.iter().collect();
        let ended = join_all(
            sessions.into_iter().map(|mut session| async move { session.kick(true, true, true).await }),
        );
        let failed = ended.await.into_iter().filter(Result::is_err).count();
        if failed > 0 {
            warn!(sessions = failed, "sessions did not end in time");
        }
        self.syncing.abort();
        self.cutting_off.abort();
        sync(&self.gate.retained).await?;
        info!(address = %self.local_addr, "broker stopped");
        Ok(())
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        self.gate.stopping.store(true, Ordering::Release);
        self.accepting.abort();
        self.syncing.abort();
        self.cutting_off.abort();
    }
}

/// Two brokers appending to one log would destroy it.
fn lock(folder: &Path) -> Result<File, BrokerError> {
    let path = folder.join("lock");
    let failed = |source| BrokerError::Lock { path: path.clone(), source };
    let file = fs::create_dir_all(folder).and_then(|()| File::create(&path)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BrokerError::InUse(folder.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

type Listeners = (Listener, Option<Listener>, SocketAddr, SocketAddr);

/// The listener without TLS, the one with it, where devices come in and where the server does.
fn listeners(
    listen: SocketAddr,
    max_sessions: u32,
    tls: Option<&TlsFiles>,
) -> Result<Listeners, BrokerError> {
    let Some(tls) = tls else {
        let (listener, address) = bind(listen, max_sessions, None)?;
        return Ok((listener, None, address, address));
    };
    let (certified, devices) = bind(listen, max_sessions, Some(tls))?;
    let (own, server) = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), max_sessions, None)?;
    Ok((own, Some(certified), devices, server))
}

fn bind(
    listen: SocketAddr,
    max_sessions: u32,
    tls: Option<&TlsFiles>,
) -> Result<(Listener, SocketAddr), BrokerError> {
    let file = |of: fn(&TlsFiles) -> &PathBuf| tls.map(|files| of(files).display().to_string());
    let builder = Builder::new()
        .tls_cert(file(|files| &files.certificate))
        .tls_key(file(|files| &files.key))
        .tls_client_ca_certs(file(|files| &files.ca))
        .tls_cross_certificate(true)
        .collect_cert_info(true)
        .name("serin")
        .laddr(listen)
        .backlog(limits::BACKLOG)
        // Without it every message waits some 40 ms for the one before it to be acknowledged.
        .nodelay(true)
        // A restart must not wait for the connections of the last run to leave TIME_WAIT.
        .reuseaddr(Some(true))
        .max_connections(max_sessions as usize)
        .max_handshaking_limit(limits::MAX_HANDSHAKES)
        .handshake_timeout(limits::HANDSHAKE_TIMEOUT)
        .send_timeout(limits::SEND_TIMEOUT)
        .max_packet_size(limits::MAX_PACKET_BYTES)
        .max_subscriptions(limits::MAX_SUBSCRIPTIONS)
        .max_inflight(limits::DEVICE_IN_FLIGHT)
        .max_qos_allowed(QoS::AtLeastOnce)
        // "Anonymous" clients would not be asked about at all.
        .allow_anonymous(false)
        .allow_zero_keepalive(false)
        .max_keepalive(limits::MAX_KEEP_ALIVE_SECONDS)
        .session_expiry_interval(Duration::ZERO)
        .message_expiry_interval(Duration::ZERO)
        // TCP already repeats what was lost; MQTT repeats only over a new connection.
        .message_retry_interval(Duration::ZERO);
    let open = if tls.is_some() { Listener::tls } else { Listener::tcp };
    let bound = builder.bind().and_then(open).and_then(|listener| {
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    bound.map_err(|source| BrokerError::Listen { address: listen, source: source.into() })
}

/// Ends the sessions of devices that are cut off, or whose certificates are, whenever there is one more.
async fn cut_off(engine: ServerContext, gate: Arc<Gate>, withdrawn: Option<Arc<Withdrawn>>) {
    let mut devices = gate.revoked.changes();
    let mut certificates = withdrawn.as_ref().map(|withdrawn| withdrawn.changes());
    let watching = async {
        match &withdrawn {
            Some(withdrawn) => withdrawn.watch().await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(watching);
    loop {
        let certificate = async {
            match &mut certificates {
                Some(changes) => changes.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = devices.changed() => if changed.is_err() { return },
            changed = certificate => if changed.is_err() { return },
            () = &mut watching => return,
        }
        let sessions: Vec<_> = engine.extends.shared().await.iter().collect();
        for mut session in sessions {
            let device = session.id().client_id.parse();
            let certificate = match session.session() {
                Some(open) => open.connect_info().await.is_ok_and(|shown| gate.withdrawn(&shown)),
                None => false,
            };
            let out = certificate || device.is_ok_and(|device| gate.revoked.contains(&device));
            if out && let Err(error) = session.kick(true, true, true).await {
                warn!(%error, "the session of a revoked device did not end in time");
            }
        }
    }
}

async fn sync_regularly(retained: Arc<RetainedStore>) {
    let mut ticks = tokio::time::interval(SYNC_INTERVAL);
    loop {
        ticks.tick().await;
        if let Err(error) = sync(&retained).await {
            error!(error = &error as &dyn Error, "what is retained cannot be written down");
        }
    }
}

async fn sync(retained: &Arc<RetainedStore>) -> Result<(), BrokerError> {
    let retained = Arc::clone(retained);
    // The task neither panics nor is aborted, so there is always an answer.
    tokio::task::spawn_blocking(move || retained.sync()).await.unwrap_or(Ok(()))?;
    Ok(())
}
