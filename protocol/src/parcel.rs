//! A release with everything a device needs to trust it, in one file: for a device that has no network. What is
//! inside is checked exactly as what comes over the broker; the container itself promises nothing.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `serin-p1`, the format |
//! | 1, n | length and text of the release it claims to hold, `model@version` |
//! | entries | in this order: every root from the first on, timestamp, snapshot, targets, the delegated roles on the way to the release, statement, bundle |
//!
//! An entry:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | kind: 1 root, 2 timestamp, 3 snapshot, 4 targets, 5 delegated role, 6 statement, 7 bundle |
//! | 1, n | only of a delegated role: length and text of its name |
//! | 8 | length of its contents, little-endian, at least 1 |
//! | length | its contents |
//!
//! Nothing follows the bundle. There is one encoding of everything: no names but roles', no padding, no
//! options. Reading is a push parser without I/O that holds one head at most.

use core::fmt;

use crate::chunk::MAX_OBJECT_BYTES;
use crate::ids::ReleaseId;
use crate::release::MAX_STATEMENT_BYTES;
use crate::topic::FileName;
use crate::trust::{Limits, Role};

/// The name of such a file ends so.
pub const EXTENSION: &str = "parcel";
/// The format, with which the file begins.
pub const MAGIC: &[u8; 8] = b"serin-p1";
/// What a bare bundle, a zstd stream, begins with: the mistake to be told by name.
const BUNDLE_MAGIC: &[u8; 4] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Longest text in a head: a length byte says no more.
const MAX_TEXT: usize = u8::MAX as usize;

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The root of this version: the first has version 1.
    Root(u64),
    /// The timestamp.
    Timestamp,
    /// The snapshot.
    Snapshot,
    /// The top-level targets.
    Targets,
    /// A delegated role's targets.
    Delegated(RoleName),
    /// What the owner says about the bundle.
    Statement,
    /// The bundle.
    Bundle,
}

/// Name of a delegated role: fit for a file name, and none of the top-level roles'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleName(FileName);

impl RoleName {
    /// The role of this name; none when its file could not have that name.
    pub fn new(name: &str) -> Option<Self> {
        let plain = FileName::new(name).ok()?;
        matches!(Role::named(name), Role::Delegated(_)).then_some(Self(plain))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl Entry {
    /// Most bytes it may have.
    pub const fn max_bytes(&self) -> u64 {
        match self {
            Self::Root(_) => Limits::DEVICE.root,
            Self::Timestamp => Limits::DEVICE.timestamp,
            Self::Snapshot => Limits::DEVICE.snapshot,
            Self::Targets | Self::Delegated(_) => Limits::DEVICE.targets,
            Self::Statement => MAX_STATEMENT_BYTES as u64,
            Self::Bundle => MAX_OBJECT_BYTES,
        }
    }

    /// The role whose metadata it is, if it is metadata.
    pub fn role(&self) -> Option<Role> {
        match self {
            Self::Root(_) => Some(Role::Root),
            Self::Timestamp => Some(Role::Timestamp),
            Self::Snapshot => Some(Role::Snapshot),
            Self::Targets => Some(Role::Targets),
            Self::Delegated(name) => Some(Role::Delegated(name.as_str().into())),
            Self::Statement | Self::Bundle => None,
        }
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Root(_) => 1,
            Self::Timestamp => 2,
            Self::Snapshot => 3,
            Self::Targets => 4,
            Self::Delegated(_) => 5,
            Self::Statement => 6,
            Self::Bundle => 7,
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(version) => write!(f, "root {version}"),
            Self::Timestamp => f.write_str("the timestamp"),
            Self::Snapshot => f.write_str("the snapshot"),
            Self::Targets => f.write_str("the targets"),
            Self::Delegated(name) => write!(f, "the role {}", name.as_str()),
            Self::Statement => f.write_str("the statement"),
            Self::Bundle => f.write_str("the bundle"),
        }
    }
}

/// A file is no parcel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParcelError {
    /// Something else altogether.
    #[error("this is no file of `serin-fleet release export`")]
    NotAParcel,
    /// The bundle alone.
    #[error("this is a bundle without its metadata, which no device can trust")]
    BareBundle,
    /// Its name of the release is none.
    #[error("the name of the release is malformed")]
    Release,
    /// A kind or a name that is none.
    #[error("what follows {after} is malformed")]
    Malformed {
        /// What it follows.
        after: heapless::String<160>,
    },
    /// Repeated, left out or not at its place.
    #[error("{found} cannot follow {after}")]
    Order {
        /// What was found.
        found: heapless::String<160>,
        /// What it follows.
        after: heapless::String<160>,
    },
    /// Empty, or larger than such an entry may be.
    #[error("{entry} has {size} bytes; 1 to {limit} are allowed")]
    Size {
        /// The entry.
        entry: heapless::String<160>,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// More roots or roles than a device follows.
    #[error("more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u32,
    },
    /// It ends too early.
    #[error("the file is cut off")]
    Truncated,
    /// Something follows.
    #[error("something follows the end of the bundle")]
    Trailing,
}

/// The head of a file that holds `release`. A release's name is far shorter than 255 bytes.
pub fn opening(release: &ReleaseId) -> heapless::Vec<u8, 264> {
    let text = display(release);
    let mut bytes = heapless::Vec::from_iter(*MAGIC);
    // 8 + 1 + 160 at most.
    let _ = bytes.push(text.len() as u8);
    let _ = bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// The head of an entry with `size` bytes of contents.
pub fn head(entry: &Entry, size: u64) -> heapless::Vec<u8, 264> {
    let mut bytes = heapless::Vec::from_iter([entry.kind()]);
    if let Entry::Delegated(name) = entry {
        // At most 128 bytes.
        let _ = bytes.push(name.as_str().len() as u8);
        let _ = bytes.extend_from_slice(name.as_str().as_bytes());
    }
    let _ = bytes.extend_from_slice(&size.to_le_bytes());
    bytes
}

/// What the reader found.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The release that the file claims to hold.
    Release(ReleaseId),
    /// An entry of this size begins.
    Start(Entry, u64),
    /// Its next bytes.
    Data(&'a [u8]),
    /// It is complete.
    End(Entry),
}

#[derive(Clone, Debug)]
enum Place {
    Opening,
    Head,
    Contents { entry: Entry, left: u64 },
    Ended,
}

/// Reads a parcel from bytes in pieces of any size.
#[derive(Debug)]
pub struct ParcelReader {
    place: Place,
    held: heapless::Vec<u8, { MAX_TEXT + 16 }>,
    last: Option<Entry>,
    delegated: u32,
}

impl Default for ParcelReader {
    fn default() -> Self {
        Self { place: Place::Opening, held: heapless::Vec::new(), last: None, delegated: 0 }
    }
}

impl ParcelReader {
    /// Takes from the front of `input` until something is found; `None` when all of `input` is used up and
    /// more is needed.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, ParcelError> {
        match &mut self.place {
            Place::Opening => Ok(self.opening(input)?.map(|release| {
                self.place = Place::Head;
                Piece::Release(release)
            })),
            Place::Head => {
                let Some((entry, size)) = self.head(input)? else { return Ok(None) };
                self.place = Place::Contents { entry: entry.clone(), left: size };
                Ok(Some(Piece::Start(entry, size)))
            }
            Place::Contents { entry, left: 0 } => {
                let entry = entry.clone();
                self.place = if entry == Entry::Bundle { Place::Ended } else { Place::Head };
                self.last = Some(entry.clone());
                Ok(Some(Piece::End(entry)))
            }
            Place::Contents { left, .. } => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                let (data, rest) = input.split_at(most);
                *input = rest;
                *left -= data.len() as u64;
                Ok((!data.is_empty()).then_some(Piece::Data(data)))
            }
            Place::Ended if input.is_empty() => Ok(None),
            Place::Ended => Err(ParcelError::Trailing),
        }
    }

    /// Whether the file is complete; call it when there are no more bytes.
    pub fn finish(&self) -> Result<(), ParcelError> {
        match self.place {
            Place::Ended => Ok(()),
            Place::Opening | Place::Head | Place::Contents { .. } => Err(ParcelError::Truncated),
        }
    }

    /// Fills what is held up to `length` bytes; whether it is full.
    fn hold(&mut self, input: &mut &[u8], length: usize) -> bool {
        let missing = length.saturating_sub(self.held.len());
        let (taken, rest) = input.split_at(missing.min(input.len()));
        *input = rest;
        // At most what was missing, and no head is longer than there is room for.
        let _ = self.held.extend_from_slice(taken);
        self.held.len() >= length
    }

    /// The text after the length byte at `at`, once it is held.
    fn text(&mut self, input: &mut &[u8], at: usize) -> Option<usize> {
        if !self.hold(input, at + 1) {
            return None;
        }
        let length = usize::from(self.held.get(at).copied().unwrap_or_default());
        self.hold(input, at + 1 + length).then_some(at + 1 + length)
    }

    fn held_text(&self, from: usize, to: usize) -> Option<&str> {
        core::str::from_utf8(self.held.get(from..to)?).ok()
    }

    fn opening(&mut self, input: &mut &[u8]) -> Result<Option<ReleaseId>, ParcelError> {
        let whole = self.hold(input, MAGIC.len());
        if self.held.len() < BUNDLE_MAGIC.len() {
            return Ok(None);
        }
        if self.held.starts_with(BUNDLE_MAGIC) {
            return Err(ParcelError::BareBundle);
        }
        if !MAGIC.starts_with(self.held.get(..self.held.len().min(MAGIC.len())).unwrap_or_default()) {
            return Err(ParcelError::NotAParcel);
        }
        if !whole {
            return Ok(None);
        }
        let Some(end) = self.text(input, MAGIC.len()) else { return Ok(None) };
        let release: Option<ReleaseId> =
            self.held_text(MAGIC.len() + 1, end).and_then(|text| text.parse().ok());
        self.held.clear();
        release.map(Some).ok_or(ParcelError::Release)
    }

    fn head(&mut self, input: &mut &[u8]) -> Result<Option<(Entry, u64)>, ParcelError> {
        if !self.hold(input, 1) {
            return Ok(None);
        }
        let malformed = || ParcelError::Malformed { after: self.after() };
        let (entry, at) = match self.held.first().copied() {
            Some(1) => (Entry::Root(self.next_root()), 1),
            Some(2) => (Entry::Timestamp, 1),
            Some(3) => (Entry::Snapshot, 1),
            Some(4) => (Entry::Targets, 1),
            Some(5) => {
                let Some(end) = self.text(input, 1) else { return Ok(None) };
                let malformed = || ParcelError::Malformed { after: self.after() };
                let name = self.held_text(2, end).and_then(RoleName::new).ok_or_else(malformed)?;
                (Entry::Delegated(name), end)
            }
            Some(6) => (Entry::Statement, 1),
            Some(7) => (Entry::Bundle, 1),
            Some(_) | None => return Err(malformed()),
        };
        self.check_order(&entry)?;
        if !self.hold(input, at + 8) {
            return Ok(None);
        }
        let size = self.held.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        let size = u64::from_le_bytes(size.unwrap_or_default());
        self.held.clear();
        let limit = entry.max_bytes();
        if size == 0 || size > limit {
            return Err(ParcelError::Size { entry: display(&entry), size, limit });
        }
        if matches!(entry, Entry::Delegated(_)) {
            self.delegated += 1;
        }
        Ok(Some((entry, size)))
    }

    const fn next_root(&self) -> u64 {
        if let Some(Entry::Root(version)) = self.last { version + 1 } else { 1 }
    }

    fn check_order(&self, found: &Entry) -> Result<(), ParcelError> {
        let fits = match (&self.last, found) {
            (None | Some(Entry::Root(_)), Entry::Root(version)) => {
                let limit = Limits::DEVICE.roots;
                if *version > u64::from(limit) {
                    return Err(ParcelError::TooMany { what: "roots", limit });
                }
                true
            }
            (Some(Entry::Targets | Entry::Delegated(_)), Entry::Delegated(_)) => {
                let limit = Limits::DEVICE.delegations;
                if self.delegated >= limit {
                    return Err(ParcelError::TooMany { what: "delegated roles", limit });
                }
                self.last.as_ref() != Some(found)
            }
            (Some(Entry::Root(_)), Entry::Timestamp)
            | (Some(Entry::Timestamp), Entry::Snapshot)
            | (Some(Entry::Snapshot), Entry::Targets)
            | (Some(Entry::Targets | Entry::Delegated(_)), Entry::Statement)
            | (Some(Entry::Statement), Entry::Bundle) => true,
            (
                _,
                Entry::Root(_)
                | Entry::Timestamp
                | Entry::Snapshot
                | Entry::Targets
                | Entry::Delegated(_)
                | Entry::Statement
                | Entry::Bundle,
            ) => false,
        };
        if fits {
            return Ok(());
        }
        Err(ParcelError::Order { found: display(found), after: self.after() })
    }

    fn after(&self) -> heapless::String<160> {
        self.last.as_ref().map_or_else(|| display(&"the beginning"), |last| display(last))
    }
}

/// The text, which is at most a role's name with a word before it.
fn display(what: &dyn fmt::Display) -> heapless::String<160> {
    let mut text = heapless::String::new();
    let _ = fmt::Write::write_fmt(&mut text, format_args!("{what}"));
    text
}

#[cfg(test)]
#[path = "parcel_tests.rs"]
mod tests;
