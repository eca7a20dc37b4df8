//! A release that a field engineer brings: an update that no assignment ordered. It takes the place of whatever is
//! unfinished, no order of the fleet is taken while it is installed, and the device is pinned once it answers.

use serin_protocol::assignment::{Probation, ReleaseRef};
use serin_protocol::ids::{Digest, Millis};
use serin_protocol::message::{Detail, EventKind, Phase, Reason};
use serin_protocol::release::Release;

use super::{Machine, Work};
use crate::update::admission::{Means, admit};
use crate::update::effect::{Effect, Effects, FieldOutcome, FieldRefusal, Now};
use crate::update::record::{Attempt, Brought, Progress, Slot, Standing};

/// Given up if it does not answer by then: the largest bundle from a slow stick takes a quarter of that, and
/// whoever brought it stands by.
pub(super) const SIDELOAD_DEADLINE: Millis = Millis::from_secs(3600);

impl Machine {
    pub(super) fn sideload(
        &mut self,
        now: Now,
        uid: u32,
        statement: Digest,
        release: Box<Release>,
        means: &Means,
        effects: &mut Effects,
    ) -> Result<FieldOutcome, FieldRefusal> {
        let record = &self.state.record;
        if record.active.as_ref().is_some_and(|active| active.statement == statement) {
            return Err(FieldRefusal::Already("this release is already active"));
        }
        if let Some(previous) = record.previous.as_ref().filter(|previous| previous.statement == statement) {
            return Err(FieldRefusal::IsPrevious(previous.release.clone()));
        }
        admit(&release, means)
            .map_err(|reason| FieldRefusal::NotAdmitted { release: release.id.clone(), reason })?;
        // Whoever ordered the unfinished one hears that an engineer decides here.
        let ended = self.give_up(Reason::Pinned);
        let target = ReleaseRef { id: release.id.clone(), statement };
        self.state.record.attempt = Some(Attempt {
            sequence: self.state.record.accepted,
            rollout: None,
            target: target.clone(),
            probation: Probation::default(),
            expires: now.wall.plus(SIDELOAD_DEADLINE),
            progress: Progress::Assigned,
        });
        self.state.attempt_since = now.elapsed;
        // Whoever brings it is here now.
        self.state.record.urgent = true;
        self.state.record.sideload = Some(Brought { by: uid, memory: release.memory });
        self.state.work = Work::Fetching { release: release.clone(), started: true, paused: false };
        self.persist(effects);
        effects.extend(ended);
        self.report(EventKind::Sideloaded { uid, release: target.id.clone() }, effects);
        self.report_move(target.id, Phase::Idle, Phase::Fetching, None, effects);
        effects.push(Effect::Announce);
        effects.push(Effect::Receive(statement, release));
        Ok(FieldOutcome::Sideloading)
    }

    /// Takes up what was brought where the record left it: nothing has to be asked for once it is unpacked, and
    /// before that the rest of it is still on the stick.
    pub(super) fn resume_sideload(&mut self, effects: &mut Effects) {
        let record = &self.state.record;
        let (Some(attempt), Some(brought)) = (&record.attempt, record.sideload) else { return };
        match attempt.progress {
            Progress::Assigned => {
                let detail = Detail::new("interrupted before all of it was here; sideload it again");
                self.abandon(Reason::BadBundle(detail), effects);
            }
            Progress::Staged => {
                let slot = Slot {
                    release: attempt.target.id.clone(),
                    statement: attempt.target.statement,
                    memory: brought.memory,
                    standing: Standing::Unproven,
                };
                self.state.work = Work::Warming { slot };
            }
            Progress::Probation => {}
        }
    }

    /// Why an attempt that does not answer is given up now.
    pub(super) fn out_of_time(&self) -> Reason {
        if self.state.record.brought().is_none() {
            return Reason::Expired;
        }
        let minutes = SIDELOAD_DEADLINE.0 / 60_000;
        Reason::BadBundle(Detail::new(&format!(
            "it did not answer within {minutes} minutes; sideload it again"
        )))
    }
}
