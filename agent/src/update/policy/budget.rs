//! Bytes fetched on one local day. What is stored runs ahead of what was fetched, so that a power cut costs
//! some of the day's budget and never more money than the operator allows.

use serde::{Deserialize, Serialize};
use serin_protocol::ids::ByteCount;

/// How far the stored count runs ahead: each power cut costs at most so much of the day's budget, and the
/// count is written once for so many bytes.
pub const AHEAD: ByteCount = ByteCount(256 * 1024);
/// The least daily budget. What is under way when it is spent still comes: at most one window of chunks, half a
/// megabyte.
pub const LEAST_DAILY: ByteCount = ByteCount::from_mib(1);
/// A clock that shows an earlier day than before, but not much earlier, was not yet set after a start: the
/// count goes on. One that is further off had been wrong before, and the day begins anew.
const UNSET_CLOCK_DAYS: i64 = 7;

/// What is kept on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The local day, counted from 1970-01-01.
    pub day: i64,
    /// Bytes fetched on it, rounded up.
    pub spent: ByteCount,
}

/// The count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    day: i64,
    spent: u64,
    stored: u64,
}

impl Budget {
    /// Goes on from what was stored.
    pub fn resume(stored: Option<Stored>) -> Self {
        let Stored { day, spent } = stored.unwrap_or(Stored { day: i64::MIN, spent: ByteCount(0) });
        Self { day, spent: spent.0, stored: spent.0 }
    }

    /// Bytes fetched on the day `today`.
    pub fn spent(&mut self, today: i64) -> ByteCount {
        let same = today <= self.day && today >= self.day.saturating_sub(UNSET_CLOCK_DAYS);
        if !same {
            *self = Self { day: today, spent: 0, stored: 0 };
        }
        ByteCount(self.spent)
    }

    /// Counts bytes that have come. What it returns is to be stored; a failure is made good with the next chunk. Tell
    /// [`Self::stored`] when it is.
    #[must_use]
    pub fn take(&mut self, today: i64, bytes: ByteCount) -> Option<Stored> {
        self.spent = self.spent(today).0.saturating_add(bytes.0);
        (self.spent > self.stored)
            .then(|| Stored { day: self.day, spent: ByteCount(self.spent.saturating_add(AHEAD.0)) })
    }

    /// `what` is on disk.
    pub fn stored(&mut self, what: Stored) {
        if what.day == self.day {
            self.stored = what.spent.0;
        }
    }

    /// The count as it is, for an orderly stop.
    pub const fn exact(&self) -> Stored {
        Stored { day: self.day, spent: ByteCount(self.spent) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_day_begins_with_nothing_and_an_unset_clock_does_not_begin_one() {
        let mut budget = Budget::resume(None);
        assert_eq!(budget.spent(20_000), ByteCount(0));
        let written = budget.take(20_000, ByteCount(10)).expect("the first byte is written");
        assert_eq!(written, Stored { day: 20_000, spent: ByteCount(10 + AHEAD.0) });
        budget.stored(written);
        assert_eq!(budget.take(20_000, ByteCount(AHEAD.0)), None, "it is covered");
        let mut after_a_cut = Budget::resume(Some(written));
        assert_eq!(after_a_cut.spent(20_000), written.spent);
        // Without a battery-backed clock it is yesterday after a start, until the network says otherwise.
        assert_eq!(after_a_cut.spent(19_999), written.spent);
        assert_eq!(after_a_cut.spent(20_000), written.spent);
        assert_eq!(after_a_cut.spent(20_001), ByteCount(0));
        // A clock that had been years ahead does not block for years.
        assert_eq!(Budget::resume(Some(Stored { day: 40_000, ..written })).spent(20_000), ByteCount(0));
    }

    proptest! {
        #[test]
        fn a_power_cut_never_forgets_bytes_and_costs_a_bounded_part_of_the_budget(
            chunks in prop::collection::vec((1_u64..70_000, any::<bool>(), any::<bool>()), 1..60)
        ) {
            let (mut budget, mut disk) = (Budget::resume(None), None);
            let (mut really, mut cuts) = (0, 0);
            for (bytes, fails, cut) in chunks {
                really += bytes;
                if let Some(write) = budget.take(5, ByteCount(bytes)) && !fails {
                    disk = Some(write);
                    budget.stored(write);
                }
                prop_assert!(budget.spent(5).0 >= really);
                let covered = disk.is_some_and(|disk: Stored| disk.spent.0 >= really);
                if cut && covered {
                    (budget, cuts) = (Budget::resume(disk), cuts + 1);
                }
                prop_assert!(budget.spent(5).0 >= really);
                prop_assert!(budget.spent(5).0 <= really + cuts * AHEAD.0);
            }
        }
    }
}
