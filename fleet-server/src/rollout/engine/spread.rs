//! Giving the release: to whom it is due by now, as fast as the plan says, within its windows.

use std::collections::BTreeMap;

use super::super::cohort::places;
use super::super::plan::FailureBudget;
use super::super::plan::schedule::OFFSET_TAG;
use super::{
    DeviceId, DeviceRecord, Effect, Effects, Outcome, Purpose, Rollout, Standing, State, UnixMillis,
};

impl Rollout {
    /// Gives the release to whom it is due by now.
    pub(super) fn spread(&mut self, effects: &mut Effects) {
        if !self.spreads() {
            return;
        }
        let shadow = matches!(self.plan.purpose(self.stage.index), Purpose::Shadow(_));
        let controls = self.is_last_stage();
        let target = self.target();
        while self.reached() < target && self.may_tell() {
            let next = self.fleet.next_ready(controls, |device, record| self.is_open(device, record));
            let Some(device) = next else {
                return;
            };
            self.stage.told = self.stage.told.saturating_add(1);
            if shadow {
                self.shadow(&device, effects);
            } else {
                self.give(&device, effects);
            }
        }
    }

    /// How many devices shall have been told by the end of the stage.
    pub(super) fn target(&self) -> usize {
        let eligible = usize::try_from(self.fleet.tally().eligible()).unwrap_or(usize::MAX);
        let Some(stage) = self.stage_plan() else { return 0 };
        match self.stage.allocation {
            Some(share) => places(share, eligible),
            None => stage.share.of(eligible),
        }
    }

    fn reached(&self) -> usize {
        usize::try_from(self.fleet.tally().reached()).unwrap_or(usize::MAX)
    }

    fn may_tell(&self) -> bool {
        match self.plan.rate.filter(|_| !self.emergency) {
            Some(rate) => rate.allowed(self.clock.since(self.stage.pace_from)) > u64::from(self.stage.told),
            None => true,
        }
    }

    /// Whether the stage means this device, and its windows let it be told.
    fn is_open(&self, device: &DeviceId, record: &DeviceRecord) -> bool {
        let means = self.means(device, record);
        means && (self.emergency || self.plan.schedule.is_open(self.clock, &record.traits.tags))
    }

    fn means(&self, device: &DeviceId, record: &DeviceRecord) -> bool {
        let who = self.stage_plan().and_then(|stage| stage.who.as_ref());
        who.is_none_or(|who| who.matches(device, &record.traits, record.active.as_ref()))
    }

    /// When another device may be told, where rate or windows hold that up and nothing else does.
    pub(in super::super) fn next_told(&self) -> Option<UnixMillis> {
        let schedule = &self.plan.schedule;
        let free = schedule.windows.is_empty() && schedule.not_before.is_none();
        let unhindered = self.emergency || (free && self.plan.rate.is_none());
        if unhindered || !self.spreads() || self.reached() >= self.target() {
            return None;
        }
        let controls = self.is_last_stage();
        let waiting = self
            .fleet
            .ready()
            .filter(|(device, record)| (controls || !record.control) && self.means(device, record));
        // Devices of one offset open together; a fleet has a few offsets.
        let mut offsets = BTreeMap::new();
        for (_, record) in waiting {
            offsets.entry(record.traits.tags.get(OFFSET_TAG)).or_insert(&record.traits.tags);
        }
        let opens = offsets.values().filter_map(|tags| schedule.next_open(self.clock, tags)).min()?;
        let paced = self
            .plan
            .rate
            .map_or(self.clock, |rate| self.stage.pace_from.plus(rate.next(u64::from(self.stage.told))));
        // What is open and allowed has been told.
        let at = opens.max(paced);
        (at > self.clock).then_some(at)
    }

    /// The rate begins anew: after a stop the fleet is met slowly again.
    pub(super) const fn pace_anew(&mut self) {
        self.stage.pace_from = self.clock;
        self.stage.told = 0;
    }

    /// What the stage says of its own failures.
    pub(super) fn stage_budget(&self) -> FailureBudget {
        self.stage_plan().and_then(|stage| stage.failures).unwrap_or(self.plan.failures)
    }

    fn shadow(&mut self, device: &DeviceId, effects: &mut Effects) {
        self.stand(device, Standing::Shadowing { since: self.clock });
        let (release, expires) = (self.release.clone(), self.stage.timeout_at);
        effects.push(Effect::Shadow { device: device.clone(), release, expires });
    }

    /// Whether devices are being given the release: a completed rollout goes on for late ones.
    pub(super) const fn spreads(&self) -> bool {
        match &self.state {
            State::Running | State::Finished { outcome: Outcome::Completed, .. } => true,
            State::Paused { .. }
            | State::Holding { .. }
            | State::AwaitingOperator { .. }
            | State::RollingBack { .. }
            | State::Finished { outcome: Outcome::RolledBack | Outcome::Aborted, .. } => false,
        }
    }
}
