//! What one release did, window by window and segment by segment: requests, errors, latency, and a sketch of every
//! watched feature and of the predictions. Pure; recording allocates nothing but room for the segments of the
//! longest request yet.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod closing;
mod trial;

use std::sync::Arc;

use serin_protocol::frame::Prediction;
use serin_protocol::ids::{BootId, ByteCount, DeviceId, Digest, Millis, ReleaseId, SegmentNumber};
use serin_protocol::manifest::{Manifest, PredictionSpec};
use serin_protocol::message::{Report, Role};
use serin_protocol::sketch::profile::{Profile, ProfileMismatch};
use serin_protocol::sketch::{LatencyHistogram, MAX_BINS};

use super::comparison::Comparing;
use super::effort::Effort;
use super::schedule::Schedule;
use super::tally::Tally;
use super::truth::{self, Truth, Untrue};
use super::watched::{Asked, Division, Segments, Watched, each_input};
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

/// What a release has done since the agent started, as far as its own policy asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conduct {
    /// How its requests ended.
    pub counters: Counters,
    /// How often each class was predicted.
    pub classes: [u64; MAX_BINS],
}

/// Records what one release does on this device, from its first worker to its last.
///
/// At most [`serin_protocol::manifest::MAX_FEATURES`] histograms of about 300 bytes for each segment.
#[derive(Debug)]
pub struct Recorder {
    release: ReleaseId,
    profile: Arc<Profile>,
    profile_digest: Digest,
    watched: Vec<Watched>,
    division: Division,
    /// Room for the segments of a request's rows.
    rows: Vec<SegmentNumber>,
    /// What its predictions are, where it declares any.
    prediction: Option<PredictionSpec>,
    /// What its classes are called.
    labels: Vec<String>,
    schedule: Schedule,
    /// One for each segment; none once it is closed.
    tallies: Vec<Tally>,
    totals: Counters,
    classes: [u64; MAX_BINS],
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
        profile.check(manifest)?;
        let division = Division::of(manifest);
        Ok(Self {
            release: manifest.id(),
            tallies: (0..division.count().max(1)).map(|_| Tally::new(&profile)).collect(),
            profile,
            profile_digest,
            watched: Watched::all(manifest),
            division,
            rows: Vec::new(),
            prediction: manifest.prediction.clone(),
            labels: Vec::new(),
            schedule: Schedule::new(window, now),
            totals: Counters::default(),
            classes: [0; MAX_BINS],
            effort: Effort::default(),
            recent: LatencyHistogram::default(),
            worker_peak: ByteCount(0),
            role: Role::Answers,
            comparing: None,
            serving: false,
            moved: false,
        })
    }

    /// With what its classes are called, in the order of their numbers, so that a truth may come under such a name.
    #[must_use]
    pub fn with_labels<'a>(mut self, labels: impl IntoIterator<Item = &'a str>) -> Self {
        // A watched class has a number below that.
        self.labels = labels.into_iter().take(MAX_BINS).map(str::to_owned).collect();
        self
    }

    /// As [`Recorder::answered_seeing`], of a request without pictures.
    pub fn answered<'r>(
        &'r mut self,
        asked: Asked<'_>,
        predictions: &[Prediction],
        micros: u64,
    ) -> Segments<'r> {
        self.answered_seeing(asked, &[], predictions, micros)
    }

    /// What was `asked` was answered in `micros`. The raw inputs are looked at before any preprocessing; what is cut
    /// short counts as missing, and so does what is no number. `pictures` has what the worker saw of each row's pictures,
    /// as [`crate::worker::Inferred`] has it. Returns the segments of its rows.
    pub fn answered_seeing<'r>(
        &'r mut self,
        asked: Asked<'_>,
        pictures: &[u8],
        predictions: &[Prediction],
        micros: u64,
    ) -> Segments<'r> {
        self.totals.requests = self.totals.requests.saturating_add(1);
        let Self { division, watched, profile, rows, tallies, classes, .. } = self;
        let segments = division.divide(asked, pictures, watched, profile, rows);
        let at = |segment: SegmentNumber| usize::from(segment.0);
        if let Some(tally) = tallies.get_mut(at(segments.first())) {
            tally.counters.requests = tally.counters.requests.saturating_add(1);
            tally.latency.record_micros(micros);
        }
        each_input(asked, pictures, watched, |watched, rows| match segments {
            Segments::All(segment) => {
                if let Some(tally) = tallies.get_mut(at(segment)) {
                    tally.record_rows(profile, watched, rows, |_| true);
                }
            }
            Segments::Each(_) => {
                for (number, tally) in tallies.iter_mut().enumerate() {
                    tally.record_rows(profile, watched, rows, |row| at(segments.of(row)) == number);
                }
            }
        });
        for (row, prediction) in predictions.iter().enumerate() {
            if let Some(tally) = tallies.get_mut(at(segments.of(row))) {
                tally.record_prediction(profile, *prediction);
            }
            if let Prediction::Class { class, .. } = prediction
                && let Some(count) = usize::try_from(*class).ok().and_then(|class| classes.get_mut(class))
            {
                *count = count.saturating_add(1);
            }
        }
        segments
    }

    /// What was `asked` failed in the worker, or the worker died of it.
    pub fn failed(&mut self, asked: Asked<'_>) {
        let Self { division, watched, profile, rows, tallies, totals, .. } = self;
        let segment = division.divide(asked, &[], watched, profile, rows).first();
        let tally = tallies.get_mut(usize::from(segment.0)).map(|tally| &mut tally.counters);
        for counters in tally.into_iter().chain([totals]) {
            counters.requests = counters.requests.saturating_add(1);
            counters.errors = counters.errors.saturating_add(1);
        }
    }

    /// What was predicted for a row of `segment` is known to have been right or not: counted in the open window.
    pub fn truth_known(
        &mut self,
        segment: SegmentNumber,
        predicted: Prediction,
        truth: &Truth,
    ) -> Result<(), Untrue> {
        let tally = self.tallies.get_mut(usize::from(segment.0)).ok_or(Untrue::Gone)?;
        truth::count(&mut tally.quality, self.prediction.as_ref(), &self.labels, predicted, truth)
    }

    /// The release is not on this device any more: nothing more is counted, as nobody would report it.
    /// [`Recorder::cut`] first.
    pub fn close(&mut self) {
        self.tallies = Vec::new();
    }

    /// What its own policy is about.
    pub const fn conduct(&self) -> Conduct {
        Conduct { counters: self.totals, classes: self.classes }
    }

    /// An inference that was answered or failed has cost this.
    pub fn cost(&mut self, effort: Effort) {
        self.effort = self.effort.plus(effort);
    }

    /// A request was refused: the caller's mistake, or too many at once.
    pub fn refused(&mut self) {
        let whole = self.tallies.first_mut().map(|tally| &mut tally.counters);
        for counters in whole.into_iter().chain([&mut self.totals]) {
            counters.refused = counters.refused.saturating_add(1);
        }
    }

    /// A worker of this release died.
    pub fn worker_died(&mut self) {
        if let Some(tally) = self.tallies.first_mut() {
            tally.worker_deaths = tally.worker_deaths.saturating_add(1);
        }
    }

    /// A worker of this release was seen using `peak`.
    pub fn saw_peak(&mut self, peak: ByteCount) {
        self.worker_peak = self.worker_peak.max(peak);
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

    /// Closes the open window if it is over: one report, one more for each named segment in which something
    /// happened, more for a model of more than [`MAX_REPORT_FEATURES`] features, none if the release is not serving
    /// and was not asked either.
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
        self.tallies.iter().for_each(|tally| latency.merge(&tally.latency));
        Snapshot { counters: self.totals, latency, effort: self.effort }
    }

    /// The release in question.
    pub const fn release(&self) -> &ReleaseId {
        &self.release
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;

#[cfg(test)]
mod pictures_tests;

#[cfg(test)]
mod segments_tests;
