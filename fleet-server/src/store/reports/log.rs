//! A log of records in files of bounded size: appended at the end, read at their place, given back file by file. What
//! was appended is durable after [`Log::sync`]; a power cut may tear what came later, and that is cut off at the next
//! opening.
//!
//! ```text
//! file   = record*
//! record = length u32 LE · CRC-32 of the body u32 LE · body
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write as _};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::warn;

use super::super::StoreError;

/// A file that has grown to this is followed by another, in bytes: small enough that one is soon empty again, or is
/// copied in a moment.
pub(super) const FILE_BYTES: u32 = 32 * 1024 * 1024;

/// Largest body in bytes: all reports of one device about one release of the widest model with every segment.
const MAX_BODY_BYTES: u32 = 64 * 1024 * 1024;

/// What waits to be written is written when it reaches this, in bytes, or earlier when somebody reads or syncs.
const WAITING_BYTES: usize = 1024 * 1024;

/// Garbage that is let be, beside as many bytes as are live, in files: what goes on needs some.
const SPARED_FILES: u64 = 2;

const HEAD_BYTES: usize = 8;

/// Where a record is. Later records have larger places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) file: u32,
    pub(super) offset: u32,
    length: u32,
}

impl Place {
    /// Bytes that the record takes.
    const fn bytes(self) -> u64 {
        HEAD_BYTES as u64 + self.length as u64
    }
}

/// The open log.
pub(super) struct Log {
    folder: PathBuf,
    /// See [`FILE_BYTES`].
    file_bytes: u32,
    files: BTreeMap<u32, LogFile>,
    /// Behind what is written of the last file.
    waiting: Vec<u8>,
    unsynced: bool,
    /// A write failed half-way; opening the log anew mends it.
    broken: bool,
}

struct LogFile {
    handle: Arc<File>,
    /// With what waits.
    length: u64,
    /// Bytes of records that are still meant.
    live: u64,
}

impl Log {
    /// Opens the log in `folder`, of files of `file_bytes`, telling `each` record in order. A file that is damaged counts
    /// up to the damage.
    pub(super) fn open(
        folder: &Path,
        file_bytes: u32,
        mut each: impl FnMut(Place, &[u8]),
    ) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(failed("creating", folder))?;
        let mut numbers: Vec<u32> = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed("reading", folder))? {
            let name = entry.map_err(failed("reading", folder))?.file_name();
            numbers.extend(name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<u32>().ok()));
        }
        numbers.sort_unstable();
        let mut files = BTreeMap::new();
        for number in &numbers {
            let path = path_of(folder, *number);
            let handle = OpenOptions::new().read(true).append(true).open(&path);
            let handle = handle.map_err(failed("opening", &path))?;
            let whole = replay(&handle, *number, &mut each).map_err(failed("reading", &path))?;
            let size = handle.metadata().map_err(failed("reading", &path))?.len();
            if size > whole {
                warn!(path = %path.display(), lost = size - whole, "reports after the last whole one are cut off");
                handle.set_len(whole).map_err(failed("cutting", &path))?;
            }
            files.insert(*number, LogFile { handle: Arc::new(handle), length: whole, live: 0 });
        }
        Ok(Self {
            folder: folder.to_owned(),
            file_bytes,
            files,
            waiting: Vec::new(),
            // Whoever wrote what is there may not have synced it.
            unsynced: true,
            broken: false,
        })
    }

    /// Appends what `body` writes. It is live.
    pub(super) fn append(&mut self, body: impl FnOnce(&mut Vec<u8>)) -> Result<Place, StoreError> {
        let full =
            self.files.last_key_value().is_none_or(|(_, file)| file.length >= u64::from(self.file_bytes));
        if full {
            self.next_file()?;
        }
        let begin = self.waiting.len();
        self.waiting.extend([0; HEAD_BYTES]);
        body(&mut self.waiting);
        let written = self.waiting.get_mut(begin..).and_then(<[u8]>::split_first_chunk_mut::<HEAD_BYTES>);
        let (Some((head, body)), Some(mut last)) = (written, self.files.last_entry()) else {
            return Err(StoreError::Failed("the log of reports has no file".into()));
        };
        let length = u32::try_from(body.len()).ok().filter(|length| *length <= MAX_BODY_BYTES);
        let Some(length) = length else {
            self.waiting.truncate(begin);
            return Err(StoreError::Failed("a record of reports is too large".into()));
        };
        let (of_length, of_check) = head.split_at_mut(4);
        of_length.copy_from_slice(&length.to_le_bytes());
        of_check.copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        let file = *last.key();
        let last = last.get_mut();
        // A file grows beyond its size by one record at most.
        let offset = u32::try_from(last.length).unwrap_or(u32::MAX);
        let place = Place { file, offset, length };
        last.length += place.bytes();
        last.live += place.bytes();
        self.unsynced = true;
        if self.waiting.len() >= WAITING_BYTES {
            self.write()?;
        }
        Ok(place)
    }

    /// Notes that a record found at opening is meant.
    pub(super) fn is_live(&mut self, place: Place) {
        if let Some(file) = self.files.get_mut(&place.file) {
            file.live = file.live.saturating_add(place.bytes());
        }
    }

    /// Notes that a record is meant no more.
    pub(super) fn is_dead(&mut self, place: Place) {
        if let Some(file) = self.files.get_mut(&place.file) {
            file.live = file.live.saturating_sub(place.bytes());
        }
    }

    /// Makes everything so far durable.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        self.write()?;
        if self.unsynced
            && let Some((number, last)) = self.files.last_key_value()
        {
            last.handle.sync_data().map_err(failed("syncing", &path_of(&self.folder, *number)))?;
        }
        self.unsynced = false;
        Ok(())
    }

    /// Reads what has been appended so far, also while the log goes on and gives files back.
    pub(super) fn reader(&mut self) -> Result<Reader, StoreError> {
        self.write()?;
        let files = self.files.iter().map(|(number, file)| (*number, Arc::clone(&file.handle)));
        Ok(Reader { folder: self.folder.clone(), files: files.collect() })
    }

    /// Files of which nothing is meant any more; never the last one.
    pub(super) fn empty(&self) -> Vec<u32> {
        let sealed = self.files.iter().rev().skip(1);
        sealed.filter(|(_, file)| file.live == 0).map(|(number, _)| *number).collect()
    }

    /// The number of the first file.
    pub(super) fn oldest(&self) -> u32 {
        self.files.first_key_value().map_or(0, |(number, _)| *number)
    }

    /// The file that is emptied with the least copying, when there is more garbage than may be.
    pub(super) fn wasteful(&self) -> Option<u32> {
        let total: u64 = self.files.values().map(|file| file.length).sum();
        let live: u64 = self.files.values().map(|file| file.live).sum();
        if total <= live.saturating_mul(2).saturating_add(SPARED_FILES * u64::from(self.file_bytes)) {
            return None;
        }
        let sealed = self.files.iter().rev().skip(1);
        sealed.min_by_key(|(_, file)| file.live).map(|(number, _)| *number)
    }

    /// Gives a file back.
    pub(super) fn remove(&mut self, number: u32) -> Result<(), StoreError> {
        let path = path_of(&self.folder, number);
        fs::remove_file(&path).map_err(failed("removing", &path))?;
        self.files.remove(&number);
        Ok(())
    }

    fn next_file(&mut self) -> Result<(), StoreError> {
        // What a file holds is durable before there is another.
        self.sync()?;
        let number = self.files.last_key_value().map_or(1, |(last, _)| last.saturating_add(1));
        let path = path_of(&self.folder, number);
        let mut options = OpenOptions::new();
        let options = options.read(true).append(true).create_new(true).mode(0o600);
        let handle = options.open(&path).map_err(failed("creating", &path))?;
        let folder = File::open(&self.folder).and_then(|folder| folder.sync_all());
        folder.map_err(failed("syncing", &self.folder))?;
        self.files.insert(number, LogFile { handle: Arc::new(handle), length: 0, live: 0 });
        Ok(())
    }

    fn write(&mut self) -> Result<(), StoreError> {
        if self.broken {
            return Err(StoreError::Failed("the log of reports ends in a half-written one".into()));
        }
        if let Some((number, last)) = self.files.last_key_value()
            && !self.waiting.is_empty()
        {
            let written = (&*last.handle).write_all(&self.waiting);
            if let Err(error) = written {
                self.broken = true;
                return Err(failed("writing", &path_of(&self.folder, *number))(error));
            }
            self.waiting.clear();
        }
        Ok(())
    }
}

/// Reads records at their places.
pub(super) struct Reader {
    folder: PathBuf,
    files: BTreeMap<u32, Arc<File>>,
}

impl Reader {
    /// Appends the body of the record at `place` to `into`, and tells where it is there; none where the disk has lost it.
    pub(super) fn read(&self, place: Place, into: &mut Vec<u8>) -> Result<Option<Range<usize>>, StoreError> {
        let Some(file) = self.files.get(&place.file) else { return Ok(None) };
        let path = || path_of(&self.folder, place.file);
        let begin = into.len();
        into.resize(begin + HEAD_BYTES + place.length as usize, 0);
        let record = into.get_mut(begin..).unwrap_or_default();
        file.read_exact_at(record, place.offset.into()).map_err(|error| failed("reading", &path())(error))?;
        let whole = record.split_at_checked(HEAD_BYTES).is_some_and(|(head, body)| {
            head.last_chunk().is_some_and(|check| crc32fast::hash(body) == u32::from_le_bytes(*check))
        });
        if whole {
            return Ok(Some(begin + HEAD_BYTES..into.len()));
        }
        into.truncate(begin);
        warn!(path = %path().display(), offset = place.offset, "a stored report is damaged and left out");
        Ok(None)
    }
}

/// Tells each whole record of one file; answers how many bytes they take.
fn replay(file: &File, number: u32, each: &mut impl FnMut(Place, &[u8])) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(WAITING_BYTES, file);
    let (mut whole, mut body) = (0_u64, Vec::new());
    loop {
        let mut head = [0; HEAD_BYTES];
        if !fill(&mut reader, &mut head)? {
            return Ok(whole);
        }
        let [a, b, c, d, check @ ..] = head;
        let length = u32::from_le_bytes([a, b, c, d]);
        if length > MAX_BODY_BYTES {
            return Ok(whole);
        }
        body.clear();
        // Read as far as there is something: a damaged length must not reserve what it claims.
        (&mut reader).take(length.into()).read_to_end(&mut body)?;
        if body.len() != length as usize || crc32fast::hash(&body) != u32::from_le_bytes(check) {
            return Ok(whole);
        }
        let Ok(offset) = u32::try_from(whole) else { return Ok(whole) };
        let place = Place { file: number, offset, length };
        each(place, &body);
        whole += place.bytes();
    }
}

/// False when the source ends before `bytes` is full.
fn fill(reader: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn path_of(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:010}.log"))
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> StoreError {
    move |source| StoreError::Disk { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: u32 = 4096;

    fn open(folder: &Path) -> (Log, Vec<(Place, Vec<u8>)>) {
        let mut found = Vec::new();
        let log = Log::open(folder, SMALL, |place, body| found.push((place, body.to_vec()))).expect("opens");
        (log, found)
    }

    fn append(log: &mut Log, text: &str) -> Place {
        log.append(|body| body.extend(text.as_bytes())).expect("appends")
    }

    #[test]
    fn what_is_appended_is_read_at_its_place_before_and_after_opening_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut log, found) = open(folder.path());
        assert!(found.is_empty());
        let places = [append(&mut log, "one"), append(&mut log, ""), append(&mut log, "three")];
        let reader = log.reader().expect("reads");
        let mut bytes = b"before".to_vec();
        let mut read = |place: &Place| reader.read(*place, &mut bytes).expect("reads").expect("whole");
        let ranges: Vec<_> = places.iter().map(&mut read).collect();
        let read: Vec<&[u8]> = ranges.into_iter().map(|range| &bytes[range]).collect();
        assert_eq!((&bytes[..6], &read[..]), (&b"before"[..], &[&b"one"[..], b"", b"three"][..]));
        drop(log);
        let (mut log, found) = open(folder.path());
        assert_eq!(found.iter().map(|(place, _)| *place).collect::<Vec<_>>(), places);
        assert_eq!(found[2].1, b"three");
        assert!(append(&mut log, "four") > places[2]);
    }

    #[test]
    fn a_log_cut_or_damaged_anywhere_keeps_its_whole_records_and_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut log, _) = open(folder.path());
        append(&mut log, "first");
        append(&mut log, "second");
        log.sync().expect("syncs");
        drop(log);
        let path = path_of(folder.path(), 1);
        let whole = fs::read(&path).expect("readable");
        for cut in 0..whole.len() {
            for flip in [false, true] {
                let mut bytes = whole.clone();
                if flip {
                    bytes[cut] ^= 0x20;
                } else {
                    bytes.truncate(cut);
                }
                fs::write(&path, &bytes).expect("written");
                let (mut log, found) = open(folder.path());
                let left = usize::from(cut >= HEAD_BYTES + 5);
                assert_eq!(found.len(), left, "at {cut}");
                append(&mut log, "next");
                log.sync().expect("syncs");
                let (_, found) = open(folder.path());
                assert_eq!((found.len(), &*found[left].1), (left + 1, &b"next"[..]), "at {cut}");
            }
        }
    }

    #[test]
    fn garbage_is_found_where_the_least_is_live_and_files_are_given_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut log, _) = open(folder.path());
        let body = vec![7; SMALL as usize / 4];
        let places: Vec<Place> =
            (0..16).map(|_| log.append(|waiting| waiting.extend(&body)).expect("appends")).collect();
        assert_eq!(places[4].file, 2, "four fill a file");
        assert_eq!((log.wasteful(), log.empty()), (None, vec![]));
        places.iter().filter(|place| place.file <= 3).for_each(|place| log.is_dead(*place));
        assert_eq!(log.empty(), [3, 2, 1]);
        assert_eq!(log.wasteful(), Some(3));
        log.is_live(places[0]);
        let reader = log.reader().expect("reads");
        log.remove(2).expect("removed");
        assert!(
            reader.read(places[5], &mut Vec::new()).expect("reads").is_some(),
            "whoever reads it may go on"
        );
        assert_eq!(log.empty(), [3]);
        drop(log);
        assert_eq!(open(folder.path()).1.len(), 12);
    }
}
