//! What was fetched today, on disk: one small checksummed file, written anew beside and renamed.

use std::path::{Path, PathBuf};

use super::seam::{FileError, Files, if_there};
use crate::update::policy::budget::Stored;

/// Written first; another value is another program's file.
const FORMAT: u8 = 1;
/// Larger than every count encodes to.
const MAX_BYTES: usize = 64;
const NAME: &str = "fetched.today";
const CHECKSUM_BYTES: usize = 4;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing was ever written.
    Nothing,
    /// A count.
    Count(Stored),
    /// Not a count: the disk has damaged it.
    Damaged,
}

/// The file.
#[derive(Clone, Debug)]
pub struct SpentFile {
    files: Files,
    folder: PathBuf,
}

impl SpentFile {
    /// The one in the state directory `dir`.
    pub fn new(files: Files, dir: &Path) -> Self {
        Self { files, folder: dir.into() }
    }

    /// Reads it.
    pub fn read(&self) -> Result<Found, FileError> {
        let bytes = if_there(self.files.read_at_most(&self.folder.join(NAME), MAX_BYTES))?;
        Ok(bytes.map_or(Found::Nothing, |bytes| decode(&bytes).map_or(Found::Damaged, Found::Count)))
    }

    /// Writes it durably.
    pub fn write(&self, count: Stored) -> Result<(), FileError> {
        self.files.replace(&self.folder, NAME, &encode(count))
    }
}

fn encode(count: Stored) -> Vec<u8> {
    // Three numbers always encode.
    let mut bytes = postcard::to_allocvec(&(FORMAT, count)).unwrap_or_default();
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Stored> {
    let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    if crc32fast::hash(body).to_le_bytes() != *checksum {
        return None;
    }
    let ((format, count), rest) = postcard::take_from_bytes::<(u8, Stored)>(body).ok()?;
    (format == FORMAT && rest.is_empty()).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serin_protocol::ids::ByteCount;

    #[test]
    fn a_count_survives_and_damage_is_noticed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = SpentFile::new(Files::real(), dir.path());
        assert_eq!(file.read().expect("read"), Found::Nothing);
        let count = Stored { day: 20_784, spent: ByteCount(u64::MAX) };
        file.write(count).expect("written");
        assert_eq!(file.read().expect("read"), Found::Count(count));
        let mut bytes = std::fs::read(dir.path().join("fetched.today")).expect("there");
        bytes[1] ^= 1;
        std::fs::write(dir.path().join("fetched.today"), bytes).expect("damaged");
        assert_eq!(file.read().expect("read"), Found::Damaged);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_count_or_damage(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
