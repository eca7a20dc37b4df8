//! Devices and evidence for the tests of this room.

use serin_protocol::assignment::ReleaseRef;
use serin_protocol::ids::{DeviceId, Digest, ReleaseId};
use serin_protocol::message::Presence;
use serin_protocol::sketch::{Bins, Histogram, LatencyHistogram};

use super::event::Sighting;
use super::evidence::{Binning, DeviceEvidence};

/// Inferences per device.
pub(super) const DEFAULT_REQUESTS: u64 = 200;

pub(super) fn device(number: u32) -> DeviceId {
    DeviceId::new(&format!("edge-{number:04}")).expect("a name")
}

pub(super) fn release(version: &str) -> ReleaseId {
    format!("digits@{version}").parse().expect("a release")
}

pub(super) fn reference(version: &str) -> ReleaseRef {
    ReleaseRef { id: release(version), statement: Digest::of(version.as_bytes()) }
}

pub(super) fn sighting(device: &DeviceId, active: Option<&str>) -> Sighting {
    Sighting {
        device: device.clone(),
        presence: Presence::Online,
        active: active.map(release),
        candidate: None,
        pinned: false,
    }
}

pub(super) fn histogram(counts: &[u64]) -> Histogram {
    let mut histogram = Histogram::over_bins(&Bins::classes(counts.len()));
    for (class, count) in counts.iter().enumerate() {
        (0..*count).for_each(|_| histogram.record(&Bins::classes(counts.len()), class as f32));
    }
    histogram
}

/// Ten classes, about equally often.
pub(super) fn balanced() -> Histogram {
    histogram(&[21, 19, 20, 22, 18, 20, 20, 19, 21, 20])
}

/// Nearly always the same class.
pub(super) fn skewed() -> Histogram {
    histogram(&[155, 5, 5, 5, 5, 5, 5, 5, 5, 5])
}

pub(super) fn latency(micros: u64, count: u64) -> LatencyHistogram {
    let mut latency = LatencyHistogram::default();
    (0..count).for_each(|_| latency.record_micros(micros));
    latency
}

/// What a healthy device shows.
pub(super) fn evidence(device: &DeviceId, version: &str) -> DeviceEvidence {
    DeviceEvidence {
        device: device.clone(),
        release: release(version),
        requests: DEFAULT_REQUESTS,
        errors: 0,
        latency: latency(2000, DEFAULT_REQUESTS),
        predictions: balanced(),
        confidence: balanced(),
        features: vec![balanced(), histogram(&[DEFAULT_REQUESTS])],
        binning: Binning {
            features: Digest::of(b"features"),
            predictions: Digest::of(b"predictions"),
            confidence: Digest::of(b"confidence"),
        },
    }
}
