//! What devices showed since a stage began: one entry per device and release, merged over windows by
//! ingest. The device, not the inference, is the unit of every comparison.

use serde::{Deserialize, Serialize};
use serin_protocol::ids::{DeviceId, Digest, ReleaseId, UnixMillis};
use serin_protocol::sketch::profile::{Profile, SketchProfile};
use serin_protocol::sketch::{Histogram, LatencyHistogram};

/// Which evidence a look needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceWanted {
    /// Index of the stage.
    pub stage: usize,
    /// Number of the look within the stage.
    pub look: u32,
    /// Only windows that start at or after this.
    pub since: UnixMillis,
    /// The release under test.
    pub release: ReleaseId,
    /// What the others run. Evidence about further releases is not looked at.
    pub baselines: Vec<ReleaseId>,
}

/// What one device showed about one release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceEvidence {
    /// The device.
    pub device: DeviceId,
    /// The release that answered.
    pub release: ReleaseId,
    /// Inferences answered or failed.
    pub requests: u64,
    /// Inferences that failed.
    pub errors: u64,
    /// Time per inference.
    pub latency: LatencyHistogram,
    /// Predicted classes.
    pub predictions: Histogram,
    /// Confidence of the prediction.
    pub confidence: Histogram,
    /// What came in, in profile order.
    pub features: Vec<Histogram>,
    /// Which bins all these are counted in.
    pub binning: Binning,
}

/// Names the bins of a release's sketches: equal digests mean equal edges, so that two releases can be
/// compared bin by bin although their reference data differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Binning {
    /// Names and edges of all features, in order.
    pub features: Digest,
    /// Edges of the predictions.
    pub predictions: Digest,
    /// Edges of the confidence.
    pub confidence: Digest,
}

impl Binning {
    /// The bins that `profile` fixes.
    pub fn of(profile: &Profile) -> Self {
        let mut features = Digest::hasher();
        for feature in &profile.features {
            // Names hold no zero byte, so that it separates them from the edges.
            features.update(feature.name.as_str().as_bytes());
            features.update(&[0]);
            features.update(&edges(Some(&feature.sketch)));
        }
        Self {
            features: features.finish(),
            predictions: Digest::of(&edges(profile.predictions.as_ref())),
            confidence: Digest::of(&edges(profile.confidence.as_ref())),
        }
    }
}

/// The number of edges, then each as four bytes.
fn edges(sketch: Option<&SketchProfile>) -> Vec<u8> {
    let edges = sketch.map_or(&[][..], |sketch| sketch.bins.edges());
    let count = u32::try_from(edges.len()).unwrap_or(u32::MAX);
    let mut bytes = count.to_le_bytes().to_vec();
    bytes.extend(edges.iter().flat_map(|edge| edge.to_bits().to_le_bytes()));
    bytes
}
