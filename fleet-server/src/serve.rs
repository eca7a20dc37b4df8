//! `serin-fleet serve`: opens what is stored, starts broker, link, publisher, clerk and HTTP, and stops them
//! in order.

mod clearing;
mod clerk;
mod failure;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serin_protocol::ids::UnixMillis;
use serin_protocol::trust::UtcSeconds;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{error, info};
use zeroize::Zeroizing;

use self::clearing::{Clearing, MAX_CLEARINGS};
use self::clerk::Clerk;
pub use self::failure::ServeError;
use crate::api;
use crate::broker::embedded::{EmbeddedBroker, EmbeddedBrokerConfig};
use crate::broker::identity::{SERVER_CLIENT_PREFIX, SERVER_USER, ServerPassword};
use crate::broker::link::{self, Link, LinkOptions, Transport};
use crate::broker::publish::{Job, MAX_JOBS, Publisher};
use crate::broker::revoked::Revoked;
use crate::broker::tls;
use crate::config::{BrokerChoice, Config, ExternalBroker, read};
use crate::durable;
use crate::fleet::metrics::Metrics;
use crate::fleet::samples::ReviewParts;
use crate::fleet::secrets::Secrets;
use crate::fleet::{Fleet, FleetError, FleetParts, Named, Outgoing, Outlet};
use crate::notify;
use crate::notify::post::Poster;
use crate::registry::objects::ObjectStore;
use crate::registry::releases::Listed;
use crate::repository::{Repository, keeper};
use crate::store::Store;
use crate::store::sled::SledStore;

/// How long requests under way may take once the server is told to stop.
const DRAIN: Duration = Duration::from_secs(3);

/// Milliseconds since 1970.
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Seconds since 1970.
pub fn seconds() -> UtcSeconds {
    UtcSeconds(i64::try_from(now().0 / 1000).unwrap_or(i64::MAX))
}

/// Serves until told to stop by SIGINT or SIGTERM.
pub async fn run(config: Config) -> Result<(), ServeError> {
    let data = config.data.clone();
    durable::private_folder(&data).map_err(|source| ServeError::Data { path: data.clone(), source })?;
    let secrets = Secrets::open(&data)?;
    let store: Arc<dyn Store> = Arc::new(SledStore::open(&data.join("store"))?);
    let objects = Arc::new(ObjectStore::open(&data)?);
    let online = secrets.online();
    let (snapshot, timestamp) = (secrets.snapshot.clone(), secrets.timestamp.clone());
    let repository = Arc::new(Repository::open(&data.join("repository"), snapshot, timestamp)?);
    let revoked = Arc::<Revoked>::default();
    let (options, embedded, address) = start_broker(&config, &objects, &secrets, &revoked).await?;
    let read_back = embedded.is_none();
    let (link, arrivals) = link::start(options).map_err(ServeError::Link)?;
    let (jobs, waiting) = mpsc::channel(MAX_JOBS);
    let (clearings, clearing) = mpsc::channel(MAX_CLEARINGS);
    let metrics = Arc::new(Metrics::default());
    let fleet = Arc::new(Fleet::open(FleetParts {
        id: config.fleet.clone(),
        signers: secrets.fleet,
        named: named(&repository),
        listed: listed(&repository),
        policy: config.enrolment,
        revoked: Arc::clone(&revoked),
        store: Arc::clone(&store),
        objects: Arc::clone(&objects),
        metrics: Arc::clone(&metrics),
        outlet: outlet(link.clone(), jobs, clearings, metrics),
        alerts: config.alerts.parts.clone(),
        raw_reports: config.raw_reports,
        review: ReviewParts { key: secrets.review.clone(), keep: config.keep_samples },
    })?);
    let poster = Arc::new(Poster::new(config.fleet.clone(), Arc::clone(fleet.alert_routes()))?);
    let publisher = publisher(&fleet, link.clone(), objects, Arc::clone(&store), read_back);
    let publishing = tokio::spawn(publisher.run(waiting));
    let cleared = tokio::spawn(clearing::note(Arc::clone(&fleet), clearing));
    fleet.resume_publishing();
    fleet.sign_anew(now())?;
    if embedded.is_some() {
        fleet.nobody_is_there(now())?;
    }
    let http = TcpListener::bind(config.http)
        .await
        .map_err(|source| ServeError::Http { address: config.http, source })?;
    let http_address =
        http.local_addr().map_err(|source| ServeError::Http { address: config.http, source })?;
    announce(&config, &fleet, &repository, http_address, &address)?;
    let (stop, stopped) = watch::channel(false);
    let changes = repository.changes();
    let keeping = tokio::spawn(keeper::keep(Arc::clone(&repository), link.clone(), changes));
    let clerk = Clerk {
        fleet: Arc::clone(&fleet),
        repository: Arc::clone(&repository),
        link,
        own_broker: embedded.is_some(),
    };
    let clerk = tokio::spawn(clerk.run(arrivals, stopped.clone()));
    let every = Duration::from_millis(config.alerts.every.0);
    let alerting = [
        tokio::spawn(notify::keeper::look(Arc::clone(&fleet), every, stopped.clone())),
        tokio::spawn(notify::keeper::deliver(Arc::clone(&fleet), Arc::clone(&poster), stopped.clone())),
    ];
    let router = api::router(
        Arc::clone(&fleet),
        repository,
        (online, poster),
        secrets.operator,
        http_address,
        stopped.clone(),
    );
    let serving = tokio::spawn(serve_http(http, router, stopped));
    let outcome = until_told(&fleet).await;
    info!("stopping");
    let _ = stop.send(true);
    let _ = tokio::time::timeout(DRAIN, serving).await;
    let _ = clerk.await;
    for task in alerting {
        let _ = task.await;
    }
    publishing.abort();
    cleared.abort();
    keeping.abort();
    if let Some(broker) = embedded {
        broker.stop().await?;
    }
    store.commit()?;
    outcome
}

async fn until_told(fleet: &Fleet) -> Result<(), ServeError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        () = fleet.store_failed() => Err(ServeError::StoreFailed),
    }
}

/// Starts the embedded broker if it is wanted; how to reach the broker either way.
async fn start_broker(
    config: &Config,
    objects: &Arc<ObjectStore>,
    secrets: &Secrets,
    revoked: &Arc<Revoked>,
) -> Result<(LinkOptions, Option<EmbeddedBroker>, String), ServeError> {
    let mut random = [0; 1];
    // Without randomness waits are merely not spread.
    let _ = getrandom::fill(&mut random);
    let options = |host: String, port, client_id, credentials, transport| LinkOptions {
        host,
        port,
        client_id,
        credentials,
        fleet: config.fleet.clone(),
        transport,
        jitter_percent: u32::from(random[0]) * 100 / 255,
    };
    match &config.broker {
        BrokerChoice::Embedded { listen, max_sessions, tls } => {
            let broker = EmbeddedBroker::start(EmbeddedBrokerConfig {
                listen: *listen,
                fleet: config.fleet.clone(),
                objects: Arc::clone(objects),
                server_password: ServerPassword::new(secrets.broker.as_bytes())?,
                retained_dir: config.data.join("retained"),
                max_sessions: *max_sessions,
                tls: tls.clone(),
                revoked: Arc::clone(revoked),
            })
            .await?;
            let (address, own) = (broker.local_addr(), broker.server_addr());
            let credentials = Some((SERVER_USER.to_owned(), secrets.broker.clone()));
            let host = reachable(own.ip()).to_string();
            let client_id = SERVER_CLIENT_PREFIX.to_owned();
            let options = options(host, own.port(), client_id, credentials, Transport::Tcp);
            let how = if tls.is_some() { ", mutual TLS" } else { "" };
            Ok((options, Some(broker), format!("embedded, on {address}{how}")))
        }
        BrokerChoice::External(ExternalBroker { host, port, user, password_file, tls }) => {
            let credentials = match password_file {
                Some(path) => Some((user.clone(), Zeroizing::new(read(path)?.trim().to_owned()))),
                None => None,
            };
            let client_id = format!("{SERVER_CLIENT_PREFIX}-{}", config.fleet);
            let transport = tls.as_ref().map_or(Ok(Transport::Tcp), tls::transport)?;
            Ok((
                options(host.clone(), *port, client_id, credentials, transport),
                None,
                format!("{host}:{port}"),
            ))
        }
    }
}

/// Where a listener on every address is reached from here.
fn reachable(listen: IpAddr) -> IpAddr {
    match listen {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) | IpAddr::V6(_) => listen,
    }
}

fn outlet(
    link: Link,
    jobs: mpsc::Sender<Job>,
    clearings: mpsc::Sender<Clearing>,
    metrics: Arc<Metrics>,
) -> Outlet {
    Box::new(move |outgoing| {
        let sent = match outgoing {
            Outgoing::Message { topic, payload, retain } => link.send(topic, payload, retain).is_ok(),
            Outgoing::Publish(job) => jobs.try_send(job).is_ok(),
            Outgoing::Clear { device, since, topics } => Clearing::begin(&link, device, since, topics)
                .is_ok_and(|clearing| clearings.try_send(clearing).is_ok()),
        };
        if !sent {
            metrics.dropped();
        }
    })
}

/// Which keys published metadata names for assignments.
fn named(repository: &Arc<Repository>) -> Box<Named> {
    let repository = Arc::clone(repository);
    Box::new(move || repository.fleet_keys())
}

/// What uploaded metadata says about releases.
fn listed(repository: &Arc<Repository>) -> Box<Listed> {
    let repository = Arc::clone(repository);
    Box::new(move |id, statement| repository.lists(id, statement))
}

fn publisher(
    fleet: &Arc<Fleet>,
    link: Link,
    objects: Arc<ObjectStore>,
    store: Arc<dyn Store>,
    read_back: bool,
) -> Publisher {
    let fleet = Arc::downgrade(fleet);
    let published = move |id: &_| {
        if let Some(fleet) = fleet.upgrade()
            && let Err(error) = fleet.release_published(id, now())
        {
            error!(%error, "a published release could not be shown");
        }
    };
    Publisher { link, objects, store, read_back, published: Box::new(published) }
}

fn announce(
    config: &Config,
    fleet: &Fleet,
    repository: &Repository,
    http: SocketAddr,
    broker: &str,
) -> Result<(), FleetError> {
    let key = fleet.key()?;
    info!(fleet = %config.fleet, %http, broker, %key, "serving");
    println!("fleet       {}", config.fleet);
    println!("page, API   http://{http}/");
    println!("MQTT        {broker}");
    println!("fleet key   {key}");
    println!("token file  {}", config.data.join("keys/operator.token").display());
    if repository.files().is_empty() {
        println!("trust       none yet: devices follow this server once `serin-fleet trust publish` was run");
    }
    Ok(())
}

async fn serve_http(http: TcpListener, router: axum::Router, mut stopped: watch::Receiver<bool>) {
    let told = async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    if let Err(error) = axum::serve(http, router).with_graceful_shutdown(told).await {
        error!(%error, "HTTP ended");
    }
}
