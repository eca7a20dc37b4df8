//! The boot record's two copies, written alternately, so that whatever a power cut does to one of them
//! the other is whole. The payload belongs to the update machine; here it is bytes.
//!
//! | bytes | contents |
//! |---|---|
//! | 0..8 | `serinbr` and a zero |
//! | 8..12 | format version, 1 |
//! | 12..20 | generation, from 1 |
//! | 20..24 | length of the payload |
//! | 24.. | payload, then the CRC-32 (ISO-HDLC) of everything before it |
//!
//! All numbers are little-endian.

use std::path::PathBuf;

use serin_protocol::ids::ByteCount;

use super::seam::{FileError, Files, if_there};

/// Largest payload in bytes. The machine's state is under 1 KiB; the bound keeps a corrupt length from
/// meaning anything.
pub const MAX_PAYLOAD_BYTES: usize = 64 * 1024;

const MAGIC: [u8; 8] = *b"serinbr\0";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;
const CHECKSUM_BYTES: usize = 4;
const MAX_COPY_BYTES: usize = HEADER_BYTES + MAX_PAYLOAD_BYTES + CHECKSUM_BYTES;

/// Counts the writes of the boot record; the higher of two is the newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u64);

/// One of the two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyName {
    /// `boot.a`.
    A,
    /// `boot.b`.
    B,
}

impl CopyName {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// Its file name.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::A => "boot.a",
            Self::B => "boot.b",
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// A copy that is there but cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CopyFault {
    /// Its bytes are not a record: torn by a power cut, or damaged.
    #[error("{} is corrupt: {detail}", copy.file_name())]
    Corrupt {
        /// Which copy.
        copy: CopyName,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// The disk does not give its bytes.
    #[error(transparent)]
    Unreadable(FileError),
}

/// What was found when the store was opened.
#[derive(Debug)]
pub struct Loaded {
    /// The newest valid record; none on a fresh device, or when every copy is corrupt.
    pub record: Option<(Generation, Vec<u8>)>,
    /// Copies that are there but useless; to be reported. One torn copy is what a power cut leaves.
    pub faults: Vec<CopyFault>,
}

impl Loaded {
    /// Whether every copy that is there could be read: one that was torn is what a power cut leaves, but one
    /// that the disk does not give may be the newer.
    pub fn is_readable(&self) -> bool {
        !self.faults.iter().any(|fault| matches!(fault, CopyFault::Unreadable(_)))
    }

    /// Whether nothing was ever saved here, as opposed to lost.
    pub fn is_fresh(&self) -> bool {
        self.record.is_none() && self.faults.is_empty()
    }
}

/// The boot record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The disk failed. Nothing valid was destroyed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The payload is too large to be written.
    #[error("a boot record of {actual} bytes, at most {MAX_PAYLOAD_BYTES} are allowed")]
    TooLarge {
        /// Its size.
        actual: usize,
    },
}

/// The two copies of the boot record in one directory.
#[derive(Debug)]
pub struct BootStore {
    files: Files,
    dir: PathBuf,
    /// The copy that must not be overwritten, because it is the newest that is surely valid.
    keep: Option<CopyName>,
    /// The highest generation that may be on disk.
    highest: u64,
    /// Copies whose names are known to be durable: at most both.
    named: Vec<CopyName>,
}

impl BootStore {
    /// Opens the store in the directory `dir`, creating that if needed, and loads the newest record.
    ///
    /// Corrupt copies are answers, not errors. An error means that no copy is valid and at least one
    /// could not be read: the record may be intact, so it must not be begun anew.
    pub fn open(files: Files, dir: PathBuf) -> Result<(Self, Loaded), BootError> {
        files.keep_dir(&dir)?;
        let mut store = Self { files, dir, keep: None, highest: 0, named: Vec::new() };
        let loaded = store.load()?;
        Ok((store, loaded))
    }

    fn load(&mut self) -> Result<Loaded, BootError> {
        let mut newest: Option<(CopyName, Generation, Vec<u8>)> = None;
        let mut faults = Vec::new();
        for copy in CopyName::BOTH {
            match self.read(copy) {
                Ok(None) => {}
                Ok(Some((generation, payload))) => {
                    if newest.as_ref().is_none_or(|(_, best, _)| generation > *best) {
                        newest = Some((copy, generation, payload));
                    }
                }
                Err(fault) => faults.push(fault),
            }
        }
        let Some((copy, generation, payload)) = newest else {
            let unreadable = faults.iter().position(|fault| matches!(fault, CopyFault::Unreadable(_)));
            if let Some(CopyFault::Unreadable(error)) = unreadable.map(|at| faults.swap_remove(at)) {
                return Err(BootError::File(error));
            }
            return Ok(Loaded { record: None, faults });
        };
        self.keep = Some(copy);
        self.highest = self.highest.max(generation.0);
        Ok(Loaded { record: Some((generation, payload)), faults })
    }

    /// Writes `payload` durably over the older copy.
    ///
    /// After an error the previous record is still whole; the next load gives either of the two, and
    /// the next save supersedes both.
    pub fn save(&mut self, payload: &[u8]) -> Result<Generation, BootError> {
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(BootError::TooLarge { actual: payload.len() });
        }
        let copy = self.keep.map_or(CopyName::A, CopyName::other);
        // Counted before the write: a failed one may still have reached the disk.
        self.highest += 1;
        let generation = Generation(self.highest);
        let bytes = encode(generation, payload);
        let size = ByteCount(bytes.len() as u64);
        let file = self.files.open_or_create(&self.dir.join(copy.file_name()))?;
        // In place: a file that keeps its blocks and size is durable without a commit of the whole file system,
        // which waits for whatever else is being written. Torn, it is told by length or checksum.
        file.write_at(0, &bytes)?;
        if file.size()? != size {
            file.resize(size)?;
        }
        file.sync()?;
        if !self.named.contains(&copy) {
            self.files.sync_dir(&self.dir)?;
            self.named.push(copy);
        }
        self.keep = Some(copy);
        Ok(generation)
    }

    fn read(&self, copy: CopyName) -> Result<Option<(Generation, Vec<u8>)>, CopyFault> {
        let path = self.dir.join(copy.file_name());
        let bytes =
            if_there(self.files.read_at_most(&path, MAX_COPY_BYTES)).map_err(CopyFault::Unreadable)?;
        bytes.map(|bytes| decode(&bytes).map_err(|detail| CopyFault::Corrupt { copy, detail })).transpose()
    }
}

fn encode(generation: Generation, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len() + CHECKSUM_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(generation.0.to_le_bytes());
    // At most MAX_PAYLOAD_BYTES.
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(payload);
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Result<(Generation, Vec<u8>), &'static str> {
    let (covered, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or("it is cut off")?;
    let (magic, rest) = covered.split_first_chunk::<8>().ok_or("it is cut off")?;
    if *magic != MAGIC {
        return Err("it does not begin as a boot record");
    }
    let (version, rest) = rest.split_first_chunk::<4>().ok_or("it is cut off")?;
    let (generation, rest) = rest.split_first_chunk::<8>().ok_or("it is cut off")?;
    let (length, payload) = rest.split_first_chunk::<4>().ok_or("it is cut off")?;
    if u32::from_le_bytes(*length) as usize != payload.len() || payload.len() > MAX_PAYLOAD_BYTES {
        return Err("its length is wrong");
    }
    if crc32fast::hash(covered) != u32::from_le_bytes(*checksum) {
        return Err("its checksum is wrong");
    }
    // After the checksum, so that a flipped bit is not taken for a later version.
    if u32::from_le_bytes(*version) != VERSION {
        return Err("it has a format version that this agent does not read");
    }
    Ok((Generation(u64::from_le_bytes(*generation)), payload.to_vec()))
}

#[cfg(test)]
#[path = "boot_record_tests.rs"]
mod tests;
