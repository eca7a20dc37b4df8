//! Which workers live, and which of them the gateway points to: recomputed after every event, so that
//! booting, switching, rolling back and a dying worker are one path.

use serin_protocol::ids::{Digest, Millis};
use serin_protocol::message::{EventKind, Reason, WorkerDeath};

use super::{Machine, Pointer, Work, Worker};
use crate::link::backoff::Backoff;
use crate::update::effect::{Effect, Effects, Now};
use crate::update::record::{Slot, Standing};

/// Before a worker that did not come up, or keeps dying, is tried again.
const RETRY: Backoff = Backoff { first: Millis::from_secs(1), cap: Millis::from_secs(60) };
/// The same after it ran out of memory: what did not fit a moment ago does not fit now, and trying takes the
/// memory from others.
const MEMORY_RETRY: Backoff = Backoff { first: Millis::from_secs(60), cap: Millis::from_secs(900) };
/// Deaths in a row after which a worker is started again at once: any process can be hit by a stray signal.
const FREE_DEATHS: u8 = 2;
/// A worker that lived this long did not die of starting.
const LONG_LIFE: Millis = Millis::from_secs(600);

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
                let failures = self.failures(statement);
                self.state.workers.insert(statement, Worker::Ready { failures, since: now.elapsed });
                if let Work::Warming { slot } = &self.state.work
                    && slot.statement == statement
                {
                    let slot = slot.clone();
                    self.proved(now, slot, effects);
                }
            }
            Err(reason) => self.not_warmed(now, statement, reason, effects),
        }
    }

    /// Its worker is there and can answer.
    pub(super) fn is_ready(&self, statement: Digest) -> bool {
        matches!(self.state.workers.get(&statement), Some(Worker::Ready { .. }))
    }

    /// Times in a row that its worker did not come up or died soon.
    fn failures(&self, statement: Digest) -> u8 {
        match self.state.workers.get(&statement) {
            Some(
                Worker::Failed { failures, .. }
                | Worker::Starting { failures, .. }
                | Worker::Ready { failures, .. },
            ) => *failures,
            None => 0,
        }
    }

    pub(super) fn not_warmed(&mut self, now: Now, statement: Digest, reason: Reason, effects: &mut Effects) {
        let failures = self.failures(statement).saturating_add(1);
        let policy =
            if reason == Reason::WorkerDied(WorkerDeath::MemoryLimit) { MEMORY_RETRY } else { RETRY };
        let retry_at = now.elapsed.plus(policy.wait(u32::from(failures), &mut self.jitter));
        self.state.workers.insert(statement, Worker::Failed { failures, retry_at });
        if matches!(&self.state.work, Work::Warming { slot } if slot.statement == statement) {
            self.state.workers.remove(&statement);
            self.abandon(reason, effects);
        } else if self.is_tried(statement) {
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
        self.note_death(now, statement, &death);
        if let Some(release) = self.release_of(statement) {
            self.report(EventKind::WorkerDied { release, death: death.clone() }, effects);
        }
        if matches!(&self.state.work, Work::Warming { slot } if slot.statement == statement) {
            self.abandon(Reason::WorkerDied(death), effects);
        } else if self.is_tried(statement) {
            self.tried_died(death, effects);
        } else if self.is_active(statement) {
            self.active_died(now, death, effects);
        }
    }

    /// The worker is gone; when another may be started.
    fn note_death(&mut self, now: Now, statement: Digest, death: &WorkerDeath) {
        let lived = match self.state.workers.get(&statement) {
            Some(Worker::Ready { since, .. }) => Millis(now.elapsed.0.saturating_sub(since.0)),
            Some(Worker::Failed { .. } | Worker::Starting { .. }) | None => Millis(0),
        };
        let before = if lived < LONG_LIFE { self.failures(statement) } else { 0 };
        let failures = before.saturating_add(1);
        self.forget_worker(statement);
        let wait = match death {
            WorkerDeath::MemoryLimit => MEMORY_RETRY.wait(u32::from(failures), &mut self.jitter),
            WorkerDeath::Hung | WorkerDeath::Signal(_) | WorkerDeath::Exit(_) | WorkerDeath::Forbidden
                if failures <= FREE_DEATHS =>
            {
                Millis(0)
            }
            WorkerDeath::Hung | WorkerDeath::Signal(_) | WorkerDeath::Exit(_) | WorkerDeath::Forbidden => {
                RETRY.wait(u32::from(failures - FREE_DEATHS), &mut self.jitter)
            }
        };
        let retry_at = now.elapsed.plus(wait);
        self.state.workers.insert(statement, Worker::Failed { failures, retry_at });
    }

    pub(super) fn forget_worker(&mut self, statement: Digest) {
        self.state.workers.remove(&statement);
        if self.state.gateway == Pointer::To(statement) {
            self.state.gateway = Pointer::Dead;
        }
    }

    /// Points the gateway to the active release if its worker is ready.
    pub(super) fn point_gateway(&mut self, effects: &mut Effects) {
        let safe = self.state.record.safe_mode;
        match self.state.record.active.as_ref().filter(|_| !safe) {
            Some(active) if self.is_ready(active.statement) => {
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
        self.make_room(&wanted, effects);
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
                Some(Worker::Failed { .. } | Worker::Starting { .. } | Worker::Ready { .. }) => continue,
            };
            self.state.workers.insert(slot.statement, Worker::Starting { failures, since: now.elapsed });
            effects.push(Effect::Warm { slot, golden });
        }
        self.point_gateway(effects);
        self.point_beside(effects);
        if self.serving() != serving && serving.is_some() {
            // The one that answered until now may have become superfluous.
            self.keep_serving(now, effects);
        }
    }

    /// Ends the release that answers when it is not wanted any more and leaves those that are too little memory.
    fn make_room(&mut self, wanted: &[(Slot, bool)], effects: &mut Effects) {
        let Some(serving) = self.serving() else { return };
        if wanted.iter().any(|(slot, _)| slot.statement == serving) {
            return;
        }
        let record = &self.state.record;
        let mut slots = record.active.iter().chain(&record.previous);
        let its = slots.find(|slot| slot.statement == serving).map_or(0, |slot| slot.memory.0);
        let theirs: u64 = wanted.iter().map(|(slot, _)| slot.memory.0).sum();
        let ready = wanted.first().is_some_and(|(slot, _)| self.is_ready(slot.statement));
        if !ready && theirs.saturating_add(its) > self.identity.memory_budget.0 {
            self.state.gateway = Pointer::Nowhere;
            effects.push(Effect::Suspend);
        }
    }

    /// The active release, the candidate under proof or on trial, and the previous one while memory allows: what
    /// should have a worker, and whether golden vectors come first. In safe mode only a candidate.
    fn wanted(&self) -> Vec<(Slot, bool)> {
        let mut wanted = Vec::new();
        let mut memory = 0_u64;
        let safe = self.state.record.safe_mode;
        let proving = match &self.state.work {
            Work::Warming { slot } => slot.memory.0,
            _ => 0,
        };
        // One after the other where both do not fit: admission has allowed it, and the active one comes back when
        // the candidate is given up.
        let fits = |slot: &&Slot| {
            proving == 0 || proving.saturating_add(slot.memory.0) <= self.identity.memory_budget.0
        };
        if let Some(active) = self.state.record.active.as_ref().filter(|_| !safe).filter(fits) {
            memory = memory.saturating_add(active.memory.0);
            wanted.push((active.clone(), false));
        }
        if let Work::Warming { slot } = &self.state.work {
            memory = memory.saturating_add(slot.memory.0);
            wanted.push((slot.clone(), true));
        }
        if let Work::Trial { slot, .. } = &self.state.work {
            memory = memory.saturating_add(slot.memory.0);
            wanted.push((slot.clone(), false));
        }
        if let Some(previous) = self.state.record.previous.as_ref().filter(|_| !safe) {
            let fits = memory.saturating_add(previous.memory.0) <= self.identity.memory_budget.0;
            // Started only once the active release answers, which is waited for more urgently.
            let time = self.active_is_serving() || self.state.workers.contains_key(&previous.statement);
            let tried = self.is_tried(previous.statement);
            if fits && previous.standing != Standing::Condemned && time && !tried {
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
