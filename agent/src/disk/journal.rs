//! What the device has to say and has done: numbered events until the server has stored them, reports
//! within a budget, a history for people. Nothing that decides what runs.
//!
//! One sled tree with a letter before each key. Flush policy: an event or report is on disk when its
//! `append` returns; history, counters and removals ride along with the next of these, since losing them
//! costs a repetition at most. So do pages of answers (`journal_answers`), in a tree of their own. A journal that is corrupt, or that ended the process while it was being
//! opened, is set aside and begun anew, and the caller is told.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serin_protocol::ids::{ByteCount, EventNumber};
use serin_protocol::message::{Detail, MAX_EVENT_BYTES, MAX_REPORT_BYTES};

use super::journal_answers::Pages;
pub use super::journal_guard::Loss;
use super::journal_guard::{JOURNAL, Numbers, mark, set_aside, unfinished_openings, unmark};
pub use super::journal_history::{HISTORY_ENTRIES, HistoryEntry, HistoryItem};
use super::journal_tree::{
    DROPPED_REPORTS, LOG, NEXT_EVENT, NEXT_REPORT, classify, key, open_sled, parse_counter, parse_number,
};
use super::seam::{FileError, Files};
use crate::link::outbox::{ReportKey, Stored};

/// Most events kept: 16 MiB at their largest, years of updates without a server. Events are never
/// dropped; what would exceed this is refused, and counted in [`super::losses`].
pub const MAX_EVENTS: usize = 16_384;
/// Unfinished openings in a row after which the journal is taken to be what ends the process. A power cut
/// can explain two.
const MAX_OPENINGS: u32 = 3;

/// The journal cannot be used, or not for this.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk failed beside the journal.
    #[error(transparent)]
    File(#[from] FileError),
    /// The disk failed under the journal, or another process has it open.
    #[error("the journal cannot be accessed: {0}")]
    Io(#[source] io::Error),
    /// Corruption was found. The next opening sets the journal aside.
    #[error("the journal is corrupt: {0}")]
    Corrupt(String),
    /// A message is larger than its kind or than the whole budget.
    #[error("a message of {actual} bytes does not fit, at most {limit} are allowed")]
    TooLarge {
        /// Its size.
        actual: usize,
        /// The limit.
        limit: usize,
    },
    /// An event has not the next number.
    #[error("event {given} is not the next one, {next}")]
    NotNext {
        /// The next number.
        next: EventNumber,
        /// The number given.
        given: EventNumber,
    },
    /// [`MAX_EVENTS`] events wait for the server.
    #[error("{MAX_EVENTS} events wait for the server, no more are taken")]
    Full,
}

/// A report that was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredReport {
    /// Its key.
    pub key: ReportKey,
    /// The oldest report still there: all below were dropped.
    pub oldest: ReportKey,
}

/// The journal.
#[derive(Debug)]
pub struct Journal {
    files: Files,
    dir: PathBuf,
    pub(super) db: sled::Db,
    /// Sled's file, to be synced.
    log: File,
    numbers: Numbers,
    budget: ByteCount,
    next_event: u64,
    events: usize,
    next_report: u64,
    report_bytes: u64,
    dropped_reports: u32,
    pub(super) next_history: u64,
    pub(super) history: usize,
    pub(super) pages: Pages,
}

impl Journal {
    /// Opens the journal in the state directory `dir`, which exists; reports may take up `budget` bytes.
    /// The next event is numbered `floor` or above, whatever the journal says.
    ///
    /// A corrupt journal is set aside, begun anew and returned as a [`Loss`]; so is, without being set
    /// aside, one whose end is gone. An error means that the disk cannot be used, or that another
    /// process has the journal open; nothing was lost then.
    pub fn open(
        files: &Files,
        dir: &Path,
        floor: EventNumber,
        budget: ByteCount,
    ) -> Result<(Self, Option<Loss>), JournalError> {
        let openings = unfinished_openings(files, dir)?;
        let mut loss = None;
        if openings >= MAX_OPENINGS {
            let detail = format!("it ended the process {openings} times, or was found corrupt while in use");
            loss = Some(set_aside(files, dir, &detail)?);
        }
        // Written before sled looks at anything: on a disk that takes no writes the agent stops here,
        // with an error rather than a panic.
        mark(files, dir, if loss.is_some() { 1 } else { openings + 1 })?;
        let journal = match Self::try_open(files, dir, budget) {
            Err(JournalError::Corrupt(detail)) if loss.is_none() => {
                loss = Some(set_aside(files, dir, &detail)?);
                Self::try_open(files, dir, budget)
            }
            other => other,
        };
        // An error that is no panic did not end the process.
        unmark(files, dir)?;
        let (mut journal, used) = journal?;
        if loss.is_none() && journal.next_event < used.0 {
            let detail = format!("events from {} up to {used} were used and are gone", journal.next_event);
            tracing::error!(detail, "the journal has lost its end");
            loss = Some(Loss { set_aside: None, detail: Detail::new(&detail) });
        }
        journal.next_event = journal.next_event.max(used.0).max(floor.0);
        Ok((journal, loss))
    }

    /// What the outbox starts from.
    pub fn stored(&self) -> Result<Stored, JournalError> {
        Ok(Stored {
            first_event: EventNumber(self.first(b'e')?.unwrap_or(self.next_event)),
            next_event: EventNumber(self.next_event),
            oldest_report: ReportKey(self.first(b'r')?.unwrap_or(self.next_report)),
            next_report: ReportKey(self.next_report),
        })
    }

    /// The number that the next event must have.
    pub const fn next_event(&self) -> EventNumber {
        EventNumber(self.next_event)
    }

    /// Stores the sealed event `number`, which must be the next, durably.
    pub fn append_event(&mut self, number: EventNumber, sealed: &[u8]) -> Result<(), JournalError> {
        fits(sealed, MAX_EVENT_BYTES)?;
        if number.0 != self.next_event {
            return Err(JournalError::NotNext { next: self.next_event(), given: number });
        }
        if self.events >= MAX_EVENTS {
            return Err(JournalError::Full);
        }
        let next = number.0.saturating_add(1);
        let mut batch = sled::Batch::default();
        batch.insert(&key(b'e', number.0), sealed);
        batch.insert(NEXT_EVENT, &next.to_be_bytes());
        self.done(self.db.apply_batch(batch))?;
        self.next_event = next;
        self.events += 1;
        self.flush()?;
        self.note_number();
        Ok(())
    }

    /// The sealed event `number`; none when it was dropped, or never was.
    pub fn event(&self, number: EventNumber) -> Result<Option<Vec<u8>>, JournalError> {
        self.value(b'e', number.0)
    }

    /// Drops every event up to `number`, because the server has them.
    pub fn drop_events_up_to(&mut self, number: EventNumber) -> Result<(), JournalError> {
        let mut batch = sled::Batch::default();
        let mut dropped = 0;
        for found in self.db.range(key(b'e', 0)..=key(b'e', number.0)) {
            let (key, _) = self.done(found)?;
            batch.remove(key);
            dropped += 1;
        }
        self.done(self.db.apply_batch(batch))?;
        self.events = self.events.saturating_sub(dropped);
        Ok(())
    }

    /// Numbers the next event above `number`, because the server has one of that number. Durable.
    pub fn number_above(&mut self, number: EventNumber) -> Result<(), JournalError> {
        let next = self.next_event.max(number.0.saturating_add(1));
        self.done(self.db.insert(NEXT_EVENT, &next.to_be_bytes()))?;
        self.next_event = next;
        self.flush()?;
        self.note_number();
        Ok(())
    }

    /// Stores a sealed report durably, dropping the oldest ones if the budget is used up.
    pub fn append_report(&mut self, sealed: &[u8]) -> Result<StoredReport, JournalError> {
        let budget = usize::try_from(self.budget.0).unwrap_or(usize::MAX);
        fits(sealed, MAX_REPORT_BYTES.min(budget))?;
        let number = self.next_report;
        let mut batch = sled::Batch::default();
        let mut bytes = self.report_bytes.saturating_add(sealed.len() as u64);
        let mut dropped = self.dropped_reports;
        let mut oldest = number;
        for found in self.db.scan_prefix(b"r") {
            let (key, value) = self.done(found)?;
            if bytes <= self.budget.0 {
                oldest = self.number(&key)?;
                break;
            }
            bytes = bytes.saturating_sub(value.len() as u64);
            dropped = dropped.saturating_add(1);
            batch.remove(key);
        }
        batch.insert(&key(b'r', number), sealed);
        batch.insert(NEXT_REPORT, &(number + 1).to_be_bytes());
        batch.insert(DROPPED_REPORTS, &u64::from(dropped).to_be_bytes());
        self.done(self.db.apply_batch(batch))?;
        self.next_report = number + 1;
        self.report_bytes = bytes;
        self.dropped_reports = dropped;
        self.flush()?;
        Ok(StoredReport { key: ReportKey(number), oldest: ReportKey(oldest) })
    }

    /// The sealed report `key`; none when it was dropped.
    pub fn report(&self, key: ReportKey) -> Result<Option<Vec<u8>>, JournalError> {
        self.value(b'r', key.0)
    }

    /// Drops the report `key`, because the broker has it.
    pub fn drop_report(&mut self, report: ReportKey) -> Result<(), JournalError> {
        if let Some(value) = self.done(self.db.remove(key(b'r', report.0)))? {
            self.report_bytes = self.report_bytes.saturating_sub(value.len() as u64);
        }
        Ok(())
    }

    /// Reports dropped for space since the journal began.
    pub const fn dropped_reports(&self) -> u32 {
        self.dropped_reports
    }

    /// Makes everything durable; called by `append`, and before an orderly stop.
    pub fn flush(&self) -> Result<(), JournalError> {
        self.done(self.db.flush())?;
        // Sled leaves it at writing pages out, which says nothing to a disk with a cache, nor to the file's length.
        self.log.sync_data().map_err(JournalError::Io)
    }

    /// The journal as it is, and the next event number as it is known beside it.
    fn try_open(files: &Files, dir: &Path, budget: ByteCount) -> Result<(Self, EventNumber), JournalError> {
        let (numbers, used) = Numbers::open(files, dir)?;
        // Sled panics on some damage. Where a panic ends the process the marker counts it instead.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let db = open_sled(&dir.join(JOURNAL)).map_err(classify)?;
            let log = File::open(dir.join(JOURNAL).join(LOG)).map_err(JournalError::Io)?;
            let pages = Pages::open(&db).map_err(classify)?;
            let mut journal = Self {
                files: files.clone(),
                dir: dir.to_owned(),
                db,
                log,
                numbers,
                budget,
                next_event: 1,
                events: 0,
                next_report: 0,
                report_bytes: 0,
                dropped_reports: 0,
                next_history: 0,
                history: 0,
                pages,
            };
            journal.read_all()?;
            Ok((journal, used.unwrap_or_default()))
        }));
        opened.unwrap_or_else(|_| Err(JournalError::Corrupt("sled panicked while reading it".into())))
    }

    /// Reads every entry once, so that damage shows now, and counts.
    fn read_all(&mut self) -> Result<(), JournalError> {
        for found in self.db.iter() {
            let (key, value) = found.map_err(classify)?;
            match (key.first(), &*key) {
                (Some(b'e'), _) => {
                    self.next_event = self.next_event.max(parse_number(&key)?.saturating_add(1));
                    self.events += 1;
                }
                (Some(b'r'), _) => {
                    self.next_report = self.next_report.max(parse_number(&key)?.saturating_add(1));
                    self.report_bytes = self.report_bytes.saturating_add(value.len() as u64);
                }
                (Some(b'h'), _) => {
                    self.next_history = self.next_history.max(parse_number(&key)?.saturating_add(1));
                    self.history += 1;
                }
                (_, NEXT_EVENT) => self.next_event = self.next_event.max(parse_counter(&value)?),
                (_, NEXT_REPORT) => self.next_report = self.next_report.max(parse_counter(&value)?),
                (_, DROPPED_REPORTS) => {
                    self.dropped_reports = u32::try_from(parse_counter(&value)?).unwrap_or(u32::MAX);
                }
                (_, _) => return Err(JournalError::Corrupt("it has a key of no known kind".into())),
            }
        }
        Ok(())
    }

    /// Keeps the next number beside the journal too. The journal has it already, so that a failure here only
    /// weakens what a later loss of the journal would be measured by.
    fn note_number(&self) {
        if let Err(error) = self.numbers.write(self.next_event()) {
            tracing::warn!(%error, "the number of the next event is in the journal only");
        }
    }

    fn first(&self, kind: u8) -> Result<Option<u64>, JournalError> {
        match self.db.scan_prefix([kind]).next() {
            None => Ok(None),
            Some(found) => {
                let (key, _) = self.done(found)?;
                self.number(&key).map(Some)
            }
        }
    }

    fn value(&self, kind: u8, number: u64) -> Result<Option<Vec<u8>>, JournalError> {
        let found = self.done(self.db.get(key(kind, number)))?;
        Ok(found.map(|value| value.to_vec()))
    }

    pub(super) fn number(&self, key: &[u8]) -> Result<u64, JournalError> {
        parse_number(key).inspect_err(|error| self.condemn(error))
    }

    pub(super) fn done<T>(&self, result: sled::Result<T>) -> Result<T, JournalError> {
        result.map_err(|error| {
            let error = classify(error);
            self.condemn(&error);
            error
        })
    }

    /// Makes sure that a journal found corrupt while in use is set aside by the next opening.
    fn condemn(&self, error: &JournalError) {
        if let JournalError::Corrupt(detail) = error {
            tracing::error!(%detail, "the journal is corrupt and will be set aside");
            if let Err(error) = mark(&self.files, &self.dir, MAX_OPENINGS) {
                tracing::error!(%error, "and this could not be noted");
            }
        }
    }
}

pub(super) fn fits(sealed: &[u8], limit: usize) -> Result<(), JournalError> {
    if sealed.len() > limit {
        return Err(JournalError::TooLarge { actual: sealed.len(), limit });
    }
    Ok(())
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
