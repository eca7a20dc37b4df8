//! The end of a window: what was counted in it as reports, one for each segment.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::mem;

use serin_protocol::ids::SegmentNumber;
use serin_protocol::message::{Coverage, MAX_REPORT_FEATURES, Report};
use serin_protocol::sketch::LatencyHistogram;

use super::{Counters, Recorder, Stamp};
use crate::telemetry::comparison::Comparing;
use crate::telemetry::schedule::Closed;
use crate::telemetry::tally::{Tally, renew};

impl Recorder {
    pub(super) fn report(&mut self, closed: Closed, stamp: &mut Stamp) -> Vec<Report> {
        let served = self.serving || self.moved;
        let coverage = self.coverage(closed);
        self.moved = false;
        self.recent = LatencyHistogram::default();
        self.tallies.iter().for_each(|tally| self.recent.merge(&tally.latency));
        if !served && self.tallies.iter().all(Tally::is_empty) {
            return Vec::new();
        }
        let parts = self.profile.features.len().div_ceil(MAX_REPORT_FEATURES).max(1);
        let mut reports = Vec::new();
        for number in 0..self.tallies.len() {
            let silent = self.tallies.get(number).is_none_or(Tally::is_empty);
            // The first says that the window was watched, whatever happened in it.
            if number > 0 && silent {
                continue;
            }
            reports.extend((0..parts).filter_map(|part| self.part(number, part, closed, coverage, stamp)));
        }
        reports
    }

    fn coverage(&self, closed: Closed) -> Coverage {
        let asked = self.tallies.iter().any(|tally| tally.counters != Counters::default());
        match closed.coverage {
            Coverage::Complete if self.moved => Coverage::Partial,
            Coverage::Complete if !asked => Coverage::Empty,
            coverage @ (Coverage::Complete | Coverage::Partial | Coverage::Empty) => coverage,
        }
    }

    /// Part `part` of the report on one segment, emptying what goes into it. Counts that are no feature's go into the
    /// first, so that the sum of all parts is the window.
    fn part(
        &mut self,
        segment: usize,
        part: usize,
        closed: Closed,
        coverage: Coverage,
        stamp: &mut Stamp,
    ) -> Option<Report> {
        let first = part * MAX_REPORT_FEATURES;
        let comparison = self.comparing.as_mut().and_then(Comparing::take);
        let tally = self.tallies.get_mut(segment)?;
        let features = self
            .profile
            .features
            .iter()
            .zip(&mut tally.features)
            .skip(first)
            .take(MAX_REPORT_FEATURES)
            .map(|(feature, recording)| recording.take(&feature.sketch.bins))
            .collect();
        let counters = mem::take(&mut tally.counters);
        let sequence = stamp.sequence;
        stamp.sequence = stamp.sequence.saturating_add(1);
        Some(Report {
            device: stamp.device.clone(),
            boot: stamp.boot,
            sequence,
            start: closed.start,
            end: closed.end,
            coverage,
            release: self.release.clone(),
            role: self.role,
            profile: self.profile_digest,
            segment: SegmentNumber(u8::try_from(segment).unwrap_or(u8::MAX)),
            requests: counters.requests,
            errors: counters.errors,
            refused: counters.refused,
            latency: mem::take(&mut tally.latency),
            first_feature: u16::try_from(first).unwrap_or(u16::MAX),
            features,
            predictions: renew(&mut tally.predictions, self.profile.predictions.as_ref()),
            confidence: renew(&mut tally.confidence, self.profile.confidence.as_ref()),
            entropy: renew(&mut tally.entropy, self.profile.entropy.as_ref()),
            quality: tally.quality.take(),
            worker_peak: self.worker_peak,
            worker_deaths: mem::take(&mut tally.worker_deaths),
            dropped_reports: mem::take(&mut stamp.dropped),
            comparison,
        })
    }
}
