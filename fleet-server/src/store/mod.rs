//! What the server keeps, as the domain sees it. `sled` is the implementation for one server; one suite
//! of tests holds for every implementation.

mod boxes;
pub mod documents;
pub mod history;
mod reports;
pub mod seen;
pub mod sled;
pub mod sums;
mod values;

use serde::{Deserialize, Serialize};
use serin_protocol::enrolment::TokenId;
use serin_protocol::envelope::PublicKey;
use serin_protocol::ids::{
    BootId, DeviceId, Digest, EventNumber, ReleaseId, RolloutId, SequenceNumber, UnixMillis,
};
use serin_protocol::manifest::Lineage;
use serin_protocol::message::{Event, Hello, Phase, Reason, Report};
use serin_protocol::release::Release;
use serin_protocol::review::ReviewPolicy;

use crate::rollout::event::{RolloutEvent, Sighting, Start};
use crate::rollout::plan::selector::Tags;
use crate::rollout::verdict::Verdict;

pub use documents::{DocumentChange, Shelf};
pub use sums::Sum;

/// Events kept per device; older ones are dropped. A whole update is about ten.
pub const EVENTS_PER_DEVICE: usize = 200;

/// Verdicts kept per rollout; a stage rarely has more than a dozen looks.
pub const VERDICTS_PER_ROLLOUT: usize = 200;

/// The store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Disk or database.
    #[error("the store failed: {0}")]
    Database(#[from] ::sled::Error),
    /// A file beside the database.
    #[error("the store failed: {action} {}: {source}", path.display())]
    Disk {
        /// What was attempted.
        action: &'static str,
        /// The file or folder.
        path: std::path::PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It failed before, and nothing is trusted to it any more.
    #[error("the store failed: {0}")]
    Failed(String),
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
    /// When it was cut off; none while it is one of the fleet.
    #[serde(default)]
    pub revoked: Option<UnixMillis>,
    /// No release runs there, after a crash loop.
    #[serde(default)]
    pub safe_mode: bool,
    /// That it is not there was concluded from what the broker had kept, and is wrong if it is heard of.
    #[serde(default)]
    pub presumed_gone: bool,
    /// It was asked to hold back until then.
    #[serde(default)]
    pub paused_until: Option<UnixMillis>,
    /// Starts of its agent before the last one, oldest first.
    #[serde(default)]
    pub past_boots: Vec<BootId>,
    /// What operators noted about it.
    #[serde(default)]
    pub tags: Tags,
}

impl From<&DeviceRecord> for Sighting {
    fn from(record: &DeviceRecord) -> Self {
        Self::of(&record.hello, &record.tags)
    }
}

/// A claim token that was given out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Finds it.
    pub id: TokenId,
    /// The whole token.
    pub token: String,
    /// The only device that may use it; any when there is none.
    pub device: Option<DeviceId>,
    /// When it was made.
    pub made: UnixMillis,
    /// Not good any more from then on.
    pub expires: UnixMillis,
    /// Who used it, with which key.
    pub used_by: Option<(DeviceId, PublicKey)>,
}

/// The key of a device that was cut off and forgotten since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedKey {
    /// The key.
    pub key: PublicKey,
    /// Whose it was.
    pub device: DeviceId,
    /// When it was cut off.
    pub at: UnixMillis,
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
    /// What it was made of; none of releases that were added before it was kept.
    #[serde(default)]
    pub lineage: Option<Lineage>,
    /// The trigger of training that it answers.
    #[serde(default)]
    pub answers: Option<String>,
    /// Which of its requests people may look at.
    #[serde(default)]
    pub review: Option<ReviewPolicy>,
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

/// A rollout as stored: how it began, where it stood when its events were last folded, and what happened
/// since. Folding the events over the snapshot, or over the start, gives its state.
#[derive(Clone, Debug)]
pub struct StoredRollout {
    /// How it began.
    pub start: Start,
    /// Its state when events were last folded away.
    pub snapshot: Option<Vec<u8>>,
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
    /// Removes a device with its events, its assignment, and what is known of its reports; the reports stay.
    fn forget_device(&self, id: &DeviceId) -> Result<(), StoreError>;
    /// Adds an event; a repeated one changes nothing. Keeps the last [`EVENTS_PER_DEVICE`].
    fn add_event(&self, event: &Event) -> Result<(), StoreError>;
    /// A device's events, oldest first.
    fn events(&self, device: &DeviceId) -> Result<Vec<Event>, StoreError>;
    /// All claim tokens.
    fn tokens(&self) -> Result<Vec<TokenRecord>, StoreError>;
    /// Adds or replaces a claim token.
    fn put_token(&self, record: &TokenRecord) -> Result<(), StoreError>;
    /// Forgets a claim token.
    fn forget_token(&self, id: TokenId) -> Result<(), StoreError>;
    /// All keys of revoked devices that were forgotten. None is ever removed.
    fn revoked_keys(&self) -> Result<Vec<RevokedKey>, StoreError>;
    /// Adds one.
    fn add_revoked_key(&self, revoked: &RevokedKey) -> Result<(), StoreError>;
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
    /// Adds a report, which is `wire` on the wire; false when it was added before, even if it has been merged or dropped
    /// since.
    ///
    /// Of one device and release [`history::MAX_REPORTS`] are kept: older ones are merged two by two, but never over one
    /// of the `fences`, so that what began at a fence can still be told apart.
    fn add_report(&self, report: &Report, wire: &[u8], fences: &[UnixMillis]) -> Result<bool, StoreError>;
    /// Tells `each` report about `release` whose window starts at or after `since`, by device, then by window. One at a
    /// time: a whole fleet's are more than memory should hold.
    fn visit_reports(
        &self,
        release: &ReleaseId,
        since: UnixMillis,
        each: &mut dyn FnMut(&Report),
    ) -> Result<(), StoreError>;
    /// Makes reports about `release` whose hour is over at `before` part of [`sums`], and lets these age as of `now`.
    fn fold_reports(
        &self,
        release: &ReleaseId,
        before: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), StoreError>;
    /// What is left of older reports about `release`, oldest first.
    fn sums(&self, release: &ReleaseId) -> Result<Vec<Sum>, StoreError>;
    /// Drops the oldest sums of all releases beyond [`sums::MAX_TOTAL_BYTES`].
    fn bound_sums(&self) -> Result<(), StoreError>;
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
    /// Replaces the events of a rollout so far by the state they led to.
    fn fold_rollout(&self, id: RolloutId, snapshot: &[u8]) -> Result<(), StoreError>;
    /// Adds a verdict to a rollout's record; keeps the last [`VERDICTS_PER_ROLLOUT`].
    fn add_verdict(&self, id: RolloutId, verdict: &Verdict) -> Result<(), StoreError>;
    /// The verdicts of a rollout, oldest first.
    fn verdicts(&self, id: RolloutId) -> Result<Vec<Verdict>, StoreError>;
    /// Forgets a rollout with its events and verdicts. Its number is not given again.
    fn drop_rollout(&self, id: RolloutId) -> Result<(), StoreError>;
    /// All rollouts, in the order of their numbers.
    fn rollouts(&self) -> Result<Vec<StoredRollout>, StoreError>;
    /// Replaces assignments by the same ones, signed anew.
    fn put_assignments(&self, assigned: &[Assigned]) -> Result<(), StoreError>;
    /// The last assignment of every device that has one.
    fn assignments(&self) -> Result<Vec<Assigned>, StoreError>;
    /// The last assignment of one device.
    fn assignment(&self, device: &DeviceId) -> Result<Option<Assigned>, StoreError>;
    /// Changes documents, all or none.
    fn put_documents(&self, changes: &[DocumentChange]) -> Result<(), StoreError>;
    /// A document.
    fn document(&self, shelf: Shelf, name: &str) -> Result<Option<Vec<u8>>, StoreError>;
    /// All documents of a shelf with their names, in the order of these.
    fn documents(&self, shelf: Shelf) -> Result<Vec<(String, Vec<u8>)>, StoreError>;
    /// Makes all changes durable.
    fn commit(&self) -> Result<(), StoreError>;
}

#[cfg(test)]
#[path = "suite.rs"]
pub(crate) mod suite;
