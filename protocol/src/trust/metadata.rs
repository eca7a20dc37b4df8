//! Root, timestamp, snapshot and targets as types (specification, section 4). Fields this program does
//! not know are kept, because they are part of what is signed.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256, Sha512};

use super::delegation::Delegations;
use super::key::{Key, KeyName};
use super::time::UtcSeconds;
use crate::ids::Digest;

/// Version of a metadata file; the first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MetadataVersion(pub NonZeroU64);

impl MetadataVersion {
    /// The first version.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// The version that follows; none after 2⁶⁴ − 1.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for MetadataVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Whose metadata: one of the four top-level roles, or a role that `targets` delegates to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Keys of all top-level roles.
    Root,
    /// Which snapshot is current.
    Timestamp,
    /// Which targets metadata is current.
    Snapshot,
    /// Targets, and who else may speak for which.
    Targets,
    /// A delegated targets role.
    Delegated(String),
}

impl Role {
    /// The role's name, which is its file's name without version and `.json`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Root => "root",
            Self::Timestamp => "timestamp",
            Self::Snapshot => "snapshot",
            Self::Targets => "targets",
            Self::Delegated(name) => name,
        }
    }

    /// The role of this name.
    pub fn named(name: &str) -> Self {
        match name {
            "root" => Self::Root,
            "timestamp" => Self::Timestamp,
            "snapshot" => Self::Snapshot,
            "targets" => Self::Targets,
            other => Self::Delegated(other.into()),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the four kinds of metadata have in common.
pub trait Signable: Clone + Serialize + for<'de> Deserialize<'de> {
    /// The value of `_type`.
    const TYPE: &'static str;
    /// The version.
    fn version(&self) -> MetadataVersion;
    /// When it is no longer valid.
    fn expires(&self) -> UtcSeconds;
}

macro_rules! signable {
    ($type:ident, $name:literal) => {
        impl Signable for $type {
            const TYPE: &'static str = $name;
            fn version(&self) -> MetadataVersion {
                self.version
            }
            fn expires(&self) -> UtcSeconds {
                self.expires
            }
        }
    };
}

signable!(Root, "root");
signable!(Timestamp, "timestamp");
signable!(Snapshot, "snapshot");
signable!(Targets, "targets");

/// The keys of one role and how many of them must sign.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoleKeys {
    /// Names of the keys.
    pub keyids: Vec<KeyName>,
    /// Distinct keys that must sign, at least 1.
    pub threshold: core::num::NonZeroU32,
    /// Fields this program does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Keys of the top-level roles (section 4.3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Root {
    /// Always `root`.
    #[serde(rename = "_type")]
    pub kind: String,
    /// Specification version, `1.0.x`.
    pub spec_version: String,
    /// Version of this file.
    pub version: MetadataVersion,
    /// When it is no longer valid.
    pub expires: UtcSeconds,
    /// Whether file names carry versions, so that a repository can change while it is read.
    #[serde(default)]
    pub consistent_snapshot: bool,
    /// All keys by name.
    pub keys: BTreeMap<KeyName, Key>,
    /// Keys of each top-level role.
    pub roles: TopLevelRoles,
    /// Fields this program does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The four roles of a root; others are kept and mean nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopLevelRoles {
    /// Who signs root.
    pub root: RoleKeys,
    /// Who signs timestamp.
    pub timestamp: RoleKeys,
    /// Who signs snapshot.
    pub snapshot: RoleKeys,
    /// Who signs targets.
    pub targets: RoleKeys,
    /// Others.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Version and optionally size and hashes of a metadata file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileMeta {
    /// Its version.
    pub version: MetadataVersion,
    /// Its size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Its hashes by algorithm, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hashes: Option<BTreeMap<String, String>>,
    /// Fields this program does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Which snapshot is current (section 4.6).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timestamp {
    /// Always `timestamp`.
    #[serde(rename = "_type")]
    pub kind: String,
    /// Specification version, `1.0.x`.
    pub spec_version: String,
    /// Version of this file.
    pub version: MetadataVersion,
    /// When it is no longer valid.
    pub expires: UtcSeconds,
    /// The snapshot.
    pub meta: TimestampMeta,
    /// Fields this program does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The one file a timestamp names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimestampMeta {
    /// The current snapshot.
    #[serde(rename = "snapshot.json")]
    pub snapshot: FileMeta,
}

/// Which targets metadata is current (section 4.4).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Always `snapshot`.
    #[serde(rename = "_type")]
    pub kind: String,
    /// Specification version, `1.0.x`.
    pub spec_version: String,
    /// Version of this file.
    pub version: MetadataVersion,
    /// When it is no longer valid.
    pub expires: UtcSeconds,
    /// Targets metadata by file name, `<role>.json`.
    pub meta: BTreeMap<String, FileMeta>,
    /// Fields this program does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Targets, and who else may speak for which (section 4.5).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Targets {
    /// Always `targets`.
    #[serde(rename = "_type")]
    pub kind: String,
    /// Specification version, `1.0.x`.
    pub spec_version: String,
    /// Version of this file.
    pub version: MetadataVersion,
    /// When it is no longer valid.
    pub expires: UtcSeconds,
    /// Targets by path.
    pub targets: BTreeMap<String, TargetFile>,
    /// Who else may speak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegations: Option<Delegations>,
    /// Lowest serial of a model's releases that may still be installed, by model: the owner's word
    /// against rolling devices back to releases with known faults. Empty when there is none.
    #[serde(default, rename = "x-serin-floor", skip_serializing_if = "BTreeMap::is_empty")]
    pub floor: BTreeMap<String, Serial>,
    /// Fields this program does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The place of a release in the order in which its owner made them, from 1. Versions are names and have
/// no order; this has. Zero stands for a target without a serial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Serial(pub u64);

impl Serial {
    /// The next one, saturating.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Where a serial stands in a target's `custom`.
const SERIAL: &str = "x-serin-serial";

/// Size and hashes of a target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetFile {
    /// Its size in bytes.
    pub length: u64,
    /// Its hashes by algorithm, in hexadecimal; at least one.
    pub hashes: BTreeMap<String, String>,
    /// Fields this program does not know, among them `custom`.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Compares `bytes` with hashes by algorithm; the text says what differs. A hash of an unknown kind is a
/// difference: it cannot be checked.
pub fn check_hashes(hashes: &BTreeMap<String, String>, bytes: &[u8]) -> Result<(), String> {
    if hashes.is_empty() {
        return Err("no hash is given".into());
    }
    hashes.iter().try_for_each(|(algorithm, expected)| {
        let equal = match algorithm.as_str() {
            "sha256" => hex_equals(&Sha256::digest(bytes), expected),
            "sha512" => hex_equals(&Sha512::digest(bytes), expected),
            _ => return Err(alloc::format!("hash {algorithm} is not supported")),
        };
        if equal { Ok(()) } else { Err(alloc::format!("its {algorithm} differs")) }
    })
}

fn hex_equals(hash: &[u8], text: &str) -> bool {
    text.len() == hash.len() * 2
        && hash.iter().zip(text.as_bytes().chunks_exact(2)).all(|(byte, pair)| match pair {
            [high, low] => {
                let digit = |digit: u8| char::from(digit).to_digit(16);
                digit(*high).zip(digit(*low)).is_some_and(|(high, low)| high << 4 | low == u32::from(*byte))
            }
            _ => false,
        })
}

impl TargetFile {
    /// The target that has these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::sized(bytes.len() as u64, Digest::of(bytes))
    }

    /// The target of this length and SHA-256.
    pub fn sized(length: u64, digest: Digest) -> Self {
        let hashes = [("sha256".into(), alloc::format!("{digest}"))].into();
        Self { length, hashes, other: Map::new() }
    }

    /// The same with this serial.
    #[must_use]
    pub fn with_serial(mut self, serial: Serial) -> Self {
        let custom = self.other.entry("custom").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(custom) = custom {
            custom.insert(SERIAL.into(), serial.0.into());
        }
        self
    }

    /// Its serial; zero when it has none.
    pub fn serial(&self) -> Serial {
        let custom = self.other.get("custom").and_then(|custom| custom.get(SERIAL));
        Serial(custom.and_then(Value::as_u64).unwrap_or_default())
    }

    /// Its SHA-256, when that is among its hashes.
    pub fn sha256(&self) -> Option<Digest> {
        self.hashes.get("sha256")?.parse().ok()
    }

    /// Whether `bytes` are this target; the text says what differs.
    pub fn check(&self, bytes: &[u8]) -> Result<(), String> {
        if bytes.len() as u64 != self.length {
            return Err(alloc::format!("{} bytes instead of {}", bytes.len(), self.length));
        }
        check_hashes(&self.hashes, bytes)
    }
}
