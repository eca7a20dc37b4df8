//! What subscribing gets.
//!
//! *Small messages* (metadata, assignments, hellos) are held in memory and in a log, so that they survive
//! a restart. *Chunks* are never copied: publishing one that equals the stored object's sets a bit, and
//! subscribing reads it from the object store at the moment it is sent. A bundle of any size costs the
//! broker one bit per 60 KiB while it lies there.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use rmqtt::topic::Topic as Filter;
use serin_protocol::ids::{Digest, FleetId};
use serin_protocol::topic::{Topic, TopicError};
use tracing::error;

use super::retained_log::{self, Log, LogError, Record};
use super::retained_state::{Small, State};
use crate::registry::objects::{ObjectError, ObjectStore};

/// Most small messages of each writer. One embedded broker serves at most some 16,000 devices (file
/// descriptors), each with one assignment and one hello; four times that leaves room for devices that left.
pub const MAX_MESSAGES: usize = 65_536;

/// Most bytes of small messages, topics included, of each writer: 1 KiB for each of [`MAX_MESSAGES`].
/// Devices and server have separate budgets, so that no flood of hellos can displace an assignment.
pub const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Most objects with chunks on offer: at 2 KiB for a full bitmap, 8 MiB.
pub const MAX_OBJECTS: usize = 4096;

/// History in the log before it is rewritten, on top of twice what is live: small enough to replay in
/// milliseconds, large enough that rewriting is rare.
const LOG_SLACK_BYTES: u64 = 4 * 1024 * 1024;

/// What is retained, in memory and on disk.
#[derive(Debug)]
pub struct RetainedStore {
    fleet: FleetId,
    objects: Arc<ObjectStore>,
    path: PathBuf,
    /// Locked before `state` by whoever changes something; readers take `state` alone.
    log: Mutex<Log>,
    state: RwLock<State>,
}

/// A retained message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retained {
    /// Its topic.
    pub topic: String,
    /// The quality of service it was published with, 0 to 2.
    pub qos: u8,
    /// What is to be sent.
    pub content: Content,
}

/// What a retained message carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Payload(Bytes),
    /// Chunk `index` of `object`, to be read with [`RetainedStore::chunk`] when it is sent.
    Chunk {
        /// The object.
        object: Digest,
        /// Number of the chunk.
        index: u32,
    },
}

/// Why a message could not be retained, or the store not be opened.
#[derive(Debug, thiserror::Error)]
pub enum RetainedError {
    /// The topic is none of the fleet's.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The object store does not hold the chunk's object, or the object has no such chunk.
    #[error("chunk {index} of {object} is not in the object store")]
    NoSuchChunk {
        /// The object.
        object: Digest,
        /// Number of the chunk.
        index: u32,
    },
    /// The payload differs from the stored chunk.
    #[error("the payload is not chunk {index} of {object}")]
    OtherBytes {
        /// The object.
        object: Digest,
        /// Number of the chunk.
        index: u32,
    },
    /// Devices, or the server, have all the retained messages they may have.
    #[error("no room for another retained message: {MAX_MESSAGES} messages, {MAX_BYTES} bytes")]
    Full,
    /// Too many objects have chunks on offer.
    #[error("chunks of {MAX_OBJECTS} objects are on offer already")]
    TooManyObjects,
    /// The object store failed.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The log failed.
    #[error("the log of retained messages")]
    Log(#[from] LogError),
    /// The folder could not be used.
    #[error("{action} {}", path.display())]
    Disk {
        /// What was attempted.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl RetainedStore {
    /// Opens what was retained in `folder`, creating it when missing. A damaged log is set aside, what
    /// could be read of it is kept, and the loss is logged.
    pub fn open(folder: &Path, fleet: FleetId, objects: Arc<ObjectStore>) -> Result<Self, RetainedError> {
        fs::create_dir_all(folder).map_err(disk("creating", folder))?;
        let path = folder.join("retained.log");
        let mut state = State::default();
        let replayed = retained_log::replay(&path, |record| state.apply(&fleet, &objects, record))?;
        if replayed.damaged > 0 {
            let aside = path.with_extension("damaged");
            fs::copy(&path, &aside).map_err(disk("copying", &path))?;
            error!(
                log = %path.display(), aside = %aside.display(), bytes = replayed.damaged,
                "the end of the log of retained messages is unreadable; it was set aside"
            );
        }
        let log = Log::rewrite(&path, state.records())?;
        Ok(Self { fleet, objects, path, log: Mutex::new(log), state: RwLock::new(state) })
    }

    /// Retains `payload` on `topic`, or nothing any more when it is empty. It survives the process when
    /// this returns, and a power cut after the next [`sync`](Self::sync).
    pub fn keep(&self, topic: &str, qos: u8, payload: &[u8]) -> Result<(), RetainedError> {
        match Topic::parse(&self.fleet, topic)? {
            Topic::Chunk { object, index } if payload.is_empty() => self.withdraw(object, index),
            Topic::Chunk { object, index } => self.offer(object, index, payload),
            _ if payload.is_empty() => self.forget(topic),
            parsed => self.keep_small(topic, &parsed, qos, payload),
        }
    }

    /// What a subscription to `filter` gets. Wildcards match small messages only: a bundle is had chunk by
    /// chunk, never by wildcard.
    pub fn get(&self, filter: &str) -> Vec<Retained> {
        match Topic::parse(&self.fleet, filter) {
            Ok(Topic::Chunk { object, index }) if self.offers(&object, index) => vec![Retained {
                topic: filter.to_owned(),
                // Nobody keeps a copy of a chunk until it is acknowledged: who lost it subscribes again.
                qos: 0,
                content: Content::Chunk { object, index },
            }],
            Ok(Topic::Chunk { .. }) => Vec::new(),
            Ok(_) => self.state().small.get_key_value(filter).map(retained).into_iter().collect(),
            Err(_) => self.matching(filter),
        }
    }

    /// Whether a subscription to exactly `topic` gets something.
    pub fn holds(&self, topic: &Topic) -> bool {
        match topic {
            Topic::Chunk { object, index } => self.offers(object, *index),
            _ => self.state().small.contains_key(topic.name(&self.fleet).as_str()),
        }
    }

    /// Whether chunk `index` of `object` is on offer.
    pub fn offers(&self, object: &Digest, index: u32) -> bool {
        self.state().offers.get(object).is_some_and(|chunks| chunks.contains(index))
    }

    /// The bytes of a chunk, read from the object store; `None` when it is not on offer or not there.
    pub fn chunk(&self, object: &Digest, index: u32) -> Result<Option<Bytes>, ObjectError> {
        if self.offers(object, index) { self.objects.chunk(object, index) } else { Ok(None) }
    }

    /// Number of retained messages, chunks included.
    pub fn count(&self) -> usize {
        let state = self.state();
        state.small.len() + state.offers.values().map(|chunks| chunks.len() as usize).sum::<usize>()
    }

    /// Brings everything retained so far to the disk.
    pub fn sync(&self) -> Result<(), RetainedError> {
        Ok(self.log().sync()?)
    }

    fn matching(&self, filter: &str) -> Vec<Retained> {
        let Ok(pattern) = filter.parse::<Filter>() else {
            return Vec::new();
        };
        // Topics are sorted, so those that begin like the filter up to its first wildcard lie together.
        let fixed = filter.split(['+', '#']).next().unwrap_or_default();
        let state = self.state();
        let candidates =
            state.small.range(fixed.to_owned()..).take_while(|(topic, _)| topic.starts_with(fixed));
        candidates.filter(|(topic, _)| pattern.matches_str(topic.as_str())).map(retained).collect()
    }

    fn keep_small(&self, topic: &str, parsed: &Topic, qos: u8, payload: &[u8]) -> Result<(), RetainedError> {
        let mut log = self.log();
        {
            let state = self.state();
            let old = state.small.get(topic);
            if old.is_some_and(|old| old.qos == qos && old.payload == payload) {
                return Ok(());
            }
            let usage = state.usage(parsed).replace(topic, old, Some(payload.len()));
            if usage.messages > MAX_MESSAGES || usage.bytes > MAX_BYTES {
                return Err(RetainedError::Full);
            }
        }
        log.append(&Record::Keep { topic, qos, payload })?;
        self.state_mut().keep(topic, parsed, qos, payload);
        self.compact(&mut log)
    }

    fn forget(&self, topic: &str) -> Result<(), RetainedError> {
        let mut log = self.log();
        if !self.state().small.contains_key(topic) {
            return Ok(());
        }
        log.append(&Record::Forget { topic })?;
        self.state_mut().forget(&self.fleet, topic);
        self.compact(&mut log)
    }

    fn offer(&self, object: Digest, index: u32, payload: &[u8]) -> Result<(), RetainedError> {
        let Some(map) = self.objects.chunk_map(&object)? else {
            return Err(RetainedError::NoSuchChunk { object, index });
        };
        let Some(stored) = self.objects.chunk(&object, index)? else {
            return Err(RetainedError::NoSuchChunk { object, index });
        };
        if stored != payload {
            return Err(RetainedError::OtherBytes { object, index });
        }
        let mut log = self.log();
        if self.offers(&object, index) {
            return Ok(());
        }
        {
            let state = self.state();
            if !state.offers.contains_key(&object) && state.offers.len() >= MAX_OBJECTS {
                return Err(RetainedError::TooManyObjects);
            }
        }
        log.append(&Record::Offer { object, index })?;
        self.state_mut().offer(object, map, index);
        self.compact(&mut log)
    }

    fn withdraw(&self, object: Digest, index: u32) -> Result<(), RetainedError> {
        let mut log = self.log();
        if !self.offers(&object, index) {
            return Ok(());
        }
        log.append(&Record::Withdraw { object, index })?;
        self.state_mut().withdraw(object, index);
        self.compact(&mut log)
    }

    /// Rewrites the log when most of it is history.
    fn compact(&self, log: &mut Log) -> Result<(), RetainedError> {
        let state = self.state();
        if log.length() > 2 * state.live_bytes() + LOG_SLACK_BYTES {
            *log = Log::rewrite(&self.path, state.records())?;
        }
        Ok(())
    }

    // A panic while a lock is held cannot leave a half-made change: each is a single insert or remove.
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn retained((topic, small): (&String, &Small)) -> Retained {
    Retained { topic: topic.clone(), qos: small.qos, content: Content::Payload(small.payload.clone()) }
}

fn disk(action: &'static str, path: &Path) -> impl Fn(std::io::Error) -> RetainedError {
    move |source| RetainedError::Disk { action, path: path.to_owned(), source }
}
