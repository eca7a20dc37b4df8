//! What watches over the journal from outside of it: how often opening it ended the process, which event
//! numbers were used, and the putting aside of a corrupt one.
//!
//! Sled stops reading at the first damaged entry and carries on as if that were the end, without an error.
//! So the highest number is kept beside it, and a journal that ends before is known to have lost events.

use std::path::{Path, PathBuf};

use serin_protocol::ids::EventNumber;
use serin_protocol::message::Detail;

use super::seam::{Entry, FileError, Files, OpenFile, if_there};

/// Directory of the journal.
pub(super) const JOURNAL: &str = "journal";
const SET_ASIDE: &str = "journal.corrupt-";
const OPENING: &str = "journal.opening";
const NUMBERS: &str = "journal.next_event";

/// Digits of the largest number, and a line feed.
const NUMBER_BYTES: usize = 21;

/// Something was lost from the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Where the corrupt journal is now, for a support engineer; only the last one is kept. None when the
    /// journal goes on with what could be read.
    pub set_aside: Option<PathBuf>,
    /// What was found.
    pub detail: Detail,
}

/// The number of the next event, beside the journal: one sector, overwritten in place.
#[derive(Debug)]
pub(super) struct Numbers {
    file: OpenFile,
}

impl Numbers {
    /// Opens the file, and reads the number; none when there is none yet, or when it was torn.
    pub(super) fn open(files: &Files, dir: &Path) -> Result<(Self, Option<EventNumber>), FileError> {
        let mut file = files.open_or_create(&dir.join(NUMBERS))?;
        files.sync_dir(dir)?;
        let mut bytes = [0; NUMBER_BYTES];
        let count = file.read(&mut bytes)?;
        Ok((Self { file }, bytes.get(..count).and_then(parse)))
    }

    /// Writes the number durably.
    pub(super) fn write(&self, next: EventNumber) -> Result<(), FileError> {
        self.file.write_at(0, format!("{next:020}\n").as_bytes())?;
        self.file.sync()
    }
}

/// The number of the next event of the journal in `dir`, as far as it is known beside it; for when that cannot be
/// opened.
pub(super) fn used(files: &Files, dir: &Path) -> Option<EventNumber> {
    parse(&files.read_at_most(&dir.join(NUMBERS), NUMBER_BYTES).ok()?)
}

fn parse(bytes: &[u8]) -> Option<EventNumber> {
    let whole = Some(bytes).filter(|bytes| bytes.len() == NUMBER_BYTES)?;
    std::str::from_utf8(whole).ok()?.strip_suffix('\n')?.parse().ok().map(EventNumber)
}

/// How many openings were begun since one was finished.
pub(super) fn unfinished_openings(files: &Files, dir: &Path) -> Result<u32, FileError> {
    let marker = if_there(files.read_at_most(&dir.join(OPENING), 16))?;
    let count = marker.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.trim().parse().ok());
    // A torn marker says nothing about the journal.
    Ok(count.unwrap_or(0))
}

/// Notes that this many openings were begun.
pub(super) fn mark(files: &Files, dir: &Path, openings: u32) -> Result<(), FileError> {
    let mut marker = files.create(&dir.join(OPENING))?;
    marker.append(openings.to_string().as_bytes())?;
    marker.sync()?;
    files.sync_dir(dir)
}

/// Notes that an opening was finished.
pub(super) fn unmark(files: &Files, dir: &Path) -> Result<(), FileError> {
    if_there(files.remove(&dir.join(OPENING)))?;
    files.sync_dir(dir)
}

/// Gives the journal another name and removes those that had such a name before.
pub(super) fn set_aside(files: &Files, dir: &Path, detail: &str) -> Result<Loss, FileError> {
    let number = |entry: &Entry| entry.name.to_str()?.strip_prefix(SET_ASIDE)?.parse::<u32>().ok();
    let older: Vec<u32> = files.list(dir)?.iter().filter_map(number).collect();
    let next = older.iter().max().map_or(1, |last| last.saturating_add(1));
    let path = |number: u32| dir.join(format!("{SET_ASIDE}{number}"));
    if_there(files.rename(&dir.join(JOURNAL), &path(next)))?;
    files.sync_dir(dir)?;
    for number in older {
        if let Err(error) = files.remove_tree(&path(number)) {
            tracing::warn!(%error, "an older corrupt journal stays");
        }
    }
    tracing::error!(detail, "the journal was set aside and is begun anew");
    Ok(Loss { set_aside: Some(path(next)), detail: Detail::new(detail) })
}
