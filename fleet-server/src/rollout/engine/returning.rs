//! The way back: who is told to return, to what, and when that is over.

use serin_protocol::assignment::{Order, ReleaseRef};
use serin_protocol::message::Reason;

use super::super::state::Failure;
use super::{DeviceId, DeviceRecord, Effect, Effects, Outcome, Rollout, Standing, State};

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
        self.stand(device, Standing::Returning { deadline });
        effects.push(Effect::Assign { device: device.clone(), order, expires: deadline });
    }

    fn return_target(&self, record: &DeviceRecord) -> Option<&ReleaseRef> {
        let own = record.before.as_ref();
        let own = self.baselines.iter().find(|baseline| Some(&baseline.id) == own);
        own.or_else(|| self.baselines.first())
    }

    /// Tells every device to return that has the release or may have it.
    pub(super) fn take_back_all(&mut self, effects: &mut Effects) {
        let release = &self.release.id;
        let concerned = |record: &DeviceRecord| match &record.standing {
            Standing::Installing { .. }
            | Standing::Running { .. }
            | Standing::Left { .. }
            | Standing::Unreachable { .. }
            | Standing::Skipped { reason: Reason::Cancelled }
            | Standing::Failed { failure: Failure::TimedOut { .. } | Failure::GaveUp { .. }, .. } => true,
            Standing::Waiting
            | Standing::Skipped { .. }
            | Standing::Failed { .. }
            | Standing::Returning { .. }
            | Standing::Returned { .. }
            | Standing::NotReturned { .. } => record.active.as_ref() == Some(release),
        };
        let devices: Vec<DeviceId> = self
            .fleet
            .iter()
            .filter(|(_, record)| concerned(record))
            .map(|(device, _)| device.clone())
            .collect();
        devices.iter().for_each(|device| self.take_back(device, effects));
    }

    /// Gives up every installation that is unfinished.
    pub(super) fn cancel_all(&mut self, effects: &mut Effects) {
        let unfinished = |record: &DeviceRecord| {
            matches!(record.standing, Standing::Installing { .. } | Standing::Left { .. })
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
                self.clock >= *until || self.fleet.tally().returning_online == 0
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
}
