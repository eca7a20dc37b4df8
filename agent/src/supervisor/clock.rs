//! The one place where the agent reads clocks. Wall time is never taken to be below the highest signed
//! time seen, so that a device whose battery-backed clock is dead does not accept what has expired.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serin_protocol::ids::{Millis, UnixMillis};

use crate::update::effect::Now;

/// Both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Instant,
}

impl Clock {
    /// A clock whose monotonic side starts now.
    pub(super) fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Both clocks now; the wall clock not below `floor`.
    pub(super) fn now(self, floor: UnixMillis) -> Now {
        Now { wall: self.system().max(floor), elapsed: millis(self.started.elapsed()) }
    }

    /// What the system says it is, right or wrong.
    #[expect(clippy::unused_self, reason = "clocks are read through the clock")]
    pub(super) fn system(self) -> UnixMillis {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(millis(wall).0)
    }

    /// The runtime's instant for a moment on the monotonic side.
    pub(super) fn instant(self, elapsed: Millis) -> tokio::time::Instant {
        // Deadlines lie at most days ahead; an overflow would only mean "much later".
        let at = self.started.checked_add(Duration::from_millis(elapsed.0));
        tokio::time::Instant::from_std(at.unwrap_or(self.started))
    }
}

fn millis(span: Duration) -> Millis {
    Millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}
