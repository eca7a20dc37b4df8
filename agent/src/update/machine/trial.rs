//! A release that is tried beside the one that answers: as a shadow, or as the arm that answers a share. It never
//! changes what the boot record says is active, so that its end, however it comes, leaves everything as it was.

use serin_protocol::assignment::TrialMode;
use serin_protocol::ids::Digest;
use serin_protocol::message::{Detail, Phase, Reason, WorkerDeath};

use super::time::bound;
use super::{Machine, Work};
use crate::update::effect::{Effect, Effects, Now};
use crate::update::record::{Attempt, Slot};

impl Machine {
    /// Order `Try`.
    pub(super) fn try_beside(
        &mut self,
        now: Now,
        mut attempt: Attempt,
        mode: TrialMode,
        effects: &mut Effects,
    ) {
        bound(&mut attempt, now);
        let wanted = attempt.target.statement;
        let active = self.state.record.active.as_ref().filter(|_| !self.state.record.safe_mode);
        let why = match active {
            None => Some("no release answers here that it could be compared with"),
            Some(active) if active.statement == wanted => Some("it is the release that answers"),
            // What is on probation is watched against its own limits first.
            Some(_) if matches!(self.state.work, Work::Probation { .. }) => {
                Some("the release that answers is on probation")
            }
            Some(_) => None,
        };
        if let Some(why) = why {
            self.persist(effects);
            let reason = Some(Reason::NoTrial(Detail::new(why)));
            self.report_move(attempt.target.id, Phase::Idle, Phase::Rejected, reason, effects);
        } else if let Work::Trial { slot, .. } = &self.state.work
            && slot.statement == wanted
        {
            // Another mode, limits or time for what is tried already.
            let slot = slot.clone();
            let progress =
                self.state.record.attempt.as_ref().map_or(attempt.progress, |known| known.progress);
            self.state.record.attempt = Some(Attempt { progress, ..attempt });
            self.state.record.tried = Some(mode);
            self.enter_trial(now, slot, effects);
        } else {
            self.state.record.urgent = false;
            self.begin(now, attempt, Some(mode), effects);
        }
    }

    /// The candidate's worker passed its golden vectors.
    pub(super) fn proved(&mut self, now: Now, slot: Slot, effects: &mut Effects) {
        match self.state.record.trial() {
            Some(_) => self.enter_trial(now, slot, effects),
            None => self.enter_probation(now, slot, effects),
        }
    }

    fn enter_trial(&mut self, now: Now, slot: Slot, effects: &mut Effects) {
        let Some(attempt) = &self.state.record.attempt else {
            return;
        };
        let until = now.elapsed.plus(attempt.probation.duration);
        let (release, from) = (slot.release.clone(), self.phase());
        self.state.work = Work::Trial { slot, until, deaths: 0 };
        self.persist(effects);
        self.report_move(release, from, Phase::Shadowing, None, effects);
        effects.push(Effect::Announce);
    }

    /// Order `Run` for what is being tried: its worker is there and proved.
    pub(super) fn promote(&mut self, now: Now, attempt: Attempt, effects: &mut Effects) {
        let Work::Trial { slot, .. } = &self.state.work else {
            return;
        };
        let slot = slot.clone();
        let progress = self.state.record.attempt.as_ref().map_or(attempt.progress, |known| known.progress);
        self.state.record.attempt = Some(Attempt { progress, ..attempt });
        self.state.record.tried = None;
        if self.is_ready(slot.statement) {
            self.enter_probation(now, slot, effects);
        } else {
            // It died a moment ago.
            let release = slot.release.clone();
            self.state.work = Work::Warming { slot };
            self.persist(effects);
            self.report_move(release, Phase::Shadowing, Phase::Warming, None, effects);
        }
    }

    /// Its time is over, and nothing happened that would have ended it earlier.
    pub(super) fn end_trial(&mut self, effects: &mut Effects) {
        let Work::Trial { slot, .. } = &self.state.work else {
            return;
        };
        let release = slot.release.clone();
        self.state.record.attempt = None;
        self.state.record.tried = None;
        self.state.work = Work::None;
        self.persist(effects);
        // Its files stay until the next update, which may be its own.
        self.report_move(release, Phase::Shadowing, Phase::Idle, None, effects);
        effects.push(Effect::Announce);
    }

    pub(super) fn is_tried(&self, statement: Digest) -> bool {
        matches!(&self.state.work, Work::Trial { slot, .. } if slot.statement == statement)
    }

    /// The worker of the release that is tried died.
    pub(super) fn tried_died(&mut self, death: WorkerDeath, effects: &mut Effects) {
        let most =
            self.state.record.attempt.as_ref().map_or(1, |attempt| attempt.probation.max_worker_deaths);
        if let Work::Trial { deaths, .. } = &mut self.state.work {
            *deaths = deaths.saturating_add(1);
            if *deaths >= most.max(1) {
                self.abandon(Reason::WorkerDied(death), effects);
            }
        }
    }

    /// Has the gateway try what is to be tried, while its worker is there and another release answers.
    pub(super) fn point_beside(&mut self, effects: &mut Effects) {
        let tried = match (&self.state.work, self.state.record.trial()) {
            (Work::Trial { slot, .. }, Some(mode))
                if self.is_ready(slot.statement) && self.active_is_serving() =>
            {
                Some((slot.clone(), mode))
            }
            _ => None,
        };
        let beside = tried.as_ref().map(|(slot, mode)| (slot.statement, *mode));
        if self.state.beside != beside {
            self.state.beside = beside;
            effects.push(Effect::Beside(tried));
        }
    }
}

#[cfg(test)]
#[path = "trial_tests.rs"]
mod tests;
