//! What devices report and what the server acknowledges. Enums are append only: postcard numbers
//! their variants, and a device in the field may be years older than its server.

mod comparison;
mod report;
mod update;
mod waiting;

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::envelope::{PublicKey, Signed};
use crate::ids::{
    BootId, ByteCount, DeviceId, Digest, EventNumber, FleetId, ReleaseId, RolloutId, SequenceNumber,
    TargetClass, UnixMillis,
};
use crate::release::Decoders;

pub use self::comparison::{Comparison, Role, distance_bins, ratio_bins};
pub use self::report::{Coverage, MAX_REPORT_BYTES, MAX_REPORT_FEATURES, Report};
pub use self::update::{CrashAction, Phase, Reason, WorkerDeath};
pub use self::waiting::{MAX_INTERFACE_BYTES, Start, TransferKind, Wait};

/// Largest hello: names of three slots and a key stay under 1 KiB.
pub const MAX_HELLO_BYTES: usize = 2048;
/// Largest event: one transition with two names and a detail text.
pub const MAX_EVENT_BYTES: usize = 1024;
/// Largest acknowledgement.
pub const MAX_ACK_BYTES: usize = 512;

/// A short explanation for people, cut at [`DETAIL_BYTES`].
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Detail(heapless::String<DETAIL_BYTES>);

/// Longest detail text in bytes; with two release names an event stays under its cap.
pub const DETAIL_BYTES: usize = 240;

impl Detail {
    /// `text`, cut at a character boundary if it is too long.
    pub fn new(text: &str) -> Self {
        let mut detail = heapless::String::new();
        for character in text.chars() {
            if detail.push(character).is_err() {
                break;
            }
        }
        Self(detail)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Whether a device is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Said on every connection.
    Online,
    /// Left behind as last will, or said on an orderly stop.
    Offline,
}

/// Which hello of one start of the agent this is, so that an earlier one is not believed again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Turn {
    /// How many connections were begun before, that one included.
    pub connection: u32,
    /// How many hellos were said on that connection, this one included; the last will has 0.
    pub number: u32,
}

/// Who a device is and what it holds; retained, and in its offline form the last will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The device.
    pub device: DeviceId,
    /// Its fleet.
    pub fleet: FleetId,
    /// The key that signs everything it says.
    pub key: PublicKey,
    /// Since when it has been running, as a random number.
    pub boot: BootId,
    /// Which of that start's hellos this is.
    pub turn: Turn,
    /// Whether it is there.
    pub presence: Presence,
    /// The agent's own version.
    pub agent: heapless::String<32>,
    /// What kind of device it is.
    pub target: TargetClass,
    /// Memory all its models may use together.
    pub memory_budget: ByteCount,
    /// Bytes free where releases are stored.
    pub free_space: ByteCount,
    /// The highest assignment accepted.
    pub sequence: SequenceNumber,
    /// The release that answers.
    pub active: Option<ReleaseId>,
    /// The release it can return to at once.
    pub previous: Option<ReleaseId>,
    /// The release being installed.
    pub candidate: Option<ReleaseId>,
    /// A field engineer decides what runs here until it is unpinned.
    pub pinned: bool,
    /// Decoders that its agent was built with.
    pub decoders: Decoders,
}

impl Signed for Hello {
    const PURPOSE: u8 = 3;
    const MAX_BYTES: usize = MAX_HELLO_BYTES;
}

/// Something that happened on a device. Kept there until the server acknowledges its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The device.
    pub device: DeviceId,
    /// Its number, without gaps.
    pub number: EventNumber,
    /// Device time.
    pub at: UnixMillis,
    /// The assignment in force.
    pub sequence: SequenceNumber,
    /// The rollout of that assignment.
    pub rollout: Option<RolloutId>,
    /// What happened.
    pub kind: EventKind,
}

impl Signed for Event {
    const PURPOSE: u8 = 4;
    const MAX_BYTES: usize = MAX_EVENT_BYTES;
}

/// What kind of message a device refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedKind {
    /// An assignment.
    Assignment,
    /// A release statement or other metadata file.
    Metadata,
    /// A chunk.
    Chunk,
    /// An acknowledgement.
    Ack,
    /// Something on a topic it does not know.
    Unknown,
    /// A release that a field engineer brought.
    Sideload,
}

/// What happened on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The update machine moved.
    Transition {
        /// The release in question.
        release: ReleaseId,
        /// Phase left.
        from: Phase,
        /// Phase entered.
        to: Phase,
        /// Why, where it is not the plain course.
        reason: Option<Reason>,
    },
    /// What will be fetched, said before the first byte by devices that do not say [`Self::Planned`].
    Plan {
        /// The release.
        release: ReleaseId,
        /// Bytes to fetch.
        fetch: ByteCount,
        /// Bytes already here from an earlier attempt.
        here: ByteCount,
    },
    /// The broker does not have these chunks; the server should publish them again.
    ChunksMissing {
        /// The object.
        object: Digest,
        /// First missing chunk.
        first: u32,
        /// How many from there are wanted.
        count: u32,
    },
    /// A field engineer went back to another release.
    FieldRollback {
        /// Who, as a local user id.
        uid: u32,
        /// Release left.
        from: ReleaseId,
        /// Release returned to.
        to: ReleaseId,
    },
    /// A field engineer pinned what runs.
    Pinned {
        /// Who, as a local user id.
        uid: u32,
        /// The pinned release.
        release: ReleaseId,
    },
    /// A field engineer gave the device back to the fleet.
    Unpinned {
        /// Who, as a local user id.
        uid: u32,
    },
    /// A worker died.
    WorkerDied {
        /// The release it ran.
        release: ReleaseId,
        /// How.
        death: WorkerDeath,
    },
    /// A message was refused; the device goes on as before.
    Refused {
        /// Which kind.
        kind: RefusedKind,
        /// Why.
        detail: Detail,
    },
    /// The journal was unreadable, set aside and begun anew; numbers may have been lost.
    JournalLost {
        /// What was found.
        detail: Detail,
    },
    /// A field engineer lets nothing change for a while.
    Held {
        /// Who, as a local user id.
        uid: u32,
        /// Until then.
        until: UnixMillis,
    },
    /// A field engineer brought this release, and it is being installed; the device is pinned once it answers.
    Sideloaded {
        /// Who, as a local user id.
        uid: u32,
        /// The release.
        release: ReleaseId,
    },
    /// A field engineer brought a claim token, and the fleet has taken the device in.
    Enrolled {
        /// Who, as a local user id.
        uid: u32,
    },
    /// What will be fetched, how, and when: said before the first byte, and anew when it must wait.
    Planned {
        /// The release.
        release: ReleaseId,
        /// How it comes.
        transfer: TransferKind,
        /// Bytes to fetch.
        fetch: ByteCount,
        /// Bytes already here from an earlier attempt.
        here: ByteCount,
        /// When.
        start: Start,
    },
    /// A release is here whole, and will be installed later.
    Waiting {
        /// The release.
        release: ReleaseId,
        /// What stands in the way.
        why: Wait,
        /// When that is over, where it is known.
        until: Option<UnixMillis>,
    },
    /// The agent was started again and again in a short time without having been stopped.
    CrashLoop {
        /// Starts counted.
        starts: u32,
        /// What the device does about it.
        action: CrashAction,
    },
    /// There was no room to keep these events, or the disk did not take them: they were never numbered.
    EventsLost {
        /// How many.
        count: u32,
    },
    /// So many reports were dropped, the oldest first, because their disk budget was used up.
    ReportsDropped {
        /// How many since this was last said.
        count: u32,
    },
}

/// The server's word that it has stored events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The device.
    pub device: DeviceId,
    /// Every event up to this number is stored durably.
    pub stored: EventNumber,
}

impl Signed for Ack {
    const PURPOSE: u8 = 6;
    const MAX_BYTES: usize = MAX_ACK_BYTES;
}

#[cfg(test)]
#[cfg(feature = "alloc")]
#[path = "message_tests.rs"]
mod tests;
