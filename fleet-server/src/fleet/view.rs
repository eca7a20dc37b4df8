//! What others may see of the fleet, as plain data for the API, the page and the command line.

use serde::Serialize;
use serin_protocol::ids::{BasisPoints, DeviceId, Digest, ReleaseId, RolloutId, UnixMillis};
use serin_protocol::message::{Phase, Presence};

/// Something that happened, for who watches.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Notice {
    /// A device came, went, or changed what it runs.
    Device {
        /// Which.
        device: DeviceId,
        /// Whether it is there.
        presence: Presence,
        /// The release that answers.
        active: Option<String>,
        /// Whether a field engineer decides there.
        pinned: bool,
    },
    /// A device's update machine moved.
    Transition {
        /// Which.
        device: DeviceId,
        /// About which release.
        release: String,
        /// Phase entered.
        to: Phase,
        /// Why, for people.
        reason: Option<String>,
        /// The rollout that made it.
        rollout: Option<RolloutId>,
    },
    /// A device said something else worth knowing.
    Event {
        /// Which.
        device: DeviceId,
        /// What, for people.
        text: String,
    },
    /// A release was added or is with the broker.
    Release {
        /// Which.
        release: String,
        /// Whether devices can fetch it.
        published: bool,
    },
    /// A rollout changed its state or stage.
    Rollout {
        /// Which.
        rollout: RolloutId,
        /// Its state.
        state: String,
        /// Its stage, from 0.
        stage: usize,
    },
    /// A rollout decided.
    Verdict {
        /// Which.
        rollout: RolloutId,
        /// What.
        decision: String,
        /// Why, for people.
        sentence: String,
    },
    /// A telemetry window arrived.
    Report {
        /// Whose.
        device: DeviceId,
        /// About which release.
        release: String,
    },
}

/// A device.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceView {
    /// Its id.
    pub id: DeviceId,
    /// Whether it is there.
    pub presence: Presence,
    /// Its class.
    pub target: String,
    /// Version of its agent.
    pub agent: String,
    /// The release that answers.
    pub active: Option<String>,
    /// The release it can return to.
    pub previous: Option<String>,
    /// The release being installed.
    pub candidate: Option<String>,
    /// Whether a field engineer decides there.
    pub pinned: bool,
    /// Phase it last entered.
    pub phase: Option<Phase>,
    /// Why, for people.
    pub reason: Option<String>,
    /// About which release.
    pub about: Option<String>,
    /// Last word.
    pub last_seen: UnixMillis,
    /// First contact.
    pub first_seen: UnixMillis,
    /// Bytes free where releases are stored.
    pub free_space: u64,
    /// Bytes that its models may use together.
    pub memory_budget: u64,
}

/// A release.
#[derive(Clone, Debug, Serialize)]
pub struct ReleaseView {
    /// `model@version`.
    pub id: String,
    /// Digest of the signed statement.
    pub statement: Digest,
    /// Digest of the bundle.
    pub bundle: Digest,
    /// Bytes of the bundle.
    pub size: u64,
    /// Memory limit of its worker.
    pub memory: u64,
    /// The team that answers for it.
    pub owner: String,
    /// One line for people.
    pub description: String,
    /// Device classes it was built for.
    pub targets: Vec<String>,
    /// Whether devices can fetch it.
    pub published: bool,
    /// When it was added.
    pub added: UnixMillis,
    /// Devices on which it answers.
    pub devices: usize,
}

/// A rollout.
#[derive(Clone, Debug, Serialize)]
pub struct RolloutView {
    /// Its number.
    pub id: RolloutId,
    /// What is rolled out.
    pub release: String,
    /// What the fleet ran before.
    pub baselines: Vec<String>,
    /// Its state in one word or two.
    pub state: String,
    /// Why it is in that state, where that needs saying.
    pub why: Option<String>,
    /// Whether nothing will change any more without a device or an operator.
    pub finished: bool,
    /// Version of the state, to be sent back with orders.
    pub version: u64,
    /// Index of the stage.
    pub stage: usize,
    /// Shares of the stages.
    pub stages: Vec<BasisPoints>,
    /// When it began.
    pub started: UnixMillis,
    /// Where its devices stand.
    pub devices: Vec<RolloutDeviceView>,
    /// The last verdicts, oldest first.
    pub verdicts: Vec<VerdictView>,
}

/// A device within a rollout.
#[derive(Clone, Debug, Serialize)]
pub struct RolloutDeviceView {
    /// Which.
    pub device: DeviceId,
    /// Left alone until the last stage.
    pub control: bool,
    /// Where it stands, in one word.
    pub standing: &'static str,
}

/// A verdict.
#[derive(Clone, Debug, Serialize)]
pub struct VerdictView {
    /// When.
    pub at: UnixMillis,
    /// Index of the stage.
    pub stage: usize,
    /// What was decided.
    pub decision: String,
    /// Why, for people.
    pub sentence: String,
    /// Each gate with its numbers.
    pub gates: Vec<GateView>,
}

/// A gate within a verdict.
#[derive(Clone, Debug, Serialize)]
pub struct GateView {
    /// Which.
    pub name: String,
    /// What it says.
    pub verdict: crate::rollout::verdict::GateVerdict,
    /// The canary's value.
    pub canary: Option<f64>,
    /// The control's value.
    pub control: Option<f64>,
    /// The limit.
    pub threshold: f64,
    /// Chance.
    pub p_value: Option<f64>,
    /// For people.
    pub sentence: String,
}

/// How far the devices of a release are from its reference data.
#[derive(Clone, Debug, Serialize)]
pub struct DriftView {
    /// The release.
    pub release: String,
    /// Devices that reported.
    pub devices: usize,
    /// Their inferences.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// Median time per inference, in microseconds.
    pub latency_p50_micros: Option<u64>,
    /// 99th percentile of the same.
    pub latency_p99_micros: Option<u64>,
    /// Features, the most moved first.
    pub features: Vec<DistanceView>,
    /// Predicted classes against the reference.
    pub predictions: Option<DistanceView>,
    /// Share of each predicted class.
    pub classes: Vec<f64>,
    /// The same in the reference data.
    pub reference_classes: Vec<f64>,
}

/// One distance.
#[derive(Clone, Debug, Serialize)]
pub struct DistanceView {
    /// Feature or output.
    pub name: String,
    /// Population stability index.
    pub psi: f64,
    /// Kolmogorov-Smirnov distance on the bins.
    pub ks: f64,
}

/// `model@version` or nothing.
pub(super) fn named(release: Option<&ReleaseId>) -> Option<String> {
    release.map(ToString::to_string)
}
