//! When evidence is looked at, and what a look or the time still lacks for the next stage.

use super::super::notation::span;
use super::super::plan::Purpose;
use super::super::verdict::Judgement;
use super::{DeviceRecord, Effect, Effects, Millis, Rollout, SHORTEST_LOOK, Standing, UnixMillis};
use serin_protocol::ids::BasisPoints;

impl Rollout {
    /// Asks for evidence when a look is due.
    pub(super) fn look(&mut self, effects: &mut Effects) {
        let due = self.stage.next_look.is_some_and(|due| due <= self.clock);
        if let Some(wanted) = self.evidence_wanted().filter(|_| due) {
            // Asked again if no answer comes, which is not before the shell had time for one.
            self.stage.next_look = Some(self.clock.plus(self.shortest_interval()));
            effects.push(Effect::Gather(wanted));
        }
    }

    /// When a stage counts as settled at the latest, whoever is still installing.
    pub(super) fn settled_by(&self) -> UnixMillis {
        self.stage.entered.plus(self.plan.deadline)
    }

    /// The bake counts from when nobody of the stage is installing any more; late devices do not turn it back.
    /// While the rate or a window still holds devices up, they have not settled.
    pub(super) fn note_settled(&mut self) {
        if self.stage.settled_at.is_some() {
            return;
        }
        let tally = self.fleet.tally();
        let settled = tally.reached() > 0 && tally.installing == 0 && tally.left == 0;
        if (settled || self.clock >= self.settled_by()) && self.next_told().is_none() {
            self.stage.settled_at = Some(self.clock);
        }
    }

    /// The first look comes an eighth of the bake after the first device runs the release.
    pub(super) fn note_first_look(&mut self) {
        let tally = self.fleet.tally();
        let something_runs = tally.running > 0 || tally.shadowing > 0;
        if self.stage.next_look.is_none() && something_runs {
            self.stage.next_look = Some(self.clock.plus(self.shortest_interval()));
        }
    }

    /// Whether the stage has been watched as long as its plan says.
    pub(super) fn is_baked(&self) -> bool {
        self.baked_at().is_some_and(|baked| baked <= self.clock)
    }

    /// Looks come at growing intervals, and one exactly when the bake is over.
    pub(super) fn schedule_look(&mut self, judgement: &Judgement) {
        let elapsed = self.clock.since(self.stage.entered);
        if matches!(self.plan.purpose(self.stage.index), Purpose::Allocate(_)) {
            self.stage.next_look = Some(self.clock.plus(self.shortest_interval()));
            return;
        }
        let growth = if judgement.lacking.is_some() { elapsed.0 / 8 } else { elapsed.0 / 2 };
        let next = self.clock.plus(Millis(growth.max(self.shortest_interval().0)));
        let baked = self.baked_at().filter(|baked| *baked > self.clock);
        self.stage.next_look = Some(baked.map_or(next, |baked| baked.min(next)));
    }

    /// An eighth of the bake; where shares follow a reward, a whole window.
    fn shortest_interval(&self) -> Millis {
        let bake = self.stage_plan().map_or(Millis(0), |stage| stage.bake);
        match self.plan.purpose(self.stage.index) {
            Purpose::Allocate(_) => bake,
            Purpose::Spread | Purpose::Shadow(_) | Purpose::Compare(_) => {
                Millis((bake.0 / 8).max(SHORTEST_LOOK.0))
            }
        }
    }

    fn baked_at(&self) -> Option<UnixMillis> {
        let bake = self.stage_plan()?.bake;
        self.stage.settled_at.map(|settled| settled.plus(bake))
    }

    /// What time and devices still lack for the next stage.
    pub(super) fn unready(&self) -> Option<String> {
        let tally = self.fleet.tally();
        let Some(baked) = self.baked_at() else {
            let waiting = if self.next_told().is_some() { ", others are told later" } else { "" };
            let installing = tally.installing + tally.left;
            return Some(format!("{installing} devices are still installing it{waiting}"));
        };
        if tally.running == 0 && tally.shadowing == 0 {
            return Some("no device runs it".to_owned());
        }
        if let Some(words) = self.too_many_failures_for_the_stage().or_else(|| self.too_silent()) {
            return Some(words);
        }
        let left = baked.since(self.clock);
        (left.0 > 0).then(|| format!("it is watched for another {}", span::text(left)))
    }

    /// A release that breaks a device's connection shows as silence, more than the control's. A single
    /// silent device of a small stage says nothing and blocks nothing, nor does any in the last stage.
    fn too_silent(&self) -> Option<String> {
        let tally = self.fleet.tally();
        let silent = tally.silent();
        let usual = BasisPoints::ratio(u64::from(tally.waiting_offline), u64::from(tally.waiting));
        let allowed = BasisPoints(self.plan.max_silent.0.saturating_add(usual.0));
        let share = BasisPoints::ratio(u64::from(silent), u64::from(tally.exposed));
        let many = silent >= self.plan.failures.max_devices || silent.saturating_mul(2) > tally.exposed;
        (!self.is_last_stage() && many && share > allowed)
            .then(|| format!("{silent} of {} devices have fallen silent with it", tally.exposed))
    }

    /// A stage in which more than the budget's share failed is not promoted, however few devices that is. What
    /// failed in earlier stages was weighed there, perhaps by an operator.
    fn too_many_failures_for_the_stage(&self) -> Option<String> {
        let exposed = self.fleet.tally().reached();
        let budget = self.stage_budget();
        let here = |record: &DeviceRecord| match record.standing {
            Standing::Failed { at, .. } => at >= self.stage.entered,
            Standing::Waiting
            | Standing::Shadowing { .. }
            | Standing::Drilling { .. }
            | Standing::Installing { .. }
            | Standing::Running { .. }
            | Standing::Left { .. }
            | Standing::Unreachable { .. }
            | Standing::Skipped { .. }
            | Standing::Returning { .. }
            | Standing::Returned { .. }
            | Standing::NotReturned { .. } => false,
        };
        let failed = self.fleet.iter().filter(|(_, record)| here(record)).count();
        let share = BasisPoints::ratio(failed as u64, u64::from(exposed));
        (share > budget.max_share).then(|| format!("{failed} of {exposed} devices failed with it"))
    }
}
