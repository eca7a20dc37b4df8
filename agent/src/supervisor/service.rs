//! What the service manager is told: that the agent is up, that its loop goes round, that it stops. Without
//! systemd nobody listens and nothing happens.

use sd_notify::NotifyState;
use serin_protocol::ids::Millis;

/// The agent as a service of systemd.
#[derive(Debug)]
pub(super) struct Service {
    /// How often a watchdog wants to hear from us; none without one.
    every: Option<Millis>,
    due: Millis,
}

impl Service {
    pub(super) fn new() -> Self {
        // Twice as often as it must be: one late turn is no death.
        let every = sd_notify::watchdog_enabled().map(|limit| Millis((limit.as_millis() / 2) as u64));
        Self { every, due: Millis(0) }
    }

    /// Local apps and engineers are answered from now on.
    #[expect(clippy::unused_self, reason = "the service is spoken to through this")]
    pub(super) fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// The loop has gone round once more. Said by the loop itself and nobody else, so that a loop that hangs
    /// is noticed.
    pub(super) fn alive(&mut self, now: Millis) {
        if let Some(every) = self.every
            && self.due <= now
        {
            self.due = now.plus(every);
            tell(&[NotifyState::Watchdog]);
        }
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
