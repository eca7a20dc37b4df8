//! The server's side of trust: it keeps what publishers signed, says which of it is current, and hands it
//! out. It can withhold, and devices notice; it cannot make them run what no owner signed.
//!
//! | module | what lives there |
//! |---|---|
//! | [`check`] | what is about to be published, read as a device would |
//! | [`holding`] | the files as they were uploaded, each checked against the ones above it |
//! | [`keeper`] | brings all of it to the broker |
//! | [`current`] | snapshot and timestamp, signed anew when something changes and before they expire |

mod check;
pub mod current;
pub mod holding;
pub mod keeper;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use serin_protocol::ids::{Digest, ReleaseId};
use serin_protocol::topic::FileName;
use serin_protocol::trust::{KeyName, MetadataVersion, Root, UtcSeconds};
use tokio::sync::watch;

use self::current::{Current, Pair, Signers};
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
    /// What devices may read, in the order in which it must appear.
    shown: Vec<(FileName, Bytes)>,
    /// Who signs assignments, as shown.
    fleet: Vec<KeyName>,
}

impl State {
    /// The root that counts: the one published last, or the newest before there was such a note.
    fn root(&self) -> Result<Root, RepositoryError> {
        self.current.root().map_or_else(|| self.holding.root(), |version| self.holding.root_of(version))
    }

    /// What there is to show once `pair` is current: what is named before what names it.
    fn files(&self, root: MetadataVersion, pair: &Pair) -> Vec<(String, Bytes)> {
        let mut files = self.holding.listed(root, pair.snapshot());
        files.extend(pair.files());
        files
    }

    fn show(&mut self) -> Result<(), RepositoryError> {
        let Some(pair) = self.current.pair() else { return Ok(()) };
        let files = self.files(self.root()?.version, &pair).into_iter();
        self.fleet = self.holding.fleet_keys(pair.snapshot())?;
        self.shown = files.filter_map(|(name, bytes)| Some((FileName::new(&name).ok()?, bytes))).collect();
        Ok(())
    }
}

impl Repository {
    /// Takes up the repository in `folder`, empty at first. Of the server's keys those sign that the published
    /// root names, the newest of them, which stand last.
    pub fn open(
        folder: &Path,
        snapshot: Vec<SigningKey>,
        timestamp: Vec<SigningKey>,
    ) -> Result<Self, RepositoryError> {
        let holding = Holding::open(folder)?;
        let current = Current::open(folder, Signers { snapshot, timestamp })?;
        let mut state = State { holding, current, shown: Vec::new(), fleet: Vec::new() };
        state.show()?;
        Ok(Self { state: Mutex::new(state), changed: watch::Sender::new(0) })
    }

    /// Keeps an uploaded metadata file if it is signed as it must be. Devices see it after
    /// [`Repository::publish`], so that several files change together.
    pub fn accept(&self, name: &str, bytes: &[u8], now: UtcSeconds) -> Result<(), RepositoryError> {
        let mut state = self.lock();
        let State { holding, current, .. } = &mut *state;
        holding.accept(name, bytes, now, &current.names())
    }

    /// Whether an owner's uploaded metadata lists the release with the statement of this digest.
    pub fn lists(&self, id: &ReleaseId, statement: &Digest) -> bool {
        self.lock().holding.lists(id, statement)
    }

    /// Makes what was uploaded the current state, if a device would follow it there; the version of the
    /// snapshot. Otherwise all stays as it was.
    pub fn publish(&self, now: UtcSeconds) -> Result<u64, RepositoryError> {
        let version = {
            let mut state = self.lock();
            let root = state.holding.root()?;
            let pair = state.current.draft(&state.holding.listing()?, &root, now)?;
            let candidate: BTreeMap<_, _> = state.files(root.version, &pair).into_iter().collect();
            check::as_a_device_would(&candidate, pair.snapshot(), now).map_err(RepositoryError::Refused)?;
            let snapshot = pair.snapshot().clone();
            state.current.keep(pair, root.version)?;
            state.holding.forget_superseded(&snapshot)?;
            state.show()?;
            snapshot.version.0.get()
        };
        self.say_again();
        Ok(version)
    }

    /// Signs anew what will expire, or what another key than the root's signed; does nothing before something
    /// was published.
    pub fn keep_fresh(&self, now: UtcSeconds) -> Result<(), RepositoryError> {
        {
            let mut state = self.lock();
            if state.current.pair().is_none() {
                return Ok(());
            }
            let root = state.root()?;
            let Some(pair) = state.current.freshened(&root, now)? else { return Ok(()) };
            state.current.keep(pair, root.version)?;
            state.show()?;
        }
        self.say_again();
        Ok(())
    }

    /// Names of the keys that sign assignments, as published; none before.
    pub fn fleet_keys(&self) -> Vec<KeyName> {
        self.lock().fleet.clone()
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
        self.lock().shown.clone()
    }

    /// One file by name.
    pub fn file(&self, name: &str) -> Option<Bytes> {
        let state = self.lock();
        state.shown.iter().find(|(file, _)| file.as_str() == name).map(|(_, bytes)| bytes.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
