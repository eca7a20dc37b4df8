//! Going back to the previous release: by the device itself, by the fleet, by a field engineer.

use serin_protocol::ids::{ReleaseId, Version};
use serin_protocol::message::{EventKind, Phase, Reason};

use super::{Machine, Work};
use crate::update::effect::{Effect, Effects, FieldOutcome, FieldRefusal, Now};
use crate::update::record::{Attempt, Slot, Standing};

impl Machine {
    /// Order `RollBack`.
    pub(super) fn fleet_rollback(
        &mut self,
        now: Now,
        from: &ReleaseId,
        attempt: Attempt,
        effects: &mut Effects,
    ) {
        let installing = self.candidate() == Some(from);
        let active = self.state.record.active.as_ref().is_some_and(|slot| slot.release == *from);
        let wanted = attempt.target.statement;
        let previous = self.state.record.previous.as_mut().filter(|slot| slot.statement == wanted);
        if installing {
            self.abandon(Reason::FleetRollback, effects);
        } else if let (true, Some(previous)) = (active, previous) {
            // The explicit order that even a condemned release needs.
            previous.standing = Standing::Proven;
            self.take_back(Reason::FleetRollback, effects);
        } else if active {
            // It takes another one back, which waits for no window.
            self.state.record.urgent = true;
            self.run(now, attempt, effects);
        } else {
            self.persist(effects);
            effects.push(Effect::Announce);
        }
    }

    pub(super) fn has_trusted_previous(&self) -> bool {
        self.state.record.previous.as_ref().is_some_and(|slot| slot.standing != Standing::Condemned)
    }

    /// Leaves the active release for the previous one, which is not to come back by itself. Without a
    /// previous release nothing answers.
    pub(super) fn take_back(&mut self, reason: Reason, effects: &mut Effects) {
        if self.state.record.active.is_none() {
            return;
        }
        // What is being installed beside it ends with it, and its fleet hears so.
        let installing = self.candidate().is_some();
        let ended = if installing { self.give_up(reason.clone()) } else { Effects::new() };
        let Some(mut left) = self.state.record.active.take() else {
            return;
        };
        let from = if left.standing == Standing::Unproven { Phase::Probation } else { Phase::Committed };
        let release = left.release.clone();
        left.standing = Standing::Condemned;
        self.swap_back(left, effects);
        effects.extend(ended);
        self.report_move(release, from, Phase::RolledBack, Some(reason), effects);
        effects.push(Effect::Announce);
    }

    fn swap_back(&mut self, left: Slot, effects: &mut Effects) {
        let trusted = self.has_trusted_previous();
        self.state.record.active = self.state.record.previous.take().filter(|_| trusted);
        self.state.record.previous = Some(left);
        self.state.record.attempt = None;
        self.state.record.safe_mode = false;
        self.state.work = Work::None;
        self.state.deaths = 0;
        self.persist(effects);
        self.point_gateway(effects);
    }

    pub(super) fn field_rollback(
        &mut self,
        uid: u32,
        to: Option<Version>,
        effects: &mut Effects,
    ) -> Result<FieldOutcome, FieldRefusal> {
        let Some(active) = &self.state.record.active else {
            return Err(FieldRefusal::NothingActive);
        };
        let Some(previous) = &self.state.record.previous else {
            return Err(FieldRefusal::NoPrevious);
        };
        match to {
            Some(wanted) if wanted == active.release.version => {
                return Err(FieldRefusal::Already("this version is already active"));
            }
            Some(wanted) if wanted != previous.release.version => {
                return Err(FieldRefusal::NotHere { wanted, previous: previous.release.clone() });
            }
            // What was taken back here comes back by name only: he may not know that it was.
            None if previous.standing == Standing::Condemned => {
                return Err(FieldRefusal::Condemned(previous.release.clone()));
            }
            Some(_) | None => {}
        }
        let target = previous.statement;
        let (from, to) = (active.release.clone(), previous.release.clone());
        let installing = self.candidate().is_some();
        let ended = if installing { self.give_up(Reason::FieldRollback) } else { Effects::new() };
        let warm = self.is_ready(target);
        self.state.record.pinned_by = Some(uid);
        let Some(mut left) = self.state.record.active.take() else {
            return Err(FieldRefusal::NothingActive);
        };
        let phase = if left.standing == Standing::Unproven { Phase::Probation } else { Phase::Committed };
        if left.standing == Standing::Unproven {
            left.standing = Standing::Condemned;
        }
        if let Some(previous) = &mut self.state.record.previous {
            // The engineer on site vouches for it.
            previous.standing = Standing::Proven;
        }
        self.swap_back(left, effects);
        effects.extend(ended);
        let reason = Some(Reason::FieldRollback);
        self.report_move(from.clone(), phase, Phase::RolledBack, reason, effects);
        self.report(EventKind::FieldRollback { uid, from: from.clone(), to: to.clone() }, effects);
        effects.push(Effect::Announce);
        Ok(FieldOutcome::RolledBack { from, to, warm })
    }
}
