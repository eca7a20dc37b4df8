//! What could not be kept for the fleet, counted until it was reported: nothing vanishes unsaid. Beside the
//! journal, whose loss it survives; one sector, overwritten in place. Torn, it counts one of each.

use std::path::Path;

use super::seam::{FileError, Files, OpenFile};

const NAME: &str = "journal.losses";

/// Two numbers of 10 digits, a space and a line feed.
const BYTES: usize = 22;

/// How much was lost and not yet reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Events for which there was no room.
    pub events: u32,
    /// Reports dropped, the oldest first.
    pub reports: u32,
}

impl Lost {
    fn parse(text: &str) -> Option<Self> {
        let (events, reports) = text.strip_suffix('\n')?.split_once(' ')?;
        Some(Self { events: events.parse().ok()?, reports: reports.parse().ok()? })
    }
}

/// The counts, and the file that keeps them; none on a disk that does not have it.
#[derive(Debug, Default)]
pub struct Losses {
    file: Option<OpenFile>,
    lost: Lost,
}

impl Losses {
    /// Opens the file in the state directory `dir`, which exists.
    pub fn open(files: &Files, dir: &Path) -> Result<Self, FileError> {
        let mut file = files.open_or_create(&dir.join(NAME))?;
        files.sync_dir(dir)?;
        let mut bytes = [0; BYTES];
        let length = file.read(&mut bytes)?;
        let text = std::str::from_utf8(bytes.get(..length).unwrap_or_default()).unwrap_or("torn");
        let torn = Lost { events: 1, reports: 1 };
        let lost = if text.is_empty() { Lost::default() } else { Lost::parse(text).unwrap_or(torn) };
        Ok(Self { file: Some(file), lost })
    }

    /// What is not yet reported.
    pub const fn unsaid(&self) -> Lost {
        self.lost
    }

    /// More is lost. On a disk that takes nothing it is known until the agent ends.
    pub fn add(&mut self, more: Lost) -> Result<(), FileError> {
        let Lost { events, reports } = self.lost;
        self.set(Lost {
            events: events.saturating_add(more.events),
            reports: reports.saturating_add(more.reports),
        })
    }

    /// This much of it was reported.
    pub fn said(&mut self, said: Lost) -> Result<(), FileError> {
        let Lost { events, reports } = self.lost;
        self.set(Lost {
            events: events.saturating_sub(said.events),
            reports: reports.saturating_sub(said.reports),
        })
    }

    fn set(&mut self, lost: Lost) -> Result<(), FileError> {
        self.lost = lost;
        let Some(file) = &self.file else { return Ok(()) };
        file.write_at(0, format!("{:010} {:010}\n", lost.events, lost.reports).as_bytes())?;
        file.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_counted_over_restarts_until_they_are_reported() {
        let dir = tempfile::tempdir().expect("tempdir");
        let open = || Losses::open(&Files::real(), dir.path()).expect("opened");
        assert_eq!(open().unsaid(), Lost::default());
        let mut losses = open();
        losses.add(Lost { events: 2, reports: 0 }).expect("written");
        losses.add(Lost { events: u32::MAX, reports: 3 }).expect("written");
        assert_eq!(open().unsaid(), Lost { events: u32::MAX, reports: 3 });
        losses.said(Lost { events: u32::MAX, reports: 1 }).expect("written");
        assert_eq!(open().unsaid(), Lost { events: 0, reports: 2 });
        std::fs::write(dir.path().join(NAME), "0000").expect("torn");
        assert_eq!(open().unsaid(), Lost { events: 1, reports: 1 });
    }
}
