//! What the service manager is told: that the agent is up, that it gets on, that it stops. Without systemd
//! nobody listens and nothing happens.

use sd_notify::NotifyState;
use serin_protocol::ids::Millis;

/// How often the loop goes round where no watchdog wants to hear of it.
const UNWATCHED: Millis = Millis::from_secs(60);

/// The agent as a service of systemd.
#[derive(Debug)]
pub(super) struct Service {
    watchdog: Watchdog,
    /// What stands still, if it was said.
    said: Option<&'static str>,
}

/// When a watchdog is to be pinged. Pure.
#[derive(Debug)]
struct Watchdog {
    /// How often it wants to hear from us; none without one.
    every: Option<Millis>,
    due: Millis,
}

impl Watchdog {
    /// When to ask next, later than `now`.
    fn next(&self, now: Millis) -> Millis {
        let every = self.every.unwrap_or(UNWATCHED);
        if self.due > now { self.due.min(now.plus(every)) } else { now.plus(every) }
    }

    /// Whether to ping now. Who does not get on must not: to be ended and started again is the way out.
    fn ping(&mut self, now: Millis, gets_on: bool) -> bool {
        let Some(every) = self.every.filter(|_| gets_on && self.due <= now) else { return false };
        self.due = now.plus(every);
        true
    }
}

impl Service {
    pub(super) fn new() -> Self {
        // Twice as often as it must be: one late turn is no death.
        let every = sd_notify::watchdog_enabled().map(|limit| Millis((limit.as_millis() / 2) as u64));
        Self { watchdog: Watchdog { every, due: Millis(0) }, said: None }
    }

    /// Local apps and engineers are answered from now on.
    #[expect(clippy::unused_self, reason = "the service is spoken to through this")]
    pub(super) fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// The loop has gone round once more; `stands_still` names what beside it does not get on. Said by the
    /// loop itself and nobody else, so that a loop that hangs is noticed too.
    pub(super) fn alive(&mut self, now: Millis, stands_still: Option<&'static str>) {
        if stands_still != self.said {
            if let Some(what) = stands_still {
                tracing::error!(what, "stands still; the watchdog is no longer pinged");
            } else {
                tracing::info!("everything gets on again");
            }
            self.said = stands_still;
        }
        if self.watchdog.ping(now, stands_still.is_none()) {
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// When that is to be said next, if nothing else happens. Who does not get on is looked at as often.
    pub(super) fn next_ping(&self, now: Millis) -> Millis {
        self.watchdog.next(now)
    }

    /// It ends because it was told to.
    #[expect(clippy::unused_self, reason = "the service is spoken to through this")]
    pub(super) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager does not listen");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_pinged_in_time_and_only_while_everything_gets_on() {
        let mut watchdog = Watchdog { every: Some(Millis(10)), due: Millis(0) };
        let pings = |watchdog: &mut Watchdog, at: &[u64], gets_on| {
            at.iter().filter(|at| watchdog.ping(Millis(**at), gets_on)).count()
        };
        assert_eq!(pings(&mut watchdog, &[0, 5, 9, 10, 19, 21], true), 3);
        assert_eq!(pings(&mut watchdog, &[40, 50, 60], false), 0);
        assert_eq!(pings(&mut watchdog, &[61], true), 1, "at once when it gets on again");
        let mut nobody = Watchdog { every: None, due: Millis(0) };
        assert_eq!(pings(&mut nobody, &[0, 100], true), 0);
        assert_eq!(nobody.next(Millis(100)), Millis(100).plus(UNWATCHED));
    }

    #[test]
    fn the_loop_goes_round_when_a_ping_is_due_and_not_at_once_while_something_stands_still() {
        let mut watchdog = Watchdog { every: Some(Millis(10)), due: Millis(0) };
        assert!(watchdog.ping(Millis(3), true));
        assert_eq!(watchdog.next(Millis(4)), Millis(13));
        assert!(!watchdog.ping(Millis(13), false));
        assert_eq!(watchdog.next(Millis(13)), Millis(23));
    }
}
