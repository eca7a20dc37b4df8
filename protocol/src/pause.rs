//! The server's word to one device to hold back for a while, like `Retry-After` in HTTP: a server or a
//! network in trouble is not helped by those who ask again.

use serde::{Deserialize, Serialize};

use crate::envelope::Signed;
use crate::ids::{DeviceId, FleetId, Millis, UnixMillis};

/// Longest pause: a device that was forgotten in one must come back by itself the next day.
pub const MAX_PAUSE: Millis = Millis::from_secs(24 * 3600);

/// Largest pause message in bytes: two names and two numbers stay under 150, with the envelope under 250.
pub const MAX_PAUSE_BYTES: usize = 512;

/// Until when one device holds transfers, repetitions and reconnections back. What it runs is not touched,
/// and neither are rollbacks and the field engineer's orders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The only device this is for.
    pub device: DeviceId,
    /// The only fleet this is for.
    pub fleet: FleetId,
    /// When it was signed; an older one than the last is a replay.
    pub issued: UnixMillis,
    /// It is over then. Not after `issued`: it is over now.
    pub until: UnixMillis,
}

impl Pause {
    /// How much of it is left at `now`: never more than it was given, nor than [`MAX_PAUSE`].
    pub const fn left(&self, now: UnixMillis) -> Millis {
        let (given, left) = (self.until.since(self.issued).0, self.until.since(now).0);
        let left = if left < given { left } else { given };
        Millis(if left < MAX_PAUSE.0 { left } else { MAX_PAUSE.0 })
    }
}

impl Signed for Pause {
    const PURPOSE: u8 = 9;
    const MAX_BYTES: usize = MAX_PAUSE_BYTES;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pause(issued: u64, until: u64) -> Pause {
        let (device, fleet) = ("d".parse().expect("name"), "f".parse().expect("name"));
        Pause { device, fleet, issued: UnixMillis(issued), until: UnixMillis(until) }
    }

    #[test]
    fn what_is_over_leaves_nothing() {
        assert_eq!(pause(1000, 5000).left(UnixMillis(2000)), Millis(3000));
        assert_eq!(pause(1000, 5000).left(UnixMillis(5000)), Millis(0));
        assert_eq!(pause(1000, 1000).left(UnixMillis(0)), Millis(0), "a resume");
        assert_eq!(pause(1000, 5000).left(UnixMillis(0)), Millis(4000), "a slow clock makes it no longer");
    }

    proptest! {
        #[test]
        fn no_pause_is_for_ever(issued: u64, until: u64, now: u64) {
            let left = pause(issued, until).left(UnixMillis(now));
            prop_assert!(left <= MAX_PAUSE);
            prop_assert!(left.0 <= until.saturating_sub(issued));
        }

        #[test]
        fn any_bytes_are_a_pause_or_an_error(bytes: std::vec::Vec<u8>) {
            let _ = postcard::from_bytes::<Pause>(&bytes);
        }
    }

    #[test]
    fn the_longest_fits() {
        let longest = Pause {
            device: DeviceId::new(&"d".repeat(DeviceId::MAX_BYTES)).expect("valid"),
            fleet: FleetId::new(&"f".repeat(FleetId::MAX_BYTES)).expect("valid"),
            ..pause(u64::MAX, u64::MAX)
        };
        let mut buffer = [0; MAX_PAUSE_BYTES];
        assert!(postcard::to_slice(&longest, &mut buffer).expect("fits").len() < 150);
    }
}
