//! Snapshot and timestamp: which files are current. They are short-lived, so that a device which is shown
//! old ones for ever notices, and signed anew well before they expire.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use serde_json::Map;
use serin_protocol::envelope::PublicKey;
use serin_protocol::trust::metadata::{Signable, TimestampMeta};
use serin_protocol::trust::{
    FileMeta, Key, KeyName, Metadata, MetadataVersion, Role, Snapshot, Timestamp, UtcSeconds,
};

use super::holding::{RepositoryError, ServerKeys, meta};
use crate::trust::FolderError;
use crate::trust::change::SPEC_VERSION;
use crate::trust::folder::{read, write};

/// Days a timestamp holds: the longest that a broker can show a device an old state unnoticed.
pub const TIMESTAMP_DAYS: i64 = 2;
/// Days a snapshot holds: a server that is down for a weekend does no harm.
pub const SNAPSHOT_DAYS: i64 = 14;

/// The server's keys.
pub(super) struct Signers {
    pub(super) snapshot: SigningKey,
    pub(super) timestamp: SigningKey,
}

pub(super) struct Current {
    folder: PathBuf,
    signers: Signers,
    snapshot: Option<(Snapshot, Bytes)>,
    timestamp: Option<(Timestamp, Bytes)>,
}

impl Current {
    pub(super) fn open(folder: &Path, signers: Signers) -> Result<Self, RepositoryError> {
        let folder = folder.join("current");
        Ok(Self {
            snapshot: load(&folder.join("snapshot.json"), &Role::Snapshot)?,
            timestamp: load(&folder.join("timestamp.json"), &Role::Timestamp)?,
            folder,
            signers,
        })
    }

    pub(super) fn names(&self) -> ServerKeys {
        let name = |key: &SigningKey| -> KeyName { Key::ed25519(&PublicKey::of(key)).name() };
        ServerKeys { snapshot: name(&self.signers.snapshot), timestamp: name(&self.signers.timestamp) }
    }

    pub(super) fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref().map(|(snapshot, _)| snapshot)
    }

    /// The two files by name, the snapshot first.
    pub(super) fn files(&self) -> Vec<(String, Bytes)> {
        let snapshot = self.snapshot.iter();
        let snapshot =
            snapshot.map(|(file, bytes)| (format!("{}.snapshot.json", file.version), bytes.clone()));
        let timestamp = self.timestamp.iter().map(|(_, bytes)| ("timestamp.json".to_owned(), bytes.clone()));
        snapshot.chain(timestamp).collect()
    }

    /// Signs a snapshot of `listing`, unless the last one says the same, and a timestamp.
    pub(super) fn publish(
        &mut self,
        listing: &BTreeMap<String, FileMeta>,
        now: UtcSeconds,
    ) -> Result<u64, RepositoryError> {
        let mut meta = self.snapshot().map(|snapshot| snapshot.meta.clone()).unwrap_or_default();
        meta.extend(listing.clone());
        let same = self.snapshot().is_some_and(|snapshot| snapshot.meta == meta);
        if !same || self.due(now).0 {
            self.sign_snapshot(meta, now)?;
        }
        self.sign_timestamp(now)?;
        Ok(self.snapshot().map_or(0, |snapshot| snapshot.version.0.get()))
    }

    /// Signs anew what has less than half of its life left; whether there was anything.
    pub(super) fn keep_fresh(&mut self, now: UtcSeconds) -> Result<bool, RepositoryError> {
        let (snapshot_due, timestamp_due) = self.due(now);
        if snapshot_due && let Some(meta) = self.snapshot().map(|snapshot| snapshot.meta.clone()) {
            self.sign_snapshot(meta, now)?;
        }
        if snapshot_due || timestamp_due {
            self.sign_timestamp(now)?;
        }
        Ok(snapshot_due || timestamp_due)
    }

    fn due(&self, now: UtcSeconds) -> (bool, bool) {
        let due = |expires: UtcSeconds, days: i64| expires.0.saturating_sub(now.0) < days * 86_400 / 2;
        let snapshot = self.snapshot.as_ref().is_some_and(|(file, _)| due(file.expires, SNAPSHOT_DAYS));
        // A timestamp that a power cut left behind its snapshot is due as well.
        let behind = |file: &Timestamp| {
            self.snapshot().is_some_and(|snapshot| snapshot.version != file.meta.snapshot.version)
        };
        let timestamp = self.timestamp.as_ref();
        let timestamp = timestamp.is_some_and(|(file, _)| due(file.expires, TIMESTAMP_DAYS) || behind(file));
        (snapshot, timestamp)
    }

    fn sign_snapshot(
        &mut self,
        meta: BTreeMap<String, FileMeta>,
        now: UtcSeconds,
    ) -> Result<(), RepositoryError> {
        let version = following(self.snapshot().map(|snapshot| snapshot.version))?;
        let snapshot = Snapshot {
            kind: "snapshot".into(),
            spec_version: SPEC_VERSION.into(),
            version,
            expires: now.plus_days(SNAPSHOT_DAYS),
            meta,
            other: Map::new(),
        };
        let bytes = signed(&Role::Snapshot, &snapshot, &self.signers.snapshot)?;
        write(&self.folder.join("snapshot.json"), &bytes)?;
        self.snapshot = Some((snapshot, bytes));
        Ok(())
    }

    fn sign_timestamp(&mut self, now: UtcSeconds) -> Result<(), RepositoryError> {
        let Some((snapshot, bytes)) = &self.snapshot else { return Ok(()) };
        let timestamp = Timestamp {
            kind: "timestamp".into(),
            spec_version: SPEC_VERSION.into(),
            version: following(self.timestamp.as_ref().map(|(file, _)| file.version))?,
            expires: now.plus_days(TIMESTAMP_DAYS),
            meta: TimestampMeta { snapshot: meta(snapshot.version, bytes) },
            other: Map::new(),
        };
        let bytes = signed(&Role::Timestamp, &timestamp, &self.signers.timestamp)?;
        write(&self.folder.join("timestamp.json"), &bytes)?;
        self.timestamp = Some((timestamp, bytes));
        Ok(())
    }
}

fn following(version: Option<MetadataVersion>) -> Result<MetadataVersion, RepositoryError> {
    let next = version.map_or(Some(MetadataVersion::FIRST), MetadataVersion::next);
    next.ok_or_else(|| FolderError::Invalid("no versions left".into()).into())
}

fn signed<T: Signable>(role: &Role, content: &T, key: &SigningKey) -> Result<Bytes, RepositoryError> {
    let mut file = Metadata::unsigned(role, content.clone())?;
    file.sign(role, key)?;
    Ok(file.to_bytes().into())
}

fn load<T: Signable>(path: &Path, role: &Role) -> Result<Option<(T, Bytes)>, RepositoryError> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = read(path)?;
    Ok(Some((Metadata::<T>::parse(role, &bytes)?.signed, bytes.into())))
}
