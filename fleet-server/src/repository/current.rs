//! Snapshot and timestamp: which files are current. They are short-lived, so that a device which is shown
//! old ones for ever notices, and signed anew well before they expire.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use serde_json::Map;
use serin_protocol::envelope::PublicKey;
use serin_protocol::trust::metadata::{Signable, TimestampMeta};
use serin_protocol::trust::{
    FileMeta, Key, KeyName, Metadata, MetadataVersion, Role, RoleKeys, Root, Snapshot, Timestamp, UtcSeconds,
};

use super::holding::{RepositoryError, ServerKeys, meta};
use crate::trust::FolderError;
use crate::trust::change::SPEC_VERSION;
use crate::trust::folder::{read, write};

/// Days a timestamp holds: the longest that a broker can show a device an old state unnoticed.
pub const TIMESTAMP_DAYS: i64 = 2;
/// Name of the file under `current/`.
const KEPT: &str = "shown.json";
/// Days a snapshot holds: a server that is down for a weekend does no harm.
pub const SNAPSHOT_DAYS: i64 = 14;

/// The server's keys, the newest last. The published root says which of them signs: a key that was made
/// here waits until a root names it.
pub(super) struct Signers {
    pub(super) snapshot: Vec<SigningKey>,
    pub(super) timestamp: Vec<SigningKey>,
}

impl Signers {
    fn names(&self) -> ServerKeys {
        let names = |keys: &[SigningKey]| keys.iter().map(name).collect();
        ServerKeys { snapshot: names(&self.snapshot), timestamp: names(&self.timestamp) }
    }

    /// The newest keys that `root` names.
    fn of(&self, root: &Root) -> Result<(&SigningKey, &SigningKey), RepositoryError> {
        let pick = |keys: &'_ [SigningKey], of: &RoleKeys| {
            keys.iter().rposition(|key| of.keyids.contains(&name(key)))
        };
        let snapshot = pick(&self.snapshot, &root.roles.snapshot).and_then(|at| self.snapshot.get(at));
        let timestamp = pick(&self.timestamp, &root.roles.timestamp).and_then(|at| self.timestamp.get(at));
        Ok((
            snapshot.ok_or(RepositoryError::OtherServer("snapshot"))?,
            timestamp.ok_or(RepositoryError::OtherServer("timestamp"))?,
        ))
    }
}

fn name(key: &SigningKey) -> KeyName {
    Key::ed25519(&PublicKey::of(key)).name()
}

/// A file that this server signed.
#[derive(Clone)]
struct Signed<T> {
    content: T,
    bytes: Bytes,
    /// With which key.
    by: Option<KeyName>,
}

/// The two files of one moment.
#[derive(Clone)]
pub(super) struct Pair {
    snapshot: Signed<Snapshot>,
    timestamp: Signed<Timestamp>,
}

impl Pair {
    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.snapshot.content
    }

    /// The two files by name, the snapshot first.
    pub(super) fn files(&self) -> [(String, Bytes); 2] {
        [
            (format!("{}.snapshot.json", self.snapshot.content.version), self.snapshot.bytes.clone()),
            ("timestamp.json".to_owned(), self.timestamp.bytes.clone()),
        ]
    }
}

/// What is shown, in one file, so that a cut leaves all of it or what was shown before: the root that was
/// published last (later ones that were uploaded wait), and the two files.
#[derive(Serialize, Deserialize)]
struct Kept {
    root: MetadataVersion,
    snapshot: String,
    timestamp: String,
}

pub(super) struct Current {
    folder: PathBuf,
    signers: Signers,
    snapshot: Option<Signed<Snapshot>>,
    timestamp: Option<Signed<Timestamp>>,
    root: Option<MetadataVersion>,
}

impl Current {
    pub(super) fn open(folder: &Path, signers: Signers) -> Result<Self, RepositoryError> {
        let folder = folder.join("current");
        let path = folder.join(KEPT);
        if !path.exists() {
            // As a server kept them that showed every root at once.
            let there = |name: &str| Some(folder.join(name)).filter(|path| path.exists());
            let snapshot = there("snapshot.json").map(|path| load(&read(&path)?, &Role::Snapshot));
            let timestamp = there("timestamp.json").map(|path| load(&read(&path)?, &Role::Timestamp));
            let (snapshot, timestamp) = (snapshot.transpose()?, timestamp.transpose()?);
            return Ok(Self { folder, signers, snapshot, timestamp, root: None });
        }
        let unreadable = |error| FolderError::Invalid(format!("{}: {error}", path.display()));
        let kept: Kept = serde_json::from_slice(&read(&path)?).map_err(unreadable)?;
        Ok(Self {
            snapshot: Some(load(kept.snapshot.as_bytes(), &Role::Snapshot)?),
            timestamp: Some(load(kept.timestamp.as_bytes(), &Role::Timestamp)?),
            root: Some(kept.root),
            folder,
            signers,
        })
    }

    pub(super) fn names(&self) -> ServerKeys {
        self.signers.names()
    }

    /// What is shown now; nothing before the first publication.
    pub(super) fn pair(&self) -> Option<Pair> {
        Some(Pair { snapshot: self.snapshot.clone()?, timestamp: self.timestamp.clone()? })
    }

    /// The root that was published last. Before roots were kept back, the newest was.
    pub(super) const fn root(&self) -> Option<MetadataVersion> {
        self.root
    }

    /// A snapshot of `listing`, the last one if it says the same and is good for a while, and a new timestamp.
    pub(super) fn draft(
        &self,
        listing: &BTreeMap<String, FileMeta>,
        root: &Root,
        now: UtcSeconds,
    ) -> Result<Pair, RepositoryError> {
        // Clients refuse a snapshot from which a file has disappeared (specification, section 5.5.5): the
        // files of former owners stay listed.
        let before = self.snapshot.as_ref();
        let mut meta = before.map(|snapshot| snapshot.content.meta.clone()).unwrap_or_default();
        meta.extend(listing.clone());
        let kept = before.filter(|snapshot| snapshot.content.meta == meta);
        let kept = match kept {
            Some(snapshot) if !self.due(root, now)?.0 => Some(snapshot.clone()),
            Some(_) | None => None,
        };
        let snapshot = kept.map_or_else(|| self.sign_snapshot(meta, root, now), Ok)?;
        let timestamp = self.sign_timestamp(&snapshot, root, now)?;
        Ok(Pair { snapshot, timestamp })
    }

    /// What has less than half of its life left signed anew; nothing if that is neither.
    pub(super) fn freshened(&self, root: &Root, now: UtcSeconds) -> Result<Option<Pair>, RepositoryError> {
        let Some(snapshot) = &self.snapshot else { return Ok(None) };
        let (snapshot_due, timestamp_due) = self.due(root, now)?;
        if !snapshot_due && !timestamp_due {
            return Ok(None);
        }
        let snapshot = if snapshot_due {
            self.sign_snapshot(snapshot.content.meta.clone(), root, now)?
        } else {
            snapshot.clone()
        };
        let timestamp = self.sign_timestamp(&snapshot, root, now)?;
        Ok(Some(Pair { snapshot, timestamp }))
    }

    /// Makes `pair` and the root that says who signed it current, durably and all at once.
    pub(super) fn keep(&mut self, pair: Pair, root: MetadataVersion) -> Result<(), RepositoryError> {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let Pair { snapshot, timestamp } = pair;
        let kept = Kept { root, snapshot: text(&snapshot.bytes), timestamp: text(&timestamp.bytes) };
        let kept =
            serde_json::to_vec(&kept).map_err(|error| FolderError::Invalid(format!("{KEPT}: {error}")))?;
        write(&self.folder.join(KEPT), &kept)?;
        (self.root, self.snapshot, self.timestamp) = (Some(root), Some(snapshot), Some(timestamp));
        Ok(())
    }

    /// Whether snapshot and timestamp are due: old, or signed by a key that no longer is the one that signs.
    fn due(&self, root: &Root, now: UtcSeconds) -> Result<(bool, bool), RepositoryError> {
        let old = |expires: UtcSeconds, days: i64| expires.0.saturating_sub(now.0) < days * 86_400 / 2;
        let (snapshot_key, timestamp_key) = self.signers.of(root)?;
        let (snapshot_key, timestamp_key) = (Some(name(snapshot_key)), Some(name(timestamp_key)));
        let snapshot = self
            .snapshot
            .as_ref()
            .is_some_and(|file| old(file.content.expires, SNAPSHOT_DAYS) || file.by != snapshot_key);
        // One that an older server's power cut left behind its snapshot, or left out, is due as well.
        let behind = |file: &Timestamp| {
            self.snapshot
                .as_ref()
                .is_some_and(|snapshot| snapshot.content.version != file.meta.snapshot.version)
        };
        let timestamp = self.timestamp.as_ref().is_none_or(|file| {
            old(file.content.expires, TIMESTAMP_DAYS) || file.by != timestamp_key || behind(&file.content)
        });
        Ok((snapshot, timestamp))
    }

    fn sign_snapshot(
        &self,
        meta: BTreeMap<String, FileMeta>,
        root: &Root,
        now: UtcSeconds,
    ) -> Result<Signed<Snapshot>, RepositoryError> {
        let before = self.snapshot.as_ref().map(|snapshot| snapshot.content.version);
        let snapshot = Snapshot {
            kind: "snapshot".into(),
            spec_version: SPEC_VERSION.into(),
            version: following(before, now)?,
            expires: now.plus_days(SNAPSHOT_DAYS),
            meta,
            other: Map::new(),
        };
        signed(&Role::Snapshot, snapshot, self.signers.of(root)?.0)
    }

    fn sign_timestamp(
        &self,
        snapshot: &Signed<Snapshot>,
        root: &Root,
        now: UtcSeconds,
    ) -> Result<Signed<Timestamp>, RepositoryError> {
        let before = self.timestamp.as_ref().map(|timestamp| timestamp.content.version);
        let timestamp = Timestamp {
            kind: "timestamp".into(),
            spec_version: SPEC_VERSION.into(),
            version: following(before, now)?,
            expires: now.plus_days(TIMESTAMP_DAYS),
            meta: TimestampMeta { snapshot: meta(snapshot.content.version, &snapshot.bytes) },
            other: Map::new(),
        };
        signed(&Role::Timestamp, timestamp, self.signers.of(root)?.1)
    }
}

/// The version after `version`: the seconds since 1970, where they are higher. A server that was restored from a
/// backup has forgotten the versions it gave since, and devices refuse to go back.
fn following(version: Option<MetadataVersion>, now: UtcSeconds) -> Result<MetadataVersion, RepositoryError> {
    let next = version.map_or(Some(MetadataVersion::FIRST), MetadataVersion::next);
    let next = next.ok_or_else(|| FolderError::Invalid("no versions left".into()))?;
    let by_clock = u64::try_from(now.0).ok().and_then(NonZeroU64::new).map(MetadataVersion);
    Ok(by_clock.map_or(next, |by_clock| next.max(by_clock)))
}

fn signed<T: Signable>(role: &Role, content: T, key: &SigningKey) -> Result<Signed<T>, RepositoryError> {
    let mut file = Metadata::unsigned(role, content)?;
    file.sign(role, key)?;
    Ok(Signed { bytes: file.to_bytes().into(), content: file.signed, by: Some(name(key)) })
}

fn load<T: Signable>(bytes: &[u8], role: &Role) -> Result<Signed<T>, RepositoryError> {
    let file = Metadata::<T>::parse(role, bytes)?;
    let by = file.signatures.first().map(|signature| signature.keyid.clone());
    Ok(Signed { content: file.signed, bytes: Bytes::copy_from_slice(bytes), by })
}
