//! The update machine: `Idle → Assigned → Admitted → Fetching → Verified → Staged → Warming → Probation →
//! Committed`, leaving to `Rejected` or `RolledBack` from any of them.
//!
//! `handle(now, event) -> effects` decides everything; the shell carries the effects out in order and
//! stops at the first that fails. Every change of what runs is persisted before it is visible.
//! `attempt` moves an update forward, `back` takes one back, `serving` keeps the right workers alive behind the gateway, `engineer`
//! obeys whoever is on site, `sideload` installs what he brings, `waiting` holds it up while local conditions do
//! not allow it, `unfit` leaves a release that breaks its own policy, `time` ends what takes too long, `crash` breaks crash loops, `orders` takes the fleet's word, `finish`
//! does what every step ends with.

mod attempt;
mod back;
mod crash;
mod engineer;
mod finish;
mod orders;
mod serving;
mod sideload;
mod time;
mod trial;
mod unfit;
mod waiting;

pub use self::engineer::MAX_HOLD;

use std::collections::BTreeMap;
use std::mem::discriminant;

use serin_protocol::assignment::TrialMode;
use serin_protocol::ids::{ByteCount, DeviceId, Digest, FleetId, Millis, ReleaseId, SequenceNumber};
use serin_protocol::message::{EventKind, Phase, Reason};
use serin_protocol::release::Release;

use super::crash_loop::CrashPolicy;
use super::effect::{Effect, Effects, Event, FieldRefusal, Now};
use super::policy::Verdicts;
use super::record::{Progress, Record, Slot, Standing};

use self::waiting::Told;
use crate::link::backoff::{Backoff, Jitter};

/// After a failed write of the boot record, or an update that met one, try again after this.
const STORAGE_RETRY: Backoff = Backoff { first: Millis::from_secs(10), cap: Millis::from_secs(120) };

/// What never changes while the agent runs.
#[derive(Clone, Debug)]
pub struct Identity {
    /// This device.
    pub device: DeviceId,
    /// Its fleet.
    pub fleet: FleetId,
    /// Memory that all workers may use together.
    pub memory_budget: ByteCount,
    /// Longest that unpacking a release, or bringing up a worker, may take.
    pub patience: Millis,
    /// When restarts are a crash loop.
    pub crash_policy: CrashPolicy,
    /// Spreads retries; give every device another.
    pub seed: u64,
}

/// The update machine.
#[derive(Clone, Debug)]
pub struct Machine {
    identity: Identity,
    state: State,
    // What `state` was before the last event: what is on disk if persisting it failed.
    before: State,
    // A worker found dead by the last event: true whether or not it could be persisted.
    died: Option<Digest>,
    // After a failed write: when to go on as after a restart.
    resume_at: Option<Millis>,
    // Writes that failed since one succeeded, and whether the last event wanted one.
    storage_failures: u32,
    persisting: bool,
    jitter: Jitter,
}

#[derive(Clone, Debug)]
struct State {
    record: Record,
    work: Work,
    gateway: Pointer,
    /// What is tried beside it now.
    beside: Option<(Digest, TrialMode)>,
    workers: BTreeMap<Digest, Worker>,
    /// Deaths of the active release's worker since `deaths_since`.
    deaths: u8,
    deaths_since: Millis,
    /// The last assignment refused because of a pin or hold: reported once, not at every reconnection.
    refused_by_engineer: Option<SequenceNumber>,
    /// Whether the next step may be taken.
    verdicts: Verdicts,
    /// What was last reported to be waited for: once, not at every look.
    told: Option<Told>,
    /// Restarts that were not yet acted upon.
    restarts: u32,
    /// This run is long enough for earlier starts to be forgotten.
    healthy: bool,
    /// When this run took up the attempt.
    attempt_since: Millis,
    /// When staging or warming began.
    step_since: Millis,
}

/// Where the attempt in the record stands. Without an attempt it is `None`.
#[derive(Clone, Debug, PartialEq)]
enum Work {
    None,
    AwaitingStatement,
    Fetching {
        release: Box<Release>,
        started: bool,
        paused: bool,
    },
    Staging {
        release: Box<Release>,
    },
    /// It waits to be installed.
    Staged {
        slot: Slot,
    },
    Warming {
        slot: Slot,
    },
    /// It is tried beside the active release.
    Trial {
        slot: Slot,
        until: Millis,
        deaths: u8,
    },
    Probation {
        until: Millis,
        deaths: u8,
    },
}

/// Where the gateway sends requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pointer {
    Nowhere,
    To(Digest),
    /// To a worker that has died since: requests wait there for a moment, for another to be pointed to.
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worker {
    /// It did not come up, or died soon, this many times before.
    Starting {
        failures: u8,
        since: Millis,
    },
    Ready {
        failures: u8,
        since: Millis,
    },
    /// It did not come up, or died; the next try is due then.
    Failed {
        failures: u8,
        retry_at: Millis,
    },
}

impl Machine {
    /// The machine of a device whose boot record says `record`.
    pub fn new(identity: Identity, record: Record) -> Self {
        let state = State {
            record,
            work: Work::None,
            gateway: Pointer::Nowhere,
            beside: None,
            workers: BTreeMap::new(),
            deaths: 0,
            deaths_since: Millis(0),
            refused_by_engineer: None,
            verdicts: Verdicts::default(),
            told: None,
            restarts: 0,
            healthy: false,
            attempt_since: Millis(0),
            step_since: Millis(0),
        };
        let jitter = Jitter::new(identity.seed);
        Self {
            identity,
            before: state.clone(),
            state,
            died: None,
            resume_at: None,
            storage_failures: 0,
            persisting: false,
            jitter,
        }
    }

    /// Takes one event and returns what is to be done, in order.
    #[must_use]
    pub fn handle(&mut self, now: Now, event: Event) -> Effects {
        let mut effects = Effects::new();
        if let Event::PersistFailed(reason) = event {
            self.undo(now);
            effects.push(Effect::Reply(Err(FieldRefusal::Storage(reason))));
            // What is on disk is to answer even when nothing can be written any more.
            self.keep_serving(now, &mut effects);
            return effects;
        }
        if std::mem::take(&mut self.persisting) {
            self.storage_failures = 0;
        }
        if let Event::Boot { restarts } = event {
            // Known whether or not what follows from it can be persisted.
            self.state.restarts = restarts;
        }
        if let Event::Policy(verdicts) = &event {
            // So are conditions.
            self.state.verdicts = verdicts.clone();
        }
        self.before = self.state.clone();
        self.died = match &event {
            Event::WorkerDied(statement, _) => Some(*statement),
            _ => None,
        };
        self.step(now, event, &mut effects);
        if discriminant(&self.before.work) != discriminant(&self.state.work) {
            self.state.step_since = now.elapsed;
        }
        self.enter_if_warm(now, &mut effects);
        self.watch_unproven(now, &mut effects);
        let mut serving = Effects::new();
        self.keep_serving(now, &mut serving);
        // Who answers comes before what is said about it, for every report waits for the disk.
        let first = |effect: &Effect| {
            matches!(effect, Effect::Persist(_) | Effect::Flip(_) | Effect::Unserve | Effect::Suspend)
        };
        let from = effects.iter().rposition(first).map_or(0, |last| last + 1);
        effects.splice(from..from, serving);
        self.note_tellings(&mut effects);
        self.persisting = effects.iter().any(|effect| matches!(effect, Effect::Persist(_)));
        effects
    }

    /// The record as last handed out for persisting.
    pub const fn record(&self) -> &Record {
        &self.state.record
    }

    /// The phase of the unfinished update, or idle.
    pub const fn phase(&self) -> Phase {
        match &self.state.work {
            Work::None => Phase::Idle,
            Work::AwaitingStatement => Phase::Assigned,
            Work::Fetching { started: false, .. } => Phase::Admitted,
            Work::Fetching { started: true, .. } => Phase::Fetching,
            Work::Staging { .. } => Phase::Verified,
            Work::Staged { .. } => Phase::Staged,
            Work::Warming { .. } => Phase::Warming,
            Work::Trial { .. } => Phase::Shadowing,
            Work::Probation { .. } => Phase::Probation,
        }
    }

    /// The release being installed and not yet answering.
    pub fn candidate(&self) -> Option<&ReleaseId> {
        let attempt = self.state.record.attempt.as_ref()?;
        (attempt.progress != Progress::Probation).then_some(&attempt.target.id)
    }

    /// The release that answers.
    pub const fn serving(&self) -> Option<Digest> {
        match self.state.gateway {
            Pointer::To(statement) => Some(statement),
            Pointer::Nowhere | Pointer::Dead => None,
        }
    }

    /// Goes back to what is on disk. What had been asked of the shell may be lost, so that the update is
    /// taken up later as after a restart.
    fn undo(&mut self, now: Now) {
        self.state = self.before.clone();
        if let Some(statement) = self.died.take() {
            self.forget_worker(statement);
        }
        self.persisting = false;
        self.storage_failures = self.storage_failures.saturating_add(1);
        let wait = STORAGE_RETRY.wait(self.storage_failures, &mut self.jitter);
        self.resume_at = Some(now.elapsed.plus(wait));
    }

    fn step(&mut self, now: Now, event: Event, effects: &mut Effects) {
        match event {
            Event::Boot { .. } => self.resume(now, effects),
            Event::Assigned(assignment) => self.assigned(now, &assignment, None, effects),
            Event::AssignedBelowFloor(assignment, why) => {
                self.assigned(now, &assignment, Some(Reason::Untrusted(why)), effects);
            }
            Event::RootTrusted { floor, recovered } => self.root_trusted(floor, recovered, effects),
            Event::Statement { statement, outcome } => self.statement(statement, outcome, effects),
            Event::FetchStarted(statement) => self.fetch_started(statement, effects),
            Event::Fetched(statement, outcome) => self.fetched(now, statement, outcome, effects),
            Event::Staged(statement, outcome) => self.staged(statement, outcome, effects),
            Event::Warmed(statement, outcome) => self.warmed(now, statement, outcome, effects),
            Event::WorkerDied(statement, death) => self.worker_died(now, statement, death, effects),
            Event::Health { requests, errors } => self.health(requests, errors, effects),
            Event::Unfit(statement, reason) => self.unfit(statement, reason, effects),
            Event::Policy(verdicts) => self.decided(verdicts, effects),
            Event::Field(uid, order) => self.field(now, uid, order, effects),
            Event::Tick => self.tick(now, effects),
            // Answered before the step.
            Event::PersistFailed(_) => {}
        }
    }

    /// The previous release, which was proven here before, may still be warm: no worker is started for it, so that
    /// none would ever say that it is ready.
    fn enter_if_warm(&mut self, now: Now, effects: &mut Effects) {
        if let Work::Warming { slot } = &self.state.work
            && self.is_ready(slot.statement)
        {
            let slot = slot.clone();
            self.proved(now, slot, effects);
        }
    }

    fn commit(&mut self, effects: &mut Effects) {
        let Some(active) = &mut self.state.record.active else {
            return;
        };
        active.standing = Standing::Proven;
        let release = active.release.clone();
        self.state.record.attempt = None;
        self.state.work = Work::None;
        self.state.deaths = 0;
        self.persist(effects);
        self.report_move(release, Phase::Probation, Phase::Committed, None, effects);
        effects.push(Effect::Announce);
        effects.push(Effect::Collect(self.state.record.named()));
    }

    fn persist(&self, effects: &mut Effects) {
        effects.push(Effect::Persist(Box::new(self.state.record.clone())));
    }

    fn report(&self, kind: EventKind, effects: &mut Effects) {
        let Record { accepted, rollout, .. } = &self.state.record;
        // What an engineer brings is no rollout's.
        let rollout = rollout.filter(|_| self.state.record.brought().is_none());
        effects.push(Effect::Report { sequence: *accepted, rollout, kind });
    }

    fn report_move(
        &self,
        release: ReleaseId,
        from: Phase,
        to: Phase,
        reason: Option<Reason>,
        effects: &mut Effects,
    ) {
        self.report(EventKind::Transition { release, from, to, reason }, effects);
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
