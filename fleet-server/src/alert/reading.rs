//! What a group of devices showed in a window of time: everything that rules may look at.

use core::fmt;

use serde::{Deserialize, Serialize};
use serin_protocol::ids::{ModelName, ReleaseId};
use serin_protocol::sketch::LatencyHistogram;

/// Of what an alert is. The owner is the delegation that signs a model's releases, which has the model's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Group {
    /// The delegation that signs.
    pub owner: ModelName,
    /// How much of what it signs.
    pub scope: Scope,
}

/// How much of an owner's models a group is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// All releases together.
    Owner,
    /// One release.
    Release(ReleaseId),
    /// One release, where it was asked about one of the segments that it names.
    Segment(ReleaseId, String),
}

impl Group {
    /// One release.
    pub fn of_release(release: &ReleaseId) -> Self {
        Self { owner: release.model.clone(), scope: Scope::Release(release.clone()) }
    }

    /// One segment of a release.
    pub fn of_segment(release: &ReleaseId, segment: &str) -> Self {
        Self { owner: release.model.clone(), scope: Scope::Segment(release.clone(), segment.to_owned()) }
    }

    /// All releases of the owner of `release`.
    pub fn of_owner(release: &ReleaseId) -> Self {
        Self { owner: release.model.clone(), scope: Scope::Owner }
    }

    /// The release that it is about, if it is about one.
    pub const fn release(&self) -> Option<&ReleaseId> {
        match &self.scope {
            Scope::Release(release) | Scope::Segment(release, _) => Some(release),
            Scope::Owner => None,
        }
    }

    /// The segment that it is about, if it is about one.
    pub fn segment(&self) -> Option<&str> {
        match &self.scope {
            Scope::Segment(_, segment) => Some(segment),
            Scope::Owner | Scope::Release(_) => None,
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Scope::Release(release) => fmt::Display::fmt(release, f),
            Scope::Segment(release, segment) => write!(f, "{release}, segment {segment}"),
            Scope::Owner => write!(f, "all of {}", self.owner),
        }
    }
}

/// Sums over one window; of drift, what the last hour showed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Devices that run it.
    pub devices: u64,
    /// Of these, those that reported in the window.
    pub reporting: u64,
    /// Inferences.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// Time per inference.
    pub latency: LatencyHistogram,
    /// Devices that took it back, or on which it was taken back.
    pub rollbacks: u64,
    /// Features against the reference.
    pub features: Vec<Shift>,
    /// Predicted classes against the reference; one for each release.
    pub predictions: Vec<Shift>,
    /// Answers whose truth is known, and those of them that were right; none where nobody says.
    pub quality: Option<(u64, u64)>,
}

/// How far one distribution lies from its reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Shift {
    /// Of what.
    pub name: String,
    /// Population stability index.
    pub psi: f64,
    /// Whether that is neither chance nor too little to matter; none where too few values were seen to say.
    pub moved: Option<bool>,
}

impl Reading {
    /// Adds what another release of the same owner showed.
    pub fn merge(&mut self, other: Self) {
        self.devices = self.devices.saturating_add(other.devices);
        self.reporting = self.reporting.saturating_add(other.reporting);
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
        self.latency.merge(&other.latency);
        self.rollbacks = self.rollbacks.saturating_add(other.rollbacks);
        self.features.extend(other.features);
        self.predictions.extend(other.predictions);
        self.add_quality(other.quality);
    }

    /// Adds answers whose truth is known, and those of them that were right.
    pub fn add_quality(&mut self, more: Option<(u64, u64)>) {
        self.quality = match (self.quality, more) {
            (Some((known, right)), Some((more, of_these))) => {
                Some((known.saturating_add(more), right.saturating_add(of_these)))
            }
            (one, other) => one.or(other),
        };
    }
}
