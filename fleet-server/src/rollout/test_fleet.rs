//! Devices and evidence for the tests of this room.

use serin_protocol::assignment::ReleaseRef;
use serin_protocol::ids::{DeviceId, Digest, ReleaseId};
use serin_protocol::message::Presence;
use serin_protocol::sketch::{Bins, Histogram, LatencyHistogram};

use super::event::Sighting;
use super::evidence::{Binning, DeviceEvidence, Evidence};
use super::plan::selector::{Tags, Traits};

/// Inferences per device: three devices reach the 300 that the stories ask for.
const DEFAULT_REQUESTS: u64 = 200;

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
        traits: Traits { target: "linux-x86_64".parse().expect("name"), tags: Tags::new() },
    }
}

/// Of answering releases only.
pub(super) fn answered(devices: Vec<DeviceEvidence>) -> Evidence {
    Evidence { devices, shadows: Vec::new() }
}

/// As if each class number had been recorded so often.
pub(super) fn histogram(counts: &[u64]) -> Histogram {
    let mut histogram = Histogram::over_bins(&Bins::classes(counts.len()));
    histogram.counts.copy_from_slice(counts);
    let n = counts.iter().sum::<u64>() as f64;
    let weighted = |value: &dyn Fn(f64) -> f64| {
        counts.iter().enumerate().map(|(class, count)| *count as f64 * value(class as f64)).sum::<f64>()
    };
    let mean = weighted(&|class| class) / n;
    histogram.m2 = weighted(&|class| (class - mean).powi(2));
    histogram.mean = mean;
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

/// `count` inferences of this duration.
pub(super) fn latency(micros: u64, count: u64) -> LatencyHistogram {
    let (mut all, mut power) = (LatencyHistogram::default(), LatencyHistogram::default());
    power.record_micros(micros);
    // Binary: adding one by one makes thousands of test devices slow.
    for bit in 0..u64::BITS - count.leading_zeros() {
        if count >> bit & 1 == 1 {
            all.merge(&power);
        }
        power.merge(&power.clone());
    }
    all
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
        before: None,
        binning: Binning {
            features: Digest::of(b"features"),
            predictions: Digest::of(b"predictions"),
            confidence: Digest::of(b"confidence"),
        },
    }
}
