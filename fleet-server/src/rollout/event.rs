//! What goes into a rollout and what comes out of it. Events are stored: folding them over [`Start`]
//! gives the same rollout again.

use serde::{Deserialize, Serialize};
use serin_protocol::assignment::{Order, ReleaseRef};
use serin_protocol::ids::{DeviceId, ReleaseId, RolloutId, UnixMillis};
use serin_protocol::message::{Hello, Phase, Presence, Reason};

use super::cohort::Salt;
use super::evidence::EvidenceWanted;
use super::plan::selector::{Tags, Traits};
use super::plan::{Plan, PlanError, Selector};
use super::state::{State, StateVersion};
use super::verdict::{GateName, Judgement, Verdict};

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
    /// What does not change while it installs.
    pub traits: Traits,
}

impl Sighting {
    /// What a hello says, with what operators noted about the device.
    pub fn of(hello: &Hello, tags: &Tags) -> Self {
        Self {
            device: hello.device.clone(),
            presence: hello.presence,
            active: hello.active.clone(),
            candidate: hello.candidate.clone(),
            pinned: hello.pinned,
            traits: Traits { target: hello.target.clone(), tags: tags.clone() },
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
    /// Nobody is meant.
    #[error("the plan's `who` means none of the {0} devices of the fleet, and none may join later")]
    Nobody(usize),
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
    /// A worker died, on any device, with any release.
    DeviceCrashed {
        /// The device.
        device: DeviceId,
        /// What its worker ran.
        release: ReleaseId,
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
    /// Take the release back, also after the rollout has ended.
    RollBack {
        /// Why, for the record.
        reason: String,
        /// From these devices only; the rollout then goes on without them. From every device without.
        who: Option<Box<Selector>>,
        /// To this release; without, each device to what it ran before.
        to: Option<ReleaseRef>,
        /// Whatever the plan's `rollback_rate` says.
        at_once: bool,
    },
    /// Enter the next stage now, whatever the gates say, also where a stage asks for approval.
    Promote {
        /// Why, for the record.
        reason: String,
    },
    /// Do not look at a gate in this stage any more.
    SkipGate {
        /// Which.
        gate: GateName,
        /// Why, for the record.
        reason: String,
    },
    /// Show that the way back works: some devices that run the release return to what they ran before, and
    /// then run it again.
    Drill {
        /// How many, at most [`MAX_DRILL`].
        devices: u32,
        /// Why, for the record.
        reason: String,
    },
    /// Give the release to everybody now: rates, windows, approvals and comparisons are set aside. Hard guards
    /// stay.
    Emergency {
        /// Why, for the record.
        reason: String,
    },
}

/// Most devices of one drill: it proves a path, and what it proves on 100 devices more would not add to.
pub const MAX_DRILL: u32 = 100;

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
    /// A reason must be given: it goes into the record.
    #[error("a {0} needs a reason, for the record")]
    NoReason(&'static str),
    /// The order is about nothing there is.
    #[error("{0}")]
    Nothing(String),
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
    /// Have this device run the release beside what answers there, unheard.
    Shadow {
        /// The device.
        device: DeviceId,
        /// What runs in the shadow.
        release: ReleaseRef,
        /// It ends by then.
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
