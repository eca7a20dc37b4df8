//! What goes into the update machine and what comes out of it.

use serin_protocol::assignment::{Assignment, ReleaseRef, TrialMode};
use serin_protocol::ids::{Digest, Millis, ReleaseId, RolloutId, SequenceNumber, UnixMillis, Version};
use serin_protocol::message::{Detail, EventKind, Reason, WorkerDeath};
use serin_protocol::release::Release;

use super::admission::Means;
use super::policy::{Verdict, Verdicts};
use super::record::{Record, RootFloor, Slot};

/// Both clocks at one moment: the wall clock judges expiry, the monotonic one runs timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall clock, never below the highest signed time seen.
    pub wall: UnixMillis,
    /// Since the agent started.
    pub elapsed: Millis,
}

/// Something the machine must know.
#[derive(Clone, Debug)]
pub enum Event {
    /// The agent has started.
    Boot {
        /// Starts before, within the window of a crash loop, that were not followed by an orderly stop.
        restarts: u32,
    },
    /// An assignment whose signature holds.
    Assigned(Assignment),
    /// The same, but its release is known to lie below its owner's floor.
    AssignedBelowFloor(Box<Assignment>, Detail),
    /// A root is trusted that no refresh may end below.
    RootTrusted {
        /// Which.
        floor: RootFloor,
        /// It took a key back that said what time it is: what that key said no longer counts.
        recovered: bool,
    },
    /// The wanted release statement was fetched and its signature and digest hold, or not.
    Statement {
        /// Which statement.
        statement: Digest,
        /// What it says, with what the device can offer.
        outcome: Result<(Box<Release>, Means), Reason>,
    },
    /// The first chunk of the bundle is being asked for: the plan has been reported.
    FetchStarted(Digest),
    /// The whole bundle is here with the signed digest, or will not come.
    Fetched(Digest, Result<(), Reason>),
    /// The bundle is unpacked and every file checked, or not.
    Staged(Digest, Result<(), Reason>),
    /// A worker is ready to answer, golden vectors passed where asked, or not.
    Warmed(Digest, Result<(), Reason>),
    /// A worker that was ready died.
    WorkerDied(Digest, WorkerDeath),
    /// What the release on probation, or the one being tried, has done since that began.
    Health {
        /// Inferences.
        requests: u32,
        /// Those that failed.
        errors: u32,
    },
    /// The active release breaks the policy that its owner signed for devices on their own.
    Unfit(Digest, Reason),
    /// Whether local conditions let an update go on, whenever that may have changed, first right after
    /// [`Self::Boot`]. Until it is heard nothing is held up.
    Policy(Verdicts),
    /// A field engineer's order.
    Field(u32, FieldOrder),
    /// Writing the boot record failed; nothing after it in that batch was done.
    PersistFailed(Reason),
    /// Time has passed.
    Tick,
}

/// What a field engineer can order. The user id travels beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldOrder {
    /// Go back to the previous release (or check that it is this version) and pin it.
    Rollback {
        /// The version expected there. Without it none comes back that was taken back here.
        to: Option<Version>,
    },
    /// Keep what runs, whatever the fleet says.
    Pin,
    /// Follow the fleet again.
    Unpin,
    /// Take no order of the fleet for this long.
    Hold {
        /// How long.
        span: Millis,
    },
    /// Install this release, whose bundle is brought along. Its statement and all above it are trusted.
    Sideload {
        /// Digest of the statement.
        statement: Digest,
        /// What it says.
        release: Box<Release>,
        /// What the device can offer.
        means: Means,
    },
}

/// Why a field engineer's order was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldRefusal {
    /// Nothing runs.
    #[error("no release is active")]
    NothingActive,
    /// There is nothing to go back to.
    #[error("there is no previous release on this device")]
    NoPrevious,
    /// What is there was taken back here, and was not asked for by name.
    #[error("{0} was taken back on this device and comes back only by name")]
    Condemned(ReleaseId),
    /// Another version is there.
    #[error("version {wanted} is not on this device; the previous release is {previous}")]
    NotHere {
        /// Asked for.
        wanted: Version,
        /// There instead.
        previous: ReleaseId,
    },
    /// It is already so.
    #[error("{0}")]
    Already(&'static str),
    /// The release brought is the one to go back to.
    #[error("{0} is on this device already, as the previous release")]
    IsPrevious(ReleaseId),
    /// The release brought cannot run here.
    #[error("{release} cannot run here: {reason}")]
    NotAdmitted {
        /// The release.
        release: ReleaseId,
        /// Why, with the numbers.
        reason: Reason,
    },
    /// The boot record could not be written; nothing changed.
    #[error("the boot record could not be written: {0}")]
    Storage(Reason),
}

/// What became of a field engineer's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldOutcome {
    /// Switched, or switching as soon as the worker is up.
    RolledBack {
        /// Release left.
        from: ReleaseId,
        /// Release returned to.
        to: ReleaseId,
        /// Whether it already answers.
        warm: bool,
    },
    /// Pinned.
    Pinned(ReleaseId),
    /// Unpinned.
    Unpinned,
    /// Held until then.
    Held(UnixMillis),
    /// Its bundle is being taken in; the outcome shows in the record.
    Sideloading,
}

/// What the shell is to do, in order. It stops at the first that fails.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Write the boot record durably. On failure feed [`Event::PersistFailed`] and drop the rest.
    Persist(Box<Record>),
    /// Subscribe to the release statement; answer with [`Event::Statement`].
    FetchStatement(ReleaseRef),
    /// Tell the fleet that this bundle will be fetched when it may.
    PlanLater(Digest, Box<Release>, Verdict),
    /// Fetch the bundle; answer with [`Event::FetchStarted`] and [`Event::Fetched`].
    Fetch(Digest, Box<Release>),
    /// Take in the bundle that an engineer brings; answer with [`Event::Fetched`].
    Receive(Digest, Box<Release>),
    /// Unpack and check; answer with [`Event::Staged`].
    Stage(Digest, Box<Release>),
    /// Start a worker; answer with [`Event::Warmed`].
    Warm {
        /// The release.
        slot: Slot,
        /// Run the golden vectors before it counts as ready.
        golden: bool,
    },
    /// Let this release answer from the next request on; its worker is ready.
    Flip(Slot),
    /// No release answers any more.
    Unserve,
    /// Nothing answers until the next [`Self::Flip`], which is on its way: memory does not suffice for both.
    Suspend,
    /// Let this release be tried beside the one that answers, its worker being ready; none from now on.
    Beside(Option<(Slot, TrialMode)>),
    /// Stop its worker.
    Stop(Digest),
    /// Stop fetching this release; the partial download stays for a next attempt.
    CancelFetch(Digest),
    /// Forget every release on disk but these.
    Collect(Vec<Digest>),
    /// Tell the fleet.
    Report {
        /// Assignment in force.
        sequence: SequenceNumber,
        /// Its rollout.
        rollout: Option<RolloutId>,
        /// What happened.
        kind: EventKind,
    },
    /// Say hello anew: slots or pin have changed.
    Announce,
    /// Forget the starts before this one: they were acted upon, or this run is healthy.
    ForgetStarts,
    /// Ask the broker for the retained assignment again.
    AskAssignment,
    /// Answer the field engineer whose order is being handled.
    Reply(Result<FieldOutcome, FieldRefusal>),
}

/// Effects in order.
pub type Effects = Vec<Effect>;
