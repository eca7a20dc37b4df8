//! The fleet as a whole: the only door through which API, ingest and clock change anything. What must
//! survive is stored before anybody hears of it.
//!
//! `ingest` takes in what devices say, `rollouts` drives the engine, `releases` fills the registry, `drift`
//! reads the sketches, `view` is what others may see.

mod drift;
mod ingest;
mod releases;
mod rollouts;
pub mod view;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ed25519_dalek::SigningKey;
use serin_protocol::envelope::{KeyRing, PublicKey, SealError};
use serin_protocol::ids::{DeviceId, FleetId, ReleaseId, RolloutId, SequenceNumber, UnixMillis};
use serin_protocol::topic::Topic;
use tokio::sync::{broadcast, mpsc};

use crate::registry::objects::{ObjectError, ObjectStore};
use crate::rollout::event::{Refusal, StartError};
use crate::store::{Store, StoreError};

pub use self::ingest::{Ingested, Metrics};
pub use self::releases::AddError;
pub use self::rollouts::{Live, RolloutError};
pub use self::view::Notice;

/// Most owners' keys.
pub const MAX_OWNERS: usize = 16;
/// Messages to the broker that wait; beyond that they are left to the next connection.
const OUTGOING: usize = 16_384;
/// Notices that a slow listener may be behind before it is told that it has missed some.
const NOTICES: usize = 1024;

/// A message for the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// Retained.
    Keep(Topic, Vec<u8>),
    /// For who is there now.
    Say(Topic, Vec<u8>),
    /// Publish this release, and mark it when every chunk is there.
    Publish(ReleaseId),
    /// Publish these chunks again: object, first, count.
    Repeat(serin_protocol::ids::Digest, u32, u32),
}

/// The fleet.
pub struct Fleet {
    id: FleetId,
    key: SigningKey,
    owners: KeyRing<MAX_OWNERS>,
    store: Arc<dyn Store>,
    objects: Arc<ObjectStore>,
    outgoing: mpsc::Sender<Outgoing>,
    notices: broadcast::Sender<Notice>,
    inner: Mutex<Inner>,
    /// Counts for the metrics page.
    pub metrics: Metrics,
}

/// What changes, under one lock: devices speak in thousands a second at most, each for microseconds.
struct Inner {
    rollouts: BTreeMap<RolloutId, Live>,
    /// Number of the last assignment of each device.
    sequences: HashMap<DeviceId, SequenceNumber>,
}

/// The fleet could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored rollout does not start any more.
    #[error("rollout {0} in the store cannot be taken up again: {1}")]
    Rollout(RolloutId, StartError),
}

/// Why an operator's wish was not fulfilled.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object store failed.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// There is no such thing.
    #[error("there is no {what} {name}")]
    NotFound {
        /// Kind of thing.
        what: &'static str,
        /// Name given.
        name: String,
    },
    /// A release was refused.
    #[error(transparent)]
    Add(#[from] AddError),
    /// A rollout was refused.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
    /// An order was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A message does not fit its bound.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// What a fleet is made of.
pub struct Parts {
    /// Its name.
    pub id: FleetId,
    /// Signs assignments and acknowledgements.
    pub key: SigningKey,
    /// May release models.
    pub owners: KeyRing<MAX_OWNERS>,
    /// What is kept.
    pub store: Arc<dyn Store>,
    /// Bundles.
    pub objects: Arc<ObjectStore>,
}

impl Fleet {
    /// Takes the fleet up where it was left. The receiver gets what is to be published.
    pub fn open(parts: Parts) -> Result<(Arc<Self>, mpsc::Receiver<Outgoing>), OpenError> {
        let Parts { id, key, owners, store, objects } = parts;
        let mut rollouts = BTreeMap::new();
        for stored in store.rollouts()? {
            let id = stored.start.id;
            let live = Live::replay(stored).map_err(|error| OpenError::Rollout(id, error))?;
            rollouts.insert(id, live);
        }
        let sequences = store.assignments()?.into_iter().map(|last| (last.device, last.sequence)).collect();
        let (outgoing, to_publish) = mpsc::channel(OUTGOING);
        let (notices, _) = broadcast::channel(NOTICES);
        let inner = Mutex::new(Inner { rollouts, sequences });
        let metrics = Metrics::default();
        Ok((Arc::new(Self { id, key, owners, store, objects, outgoing, notices, inner, metrics }), to_publish))
    }

    /// Its name.
    pub const fn id(&self) -> &FleetId {
        &self.id
    }

    /// The key that devices trust for assignments.
    pub fn public_key(&self) -> PublicKey {
        PublicKey::of(&self.key)
    }

    /// Everything that happens from now on.
    pub fn listen(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// What is stored.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Where bundles are.
    pub const fn objects(&self) -> &Arc<ObjectStore> {
        &self.objects
    }

    /// Says everything that is to be retained again: after every connection, because a broker may have
    /// forgotten.
    pub fn say_again(&self) -> Result<(), StoreError> {
        for assigned in self.store.assignments()? {
            self.send(Outgoing::Keep(Topic::Assign(assigned.device), assigned.sealed));
        }
        for record in self.store.releases()? {
            self.send(Outgoing::Publish(record.release.id));
        }
        Ok(())
    }

    /// Makes everything so far durable.
    pub fn commit(&self) -> Result<(), StoreError> {
        self.store.commit()
    }

    fn send(&self, message: Outgoing) {
        if let Err(error) = self.outgoing.try_send(message) {
            // It is stored, and said again at the next connection.
            tracing::warn!(%error, "too much waits for the broker");
        }
    }

    fn notify(&self, notice: Notice) {
        // Without listeners there is nobody to tell.
        let _ = self.notices.send(notice);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while the lock was held is a bug elsewhere; what is stored is consistent.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The wall clock.
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A random number from the system; zero if it has none, which only makes cohorts predictable.
pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    let _ = getrandom::fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

/// For messages about files.
pub(crate) fn display(path: &Path) -> String {
    path.display().to_string()
}
