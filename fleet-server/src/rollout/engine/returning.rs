//! The way back: who is told to return, to what, how fast, and when that is over.

use serin_protocol::assignment::{Order, ReleaseRef};
use serin_protocol::message::Reason;

use super::super::notation::span;
use super::super::plan::Selector;
use super::super::state::Failure;
use super::super::verdict::Decision;
use super::{DeviceId, DeviceRecord, Effect, Effects, Millis, Outcome, Rollout, Standing, State, UnixMillis};

impl Rollout {
    /// Tells a device to return, unless it was told or a field engineer decides there.
    pub(super) fn take_back(&mut self, device: &DeviceId, effects: &mut Effects) {
        let Some(record) = self.fleet.get(device) else {
            return;
        };
        if record.pinned || matches!(record.standing, Standing::Returning { .. }) {
            return;
        }
        let deadline = self.clock.plus(self.plan.rollback_deadline);
        let order = match self.return_target(record) {
            Some(to) => Order::RollBack { from: self.release.id.clone(), to: to.clone() },
            // Nothing ran before: what is unfinished can be given up, what runs has nothing to make way for.
            None if record.active.as_ref() == Some(&self.release.id) => return,
            None => Order::Stay,
        };
        self.stand(device, Standing::Returning { since: self.clock, deadline });
        effects.push(Effect::Assign { device: device.clone(), order, expires: deadline });
    }

    /// What an operator named, else what ran there before, else what most of the fleet ran.
    pub(super) fn return_target(&self, record: &DeviceRecord) -> Option<&ReleaseRef> {
        let own = record.before.as_ref();
        let own = self.baselines.iter().find(|baseline| Some(&baseline.id) == own);
        self.return_to.as_ref().or(own).or_else(|| self.baselines.first())
    }

    /// Every device returns that has the release or may have it, as fast as the plan says.
    pub(super) fn take_back_all(&mut self, effects: &mut Effects) {
        self.end_shadows(effects);
        self.drill = None;
        self.queue = self.concerned(None).into();
        self.pace_anew();
        self.drain_returns(effects);
    }

    /// The same for some of them, at once; the rollout goes on without them.
    pub(super) fn take_back_some(&mut self, who: &Selector, effects: &mut Effects) -> usize {
        let devices = self.concerned(Some(who));
        devices.iter().for_each(|device| self.take_back(device, effects));
        devices.len()
    }

    fn concerned(&self, who: Option<&Selector>) -> Vec<DeviceId> {
        let release = &self.release.id;
        let concerned = |record: &DeviceRecord| match &record.standing {
            Standing::Installing { .. }
            | Standing::Running { .. }
            | Standing::Left { .. }
            | Standing::Drilling { .. }
            | Standing::Unreachable { .. }
            | Standing::Skipped { reason: Reason::Cancelled }
            | Standing::Failed { failure: Failure::TimedOut { .. } | Failure::GaveUp { .. }, .. } => true,
            Standing::Waiting
            | Standing::Shadowing { .. }
            | Standing::Skipped { .. }
            | Standing::Failed { .. }
            | Standing::Returning { .. }
            | Standing::Returned { .. }
            | Standing::NotReturned { .. } => record.active.as_ref() == Some(release),
        };
        let meant = |device: &DeviceId, record: &DeviceRecord| {
            who.is_none_or(|who| who.matches(device, &record.traits, record.active.as_ref()))
        };
        let devices = self.fleet.iter().filter(|(device, record)| concerned(record) && meant(device, record));
        devices.map(|(device, _)| device.clone()).collect()
    }

    /// Tells as many to return as may be told by now.
    pub(super) fn drain_returns(&mut self, effects: &mut Effects) {
        if !matches!(self.state, State::RollingBack { .. }) {
            return;
        }
        while self.may_return()
            && let Some(device) = self.queue.pop_front()
        {
            self.stage.told = self.stage.told.saturating_add(1);
            self.take_back(&device, effects);
        }
    }

    fn may_return(&self) -> bool {
        match self.plan.rollback_rate.filter(|_| !self.return_at_once) {
            Some(rate) => rate.allowed(self.clock.since(self.stage.pace_from)) > u64::from(self.stage.told),
            None => true,
        }
    }

    /// When the next device may be told to return.
    pub(super) fn next_returned(&self) -> Option<UnixMillis> {
        let waits = matches!(self.state, State::RollingBack { .. }) && !self.queue.is_empty();
        let rate = self.plan.rollback_rate.filter(|_| waits)?;
        Some(self.stage.pace_from.plus(rate.next(u64::from(self.stage.told))))
    }

    /// By when a rollback that begins now is over, however few devices answer.
    pub(super) fn rollback_ends(&self) -> UnixMillis {
        let telling = match self.plan.rollback_rate.filter(|_| !self.return_at_once) {
            Some(rate) => rate.next(u64::from(self.fleet.tally().reached())),
            None => Millis(0),
        };
        self.clock.plus(telling).plus(self.plan.rollback_deadline)
    }

    /// Gives up every installation that is unfinished.
    pub(super) fn cancel_all(&mut self, effects: &mut Effects) {
        self.end_shadows(effects);
        self.drill = None;
        let unfinished = |record: &DeviceRecord| {
            matches!(
                record.standing,
                Standing::Installing { .. } | Standing::Left { .. } | Standing::Drilling { .. }
            )
        };
        let devices: Vec<DeviceId> = self
            .fleet
            .iter()
            .filter(|(_, record)| unfinished(record))
            .map(|(device, _)| device.clone())
            .collect();
        let expires = self.clock.plus(self.plan.deadline);
        for device in devices {
            self.stand(&device, Standing::Skipped { reason: Reason::Cancelled });
            effects.push(Effect::Assign { device, order: Order::Stay, expires });
        }
    }

    /// Whether every device that can be reached has returned.
    pub(super) fn all_returned(&self) -> bool {
        match &self.state {
            State::RollingBack { until, .. } => {
                let none_left = self.queue.is_empty() && self.fleet.tally().returning_online == 0;
                self.clock >= *until || none_left
            }
            State::Running
            | State::Paused { .. }
            | State::Holding { .. }
            | State::AwaitingOperator { .. }
            | State::Finished {
                outcome: Outcome::Completed | Outcome::RolledBack | Outcome::Aborted, ..
            } => false,
        }
    }

    /// The rollback is over: how long it took goes on record.
    pub(super) fn finish_rollback(&mut self, effects: &mut Effects) {
        let State::RollingBack { since, .. } = &self.state else {
            return;
        };
        let whole = span::text(self.clock.since(*since));
        // Who is still to be told is told when it speaks.
        self.queue.clear();
        let took = self.fleet.iter().filter_map(|(_, record)| record.standing.took());
        let took: Vec<Millis> = took.collect();
        let (returned, tally) = (took.len(), self.fleet.tally());
        let away = tally.returning.saturating_add(tally.not_returned);
        let missing = if away > 0 { format!("; {away} have not been heard of") } else { String::new() };
        let each = times(took);
        let sentence = format!("{returned} devices returned within {whole} of the decision{each}{missing}");
        self.record(Decision::RolledBack, sentence, None, effects);
        self.finish(Outcome::RolledBack, effects);
    }
}

/// Median and slowest, for a sentence.
pub(super) fn times(mut took: Vec<Millis>) -> String {
    took.sort_unstable();
    match (took.get(took.len() / 2), took.last()) {
        (Some(median), Some(slowest)) => {
            let (median, slowest) = (span::text(*median), span::text(*slowest));
            format!(", each in {median} at the median and {slowest} at the slowest")
        }
        _ => String::new(),
    }
}
