//! What people may read of the past of a device: the newest entries of the journal's history.

use serde::{Deserialize, Serialize};
use serin_protocol::ids::UnixMillis;
use serin_protocol::message::{Detail, EventKind};

use super::journal::{Journal, JournalError};
use super::journal_tree::key;

/// History entries kept, the newest: some weeks of an eventful device, 1 MiB at their largest.
pub const HISTORY_ENTRIES: usize = 1000;

/// An entry of the local history. Its enum is append only, as on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Device time.
    pub at: UnixMillis,
    /// What happened.
    pub what: HistoryItem,
}

/// What happened, for the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HistoryItem {
    /// Something that was also said to the fleet.
    Event(EventKind),
    /// Something local.
    Note(Detail),
}

impl Journal {
    /// Adds to the history, dropping its oldest entry when it is full.
    pub fn append_history(&mut self, entry: &HistoryEntry) -> Result<(), JournalError> {
        // Plain data into a growing vector: postcard has nothing to fail on.
        let bytes = postcard::to_allocvec(entry).unwrap_or_default();
        let mut batch = sled::Batch::default();
        batch.insert(&key(b'h', self.next_history), bytes);
        let mut entries = self.history + 1;
        let surplus = entries.saturating_sub(HISTORY_ENTRIES);
        for found in self.db.scan_prefix(b"h").take(surplus) {
            let (key, _) = self.done(found)?;
            batch.remove(key);
            entries -= 1;
        }
        self.done(self.db.apply_batch(batch))?;
        self.next_history += 1;
        self.history = entries;
        Ok(())
    }

    /// The last `count` history entries, oldest first. Entries of a later version are left out.
    pub fn history(&self, count: usize) -> Result<Vec<HistoryEntry>, JournalError> {
        let mut entries = Vec::new();
        for found in self.db.scan_prefix(b"h").rev().take(count) {
            let (_, bytes) = self.done(found)?;
            entries.extend(postcard::from_bytes::<HistoryEntry>(&bytes).ok());
        }
        entries.reverse();
        Ok(entries)
    }
}
