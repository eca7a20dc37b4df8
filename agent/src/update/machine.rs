//! The update machine: `Idle → Assigned → Admitted → Fetching → Verified → Staged → Warming → Probation →
//! Committed`, leaving to `Rejected` or `RolledBack` from any of them.
//!
//! `handle(now, event) -> effects` decides everything; the shell carries the effects out in order and
//! stops at the first that fails. Every change of what runs is persisted before it is visible.
//! `attempt` moves an update forward, `serving` keeps the right workers alive behind the gateway, `engineer`
//! obeys whoever is on site, `sideload` installs what he brings, `waiting` holds it up while local conditions do
//! not allow it.

mod attempt;
mod engineer;
mod serving;
mod sideload;
mod waiting;

pub use self::engineer::MAX_HOLD;

use std::collections::BTreeMap;

use serin_protocol::assignment::{Assignment, Order};
use serin_protocol::ids::{
    ByteCount, DeviceId, Digest, FleetId, Millis, ReleaseId, SequenceNumber, UnixMillis,
};
use serin_protocol::message::{Detail, EventKind, Phase, Reason, RefusedKind};
use serin_protocol::release::Release;

use super::effect::{Effect, Effects, Event, FieldRefusal, Now};
use super::policy::Verdicts;
use super::record::{Attempt, Progress, Record, RootFloor, Slot, Standing};

use self::waiting::Told;

/// After a failed write of the boot record, or an update that met one, try again after this.
const STORAGE_RETRY: Millis = Millis::from_secs(10);

/// Furthest that the number of an assignment may lie above the last one: far more than a device is told in
/// its life, and so few that nobody with the fleet's key can use up the numbers.
const MAX_SEQUENCE_STEP: u64 = 1 << 24;

/// What never changes while the agent runs.
#[derive(Clone, Debug)]
pub struct Identity {
    /// This device.
    pub device: DeviceId,
    /// Its fleet.
    pub fleet: FleetId,
    /// Memory that all workers may use together.
    pub memory_budget: ByteCount,
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
}

#[derive(Clone, Debug)]
struct State {
    record: Record,
    work: Work,
    gateway: Pointer,
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
    /// It did not come up this many times before.
    Starting {
        failures: u8,
    },
    Ready,
    /// It did not come up; the next try is due then.
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
            workers: BTreeMap::new(),
            deaths: 0,
            deaths_since: Millis(0),
            refused_by_engineer: None,
            verdicts: Verdicts::default(),
            told: None,
        };
        Self { identity, before: state.clone(), state, died: None, resume_at: None }
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
        self.before = self.state.clone();
        self.died = match &event {
            Event::WorkerDied(statement, _) => Some(*statement),
            _ => None,
        };
        self.step(now, event, &mut effects);
        let mut serving = Effects::new();
        self.keep_serving(now, &mut serving);
        // Who answers comes before what is said about it, for every report waits for the disk.
        let first =
            |effect: &Effect| matches!(effect, Effect::Persist(_) | Effect::Flip(_) | Effect::Unserve);
        let from = effects.iter().rposition(first).map_or(0, |last| last + 1);
        effects.splice(from..from, serving);
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

    /// When [`Event::Tick`] is due next, on the monotonic clock.
    pub fn next_deadline(&self, now: Now) -> Option<Millis> {
        let probation = match &self.state.work {
            Work::Probation { until, .. } => Some(*until),
            Work::None
            | Work::AwaitingStatement
            | Work::Fetching { .. }
            | Work::Staging { .. }
            | Work::Staged { .. }
            | Work::Warming { .. } => None,
        };
        let expiry =
            self.state.record.attempt.as_ref().filter(|attempt| attempt.progress != Progress::Probation);
        let expiry = expiry.map(|attempt| now.elapsed.plus(attempt.expires.since(now.wall)));
        let retries = self.state.workers.values().filter_map(|worker| match worker {
            Worker::Failed { retry_at, .. } => Some(*retry_at),
            Worker::Starting { .. } | Worker::Ready => None,
        });
        retries.chain(probation).chain(expiry).chain(self.resume_at).chain(self.hold_ends(now)).min()
    }

    /// Goes back to what is on disk. What had been asked of the shell may be lost, so that the update is
    /// taken up later as after a restart.
    fn undo(&mut self, now: Now) {
        self.state = self.before.clone();
        if let Some(statement) = self.died.take() {
            self.forget_worker(statement);
        }
        self.resume_at = Some(now.elapsed.plus(STORAGE_RETRY));
    }

    fn step(&mut self, now: Now, event: Event, effects: &mut Effects) {
        match event {
            Event::Boot => self.resume(now, effects),
            Event::Assigned(assignment) => self.assigned(now, &assignment, None, effects),
            Event::AssignedBelowFloor(assignment, why) => {
                self.assigned(now, &assignment, Some(Reason::Untrusted(why)), effects);
            }
            Event::RootTrusted { floor, recovered } => self.root_trusted(floor, recovered, effects),
            Event::Statement { statement, outcome } => self.statement(statement, outcome, effects),
            Event::FetchStarted(statement) => self.fetch_started(statement, effects),
            Event::Fetched(statement, outcome) => self.fetched(statement, outcome, effects),
            Event::Staged(statement, outcome) => self.staged(statement, outcome, effects),
            Event::Warmed(statement, outcome) => self.warmed(now, statement, outcome, effects),
            Event::WorkerDied(statement, death) => self.worker_died(now, statement, death, effects),
            Event::Health { requests, errors } => self.health(requests, errors, effects),
            Event::Policy(verdicts) => self.decided(verdicts, effects),
            Event::Field(uid, order) => self.field(now, uid, order, effects),
            Event::Tick => self.tick(now, effects),
            // Answered before the step.
            Event::PersistFailed(_) => {}
        }
    }

    /// Takes up an unfinished update where the record left it.
    fn resume(&mut self, now: Now, effects: &mut Effects) {
        let Some(attempt) = &self.state.record.attempt else {
            return;
        };
        match attempt.progress {
            Progress::Assigned | Progress::Staged if self.state.record.sideload.is_some() => {
                self.resume_sideload(effects);
            }
            Progress::Assigned | Progress::Staged => {
                self.state.work = Work::AwaitingStatement;
                effects.push(Effect::FetchStatement(attempt.target.clone()));
            }
            Progress::Probation => {
                let until = now.elapsed.plus(attempt.probation.duration);
                self.state.work = Work::Probation { until, deaths: 0 };
            }
        }
    }

    fn root_trusted(&mut self, floor: RootFloor, recovered: bool, effects: &mut Effects) {
        let record = &mut self.state.record;
        let known = record.root_floor == Some(floor) && (!recovered || record.clock_floor == UnixMillis(0));
        record.root_floor = Some(floor);
        if recovered {
            record.clock_floor = UnixMillis(0);
        }
        if !known {
            self.persist(effects);
        }
    }

    /// `refused` says why it must not be obeyed, although it is the fleet's.
    fn assigned(
        &mut self,
        now: Now,
        assignment: &Assignment,
        refused: Option<Reason>,
        effects: &mut Effects,
    ) {
        if let Err(refusal) = self.check_assignment(assignment) {
            if let Some(detail) = refusal {
                self.report(EventKind::Refused { kind: RefusedKind::Assignment, detail }, effects);
            }
            return;
        }
        if let Some(reason) = self.kept_by_engineer(now) {
            self.refuse_for_engineer(assignment, reason, effects);
            return;
        }
        self.state.record.accepted = assignment.sequence;
        self.state.record.rollout = assignment.rollout;
        self.state.record.clock_floor = self.state.record.clock_floor.max(assignment.issued);
        let expired = (assignment.expires <= now.wall).then_some(Reason::Expired);
        if let Some(reason) = expired.or(refused) {
            self.not_obeyed(&assignment.order, reason, effects);
            return;
        }
        match &assignment.order {
            Order::Stay => self.stay(effects),
            Order::Run { release, probation } => {
                let attempt = Attempt {
                    sequence: assignment.sequence,
                    rollout: assignment.rollout,
                    target: release.clone(),
                    probation: *probation,
                    expires: assignment.expires,
                    progress: Progress::Assigned,
                };
                self.state.record.urgent = false;
                self.run(attempt, effects);
            }
            Order::RollBack { from, to } => {
                let attempt = Attempt {
                    sequence: assignment.sequence,
                    rollout: assignment.rollout,
                    target: to.clone(),
                    probation: serin_protocol::assignment::Probation::default(),
                    expires: assignment.expires,
                    progress: Progress::Assigned,
                };
                self.state.record.urgent = true;
                self.fleet_rollback(from, attempt, effects);
            }
        }
    }

    /// `Err(None)` for the ordinary redelivery of what was already accepted, `Err(Some(why))` for what
    /// must be reported.
    fn check_assignment(&self, assignment: &Assignment) -> Result<(), Option<Detail>> {
        let refuse = |why: &str| Err(Some(Detail::new(why)));
        if assignment.device != self.identity.device {
            return refuse("the assignment is for another device");
        }
        if assignment.fleet != self.identity.fleet {
            return refuse("the assignment is for another fleet");
        }
        let accepted = self.state.record.accepted;
        if assignment.sequence == accepted {
            return Err(None);
        }
        if assignment.sequence < accepted {
            let sequence = assignment.sequence;
            return refuse(&format!("the assignment is a replay: number {sequence}, already at {accepted}"));
        }
        if assignment.sequence.0 - accepted.0 > MAX_SEQUENCE_STEP {
            let sequence = assignment.sequence;
            return refuse(&format!("the assignment's number {sequence} is too far above {accepted}"));
        }
        Ok(())
    }

    fn tick(&mut self, now: Now, effects: &mut Effects) {
        if self.resume_at.is_some_and(|at| at <= now.elapsed) {
            self.resume_at = None;
            self.state.workers.retain(|_, worker| !matches!(worker, Worker::Starting { .. }));
            self.resume(now, effects);
            effects.push(Effect::AskAssignment);
        }
        self.end_hold(now, effects);
        let expired =
            |attempt: &Attempt| attempt.progress != Progress::Probation && attempt.expires <= now.wall;
        if self.state.record.attempt.as_ref().is_some_and(expired) {
            let reason = self.out_of_time();
            self.abandon(reason, effects);
        }
        if let Work::Probation { until, .. } = &self.state.work
            && *until <= now.elapsed
            && self.active_is_serving()
        {
            self.commit(effects);
        }
    }

    fn commit(&mut self, effects: &mut Effects) {
        let Some(active) = &mut self.state.record.active else {
            return;
        };
        active.standing = Standing::Proven;
        let release = active.release.clone();
        self.state.record.attempt = None;
        self.state.record.sideload = None;
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
