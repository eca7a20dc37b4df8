//! A drill: some devices that run the release go back to what they ran before and come again, so that the way
//! back is known to work and how long it takes.

use serin_protocol::assignment::Order;

use super::super::event::{MAX_DRILL, Refusal};
use super::super::verdict::Decision;
use super::returning::times;
use super::{DeviceId, Drill, Effect, Effects, Millis, Outcome, Presence, Rollout, Standing, State};

impl Rollout {
    pub(super) fn begin_drill(
        &mut self,
        by: &str,
        wanted: u32,
        why: &str,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let possible = match &self.state {
            State::Running
            | State::Paused { .. }
            | State::Holding { .. }
            | State::AwaitingOperator { .. }
            | State::Finished { outcome: Outcome::Completed, .. } => self.drill.is_none(),
            State::RollingBack { .. }
            | State::Finished { outcome: Outcome::RolledBack | Outcome::Aborted, .. } => false,
        };
        if !possible {
            return self.not_now("drill");
        }
        let able = self.fleet.iter().filter(|(_, record)| {
            let runs = matches!(record.standing, Standing::Running { .. }) && !record.pinned;
            runs && record.presence == Presence::Online && self.return_target(record).is_some()
        });
        let mut able: Vec<_> = able.map(|(device, record)| (record.position, device.clone())).collect();
        able.sort_unstable();
        able.truncate(usize::try_from(wanted.clamp(1, MAX_DRILL)).unwrap_or(1));
        if able.is_empty() {
            let words = "no device that is there runs the release and has something to go back to";
            return Err(Refusal::Nothing(words.to_owned()));
        }
        let devices = u32::try_from(able.len()).unwrap_or(u32::MAX);
        self.drill =
            Some(Drill { since: self.clock, by: by.to_owned(), devices, took: Vec::new(), failed: 0 });
        let sentence = format!("{devices} devices practise the way back {why}");
        self.record(Decision::Drill, sentence, None, effects);
        able.iter().for_each(|(_, device)| self.practise(device, effects));
        Ok(())
    }

    fn practise(&mut self, device: &DeviceId, effects: &mut Effects) {
        let to = self.fleet.get(device).and_then(|record| self.return_target(record)).cloned();
        let Some(to) = to else { return };
        let deadline = self.clock.plus(self.plan.rollback_deadline);
        self.stand(device, Standing::Drilling { since: self.clock, deadline });
        let order = Order::RollBack { from: self.release.id.clone(), to };
        effects.push(Effect::Assign { device: device.clone(), order, expires: deadline });
    }

    /// A device has come back within its deadline, or has not: it is given the release again.
    pub(super) fn practised(&mut self, device: &DeviceId, took: Option<Millis>, effects: &mut Effects) {
        if let Some(drill) = &mut self.drill {
            match took {
                Some(took) => drill.took.push(took),
                None => drill.failed = drill.failed.saturating_add(1),
            }
        }
        if self.takes_back() {
            self.stand(device, Standing::Returned { at: self.clock, took });
            return;
        }
        if self.fleet.get(device).is_some_and(|record| record.pinned) {
            // An engineer decides there by now: it waits until the device is given back.
            self.stand(device, Standing::Waiting);
        } else {
            self.give(device, effects);
        }
        let over = self.fleet.tally().drilling == 0;
        let Some(drill) = self.drill.take_if(|_| over) else { return };
        let returned = drill.took.len();
        let words = times(drill.took);
        let sentence = if drill.failed == 0 {
            format!("the way back works: {returned} of {} devices returned{words}", drill.devices)
        } else {
            format!("the way back failed on {} of {} devices{words}", drill.failed, drill.devices)
        };
        self.record(Decision::Drill, sentence, None, effects);
    }
}
