//! How far what a release's devices see and say lies from what its owner trained on, and from what the
//! release before it says on other devices at the same time.

use std::collections::BTreeSet;

use serin_protocol::ids::{DeviceId, Millis, ReleaseId, UnixMillis};
use serin_protocol::message::{Report, Role};
use serin_protocol::sketch::profile::SketchProfile;
use serin_protocol::sketch::{Histogram, LatencyHistogram};

use super::evidence::merge;
use super::releases::profile_of;
use super::{Fleet, FleetError, State};
use crate::stats::distance::{counts, kolmogorov_smirnov, psi};

/// How far back is looked: long enough for slow devices to report, short enough to be about now.
pub const WINDOW: Millis = Millis::from_secs(3600);

/// Features listed, the most moved first.
pub const MAX_LISTED: usize = 64;

/// The summary.
#[derive(Clone, Debug)]
pub struct Drift {
    /// The release.
    pub release: ReleaseId,
    /// Windows from here on are in it.
    pub since: UnixMillis,
    /// What the devices with the release showed.
    pub arm: Arm,
    /// What devices with the release before it showed in the same time, where a rollout compares them.
    pub control: Option<Arm>,
    /// Features by distance from the reference, the most moved first.
    pub features: Vec<Moved>,
    /// The predicted classes, against the reference.
    pub predictions: Option<Moved>,
    /// The confidence, against the reference.
    pub confidence: Option<Moved>,
    /// The predicted classes, against the control.
    pub against_control: Option<Distance>,
    /// Shares of the predicted classes in the reference data.
    pub reference_classes: Vec<f64>,
}

/// What some devices showed together.
#[derive(Clone, Debug, Default)]
pub struct Arm {
    /// What they run.
    pub releases: BTreeSet<ReleaseId>,
    /// Who reported.
    pub devices: BTreeSet<DeviceId>,
    /// Their inferences.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// Time per inference.
    pub latency: LatencyHistogram,
    /// Predicted classes.
    pub predictions: Histogram,
    confidence: Histogram,
    features: Vec<Histogram>,
}

impl Arm {
    /// Share of each predicted class.
    pub fn classes(&self) -> Vec<f64> {
        shares(&self.predictions)
    }
}

/// One thing that may have moved.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    /// Its name.
    pub name: String,
    /// How far.
    pub distance: Distance,
    /// Values seen.
    pub seen: u64,
    /// Share of values that were missing.
    pub missing: f64,
}

/// Two distances between the same distributions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distance {
    /// Population stability index: by custom 0.1 is a little, 0.25 a lot.
    pub psi: f64,
    /// Kolmogorov-Smirnov distance of the binned values, 0 to 1.
    pub ks: f64,
}

impl Fleet {
    /// The drift of `release` over the last [`WINDOW`].
    pub fn drift(&self, release: &ReleaseId, now: UnixMillis) -> Result<Drift, FleetError> {
        let facts = self.release(release)?;
        let profile = profile_of(&*self.store, &facts.record)?;
        let mut since = UnixMillis(now.0.saturating_sub(WINDOW.0));
        let compared = compared_with(&self.lock(), release);
        let mut control = None;
        if let Some((started, baselines)) = compared {
            since = since.max(started);
            control = Some(self.arm(&baselines, since)?).filter(|arm| !arm.devices.is_empty());
        }
        let arm = self.arm(std::slice::from_ref(release), since)?;
        let moved = |name: &str, sketch: &SketchProfile, seen: &Histogram| {
            let distance = distance(&sketch.reference, seen)?;
            let missing = seen.missing as f64 / seen.total().max(1) as f64;
            Some(Moved { name: name.to_owned(), distance, seen: seen.total(), missing })
        };
        let named = profile.features.iter().zip(&arm.features);
        let mut features: Vec<Moved> =
            named.filter_map(|(feature, seen)| moved(feature.name.as_str(), &feature.sketch, seen)).collect();
        features.sort_by(|a, b| b.distance.psi.total_cmp(&a.distance.psi));
        features.truncate(MAX_LISTED);
        let output =
            |name, sketch: Option<&SketchProfile>, seen| sketch.and_then(|sketch| moved(name, sketch, seen));
        Ok(Drift {
            release: release.clone(),
            since,
            features,
            predictions: output("prediction", profile.predictions.as_ref(), &arm.predictions),
            confidence: output("confidence", profile.confidence.as_ref(), &arm.confidence),
            against_control: control
                .as_ref()
                .and_then(|control| distance(&control.predictions, &arm.predictions)),
            reference_classes: profile
                .predictions
                .map(|sketch| shares(&sketch.reference))
                .unwrap_or_default(),
            arm,
            control,
        })
    }

    fn arm(&self, releases: &[ReleaseId], since: UnixMillis) -> Result<Arm, FleetError> {
        let mut arm = Arm { releases: releases.iter().cloned().collect(), ..Arm::default() };
        for release in releases {
            let answered = |report: &Report| report.role != Role::Shadow;
            for report in self.store.reports(release, since)?.into_iter().filter(answered) {
                arm.devices.insert(report.device);
                arm.requests = arm.requests.saturating_add(report.requests);
                arm.errors = arm.errors.saturating_add(report.errors);
                arm.latency.merge(&report.latency);
                merge(&mut arm.predictions, &report.predictions);
                merge(&mut arm.confidence, &report.confidence);
                let first = usize::from(report.first_feature);
                if arm.features.len() < first + report.features.len() {
                    arm.features.resize(first + report.features.len(), Histogram::default());
                }
                for (mine, theirs) in arm.features.iter_mut().skip(first).zip(&report.features) {
                    merge(mine, theirs);
                }
            }
        }
        Ok(arm)
    }
}

/// The last rollout of `release` that has something to compare with: when it started, and with what.
fn compared_with(state: &State, release: &ReleaseId) -> Option<(UnixMillis, Vec<ReleaseId>)> {
    let mut rollouts = state.rollouts.values().rev().map(|live| &live.rollout);
    let rollout = rollouts.find(|rollout| rollout.release().id == *release)?;
    let baselines: Vec<_> = rollout.baselines().iter().map(|baseline| baseline.id.clone()).collect();
    (!baselines.is_empty()).then(|| (rollout.started(), baselines))
}

fn distance(reference: &Histogram, seen: &Histogram) -> Option<Distance> {
    let (reference, seen) = (counts(reference), counts(seen));
    Some(Distance { psi: psi(&reference, &seen)?, ks: kolmogorov_smirnov(&reference, &seen)? })
}

fn shares(histogram: &Histogram) -> Vec<f64> {
    let total = histogram.counts.iter().sum::<u64>().max(1) as f64;
    histogram.counts.iter().map(|count| *count as f64 / total).collect()
}
