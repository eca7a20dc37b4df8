//! How long the server asked this device to hold back. Pure: the shell stops what it sends and asks for.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serin_protocol::ids::{DeviceId, FleetId, Millis, UnixMillis};
use serin_protocol::pause::Pause;

use super::backoff::after;
use crate::update::effect::Now;

/// Why a pause is not honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PauseRefusal {
    /// For another device or fleet.
    #[error("the pause is for another device")]
    Foreign,
    /// An older one than the last.
    #[error("the pause is a replay")]
    Replay,
}

/// The pause in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pausing {
    until: Option<Millis>,
    /// When the last pause was signed.
    issued: UnixMillis,
}

impl Pausing {
    /// Takes a pause whose signature holds; the last one counts. Whether it differs from the one in force.
    pub fn take(
        &mut self,
        now: Now,
        device: &DeviceId,
        fleet: &FleetId,
        pause: &Pause,
    ) -> Result<bool, PauseRefusal> {
        if pause.device != *device || pause.fleet != *fleet {
            return Err(PauseRefusal::Foreign);
        }
        if pause.issued < self.issued {
            return Err(PauseRefusal::Replay);
        }
        let again = pause.issued == self.issued;
        self.issued = pause.issued;
        let left = pause.left(now.wall);
        let until = (left.0 > 0).then(|| after(now.elapsed, left));
        let before = self.until.filter(|until| now.elapsed < *until);
        if again && before.is_some() {
            // The retained message once more.
            return Ok(false);
        }
        self.until = until;
        Ok(before != until)
    }

    /// Until when nothing is to be asked for or repeated, on the monotonic clock; none without a pause.
    pub fn until(&self, now: Millis) -> Option<Millis> {
        self.until.filter(|until| now < *until)
    }

    /// When the pause is over; then [`Self::end`].
    pub const fn deadline(&self) -> Option<Millis> {
        self.until
    }

    /// Ends a pause whose time is over; true once.
    pub fn end(&mut self, now: Millis) -> bool {
        self.until.take_if(|until| *until <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serin_protocol::pause::MAX_PAUSE;

    fn device() -> DeviceId {
        "d".parse().expect("name")
    }

    fn fleet() -> FleetId {
        "f".parse().expect("name")
    }

    fn pause(issued: u64, until: u64) -> Pause {
        Pause { device: device(), fleet: fleet(), issued: UnixMillis(issued), until: UnixMillis(until) }
    }

    fn now(at: u64) -> Now {
        Now { wall: UnixMillis(10_000 + at), elapsed: Millis(at) }
    }

    #[test]
    fn a_pause_ends_by_itself_or_by_a_word() {
        let mut pausing = Pausing::default();
        let mut take = |at, pause: &Pause| pausing.take(now(at), &device(), &fleet(), pause);
        assert_eq!(take(0, &pause(10_000, 15_000)), Ok(true));
        assert_eq!(take(1, &pause(10_000, 15_000)), Ok(false), "said again at a reconnection");
        assert_eq!(take(2, &pause(9_000, 99_000)), Err(PauseRefusal::Replay));
        assert_eq!(take(3, &pause(10_003, 10_003)), Ok(true), "resumed");
        assert_eq!(take(4, &pause(10_004, 10_009)), Ok(true));
        assert_eq!((pausing.until(Millis(8)), pausing.end(Millis(8))), (Some(Millis(9)), false));
        assert_eq!((pausing.until(Millis(9)), pausing.end(Millis(9))), (None, true));
        assert!(!pausing.end(Millis(10)) && pausing.deadline().is_none());
    }

    #[test]
    fn nobody_elses_pause_counts() {
        let other = Pause { device: "e".parse().expect("name"), ..pause(10_000, 15_000) };
        let taken = Pausing::default().take(now(0), &device(), &fleet(), &other);
        assert_eq!(taken, Err(PauseRefusal::Foreign));
    }

    proptest! {
        #[test]
        fn no_pause_lasts_longer_than_a_day(issued: u64, until: u64, at in 0..1_000_000_u64) {
            let mut pausing = Pausing::default();
            let _ = pausing.take(now(at), &device(), &fleet(), &pause(issued, until));
            prop_assert_eq!(pausing.until(Millis(at).plus(MAX_PAUSE)), None);
        }
    }
}
