//! How far what a release's devices see and say lies from what its owner trained on, and from what the
//! release before it says on other devices at the same time.

pub mod arm;
pub mod cause;
pub mod quality;

use std::collections::BTreeMap;

use serin_protocol::ids::{DeviceId, Millis, ReleaseId, SegmentNumber, UnixMillis};
use serin_protocol::manifest::segments::OTHER;
use serin_protocol::message::Role;
use serin_protocol::sketch::profile::{FeatureKind, Profile, SketchProfile};
use serin_protocol::sketch::{Bins, Histogram};

use super::releases::profile_of;
use super::{Fleet, FleetError, State};
use crate::stats::distance::{counts, jensen_shannon, kolmogorov_smirnov, psi, wasserstein};
use crate::store::sums::merge;
use arm::{Arm, Sums};
use cause::{Cause, Finding, Seen, judge};
use quality::Right;

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
    /// All inputs.
    pub whole: Picture,
    /// Parts of them, the rest that belongs to no named one last; none where none is named.
    pub segments: Vec<Segment>,
    /// The predicted classes, against the control.
    pub against_control: Option<Distance>,
    /// Shares of the predicted classes in the reference data.
    pub reference_classes: Vec<f64>,
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
    /// Kolmogorov-Smirnov distance of the binned values, 0 to 1; none of names, which have no order.
    pub ks: Option<f64>,
    /// Jensen-Shannon divergence in bits, 0 to 1.
    pub js: f64,
    /// How far values moved on the whole, in standard deviations of the reference; none where that has no spread.
    pub moved: Option<f64>,
}

/// What can be said of all inputs, or of a segment of them.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Features by distance from the reference, the most moved first.
    pub features: Vec<Moved>,
    /// The predicted classes or values, against the reference.
    pub predictions: Option<Moved>,
    /// The confidence, against the reference.
    pub confidence: Option<Moved>,
    /// The entropy of the probabilities, against the reference.
    pub entropy: Option<Moved>,
    /// How right predictions were, as far as the truth became known.
    pub right: Option<Right>,
    /// The same of the control.
    pub control_right: Option<Right>,
}

/// A part of the inputs that is looked at apart.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its name.
    pub name: String,
    /// Inferences.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// What can be said of it.
    pub picture: Picture,
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
        let beside = control.as_ref().map(|control| &control.whole);
        let mut whole =
            pictures(&profile, [(None, &arm.whole, beside)]).pop().unwrap_or_else(Picture::nothing);
        self.trace(release, since, &profile, &mut whole.features)?;
        Ok(Drift {
            release: release.clone(),
            since,
            whole,
            segments: segments(&profile, &arm, control.as_ref()),
            against_control: control.as_ref().and_then(|control| {
                let sketch = profile.predictions.as_ref()?;
                distance(&control.whole.predictions, &arm.whole.predictions, &sketch.bins, true)
            }),
            reference_classes: profile
                .predictions
                .map(|sketch| shares(&sketch.reference))
                .unwrap_or_default(),
            arm,
            control,
        })
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
        self.store.visit_reports(release, since, &mut |report| {
            for (place, _, devices) in traced.iter_mut().filter(|_| report.role != Role::Shadow) {
                let at = place.checked_sub(usize::from(report.first_feature));
                if let Some(seen) = at.and_then(|at| report.features.get(at)) {
                    merge(devices.entry(report.device.clone()).or_default(), seen);
                }
            }
        })?;
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

/// Segments by number and name, the rest last; none where nothing is told apart.
pub(super) fn named_segments(profile: &Profile) -> Vec<(SegmentNumber, String)> {
    if profile.segments.is_empty() {
        return Vec::new();
    }
    let numbers = (1_u8..).map(SegmentNumber);
    let rest = (SegmentNumber(0), OTHER.to_owned());
    numbers.zip(profile.segments.iter().map(ToString::to_string)).chain([rest]).collect()
}

/// Every segment by its name. Features of all are judged together: many segments must not alarm sooner than one.
fn segments(profile: &Profile, arm: &Arm, control: Option<&Arm>) -> Vec<Segment> {
    let named = named_segments(profile).into_iter();
    let all: Vec<(String, SegmentNumber, &Sums)> =
        named.filter_map(|(number, name)| Some((name, number, arm.segment(number)?))).collect();
    let looked_at = all.iter().map(|(_, number, seen)| {
        (Some(*number), *seen, control.and_then(|control| control.segment(*number)))
    });
    let pictures = pictures(profile, looked_at.collect::<Vec<_>>());
    let pairs = all.into_iter().zip(pictures);
    pairs
        .map(|((name, _, seen), picture)| Segment {
            name,
            requests: seen.requests,
            errors: seen.errors,
            picture,
        })
        .collect()
}

impl Picture {
    const fn nothing() -> Self {
        Self {
            features: Vec::new(),
            predictions: None,
            confidence: None,
            entropy: None,
            right: None,
            control_right: None,
        }
    }
}

/// What a distribution is of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Feature(usize),
    Predictions,
    Confidence,
    Entropy,
}

/// Something with reference data, as it is seen.
struct Watched<'a> {
    of: Of,
    name: &'a str,
    /// Its values are amounts, so that near ones are alike.
    ordered: bool,
    bins: &'a Bins,
    reference: &'a Histogram,
    seen: &'a Histogram,
    control: Option<&'a Histogram>,
}

impl<'a> Watched<'a> {
    fn all(
        profile: &'a Profile,
        segment: Option<SegmentNumber>,
        seen: &'a Sums,
        control: Option<&'a Sums>,
    ) -> Vec<Self> {
        let reference = |sketch: &'a SketchProfile| match segment {
            Some(segment) => sketch.in_segment(segment),
            None => &sketch.reference,
        };
        let features =
            profile.features.iter().zip(&seen.features).enumerate().map(|(at, (feature, seen))| Self {
                of: Of::Feature(at),
                name: feature.name.as_str(),
                ordered: feature.kind == FeatureKind::Numeric,
                bins: &feature.sketch.bins,
                reference: reference(&feature.sketch),
                seen,
                control: control.and_then(|control| control.features.get(at)),
            });
        let output = |of, name, sketch: &'a Option<SketchProfile>, pick: fn(&Sums) -> &Histogram| {
            let sketch = sketch.as_ref()?;
            let (bins, reference) = (&sketch.bins, reference(sketch));
            let (seen, control) = (pick(seen), control.map(pick));
            Some(Self { of, name, ordered: true, bins, reference, seen, control })
        };
        let outputs = [
            output(Of::Predictions, "prediction", &profile.predictions, |sums| &sums.predictions),
            output(Of::Confidence, "confidence", &profile.confidence, |sums| &sums.confidence),
            output(Of::Entropy, "entropy", &profile.entropy, |sums| &sums.entropy),
        ];
        features.chain(outputs.into_iter().flatten()).collect()
    }
}

/// What can be said of each of several parts that are looked at together; nothing of what nobody has seen.
fn pictures<'a>(
    profile: &'a Profile,
    parts: impl IntoIterator<Item = (Option<SegmentNumber>, &'a Sums, Option<&'a Sums>)>,
) -> Vec<Picture> {
    let parts: Vec<_> = parts.into_iter().collect();
    let watched: Vec<Vec<Watched<'_>>> = parts
        .iter()
        .map(|(segment, seen, control)| Watched::all(profile, *segment, seen, *control))
        .collect();
    let is_feature = |watched: &&Watched<'_>| matches!(watched.of, Of::Feature(_));
    // Features are many and judged together; outputs are few, and one that moves is not to hide behind them.
    let mut features = findings(watched.iter().flatten().filter(is_feature)).into_iter();
    let mut outputs = findings(watched.iter().flatten().filter(|one| !is_feature(one))).into_iter();
    let judged = watched.iter().zip(parts).map(|(watched, (_, seen, control))| {
        let mut picture = Picture::nothing();
        for one in watched {
            let found = if is_feature(&one) { features.next() } else { outputs.next() };
            let Some(moved) = found.and_then(|finding| moved(one, finding)) else { continue };
            match one.of {
                Of::Feature(_) => picture.features.push(moved),
                Of::Predictions => picture.predictions = Some(moved),
                Of::Confidence => picture.confidence = Some(moved),
                Of::Entropy => picture.entropy = Some(moved),
            }
        }
        picture.features.sort_by(|a, b| b.distance.psi.total_cmp(&a.distance.psi));
        picture.features.truncate(MAX_LISTED);
        picture.right = Right::of(seen, control);
        picture.control_right = control.and_then(|control| Right::of(control, None));
        picture
    });
    judged.collect()
}

fn findings<'a>(watched: impl Iterator<Item = &'a Watched<'a>>) -> Vec<Finding> {
    let seen: Vec<Seen<'_>> = watched
        .map(|Watched { reference, seen, control, .. }| Seen { reference, release: seen, control: *control })
        .collect();
    judge(&seen)
}

fn moved(watched: &Watched<'_>, finding: Finding) -> Option<Moved> {
    let Watched { name, ordered, bins, reference, seen, .. } = watched;
    Some(Moved {
        name: (*name).to_owned(),
        distance: distance(reference, seen, bins, *ordered)?,
        seen: seen.total(),
        missing: seen.missing as f64 / seen.total().max(1) as f64,
        finding,
        devices: Vec::new(),
    })
}

/// The last rollout of `release` that has something to compare with: when it started, and with what.
fn compared_with(state: &State, release: &ReleaseId) -> Option<(UnixMillis, Vec<ReleaseId>)> {
    let mut rollouts = state.rollouts.values().rev().map(|live| &live.rollout);
    let rollout = rollouts.find(|rollout| rollout.release().id == *release)?;
    let baselines: Vec<_> = rollout.baselines().iter().map(|baseline| baseline.id.clone()).collect();
    (!baselines.is_empty()).then(|| (rollout.started(), baselines))
}

/// Names are no amounts: nothing is cumulated over them.
fn distance(reference: &Histogram, seen: &Histogram, bins: &Bins, ordered: bool) -> Option<Distance> {
    let (a, b) = (counts(reference), counts(seen));
    let deviation = (reference.m2 / reference.present().max(1) as f64).sqrt();
    let moved = wasserstein(reference, seen, bins.edges()).filter(|_| ordered && deviation > 0.0);
    Some(Distance {
        psi: psi(&a, &b)?,
        ks: kolmogorov_smirnov(&a, &b).filter(|_| ordered),
        js: jensen_shannon(&a, &b)?,
        moved: moved.map(|way| way / deviation).filter(|moved| moved.is_finite()),
    })
}

fn shares(histogram: &Histogram) -> Vec<f64> {
    let total = histogram.counts.iter().sum::<u64>().max(1) as f64;
    histogram.counts.iter().map(|count| *count as f64 / total).collect()
}
