//! Words about an update: its phases, how workers end, why a release is rejected or taken back.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::Detail;
use crate::ids::{BasisPoints, ByteCount, TargetClass};
use crate::release::Decoder;

/// A phase of the update machine, as reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing to do.
    Idle,
    /// An assignment was accepted; its release statement is being fetched.
    Assigned,
    /// Target class, runtime, memory and space suffice.
    Admitted,
    /// Chunks are being fetched.
    Fetching,
    /// The whole bundle has the signed digest.
    Verified,
    /// Unpacked, every file checked.
    Staged,
    /// A worker runs the golden vectors.
    Warming,
    /// It is tried beside the active release: its worker sees what apps ask, and answers some of it or nothing.
    Shadowing,
    /// Answering, watched.
    Probation,
    /// Kept.
    Committed,
    /// Given up before it ever answered.
    Rejected,
    /// Taken back after it had answered.
    RolledBack,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Idle => "idle",
            Self::Assigned => "assigned",
            Self::Admitted => "admitted",
            Self::Fetching => "fetching",
            Self::Verified => "verified",
            Self::Staged => "staged",
            Self::Warming => "warming",
            Self::Shadowing => "on trial",
            Self::Probation => "probation",
            Self::Committed => "committed",
            Self::Rejected => "rejected",
            Self::RolledBack => "rolled back",
        })
    }
}

/// How a worker ended that should not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerDeath {
    /// It ran into its memory limit.
    MemoryLimit,
    /// It did not answer in time and was killed.
    Hung,
    /// It was ended by this signal.
    Signal(i32),
    /// It exited with this code.
    Exit(i32),
    /// It made a system call that no worker makes.
    Forbidden,
}

impl fmt::Display for WorkerDeath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MemoryLimit => f.write_str("memory limit reached"),
            Self::Hung => f.write_str("no answer before the deadline"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::Exit(code) => write!(f, "exited with code {code}"),
            Self::Forbidden => f.write_str("killed for a system call that no worker makes"),
        }
    }
}

/// What a device does about an agent that starts again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CrashAction {
    /// It gives up the unfinished update.
    GaveUp,
    /// It goes back to the previous release.
    RolledBack,
    /// It runs no release until it is told to run another.
    SafeMode,
}

impl fmt::Display for CrashAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GaveUp => "it gave up the unfinished update",
            Self::RolledBack => "it went back to the previous release",
            Self::SafeMode => "it runs no release until it is told to run another (safe mode)",
        })
    }
}

/// Why a release was rejected or rolled back, with the numbers that decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A newer assignment took its place.
    Superseded,
    /// The server told the device to stay with what it has.
    Cancelled,
    /// The assignment's time ran out.
    Expired,
    /// Built for other devices.
    WrongTarget {
        /// This device's class.
        device: TargetClass,
    },
    /// Needs another inference engine.
    WrongRuntime {
        /// What it needs.
        needed: heapless::String<32>,
    },
    /// Needs more memory than models may use here.
    OverMemoryBudget {
        /// Bytes needed.
        needed: ByteCount,
        /// Bytes allowed.
        budget: ByteCount,
    },
    /// Does not fit on the disk.
    NoSpace {
        /// Bytes needed.
        needed: ByteCount,
        /// Bytes free above the reserve.
        free: ByteCount,
    },
    /// The release statement is missing or contradicts the assignment.
    BadStatement(Detail),
    /// The bundle does not have the signed digest, or its contents break the rules.
    BadBundle(Detail),
    /// The model does not load.
    LoadFailed(Detail),
    /// The model does not compute what its owner signed.
    GoldenMismatch(Detail),
    /// A worker died.
    WorkerDied(WorkerDeath),
    /// Too many inferences failed.
    ErrorRate {
        /// Failed inferences in the probation.
        errors: u32,
        /// All inferences in the probation.
        requests: u32,
    },
    /// A field engineer took it back.
    FieldRollback,
    /// The server took it back.
    FleetRollback,
    /// The disk failed.
    Storage(Detail),
    /// A field engineer has pinned another release here.
    Pinned,
    /// No trusted metadata lists the release, or it lies below its owner's floor.
    Untrusted(Detail),
    /// A field engineer lets nothing change for a while.
    Held,
    /// The agent was started again and again in a short time, and this is what it was doing.
    CrashLoop {
        /// Starts counted.
        starts: u32,
    },
    /// A step of it did not end in the time that the device gives it.
    TooSlow(Detail),
    /// It cannot be tried beside what runs.
    NoTrial(Detail),
    /// Built for this device's class, and the device is less than its class: what it lacks.
    BelowClass(Detail),
    /// Its pipeline needs a decoder that the agent was built without.
    NoDecoder(Decoder),
    /// More inferences failed than its owner lets a device bear.
    TooManyErrors {
        /// Failed inferences.
        errors: u32,
        /// All inferences looked at.
        requests: u32,
    },
    /// It predicted one class more often, and for longer, than its owner lets a device bear.
    Collapsed {
        /// The class.
        class: u16,
        /// Its share of the predictions looked at last.
        share: BasisPoints,
        /// How many these were.
        predictions: u32,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superseded => f.write_str("superseded by a newer assignment"),
            Self::Cancelled => f.write_str("cancelled by the server"),
            Self::Expired => f.write_str("the assignment expired"),
            Self::WrongTarget { device } => write!(f, "not built for {device}"),
            Self::WrongRuntime { needed } => write!(f, "needs the runtime {needed}"),
            Self::OverMemoryBudget { needed, budget } => {
                write!(f, "needs {needed} bytes of memory, the budget is {budget}")
            }
            Self::NoSpace { needed, free } => write!(f, "needs {needed} bytes of disk, {free} are free"),
            Self::BadStatement(detail) => write!(f, "release statement refused: {detail}"),
            Self::BadBundle(detail) => write!(f, "bundle refused: {detail}"),
            Self::LoadFailed(detail) => write!(f, "the model does not load: {detail}"),
            Self::GoldenMismatch(detail) => write!(f, "golden vectors differ: {detail}"),
            Self::WorkerDied(death) => write!(f, "the worker died: {death}"),
            Self::ErrorRate { errors, requests } => write!(f, "{errors} of {requests} inferences failed"),
            Self::FieldRollback => f.write_str("rolled back by a field engineer"),
            Self::FleetRollback => f.write_str("rolled back by the server"),
            Self::Storage(detail) => write!(f, "storage failed: {detail}"),
            Self::Pinned => f.write_str("a field engineer has pinned another release"),
            Self::Held => f.write_str("a field engineer lets nothing change for a while"),
            Self::Untrusted(detail) => write!(f, "not trusted: {detail}"),
            Self::CrashLoop { starts } => write!(f, "the agent was started {starts} times in a short time"),
            Self::BelowClass(detail) => write!(f, "the device is less than its class: {detail}"),
            Self::NoDecoder(decoder) => {
                write!(f, "needs to decode {}, which the agent here was built without", decoder.name())
            }
            Self::TooManyErrors { errors, requests } => {
                write!(
                    f,
                    "{errors} of {requests} inferences failed, more than the release's own policy bears"
                )
            }
            Self::Collapsed { class, share, predictions } => write!(
                f,
                "its predictions have collapsed: {}.{:02}% of the last {predictions} are class {class}",
                share.0 / 100,
                share.0 % 100
            ),
            Self::TooSlow(detail) => write!(f, "given up after too long: {detail}"),
            Self::NoTrial(detail) => write!(f, "it cannot be tried: {detail}"),
        }
    }
}
