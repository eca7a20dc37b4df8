//! What devices showed since a stage began: one entry per device and release, merged over windows by
//! ingest. The device, not the inference, is the unit of every comparison.

use serde::{Deserialize, Serialize};
use serin_protocol::ids::{DeviceId, Digest, ReleaseId, UnixMillis};
use serin_protocol::sketch::categories::{Categories, Category};
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
    /// Windows between these two are what devices showed before the rollout.
    pub before: (UnixMillis, UnixMillis),
    /// Whether devices run the release in the shadow.
    pub shadow: bool,
    /// The release under test.
    pub release: ReleaseId,
    /// What the others run. Evidence about further releases is not looked at.
    pub baselines: Vec<ReleaseId>,
}

/// All that a look has to go by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// What devices showed about the releases that answer there.
    pub devices: Vec<DeviceEvidence>,
    /// What devices showed about the release in the shadow.
    pub shadows: Vec<ShadowEvidence>,
}

/// What one device showed about a release that ran beside the one that answered, on the same inputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowEvidence {
    /// The device.
    pub device: DeviceId,
    /// Inputs that both were given and at least one answered.
    pub pairs: u64,
    /// … to which they said different things, or only the release in the shadow failed.
    pub disagreements: u64,
}

/// What one device showed before the rollout, with the release it ran then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Inferences answered or failed.
    pub requests: u64,
    /// Inferences that failed.
    pub errors: u64,
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
    /// What it showed before the rollout: how much devices differ anyway.
    pub before: Option<Before>,
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
            // Places alone do not say what is counted there.
            for category in feature.categories().into_iter().flat_map(Categories::iter) {
                match category {
                    Category::Number(number) => features.update(&number.to_bits().to_le_bytes()),
                    Category::Text(text) => {
                        features.update(text.as_bytes());
                        features.update(&[0]);
                    }
                }
            }
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
