//! What goes into a rollout and what comes out of it. Events are stored: folding them over [`Start`]
//! gives the same rollout again.

use serde::{Deserialize, Serialize};
use serin_protocol::assignment::{Order, ReleaseRef};
use serin_protocol::ids::{DeviceId, ReleaseId, RolloutId, UnixMillis};
use serin_protocol::message::{Hello, Phase, Presence, Reason};

use super::cohort::Salt;
use super::evidence::EvidenceWanted;
use super::plan::{Plan, PlanError};
use super::state::{State, StateVersion};
use super::verdict::{Judgement, Verdict};

/// Most devices in one rollout. The state of one takes about 300 bytes; larger fleets are several.
pub const MAX_DEVICES: usize = 250_000;

/// Most releases that a fleet may run before a rollout.
pub const MAX_BASELINES: usize = 64;

/// Longest reason an operator gives, in characters; what is longer is cut.
pub const MAX_WORDS: usize = 400;

/// Everything a rollout begins with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Its number.
    pub id: RolloutId,
    /// The strategy.
    pub plan: Plan,
    /// What is rolled out.
    pub release: ReleaseRef,
    /// What the fleet runs until now, the one to return to by default first. Empty for a first release.
    pub baselines: Vec<ReleaseRef>,
    /// Random, drawn once: decides who is early.
    pub salt: Salt,
    /// When it starts.
    pub at: UnixMillis,
    /// The devices known by then; others join when they are seen.
    pub devices: Vec<Sighting>,
}

/// What a device last said about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// The device.
    pub device: DeviceId,
    /// Whether it is there.
    pub presence: Presence,
    /// The release that answers.
    pub active: Option<ReleaseId>,
    /// The release being installed.
    pub candidate: Option<ReleaseId>,
    /// A field engineer decides what runs there.
    pub pinned: bool,
}

impl From<&Hello> for Sighting {
    fn from(hello: &Hello) -> Self {
        Self {
            device: hello.device.clone(),
            presence: hello.presence,
            active: hello.active.clone(),
            candidate: hello.candidate.clone(),
            pinned: hello.pinned,
        }
    }
}

/// Why a rollout cannot start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The plan does not make sense.
    #[error("the plan is refused: {0}")]
    Plan(#[from] PlanError),
    /// Too many devices.
    #[error("{0} devices, at most {MAX_DEVICES} are possible in one rollout")]
    TooManyDevices(usize),
    /// Too many baselines.
    #[error("{0} baseline releases, at most {MAX_BASELINES} are possible")]
    TooManyBaselines(usize),
    /// There is nothing to compare with and nothing to return to.
    #[error("{0} is both the release and a baseline")]
    ReleaseIsBaseline(ReleaseId),
}

/// Something a rollout must know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RolloutEvent {
    /// A device said hello, or its last will did. Unknown devices join the rollout.
    DeviceSeen(Sighting),
    /// A device's update machine moved, about any release.
    DeviceTransition {
        /// The device.
        device: DeviceId,
        /// The release in question.
        release: ReleaseId,
        /// Phase entered.
        to: Phase,
        /// Why.
        reason: Option<Reason>,
    },
    /// What a look at the evidence showed; made by [`super::Rollout::judge`].
    Judged(Box<Judgement>),
    /// An operator's word.
    Operator(OperatorOrder),
    /// Time has passed.
    Tick,
}

/// What an operator wants, and on which state of the rollout they decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorOrder {
    /// The version of the state the operator looked at; `None` to act on whatever is.
    pub expected: Option<StateVersion>,
    /// Who.
    pub by: String,
    /// What.
    pub command: Command,
}

/// What an operator can order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Give the release to no further device. What is being installed goes on; gates go on guarding.
    Pause,
    /// Go on, with a fresh time limit for the stage.
    Resume,
    /// Stop here: unfinished installations are given up, finished ones are kept.
    Abort {
        /// Why, for the record.
        reason: String,
    },
    /// Take the release back from every device, also after the rollout has ended.
    RollBack {
        /// Why, for the record.
        reason: String,
    },
    /// Enter the next stage now, whatever the gates say.
    Promote {
        /// Why, for the record.
        reason: String,
    },
}

/// Why an operator's order was not carried out. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Somebody or something was faster.
    #[error("the rollout has changed since: it is at version {actual}, you looked at {expected}")]
    Conflict {
        /// The version the operator looked at.
        expected: StateVersion,
        /// The version now.
        actual: StateVersion,
    },
    /// Not possible in this state.
    #[error("cannot {command} a rollout that is {state}")]
    NotNow {
        /// What was ordered.
        command: &'static str,
        /// What the rollout is.
        state: String,
    },
}

/// What the shell is to do, in order. Everything is to be stored before it is sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Sign and publish this order to this device.
    Assign {
        /// The device.
        device: DeviceId,
        /// What it is to do.
        order: Order,
        /// An update not committed by then is given up by the device as well.
        expires: UnixMillis,
    },
    /// Collect this evidence, have it judged by [`super::Rollout::judge`] and answer with
    /// [`RolloutEvent::Judged`]. Asked for again at the next tick until answered.
    Gather(EvidenceWanted),
    /// Store this verdict and show it.
    Record(Verdict),
    /// The rollout is in another state or stage.
    StateChanged {
        /// The version from now on.
        version: StateVersion,
        /// The state from now on.
        state: State,
        /// Index of the stage.
        stage: usize,
    },
    /// Answer to the operator whose order is being handled.
    Reply(Result<StateVersion, Refusal>),
}

/// Effects in order.
pub type Effects = Vec<Effect>;
