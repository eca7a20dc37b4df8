//! Where a rollout stands, and where each of its devices does.

use core::fmt;

use serde::{Deserialize, Serialize};
use serin_protocol::ids::{BasisPoints, Millis, ReleaseId, UnixMillis};
use serin_protocol::message::{Phase, Presence, Reason};

use super::cohort::Position;
use super::plan::selector::Traits;
use super::verdict::GateName;

/// Counts changes of state and stage, so that two operators who act at once get a conflict, not a race.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StateVersion(pub u64);

impl fmt::Display for StateVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What a rollout is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Devices of the current stage get the release and are watched.
    Running,
    /// An operator stopped the spreading. Gates still guard what runs.
    Paused {
        /// Since when.
        since: UnixMillis,
        /// By whom.
        by: String,
    },
    /// A gate stopped the spreading. Goes on by itself when later evidence is good.
    Holding {
        /// Since when.
        since: UnixMillis,
        /// What holds it.
        why: String,
    },
    /// Nothing is shown and the stage's time is over. Only an operator's word goes on; gates still guard.
    AwaitingOperator {
        /// Since when.
        since: UnixMillis,
        /// What is missing.
        why: String,
    },
    /// Devices are told to return.
    RollingBack {
        /// Since when.
        since: UnixMillis,
        /// The rollback is over by then.
        until: UnixMillis,
        /// Why.
        why: String,
    },
    /// Decided.
    Finished {
        /// When.
        at: UnixMillis,
        /// How.
        outcome: Outcome,
    },
}

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The release is for the whole fleet; late devices still get it.
    Completed,
    /// Every device that can be reached has left the release; those that come back later are told to.
    RolledBack,
    /// Stopped by an operator; devices keep what they had by then, and late ones are not taken in.
    Aborted,
}

impl State {
    /// Whether the stages may still go on: neither rolling back nor finished.
    pub const fn is_forward(&self) -> bool {
        match self {
            Self::Running | Self::Paused { .. } | Self::Holding { .. } | Self::AwaitingOperator { .. } => {
                true
            }
            Self::RollingBack { .. } | Self::Finished { .. } => false,
        }
    }

    /// Whether nothing will change any more without a device or an operator.
    pub const fn is_finished(&self) -> bool {
        match self {
            Self::Finished { .. } => true,
            Self::Running
            | Self::Paused { .. }
            | Self::Holding { .. }
            | Self::AwaitingOperator { .. }
            | Self::RollingBack { .. } => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Paused { .. } => "paused",
            Self::Holding { .. } => "holding",
            Self::AwaitingOperator { .. } => "awaiting an operator",
            Self::RollingBack { .. } => "rolling back",
            Self::Finished { outcome: Outcome::Completed, .. } => "completed",
            Self::Finished { outcome: Outcome::RolledBack, .. } => "rolled back",
            Self::Finished { outcome: Outcome::Aborted, .. } => "aborted",
        })
    }
}

/// The current stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageProgress {
    /// Its index in the plan.
    pub index: usize,
    /// When it began; evidence from before does not count for it.
    pub entered: UnixMillis,
    /// When its time is over. Does not apply while paused; resuming gives a fresh limit.
    pub timeout_at: UnixMillis,
    /// Since when its devices have settled: the bake counts from here.
    pub settled_at: Option<UnixMillis>,
    /// Looks at sufficient evidence so far: the alpha is spent over them.
    pub looks: u32,
    /// When the next look is due; none before a device runs the release.
    pub next_look: Option<UnixMillis>,
    /// What the last look missed for the next stage, in words.
    pub missing: Option<String>,
    /// Since when the rate counts: from entering, and anew from every resumption.
    pub pace_from: UnixMillis,
    /// Devices told since then.
    pub told: u32,
    /// Gates that an operator set aside for this stage.
    pub skipped: Vec<GateName>,
    /// The share of the moment, where shares follow a reward.
    pub allocation: Option<BasisPoints>,
    /// Windows that are over, where shares follow a reward.
    pub windows: u32,
}

/// A drill of the way back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drill {
    /// Since when.
    pub since: UnixMillis,
    /// By whom.
    pub by: String,
    /// Devices that take part.
    pub devices: u32,
    /// How long each took that has returned.
    pub took: Vec<Millis>,
    /// Devices that did not return in time.
    pub failed: u32,
}

/// One device in a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// Its place in the order in which devices get the release.
    pub position: Position,
    /// Left alone until the last stage.
    pub control: bool,
    /// Whether it is there, as last said.
    pub presence: Presence,
    /// A field engineer decides what runs there: it is left out and shown.
    pub pinned: bool,
    /// What does not change while it installs.
    pub traits: Traits,
    /// Its worker has died since the stage began; only the first time counts.
    pub crashed: bool,
    /// What answers there, as last said.
    pub active: Option<ReleaseId>,
    /// What it ran before it was given the release: what it returns to.
    pub before: Option<ReleaseId>,
    /// Times it was given the release.
    pub attempts: u8,
    /// Where it stands.
    pub standing: Standing,
}

/// Where a device stands in a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Not given the release: a control until its turn comes.
    Waiting,
    /// Runs the release in the shadow; what answers is what answered before.
    Shadowing {
        /// Since when it was told to.
        since: UnixMillis,
    },
    /// Told to run the release.
    Installing {
        /// The last phase reported.
        phase: Phase,
        /// By then it is done or has failed.
        deadline: UnixMillis,
    },
    /// Runs the release, committed.
    Running {
        /// Since when.
        since: UnixMillis,
    },
    /// Ran it and was seen with something else, without a word why. Given the release again if that word
    /// does not come.
    Left {
        /// Until when the word is waited for.
        deadline: UnixMillis,
    },
    /// Could not or would not run it.
    Failed {
        /// When.
        at: UnixMillis,
        /// Why.
        failure: Failure,
    },
    /// Offline when its deadline passed. Told again when it is back.
    Unreachable {
        /// Since when.
        since: UnixMillis,
    },
    /// Somebody else told it to do something else meanwhile.
    Skipped {
        /// What it said.
        reason: Reason,
    },
    /// Told to return, and to run the release again after that: a drill.
    Drilling {
        /// When it was told.
        since: UnixMillis,
        /// By then the drill has failed there.
        deadline: UnixMillis,
    },
    /// Told to return.
    Returning {
        /// When it was told.
        since: UnixMillis,
        /// By then it is given up.
        deadline: UnixMillis,
    },
    /// Has left the release.
    Returned {
        /// When.
        at: UnixMillis,
        /// How long after it was told; none when it left by itself.
        took: Option<Millis>,
    },
    /// Did not report its return in time. Told again when it is back.
    NotReturned {
        /// Since when.
        since: UnixMillis,
    },
}

/// Why a device failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// It rejected the release before it ever answered.
    Rejected(Option<Reason>),
    /// It took the release back after it had answered.
    RolledBack(Option<Reason>),
    /// It was there and not done in time.
    TimedOut {
        /// How far it had come.
        phase: Phase,
    },
    /// It lost the release again and again.
    GaveUp {
        /// Times it was given the release.
        attempts: u8,
    },
}

impl Standing {
    /// When something must have happened, where something is waited for.
    pub const fn deadline(&self) -> Option<UnixMillis> {
        match self {
            Self::Installing { deadline, .. }
            | Self::Left { deadline }
            | Self::Drilling { deadline, .. }
            | Self::Returning { deadline, .. } => Some(*deadline),
            Self::Waiting
            | Self::Shadowing { .. }
            | Self::Running { .. }
            | Self::Failed { .. }
            | Self::Unreachable { .. }
            | Self::Skipped { .. }
            | Self::Returned { .. }
            | Self::NotReturned { .. } => None,
        }
    }

    /// How long it took to return.
    pub const fn took(&self) -> Option<Millis> {
        match self {
            Self::Returned { took, .. } => *took,
            Self::Waiting
            | Self::Shadowing { .. }
            | Self::Installing { .. }
            | Self::Running { .. }
            | Self::Left { .. }
            | Self::Failed { .. }
            | Self::Unreachable { .. }
            | Self::Skipped { .. }
            | Self::Drilling { .. }
            | Self::Returning { .. }
            | Self::NotReturned { .. } => None,
        }
    }

    /// Whether it was ever given the release: it counts into the stage's share.
    pub const fn is_exposed(&self) -> bool {
        !matches!(self, Self::Waiting | Self::Shadowing { .. })
    }
}
