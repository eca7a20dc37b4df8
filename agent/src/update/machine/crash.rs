//! Breaking a crash loop: what is left out, and the safe mode in which no release runs.

use serin_protocol::message::{CrashAction, EventKind, Reason};

use super::Machine;
use crate::update::crash_loop::{Suspect, verdict};
use crate::update::effect::{Effect, Effects};
use crate::update::record::{Progress, Standing};

impl Machine {
    /// Whether no release runs because of a crash loop, until the device is told to run another.
    pub const fn safe_mode(&self) -> bool {
        self.state.record.safe_mode
    }

    /// Acts upon the restarts counted before this start, once.
    pub(super) fn break_crash_loop(&mut self, effects: &mut Effects) {
        let starts = std::mem::take(&mut self.state.restarts);
        let Some(action) = verdict(self.identity.crash_policy, starts, self.suspect()) else {
            return;
        };
        // Before the record: a power cut in between costs a few more restarts. The other way round they
        // would count twice.
        effects.push(Effect::ForgetStarts);
        match action {
            CrashAction::GaveUp => self.abandon(Reason::CrashLoop { starts }, effects),
            CrashAction::RolledBack => self.take_back(Reason::CrashLoop { starts }, effects),
            CrashAction::SafeMode => {
                self.state.record.safe_mode = true;
                self.persist(effects);
                effects.push(Effect::Announce);
            }
        }
        self.report(EventKind::CrashLoop { starts, action }, effects);
    }

    fn suspect(&self) -> Suspect {
        let record = &self.state.record;
        match (&record.attempt, &record.active) {
            (Some(attempt), _) if attempt.progress != Progress::Probation => Suspect::Update,
            _ if record.safe_mode => Suspect::Nobody,
            (_, Some(active)) if active.standing == Standing::Unproven => Suspect::Release,
            (_, Some(_)) if self.has_trusted_previous() => Suspect::Release,
            (_, Some(_)) => Suspect::Everything,
            (_, None) => Suspect::Nobody,
        }
    }
}
