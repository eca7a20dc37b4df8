//! `serin-fleet serve`: broker, link, ingest, publishing, clock and HTTP, each a task around the fleet.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serin_protocol::chunk::{ChunkMap, ObjectRef};
use serin_protocol::ids::{Digest, ReleaseId};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

// use crate::api::{ApiState, OperatorToken, router};
use crate::broker::embedded::{BrokerError, DEFAULT_MAX_SESSIONS, EmbeddedBroker, EmbeddedBrokerConfig};
use crate::broker::identity::{SERVER_CLIENT_PREFIX, SERVER_USER, ServerPassword};
use crate::broker::link::{self, LinkConfig, LinkEvent, Session};
use crate::broker::publish::{publish_chunk, publish_release};
use crate::bundle::key_file::{self, KeyFileError};
use crate::config::{BrokerConfig, Config};
use crate::fleet::{Fleet, Ingested, OpenError, Outgoing, Parts};
use crate::registry::objects::{ObjectError, ObjectStore};
use crate::store::StoreError;
use crate::store::sled::SledStore;

/// Messages taken in before they are made durable together and acknowledged.
const BATCH: usize = 256;
/// Releases that wait to be published; each is asked for again at the next connection.
const PUBLISH_QUEUE: usize = 1024;
/// Chunks published again for one request of a device; it asks again if that was not enough.
const REPEAT_AT_MOST: u32 = 256;
/// How often rollouts look whether something is due.
const PULSE: Duration = Duration::from_millis(200);
/// How often old reports are dropped.
const CLEANING: Duration = Duration::from_mins(10);

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data folder.
    #[error("{path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key file.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The operator's token.
    #[error("the operator token: {0}")]
    Token(std::io::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object store.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// What is stored.
    #[error(transparent)]
    Fleet(#[from] OpenError),
    /// The embedded broker.
    #[error("the embedded broker: {0}")]
    Broker(#[from] BrokerError),
    /// The HTTP address.
    #[error("http: {address}: {source}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Serving HTTP ended.
    #[error("http: {0}")]
    Http(std::io::Error),
    /// Signals cannot be heard.
    #[error("signals cannot be heard: {0}")]
    Signals(std::io::Error),
}

/// Runs the server until it is told to stop by SIGTERM or SIGINT.
pub async fn run(config: Config) -> Result<(), ServeError> {
    let keys = config.data.join("keys");
    make_folder(&keys)?;
    let key = fleet_key(&keys.join("fleet.key"))?;
    let token = OperatorToken::load_or_make(&keys.join("operator.token")).map_err(ServeError::Token)?;
    let objects = Arc::new(ObjectStore::open(&config.data.join("objects"))?);
    let store = Arc::new(SledStore::open(&config.data.join("store"))?);
    if config.owner_count == 0 {
        warn!("no owner's key is known, so that no release can be published; see --owner-key");
    }
    let parts = Parts { id: config.fleet.clone(), key, owners: config.owners, store, objects };
    let (fleet, outgoing) = Fleet::open(parts)?;
    let listener = TcpListener::bind(config.http).await;
    let listener = listener.map_err(|source| ServeError::Listen { address: config.http, source })?;

    let (broker, link_config) = connect(&config.broker, &config.data, &fleet).await?;
    let (session_sender, session) = watch::channel(None);
    tokio::spawn(take_in(Arc::clone(&fleet), link::start(link_config.clone()), session_sender));
    tokio::spawn(publish(Arc::clone(&fleet), link_config, outgoing, session));
    tokio::spawn(keep_time(Arc::clone(&fleet)));

    let uploads = config.data.join("uploads");
    make_folder(&uploads)?;
    let address = listener.local_addr().map_err(ServeError::Http)?;
    info!(url = %format!("http://{address}"), fleet_key = %fleet.public_key(), "serving");
    let state = ApiState::new(Arc::clone(&fleet), token, uploads, address.ip().is_loopback());
    let stop = stop_signal()?;
    axum::serve(listener, router(state)).with_graceful_shutdown(stop).await.map_err(ServeError::Http)?;
    fleet.commit()?;
    if let Some(broker) = broker {
        broker.stop().await?;
    }
    info!("stopped");
    Ok(())
}

fn make_folder(path: &Path) -> Result<(), ServeError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| ServeError::Folder { path: path.into(), source })
}

fn fleet_key(path: &Path) -> Result<ed25519_dalek::SigningKey, ServeError> {
    if !path.exists() {
        key_file::generate(path)?;
    }
    Ok(key_file::read_private(path)?)
}

/// Starts the embedded broker or names the other one.
async fn connect(
    broker: &BrokerConfig,
    data: &Path,
    fleet: &Arc<Fleet>,
) -> Result<(Option<EmbeddedBroker>, LinkConfig), ServeError> {
    let client_id = format!("{SERVER_CLIENT_PREFIX}-{}", fleet.id());
    match broker {
        BrokerConfig::External { host, port, credentials } => {
            let (host, port, credentials) = (host.clone(), *port, credentials.clone());
            Ok((None, LinkConfig { host, port, credentials, client_id, fleet: fleet.id().clone() }))
        }
        BrokerConfig::Embedded { listen } => {
            // Only this process needs it, and only until it ends.
            let password = format!("{:016x}{:016x}", crate::fleet::random(), crate::fleet::random());
            let config = EmbeddedBrokerConfig {
                listen: *listen,
                fleet: fleet.id().clone(),
                objects: Arc::clone(fleet.objects()),
                server_password: ServerPassword::new(password.as_str())
                    .map_err(|_| ServeError::Token(std::io::Error::other("no randomness")))?,
                retained_dir: data.join("retained"),
                max_sessions: DEFAULT_MAX_SESSIONS,
            };
            let broker = EmbeddedBroker::start(config).await?;
            let address = broker.local_addr();
            let host = if address.ip().is_unspecified() { "127.0.0.1".into() } else { address.ip().to_string() };
            let credentials = Some((SERVER_USER.to_owned(), password));
            let link =
                LinkConfig { host, port: address.port(), credentials, client_id, fleet: fleet.id().clone() };
            Ok((Some(broker), link))
        }
    }
}

/// Takes in what devices say, in batches that are made durable together.
async fn take_in(
    fleet: Arc<Fleet>,
    mut link: mpsc::Receiver<LinkEvent>,
    session: watch::Sender<Option<Session>>,
) {
    let mut events = Vec::with_capacity(BATCH);
    while link.recv_many(&mut events, BATCH).await > 0 {
        let mut messages = Vec::new();
        for event in events.drain(..) {
            match event {
                LinkEvent::Connected(connected) => {
                    session.send_replace(Some(connected));
                    if let Err(error) = fleet.say_again() {
                        error!(%error, "what is retained could not be said again");
                    }
                }
                LinkEvent::Message(topic, payload) => messages.push((topic, payload)),
            }
        }
        let fleet = Arc::clone(&fleet);
        let taken = tokio::task::spawn_blocking(move || take_in_batch(&fleet, &messages)).await;
        if let Err(error) = taken {
            error!(%error, "ingest failed");
        }
    }
}

fn take_in_batch(fleet: &Fleet, messages: &[(String, Bytes)]) {
    let ingested: Vec<Ingested> =
        messages.iter().map(|(topic, payload)| fleet.ingest(topic, payload)).collect();
    if let Err(error) = fleet.commit() {
        // Not acknowledged, so that the devices say it again.
        error!(%error, "the store could not be made durable");
        return;
    }
    for ingested in ingested {
        match ingested {
            Ingested::Nothing => {}
            Ingested::Acknowledge(device, stored) => fleet.acknowledge(device, stored),
        }
    }
}

/// Publishes what the fleet has to say. What cannot be said now is said again at the next connection.
async fn publish(
    fleet: Arc<Fleet>,
    config: LinkConfig,
    mut outgoing: mpsc::Receiver<Outgoing>,
    session: watch::Receiver<Option<Session>>,
) {
    let (releases, waiting) = mpsc::channel(PUBLISH_QUEUE);
    tokio::spawn(publish_releases(Arc::clone(&fleet), config, waiting, session.clone()));
    while let Some(message) = outgoing.recv().await {
        let (topic, payload, retain) = match message {
            Outgoing::Keep(topic, payload) => (topic, payload, true),
            Outgoing::Say(topic, payload) => (topic, payload, false),
            other @ (Outgoing::Publish(_) | Outgoing::Repeat(..)) => {
                if releases.try_send(other).is_err() {
                    warn!("too many releases wait to be published");
                }
                continue;
            }
        };
        let current = session.borrow().clone();
        if let Some(current) = current
            && current.publish(&topic, payload, retain).await.is_err()
        {
            warn!(?topic, "not said: the broker is gone");
        }
    }
}

/// Large things, one after another, beside the small ones.
async fn publish_releases(
    fleet: Arc<Fleet>,
    config: LinkConfig,
    mut waiting: mpsc::Receiver<Outgoing>,
    mut session: watch::Receiver<Option<Session>>,
) {
    while let Some(message) = waiting.recv().await {
        let Ok(current) = session.wait_for(Option::is_some).await.map(|current| current.clone()) else { return };
        let Some(current) = current else { continue };
        match message {
            Outgoing::Publish(id) => publish_one(&fleet, &config, &current, &id).await,
            Outgoing::Repeat(object, first, count) => {
                repeat(&fleet, &current, object, first, count.min(REPEAT_AT_MOST)).await;
            }
            Outgoing::Keep(..) | Outgoing::Say(..) => {}
        }
    }
}

async fn publish_one(fleet: &Arc<Fleet>, config: &LinkConfig, session: &Session, id: &ReleaseId) {
    let found = fleet.store().release(id).and_then(|record| match record {
        Some(record) => Ok(fleet.store().statement(&record.statement)?.map(|statement| (record, statement))),
        None => Ok(None),
    });
    let (record, statement) = match found {
        Ok(Some(found)) => found,
        Ok(None) => return,
        Err(error) => {
            error!(release = %id, %error, "a release could not be read");
            return;
        }
    };
    match publish_release(session, config, fleet.objects(), &record, statement).await {
        Ok(()) => {
            if let Err(error) = fleet.published(id) {
                error!(release = %id, %error, "could not be marked as published");
            }
        }
        Err(error) => error!(release = %id, %error, "not published"),
    }
}

async fn repeat(fleet: &Arc<Fleet>, session: &Session, object: Digest, first: u32, count: u32) {
    let Ok(Some(size)) = fleet.objects().size(&object) else { return };
    let Ok(map) = ChunkMap::new(size) else { return };
    let object = ObjectRef { digest: object, size };
    for index in first..first.saturating_add(count).min(map.count()) {
        if let Err(error) = publish_chunk(session, fleet.objects(), object, index).await {
            warn!(index, %error, "a chunk could not be published again");
            return;
        }
    }
}

/// Lets time pass.
async fn keep_time(fleet: Arc<Fleet>) {
    let mut pulse = tokio::time::interval(PULSE);
    let mut cleaning = tokio::time::interval(CLEANING);
    loop {
        let clean = tokio::select! {
            _ = pulse.tick() => false,
            _ = cleaning.tick() => true,
        };
        let fleet = Arc::clone(&fleet);
        let done = tokio::task::spawn_blocking(move || {
            if clean && let Err(error) = fleet.forget_old_reports() {
                error!(%error, "old reports could not be dropped");
            }
            if let Err(error) = fleet.tick() {
                error!(%error, "rollouts could not go on");
            }
        });
        if let Err(error) = done.await {
            error!(%error, "a tick failed");
        }
    }
}

fn stop_signal() -> Result<impl Future<Output = ()>, ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
