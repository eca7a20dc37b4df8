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
pub mod pace;
pub mod preset;
pub mod schedule;
pub mod selector;
pub mod strategy;

use serde::{Deserialize, Serialize};
use serin_protocol::assignment::Probation;
use serin_protocol::ids::{BasisPoints, Millis};

pub use super::notation::decimal::Thousandths;
use super::notation::size::Size;
use super::notation::{share, span};
pub use check::PlanError;
pub use pace::Rate;
pub use preset::Preset;
use schedule::Schedule;
pub use selector::Selector;
pub use strategy::{Ab, Bandit, BigBang, Canary, Metric, OnTie, Purpose, Shadow, Stage, Strategy};
use strategy::{default_control, default_timeout};

/// Most stages of a rollout. More than this is a rate, not a series of decisions.
pub const MAX_STAGES: usize = 16;

/// Everything an operator decides beforehand about one rollout. `Plan::default()` is a canary for
/// fleets of hundreds of devices and more: 5 %, 25 %, all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plan {
    /// Who gets the release when, and who stays behind as control.
    pub strategy: Strategy,
    /// Which devices it is about.
    pub who: Selector,
    /// When devices are told.
    pub schedule: Schedule,
    /// How fast devices are given the release, within each stage.
    pub rate: Option<Rate>,
    /// How fast it is taken back; all at once without.
    pub rollback_rate: Option<Rate>,
    /// What the canary devices are compared in. A gate that is absent is not looked at.
    pub gates: Gates,
    /// How many devices may fail by themselves before everything is rolled back.
    pub failures: FailureBudget,
    /// Share of the whole rollout's healthy releases that the comparisons may roll back by mistake,
    /// spent over stages, gates and looks. Arms too small for any test are decided by the hard limits and by
    /// an operator, and the verdict says so.
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

/// What the canary is compared in, all optional.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gates {
    /// Failed inferences.
    pub error_rate: Option<ErrorRateGate>,
    /// Workers that die, by the first time on each device. More than chance rolls back.
    pub crashes: bool,
    /// Slow inferences.
    pub latency: Option<LatencyGate>,
    /// What the model says.
    pub predictions: Option<DriftGate>,
    /// How sure it says it is.
    pub confidence: Option<DriftGate>,
    /// What the model is given: both arms should see the same world, so a difference means broken
    /// preprocessing or a skewed assignment, and holds.
    pub inputs: Option<DriftGate>,
    /// Whether as many canary as control devices report: where they do not, what the others show is not to be
    /// trusted, and the stage holds.
    pub reporting: bool,
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
    /// A stage is promoted only once the canary's rate is shown to be below this many times the control's, or
    /// not `floor` above it, at 95 % …
    #[serde(default = "default_margin")]
    pub margin: Thousandths,
    /// … and this many times in the last stage that has a control.
    #[serde(default = "default_late_margin")]
    pub late_margin: Thousandths,
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
    /// Too much without a test, where arms are too small for one.
    #[serde(with = "share", default = "default_hard_share")]
    pub hard_share: BasisPoints,
}

/// A distribution, canary against control, by population stability index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriftGate {
    /// PSI that is too much. By custom 0.1 is a little, 0.25 a lot.
    pub threshold: Thousandths,
    /// What then.
    pub on_breach: OnBreach,
    /// PSI that is too much without a test, where arms are too small for one. Even then no other division of
    /// the same devices may show as much.
    #[serde(default)]
    pub hard: Option<Thousandths>,
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

impl Default for Plan {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            who: Selector::default(),
            schedule: Schedule::default(),
            rate: None,
            rollback_rate: None,
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
        let stage = |share| Stage::of(Size::Share(BasisPoints(share)), Millis::from_secs(3600));
        let stages = vec![stage(500), stage(2500), stage(10_000)];
        Self::Canary(Canary { stages, control: default_control() })
    }
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            error_rate: Some(ErrorRateGate::default()),
            crashes: true,
            latency: Some(LatencyGate::default()),
            // A new model may rightly answer differently: without a word from its owner this only holds.
            predictions: Some(DriftGate::default()),
            confidence: None,
            // Both arms see the same world: less is broken preprocessing already.
            inputs: Some(DriftGate { threshold: Thousandths(100), ..DriftGate::default() }),
            reporting: true,
        }
    }
}

impl Default for ErrorRateGate {
    fn default() -> Self {
        Self {
            max_ratio: Thousandths(1200),
            floor: BasisPoints(100),
            hard_max: BasisPoints(2000),
            margin: default_margin(),
            late_margin: default_late_margin(),
        }
    }
}

impl Default for LatencyGate {
    fn default() -> Self {
        Self { max_share: BasisPoints(1500), floor: Millis(1), hard_share: BasisPoints::WHOLE }
    }
}

impl Default for DriftGate {
    fn default() -> Self {
        Self { threshold: Thousandths(250), on_breach: OnBreach::Hold, hard: None }
    }
}

const fn default_margin() -> Thousandths {
    Thousandths(1500)
}

const fn default_late_margin() -> Thousandths {
    Thousandths(1250)
}

const fn default_hard_share() -> BasisPoints {
    BasisPoints::WHOLE
}

impl Default for FailureBudget {
    fn default() -> Self {
        Self { max_devices: 3, max_share: BasisPoints(500) }
    }
}

impl Gates {
    /// How many gates spend alpha. The one on reporting does not: it only holds.
    pub fn count(&self) -> u32 {
        let gates = [
            self.error_rate.is_some(),
            self.crashes,
            self.latency.is_some(),
            self.predictions.is_some(),
            self.confidence.is_some(),
            self.inputs.is_some(),
        ];
        gates.into_iter().map(u32::from).sum()
    }

    /// How many compare what inferences showed.
    fn compared(&self) -> u32 {
        self.count() - u32::from(self.crashes)
    }
}

impl Plan {
    /// Everybody at once: for a first release, where there is nothing to compare with.
    pub fn all_at_once(bake: Millis, min_requests: u64) -> Self {
        let strategy = Strategy::BigBang(BigBang { bake, min_requests, timeout: default_timeout() });
        Self { strategy, ..Self::default() }
    }
}
