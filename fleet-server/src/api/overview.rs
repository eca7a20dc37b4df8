//! The server itself: health, keys, counts.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde::Serialize;
use serin_protocol::message::Presence;

use super::Context;
use super::failure::Failure;

#[derive(Serialize)]
pub(super) struct Health {
    status: &'static str,
}

/// Answers as soon as requests are served; whether the broker is reached is in the metrics.
pub(super) async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}

#[derive(Serialize)]
pub(super) struct Keys {
    fleet: String,
    id: String,
}

/// What devices must be configured with.
pub(super) async fn keys(State(context): State<Context>) -> Result<Json<Keys>, Failure> {
    let key = context.fleet.key().map_err(Failure::from)?;
    Ok(Json(Keys { fleet: key.to_string(), id: key.id().to_string() }))
}

#[derive(Serialize)]
pub(super) struct FleetView {
    fleet: String,
    version: &'static str,
    devices: usize,
    online: usize,
    pinned: usize,
}

pub(super) async fn fleet(State(context): State<Context>) -> Json<FleetView> {
    let devices = context.fleet.devices();
    Json(FleetView {
        fleet: context.fleet.id().to_string(),
        version: env!("CARGO_PKG_VERSION"),
        devices: devices.len(),
        online: devices.iter().filter(|record| record.hello.presence == Presence::Online).count(),
        pinned: devices.iter().filter(|record| record.hello.pinned).count(),
    })
}

pub(super) async fn metrics(State(context): State<Context>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], context.fleet.metrics_text())
}
