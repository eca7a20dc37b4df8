//! An update on its way: from an accepted order to probation, or to its end.

use serin_protocol::assignment::{Order, TrialMode};
use serin_protocol::ids::{Digest, Millis, ReleaseId};
use serin_protocol::message::{Detail, EventKind, Phase, Reason, RefusedKind, WorkerDeath};
use serin_protocol::release::Release;

use super::time::bound;
use super::{Machine, Work};
use crate::update::admission::{Means, Swap, admit};
use crate::update::effect::{Effect, Effects, Now};
use crate::update::record::{Attempt, Progress, Slot, Standing};

/// Deaths of a committed release's worker within [`DEATH_WINDOW`] that send it back to the previous
/// release: one may be a stray signal, three are a pattern.
const MAX_DEATHS: u8 = 3;
/// See [`MAX_DEATHS`].
const DEATH_WINDOW: Millis = Millis::from_secs(600);

impl Machine {
    /// Order `Run`.
    pub(super) fn run(&mut self, now: Now, mut attempt: Attempt, effects: &mut Effects) {
        bound(&mut attempt, now);
        let wanted = attempt.target.statement;
        if self.state.record.active.as_ref().is_some_and(|active| active.statement == wanted) {
            self.already_active(now, attempt, effects);
            return;
        }
        let in_probation = matches!(self.state.work, Work::Probation { .. });
        let previous = self.state.record.previous.as_ref();
        if in_probation && previous.is_some_and(|previous| previous.statement == wanted) {
            self.take_back(Reason::Superseded, effects);
            return;
        }
        if self.is_tried(wanted) {
            self.promote(now, attempt, effects);
            return;
        }
        self.begin(now, attempt, None, effects);
    }

    /// Begins an update, of a release that is to answer or only to be tried.
    pub(super) fn begin(
        &mut self,
        now: Now,
        attempt: Attempt,
        tried: Option<TrialMode>,
        effects: &mut Effects,
    ) {
        let ended = self.give_up(Reason::Superseded);
        let target = attempt.target.clone();
        self.state.record.attempt = Some(attempt);
        self.state.record.tried = tried;
        self.state.attempt_since = now.elapsed;
        self.state.work = Work::AwaitingStatement;
        self.persist(effects);
        effects.extend(ended);
        self.report_move(target.id.clone(), Phase::Idle, Phase::Assigned, None, effects);
        effects.push(Effect::Announce);
        effects.push(Effect::FetchStatement(target));
    }

    fn already_active(&mut self, now: Now, mut attempt: Attempt, effects: &mut Effects) {
        let proven = self.state.record.active.as_ref().is_some_and(|slot| slot.standing == Standing::Proven);
        let in_probation = matches!(self.state.work, Work::Probation { .. });
        let ended = if in_probation { Effects::new() } else { self.give_up(Reason::Superseded) };
        let release = attempt.target.id.clone();
        let safe = self.state.record.safe_mode;
        let again = !(proven || in_probation || safe);
        if again {
            // Its probation was cut short by an update that came to nothing.
            attempt.progress = Progress::Probation;
            let until = now.elapsed.plus(attempt.probation.duration);
            self.state.record.attempt = Some(attempt);
            self.state.attempt_since = now.elapsed;
            self.state.work = Work::Probation { until, deaths: 0 };
        }
        self.persist(effects);
        effects.extend(ended);
        if safe {
            let reason = Some(Reason::CrashLoop { starts: self.identity.crash_policy.restarts });
            self.report_move(release, Phase::Idle, Phase::Rejected, reason, effects);
        } else if again {
            self.report_move(release, Phase::Idle, Phase::Probation, None, effects);
        } else if proven {
            self.report_move(release, Phase::Idle, Phase::Committed, None, effects);
        }
    }

    /// An order that is the fleet's newest, but too late or for what its owner no longer wants. What is
    /// under way goes on.
    pub(super) fn not_obeyed(&mut self, order: &Order, reason: Reason, effects: &mut Effects) {
        self.persist(effects);
        match order {
            Order::Run { release, .. } | Order::Try { release, .. } | Order::RollBack { to: release, .. } => {
                let release = release.id.clone();
                self.report_move(release, Phase::Idle, Phase::Rejected, Some(reason), effects);
            }
            Order::Stay => {
                let detail = Detail::new("the assignment, to stay as it is, has expired");
                self.report(EventKind::Refused { kind: RefusedKind::Assignment, detail }, effects);
            }
        }
    }

    /// Order `Stay`.
    pub(super) fn stay(&mut self, effects: &mut Effects) {
        if matches!(self.state.work, Work::Trial { .. }) {
            // Nothing went wrong with it, and it may be wanted next.
            self.end_trial(effects);
        } else if matches!(self.state.work, Work::Probation { .. }) || self.state.record.attempt.is_none() {
            self.persist(effects);
        } else {
            self.abandon(Reason::Cancelled, effects);
        }
    }

    pub(super) fn statement(
        &mut self,
        statement: Digest,
        outcome: Result<(Box<Release>, Means), Reason>,
        effects: &mut Effects,
    ) {
        let Some(target) = self.target(statement, matches!(self.state.work, Work::AwaitingStatement)) else {
            return;
        };
        let admitted = outcome.and_then(|(release, means)| {
            if release.id != target {
                let detail = Detail::new(&format!("it is about {}, not {target}", release.id));
                return Err(Reason::BadStatement(detail));
            }
            // The active release goes on answering while another is tried.
            let swap = if self.state.record.trial().is_some() { Swap::Hot } else { means.swap };
            let means = Means { swap, ..means };
            admit(&release, &means)?;
            Ok((release, means.installed))
        });
        match admitted {
            Ok((release, installed)) => {
                self.report_move(target, Phase::Assigned, Phase::Admitted, None, effects);
                self.fetch(statement, release, installed, effects);
            }
            Err(reason) => self.abandon(reason, effects),
        }
    }

    pub(super) fn fetch_started(&mut self, statement: Digest, effects: &mut Effects) {
        let Some(target) = self.target(statement, true) else {
            return;
        };
        if let Work::Fetching { started, .. } = &mut self.state.work
            && !*started
        {
            *started = true;
            self.report_move(target, Phase::Admitted, Phase::Fetching, None, effects);
        }
    }

    pub(super) fn fetched(
        &mut self,
        now: Now,
        statement: Digest,
        outcome: Result<(), Reason>,
        effects: &mut Effects,
    ) {
        let Work::Fetching { release, .. } = &self.state.work else {
            return;
        };
        let release = release.clone();
        let Some(target) = self.target(statement, true) else {
            return;
        };
        if let Err(reason) = outcome {
            self.abandon(reason, effects);
            return;
        }
        let from = self.phase();
        self.state.work = Work::Staging { release: release.clone() };
        self.state.step_since = now.elapsed;
        self.report_move(target, from, Phase::Verified, None, effects);
        effects.push(Effect::Stage(statement, release));
    }

    pub(super) fn staged(&mut self, statement: Digest, outcome: Result<(), Reason>, effects: &mut Effects) {
        let Work::Staging { release } = &self.state.work else {
            return;
        };
        let memory = release.memory;
        let Some(target) = self.target(statement, true) else {
            return;
        };
        if let Err(reason) = outcome {
            self.abandon(reason, effects);
            return;
        }
        if let Some(attempt) = &mut self.state.record.attempt {
            attempt.progress = Progress::Staged;
        }
        let slot = Slot { release: target.clone(), statement, memory, standing: Standing::Unproven };
        self.state.work = Work::Staged { slot };
        self.persist(effects);
        self.report_move(target, Phase::Verified, Phase::Staged, None, effects);
        self.go_on(effects);
    }

    /// The candidate's worker passed its golden vectors: it becomes active, on probation.
    pub(super) fn enter_probation(&mut self, now: Now, slot: Slot, effects: &mut Effects) {
        let Some(attempt) = &mut self.state.record.attempt else {
            return;
        };
        attempt.progress = Progress::Probation;
        let until = now.elapsed.plus(attempt.probation.duration);
        self.state.record.tried = None;
        // From now on it is pinned, and no longer brought.
        if let Some(brought) = self.state.record.sideload.take() {
            self.state.record.pinned_by = Some(brought.by);
            self.state.record.rollout = None;
        }
        let (release, from) = (slot.release.clone(), self.phase());
        self.state.record.previous.take_if(|previous| previous.statement == slot.statement);
        let left = self.state.record.active.replace(slot);
        let safe = std::mem::take(&mut self.state.record.safe_mode);
        // One that never passed its own probation, or led into a crash loop, is nothing to return to.
        if let Some(left) = left.filter(|left| left.standing == Standing::Proven && !safe) {
            self.state.record.previous = Some(left);
        }
        self.state.work = Work::Probation { until, deaths: 0 };
        self.state.deaths = 0;
        self.persist(effects);
        // It is no longer tried when it begins to answer.
        self.point_beside(effects);
        self.point_gateway(effects);
        self.report_move(release, from, Phase::Probation, None, effects);
        effects.push(Effect::Announce);
    }

    pub(super) fn health(&mut self, requests: u32, errors: u32, effects: &mut Effects) {
        let Some(attempt) = &self.state.record.attempt else {
            return;
        };
        let limit = attempt.probation;
        let rate = u64::from(errors) * 10_000;
        let allowed = u64::from(requests) * u64::from(limit.max_error_rate.0);
        if requests < limit.min_requests || rate <= allowed {
            return;
        }
        match self.state.work {
            Work::Probation { .. } => self.take_back(Reason::ErrorRate { errors, requests }, effects),
            Work::Trial { .. } => self.abandon(Reason::ErrorRate { errors, requests }, effects),
            Work::None
            | Work::AwaitingStatement
            | Work::Fetching { .. }
            | Work::Staging { .. }
            | Work::Staged { .. }
            | Work::Warming { .. } => {}
        }
    }

    /// The active release's worker died: another one, or another release.
    pub(super) fn active_died(&mut self, now: Now, death: WorkerDeath, effects: &mut Effects) {
        if let Work::Probation { deaths, .. } = &mut self.state.work {
            *deaths = deaths.saturating_add(1);
            let most =
                self.state.record.attempt.as_ref().map_or(1, |attempt| attempt.probation.max_worker_deaths);
            if *deaths >= most.max(1) {
                self.take_back(Reason::WorkerDied(death), effects);
            }
            return;
        }
        let window_over = now.elapsed.0.saturating_sub(self.state.deaths_since.0) > DEATH_WINDOW.0;
        if self.state.deaths == 0 || window_over {
            self.state.deaths = 0;
            self.state.deaths_since = now.elapsed;
        }
        self.state.deaths = self.state.deaths.saturating_add(1);
        let pattern = self.state.deaths >= MAX_DEATHS || death == WorkerDeath::MemoryLimit;
        if pattern && self.has_trusted_previous() {
            self.take_back(Reason::WorkerDied(death), effects);
        }
    }

    /// Ends the unfinished update and keeps what runs.
    pub(super) fn abandon(&mut self, reason: Reason, effects: &mut Effects) {
        let ended = self.give_up(reason);
        self.persist(effects);
        effects.extend(ended);
        effects.push(Effect::Announce);
        effects.push(Effect::Collect(self.state.record.named()));
    }

    /// [`Self::abandon`] without persisting: the caller persists its own change with it and then adds
    /// the effects returned.
    pub(super) fn give_up(&mut self, reason: Reason) -> Effects {
        let brought = self.state.record.sideload.take().is_some();
        self.state.record.tried = None;
        let Some(attempt) = self.state.record.attempt.take() else { return Effects::new() };
        let from = self.phase();
        let fetching = matches!(self.state.work, Work::Fetching { .. } | Work::AwaitingStatement);
        self.state.work = Work::None;
        let mut effects = Effects::new();
        if brought {
            // The fleet's orders were refused in the meantime.
            self.state.refused_by_engineer = None;
            effects.push(Effect::AskAssignment);
        }
        if !self.state.record.named().contains(&attempt.target.statement) {
            effects.push(Effect::Stop(attempt.target.statement));
        }
        if fetching {
            effects.push(Effect::CancelFetch(attempt.target.statement));
        }
        let kind = EventKind::Transition {
            release: attempt.target.id,
            from,
            to: Phase::Rejected,
            reason: Some(reason),
        };
        effects.push(Effect::Report { sequence: attempt.sequence, rollout: attempt.rollout, kind });
        effects
    }

    /// The release being installed, if `statement` names it and the machine is where it should be.
    fn target(&self, statement: Digest, expected: bool) -> Option<ReleaseId> {
        let attempt = self.state.record.attempt.as_ref()?;
        (expected && attempt.target.statement == statement).then(|| attempt.target.id.clone())
    }
}
