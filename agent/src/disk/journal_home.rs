//! Where the journal lives: in the data folder, or in memory while the disk under that takes no writes.

use std::fs;
use std::path::Path;

use serin_protocol::ids::{ByteCount, EventNumber};

use super::journal::{Journal, JournalError, Loss};
use super::journal_guard::used;
use super::seam::Files;
use crate::link::outbox::Stored;
use crate::shelter;

/// A journal, wherever it could be opened.
#[derive(Debug)]
pub struct Opened {
    /// The journal.
    pub journal: Journal,
    /// What was found to be lost from it.
    pub loss: Option<Loss>,
    /// Why it is in memory, if it is.
    pub sheltered: Option<JournalError>,
}

/// Opens the journal of the data folder `data`; see [`Journal::open`]. What an earlier start kept in memory comes
/// back into it. If the disk does not have it, one in memory takes its place, whose numbers go on above all that
/// were used.
///
/// # Errors
/// That of the data folder, when memory does not have one either.
pub fn open(
    files: &Files,
    data: &Path,
    floor: EventNumber,
    budget: ByteCount,
) -> Result<Opened, JournalError> {
    let why = match Journal::open(files, data, floor, budget) {
        Ok((mut journal, loss)) => {
            come_back(&mut journal, data, budget);
            return Ok(Opened { journal, loss, sheltered: None });
        }
        Err(why) => why,
    };
    let floor = floor.max(used(files, data).unwrap_or_default());
    match in_memory(data, floor, budget) {
        Ok(journal) => Ok(Opened { journal, loss: None, sheltered: Some(why) }),
        Err(error) => {
            tracing::error!(%error, "there is no journal in memory either");
            Err(why)
        }
    }
}

/// A journal in memory that has every event of `journal`, which fails.
///
/// # Errors
/// Memory does not take one.
pub fn leave(journal: &Journal, data: &Path, budget: ByteCount) -> Result<Journal, JournalError> {
    let first = journal.stored().map_or_else(|_| journal.next_event(), |stored| stored.first_event);
    let mut sheltered = in_memory(data, first, budget)?;
    sheltered.take_over(journal)?;
    Ok(sheltered)
}

impl Journal {
    /// Takes over what `other` has and would come next here.
    fn take_over(&mut self, other: &Self) -> Result<(), JournalError> {
        let Stored { first_event, next_event, .. } = other.stored()?;
        if first_event > self.next_event() {
            self.number_above(EventNumber(first_event.0 - 1))?;
        }
        for number in (self.next_event().0..next_event.0).map(EventNumber) {
            match other.event(number) {
                Ok(Some(sealed)) => self.append_event(number, &sealed)?,
                Ok(None) => self.number_above(number)?,
                Err(error) => {
                    tracing::error!(%error, %number, "an event is lost with the disk");
                    self.number_above(number)?;
                }
            }
        }
        Ok(())
    }
}

fn in_memory(data: &Path, floor: EventNumber, budget: ByteCount) -> Result<Journal, JournalError> {
    let place = shelter::open(data).map_err(JournalError::Io)?;
    // A loss in there has nothing to do with the disk, and is of what had to be expected.
    Journal::open(&Files::real(), &place, floor, budget).map(|(journal, _)| journal)
}

/// Takes over what is kept in memory, and makes room there. On failure it stays.
fn come_back(journal: &mut Journal, data: &Path, budget: ByteCount) {
    let Ok(place) = shelter::place(data) else { return };
    if !place.exists() {
        return;
    }
    let moved = in_memory(data, EventNumber(0), budget).and_then(|left| journal.take_over(&left));
    match moved.and_then(|()| fs::remove_dir_all(&place).map_err(JournalError::Io)) {
        Ok(()) => tracing::info!("the journal is back on disk"),
        Err(error) => tracing::warn!(%error, "events stay in memory"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: ByteCount = ByteCount(1000);

    fn append(journal: &mut Journal, sealed: &[u8]) -> u64 {
        let number = journal.next_event();
        journal.append_event(number, sealed).expect("stored");
        number.0
    }

    fn events(journal: &Journal) -> Vec<(u64, Vec<u8>)> {
        let stored = journal.stored().expect("known");
        let numbers = stored.first_event.0..stored.next_event.0;
        numbers.filter_map(|at| Some((at, journal.event(EventNumber(at)).expect("read")?))).collect()
    }

    /// A data folder that no marker can be written to, and so no journal be opened in.
    fn obstruct(data: &Path) {
        fs::create_dir(data.join("journal.opening")).expect("made");
    }

    fn open_in(data: &Path) -> Opened {
        open(&Files::real(), data, EventNumber(0), BUDGET).expect("opens")
    }

    #[test]
    fn events_of_a_device_whose_disk_fails_are_numbered_on_and_come_back_to_disk() {
        let data = tempfile::tempdir().expect("tempdir");
        let mut on_disk = open_in(data.path()).journal;
        assert_eq!((append(&mut on_disk, b"a"), append(&mut on_disk, b"b")), (1, 2));
        // It fails while the agent runs: what waits there goes on waiting in memory.
        let mut sheltered = leave(&on_disk, data.path(), BUDGET).expect("in memory");
        assert_eq!(append(&mut sheltered, b"c"), 3);
        assert_eq!(events(&sheltered), [(1, b"a".to_vec()), (2, b"b".to_vec()), (3, b"c".to_vec())]);
        drop((on_disk, sheltered));
        // At the next start it still does.
        obstruct(data.path());
        let Opened { mut journal, sheltered, .. } = open_in(data.path());
        assert!(sheltered.is_some());
        assert_eq!(append(&mut journal, b"d"), 4);
        drop(journal);
        fs::remove_dir(data.path().join("journal.opening")).expect("repaired");
        let Opened { journal, sheltered, loss } = open_in(data.path());
        assert!(sheltered.is_none() && loss.is_none());
        let all = [(1, b"a".to_vec()), (2, b"b".to_vec()), (3, b"c".to_vec()), (4, b"d".to_vec())];
        assert_eq!(events(&journal), all);
        assert!(!shelter::place(data.path()).expect("known").exists());
    }

    #[test]
    fn a_journal_in_memory_repeats_no_number_of_one_that_cannot_be_read() {
        let data = tempfile::tempdir().expect("tempdir");
        let mut on_disk = open_in(data.path()).journal;
        append(&mut on_disk, b"a");
        drop(on_disk);
        obstruct(data.path());
        let mut journal = open_in(data.path()).journal;
        assert_eq!(append(&mut journal, b"b"), 2);
        drop(journal);
        fs::remove_dir_all(shelter::place(data.path()).expect("known")).expect("switched off");
    }
}
