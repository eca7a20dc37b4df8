//! How far a release's devices lie from its reference data.

use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use serin_protocol::ids::ReleaseId;
use serin_protocol::sketch::Quality;

use super::failure::Failure;
use super::{Context, blocking};
use crate::fleet::drift::arm::Arm;
use crate::fleet::drift::cause::Cause;
use crate::fleet::drift::quality::{Kind, Right};
use crate::fleet::drift::{Distance, Drift, Moved, Picture, Segment};
use crate::serve::now;
use crate::stats::proportions::Estimate;

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
    #[serde(flatten)]
    whole: PictureView,
    segments: Vec<SegmentView>,
    against_control: Option<DistanceView>,
    reference_classes: Vec<f64>,
}

#[derive(Serialize)]
struct PictureView {
    features: Vec<MovedView>,
    predictions: Option<MovedView>,
    confidence: Option<MovedView>,
    entropy: Option<MovedView>,
    quality: Option<QualityView>,
    control_quality: Option<QualityView>,
}

#[derive(Serialize)]
struct SegmentView {
    name: String,
    requests: u64,
    errors: u64,
    #[serde(flatten)]
    picture: PictureView,
}

/// How right predictions were: of classes the accuracy, of values the mean absolute error and its like.
#[derive(Serialize)]
struct QualityView {
    labelled: u64,
    accuracy: Option<EstimateView>,
    calibration_error: Option<f64>,
    brier: Option<f64>,
    calibration: Vec<CalibrationView>,
    absolute_error: Option<EstimateView>,
    root_squared_error: Option<f64>,
    bias: Option<f64>,
    against_control: Option<EstimateView>,
}

#[derive(Serialize)]
struct EstimateView {
    value: f64,
    low: f64,
    high: f64,
}

#[derive(Serialize)]
struct CalibrationView {
    labelled: u64,
    right: u64,
    confidence: f64,
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
    ks: Option<f64>,
    js: f64,
    moved: Option<f64>,
}

impl From<&Arm> for ArmView {
    fn from(arm: &Arm) -> Self {
        Self {
            releases: arm.releases.iter().map(ToString::to_string).collect(),
            devices: arm.devices.len(),
            requests: arm.whole.requests,
            errors: arm.whole.errors,
            latency_p50_micros: arm.whole.latency.quantile_micros(0.5),
            latency_p99_micros: arm.whole.latency.quantile_micros(0.99),
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

impl From<&Picture> for PictureView {
    fn from(picture: &Picture) -> Self {
        Self {
            features: picture.features.iter().map(MovedView::from).collect(),
            predictions: picture.predictions.as_ref().map(MovedView::from),
            confidence: picture.confidence.as_ref().map(MovedView::from),
            entropy: picture.entropy.as_ref().map(MovedView::from),
            quality: picture.right.as_ref().map(QualityView::from),
            control_quality: picture.control_right.as_ref().map(QualityView::from),
        }
    }
}

impl From<&Segment> for SegmentView {
    fn from(segment: &Segment) -> Self {
        let Segment { name, requests, errors, picture } = segment;
        Self { name: name.clone(), requests: *requests, errors: *errors, picture: picture.into() }
    }
}

impl From<&Right> for QualityView {
    fn from(right: &Right) -> Self {
        let Right { labelled, by, against_control } = right;
        let mut view = Self {
            labelled: *labelled,
            accuracy: None,
            calibration_error: None,
            brier: None,
            calibration: Vec::new(),
            absolute_error: None,
            root_squared_error: None,
            bias: None,
            against_control: against_control.map(EstimateView::from),
        };
        match by {
            Kind::Classes { accuracy, calibration_error, brier, calibration } => {
                view.accuracy = Some((*accuracy).into());
                (view.calibration_error, view.brier) = (*calibration_error, *brier);
                let bins = calibration.iter().map(|bin| CalibrationView {
                    labelled: bin.labelled,
                    right: bin.right,
                    confidence: bin.confidence / bin.labelled.max(1) as f64,
                });
                view.calibration = bins.collect();
            }
            Kind::Values { absolute_error, root_squared_error, bias } => {
                view.absolute_error = absolute_error.map(EstimateView::from);
                (view.root_squared_error, view.bias) = (Some(*root_squared_error), Some(*bias));
            }
        }
        view
    }
}

impl From<Estimate> for EstimateView {
    fn from(Estimate { value, low, high }: Estimate) -> Self {
        Self { value, low, high }
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
            whole: PictureView::from(&drift.whole),
            segments: drift.segments.iter().map(SegmentView::from).collect(),
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
                "segment": sum.segment,
                "devices": sum.devices,
                "reports": sum.reports,
                "requests": sum.requests,
                "errors": sum.errors,
                "latency_p50_micros": sum.latency.quantile_micros(0.5),
                "latency_p99_micros": sum.latency.quantile_micros(0.99),
                "classes": sum.predictions.counts,
                "labelled": sum.quality.as_ref().map(Quality::labelled),
                "worker_deaths": sum.worker_deaths,
            })
        })
        .collect();
    Ok(Json(json!({ "release": release.to_string(), "sums": sums })))
}
