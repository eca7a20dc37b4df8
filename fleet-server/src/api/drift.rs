//! How far a release's devices lie from its reference data.

use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use serin_protocol::ids::ReleaseId;

use super::failure::Failure;
use super::{Context, blocking};
use crate::fleet::drift::cause::Cause;
use crate::fleet::drift::{Arm, Distance, Drift, Moved};
use crate::serve::now;

#[derive(Deserialize)]
pub(super) struct Asked {
    release: String,
}

#[derive(Serialize)]
pub(super) struct DriftView {
    release: String,
    since: u64,
    fleet: ArmView,
    control: Option<ArmView>,
    features: Vec<MovedView>,
    predictions: Option<MovedView>,
    confidence: Option<MovedView>,
    against_control: Option<DistanceView>,
    reference_classes: Vec<f64>,
}

#[derive(Serialize)]
struct ArmView {
    releases: Vec<String>,
    devices: usize,
    requests: u64,
    errors: u64,
    latency_p50_micros: Option<u64>,
    latency_p99_micros: Option<u64>,
    classes: Vec<f64>,
}

#[derive(Serialize)]
struct MovedView {
    name: String,
    #[serde(flatten)]
    distance: DistanceView,
    seen: u64,
    missing: f64,
    cause: &'static str,
    p: Option<f64>,
    floor: Option<f64>,
    devices: Vec<DeviceMoved>,
}

#[derive(Serialize)]
struct DeviceMoved {
    device: String,
    psi: f64,
}

#[derive(Serialize)]
struct DistanceView {
    psi: f64,
    ks: f64,
    js: f64,
    moved: Option<f64>,
}

impl From<&Arm> for ArmView {
    fn from(arm: &Arm) -> Self {
        Self {
            releases: arm.releases.iter().map(ToString::to_string).collect(),
            devices: arm.devices.len(),
            requests: arm.requests,
            errors: arm.errors,
            latency_p50_micros: arm.latency.quantile_micros(0.5),
            latency_p99_micros: arm.latency.quantile_micros(0.99),
            classes: arm.classes(),
        }
    }
}

impl From<&Moved> for MovedView {
    fn from(moved: &Moved) -> Self {
        Self {
            name: moved.name.clone(),
            distance: moved.distance.into(),
            seen: moved.seen,
            missing: moved.missing,
            cause: match moved.finding.cause {
                Cause::Steady => "steady",
                Cause::TooFew => "too_few",
                Cause::World => "world",
                Cause::Release => "release",
                Cause::Unknown => "unknown",
            },
            p: moved.finding.p,
            floor: moved.finding.floor,
            devices: moved
                .devices
                .iter()
                .map(|(device, psi)| DeviceMoved { device: device.to_string(), psi: *psi })
                .collect(),
        }
    }
}

impl From<Distance> for DistanceView {
    fn from(distance: Distance) -> Self {
        Self { psi: distance.psi, ks: distance.ks, js: distance.js, moved: distance.moved }
    }
}

impl From<&Drift> for DriftView {
    fn from(drift: &Drift) -> Self {
        Self {
            release: drift.release.to_string(),
            since: drift.since.0,
            fleet: ArmView::from(&drift.arm),
            control: drift.control.as_ref().map(ArmView::from),
            features: drift.features.iter().map(MovedView::from).collect(),
            predictions: drift.predictions.as_ref().map(MovedView::from),
            confidence: drift.confidence.as_ref().map(MovedView::from),
            against_control: drift.against_control.map(DistanceView::from),
            reference_classes: drift.reference_classes.clone(),
        }
    }
}

pub(super) async fn of_release(
    State(context): State<Context>,
    Query(asked): Query<Asked>,
) -> Result<Json<DriftView>, Failure> {
    let release: ReleaseId = asked.release.parse().map_err(|error| Failure::bad_request(&error))?;
    let drift = blocking(move || context.fleet.drift(&release, now())).await?;
    Ok(Json(DriftView::from(&drift)))
}

/// What is left of older reports: by hour, then by day.
pub(super) async fn history(
    State(context): State<Context>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, Failure> {
    let release: ReleaseId = asked.release.parse().map_err(|error| Failure::bad_request(&error))?;
    let of = release.clone();
    let sums = blocking(move || context.fleet.history(&of)).await?;
    let sums: Vec<Value> = sums
        .iter()
        .map(|sum| {
            json!({
                "span": sum.span,
                "start": sum.start.0,
                "role": sum.role,
                "devices": sum.devices,
                "reports": sum.reports,
                "requests": sum.requests,
                "errors": sum.errors,
                "latency_p50_micros": sum.latency.quantile_micros(0.5),
                "latency_p99_micros": sum.latency.quantile_micros(0.99),
                "classes": sum.predictions.counts,
                "worker_deaths": sum.worker_deaths,
            })
        })
        .collect();
    Ok(Json(json!({ "release": release.to_string(), "sums": sums })))
}
