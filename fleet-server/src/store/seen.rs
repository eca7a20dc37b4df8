//! Which reports of one device were taken in, so that one delivered again is not counted again. Of fixed
//! size, however long the device lives.

use serde::{Deserialize, Serialize};
use serin_protocol::ids::BootId;
use serin_protocol::manifest::MAX_FEATURES;
use serin_protocol::message::MAX_REPORT_FEATURES;

/// Boots remembered. Reports of older boots than these come only from a device that restarted this often
/// with a backlog, and then count as known.
const BOOTS: usize = 4;

/// Parts that one window of the widest model is reported in.
const PARTS: u64 = (MAX_FEATURES / MAX_REPORT_FEATURES) as u64;

/// Words of the window over report numbers: 64 windows of the widest model. A device has four reports
/// under way at most, so nothing new ever lies below it.
const WORDS: usize = PARTS as usize;

/// The reports of one device that were taken in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenReports {
    /// Youngest last.
    boots: heapless::Vec<Boot, BOOTS>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Boot {
    id: BootId,
    /// Numbers below `first_word * 64` are all known.
    first_word: u64,
    words: [u64; WORDS],
}

impl SeenReports {
    /// Notes a report; false when it is known, or too old to tell.
    pub fn add(&mut self, boot: BootId, sequence: u64, first_feature: u16) -> bool {
        let part = u64::from(first_feature) / MAX_REPORT_FEATURES as u64;
        let number = sequence.saturating_mul(PARTS).saturating_add(part.min(PARTS - 1));
        if let Some(known) = self.boots.iter_mut().find(|known| known.id == boot) {
            return known.add(number);
        }
        let mut fresh = Boot { id: boot, first_word: 0, words: [0; WORDS] };
        let added = fresh.add(number);
        if self.boots.is_full() {
            self.boots.remove(0);
        }
        // There is room now.
        let _ = self.boots.push(fresh);
        added
    }
}

impl Boot {
    fn add(&mut self, number: u64) -> bool {
        let word = number / 64;
        let Some(mut at) = word.checked_sub(self.first_word) else {
            return false;
        };
        let last = WORDS as u64 - 1;
        if at > last {
            let shift = at - last;
            self.words.rotate_left(usize::try_from(shift).unwrap_or(WORDS).min(WORDS) % WORDS);
            let kept = WORDS.saturating_sub(usize::try_from(shift).unwrap_or(WORDS));
            self.words.iter_mut().skip(kept).for_each(|word| *word = 0);
            self.first_word += shift;
            at = last;
        }
        let Some(word) = usize::try_from(at).ok().and_then(|at| self.words.get_mut(at)) else {
            return false;
        };
        let bit = 1 << (number % 64);
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn parts_of_a_window_are_told_apart() {
        let mut seen = SeenReports::default();
        for part in 0..16 {
            assert!(seen.add(BootId(1), 7, part * 64));
        }
        assert!(!seen.add(BootId(1), 7, 64));
        assert!(seen.add(BootId(2), 7, 64), "another boot counts anew");
    }

    #[test]
    fn a_jump_over_the_whole_window_keeps_nothing_old_as_new() {
        let mut seen = SeenReports::default();
        assert!(seen.add(BootId(1), 3, 0));
        assert!(seen.add(BootId(1), u64::MAX / 64, 0));
        assert!(!seen.add(BootId(1), 3, 0));
        assert!(!seen.add(BootId(1), u64::MAX / 64, 0));
    }

    proptest! {
        #[test]
        fn nothing_is_counted_twice_and_near_misses_are_not_lost(
            numbers in prop::collection::vec((0_u64..40, 0_u16..3), 1..120)
        ) {
            let (mut seen, mut model) = (SeenReports::default(), BTreeSet::new());
            for (sequence, part) in numbers {
                prop_assert_eq!(seen.add(BootId(9), sequence, part * 64), model.insert((sequence, part)));
            }
        }
    }
}
