//! What one device is told to run, signed by the fleet's key.

use serde::{Deserialize, Serialize};

use crate::envelope::Signed;
use crate::ids::{
    BasisPoints, DeviceId, Digest, FleetId, Millis, ReleaseId, RolloutId, SequenceNumber, UnixMillis,
};

/// Largest assignment in bytes: names, two digests and numbers stay under 600.
pub const MAX_ASSIGNMENT_BYTES: usize = 1024;

/// What one device must run, until when the order is good, and in which order it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The only device this is for.
    pub device: DeviceId,
    /// The only fleet this is for.
    pub fleet: FleetId,
    /// Strictly growing per device; anything not above the last accepted one is a replay.
    pub sequence: SequenceNumber,
    /// The rollout that made it; none for an operator's direct order.
    pub rollout: Option<RolloutId>,
    /// When it was signed; a floor for the device's clock.
    pub issued: UnixMillis,
    /// An update not committed by then is given up.
    pub expires: UnixMillis,
    /// The order.
    pub order: Order,
}

/// What to do. Append only: postcard numbers the variants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Run this release: fetch it unless it is here, prove it, switch to it.
    Run {
        /// What its owner signed.
        release: ReleaseRef,
        /// How the switch is watched.
        probation: Probation,
    },
    /// Leave `from` and return to `to`, normally the previous slot. Nothing happens when `from` is
    /// neither running nor being installed.
    RollBack {
        /// The release to leave.
        from: ReleaseId,
        /// The release to return to, fetched if it is no longer here.
        to: ReleaseRef,
    },
    /// Give up whatever is unfinished and keep what runs.
    Stay,
    /// Try this release beside the one that answers, for as long as the probation says and within its limits. When
    /// that time is over all is as before; an order to run the release meanwhile switches to it at once.
    Try {
        /// What its owner signed.
        release: ReleaseRef,
        /// How.
        mode: TrialMode,
        /// How long and within which limits.
        probation: Probation,
    },
}

/// How a release is tried beside the one that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrialMode {
    /// It computes a share of what the active release has answered. Its own answers are compared and go to nobody.
    Shadow {
        /// Of all requests.
        share: BasisPoints,
    },
    /// It answers the requests whose key, hashed with the salt, falls into its share; the same key is always
    /// answered by the same release. Requests without a key go to the active release.
    Arm {
        /// Of all keys.
        share: BasisPoints,
        /// Which keys fall into the share.
        salt: u64,
    },
}

/// A release by name and by the digest of its signed statement.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReleaseRef {
    /// Model and version.
    pub id: ReleaseId,
    /// Digest of the signed release file, which is also its name under `t/`.
    pub statement: Digest,
}

/// How long and against which limits a fresh release is watched on the device before it is committed.
/// Crossing a limit rolls back at once, without the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probation {
    /// How long.
    pub duration: Millis,
    /// Highest share of failed inferences, looked at from `min_requests` on.
    pub max_error_rate: BasisPoints,
    /// Requests below which the error rate says nothing.
    pub min_requests: u32,
    /// Worker deaths (crash, kill, hang, memory limit) that end the probation. At least 1.
    pub max_worker_deaths: u8,
}

impl Default for Probation {
    fn default() -> Self {
        Self {
            duration: Millis::from_secs(60),
            max_error_rate: BasisPoints(500),
            min_requests: 20,
            max_worker_deaths: 1,
        }
    }
}

impl Signed for Assignment {
    const PURPOSE: u8 = 1;
    const MAX_BYTES: usize = MAX_ASSIGNMENT_BYTES;
}
