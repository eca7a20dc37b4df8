//! Trying a release on one device, and reading how shadows did.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serin_protocol::assignment::{Probation, TrialMode};
use serin_protocol::ids::{BasisPoints, DeviceId, Millis, ReleaseId};
use serin_protocol::message::{Comparison, distance_bins, ratio_bins};
use serin_protocol::sketch::{Bins, Histogram};

use super::failure::Failure;
use super::{Context, blocking};
use crate::serve::now;

/// Longest trial that can be ordered: what a device allows.
const MAX_TRIAL: Millis = Millis::from_secs(7 * 24 * 3600);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrialOrder {
    release: String,
    mode: Mode,
    /// Share of requests or of keys, 0 to 1; all of them if not said, of an arm a tenth.
    share: Option<f64>,
    seconds: u64,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Shadow,
    Arm,
}

#[derive(Serialize)]
pub(super) struct Ordered {
    sequence: u64,
}

pub(super) async fn begin(
    State(context): State<Context>,
    Path(id): Path<String>,
    Json(order): Json<TrialOrder>,
) -> Result<(StatusCode, Json<Ordered>), Failure> {
    let device: DeviceId = id.parse().map_err(|error| Failure::bad_request(&error))?;
    let release: ReleaseId = order.release.parse().map_err(|error| Failure::bad_request(&error))?;
    let duration = Millis::from_secs(order.seconds);
    if duration == Millis(0) || duration > MAX_TRIAL {
        return Err(Failure::bad_request(&"a trial lasts from 1 second to 7 days"));
    }
    let share = order.share.unwrap_or(match order.mode {
        Mode::Shadow => 1.0,
        Mode::Arm => 0.1,
    });
    if !(0.0..=1.0).contains(&share) || share == 0.0 {
        return Err(Failure::bad_request(&"a share is above 0 and at most 1"));
    }
    let share = BasisPoints((share * 10_000.0).round() as u16);
    let mode = match order.mode {
        Mode::Shadow => TrialMode::Shadow { share },
        Mode::Arm => TrialMode::Arm { share, salt: salt_of(&release) },
    };
    let probation = Probation { duration, ..Probation::default() };
    let sequence =
        blocking(move || context.fleet.try_release(&device, &release, mode, probation, now())).await?;
    Ok((StatusCode::ACCEPTED, Json(Ordered { sequence: sequence.0 })))
}

/// The same keys for the same release, however often and wherever it is tried.
fn salt_of(release: &ReleaseId) -> u64 {
    let digest = serin_protocol::ids::Digest::of(release.to_string().as_bytes());
    digest.0.first_chunk::<8>().map_or(0, |first| u64::from_le_bytes(*first))
}

#[derive(Deserialize)]
pub(super) struct Asked {
    release: String,
}

#[derive(Serialize)]
pub(super) struct ShadowView {
    release: String,
    since: u64,
    devices: usize,
    comparisons: Vec<ComparisonView>,
}

#[derive(Serialize)]
struct ComparisonView {
    with: String,
    requests: u64,
    rows: u64,
    agreed: u64,
    agreement: Option<f64>,
    failed: u64,
    dropped: u64,
    distance_p50: Option<f64>,
    distance_p99: Option<f64>,
    time_ratio_p50: Option<f64>,
    time_ratio_p99: Option<f64>,
}

pub(super) async fn shadowed(
    State(context): State<Context>,
    Query(asked): Query<Asked>,
) -> Result<Json<ShadowView>, Failure> {
    let release: ReleaseId = asked.release.parse().map_err(|error| Failure::bad_request(&error))?;
    let of = release.clone();
    let shadowed = blocking(move || context.fleet.shadowed(&of, now())).await?;
    Ok(Json(ShadowView {
        release: release.to_string(),
        since: shadowed.since.0,
        devices: shadowed.devices.len(),
        comparisons: shadowed.comparisons.iter().map(ComparisonView::from).collect(),
    }))
}

impl From<&Comparison> for ComparisonView {
    fn from(comparison: &Comparison) -> Self {
        let Comparison { with, requests, rows, agreed, failed, dropped, distance, ratio } = comparison;
        Self {
            with: with.to_string(),
            requests: *requests,
            rows: *rows,
            agreed: *agreed,
            agreement: (*rows > 0).then(|| *agreed as f64 / *rows as f64),
            failed: *failed,
            dropped: *dropped,
            distance_p50: at_most(distance, &distance_bins(), 0.5),
            distance_p99: at_most(distance, &distance_bins(), 0.99),
            time_ratio_p50: at_most(ratio, &ratio_bins(), 0.5),
            time_ratio_p99: at_most(ratio, &ratio_bins(), 0.99),
        }
    }
}

/// The smallest edge that the `share` of all values lies below; none without values, or where it lies above the last.
fn at_most(histogram: &Histogram, bins: &Bins, share: f64) -> Option<f64> {
    let wanted = histogram.present() as f64 * share;
    let below = std::iter::once(histogram.under).chain(histogram.counts.iter().copied());
    let mut sum = 0_u64;
    let mut sums = below.map(|count| {
        sum = sum.saturating_add(count);
        sum
    });
    let at = sums.position(|sum| sum > 0 && sum as f64 >= wanted)?;
    bins.edges().get(at).copied().map(f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_edges_that_are_not_too_low() {
        let bins = ratio_bins();
        let mut histogram = Histogram::over_bins(&bins);
        assert_eq!(at_most(&histogram, &bins, 0.5), None);
        histogram.record_all(&bins, [0.9, 1.1, 1.2, 3.0]);
        let edge = at_most(&histogram, &bins, 0.5).expect("some");
        assert!((1.2..1.5).contains(&edge), "{edge}");
        let edge = at_most(&histogram, &bins, 0.99).expect("some");
        assert!((3.0..4.1).contains(&edge), "{edge}");
        histogram.record_all(&bins, [100.0; 50]);
        assert_eq!(at_most(&histogram, &bins, 0.99), None, "above the last edge");
    }
}
