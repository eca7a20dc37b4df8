//! What one release did, window by window: requests, errors, latency, and a sketch of every watched
//! feature and of the predictions. Pure; after construction, recording allocates nothing.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::mem;
use std::sync::Arc;

use serin_protocol::frame::Prediction;
use serin_protocol::ids::{BootId, ByteCount, DeviceId, Digest, FieldName, Millis, ReleaseId};
use serin_protocol::manifest::Manifest;
use serin_protocol::message::{Comparison, Coverage, MAX_REPORT_FEATURES, Report, Role};
use serin_protocol::sketch::profile::Profile;
use serin_protocol::sketch::{Histogram, LatencyHistogram};
use serin_protocol::tensor::TensorHeader;

use super::comparison::{Comparing, Made};
use super::effort::Effort;
use super::schedule::{Closed, Schedule};
use super::tally::{Tally, Watched, renew};
use crate::update::effect::Now;

/// What all reports of one start of the agent have in common, and what tells them apart.
#[derive(Clone, Debug)]
pub struct Stamp {
    device: DeviceId,
    boot: BootId,
    sequence: u64,
    dropped: u32,
}

impl Stamp {
    /// For the reports that `device` makes from now on.
    pub const fn new(device: DeviceId, boot: BootId) -> Self {
        Self { device, boot, sequence: 0, dropped: 0 }
    }

    /// Reports that could not be kept are told of in the next one made.
    pub const fn note_dropped(&mut self, reports: u32) {
        self.dropped = self.dropped.saturating_add(reports);
    }
}

/// The reference profile does not describe the features of the manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileMismatch {
    /// They are not equally many.
    #[error("the reference profile has {profile} features, the manifest {manifest}")]
    Count {
        /// In the profile.
        profile: usize,
        /// In the manifest.
        manifest: usize,
    },
    /// They are named otherwise or in another order.
    #[error("feature {at} is {manifest} in the manifest and {profile} in the reference profile")]
    Name {
        /// Number of the feature, from 0.
        at: usize,
        /// In the manifest.
        manifest: FieldName,
        /// In the profile.
        profile: FieldName,
    },
}

/// How many requests came to what end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Inferences answered or failed.
    pub requests: u64,
    /// Inferences that failed.
    pub errors: u64,
    /// Requests refused: the caller's mistake, or too many at once.
    pub refused: u64,
}

impl Counters {
    /// What came to these since they were `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            errors: self.errors.saturating_sub(earlier.errors),
            refused: self.refused.saturating_sub(earlier.refused),
        }
    }
}

/// What a recorder knows at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Since the recorder was made.
    pub counters: Counters,
    /// Time in the worker, over the last closed and the open window.
    pub latency: LatencyHistogram,
    /// Since the recorder was made.
    pub effort: Effort,
}

/// Records what one release does on this device, from its first worker to its last.
///
/// At most [`serin_protocol::manifest::MAX_FEATURES`] histograms of about 300 bytes.
#[derive(Debug)]
pub struct Recorder {
    release: ReleaseId,
    profile: Arc<Profile>,
    profile_digest: Digest,
    watched: Vec<Watched>,
    schedule: Schedule,
    tally: Tally,
    totals: Counters,
    effort: Effort,
    recent: LatencyHistogram,
    worker_peak: ByteCount,
    role: Role,
    /// Where it computes what another release answers.
    comparing: Option<Comparing>,
    serving: bool,
    /// The release came or went in the open window.
    moved: bool,
}

impl Recorder {
    /// Records for the release of `manifest`, whose `profile` with digest `profile_digest` fixes the
    /// bins, in windows of `window`. Not serving yet: windows without a request are not reported.
    pub fn new(
        manifest: &Manifest,
        profile: Arc<Profile>,
        profile_digest: Digest,
        window: Millis,
        now: Now,
    ) -> Result<Self, ProfileMismatch> {
        check(manifest, &profile)?;
        let mut first = 0;
        let mut watched = Vec::new();
        for input in manifest.inputs.iter().filter(|input| !input.features.is_empty()) {
            let row = input.features.len();
            watched.push(Watched { input: input.name.clone(), row, first });
            first += row;
        }
        Ok(Self {
            release: manifest.id(),
            tally: Tally::new(&profile),
            profile,
            profile_digest,
            watched,
            schedule: Schedule::new(window, now),
            totals: Counters::default(),
            effort: Effort::default(),
            recent: LatencyHistogram::default(),
            worker_peak: ByteCount(0),
            role: Role::Answers,
            comparing: None,
            serving: false,
            moved: false,
        })
    }

    /// An inference over `body` was answered in `micros`. The raw inputs are looked at before any
    /// preprocessing; what is cut short counts as missing, and so does what is no number.
    pub fn answered(
        &mut self,
        inputs: &[TensorHeader],
        body: &[u8],
        predictions: &[Prediction],
        micros: u64,
    ) {
        self.count(|counters| counters.requests = counters.requests.saturating_add(1));
        self.tally.latency.record_micros(micros);
        let mut rest = body;
        for header in inputs {
            let length = usize::try_from(header.bytes).unwrap_or(usize::MAX).min(rest.len());
            let (part, behind) = rest.split_at(length);
            rest = behind;
            if let Some(watched) = self.watched.iter().find(|watched| watched.input == header.name) {
                self.tally.record_rows(&self.profile, watched, header.datatype, part);
            }
        }
        for prediction in predictions {
            self.tally.record_prediction(&self.profile, *prediction);
        }
    }

    /// An inference failed in the worker, or the worker died of it.
    pub fn failed(&mut self) {
        self.count(|counters| {
            counters.requests = counters.requests.saturating_add(1);
            counters.errors = counters.errors.saturating_add(1);
        });
    }

    /// An inference that was answered or failed has cost this.
    pub fn cost(&mut self, effort: Effort) {
        self.effort = self.effort.plus(effort);
    }

    /// A request was refused: the caller's mistake, or too many at once.
    pub fn refused(&mut self) {
        self.count(|counters| counters.refused = counters.refused.saturating_add(1));
    }

    /// A worker of this release died.
    pub const fn worker_died(&mut self) {
        self.tally.worker_deaths = self.tally.worker_deaths.saturating_add(1);
    }

    /// A worker of this release was seen using `peak`.
    pub fn saw_peak(&mut self, peak: ByteCount) {
        self.worker_peak = self.worker_peak.max(peak);
    }

    /// The release is tried from now on beside `with`, which answers; what it did before is in the reports that
    /// [`Recorder::cut`] makes first. Until it [leaves](Recorder::leave).
    pub fn enter_trial(&mut self, role: Role, with: ReleaseId) {
        self.enter();
        self.role = role;
        self.comparing = (role == Role::Shadow).then(|| Comparing::new(Comparison::new(with)));
    }

    /// The trial is over; [`Recorder::cut`] first.
    pub fn leave_trial(&mut self) {
        self.leave();
        self.role = Role::Answers;
        self.comparing = None;
    }

    /// What it made of a request, and what the release that answers had made of it.
    pub fn compared(&mut self, live: Made<'_>, shadow: Made<'_>) {
        if let Some(comparing) = &mut self.comparing {
            comparing.computed(live, shadow);
        }
    }

    /// A request that was answered could not be computed by it.
    pub const fn not_compared(&mut self) {
        if let Some(comparing) = &mut self.comparing {
            comparing.failed();
        }
    }

    /// A request was not given to it, because it was still computing the one before.
    pub const fn not_mirrored(&mut self) {
        if let Some(comparing) = &mut self.comparing {
            comparing.dropped();
        }
    }

    /// The release answers from now on.
    pub const fn enter(&mut self) {
        self.moved |= !self.serving;
        self.serving = true;
    }

    /// The release no longer answers new requests.
    pub const fn leave(&mut self) {
        self.moved |= self.serving;
        self.serving = false;
    }

    /// Closes the open window if it is over: one report, more for a model of more than
    /// [`MAX_REPORT_FEATURES`] features, none if the release is not serving and was not asked either.
    /// Everything counted since the last call belongs to that window, so call it when it is
    /// [due](Recorder::due), also for a release that has left as long as it may have requests in flight.
    pub fn roll(&mut self, now: Now, stamp: &mut Stamp) -> Vec<Report> {
        match self.schedule.advance(now) {
            Some(closed) => self.report(closed, stamp),
            None => Vec::new(),
        }
    }

    /// Closes the open window before its end, for a stop of the agent or before the release is
    /// forgotten. Requests counted later belong to the next window.
    pub fn cut(&mut self, now: Now, stamp: &mut Stamp) -> Vec<Report> {
        let mut reports = self.roll(now, stamp);
        let closed = self.schedule.cut(now);
        reports.extend(self.report(closed, stamp));
        reports
    }

    /// Time until [`Recorder::roll`] will have something to close, at most two windows.
    pub fn due(&self, now: Now) -> Millis {
        self.schedule.due(now)
    }

    /// Counts for people and for the probation, which subtracts an earlier snapshot's.
    pub fn snapshot(&self) -> Snapshot {
        let mut latency = self.recent;
        latency.merge(&self.tally.latency);
        Snapshot { counters: self.totals, latency, effort: self.effort }
    }

    /// The release in question.
    pub const fn release(&self) -> &ReleaseId {
        &self.release
    }

    fn count(&mut self, change: impl Fn(&mut Counters)) {
        change(&mut self.totals);
        change(&mut self.tally.counters);
    }

    fn report(&mut self, closed: Closed, stamp: &mut Stamp) -> Vec<Report> {
        let served = self.serving || self.moved;
        let coverage = if self.moved { Coverage::Partial } else { closed.coverage };
        self.moved = false;
        if !served && self.tally.is_empty() {
            self.recent = LatencyHistogram::default();
            return Vec::new();
        }
        self.recent = self.tally.latency;
        let parts = self.tally.features.len().div_ceil(MAX_REPORT_FEATURES).max(1);
        (0..parts).map(|part| self.part(part, closed, coverage, stamp)).collect()
    }

    /// Part `part` of the report, emptying what goes into it. Counts that are no feature's go into the
    /// first, so that the sum of all parts is the window.
    fn part(&mut self, part: usize, closed: Closed, coverage: Coverage, stamp: &mut Stamp) -> Report {
        let first = part * MAX_REPORT_FEATURES;
        let sketches = self.profile.features.iter().zip(&mut self.tally.features);
        let features = sketches
            .skip(first)
            .take(MAX_REPORT_FEATURES)
            .map(|(feature, histogram)| mem::replace(histogram, Histogram::over_bins(&feature.sketch.bins)))
            .collect();
        let counters = mem::take(&mut self.tally.counters);
        let sequence = stamp.sequence;
        stamp.sequence = stamp.sequence.saturating_add(1);
        Report {
            device: stamp.device.clone(),
            boot: stamp.boot,
            sequence,
            start: closed.start,
            end: closed.end,
            coverage,
            release: self.release.clone(),
            role: self.role,
            profile: self.profile_digest,
            requests: counters.requests,
            errors: counters.errors,
            refused: counters.refused,
            latency: mem::take(&mut self.tally.latency),
            first_feature: u16::try_from(first).unwrap_or(u16::MAX),
            features,
            predictions: renew(&mut self.tally.predictions, self.profile.predictions.as_ref()),
            confidence: renew(&mut self.tally.confidence, self.profile.confidence.as_ref()),
            worker_peak: self.worker_peak,
            worker_deaths: mem::take(&mut self.tally.worker_deaths),
            dropped_reports: mem::take(&mut stamp.dropped),
            comparison: self.comparing.as_mut().and_then(Comparing::take),
        }
    }
}

fn check(manifest: &Manifest, profile: &Profile) -> Result<(), ProfileMismatch> {
    let count = manifest.features().count();
    if count != profile.features.len() {
        return Err(ProfileMismatch::Count { profile: profile.features.len(), manifest: count });
    }
    for (at, (manifest, profile)) in manifest.features().zip(&profile.features).enumerate() {
        if *manifest != profile.name {
            let (manifest, profile) = (manifest.clone(), profile.name.clone());
            return Err(ProfileMismatch::Name { at, manifest, profile });
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
