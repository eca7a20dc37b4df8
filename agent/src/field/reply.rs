//! What a field engineer is answered, as JSON. Fields are only ever added.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serin_protocol::frame::Sandbox;
use serin_protocol::ids::{
    BootId, ByteCount, DeviceId, EventNumber, FleetId, Millis, ReleaseId, RolloutId, SequenceNumber,
    UnixMillis,
};
use serin_protocol::message::{Phase, Reason};

use super::checkup::Checkup;
use super::held_up::WaitingStatus;
use super::trial::TrialStatus;
use crate::logs::LogLine;
use crate::telemetry::Snapshot;
use crate::update::effect::FieldRefusal;
use crate::update::record::Standing;

/// A command was carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum FieldReply {
    /// To `status`.
    Status(Box<Status>),
    /// To `history`.
    History(History),
    /// To `rollback`.
    RolledBack(RolledBack),
    /// To `pin`.
    Pinned {
        /// What stays.
        release: ReleaseId,
    },
    /// To `unpin`.
    Unpinned,
    /// To `hold`.
    Held {
        /// Nothing changes until then.
        until: UnixMillis,
    },
    /// To `logs`.
    Logs {
        /// The oldest first.
        lines: Vec<LogLine>,
        /// The run of the agent that numbered them.
        #[serde(default)]
        run: Option<BootId>,
    },
    /// To `configuration`: without anything secret.
    Configuration(Value),
    /// To `sideload`.
    Sideloaded {
        /// The release that answers now, on probation and pinned.
        release: ReleaseId,
        /// Time from its metadata until it answered.
        millis: Millis,
    },
    /// To `doctor` and `verify`.
    Checkup(Checkup),
    /// To `enroll`.
    Enrolled {
        /// This device.
        device: DeviceId,
        /// Its fleet.
        fleet: FleetId,
    },
}

/// How things are on a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// This device.
    pub device: DeviceId,
    /// Its fleet.
    pub fleet: FleetId,
    /// The agent's own version.
    pub agent: String,
    /// Device time.
    pub now: UnixMillis,
    /// How long the agent has been running.
    pub uptime: Millis,
    /// The highest signed time seen; device time is never before it.
    pub clock_floor: UnixMillis,
    /// Whether the fleet can be reached.
    pub link: LinkStatus,
    /// The release that answers.
    pub active: Option<SlotStatus>,
    /// The release to go back to.
    pub previous: Option<SlotStatus>,
    /// The release being installed.
    pub candidate: Option<ReleaseId>,
    /// Where its installation stands.
    pub phase: Phase,
    /// What it waits for.
    #[serde(default)]
    pub waiting: Option<WaitingStatus>,
    /// What has been fetched of it.
    pub transfer: Option<TransferStatus>,
    /// Who pinned what runs, as a local user id.
    pub pinned_by: Option<u32>,
    /// No order of the fleet is taken until then.
    #[serde(default)]
    pub held_until: Option<UnixMillis>,
    /// The highest assignment accepted.
    pub sequence: SequenceNumber,
    /// Its rollout.
    pub rollout: Option<RolloutId>,
    /// Memory that all models may use together.
    pub memory_budget: ByteCount,
    /// Bytes free where releases are stored.
    pub free_space: ByteCount,
    /// Memory of the agent itself.
    pub agent_resident: Option<ByteCount>,
    /// Events the fleet server has not yet acknowledged.
    pub events_waiting: u64,
    /// Reports kept until they can be sent.
    pub reports_waiting: u64,
    /// The last thing that happened.
    pub last_event: Option<HistoryEntry>,
    /// No release runs, after a crash loop, until the device is told to run another.
    #[serde(default)]
    pub safe_mode: bool,
    /// Times that the agent was started shortly before this run without having been stopped.
    #[serde(default)]
    pub restarts: u32,
    /// The server asked to hold transfers, repetitions and reconnections back until then.
    #[serde(default)]
    pub paused_until: Option<UnixMillis>,
    /// How the candidate is tried, where it is not to answer in the place of the active release.
    #[serde(default)]
    pub trial: Option<TrialStatus>,
    /// The fleet has never confirmed anything that this device said.
    #[serde(default)]
    pub not_enrolled: bool,
}

/// Whether the fleet can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Whether the broker answers.
    pub connected: bool,
    /// Since when it is so.
    pub since: Option<UnixMillis>,
    /// The broker, as configured.
    pub broker: String,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
}

/// A release that is on this device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// Model and version.
    pub release: ReleaseId,
    /// How far it is trusted.
    pub standing: SlotStanding,
    /// Memory limit of its worker.
    pub memory_limit: ByteCount,
    /// Its worker, if it has one.
    pub worker: Option<WorkerStatus>,
    /// What it did since the agent started, if it was asked.
    pub traffic: Option<Traffic>,
}

/// How far a release on this device is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotStanding {
    /// It answers, but its probation is not over.
    Unproven,
    /// It passed its probation here.
    Proven,
    /// It was taken back; only an explicit order brings it back.
    Condemned,
}

impl From<Standing> for SlotStanding {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Unproven => Self::Unproven,
            Standing::Proven => Self::Proven,
            Standing::Condemned => Self::Condemned,
        }
    }
}

/// A worker process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its process id.
    pub pid: u32,
    /// Largest resident memory so far.
    pub peak_resident: Option<ByteCount>,
    /// Private writable memory now, which the limit is about.
    pub data_in_use: Option<ByteCount>,
    /// Which protections hold.
    pub sandbox: Sandbox,
}

/// What a release did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Inferences answered or failed, since the agent started.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// Requests refused: the caller's mistake, or too many at once.
    pub refused: u64,
    /// Median time in the worker over the last one to two windows, in microseconds: between 10 µs and 10 s never too
    /// low, and at most 59 % too high.
    pub latency_p50_micros: Option<u64>,
    /// 99th percentile of the same.
    pub latency_p99_micros: Option<u64>,
}

impl From<Snapshot> for Traffic {
    fn from(snapshot: Snapshot) -> Self {
        let Snapshot { counters, latency, effort: _ } = snapshot;
        Self {
            requests: counters.requests,
            errors: counters.errors,
            refused: counters.refused,
            latency_p50_micros: latency.quantile_micros(0.5),
            latency_p99_micros: latency.quantile_micros(0.99),
        }
    }
}

/// How far a download has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferStatus {
    /// Chunks here.
    pub chunks_here: u32,
    /// Chunks in all.
    pub chunks: u32,
    /// Bytes here.
    pub bytes_here: ByteCount,
    /// Bytes in all.
    pub bytes: ByteCount,
}

/// What happened, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// At most as many as asked for.
    pub entries: Vec<HistoryEntry>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Its number.
    pub number: EventNumber,
    /// Device time.
    pub at: UnixMillis,
    /// What kind of thing, a stable word such as `transition`.
    pub kind: String,
    /// The release it is about.
    pub release: Option<ReleaseId>,
    /// One line for people.
    pub text: String,
}

/// A rollback was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// The release left.
    pub from: ReleaseId,
    /// The release that answers now, pinned.
    pub to: ReleaseId,
    /// Time from the order until it answered.
    pub millis: Millis,
}

/// A command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct FieldError {
    /// What kind of refusal, for scripts.
    pub code: FieldCode,
    /// Why, for people.
    pub message: String,
    /// What to do next.
    pub next: String,
}

/// Kinds of refusal. Their names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldCode {
    /// No release is active.
    NothingActive,
    /// There is no previous release.
    NoPrevious,
    /// The previous release was taken back here, and was not asked for by name.
    Condemned,
    /// The version asked for is not on this device.
    NotHere,
    /// It is already so.
    Already,
    /// The boot record could not be written; nothing changed.
    Storage,
    /// The release to go back to could not be started.
    NotStarted,
    /// The file is no release with its metadata, or was cut off.
    BadFile,
    /// The release brought is not one this device trusts.
    NotTrusted,
    /// The release brought cannot run here.
    NotAdmitted,
    /// The release brought was given up; what ran before runs on.
    NotInstalled,
    /// The fleet does not take the device in.
    NotEnrolled,
    /// There is no connection to the fleet.
    NotConnected,
    /// The request makes no sense.
    BadRequest,
    /// There is no such command.
    UnknownCommand,
    /// Too many commands at once.
    Busy,
    /// No answer in time; what was asked may still happen.
    Timeout,
    /// The agent is stopping.
    Stopping,
}

impl FieldError {
    /// An error with its advice.
    pub fn new(code: FieldCode, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { code, message: message.into(), next: next.into() }
    }

    /// A rollback without a name would lead to `release`, which was taken back; `why` where that is known.
    pub fn condemned(release: &ReleaseId, why: Option<&Reason>) -> Self {
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        Self::new(
            FieldCode::Condemned,
            format!("{release} was taken back on this device{why}; it comes back only by name"),
            format!(
                "`serin-agent rollback --to {}` brings it back all the same; else have the fleet assign another",
                release.version
            ),
        )
    }
}

impl From<FieldRefusal> for FieldError {
    fn from(refusal: FieldRefusal) -> Self {
        let (code, next) = match &refusal {
            FieldRefusal::NothingActive => {
                (FieldCode::NothingActive, "have the fleet assign a release to this device".into())
            }
            FieldRefusal::NoPrevious => (
                FieldCode::NoPrevious,
                "have the fleet assign the wanted release; `serin-agent pin` keeps what runs".into(),
            ),
            FieldRefusal::Condemned(release) => return Self::condemned(release, None),
            FieldRefusal::NotHere { previous, .. } => {
                (FieldCode::NotHere, format!("`serin-agent rollback --to {}` is possible", previous.version))
            }
            FieldRefusal::IsPrevious(release) => (
                FieldCode::Already,
                format!("`serin-agent rollback --to {}` brings it back", release.version),
            ),
            FieldRefusal::NotAdmitted { reason, .. } => (FieldCode::NotAdmitted, make_room(reason).into()),
            FieldRefusal::Already(_) => (FieldCode::Already, "nothing needs to be done".into()),
            FieldRefusal::Storage(_) => {
                (FieldCode::Storage, "check the disk that holds the agent's data, then try again".into())
            }
        };
        Self { code, message: refusal.to_string(), next }
    }
}

/// What helps against a release that was not admitted.
const fn make_room(reason: &Reason) -> &'static str {
    if matches!(reason, Reason::OverMemoryBudget { .. }) {
        "bring a smaller model, or raise models.memory and restart the agent"
    } else if matches!(reason, Reason::NoSpace { .. }) {
        "make room on the disk that holds the agent's data, then try again"
    } else {
        "bring a release that was built for this device and this agent"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_tagged_json() {
        let release: ReleaseId = "m@1".parse().expect("id");
        let reply = FieldReply::Pinned { release: release.clone() };
        let text = serde_json::to_string(&reply).expect("plain");
        assert_eq!(text, r#"{"reply":"pinned","release":{"model":"m","version":"1"}}"#);
        let reply =
            FieldReply::RolledBack(RolledBack { from: release.clone(), to: release, millis: Millis(3) });
        let text = serde_json::to_string(&reply).expect("plain");
        assert_eq!(serde_json::from_str::<FieldReply>(&text).expect("own"), reply);
    }

    #[test]
    fn every_refusal_says_what_to_do_next() {
        let refusal = FieldRefusal::NotHere {
            wanted: "9".parse().expect("version"),
            previous: "m@1".parse().expect("id"),
        };
        let error = FieldError::from(refusal);
        assert_eq!(error.code, FieldCode::NotHere);
        assert_eq!(error.next, "`serin-agent rollback --to 1` is possible");
    }
}
