//! Trusted metadata on disk, each file whole or not there: `trust/roles/<role>.json`, and every root since
//! the configured one as `trust/roots/<version>.json`. It is the floor for versions that survives restarts,
//! so that what is kept is durable before anything is built on it. Roots have a folder of their own because
//! owners choose the names of the roles they delegate to.
//!
//! The chain of roots is verified anew at every start. Whoever can write here, but not where the configured
//! root is, can make the device forget, not believe; and what it forgets it asks for again, because the
//! boot record knows how far the chain went.

use std::path::{Path, PathBuf};

use serin_protocol::ids::Digest;
use serin_protocol::topic::FileName;
use serin_protocol::trust::{
    Accepted, Fetch, Limits, Metadata, MetadataVersion, Next, Role, Root, Session, TrustError, UtcSeconds,
};

use crate::disk::seam::{FileError, Files, if_there};
use crate::update::record::RootFloor;

/// Largest file kept: one MQTT message.
const MAX_FILE_BYTES: usize = 120 * 1024;

/// Most roots that may follow the configured one, counted over all refreshes: what one session follows at a
/// start, and more changes of keys than a device lives to see.
pub const MAX_ROOTS: u64 = Limits::DEVICE.roots as u64;

/// Trusted metadata could not be kept or is not there.
#[derive(Debug, thiserror::Error)]
pub enum TrustStoreError {
    /// The disk failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// A role's name does not name a file.
    #[error("path trick: the role {0} has no name that a file may have")]
    Name(Role),
    /// A chain of roots that does not end.
    #[error(
        "endless data: more than {MAX_ROOTS} roots follow the configured one; \
         put a newer root.json of your publisher where trust.root says"
    )]
    EndlessRoots,
    /// The configured root is not one.
    #[error("trust.root: {path}: {source}")]
    Root {
        /// The file.
        path: PathBuf,
        /// Why.
        source: TrustError,
    },
    /// The configured root is not there or too large.
    #[error("trust.root: {path}: {reason}; put the first root.json that your publisher made there")]
    NoRoot {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The folder of trusted metadata.
#[derive(Debug)]
pub struct TrustStore {
    files: Files,
    roots: PathBuf,
    roles: PathBuf,
    /// The configured root.
    configured: Digest,
    first: MetadataVersion,
    root: Vec<u8>,
    version: MetadataVersion,
    /// The highest root that was ever trusted.
    floor: MetadataVersion,
    /// A root above the floor that was known at the start took a timestamp's or snapshot's key back.
    recovered: bool,
}

impl TrustStore {
    /// Takes up what is kept below `data`, beginning with the root at `configured`. `floor` is how far the
    /// chain is known to have gone.
    pub fn open(
        files: Files,
        data: &Path,
        configured: &Path,
        floor: Option<RootFloor>,
    ) -> Result<Self, TrustStoreError> {
        let (roots, roles) = folders(&files, data)?;
        let missing = |reason: String| TrustStoreError::NoRoot { path: configured.into(), reason };
        let anchor = files.read_at_most(configured, MAX_FILE_BYTES);
        let anchor = anchor.map_err(|error| missing(error.source.to_string()))?;
        if anchor.len() > MAX_FILE_BYTES {
            return Err(missing(format!("it has more than {MAX_FILE_BYTES} bytes")));
        }
        // No clock is asked: a root in the chain may have expired.
        let chain = Session::begin(&anchor, UtcSeconds(0), Limits::DEVICE);
        let mut chain = chain.map_err(|source| TrustStoreError::Root { path: configured.into(), source })?;
        let first = chain.root().version;
        let configured = Digest::of(&anchor);
        let known = floor.filter(|floor| floor.configured == configured).map(|floor| floor.version);
        let floor = known.unwrap_or(first).max(first);
        let (root, version, recovered) = (anchor, first, false);
        let mut store = Self { files, roots, roles, configured, first, root, version, floor, recovered };
        while let Next::Fetch(Fetch { role: Role::Root, version: Some(version), .. }) = chain.next() {
            let Some(bytes) = store.read_file(&store.root_path(version)) else { break };
            match chain.fetched(&bytes) {
                Ok(accepted) => {
                    store.recovered |= version > store.floor && !accepted.forget.is_empty();
                    store.rise(bytes, version);
                }
                Err(error) => {
                    tracing::warn!(%version, %error, "a kept root is not what it was; it is fetched anew");
                    break;
                }
            }
        }
        if store.version < store.floor {
            let (kept, trusted) = (store.version, store.floor);
            tracing::warn!(%kept, %trusted, "kept roots are lost or damaged; nobody is trusted without them");
        }
        store.drop_passed_roots()?;
        Ok(store)
    }

    /// Roots that an installer's newer one made superfluous.
    fn drop_passed_roots(&self) -> Result<(), TrustStoreError> {
        for entry in self.files.list(&self.roots)? {
            let version = entry.name.to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok());
            let passed = version.is_none_or(|version: u64| version <= self.first.0.get());
            if passed && !entry.is_dir {
                discard(&self.files, &self.roots.join(&entry.name));
            }
        }
        Ok(())
    }

    /// The trusted root.
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// The highest root that was ever trusted. The one kept may be older, if the disk lost it.
    pub const fn root_floor(&self) -> RootFloor {
        RootFloor { configured: self.configured, version: self.floor }
    }

    /// Whether the kept chain took keys of timestamp or snapshot back above the floor it was opened with: a
    /// start that was cut off may not have drawn the consequences.
    ///
    /// Said once: whoever asks draws them.
    pub const fn take_recovered(&mut self) -> bool {
        std::mem::replace(&mut self.recovered, false)
    }

    /// Keeps and forgets what a session says about a file that was just handed to it.
    pub fn accept(&mut self, accepted: &Accepted, bytes: &[u8]) -> Result<(), TrustStoreError> {
        let before = self.floor;
        accepted.forget.iter().try_for_each(|role| self.forget(role))?;
        accepted.keep.iter().try_for_each(|role| self.keep(role, bytes))?;
        self.recovered |= self.floor > before && !accepted.forget.is_empty();
        Ok(())
    }

    /// The trusted file of `role`. One that cannot be read counts as not there: it is fetched anew.
    pub fn read(&self, role: &Role) -> Option<Vec<u8>> {
        self.read_file(&self.roles.join(file_name(role).ok()?))
    }

    fn read_file(&self, path: &Path) -> Option<Vec<u8>> {
        match if_there(self.files.read_at_most(path, MAX_FILE_BYTES)) {
            Ok(bytes) => bytes.filter(|bytes| bytes.len() <= MAX_FILE_BYTES),
            Err(error) => {
                tracing::warn!(%error, "trusted metadata cannot be read");
                None
            }
        }
    }

    /// Keeps `bytes` as the trusted file of `role`, durably.
    pub(super) fn keep(&mut self, role: &Role, bytes: &[u8]) -> Result<(), TrustStoreError> {
        if *role != Role::Root {
            return self.write(&self.roles, &file_name(role)?, bytes);
        }
        let version = Metadata::<Root>::parse(role, bytes).map(|root| root.signed.version);
        let version = version.map_err(|_| TrustStoreError::Name(role.clone()))?;
        if version.0.get().saturating_sub(self.first.0.get()) > MAX_ROOTS {
            return Err(TrustStoreError::EndlessRoots);
        }
        self.write(&self.roots, &format!("{version}.json"), bytes)?;
        self.rise(bytes.to_vec(), version);
        Ok(())
    }

    fn rise(&mut self, root: Vec<u8>, version: MetadataVersion) {
        (self.root, self.version) = (root, version);
        self.floor = self.floor.max(version);
    }

    fn write(&self, folder: &Path, name: &str, bytes: &[u8]) -> Result<(), TrustStoreError> {
        Ok(self.files.replace(folder, name, bytes)?)
    }

    /// Forgets the trusted file of `role`, durably.
    fn forget(&self, role: &Role) -> Result<(), TrustStoreError> {
        if_there(self.files.remove(&self.roles.join(file_name(role)?)))?;
        Ok(self.files.sync_dir(&self.roles)?)
    }

    fn root_path(&self, version: MetadataVersion) -> PathBuf {
        self.roots.join(format!("{version}.json"))
    }
}

/// Makes the folders of roots and roles, and moves what an older agent kept beside them into them: it had
/// all in one, roots as `<version>.root.json`. Each move is whole, and a start that was cut off goes on.
fn folders(files: &Files, data: &Path) -> Result<(PathBuf, PathBuf), FileError> {
    let folder = data.join("trust");
    let (roots, roles) = (folder.join("roots"), folder.join("roles"));
    for kept in [&folder, &roots, &roles] {
        files.keep_dir(kept)?;
    }
    let mut moved = false;
    for entry in files.list(&folder)?.into_iter().filter(|entry| !entry.is_dir) {
        let old = folder.join(&entry.name);
        let Some(name) = entry.name.to_str().and_then(|name| name.strip_suffix(".json")) else {
            // Left by a write that a power cut ended.
            discard(files, &old);
            continue;
        };
        let version = name.strip_suffix(".root").filter(|version| version.parse::<u64>().is_ok());
        let new = match version {
            Some(version) => roots.join(format!("{version}.json")),
            None => roles.join(format!("{name}.json")),
        };
        files.rename(&old, &new)?;
        moved = true;
    }
    if moved {
        [&roots, &roles, &folder].into_iter().try_for_each(|folder| files.sync_dir(folder))?;
    }
    Ok((roots, roles))
}

/// Removes what is of no use. A disk that takes no writes keeps it.
fn discard(files: &Files, path: &Path) {
    if let Err(error) = if_there(files.remove(path)) {
        tracing::warn!(%error, "what is of no use any more stays for now");
    }
}

/// A role's name is a single path segment, or it has no file.
fn file_name(role: &Role) -> Result<String, TrustStoreError> {
    let name = FileName::new(&format!("{role}.json")).map_err(|_| TrustStoreError::Name(role.clone()))?;
    Ok(name.as_str().into())
}
