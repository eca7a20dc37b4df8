//! Watches the active release by the policy that its owner signed for devices on their own, where there is one.

use serin_protocol::ids::Digest;

use super::Supervisor;
use crate::update::effect::Event;
use crate::update::local_rollback::Guard;

/// The release that is watched.
pub(super) struct Watching {
    statement: Digest,
    /// None where its owner signed no such policy.
    guard: Option<Guard>,
    /// It was said that the device cannot act upon it.
    told: bool,
}

impl Supervisor {
    /// Whether it is to be looked at again soon: it has such a policy, or is not the one looked at last.
    pub(super) fn guards(&self) -> bool {
        match (self.machine.serving(), &self.guard) {
            (None, watching) => watching.is_some(),
            // Not before it has a worker.
            (Some(serving), _) if !self.workers.contains_key(&serving) => false,
            (Some(_), None) => true,
            (Some(serving), Some(watching)) => watching.statement != serving || watching.guard.is_some(),
        }
    }

    /// Looks at the active release, and has it taken back if it breaks its policy.
    pub(super) fn attend_guard(&mut self) {
        let Some(statement) = self.machine.serving() else {
            self.guard = None;
            return;
        };
        let Some(running) = self.workers.get(&statement) else { return };
        let (now, conduct) = (self.now().elapsed, running.served.recording().lock().conduct());
        let policy = running.served.manifest().local_rollback;
        let begin =
            || Watching { statement, guard: policy.map(|policy| Guard::new(policy, conduct)), told: false };
        let mut watching =
            self.guard.take().filter(|watching| watching.statement == statement).unwrap_or_else(begin);
        let broken = watching.guard.as_mut().and_then(|guard| guard.look(now, &conduct));
        let may = self.machine.may_take_back(statement);
        if let Some(reason) = &broken
            && !may
            && !std::mem::replace(&mut watching.told, true)
        {
            tracing::warn!(%reason, "the release breaks its own policy, and the device stays: it is pinned, or there is no release to go back to");
        }
        self.guard = Some(watching);
        if let Some(reason) = broken.filter(|_| may) {
            self.feed(Event::Unfit(statement, reason));
        }
    }
}
