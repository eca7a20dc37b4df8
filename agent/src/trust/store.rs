//! Trusted metadata on disk, each file whole or not there: `trust/<role>.json` and every root since the
//! configured one, `trust/<version>.root.json`. It is the floor for versions that survives restarts, so
//! that what is kept is durable before anything is built on it.
//!
//! The chain of roots is verified anew at every start. Whoever can write here, but not where the configured
//! root is, can make the device forget, not believe.

use std::path::{Path, PathBuf};

use serin_protocol::topic::FileName;
use serin_protocol::trust::{
    Fetch, Limits, Metadata, MetadataVersion, Next, Role, Root, Session, TrustError, UtcSeconds,
};

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
    /// Takes up what is kept below `data`, beginning with the root at `configured`.
    pub fn open(files: Files, data: &Path, configured: &Path) -> Result<Self, TrustStoreError> {
        let folder = data.join("trust");
        files.keep_dir(&folder)?;
        let missing = |reason: String| TrustStoreError::NoRoot { path: configured.into(), reason };
        let anchor = files.read_at_most(configured, MAX_FILE_BYTES);
        let anchor = anchor.map_err(|error| missing(error.source.to_string()))?;
        if anchor.len() > MAX_FILE_BYTES {
            return Err(missing(format!("it has more than {MAX_FILE_BYTES} bytes")));
        }
        // No clock is asked: a root in the chain may have expired.
        let chain = Session::begin(&anchor, UtcSeconds(0), Limits::DEVICE);
        let mut chain = chain.map_err(|source| TrustStoreError::Root { path: configured.into(), source })?;
        let mut store = Self { files, folder, root: anchor };
        while let Next::Fetch(Fetch { role: Role::Root, version: Some(version), .. }) = chain.next() {
            let Some(bytes) = store.read_file(&root_name(version)) else { break };
            if let Err(error) = chain.fetched(&bytes) {
                tracing::warn!(%version, %error, "a kept root is not what it was; it is fetched anew");
                break;
            }
            store.root = bytes;
        }
        Ok(store)
    }

    /// The trusted root.
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// The trusted file of `role`. One that cannot be read counts as not there: it is fetched anew.
    pub fn read(&self, role: &Role) -> Option<Vec<u8>> {
        self.read_file(&file_name(role).ok()?)
    }

    fn read_file(&self, name: &str) -> Option<Vec<u8>> {
        match if_there(self.files.read_at_most(&self.folder.join(name), MAX_FILE_BYTES)) {
            Ok(bytes) => bytes.filter(|bytes| bytes.len() <= MAX_FILE_BYTES),
            Err(error) => {
                tracing::warn!(%error, "trusted metadata cannot be read");
                None
            }
        }
    }

    /// Keeps `bytes` as the trusted file of `role`, durably.
    pub fn keep(&mut self, role: &Role, bytes: &[u8]) -> Result<(), TrustStoreError> {
        if *role == Role::Root {
            let version = Metadata::<Root>::parse(role, bytes).map(|root| root.signed.version);
            let version = version.map_err(|_| TrustStoreError::Name(role.clone()))?;
            self.write(&root_name(version), bytes)?;
            self.root = bytes.to_vec();
            return Ok(());
        }
        self.write(&file_name(role)?, bytes)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), TrustStoreError> {
        let path = self.folder.join(name);
        let new = path.with_extension("new");
        let mut file = self.files.create(&new)?;
        file.append(bytes)?;
        file.sync()?;
        self.files.rename(&new, &path)?;
        Ok(self.files.sync_dir(&self.folder)?)
    }

    /// Forgets the trusted file of `role`, durably.
    pub fn forget(&self, role: &Role) -> Result<(), TrustStoreError> {
        if_there(self.files.remove(&self.folder.join(file_name(role)?)))?;
        Ok(self.files.sync_dir(&self.folder)?)
    }
}

/// A role's name is a single path segment, or it has no file.
fn file_name(role: &Role) -> Result<String, TrustStoreError> {
    let name = FileName::new(&format!("{role}.json")).map_err(|_| TrustStoreError::Name(role.clone()))?;
    Ok(name.as_str().into())
}

fn root_name(version: MetadataVersion) -> String {
    format!("{version}.root.json")
}
