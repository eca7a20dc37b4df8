//! Which window of time is open, from two clocks that may disagree. Pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serin_protocol::ids::{Millis, UnixMillis};
use serin_protocol::message::Coverage;

use crate::update::effect::Now;

/// Cuts time into windows `[k·length, (k+1)·length)` of the wall clock, none of which is ever closed
/// twice, whatever that clock does.
///
/// Set forward, the clock leaves out windows. Set back to before everything reported, windows follow it.
/// Set back into time already reported, they go on behind the last one at the pace of the monotonic
/// clock until the wall clock has caught up.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    length: u64,
    /// Number of the open window: its start divided by `length`.
    open: u64,
    opened: Now,
    /// Whether it has been open since its start.
    whole: bool,
    /// First window since the clock was last set back before everything.
    run: u64,
    /// First and last of all windows used before that.
    past: Option<(u64, u64)>,
}

/// A window that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) start: UnixMillis,
    pub(super) end: UnixMillis,
    pub(super) coverage: Coverage,
}

impl Schedule {
    /// Opens the window that `now` lies in.
    pub(super) fn new(length: Millis, now: Now) -> Self {
        let length = length.0.max(1);
        let open = now.wall.0 / length;
        Self { length, open, opened: now, whole: now.wall.0 % length == 0, run: open, past: None }
    }

    /// Closes the open window if it is over.
    pub(super) fn advance(&mut self, now: Now) -> Option<Closed> {
        let wall = now.wall.0 / self.length;
        let first = self.past.map_or(self.run, |(first, _)| first.min(self.run));
        let next = if wall == self.open {
            return None;
        } else if wall > self.open {
            self.unused(wall)
        } else if wall < first {
            return Some(self.go_back(wall, now));
        } else if self.open_for(now) >= self.length {
            self.unused(self.open.saturating_add(1))
        } else {
            return None;
        };
        Some(self.open_next(next, now))
    }

    /// Closes the open window before its end.
    pub(super) fn cut(&mut self, now: Now) -> Closed {
        self.whole = false;
        let closed = self.open_next(self.unused(self.open.saturating_add(1)), now);
        self.whole = false;
        closed
    }

    /// Time until [`Schedule::advance`] will have something to close.
    pub(super) fn due(&self, now: Now) -> Millis {
        let by_wall = self.start(self.open.saturating_add(1)).saturating_sub(now.wall.0);
        if now.wall.0 >= self.start(self.open) {
            return Millis(by_wall);
        }
        Millis(by_wall.min(self.length.saturating_sub(self.open_for(now))))
    }

    fn go_back(&mut self, wall: u64, now: Now) -> Closed {
        let (first, last) = self.past.unwrap_or((self.run, self.open));
        self.past = Some((first.min(self.run), last.max(self.open)));
        self.run = wall;
        self.open_next(wall, now)
    }

    fn open_next(&mut self, next: u64, now: Now) -> Closed {
        let spent = self.open_for(now);
        let by_wall = now.wall.0.abs_diff(self.opened.wall.0);
        // A late timer is no gap, a clock that was set is.
        let steady = by_wall.abs_diff(spent) <= self.length / 10 && now.wall.0 >= self.opened.wall.0;
        let on_time = steady && next == self.open.saturating_add(1) && spent <= self.length + self.length / 4;
        let complete = self.whole && on_time && spent >= self.length - self.length / 4;
        let closed = Closed {
            start: UnixMillis(self.start(self.open)),
            end: UnixMillis(self.start(self.open.saturating_add(1))),
            coverage: if complete { Coverage::Complete } else { Coverage::Partial },
        };
        (self.open, self.opened, self.whole) = (next, now, on_time);
        closed
    }

    /// `window`, or the first one behind all those used in an earlier run that contains it.
    fn unused(&self, window: u64) -> u64 {
        match self.past {
            Some((first, last)) if (first..=last).contains(&window) => last.saturating_add(1),
            Some(_) | None => window,
        }
    }

    const fn open_for(&self, now: Now) -> u64 {
        now.elapsed.0.saturating_sub(self.opened.elapsed.0)
    }

    const fn start(&self, window: u64) -> u64 {
        window.saturating_mul(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const LENGTH: u64 = 1000;

    fn at(wall: u64, elapsed: u64) -> Now {
        Now { wall: UnixMillis(wall), elapsed: Millis(elapsed) }
    }

    fn starts(schedule: &mut Schedule, moments: &[(u64, u64)]) -> Vec<(u64, Coverage)> {
        let closed = moments.iter().filter_map(|(wall, elapsed)| schedule.advance(at(*wall, *elapsed)));
        closed.map(|closed| (closed.start.0, closed.coverage)).collect()
    }

    #[test]
    fn the_first_window_is_partial_and_the_next_ones_complete() {
        let mut schedule = Schedule::new(Millis(LENGTH), at(5_400, 0));
        assert_eq!(schedule.due(at(5_400, 0)), Millis(600));
        let closed = starts(&mut schedule, &[(5_999, 599), (6_003, 603), (7_000, 1_600), (8_010, 2_610)]);
        let expected = [(5_000, Coverage::Partial), (6_000, Coverage::Complete), (7_000, Coverage::Complete)];
        assert_eq!(closed, expected);
    }

    #[test]
    fn a_clock_set_forward_leaves_out_windows() {
        let mut schedule = Schedule::new(Millis(LENGTH), at(5_000, 0));
        let closed = starts(&mut schedule, &[(900_500, 500), (901_000, 1_000), (902_000, 2_000)]);
        assert_eq!(
            closed,
            [(5_000, Coverage::Partial), (900_000, Coverage::Partial), (901_000, Coverage::Complete)]
        );
    }

    #[test]
    fn a_clock_that_was_years_ahead_is_followed_back() {
        let mut schedule = Schedule::new(Millis(LENGTH), at(9_000_000, 0));
        let closed = starts(&mut schedule, &[(9_001_000, 1_000), (5_500, 1_500), (6_000, 2_000)]);
        let starts: Vec<_> = closed.iter().map(|(start, _)| *start).collect();
        assert_eq!(starts, [9_000_000, 9_001_000, 5_000]);
    }

    #[test]
    fn a_clock_set_back_into_reported_time_goes_on_behind_it_at_the_same_pace() {
        let mut schedule = Schedule::new(Millis(LENGTH), at(5_000, 0));
        let closed = starts(
            &mut schedule,
            &[(6_000, 1_000), (7_000, 2_000), (5_500, 2_500), (6_000, 3_000), (7_000, 4_000), (8_000, 5_000)],
        );
        let starts: Vec<_> = closed.iter().map(|(start, _)| *start).collect();
        assert_eq!(starts, [5_000, 6_000, 7_000, 8_000, 9_000]);
    }

    proptest! {
        #[test]
        fn windows_are_aligned_and_never_closed_twice(
            start in 0_u64..20_000,
            steps in prop::collection::vec((0_u64..3_000, -8_000_i64..8_000, any::<bool>(), any::<bool>()), 0..80)
        ) {
            let (mut wall, mut elapsed) = (start, 0);
            let mut schedule = Schedule::new(Millis(LENGTH), at(wall, elapsed));
            let mut seen = BTreeSet::new();
            for (pass, jump, jumps, cut) in steps {
                elapsed += pass;
                wall += pass;
                if jumps {
                    wall = wall.saturating_add_signed(jump);
                }
                let now = at(wall, elapsed);
                let due = schedule.due(now);
                let closed = schedule.advance(now);
                let cut = cut.then(|| schedule.cut(now));
                for closed in closed.into_iter().chain(cut) {
                    prop_assert_eq!(closed.start.0 % LENGTH, 0);
                    prop_assert_eq!(closed.end.0, closed.start.0 + LENGTH);
                    prop_assert!(seen.insert(closed.start.0), "{} closed twice", closed.start);
                }
                prop_assert!(due.0 <= LENGTH || closed.is_some() || schedule.start(schedule.open) > wall);
                // Whatever the clocks did, nothing stays open for long.
                prop_assert!(schedule.due(now).0 <= 2 * LENGTH);
            }
        }
    }
}
