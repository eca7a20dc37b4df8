//! The sled tree under the journal: its keys, how it is opened, and what its errors mean.
//!
//! | key | value |
//! |---|---|
//! | `e` number | sealed event |
//! | `r` key | sealed report |
//! | `h` counter | history entry, postcard |
//! | `m` name | counter |
//!
//! Numbers are 8 bytes, big-endian, so that they sort.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::journal::JournalError;

/// Memory for sled's page cache; the journal is written and read in order, so more would hold nothing
/// that is needed again.
const CACHE_BYTES: u64 = 1 << 20;
/// A sled that was closed lets go of its lock only when its last background task ends, and a stopping agent
/// only when it has stopped: a lock is tried this often, this far apart.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Sled's file in the journal's folder.
pub(super) const LOG: &str = "db";
pub(super) const NEXT_EVENT: &[u8] = b"mnext_event";
pub(super) const NEXT_REPORT: &[u8] = b"mnext_report";
pub(super) const DROPPED_REPORTS: &[u8] = b"mdropped_reports";

/// Opens the tree, waiting a while for another's lock.
pub(super) fn open_sled(path: &Path) -> sled::Result<sled::Db> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .mode(sled::Mode::LowSpace)
        // Flushed explicitly; see the journal's flush policy.
        .flush_every_ms(None);
    let mut tries = 1;
    loop {
        match config.open() {
            // Sled names the lock only in the text.
            Err(sled::Error::Io(error))
                if tries < LOCK_TRIES && error.to_string().contains("acquire lock") =>
            {
                tries += 1;
                std::thread::sleep(LOCK_PAUSE);
            }
            other => return other,
        }
    }
}

pub(super) fn key(kind: u8, number: u64) -> [u8; 9] {
    let mut key = [kind; 9];
    let [_, rest @ ..] = &mut key;
    *rest = number.to_be_bytes();
    key
}

pub(super) fn parse_number(key: &[u8]) -> Result<u64, JournalError> {
    parse_counter(key.get(1..).unwrap_or_default())
}

pub(super) fn parse_counter(bytes: &[u8]) -> Result<u64, JournalError> {
    let bytes = bytes.try_into().map(u64::from_be_bytes);
    bytes.map_err(|_| JournalError::Corrupt("it has a number of the wrong length".into()))
}

/// Tells a damaged journal from a disk that fails.
pub(super) fn classify(error: sled::Error) -> JournalError {
    match error {
        sled::Error::Io(error)
            if !matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) =>
        {
            JournalError::Io(error)
        }
        damage => JournalError::Corrupt(damage.to_string()),
    }
}
