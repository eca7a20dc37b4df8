//! What devices with some releases showed together, as a whole and by segment, on the bins of one profile.

use std::collections::{BTreeMap, BTreeSet};

use serin_protocol::ids::{DeviceId, ReleaseId, SegmentNumber, UnixMillis};
use serin_protocol::message::{Report, Role};
use serin_protocol::sketch::profile::{FeatureProfile, Profile, SketchProfile};
use serin_protocol::sketch::{Histogram, LatencyHistogram, Quality};

use crate::fleet::releases::profile_of;
use crate::fleet::{Fleet, FleetError};
use crate::store::sums::merge;

/// What some devices showed together.
#[derive(Clone, Debug, Default)]
pub struct Arm {
    /// What they run.
    pub releases: BTreeSet<ReleaseId>,
    /// Who reported.
    pub devices: BTreeSet<DeviceId>,
    /// All of it.
    pub whole: Sums,
    /// The same by segment, in the order of their numbers; empty where none is named, or others are.
    pub segments: Vec<Sums>,
}

/// What was showed, added up.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// Inferences.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// Time per inference.
    pub latency: LatencyHistogram,
    /// Predicted classes or values.
    pub predictions: Histogram,
    /// How right they were, as far as the truth became known.
    pub quality: Option<Quality>,
    /// Right predictions, and those whose truth is known, of each device.
    pub right: BTreeMap<DeviceId, (f64, f64)>,
    pub(super) confidence: Histogram,
    pub(super) entropy: Histogram,
    pub(super) features: Vec<Histogram>,
}

/// Where the sketches of one release's reports go.
#[expect(clippy::struct_excessive_bools, reason = "each counts the same or not, whatever the others do")]
struct Places {
    /// For each of its features the one that counts the same.
    features: Vec<Option<usize>>,
    predictions: bool,
    confidence: bool,
    entropy: bool,
    segments: bool,
}

impl Places {
    fn of(own: &Profile, wanted: &Profile) -> Self {
        let place =
            |feature: &FeatureProfile| wanted.features.iter().position(|other| other.counts_like(feature));
        let same = |a: &Option<SketchProfile>, b: &Option<SketchProfile>| match (a, b) {
            (Some(a), Some(b)) => a.bins == b.bins,
            (None, _) | (_, None) => false,
        };
        Self {
            features: own.features.iter().map(place).collect(),
            predictions: same(&own.predictions, &wanted.predictions),
            confidence: same(&own.confidence, &wanted.confidence),
            entropy: same(&own.entropy, &wanted.entropy),
            segments: own.segments == wanted.segments,
        }
    }
}

impl Sums {
    fn over(profile: &Profile) -> Self {
        Self { features: vec![Histogram::default(); profile.features.len()], ..Self::default() }
    }

    fn add(&mut self, report: &Report, places: &Places) {
        self.requests = self.requests.saturating_add(report.requests);
        self.errors = self.errors.saturating_add(report.errors);
        self.latency.merge(&report.latency);
        for (same, mine, theirs) in [
            (places.predictions, &mut self.predictions, &report.predictions),
            (places.confidence, &mut self.confidence, &report.confidence),
            (places.entropy, &mut self.entropy, &report.entropy),
        ] {
            if same {
                merge(mine, theirs);
            }
        }
        let own = places.features.iter().skip(usize::from(report.first_feature));
        for (place, seen) in own.zip(&report.features) {
            if let Some(mine) = place.and_then(|place| self.features.get_mut(place)) {
                merge(mine, seen);
            }
        }
        if let Some(quality) = &report.quality {
            self.add_quality(&report.device, quality);
        }
    }

    fn add_quality(&mut self, device: &DeviceId, quality: &Quality) {
        match &mut self.quality {
            // Releases of one model predict the same kind of thing; another kind is left out.
            Some(mine) => {
                if !mine.merge(quality) {
                    return;
                }
            }
            none @ None => *none = Some(quality.clone()),
        }
        if let Quality::Classes(classes) = quality {
            let (right, labelled) = self.right.entry(device.clone()).or_default();
            *right += classes.right as f64;
            *labelled += classes.labelled as f64;
        }
    }
}

impl Arm {
    /// Share of each predicted class.
    pub fn classes(&self) -> Vec<f64> {
        super::shares(&self.whole.predictions)
    }

    /// What it showed in a segment.
    pub fn segment(&self, segment: SegmentNumber) -> Option<&Sums> {
        self.segments.get(usize::from(segment.0))
    }
}

impl Fleet {
    /// What devices with `releases` showed on the bins of `profile`: what their own profiles have on other bins is
    /// left out.
    pub(super) fn arm(
        &self,
        releases: &[ReleaseId],
        since: UnixMillis,
        profile: &Profile,
    ) -> Result<Arm, FleetError> {
        let segments = if profile.segments.is_empty() { 0 } else { profile.segments.len() + 1 };
        let mut arm = Arm {
            releases: releases.iter().cloned().collect(),
            whole: Sums::over(profile),
            segments: vec![Sums::over(profile); segments],
            ..Arm::default()
        };
        for release in releases {
            let own = profile_of(&*self.store, &self.release(release)?.record)?;
            let places = Places::of(&own, profile);
            self.store.visit_reports(release, since, &mut |report| {
                if report.role == Role::Shadow {
                    return;
                }
                arm.whole.add(report, &places);
                let segment = arm.segments.get_mut(usize::from(report.segment.0));
                if let Some(segment) = segment.filter(|_| places.segments) {
                    segment.add(report, &places);
                }
                if !arm.devices.contains(&report.device) {
                    arm.devices.insert(report.device.clone());
                }
            })?;
        }
        Ok(arm)
    }
}
