//! Who is early: devices stand in one line, ordered by a hash of rollout salt and device id.
//!
//! A stage of share `s` gives the release to the first `ceil(s · n)` of the line, at least one, where `n`
//! counts all devices that are not pinned. Whoever has the release keeps it, whatever joins the line
//! later, so that shares only grow and nobody changes sides. A late device takes its own place in the
//! line: it gets the release at once if the stage has room when its turn comes, else in a later stage.
//! The end of the line is the control group; where it begins is fixed when the rollout starts, and late
//! devices beyond that point belong to it too.

use serde::{Deserialize, Serialize};
use serin_protocol::ids::{BasisPoints, DeviceId, Digest};

/// Drawn at random once per rollout, so that not always the same devices are early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Salt(pub u64);

/// A place in the line; the whole range of 64 bits is one fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// The place of `device` in the rollout with `salt`: the first 64 bits of SHA-256 over both.
    pub fn of(salt: Salt, device: &DeviceId) -> Self {
        let mut hasher = Digest::hasher();
        hasher.update(&salt.0.to_be_bytes());
        hasher.update(device.as_str().as_bytes());
        let digest = hasher.finish();
        Self(digest.0.iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }
}

/// How many of `n` devices a share is: rounded up, so that any share of some devices is at least one.
pub fn places(share: BasisPoints, n: usize) -> usize {
    let whole = usize::from(BasisPoints::WHOLE.0);
    n.saturating_mul(usize::from(share.0)).div_ceil(whole).min(n)
}

/// Where the control group begins among devices at `positions`: the last `ceil(control · n)` of them,
/// but never all. With fewer than two devices, where that share of all possible places begins. `None`
/// without a control group.
pub fn control_start(control: BasisPoints, positions: &mut [Position]) -> Option<Position> {
    if control.0 == 0 {
        return None;
    }
    positions.sort_unstable();
    let count = places(control, positions.len()).min(positions.len().saturating_sub(1));
    let first = positions.len().checked_sub(count).and_then(|first| positions.get(first));
    match first {
        Some(position) if count > 0 => Some(*position),
        Some(_) | None => {
            let kept = u128::from(BasisPoints::WHOLE.0.saturating_sub(control.0));
            let start = (u128::from(u64::MAX) + 1) * kept / u128::from(BasisPoints::WHOLE.0);
            Some(Position(u64::try_from(start).unwrap_or(u64::MAX)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_quarter_of_twelve_is_three_and_any_share_of_some_is_one() {
        assert_eq!(places(BasisPoints(2500), 12), 3);
        assert_eq!(places(BasisPoints(1), 2), 1);
        assert_eq!(places(BasisPoints(10_000), 7), 7);
        assert_eq!(places(BasisPoints(5000), 0), 0);
    }

    #[test]
    fn a_place_is_the_head_of_a_sha256() {
        // printf '\0\0\0\0\0\0\0\7device-01' | sha256sum
        let position = Position::of(Salt(7), &DeviceId::new("device-01").expect("name"));
        assert_eq!(format!("{:016x}", position.0), "48a80c7fca97deb7");
    }

    #[test]
    fn the_control_group_is_never_the_whole_fleet() {
        let positions = |n: u64| (1..=n).map(|place| Position(place * 100)).collect::<Vec<_>>();
        assert_eq!(control_start(BasisPoints(2000), &mut positions(12)), Some(Position(1000)));
        assert_eq!(control_start(BasisPoints(10_000), &mut positions(3)), Some(Position(200)));
        assert_eq!(control_start(BasisPoints(0), &mut positions(3)), None);
        assert_eq!(control_start(BasisPoints(5000), &mut positions(1)), Some(Position(1 << 63)));
        assert_eq!(control_start(BasisPoints(5000), &mut positions(0)), Some(Position(1 << 63)));
    }

    proptest! {
        #[test]
        fn shares_grow_with_share_and_fleet(a in 0_u16..=10_000, b in 0_u16..=10_000, n in 0_usize..5000) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(places(BasisPoints(low), n) <= places(BasisPoints(high), n));
            prop_assert!(places(BasisPoints(low), n) <= places(BasisPoints(low), n + 1));
            prop_assert!(places(BasisPoints(high), n) <= n);
        }

        #[test]
        fn places_are_spread_evenly(salt: u64) {
            let early = (0..1000_u32).filter(|number| {
                let device = DeviceId::new(&format!("edge-{number}")).expect("name");
                Position::of(Salt(salt), &device).0 < u64::MAX / 4
            });
            // Binomial(1000, 1/4): mean 250, standard deviation 13.7; seven of them.
            prop_assert!((154..=346).contains(&early.count()));
        }
    }
}
