//! The server's side of trust: it keeps what publishers signed, says which of it is current, and hands it
//! out. It can withhold, and devices notice; it cannot make them run what no owner signed.
//!
//! | module | what lives there |
//! |---|---|
//! | [`holding`] | the files as they were uploaded, each checked against the ones above it |
//! | [`keeper`] | brings all of it to the broker |
//! | [`current`] | snapshot and timestamp, signed anew when something changes and before they expire |

pub mod current;
pub mod holding;
pub mod keeper;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use serin_protocol::ids::{Digest, ReleaseId};
use serin_protocol::topic::FileName;
use serin_protocol::trust::UtcSeconds;
use tokio::sync::watch;

use self::current::{Current, Signers};
use self::holding::Holding;

pub use self::holding::RepositoryError;

/// Everything about trust that a server keeps.
pub struct Repository {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

struct State {
    holding: Holding,
    current: Current,
}

impl Repository {
    /// Takes up the repository in `folder`, empty at first.
    pub fn open(folder: &Path, snapshot: SigningKey, timestamp: SigningKey) -> Result<Self, RepositoryError> {
        let holding = Holding::open(folder)?;
        let current = Current::open(folder, Signers { snapshot, timestamp })?;
        Ok(Self { state: Mutex::new(State { holding, current }), changed: watch::Sender::new(0) })
    }

    /// Keeps an uploaded metadata file if it is signed as it must be. Devices see it after
    /// [`Repository::publish`], so that several files change together.
    pub fn accept(&self, name: &str, bytes: &[u8], now: UtcSeconds) -> Result<(), RepositoryError> {
        let mut state = self.lock();
        let State { holding, current } = &mut *state;
        holding.accept(name, bytes, now, &current.names())
    }

    /// Whether an owner's uploaded metadata lists the release with the statement of this digest.
    pub fn lists(&self, id: &ReleaseId, statement: &Digest) -> bool {
        self.lock().holding.lists(id, statement)
    }

    /// Makes what was uploaded the current state; the version of the snapshot.
    pub fn publish(&self, now: UtcSeconds) -> Result<u64, RepositoryError> {
        let version = {
            let mut state = self.lock();
            let State { holding, current } = &mut *state;
            let version = current.publish(&holding.listing()?, now)?;
            if let Some(snapshot) = current.snapshot() {
                holding.forget_superseded(snapshot)?;
            }
            version
        };
        self.say_again();
        Ok(version)
    }

    /// Signs anew what will expire; does nothing before something was published.
    pub fn keep_fresh(&self, now: UtcSeconds) -> Result<(), RepositoryError> {
        if self.lock().current.keep_fresh(now)? {
            self.say_again();
        }
        Ok(())
    }

    /// Has everything said to the broker once more, because it may have forgotten.
    pub fn say_again(&self) {
        self.changed.send_modify(|times| *times = times.wrapping_add(1));
    }

    /// Changes whenever [`Repository::files`] is to be said.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What devices may read, in the order in which it must appear: what is named before what names it.
    pub fn files(&self) -> Vec<(FileName, Bytes)> {
        let state = self.lock();
        let Some(snapshot) = state.current.snapshot() else { return Vec::new() };
        let mut files = state.holding.listed(snapshot);
        files.extend(state.current.files());
        files.into_iter().filter_map(|(name, bytes)| Some((FileName::new(&name).ok()?, bytes))).collect()
    }

    /// One file by name.
    pub fn file(&self, name: &str) -> Option<Bytes> {
        self.files().into_iter().find(|(file, _)| file.as_str() == name).map(|(_, bytes)| bytes)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
