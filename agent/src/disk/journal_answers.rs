//! Predictions that wait for their truth, page by page, in the journal: a tree of their own beside its other entries,
//! so that an agent that does not know it reads the rest. Keys are numbers of 8 bytes, big-endian; what a page holds
//! is the business of `telemetry::answers`.
//!
//! A page is durable with the next event or report, or when the journal is flushed: the request path waits for none
//! of it.

use super::journal::{Journal, JournalError, fits};
use super::journal_tree::parse_counter;
use crate::telemetry::answers::{MAX_PAGE_BYTES, PageKey};

const TREE: &str = "answers";

/// Most bytes of all pages: some 50 of each of the most requests that can be configured, 9 of each of their rows, and 7
/// for each row whose truth came. Beyond it the oldest pages go.
const MAX_BYTES: u64 = 8 << 20;

/// The pages, counted.
#[derive(Debug)]
pub(super) struct Pages {
    tree: sled::Tree,
    next: u64,
    bytes: u64,
}

impl Pages {
    /// Those of `db`. Reads each once, so that damage shows now.
    pub(super) fn open(db: &sled::Db) -> sled::Result<Self> {
        let mut pages = Self { tree: db.open_tree(TREE)?, next: 0, bytes: 0 };
        for found in &pages.tree {
            let (key, value) = found?;
            // A key of another kind is no page, and is not read as one either.
            if let Ok(number) = parse_counter(&key) {
                pages.next = pages.next.max(number.saturating_add(1));
            }
            pages.bytes = pages.bytes.saturating_add(value.len() as u64);
        }
        Ok(pages)
    }
}

impl Journal {
    /// Takes a page, behind all others, dropping the oldest if there is no room. Durable with what is next made so.
    ///
    /// # Errors
    /// It is larger than [`MAX_PAGE_BYTES`], or the journal cannot be written.
    pub fn append_page(&mut self, page: &[u8]) -> Result<PageKey, JournalError> {
        fits(page, MAX_PAGE_BYTES)?;
        let key = PageKey(self.pages.next);
        let mut bytes = self.pages.bytes.saturating_add(page.len() as u64);
        let mut batch = sled::Batch::default();
        for found in &self.pages.tree {
            if bytes <= MAX_BYTES {
                break;
            }
            let (key, value) = self.done(found)?;
            bytes = bytes.saturating_sub(value.len() as u64);
            batch.remove(key);
        }
        batch.insert(&key.0.to_be_bytes(), page);
        self.done(self.pages.tree.apply_batch(batch))?;
        self.pages.next = key.0.saturating_add(1);
        self.pages.bytes = bytes;
        Ok(key)
    }

    /// Every page, the oldest first.
    pub fn pages(&self) -> impl Iterator<Item = Result<(PageKey, Vec<u8>), JournalError>> {
        self.pages.tree.iter().filter_map(|found| match self.done(found) {
            Ok((key, value)) => {
                let number = parse_counter(&key).ok()?;
                Some(Ok((PageKey(number), value.to_vec())))
            }
            Err(error) => Some(Err(error)),
        })
    }

    /// Drops every page up to `key`: nobody waits for what is on them.
    ///
    /// # Errors
    /// The journal cannot be read or written.
    pub fn drop_pages_up_to(&mut self, key: PageKey) -> Result<(), JournalError> {
        let mut batch = sled::Batch::default();
        let mut dropped = 0_u64;
        for found in self.pages.tree.range(..=key.0.to_be_bytes()) {
            let (key, value) = self.done(found)?;
            dropped = dropped.saturating_add(value.len() as u64);
            batch.remove(key);
        }
        self.done(self.pages.tree.apply_batch(batch))?;
        self.pages.bytes = self.pages.bytes.saturating_sub(dropped);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::seam::Files;
    use serin_protocol::ids::{ByteCount, EventNumber};
    use std::path::Path;

    fn open(dir: &Path) -> Journal {
        let (journal, loss) =
            Journal::open(&Files::real(), dir, EventNumber(0), ByteCount(1000)).expect("opens");
        assert_eq!(loss, None);
        journal
    }

    fn pages(journal: &Journal) -> Vec<(u64, Vec<u8>)> {
        journal.pages().map(|page| page.expect("read")).map(|(key, page)| (key.0, page)).collect()
    }

    #[test]
    fn pages_are_there_after_a_restart_until_they_are_dropped() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut journal = open(dir.path());
        for page in [b"a", b"b", b"c"] {
            journal.append_page(page).expect("kept");
        }
        journal.drop_pages_up_to(PageKey(1)).expect("dropped");
        journal.flush().expect("flushed");
        drop(journal);
        let mut journal = open(dir.path());
        assert_eq!(pages(&journal), [(2, b"c".to_vec())]);
        assert_eq!(journal.append_page(b"d").expect("kept"), PageKey(3));
        assert_eq!(journal.stored().expect("known").next_event, EventNumber(1), "events are apart from them");
    }

    #[test]
    fn the_oldest_pages_make_room() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut journal = open(dir.path());
        let page = vec![7; MAX_PAGE_BYTES];
        let room = MAX_BYTES as usize / page.len();
        for _ in 0..room + 3 {
            journal.append_page(&page).expect("kept");
        }
        let kept = pages(&journal);
        assert_eq!((kept.len(), kept[0].0), (room, 3));
        let refused = journal.append_page(&vec![0; MAX_PAGE_BYTES + 1]);
        assert!(matches!(refused, Err(JournalError::TooLarge { .. })));
    }

    #[test]
    fn an_entry_that_is_no_page_is_not_read_as_one() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut journal = open(dir.path());
        journal.pages.tree.insert(b"strange", b"thing").expect("put");
        journal.append_page(b"a").expect("kept");
        journal.flush().expect("flushed");
        drop(journal);
        assert_eq!(pages(&open(dir.path())), [(0, b"a".to_vec())]);
    }
}
