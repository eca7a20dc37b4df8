//! What was decided, with the numbers that decided it and a sentence that says so.

use core::fmt;

use serde::{Deserialize, Serialize};
use serin_protocol::ids::{BasisPoints, UnixMillis};

use super::plan::OnBreach;

/// What a look at the evidence of one stage showed, before time and devices are weighed in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// Index of the stage.
    pub stage: usize,
    /// Number of the look.
    pub look: u32,
    /// Devices of the canary that reported.
    pub canary_devices: u32,
    /// Their inferences.
    pub canary_requests: u64,
    /// Devices of the control that reported.
    pub control_devices: u32,
    /// Their inferences.
    pub control_requests: u64,
    /// What is to be said of arms that are too small for any test; none where they are not.
    #[serde(default)]
    pub small: Option<String>,
    /// The share that the release deserves in the next window, where shares follow a reward.
    #[serde(default)]
    pub allocation: Option<BasisPoints>,
    /// Why more looking will not decide it; none while it may.
    #[serde(default)]
    pub inconclusive: Option<String>,
    /// Why this is too little to decide on; `None` when it is enough.
    pub lacking: Option<String>,
    /// One result per gate of the plan.
    pub gates: Vec<GateResult>,
}

/// Which gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateName {
    /// Failed inferences.
    ErrorRate,
    /// Slow inferences.
    Latency,
    /// What the model says.
    Predictions,
    /// How sure it says it is.
    Confidence,
    /// What the model is given.
    Inputs,
    /// Workers that die.
    Crashes,
    /// Whether devices report.
    Reporting,
    /// Disagreement of a release in the shadow.
    Shadow,
    /// The metric that two arms are compared by.
    Metric,
    /// The reward that shares follow.
    Reward,
}

impl GateName {
    /// Every gate.
    pub const ALL: [Self; 10] = [
        Self::ErrorRate,
        Self::Latency,
        Self::Predictions,
        Self::Confidence,
        Self::Inputs,
        Self::Crashes,
        Self::Reporting,
        Self::Shadow,
        Self::Metric,
        Self::Reward,
    ];
}

impl fmt::Display for GateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ErrorRate => "error rate",
            Self::Latency => "latency",
            Self::Predictions => "predictions",
            Self::Confidence => "confidence",
            Self::Inputs => "inputs",
            Self::Crashes => "crashes",
            Self::Reporting => "reporting",
            Self::Shadow => "shadow",
            Self::Metric => "metric",
            Self::Reward => "reward",
        })
    }
}

/// What one gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateVerdict {
    /// Enough evidence, and nothing is wrong.
    Pass,
    /// Something is wrong.
    Breach,
    /// Too little evidence, or an effect that chance may have made. Never a pass.
    Insufficient,
    /// The last stage has no control left to compare with; only hard limits were looked at, and held.
    NotCompared,
}

/// One gate at one look, with its numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateResult {
    /// Which gate.
    pub name: GateName,
    /// What it says.
    pub verdict: GateVerdict,
    /// What a breach leads to.
    pub on_breach: OnBreach,
    /// The canary's value: a rate, a share, or a distance from the control.
    pub canary: Option<f64>,
    /// The control's value, where there is one apart from the distance.
    pub control: Option<f64>,
    /// What the canary's value is held against.
    pub threshold: f64,
    /// How often chance alone, dividing the same devices otherwise, shows as much. Where it was asked.
    pub p_value: Option<f64>,
    /// For people.
    pub sentence: String,
}

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The next stage begins, or the rollout is complete.
    Promote,
    /// Neither forward nor back for now.
    Hold,
    /// The release is taken back.
    RollBack,
    /// The time is over and nothing is shown.
    Inconclusive,
    /// An operator stopped it where it is.
    Abort,
    /// The next stage waits for an operator's approval.
    AwaitApproval,
    /// An operator takes the release back from some devices.
    TakeBack,
    /// Every device that can be reached has returned, in the time that is said.
    RolledBack,
    /// An operator set a gate aside for a stage.
    SkipGate,
    /// A drill of the way back began or ended.
    Drill,
    /// An operator gives the release to everybody at once.
    Emergency,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Promote => "promote",
            Self::Hold => "hold",
            Self::RollBack => "roll back",
            Self::Inconclusive => "inconclusive",
            Self::Abort => "abort",
            Self::AwaitApproval => "await approval",
            Self::TakeBack => "take back",
            Self::RolledBack => "rolled back",
            Self::SkipGate => "skip gate",
            Self::Drill => "drill",
            Self::Emergency => "emergency",
        })
    }
}

/// A decision about a stage, for the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// When.
    pub at: UnixMillis,
    /// Index of the stage.
    pub stage: usize,
    /// What is done.
    pub decision: Decision,
    /// Why, for people.
    pub sentence: String,
    /// The look it rests on; none for decisions on devices, time or an operator's word alone.
    pub judgement: Option<Judgement>,
}
