//! An agent that starts again and again: how often is too often, and what is done about it. Pure.
//!
//! A run that did not end by an orderly stop counts, unless it was long enough to be healthy. First goes what
//! is new (the unfinished update), then what is newest (the active release), and when neither helped the
//! device runs no release at all, so that at least the agent lives and can be told what to do.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serin_protocol::ids::{Millis, UnixMillis};
use serin_protocol::message::CrashAction;

/// How many restarts within how much time are a crash loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashPolicy {
    /// Restarts without an orderly stop.
    pub restarts: u32,
    /// Within this time. A run that lasts as long is healthy, and those before it are forgotten.
    pub window: Millis,
}

impl CrashPolicy {
    /// Most restarts that can be counted: the file that holds them stays within a page.
    pub const MAX_RESTARTS: u32 = 100;
}

impl Default for CrashPolicy {
    /// 5 in 10 minutes: somebody who unplugs a device again and again does not come to five so soon, and a
    /// watchdog that ends the agent twice a minute does.
    fn default() -> Self {
        Self { restarts: 5, window: Millis::from_secs(600) }
    }
}

/// Starts that were not followed by an orderly stop, as of `now`: those of `before` that still count. A clock
/// that went back makes none of them too old.
pub fn counted(policy: CrashPolicy, before: &[UnixMillis], now: UnixMillis) -> Vec<UnixMillis> {
    let mut recent: Vec<UnixMillis> =
        before.iter().copied().filter(|start| now.since(*start) < policy.window).collect();
    let most = policy.restarts.min(CrashPolicy::MAX_RESTARTS) as usize;
    recent.drain(..recent.len().saturating_sub(most));
    recent
}

/// What may be the cause of a crash loop, the likeliest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspect {
    /// An update that has not come to its probation.
    Update,
    /// The active release, and there is another to go back to or it was not proven yet.
    Release,
    /// Whatever runs; there is nothing else to try.
    Everything,
    /// Nothing runs that could be left out.
    Nobody,
}

/// What is to be done about `restarts` restarts; none while there is no crash loop.
pub const fn verdict(policy: CrashPolicy, restarts: u32, suspect: Suspect) -> Option<CrashAction> {
    if restarts < policy.restarts {
        return None;
    }
    match suspect {
        Suspect::Update => Some(CrashAction::GaveUp),
        Suspect::Release => Some(CrashAction::RolledBack),
        Suspect::Everything => Some(CrashAction::SafeMode),
        Suspect::Nobody => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: CrashPolicy = CrashPolicy { restarts: 3, window: Millis(1000) };

    fn at(starts: &[u64]) -> Vec<UnixMillis> {
        starts.iter().copied().map(UnixMillis).collect()
    }

    #[test]
    fn only_recent_starts_count() {
        assert_eq!(counted(POLICY, &at(&[0, 500, 1200]), UnixMillis(1400)), at(&[500, 1200]));
        assert_eq!(counted(POLICY, &at(&[0, 500]), UnixMillis(9000)), at(&[]));
        // The clock was never set before, or was set back.
        assert_eq!(counted(POLICY, &at(&[9000, 9001]), UnixMillis(7)), at(&[9000, 9001]));
    }

    #[test]
    fn the_newest_is_blamed_first_and_safe_mode_comes_last() {
        let of = |suspect| verdict(POLICY, 3, suspect);
        assert_eq!(of(Suspect::Update), Some(CrashAction::GaveUp));
        assert_eq!(of(Suspect::Release), Some(CrashAction::RolledBack));
        assert_eq!(of(Suspect::Everything), Some(CrashAction::SafeMode));
        assert_eq!(of(Suspect::Nobody), None);
        assert_eq!(verdict(POLICY, 2, Suspect::Everything), None);
    }

    proptest! {
        #[test]
        fn the_list_is_bounded(starts: Vec<u64>, now: u64) {
            prop_assert!(counted(POLICY, &at(&starts), UnixMillis(now)).len() <= 3);
        }
    }
}
