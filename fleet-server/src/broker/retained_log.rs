//! The retained messages on disk: an append-only log of small records, rewritten when it has grown to
//! mostly history and at every start.
//!
//! ```text
//! file   = record*
//! record = length u32 LE · first 8 bytes of SHA-256 of the body · body (postcard)
//! ```
//!
//! A record reaches the operating system before its publisher is acknowledged, so nothing is lost with the
//! process. It reaches the disk at the next [`Log::sync`]; a power cut may take what came after that, and
//! leave a torn record, at which reading stops.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serin_protocol::chunk::ChunkSet;
use serin_protocol::ids::Digest;

/// Largest body in bytes: the largest retained payload (256 KiB of metadata), its topic, and room.
const MAX_BODY_BYTES: usize = 320 * 1024;

/// Length and check sum.
const HEAD_BYTES: usize = 4 + CHECK_BYTES;
const CHECK_BYTES: usize = 8;

/// One change of what is retained.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Record<'a> {
    /// A message is retained in place of any earlier one.
    Keep { topic: &'a str, qos: u8, payload: &'a [u8] },
    /// Nothing is retained on the topic any more.
    Forget { topic: &'a str },
    /// One chunk may be had.
    Offer { object: Digest, index: u32 },
    /// One chunk may not be had any more.
    Withdraw { object: Digest, index: u32 },
    /// These chunks may be had, and no others of the object.
    Offers { object: Digest, chunks: Box<ChunkSet> },
}

/// Why the log could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file or its folder could not be used.
    #[error("{action} {}", path.display())]
    Disk {
        /// What was attempted.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A record is larger than any retained message can be.
    #[error("a record of {0} bytes, at most {MAX_BODY_BYTES} are allowed")]
    TooLarge(usize),
    /// An earlier write failed half-way and could not be undone; restarting repairs the file.
    #[error("{} ends in a half-written record", .0.display())]
    Broken(PathBuf),
}

/// What reading a log found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Replayed {
    /// Bytes of whole records.
    pub(super) bytes: u64,
    /// Bytes after them that are no record.
    pub(super) damaged: u64,
}

/// Reads the log at `path`, oldest record first. A missing file is an empty log.
pub(super) fn replay(path: &Path, mut each: impl FnMut(Record<'_>)) -> Result<Replayed, LogError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Replayed::default()),
        Err(error) => return Err(disk("opening", path)(error)),
    };
    let size = file.metadata().map_err(disk("reading", path))?.len();
    let mut reader = BufReader::new(file);
    let mut bytes = 0;
    let mut body = Vec::new();
    while read_body(&mut reader, &mut body).map_err(disk("reading", path))? {
        let Ok(record) = postcard::from_bytes(&body) else {
            break;
        };
        each(record);
        bytes += (HEAD_BYTES + body.len()) as u64;
    }
    Ok(Replayed { bytes, damaged: size.saturating_sub(bytes) })
}

/// Reads the next body; false at the end or at the first thing that is no record.
fn read_body(reader: &mut impl Read, body: &mut Vec<u8>) -> io::Result<bool> {
    let mut length = [0; 4];
    let mut check = [0; CHECK_BYTES];
    if !read_exact(reader, &mut length)? || !read_exact(reader, &mut check)? {
        return Ok(false);
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_BODY_BYTES {
        return Ok(false);
    }
    body.resize(length, 0);
    Ok(read_exact(reader, body)? && check_of(body) == check)
}

/// False when the source ends before `bytes` is full.
fn read_exact(reader: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The open log.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    path: PathBuf,
    length: u64,
    unsynced: bool,
    broken: bool,
}

impl Log {
    /// Replaces whatever is at `path` by these records, durably, and continues behind them.
    pub(super) fn rewrite<'a>(
        path: &Path,
        records: impl IntoIterator<Item = Record<'a>>,
    ) -> Result<Self, LogError> {
        let fresh = path.with_extension("new");
        let file = File::create(&fresh).map_err(disk("creating", &fresh))?;
        let mut writer = BufWriter::new(file);
        let mut length = 0;
        for record in records {
            let bytes = encode(&record)?;
            writer.write_all(&bytes).map_err(disk("writing", &fresh))?;
            length += bytes.len() as u64;
        }
        let file = writer.into_inner().map_err(|error| disk("writing", &fresh)(error.into_error()))?;
        file.sync_all().map_err(disk("writing", &fresh))?;
        fs::rename(&fresh, path).map_err(disk("renaming to", path))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        File::open(folder).and_then(|handle| handle.sync_all()).map_err(disk("writing", folder))?;
        let file = OpenOptions::new().append(true).open(path).map_err(disk("opening", path))?;
        Ok(Self { file, path: path.to_owned(), length, unsynced: false, broken: false })
    }

    /// Appends `record`. A failed write leaves no trace.
    pub(super) fn append(&mut self, record: &Record<'_>) -> Result<(), LogError> {
        if self.broken {
            return Err(LogError::Broken(self.path.clone()));
        }
        let bytes = encode(record)?;
        if let Err(error) = self.file.write_all(&bytes) {
            // Records after a torn one would be unreadable, so the torn one must go.
            self.broken = self.file.set_len(self.length).is_err();
            return Err(disk("writing", &self.path)(error));
        }
        self.length += bytes.len() as u64;
        self.unsynced = true;
        Ok(())
    }

    /// Brings everything appended so far to the disk.
    pub(super) fn sync(&mut self) -> Result<(), LogError> {
        if self.unsynced {
            self.file.sync_data().map_err(disk("writing", &self.path))?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// Length of the file in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }
}

fn encode(record: &Record<'_>) -> Result<Vec<u8>, LogError> {
    // postcard into a growing buffer fails on nothing but what is not serialisable at all.
    let mut bytes = postcard::to_extend(record, vec![0; HEAD_BYTES]).map_err(|_| LogError::TooLarge(0))?;
    let (head, body) = bytes.split_at_mut(HEAD_BYTES);
    if body.len() > MAX_BODY_BYTES {
        return Err(LogError::TooLarge(body.len()));
    }
    let (length, check) = head.split_at_mut(4);
    length.copy_from_slice(&(body.len() as u32).to_le_bytes());
    check.copy_from_slice(&check_of(body));
    Ok(bytes)
}

fn check_of(body: &[u8]) -> [u8; CHECK_BYTES] {
    let digest = Digest::of(body).0;
    let mut check = [0; CHECK_BYTES];
    check.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    check
}

fn disk(action: &'static str, path: &Path) -> impl Fn(io::Error) -> LogError {
    move |source| LogError::Disk { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(topic: &'static str) -> Record<'static> {
        Record::Keep { topic, qos: 1, payload: b"payload" }
    }

    fn topics(path: &Path) -> (Vec<String>, Replayed) {
        let mut topics = Vec::new();
        let replayed = replay(path, |record| {
            if let Record::Keep { topic, .. } = record {
                topics.push(topic.to_owned());
            }
        });
        (topics, replayed.expect("readable"))
    }

    #[test]
    fn what_is_appended_is_read_back_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("retained.log");
        assert_eq!(topics(&path), (vec![], Replayed::default()));
        let mut log = Log::rewrite(&path, [keep("a")]).expect("written");
        log.append(&keep("b")).expect("written");
        log.append(&Record::Forget { topic: "a" }).expect("written");
        log.sync().expect("synced");
        let (read, replayed) = topics(&path);
        assert_eq!(read, ["a", "b"]);
        assert_eq!(replayed, Replayed { bytes: log.length(), damaged: 0 });
    }

    #[test]
    fn a_log_cut_anywhere_yields_its_whole_records() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("retained.log");
        let mut log = Log::rewrite(&path, [keep("a")]).expect("written");
        let first = log.length();
        log.append(&keep("b")).expect("written");
        let whole = fs::read(&path).expect("readable");
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).expect("written");
            let expected = usize::from(cut as u64 >= first);
            let (read, replayed) = topics(&path);
            assert_eq!(read.len(), expected, "cut at {cut}");
            assert_eq!(replayed.bytes + replayed.damaged, cut as u64);
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_log_before_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("retained.log");
        let mut log = Log::rewrite(&path, [keep("a")]).expect("written");
        let first = log.length() as usize;
        log.append(&keep("b")).expect("written");
        let whole = fs::read(&path).expect("readable");
        for at in first..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            fs::write(&path, &flipped).expect("written");
            assert_eq!(topics(&path).0, ["a"], "flipped at {at}");
        }
    }
}
