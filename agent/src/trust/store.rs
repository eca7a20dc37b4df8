//! Trusted metadata on disk: `trust/<role>.json`, each file whole or not there. It is the floor for
//! versions that survives restarts, so that what is kept is durable before anything is built on it.

use std::path::{Path, PathBuf};

use serin_protocol::topic::FileName;
use serin_protocol::trust::metadata::Signable as _;
use serin_protocol::trust::{Limits, Metadata, Role, Root, TrustError};

use crate::disk::seam::{FileError, Files, if_there};

/// Largest file kept: one MQTT message.
const MAX_FILE_BYTES: usize = 120 * 1024;

/// Trusted metadata could not be kept or is not there.
#[derive(Debug, thiserror::Error)]
pub enum TrustStoreError {
    /// The disk failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// A role's name does not name a file.
    #[error("the role {0} has no file name")]
    Name(Role),
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
    folder: PathBuf,
    root: Vec<u8>,
}

impl TrustStore {
    /// Takes up what is kept below `data`. The root at `configured` is the device's anchor at its first
    /// start and when it is newer than the one kept: then somebody with the rights of an installer has
    /// put it there.
    pub fn open(files: Files, data: &Path, configured: &Path) -> Result<Self, TrustStoreError> {
        let folder = data.join("trust");
        files.create_dir(&folder)?;
        files.sync_dir(data)?;
        let mut store = Self { files, folder, root: Vec::new() };
        let kept = store.read(&Role::Root).and_then(|bytes| Some((verified(&bytes).ok()?, bytes)));
        let anchor = store.configured(configured);
        store.root = match (kept, anchor) {
            (Some((version, _)), Ok((newer, bytes))) if newer > version => {
                store.keep(&Role::Root, &bytes)?;
                bytes
            }
            (Some((_, bytes)), _) => bytes,
            (None, anchor) => {
                let (_, bytes) = anchor?;
                store.keep(&Role::Root, &bytes)?;
                bytes
            }
        };
        Ok(store)
    }

    fn configured(&self, path: &Path) -> Result<(u64, Vec<u8>), TrustStoreError> {
        let missing = |reason: String| TrustStoreError::NoRoot { path: path.into(), reason };
        let bytes = self.files.read_at_most(path, MAX_FILE_BYTES);
        let bytes = bytes.map_err(|error| missing(error.source.to_string()))?;
        let version =
            verified(&bytes).map_err(|source| TrustStoreError::Root { path: path.into(), source })?;
        Ok((version, bytes))
    }

    /// The trusted root.
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// The trusted file of `role`. One that cannot be read counts as not there: it is fetched anew.
    pub fn read(&self, role: &Role) -> Option<Vec<u8>> {
        let path = self.path(role).ok()?;
        match if_there(self.files.read_at_most(&path, MAX_FILE_BYTES)) {
            Ok(bytes) => bytes.filter(|bytes| bytes.len() <= MAX_FILE_BYTES),
            Err(error) => {
                tracing::warn!(%error, "trusted metadata cannot be read");
                None
            }
        }
    }

    /// Keeps `bytes` as the trusted file of `role`, durably.
    pub fn keep(&mut self, role: &Role, bytes: &[u8]) -> Result<(), TrustStoreError> {
        let path = self.path(role)?;
        let new = path.with_extension("new");
        let mut file = self.files.create(&new)?;
        file.append(bytes)?;
        file.sync()?;
        self.files.rename(&new, &path)?;
        self.files.sync_dir(&self.folder)?;
        if *role == Role::Root {
            self.root = bytes.to_vec();
        }
        Ok(())
    }

    /// Forgets the trusted file of `role`, durably.
    pub fn forget(&self, role: &Role) -> Result<(), TrustStoreError> {
        if_there(self.files.remove(&self.path(role)?))?;
        Ok(self.files.sync_dir(&self.folder)?)
    }

    /// A role's name is a single path segment, or it has no file.
    fn path(&self, role: &Role) -> Result<PathBuf, TrustStoreError> {
        let name = FileName::new(&format!("{role}.json")).map_err(|_| TrustStoreError::Name(role.clone()))?;
        Ok(self.folder.join(name.as_str()))
    }
}

/// The version of a root that its own keys signed. It may have expired.
fn verified(bytes: &[u8]) -> Result<u64, TrustError> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(TrustError::EndlessData { role: Role::Root, limit: Limits::DEVICE.root });
    }
    let root = Metadata::<Root>::parse(&Role::Root, bytes)?;
    root.verify(&Role::Root, &root.signed.keys, &root.signed.roles.root)?;
    Ok(root.signed.version().0.get())
}
