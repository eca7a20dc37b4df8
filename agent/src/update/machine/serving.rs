//! Which workers live, and which of them the gateway points to: recomputed after every event, so that
//! booting, switching, rolling back and a dying worker are one path.

use serin_protocol::ids::{Digest, Millis};
use serin_protocol::message::{EventKind, Reason, WorkerDeath};

use super::{Machine, Pointer, Work, Worker};
use crate::update::effect::{Effect, Effects, Now};
use crate::update::record::{Slot, Standing};

/// First delay before a worker that did not come up is tried again; doubles up to [`LONGEST_RETRY`].
const FIRST_RETRY: Millis = Millis::from_secs(1);
/// See [`FIRST_RETRY`].
const LONGEST_RETRY: Millis = Millis::from_secs(60);

/// Starts that may fail before an active release is taken back while another still answers for it: one may be
/// the disk's fault. When nothing answers, the first failure is enough.
const PATIENT_STARTS: u8 = 3;

impl Machine {
    pub(super) fn active_is_serving(&self) -> bool {
        let active = self.state.record.active.as_ref().map(|slot| slot.statement);
        active.is_some() && active == self.serving()
    }

    pub(super) fn warmed(
        &mut self,
        now: Now,
        statement: Digest,
        outcome: Result<(), Reason>,
        effects: &mut Effects,
    ) {
        match outcome {
            Ok(()) => {
                self.state.workers.insert(statement, Worker::Ready);
                if let Work::Warming { slot } = &self.state.work
                    && slot.statement == statement
                {
                    let slot = slot.clone();
                    self.enter_probation(now, slot, effects);
                }
            }
            Err(reason) => self.not_warmed(now, statement, reason, effects),
        }
    }

    fn not_warmed(&mut self, now: Now, statement: Digest, reason: Reason, effects: &mut Effects) {
        let before = match self.state.workers.get(&statement) {
            Some(Worker::Failed { failures, .. } | Worker::Starting { failures }) => *failures,
            Some(Worker::Ready) | None => 0,
        };
        let delay = FIRST_RETRY.0.saturating_mul(1 << before.min(6)).min(LONGEST_RETRY.0);
        let retry_at = now.elapsed.plus(Millis(delay));
        let failures = before.saturating_add(1);
        self.state.workers.insert(statement, Worker::Failed { failures, retry_at });
        if matches!(&self.state.work, Work::Warming { slot } if slot.statement == statement) {
            self.state.workers.remove(&statement);
            self.abandon(reason, effects);
        } else if self.is_active(statement)
            && self.has_trusted_previous()
            && (self.serving().is_none() || failures >= PATIENT_STARTS)
        {
            self.take_back(reason, effects);
        }
    }

    pub(super) fn worker_died(
        &mut self,
        now: Now,
        statement: Digest,
        death: WorkerDeath,
        effects: &mut Effects,
    ) {
        self.forget_worker(statement);
        if let Some(release) = self.release_of(statement) {
            self.report(EventKind::WorkerDied { release, death: death.clone() }, effects);
        }
        if matches!(&self.state.work, Work::Warming { slot } if slot.statement == statement) {
            self.abandon(Reason::WorkerDied(death), effects);
        } else if self.is_active(statement) {
            self.active_died(now, death, effects);
        }
    }

    pub(super) fn forget_worker(&mut self, statement: Digest) {
        self.state.workers.remove(&statement);
        if self.state.gateway == Pointer::To(statement) {
            self.state.gateway = Pointer::Dead;
        }
    }

    /// Points the gateway to the active release if its worker is ready.
    pub(super) fn point_gateway(&mut self, effects: &mut Effects) {
        match &self.state.record.active {
            Some(active) if self.state.workers.get(&active.statement) == Some(&Worker::Ready) => {
                let there = Pointer::To(active.statement);
                if self.state.gateway != there {
                    self.state.gateway = there;
                    effects.push(Effect::Flip(active.clone()));
                }
            }
            // Until its worker is up, whoever answers goes on answering.
            Some(_) => {}
            None => {
                if self.state.gateway != Pointer::Nowhere {
                    self.state.gateway = Pointer::Nowhere;
                    effects.push(Effect::Unserve);
                }
            }
        }
    }

    /// Starts what should run, stops what should not, points the gateway.
    pub(super) fn keep_serving(&mut self, now: Now, effects: &mut Effects) {
        let wanted = self.wanted();
        let serving = self.serving();
        let superfluous = |statement: &Digest| {
            !wanted.iter().any(|(slot, _)| slot.statement == *statement) && serving != Some(*statement)
        };
        let stopped: Vec<Digest> = self.state.workers.keys().copied().filter(superfluous).collect();
        for statement in stopped {
            if !matches!(self.state.workers.remove(&statement), Some(Worker::Failed { .. }) | None) {
                effects.push(Effect::Stop(statement));
            }
        }
        for (slot, golden) in wanted {
            let failures = match self.state.workers.get(&slot.statement) {
                None => 0,
                Some(Worker::Failed { retry_at, failures }) if *retry_at <= now.elapsed => *failures,
                Some(Worker::Failed { .. } | Worker::Starting { .. } | Worker::Ready) => continue,
            };
            self.state.workers.insert(slot.statement, Worker::Starting { failures });
            effects.push(Effect::Warm { slot, golden });
        }
        self.point_gateway(effects);
        if self.serving() != serving && serving.is_some() {
            // The one that answered until now may have become superfluous.
            self.keep_serving(now, effects);
        }
    }

    /// The active release, the candidate under proof, and the previous one while memory allows: what
    /// should have a worker, and whether golden vectors come first.
    fn wanted(&self) -> Vec<(Slot, bool)> {
        let mut wanted = Vec::new();
        let mut memory = 0_u64;
        if let Some(active) = &self.state.record.active {
            memory = memory.saturating_add(active.memory.0);
            wanted.push((active.clone(), false));
        }
        if let Work::Warming { slot } = &self.state.work {
            memory = memory.saturating_add(slot.memory.0);
            wanted.push((slot.clone(), true));
        }
        if let Some(previous) = &self.state.record.previous {
            let fits = memory.saturating_add(previous.memory.0) <= self.identity.memory_budget.0;
            // Started only once the active release answers, which is waited for more urgently.
            let time = self.active_is_serving() || self.state.workers.contains_key(&previous.statement);
            if fits && previous.standing != Standing::Condemned && time {
                wanted.push((previous.clone(), false));
            }
        }
        wanted
    }

    fn is_active(&self, statement: Digest) -> bool {
        self.state.record.active.as_ref().is_some_and(|slot| slot.statement == statement)
    }

    fn release_of(&self, statement: Digest) -> Option<serin_protocol::ids::ReleaseId> {
        let slots = self.state.record.active.iter().chain(&self.state.record.previous);
        let mut slots = slots.filter(|slot| slot.statement == statement).map(|slot| slot.release.clone());
        let attempt =
            self.state.record.attempt.as_ref().filter(|attempt| attempt.target.statement == statement);
        slots.next().or_else(|| attempt.map(|attempt| attempt.target.id.clone()))
    }
}
