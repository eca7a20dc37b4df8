//! The field engineer's orders: go back, pin, hold, and give the device back to the fleet.

use serin_protocol::assignment::{Assignment, Order};
use serin_protocol::ids::Millis;
use serin_protocol::message::{EventKind, Phase, Reason};

use super::Machine;
use crate::update::effect::{Effect, Effects, FieldOrder, FieldOutcome, FieldRefusal, Now};
use crate::update::record::Hold;

/// Longest hold: a device that nobody comes back to must not be forgotten for ever.
pub const MAX_HOLD: Millis = Millis::from_secs(30 * 24 * 3600);

impl Machine {
    pub(super) fn field(&mut self, now: Now, uid: u32, order: FieldOrder, effects: &mut Effects) {
        let reply = match order {
            FieldOrder::Rollback { to } => self.field_rollback(uid, to, effects),
            FieldOrder::Pin => self.pin(uid, effects),
            FieldOrder::Unpin => self.unpin(uid, effects),
            FieldOrder::Hold { span } => Ok(self.hold(now, uid, span, effects)),
            FieldOrder::Sideload { statement, release, means } => {
                self.sideload(now, uid, statement, release, &means, effects)
            }
        };
        effects.push(Effect::Reply(reply));
    }

    fn pin(&mut self, uid: u32, effects: &mut Effects) -> Result<FieldOutcome, FieldRefusal> {
        let active = self.state.record.active.as_ref().ok_or(FieldRefusal::NothingActive)?;
        if self.state.record.pinned_by.is_some() {
            return Err(FieldRefusal::Already("this device is already pinned"));
        }
        let release = active.release.clone();
        self.state.record.pinned_by = Some(uid);
        self.persist(effects);
        self.report(EventKind::Pinned { uid, release: release.clone() }, effects);
        effects.push(Effect::Announce);
        Ok(FieldOutcome::Pinned(release))
    }

    /// Ends a hold and a safe mode as well: the device runs what it has and follows its fleet again.
    fn unpin(&mut self, uid: u32, effects: &mut Effects) -> Result<FieldOutcome, FieldRefusal> {
        let (pin, hold) = (self.state.record.pinned_by.take(), self.state.record.held.take());
        let safe = std::mem::take(&mut self.state.record.safe_mode);
        if pin.is_none() && hold.is_none() && !safe {
            return Err(FieldRefusal::Already("this device is not pinned"));
        }
        self.persist(effects);
        self.report(EventKind::Unpinned { uid }, effects);
        self.follow_again(effects);
        Ok(FieldOutcome::Unpinned)
    }

    /// No order of the fleet is taken for a while. What has begun goes on to its end. Another hold takes the
    /// place of one before it.
    fn hold(&mut self, now: Now, uid: u32, span: Millis, effects: &mut Effects) -> FieldOutcome {
        let until = now.wall.plus(Millis(span.0.min(MAX_HOLD.0)));
        self.state.record.held = Some(Hold { by: uid, until });
        self.persist(effects);
        self.report(EventKind::Held { uid, until }, effects);
        effects.push(Effect::Announce);
        FieldOutcome::Held(until)
    }

    /// When the hold is over; none without one.
    pub(super) fn hold_ends(&self, now: Now) -> Option<Millis> {
        self.state.record.held.as_ref().map(|hold| now.elapsed.plus(hold.until.since(now.wall)))
    }

    /// Ends a hold whose time has come.
    pub(super) fn end_hold(&mut self, now: Now, effects: &mut Effects) {
        if self.state.record.held.take_if(|hold| hold.until <= now.wall).is_some() {
            self.persist(effects);
            self.follow_again(effects);
        }
    }

    fn follow_again(&mut self, effects: &mut Effects) {
        self.state.refused_by_engineer = None;
        effects.push(Effect::Announce);
        effects.push(Effect::AskAssignment);
    }

    /// Why no order of the fleet is taken now.
    pub(super) fn kept_by_engineer(&self, now: Now) -> Option<Reason> {
        let record = &self.state.record;
        if record.pinned_by.is_some() || record.brought().is_some() {
            return Some(Reason::Pinned);
        }
        record.held.as_ref().filter(|hold| now.wall < hold.until).map(|_| Reason::Held)
    }

    pub(super) fn refuse_for_engineer(
        &mut self,
        assignment: &Assignment,
        reason: Reason,
        effects: &mut Effects,
    ) {
        if self.state.refused_by_engineer == Some(assignment.sequence) {
            return;
        }
        self.state.refused_by_engineer = Some(assignment.sequence);
        let release = match &assignment.order {
            Order::Run { release, .. } | Order::Try { release, .. } => release.id.clone(),
            Order::RollBack { from, .. } => from.clone(),
            Order::Stay => return,
        };
        let reason = Some(reason);
        let kind = EventKind::Transition { release, from: Phase::Idle, to: Phase::Rejected, reason };
        effects.push(Effect::Report { sequence: assignment.sequence, rollout: assignment.rollout, kind });
    }
}
