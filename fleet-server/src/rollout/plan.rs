//! The strategy of a rollout as data: what an operator writes in TOML or JSON, checked as a whole
//! before anything moves. No floats, no clock: shares are basis points, times are milliseconds.
//!
//! ```toml
//! deadline = "1h"
//! alpha = "1%"
//! on_inconclusive = "operator"
//!
//! [[strategy.canary.stages]]
//! share = "25%"
//! bake = "30m"
//! min_devices = 3
//! min_requests = 300
//!
//! [[strategy.canary.stages]]
//! share = "100%"
//! bake = "10m"
//!
//! [gates.predictions]
//! threshold = 0.5
//! on_breach = "roll_back"
//! ```

mod check;

use serde::{Deserialize, Serialize};
use serin_protocol::assignment::Probation;
use serin_protocol::ids::{BasisPoints, Millis};

pub use super::notation::decimal::Thousandths;
use super::notation::{share, span};
pub use check::PlanError;

/// Most stages of a rollout. More than this is a rate, not a series of decisions.
pub const MAX_STAGES: usize = 16;

/// Everything an operator decides beforehand about one rollout. `Plan::default()` is a canary for
/// fleets of hundreds of devices and more: 5 %, 25 %, all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plan {
    /// Who gets the release when, and who stays behind as control.
    pub strategy: Strategy,
    /// What the canary devices are compared in. A gate that is absent is not looked at.
    pub gates: Gates,
    /// How many devices may fail by themselves before everything is rolled back.
    pub failures: FailureBudget,
    /// Share of the whole rollout's healthy releases that the comparisons may roll back by mistake,
    /// spent over stages, gates and looks. It bounds the comparisons by permutation; arms too small for
    /// that are decided by the size of the effect, and the verdict says so.
    #[serde(with = "share")]
    pub alpha: BasisPoints,
    /// How the fresh release is watched on the device itself.
    #[serde(with = "ProbationText")]
    pub probation: Probation,
    /// From an assignment to its commit; what takes longer has failed.
    #[serde(with = "span")]
    pub deadline: Millis,
    /// How long a rollback waits for the devices that can be reached.
    #[serde(with = "span")]
    pub rollback_deadline: Millis,
    /// Share of a stage's devices that may be silent beyond what the control shows. Above it a stage
    /// is not promoted: a release that breaks a device's connection looks like this.
    #[serde(with = "share")]
    pub max_silent: BasisPoints,
    /// What happens when a stage's time is over and nothing is shown.
    pub on_inconclusive: OnInconclusive,
}

/// How a release spreads. More ways will be further variants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Strategy {
    /// Stage by stage, each compared with devices that do not have the release yet.
    Canary(Canary),
}

/// Stages that grow, and a control group that stays behind until the last one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// In order; shares grow and the last is 100 %.
    pub stages: Vec<Stage>,
    /// Share of the fleet that gets the release in the last stage only. All devices that do not have
    /// the release yet are compared with; this is how many of them there are at least.
    #[serde(with = "share", default = "default_control")]
    pub control: BasisPoints,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Of the fleet, together with the stages before; rounded up to whole devices.
    #[serde(with = "share")]
    pub share: BasisPoints,
    /// How long it is watched once its devices have settled.
    #[serde(with = "span")]
    pub bake: Millis,
    /// Devices that must have reported, of the canary and, where there is one, of the control. No more
    /// than the stage has devices is asked for, and at least 1.
    #[serde(default = "default_min_devices")]
    pub min_devices: u32,
    /// Inferences that each arm must have reported, all devices together. With 0, allowed in the last
    /// stage only, installing well is enough.
    #[serde(default = "default_min_requests")]
    pub min_requests: u64,
    /// From entering the stage; then [`Plan::on_inconclusive`] applies. Resuming gives a fresh limit.
    #[serde(with = "span", default = "default_timeout")]
    pub timeout: Millis,
}

/// What the canary is compared in, all optional.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gates {
    /// Failed inferences.
    pub error_rate: Option<ErrorRateGate>,
    /// Slow inferences.
    pub latency: Option<LatencyGate>,
    /// What the model says.
    pub predictions: Option<DriftGate>,
    /// How sure it says it is.
    pub confidence: Option<DriftGate>,
    /// What the model is given: both arms should see the same world, so a difference means broken
    /// preprocessing or a skewed assignment, and holds.
    pub inputs: Option<DriftGate>,
}

/// Failed inferences, canary against control. A breach rolls back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorRateGate {
    /// The canary's rate over the control's that is too much, such as 1.2 …
    pub max_ratio: Thousandths,
    /// … if it is also this much higher.
    #[serde(with = "share")]
    pub floor: BasisPoints,
    /// Too much whatever the control shows; judged without a test, in the last stage as well.
    #[serde(with = "share")]
    pub hard_max: BasisPoints,
}

/// Slow inferences, canary against control. A breach rolls back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencyGate {
    /// Share of the canary's inferences above the control's 95th percentile that is too much. The control
    /// itself has at most 5 % there.
    #[serde(with = "share")]
    pub max_share: BasisPoints,
    /// Inferences faster than this are never slow.
    #[serde(with = "span")]
    pub floor: Millis,
}

/// A distribution, canary against control, by population stability index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriftGate {
    /// PSI that is too much. By custom 0.1 is a little, 0.25 a lot.
    pub threshold: Thousandths,
    /// What then.
    pub on_breach: OnBreach,
}

/// What a breached gate does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBreach {
    /// The release is taken back from every device.
    RollBack,
    /// No further device gets it until the breach is gone or an operator decides.
    Hold,
}

/// A hard guard over installation: rejected, rolled back by the device itself, or not done in time.
/// It needs no statistics and acts at once, when both numbers are reached or the whole cohort failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FailureBudget {
    /// This many failed devices …
    pub max_devices: u32,
    /// … that are at least this share of the devices that were given the release. A stage above the share
    /// is not promoted, however few devices that is.
    #[serde(with = "share")]
    pub max_share: BasisPoints,
}

/// What happens when a stage's time is over and nothing is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInconclusive {
    /// Stay at this stage and go on looking; evidence may still promote it.
    Hold,
    /// Stay and wait for an operator's word.
    Operator,
    /// Take the release back.
    RollBack,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Probation", deny_unknown_fields)]
struct ProbationText {
    #[serde(with = "span")]
    duration: Millis,
    #[serde(with = "share")]
    max_error_rate: BasisPoints,
    min_requests: u32,
    max_worker_deaths: u8,
}

// About 20 devices per arm are what a permutation test needs to say anything at 1 % spent over a
// rollout, 100 inferences per device what makes a device's rate mean something.
const fn default_min_devices() -> u32 {
    20
}

const fn default_min_requests() -> u64 {
    2000
}

const fn default_timeout() -> Millis {
    Millis::from_secs(24 * 3600)
}

const fn default_control() -> BasisPoints {
    BasisPoints(1000)
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            gates: Gates::default(),
            failures: FailureBudget::default(),
            alpha: BasisPoints(100),
            probation: Probation::default(),
            deadline: Millis::from_secs(4 * 3600),
            rollback_deadline: Millis::from_secs(3600),
            max_silent: BasisPoints(1000),
            on_inconclusive: OnInconclusive::Operator,
        }
    }
}

impl Default for Strategy {
    fn default() -> Self {
        let stage = |share| Stage {
            share: BasisPoints(share),
            bake: Millis::from_secs(3600),
            min_devices: default_min_devices(),
            min_requests: default_min_requests(),
            timeout: default_timeout(),
        };
        let stages = vec![stage(500), stage(2500), stage(10_000)];
        Self::Canary(Canary { stages, control: default_control() })
    }
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            error_rate: Some(ErrorRateGate {
                max_ratio: Thousandths(1200),
                floor: BasisPoints(100),
                hard_max: BasisPoints(2000),
            }),
            latency: Some(LatencyGate { max_share: BasisPoints(1500), floor: Millis(1) }),
            // A new model may rightly answer differently: without a word from its owner this only holds.
            predictions: Some(DriftGate { threshold: Thousandths(250), on_breach: OnBreach::Hold }),
            confidence: None,
            inputs: Some(DriftGate { threshold: Thousandths(250), on_breach: OnBreach::Hold }),
        }
    }
}

impl Default for FailureBudget {
    fn default() -> Self {
        Self { max_devices: 3, max_share: BasisPoints(500) }
    }
}

impl Gates {
    /// How many gates there are: the alpha is spent over them.
    pub fn count(&self) -> u32 {
        let gates = [
            self.error_rate.is_some(),
            self.latency.is_some(),
            self.predictions.is_some(),
            self.confidence.is_some(),
            self.inputs.is_some(),
        ];
        gates.into_iter().map(u32::from).sum()
    }
}

impl Plan {
    /// One stage at 100 %: for a first release, where there is nothing to compare with.
    pub fn all_at_once(bake: Millis, min_requests: u64) -> Self {
        let stage = Stage {
            share: BasisPoints::WHOLE,
            bake,
            min_devices: 1,
            min_requests,
            timeout: default_timeout(),
        };
        let strategy = Strategy::Canary(Canary { stages: vec![stage], control: BasisPoints(0) });
        Self { strategy, ..Self::default() }
    }

    /// The stages in order.
    pub fn stages(&self) -> &[Stage] {
        match &self.strategy {
            Strategy::Canary(canary) => &canary.stages,
        }
    }

    /// Share of the fleet that is left alone until the last stage.
    pub fn control(&self) -> BasisPoints {
        match &self.strategy {
            Strategy::Canary(canary) => canary.control,
        }
    }
}
