//! The REST API, the live stream, metrics and the page: one file per noun. Domain types are converted
//! here; nothing below knows HTTP. `openapi.yaml` describes it for others.

mod access;
mod alerts;
mod devices;
mod download;
mod drift;
mod failure;
mod orders;
mod overview;
mod page;
mod plans;
mod releases;
mod review;
mod rollouts;
mod stream;
mod tokens;
mod trials;
mod triggers;
mod trust;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post, put};
use axum::{Router, middleware};
use tokio::sync::{Semaphore, watch};

use crate::fleet::secrets::OperatorToken;
use crate::fleet::{Fleet, FleetError};
use crate::notify::post::Poster;
use crate::repository::Repository;
use crate::trust::Online;
use crate::trust::folder::MAX_FILE_BYTES;
use failure::Failure;

/// Largest JSON body: a plan of 16 stages is a few kilobytes.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Watchers of the live stream at a time; each holds a connection and a place in the feed.
const MAX_WATCHERS: usize = 64;
/// Uploads at a time; each keeps a thread and the disk busy.
const MAX_UPLOADS: usize = 4;
/// Bundles read at a time under `/tuf/targets/`; each holds a connection and reads the disk.
const MAX_DOWNLOADS: usize = 16;

/// What handlers need.
#[derive(Clone)]
struct Context {
    fleet: Arc<Fleet>,
    repository: Arc<Repository>,
    online: Arc<Online>,
    poster: Arc<Poster>,
    access: Arc<access::Access>,
    watchers: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

/// The whole of it, for a server that listens at `listen`.
pub fn router(
    fleet: Arc<Fleet>,
    repository: Arc<Repository>,
    (online, poster): (Online, Arc<Poster>),
    operator: OperatorToken,
    listen: SocketAddr,
    stopped: watch::Receiver<bool>,
) -> Router {
    let context = Context {
        fleet,
        repository,
        online: Arc::new(online),
        poster,
        access: Arc::new(access::Access::new(operator, listen)),
        watchers: Arc::new(Semaphore::new(MAX_WATCHERS)),
        uploads: Arc::new(Semaphore::new(MAX_UPLOADS)),
        downloads: Arc::new(Semaphore::new(MAX_DOWNLOADS)),
        stopped,
    };
    let guarded = Router::new()
        .route("/api/v1/fleet", get(overview::fleet))
        .route("/api/v1/devices", get(devices::list))
        .route("/api/v1/devices/{id}", get(devices::one).delete(devices::forget))
        .route("/api/v1/devices/{id}/revoke", post(devices::revoke))
        .route("/api/v1/devices/{id}/tags", post(devices::tag))
        .route("/api/v1/devices/{id}/pause", post(devices::pause))
        .route("/api/v1/devices/{id}/resume", post(devices::resume))
        .route("/api/v1/devices/{id}/trial", post(trials::begin))
        .route("/api/v1/tokens", get(tokens::list).post(tokens::invite))
        .route("/api/v1/tokens/{id}", delete(tokens::withdraw))
        .route("/api/v1/releases", get(releases::list).post(releases::add))
        .route("/api/v1/releases/{id}", get(releases::one))
        .route("/api/v1/rollouts", get(rollouts::list).post(rollouts::start))
        .route("/api/v1/rollouts/plan", post(plans::preview))
        .route("/api/v1/rollouts/{id}", get(rollouts::one))
        .route("/api/v1/rollouts/{id}/{command}", post(orders::order))
        .route("/api/v1/trust/publish", post(trust::publish))
        .route("/tuf/targets/{*path}", get(trust::target))
        .route("/api/v1/alerts", get(alerts::standings))
        .route("/api/v1/alerts/history", get(alerts::history))
        .route("/api/v1/alerts/receivers", get(alerts::receivers))
        .route("/api/v1/alerts/rules", get(alerts::rules).post(alerts::put_rules))
        .route("/api/v1/alerts/rules/{name}", delete(alerts::remove_rule))
        .route("/api/v1/alerts/silences", post(alerts::silence))
        .route("/api/v1/alerts/silences/{id}", delete(alerts::unsilence))
        .route("/api/v1/alerts/test", post(alerts::test))
        .route("/api/v1/triggers", get(triggers::list).post(triggers::fire))
        .route("/api/v1/triggers/{id}/ack", post(triggers::acknowledge))
        .route("/api/v1/triggers/{id}/answer", post(triggers::answer))
        .route("/api/v1/review", get(review::list))
        .route("/api/v1/review/views", get(review::views))
        .route("/api/v1/review/{id}/show", post(review::show))
        .route("/api/v1/review/{id}/judge", post(review::judge))
        .route("/api/v1/review/{id}/drop", post(review::remove))
        .route("/api/v1/history", get(drift::history))
        .route("/api/v1/drift", get(drift::of_release))
        .route("/api/v1/shadow", get(trials::shadowed))
        .route("/api/v1/stream", get(stream::watch))
        .route("/metrics", get(overview::metrics))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .merge(
            Router::new()
                .route("/api/v1/trust/metadata/{file}", put(trust::accept))
                .layer(DefaultBodyLimit::max(MAX_FILE_BYTES as usize)),
        )
        // Its size is checked while it is written to disk.
        .merge(Router::new().route("/api/v1/bundles/{digest}", put(releases::upload)))
        .layer(middleware::from_fn_with_state(context.clone(), access::check));
    // Metadata says who signs what; other tools read it under whatever name they reach it. Models are for
    // those whom the API lets in.
    let public = Router::new().route("/tuf/metadata/{file}", get(trust::metadata));
    Router::new()
        .route("/", get(page::page))
        .route("/healthz", get(overview::health))
        .route("/api/v1/keys", get(overview::keys))
        .route("/api/v1/trust/online", get(trust::online))
        .route("/api/v1/openapi", get(page::openapi))
        .merge(guarded)
        .fallback(|| async { Failure::not_found("there is nothing at this path") })
        .layer(middleware::from_fn_with_state(context.clone(), access::check_host))
        .merge(public)
        .with_state(context)
}

/// Runs what reads or writes the disk where it may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FleetError> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Failure::from),
        Err(error) => {
            tracing::error!(%error, "a request ended abnormally");
            Err(Failure::internal())
        }
    }
}
