//! Five ways to bring a release out, as data. All of them become stages; what a stage is for is its purpose.

use serde::{Deserialize, Serialize};
use serin_protocol::ids::{BasisPoints, Millis};

use super::super::notation::size::Size;
use super::super::notation::{share, span};
use super::selector::Selector;
use super::{FailureBudget, Plan};

/// How a release spreads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Strategy {
    /// Stage by stage, each compared with devices that do not have the release yet.
    Canary(Canary),
    /// Everybody at once; only hard guards watch.
    BigBang(BigBang),
    /// First beside the release in use, on the same inputs and unheard by apps; then stage by stage.
    Shadow(Shadow),
    /// Two arms side by side for a fixed time, decided by one metric declared beforehand.
    Ab(Ab),
    /// Two arms whose shares follow a reward, window by window.
    Bandit(Bandit),
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

/// Everybody at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BigBang {
    /// How long it is watched once its devices have settled.
    #[serde(with = "span")]
    pub bake: Millis,
    /// Inferences that must have been reported. With 0 installing well is enough.
    #[serde(default)]
    pub min_requests: u64,
    /// From the start; then [`Plan::on_inconclusive`] applies.
    #[serde(with = "span", default = "default_timeout")]
    pub timeout: Millis,
}

/// The release answers beside the one in use, unheard, on some devices first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shadow {
    /// How many devices run it in the shadow.
    pub share: Size,
    /// How long.
    #[serde(with = "span")]
    pub bake: Millis,
    /// Devices that must have reported pairs of answers.
    #[serde(default = "one_device")]
    pub min_devices: u32,
    /// Pairs of answers they must have reported, all together.
    #[serde(default = "default_min_requests")]
    pub min_pairs: u64,
    /// Share of pairs in which the two releases may say different things, at 95 % confidence.
    #[serde(with = "share")]
    pub max_disagreement: BasisPoints,
    /// From entering the stage; then [`Plan::on_inconclusive`] applies.
    #[serde(with = "span", default = "default_timeout")]
    pub timeout: Millis,
    /// What comes after, as in a canary.
    pub stages: Vec<Stage>,
    /// As in a canary.
    #[serde(with = "share", default = "default_control")]
    pub control: BasisPoints,
}

/// Two arms for a fixed time. Gates guard them meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ab {
    /// How many devices get the release; the others are the other arm.
    pub share: Size,
    /// When it is decided, from when the devices have settled.
    #[serde(with = "span")]
    pub horizon: Millis,
    /// What it is decided by.
    pub metric: Metric,
    /// What is done when neither arm is shown to be better.
    pub on_tie: OnTie,
    /// Devices that each arm must have.
    #[serde(default = "default_min_devices")]
    pub min_devices: u32,
    /// Inferences that each arm must have reported.
    #[serde(default = "default_min_requests")]
    pub min_requests: u64,
    /// From entering the stage; then [`Plan::on_inconclusive`] applies.
    #[serde(with = "span", default = "default_timeout")]
    pub timeout: Millis,
}

/// Shares that follow a reward. It chooses between arms that passed the guards and is never the guard itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bandit {
    /// No arm gets less than this, so that both go on being known.
    #[serde(with = "share", default = "default_floor")]
    pub floor: BasisPoints,
    /// Devices keep their arm for so long.
    #[serde(with = "span")]
    pub window: Millis,
    /// So many windows at most; then [`Plan::on_inconclusive`] applies.
    pub windows: u32,
    /// The reward.
    pub metric: Metric,
    /// An arm that is the better one with this probability has won.
    #[serde(with = "share", default = "default_win")]
    pub win: BasisPoints,
    /// Devices that each arm must have.
    #[serde(default = "default_min_devices")]
    pub min_devices: u32,
    /// Inferences that each arm must have reported.
    #[serde(default = "default_min_requests")]
    pub min_requests: u64,
}

/// One number per device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of failed inferences; less is better.
    ErrorRate,
    /// Mean of the logarithm of the time per inference; less is better.
    Latency,
    /// Mean confidence; more is better.
    Confidence,
}

/// What is done when neither arm is shown to be better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTie {
    /// The release is for everybody.
    Promote,
    /// Everybody keeps what they had.
    RollBack,
    /// An operator decides.
    Operator,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Of the fleet, together with the stages before: `"25%"`, rounded up to whole devices, or `5` devices.
    pub share: Size,
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
    /// The stage is entered only by an operator's word, whatever the gates say.
    #[serde(default)]
    pub approval: bool,
    /// Only these devices get the release in this stage.
    #[serde(default)]
    pub who: Option<Selector>,
    /// Stricter than the plan's over the devices of this stage alone.
    #[serde(default)]
    pub failures: Option<FailureBudget>,
}

/// What a stage is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Purpose<'a> {
    /// Devices get the release, compared with those that have not.
    Spread,
    /// Devices run it unheard.
    Shadow(&'a Shadow),
    /// Two arms until the horizon.
    Compare(&'a Ab),
    /// Two arms whose shares change.
    Allocate(&'a Bandit),
}

impl Stage {
    /// A stage with defaults for all that is not said.
    pub const fn of(share: Size, bake: Millis) -> Self {
        Self {
            share,
            bake,
            min_devices: default_min_devices(),
            min_requests: default_min_requests(),
            timeout: default_timeout(),
            approval: false,
            who: None,
            failures: None,
        }
    }

    /// The last stage where nothing is left to compare with and what came before has decided.
    fn everybody(bake: Millis, timeout: Millis) -> Self {
        Self { min_devices: 1, min_requests: 0, timeout, ..Self::of(Size::WHOLE, bake) }
    }
}

/// How long the whole fleet is watched after an A/B or a bandit, which have watched it long before.
const LAST_BAKE: Millis = Millis::from_secs(60);

impl Plan {
    /// The stages in order.
    pub fn stages(&self) -> Vec<Stage> {
        match &self.strategy {
            Strategy::Canary(canary) => canary.stages.clone(),
            Strategy::BigBang(all) => {
                vec![Stage { min_requests: all.min_requests, ..Stage::everybody(all.bake, all.timeout) }]
            }
            Strategy::Shadow(shadow) => {
                let first = Stage {
                    min_devices: shadow.min_devices,
                    min_requests: shadow.min_pairs,
                    timeout: shadow.timeout,
                    ..Stage::of(shadow.share, shadow.bake)
                };
                std::iter::once(first).chain(shadow.stages.iter().cloned()).collect()
            }
            Strategy::Ab(ab) => {
                let arms = Stage {
                    min_devices: ab.min_devices,
                    min_requests: ab.min_requests,
                    timeout: ab.timeout,
                    ..Stage::of(ab.share, ab.horizon)
                };
                vec![arms, Stage::everybody(LAST_BAKE, default_timeout())]
            }
            Strategy::Bandit(bandit) => {
                let all = Millis(bandit.window.0.saturating_mul(u64::from(bandit.windows)));
                let arms = Stage {
                    min_devices: bandit.min_devices,
                    min_requests: bandit.min_requests,
                    // Windows count from when devices have settled, and a window more may go into looking.
                    timeout: all.plus(self.deadline).plus(bandit.window),
                    ..Stage::of(Size::Share(BasisPoints(5000)), bandit.window)
                };
                vec![arms, Stage::everybody(LAST_BAKE, default_timeout())]
            }
        }
    }

    /// What a stage is for.
    pub const fn purpose(&self, stage: usize) -> Purpose<'_> {
        match &self.strategy {
            Strategy::Shadow(shadow) if stage == 0 => Purpose::Shadow(shadow),
            Strategy::Ab(ab) if stage == 0 => Purpose::Compare(ab),
            Strategy::Bandit(bandit) if stage == 0 => Purpose::Allocate(bandit),
            Strategy::Canary(_)
            | Strategy::BigBang(_)
            | Strategy::Shadow(_)
            | Strategy::Ab(_)
            | Strategy::Bandit(_) => Purpose::Spread,
        }
    }

    /// Share of the fleet that is left alone until the last stage.
    pub const fn control(&self) -> BasisPoints {
        match &self.strategy {
            Strategy::Canary(canary) => canary.control,
            Strategy::Shadow(shadow) => shadow.control,
            Strategy::BigBang(_) | Strategy::Ab(_) | Strategy::Bandit(_) => BasisPoints(0),
        }
    }
}

// About 20 devices per arm are what a permutation test needs to say anything at 1 % spent over a
// rollout, 100 inferences per device what makes a device's rate mean something.
pub(super) const fn default_min_devices() -> u32 {
    20
}

const fn one_device() -> u32 {
    1
}

pub(super) const fn default_min_requests() -> u64 {
    2000
}

pub(super) const fn default_timeout() -> Millis {
    Millis::from_secs(24 * 3600)
}

pub(super) const fn default_control() -> BasisPoints {
    BasisPoints(1000)
}

const fn default_floor() -> BasisPoints {
    BasisPoints(1000)
}

const fn default_win() -> BasisPoints {
    BasisPoints(9900)
}
