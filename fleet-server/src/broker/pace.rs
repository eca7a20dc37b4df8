//! When the link reads its socket: at once while little arrives, and a moment later while much does, so that one waking up,
//! one read and one write serve several messages. Alone each costs more than what is done with a report. Pure.

use std::time::{Duration, Instant};

/// How long arrivals are counted before anything is said of their rate.
const COUNTED_FOR: Duration = Duration::from_millis(10);

/// So many messages in [`COUNTED_FOR`], 3,000 a second, are much: a moment brings several of them.
const MUCH: u32 = 30;

/// How long reading waits then: the shortest time that a timer has. What a device is told comes later by as much.
pub(super) const MOMENT: Duration = Duration::from_millis(1);

/// So many messages that came together show that more are there already: the client reads nine at once.
const FULL_READ: u32 = 9;

/// Counts what arrives.
#[derive(Debug)]
pub(super) struct Pace {
    counting_since: Instant,
    counted: u32,
    /// Much arrived in the last whole count.
    much: bool,
    /// Since the socket was read last.
    together: u32,
}

impl Pace {
    /// From `now` on.
    pub(super) const fn new(now: Instant) -> Self {
        Self { counting_since: now, counted: 0, much: false, together: 0 }
    }

    /// A message came.
    pub(super) const fn came(&mut self) {
        self.counted = self.counted.saturating_add(1);
        self.together = self.together.saturating_add(1);
    }

    /// All that was read is handed on, and the socket is to be read; whether a [`MOMENT`] later.
    pub(super) fn waits(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.counting_since);
        if passed >= COUNTED_FOR {
            // A count over a longer time is one of a slower rate.
            let share = COUNTED_FOR.as_secs_f64() / passed.as_secs_f64();
            self.much = f64::from(self.counted) * share >= f64::from(MUCH);
            (self.counting_since, self.counted) = (now, 0);
        }
        let together = std::mem::take(&mut self.together);
        self.much && (1..FULL_READ).contains(&together)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads of `together` messages each, `apart` from each other; how many of them wait.
    fn waiting(pace: &mut Pace, now: &mut Instant, reads: u32, together: u32, apart: Duration) -> usize {
        let waits = |_| {
            *now += apart;
            (0..together).for_each(|_| pace.came());
            pace.waits(*now)
        };
        (0..reads).map(waits).filter(|waits| *waits).count()
    }

    #[test]
    fn little_is_read_at_once() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!(waiting(&mut pace, &mut now, 1000, 1, Duration::from_micros(500)), 0, "2,000 a second");
        assert_eq!(waiting(&mut pace, &mut now, 100, 8, Duration::from_millis(4)), 0, "in bursts");
    }

    #[test]
    fn much_is_read_together_and_what_is_there_already_at_once() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let waits = waiting(&mut pace, &mut now, 1000, 1, Duration::from_micros(100));
        assert!((800..1000).contains(&waits), "10,000 a second: {waits}");
        assert_eq!(waiting(&mut pace, &mut now, 1000, 9, Duration::from_micros(900)), 0, "full reads");
        assert_eq!(waiting(&mut pace, &mut now, 1000, 0, Duration::from_micros(10)), 0, "no message at all");
    }

    #[test]
    fn a_pause_ends_it() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        assert!(waiting(&mut pace, &mut now, 1000, 1, Duration::from_micros(100)) > 0);
        now += Duration::from_secs(1);
        pace.came();
        assert!(!pace.waits(now));
    }
}
