//! How far what a release's devices see and say lies from what its owner trained on, and from what the
//! release before it says on other devices at the same time.

pub mod cause;

use std::collections::{BTreeMap, BTreeSet};

use serin_protocol::ids::{DeviceId, Millis, ReleaseId, UnixMillis};
use serin_protocol::message::{Report, Role};
use serin_protocol::sketch::profile::{FeatureProfile, Profile, SketchProfile};
use serin_protocol::sketch::{Bins, Histogram, LatencyHistogram};

use super::evidence::merge;
use super::releases::profile_of;
use super::{Fleet, FleetError, State};
use crate::stats::distance::{counts, jensen_shannon, kolmogorov_smirnov, psi, wasserstein};
use cause::{Cause, Finding, Seen, judge};

/// How far back is looked: long enough for slow devices to report, short enough to be about now.
pub const WINDOW: Millis = Millis::from_secs(3600);

/// Features listed, the most moved first.
pub const MAX_LISTED: usize = 64;

/// Devices named per feature, the most moved first: enough to go and look.
pub const MAX_NAMED: usize = 5;

/// Moved features whose devices are looked at one by one: memory for each device and feature.
const MAX_TRACED: usize = 8;

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
    /// Whether it moved, and what moved it.
    pub finding: Finding,
    /// Of a feature that moved, the devices on which it moved most, each with its PSI.
    pub devices: Vec<(DeviceId, f64)>,
}

/// Distances between the same distributions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distance {
    /// Population stability index: by custom 0.1 is a little, 0.25 a lot.
    pub psi: f64,
    /// Kolmogorov-Smirnov distance of the binned values, 0 to 1.
    pub ks: f64,
    /// Jensen-Shannon divergence in bits, 0 to 1.
    pub js: f64,
    /// How far values moved on the whole, in standard deviations of the reference; none where that has no spread.
    pub moved: Option<f64>,
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
            control = Some(self.arm(&baselines, since, &profile)?).filter(|arm| !arm.devices.is_empty());
        }
        let arm = self.arm(std::slice::from_ref(release), since, &profile)?;
        let mut features = moved(Watched::features(&profile, &arm, control.as_ref()));
        features.sort_by(|a, b| b.distance.psi.total_cmp(&a.distance.psi));
        features.truncate(MAX_LISTED);
        self.trace(release, since, &profile, &mut features)?;
        let mut outputs = moved(Watched::outputs(&profile, &arm, control.as_ref()));
        let mut output = |name: &str| {
            let at = outputs.iter().position(|moved| moved.name == name)?;
            Some(outputs.swap_remove(at))
        };
        Ok(Drift {
            release: release.clone(),
            since,
            features,
            predictions: output(PREDICTION),
            confidence: output(CONFIDENCE),
            against_control: control.as_ref().and_then(|control| {
                let sketch = profile.predictions.as_ref()?;
                distance(&control.predictions, &arm.predictions, &sketch.bins)
            }),
            reference_classes: profile
                .predictions
                .map(|sketch| shares(&sketch.reference))
                .unwrap_or_default(),
            arm,
            control,
        })
    }

    /// What devices with `releases` showed on the bins of `profile`: what their own profiles have on other bins is
    /// left out.
    fn arm(&self, releases: &[ReleaseId], since: UnixMillis, profile: &Profile) -> Result<Arm, FleetError> {
        let mut arm = Arm {
            releases: releases.iter().cloned().collect(),
            features: vec![Histogram::default(); profile.features.len()],
            ..Arm::default()
        };
        for release in releases {
            let own = profile_of(&*self.store, &self.release(release)?.record)?;
            let places: Vec<Option<usize>> = own
                .features
                .iter()
                .map(|feature| {
                    let like = |other: &FeatureProfile| {
                        other.name == feature.name && other.sketch.bins == feature.sketch.bins
                    };
                    profile.features.iter().position(like)
                })
                .collect();
            let same = |a: &Option<SketchProfile>, b: &Option<SketchProfile>| match (a, b) {
                (Some(a), Some(b)) => a.bins == b.bins,
                (None, _) | (_, None) => false,
            };
            let answered = |report: &Report| report.role != Role::Shadow;
            for report in self.store.reports(release, since)?.into_iter().filter(answered) {
                arm.requests = arm.requests.saturating_add(report.requests);
                arm.errors = arm.errors.saturating_add(report.errors);
                arm.latency.merge(&report.latency);
                if same(&own.predictions, &profile.predictions) {
                    merge(&mut arm.predictions, &report.predictions);
                }
                if same(&own.confidence, &profile.confidence) {
                    merge(&mut arm.confidence, &report.confidence);
                }
                let places = places.iter().skip(usize::from(report.first_feature));
                for (place, seen) in places.zip(&report.features) {
                    if let Some(mine) = place.and_then(|place| arm.features.get_mut(place)) {
                        merge(mine, seen);
                    }
                }
                arm.devices.insert(report.device);
            }
        }
        Ok(arm)
    }

    /// Names the devices on which what moved has moved most.
    fn trace(
        &self,
        release: &ReleaseId,
        since: UnixMillis,
        profile: &Profile,
        features: &mut [Moved],
    ) -> Result<(), FleetError> {
        let is_moved = |moved: &&mut Moved| {
            matches!(moved.finding.cause, Cause::World | Cause::Release | Cause::Unknown)
        };
        let traced: Vec<&mut Moved> = features.iter_mut().filter(is_moved).take(MAX_TRACED).collect();
        let place = |name: &str| profile.features.iter().position(|feature| feature.name.as_str() == name);
        let mut traced: Vec<(usize, &mut Moved, BTreeMap<DeviceId, Histogram>)> = traced
            .into_iter()
            .filter_map(|moved| Some((place(&moved.name)?, moved, BTreeMap::new())))
            .collect();
        if traced.is_empty() {
            return Ok(());
        }
        let answered = |report: &Report| report.role != Role::Shadow;
        for report in self.store.reports(release, since)?.into_iter().filter(answered) {
            for (place, _, devices) in &mut traced {
                let at = place.checked_sub(usize::from(report.first_feature));
                if let Some(seen) = at.and_then(|at| report.features.get(at)) {
                    merge(devices.entry(report.device.clone()).or_default(), seen);
                }
            }
        }
        for (place, moved, devices) in traced {
            let Some(feature) = profile.features.get(place) else { continue };
            let reference = counts(&feature.sketch.reference);
            let far = devices.into_iter().filter(|(_, seen)| seen.total() >= cause::FEWEST);
            let mut far: Vec<(DeviceId, f64)> =
                far.filter_map(|(device, seen)| Some((device, psi(&reference, &counts(&seen))?))).collect();
            far.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            far.truncate(MAX_NAMED);
            moved.devices = far;
        }
        Ok(())
    }
}

const PREDICTION: &str = "prediction";
const CONFIDENCE: &str = "confidence";

/// Something with reference data, as it is seen.
struct Watched<'a> {
    name: &'a str,
    sketch: &'a SketchProfile,
    seen: &'a Histogram,
    control: Option<&'a Histogram>,
}

impl<'a> Watched<'a> {
    fn features(profile: &'a Profile, arm: &'a Arm, control: Option<&'a Arm>) -> Vec<Self> {
        let watched = profile.features.iter().zip(&arm.features).enumerate().map(|(at, (feature, seen))| {
            let control = control.and_then(|control| control.features.get(at));
            Self { name: feature.name.as_str(), sketch: &feature.sketch, seen, control }
        });
        watched.collect()
    }

    fn outputs(profile: &'a Profile, arm: &'a Arm, control: Option<&'a Arm>) -> Vec<Self> {
        let output = |name, sketch: &'a Option<SketchProfile>, of: fn(&Arm) -> &Histogram| {
            Some(Self { name, sketch: sketch.as_ref()?, seen: of(arm), control: control.map(of) })
        };
        [
            output(PREDICTION, &profile.predictions, |arm| &arm.predictions),
            output(CONFIDENCE, &profile.confidence, |arm| &arm.confidence),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// What can be said of things that are looked at together; nothing of those nobody has seen.
fn moved(watched: Vec<Watched<'_>>) -> Vec<Moved> {
    let seen: Vec<Seen<'_>> = watched
        .iter()
        .map(|Watched { sketch, seen, control, .. }| Seen {
            reference: &sketch.reference,
            release: seen,
            control: *control,
        })
        .collect();
    let findings = judge(&seen);
    let judged = watched.into_iter().zip(findings);
    judged
        .filter_map(|(Watched { name, sketch, seen, .. }, finding)| {
            Some(Moved {
                name: name.to_owned(),
                distance: distance(&sketch.reference, seen, &sketch.bins)?,
                seen: seen.total(),
                missing: seen.missing as f64 / seen.total().max(1) as f64,
                finding,
                devices: Vec::new(),
            })
        })
        .collect()
}

/// The last rollout of `release` that has something to compare with: when it started, and with what.
fn compared_with(state: &State, release: &ReleaseId) -> Option<(UnixMillis, Vec<ReleaseId>)> {
    let mut rollouts = state.rollouts.values().rev().map(|live| &live.rollout);
    let rollout = rollouts.find(|rollout| rollout.release().id == *release)?;
    let baselines: Vec<_> = rollout.baselines().iter().map(|baseline| baseline.id.clone()).collect();
    (!baselines.is_empty()).then(|| (rollout.started(), baselines))
}

fn distance(reference: &Histogram, seen: &Histogram, bins: &Bins) -> Option<Distance> {
    let (a, b) = (counts(reference), counts(seen));
    let deviation = (reference.m2 / reference.present().max(1) as f64).sqrt();
    let moved =
        wasserstein(reference, seen, bins.edges()).filter(|_| deviation > 0.0).map(|way| way / deviation);
    Some(Distance {
        psi: psi(&a, &b)?,
        ks: kolmogorov_smirnov(&a, &b)?,
        js: jensen_shannon(&a, &b)?,
        moved: moved.filter(|moved| moved.is_finite()),
    })
}

fn shares(histogram: &Histogram) -> Vec<f64> {
    let total = histogram.counts.iter().sum::<u64>().max(1) as f64;
    histogram.counts.iter().map(|count| *count as f64 / total).collect()
}
