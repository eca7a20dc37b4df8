//! What the server keeps, as the domain sees it. `sled` is the implementation for one server; one suite
//! of tests holds for every implementation.

pub mod sled;

use serde::{Deserialize, Serialize};
use serin_protocol::envelope::PublicKey;
use serin_protocol::ids::{DeviceId, Digest, EventNumber, ReleaseId, RolloutId, SequenceNumber, UnixMillis};
use serin_protocol::message::{Event, Hello, Phase, Reason, Report};
use serin_protocol::release::Release;

use crate::rollout::event::{RolloutEvent, Start};

/// Events kept per device; older ones are dropped. A whole update is about ten.
pub const EVENTS_PER_DEVICE: usize = 200;

/// The store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Disk or database.
    #[error("the store failed: {0}")]
    Database(#[from] ::sled::Error),
    /// What was stored cannot be read: another version's or damaged.
    #[error("{what} {name} in the store cannot be read: {why}")]
    Unreadable {
        /// Kind of thing.
        what: &'static str,
        /// Which one.
        name: String,
        /// Why.
        why: String,
    },
}

/// A device as the server knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// What it last said about itself.
    pub hello: Hello,
    /// The key it brought first; everything it says is checked with it.
    pub key: PublicKey,
    /// First contact.
    pub first_seen: UnixMillis,
    /// Last word.
    pub last_seen: UnixMillis,
    /// Every event up to this number is stored.
    pub last_event: EventNumber,
    /// Its last update transition.
    pub last_move: Option<Move>,
}

/// A transition of a device's update machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// When the server heard of it.
    pub at: UnixMillis,
    /// About which release.
    pub release: ReleaseId,
    /// Phase entered.
    pub to: Phase,
    /// Why.
    pub reason: Option<Reason>,
}

/// A release in the registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReleaseRecord {
    /// What its owner signed.
    pub release: Release,
    /// Digest of the signed statement, its name on the wire.
    pub statement: Digest,
    /// When it was added.
    pub added: UnixMillis,
    /// Whether every chunk is with the broker.
    pub published: bool,
    /// The team that answers for it.
    pub owner: String,
    /// One line for people.
    pub description: String,
    /// Names of the watched features, in order.
    pub features: Vec<String>,
}

/// An assignment ready to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// For whom.
    pub device: DeviceId,
    /// Its number.
    pub sequence: SequenceNumber,
    /// The sealed assignment.
    pub sealed: Vec<u8>,
}

/// A rollout as stored: how it began and what happened since. Folding the events gives its state.
#[derive(Clone, Debug)]
pub struct StoredRollout {
    /// How it began.
    pub start: Start,
    /// What happened since, in order, with the time at which it was taken in.
    pub events: Vec<(UnixMillis, RolloutEvent)>,
}

/// Everything durable. Methods return when the change is in the store; [`Store::commit`] returns when
/// every change so far would survive a power cut.
pub trait Store: Send + Sync {
    /// All devices.
    fn devices(&self) -> Result<Vec<DeviceRecord>, StoreError>;
    /// One device.
    fn device(&self, id: &DeviceId) -> Result<Option<DeviceRecord>, StoreError>;
    /// Adds or replaces a device.
    fn put_device(&self, record: &DeviceRecord) -> Result<(), StoreError>;
    /// Adds an event; a repeated one changes nothing. Keeps the last [`EVENTS_PER_DEVICE`].
    fn add_event(&self, event: &Event) -> Result<(), StoreError>;
    /// A device's events, oldest first.
    fn events(&self, device: &DeviceId) -> Result<Vec<Event>, StoreError>;
    /// All releases.
    fn releases(&self) -> Result<Vec<ReleaseRecord>, StoreError>;
    /// One release.
    fn release(&self, id: &ReleaseId) -> Result<Option<ReleaseRecord>, StoreError>;
    /// Adds or replaces a release with its signed statement and its reference profile.
    fn put_release(&self, record: &ReleaseRecord, statement: &[u8], profile: &[u8])
    -> Result<(), StoreError>;
    /// Marks a release as being with the broker.
    fn set_published(&self, id: &ReleaseId) -> Result<(), StoreError>;
    /// A signed statement.
    fn statement(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError>;
    /// A reference profile.
    fn profile(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError>;
    /// Adds a report; false when it is there already.
    fn add_report(&self, report: &Report) -> Result<bool, StoreError>;
    /// All reports about `release` whose window starts at or after `since`, in the order of their windows.
    fn reports(&self, release: &ReleaseId, since: UnixMillis) -> Result<Vec<Report>, StoreError>;
    /// Drops reports about `release` whose window starts before `before`.
    fn drop_reports(&self, release: &ReleaseId, before: UnixMillis) -> Result<(), StoreError>;
    /// The number of a new rollout.
    fn next_rollout(&self) -> Result<RolloutId, StoreError>;
    /// Adds a rollout, with the assignments its start makes, as one change.
    fn add_rollout(&self, start: &Start, assigned: &[Assigned]) -> Result<(), StoreError>;
    /// Adds what happened to a rollout, with the assignments it makes, as one change.
    fn add_rollout_event(
        &self,
        id: RolloutId,
        at: UnixMillis,
        event: &RolloutEvent,
        assigned: &[Assigned],
    ) -> Result<(), StoreError>;
    /// All rollouts, in the order of their numbers.
    fn rollouts(&self) -> Result<Vec<StoredRollout>, StoreError>;
    /// The last assignment of every device that has one.
    fn assignments(&self) -> Result<Vec<Assigned>, StoreError>;
    /// Makes all changes durable.
    fn commit(&self) -> Result<(), StoreError>;
}

#[cfg(test)]
#[path = "suite.rs"]
pub(crate) mod suite;
