//! Reading the sketches of a release: how far what its devices see is from its reference data.

use std::collections::BTreeSet;

use serin_protocol::ids::{DeviceId, Digest, Millis, ReleaseId, UnixMillis};
use serin_protocol::message::Report;
use serin_protocol::sketch::profile::{Profile, SketchProfile};
use serin_protocol::sketch::{Histogram, LatencyHistogram};

use super::view::{DeviceView, DistanceView, DriftView, named};
use super::{Fleet, FleetError, now};
use crate::stats::distance::{counts, kolmogorov_smirnov, psi};
use crate::store::DeviceRecord;

/// How far back drift is read.
const WINDOW: Millis = Millis::from_secs(3600);
/// Reports older than this are dropped: a rollout's longest stage is a day.
const RETENTION: Millis = Millis::from_secs(2 * 24 * 3600);
/// Features shown, the most moved first.
const FEATURES: usize = 16;

struct Merged {
    devices: BTreeSet<DeviceId>,
    requests: u64,
    errors: u64,
    latency: LatencyHistogram,
    predictions: Histogram,
    features: Vec<Histogram>,
}

impl Fleet {
    /// How far the devices of `release` are from its reference data, over the last hour.
    pub fn drift(&self, release: &ReleaseId) -> Result<DriftView, FleetError> {
        let not_found = || FleetError::NotFound { what: "release", name: release.to_string() };
        let record = self.store.release(release)?.ok_or_else(not_found)?;
        let profile = self.reference(&record.release.profile)?.ok_or_else(not_found)?;
        let since = UnixMillis(now().0.saturating_sub(WINDOW.0));
        let reports = self.store.reports(release, since)?;
        let merged = merge(&profile, record.release.profile, &reports);
        Ok(view(release, &profile, &merged))
    }

    /// Drops reports that nobody reads any more.
    pub fn forget_old_reports(&self) -> Result<(), FleetError> {
        let before = UnixMillis(now().0.saturating_sub(RETENTION.0));
        for record in self.store.releases()? {
            self.store.drop_reports(&record.release.id, before)?;
        }
        Ok(())
    }

    /// All devices, by name.
    pub fn devices(&self) -> Result<Vec<DeviceView>, FleetError> {
        Ok(self.store.devices()?.iter().map(device_view).collect())
    }

    /// One device.
    pub fn device(&self, id: &DeviceId) -> Result<DeviceView, FleetError> {
        let record = self.store.device(id)?;
        let not_found = || FleetError::NotFound { what: "device", name: id.to_string() };
        Ok(device_view(&record.ok_or_else(not_found)?))
    }

    /// A device's last events, oldest first: when, and what in words.
    pub fn device_events(&self, id: &DeviceId) -> Result<Vec<(UnixMillis, String)>, FleetError> {
        let events = self.store.events(id)?;
        Ok(events.iter().map(|event| (event.at, super::ingest::in_words(&event.kind))).collect())
    }
}

fn merge(profile: &Profile, digest: Digest, reports: &[Report]) -> Merged {
    let over = |sketch: &SketchProfile| Histogram::over_bins(&sketch.bins);
    let mut merged = Merged {
        devices: BTreeSet::new(),
        requests: 0,
        errors: 0,
        latency: LatencyHistogram::default(),
        predictions: profile.predictions.as_ref().map(over).unwrap_or_default(),
        features: profile.features.iter().map(|feature| over(&feature.sketch)).collect(),
    };
    for report in reports.iter().filter(|report| report.profile == digest) {
        merged.devices.insert(report.device.clone());
        merged.requests = merged.requests.saturating_add(report.requests);
        merged.errors = merged.errors.saturating_add(report.errors);
        merged.latency.merge(&report.latency);
        // Other bins than the profile's cannot have come from this release.
        let _ = merged.predictions.merge(&report.predictions);
        let mine = merged.features.iter_mut().skip(usize::from(report.first_feature));
        for (mine, theirs) in mine.zip(&report.features) {
            let _ = mine.merge(theirs);
        }
    }
    merged
}

fn view(release: &ReleaseId, profile: &Profile, merged: &Merged) -> DriftView {
    let named_features = profile.features.iter().zip(&merged.features);
    let mut features: Vec<DistanceView> = named_features
        .filter_map(|(feature, seen)| distance(feature.name.as_str(), &feature.sketch.reference, seen))
        .collect();
    features.sort_by(|left, right| right.psi.total_cmp(&left.psi));
    features.truncate(FEATURES);
    let reference = profile.predictions.as_ref().map(|sketch| &sketch.reference);
    DriftView {
        release: release.to_string(),
        devices: merged.devices.len(),
        requests: merged.requests,
        errors: merged.errors,
        latency_p50_micros: merged.latency.quantile_micros(0.5),
        latency_p99_micros: merged.latency.quantile_micros(0.99),
        features,
        predictions: reference.and_then(|reference| distance("prediction", reference, &merged.predictions)),
        classes: shares(&merged.predictions),
        reference_classes: reference.map(shares).unwrap_or_default(),
    }
}

fn distance(name: &str, reference: &Histogram, seen: &Histogram) -> Option<DistanceView> {
    let (reference, seen) = (counts(reference), counts(seen));
    let psi = psi(&reference, &seen)?;
    let ks = kolmogorov_smirnov(&reference, &seen)?;
    Some(DistanceView { name: name.to_owned(), psi, ks })
}

fn shares(histogram: &Histogram) -> Vec<f64> {
    let total = histogram.total().max(1) as f64;
    histogram.counts.iter().map(|count| *count as f64 / total).collect()
}

fn device_view(record: &DeviceRecord) -> DeviceView {
    let hello = &record.hello;
    let moved = record.last_move.as_ref();
    DeviceView {
        id: hello.device.clone(),
        presence: hello.presence,
        target: hello.target.to_string(),
        agent: hello.agent.to_string(),
        active: named(hello.active.as_ref()),
        previous: named(hello.previous.as_ref()),
        candidate: named(hello.candidate.as_ref()),
        pinned: hello.pinned,
        phase: moved.map(|moved| moved.to),
        reason: moved.and_then(|moved| moved.reason.as_ref()).map(ToString::to_string),
        about: moved.map(|moved| moved.release.to_string()),
        last_seen: record.last_seen,
        first_seen: record.first_seen,
        free_space: hello.free_space.0,
        memory_budget: hello.memory_budget.0,
    }
}
