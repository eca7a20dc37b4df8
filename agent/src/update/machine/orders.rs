//! The fleet's orders: which are taken, and what each begins.

use serin_protocol::assignment::{Assignment, Order, Probation, ReleaseRef};
use serin_protocol::ids::UnixMillis;
use serin_protocol::message::{Detail, EventKind, Reason, RefusedKind};

use super::Machine;
use crate::update::effect::{Effects, Now};
use crate::update::record::{Attempt, Progress, RootFloor};

/// Furthest that the number of an assignment may lie above the last one: far more than a device is told in
/// its life, and so few that nobody with the fleet's key can use up the numbers.
pub(super) const MAX_SEQUENCE_STEP: u64 = 1 << 24;

impl Machine {
    pub(super) fn root_trusted(&mut self, floor: RootFloor, recovered: bool, effects: &mut Effects) {
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
    pub(super) fn assigned(
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
        // From now on it is no earlier than that.
        let now = Now { wall: now.wall.max(self.state.record.clock_floor), ..now };
        let expired = (assignment.expires <= now.wall).then_some(Reason::Expired);
        if let Some(reason) = expired.or(refused) {
            self.not_obeyed(&assignment.order, reason, effects);
            return;
        }
        match &assignment.order {
            Order::Stay => self.stay(effects),
            Order::Run { release, probation } => {
                let attempt = attempt(assignment, release, *probation);
                self.state.record.urgent = false;
                self.run(now, attempt, effects);
            }
            Order::Try { release, mode, probation } => {
                let attempt = attempt(assignment, release, *probation);
                self.try_beside(now, attempt, *mode, effects);
            }
            Order::RollBack { from, to } => {
                let attempt = attempt(assignment, to, Probation::default());
                self.fleet_rollback(now, from, attempt, effects);
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
}

/// What `assignment` begins with `target`.
fn attempt(assignment: &Assignment, target: &ReleaseRef, probation: Probation) -> Attempt {
    Attempt {
        sequence: assignment.sequence,
        rollout: assignment.rollout,
        target: target.clone(),
        probation,
        expires: assignment.expires,
        progress: Progress::Assigned,
    }
}
