//! What each device says and what it is told.

use serin_protocol::assignment::Order;

use super::super::state::Failure;
use super::{
    DeviceId, DeviceRecord, Effect, Effects, MAX_DEVICES, Millis, Outcome, Phase, Position, Presence,
    ReleaseId, Rollout, Sighting, Standing, State, newcomer,
};
use serin_protocol::message::Reason;

/// Times a device is given the release before it is given up: one more for each return after having been
/// unreachable or re-imaged. A device that loses it more often has another trouble.
const MAX_ATTEMPTS: u8 = 5;

/// A device seen with another release is asked nothing for this long: its own report of why may be
/// on its way, and a release it took back itself must not be pushed on it again.
const WORD_TIME: Millis = Millis::from_secs(60);

/// What a reason a device gives says about the release.
enum Blame {
    /// It could not install or run it.
    Release,
    /// Somebody else's order came between.
    Order,
    /// A field engineer decided.
    Engineer,
}

fn blame(reason: Option<&Reason>) -> Blame {
    match reason {
        Some(Reason::Superseded | Reason::Cancelled | Reason::FleetRollback) => Blame::Order,
        Some(Reason::FieldRollback | Reason::Pinned | Reason::Held) => Blame::Engineer,
        None
        | Some(
            Reason::Expired
            | Reason::WrongTarget { .. }
            | Reason::BelowClass(_)
            | Reason::WrongRuntime { .. }
            | Reason::OverMemoryBudget { .. }
            | Reason::NoSpace { .. }
            | Reason::BadStatement(_)
            | Reason::Untrusted(_)
            | Reason::BadBundle(_)
            | Reason::LoadFailed(_)
            | Reason::GoldenMismatch(_)
            | Reason::WorkerDied(_)
            | Reason::ErrorRate { .. }
            | Reason::CrashLoop { .. }
            | Reason::TooManyErrors { .. }
            | Reason::Collapsed { .. }
            | Reason::TooSlow(_)
            | Reason::NoTrial(_)
            | Reason::NoDecoder(_)
            | Reason::Storage(_),
        ) => Blame::Release,
    }
}

impl Rollout {
    /// Adds a device that nobody has told anything yet. Beyond [`MAX_DEVICES`] it is left out.
    pub(super) fn join(&mut self, seen: Sighting) {
        if self.fleet.len() >= MAX_DEVICES {
            return;
        }
        let position = Position::of(self.salt, &seen.device);
        let who = &self.plan.who;
        if !who.matches(&seen.device, &seen.traits, seen.active.as_ref()) {
            return;
        }
        let control = self.control_start.is_some_and(|start| position >= start);
        let mut record = newcomer(&seen, position, control);
        if seen.active.as_ref() == Some(&self.release.id) {
            record.standing = Standing::Running { since: self.clock };
        }
        self.fleet.insert(seen.device, record);
    }

    /// Whether a device that comes now is still taken in: not by a rollout that has ended, but for what its end
    /// leaves to be done.
    fn takes_in(&self, seen: &Sighting) -> bool {
        let has = |release: &Option<ReleaseId>| release.as_ref() == Some(&self.release.id);
        match &self.state {
            State::Finished { outcome: Outcome::Aborted, .. } => false,
            // Whoever turns up with the release is told to return.
            State::Finished { outcome: Outcome::RolledBack, .. } => has(&seen.active) || has(&seen.candidate),
            State::Running
            | State::Paused { .. }
            | State::Holding { .. }
            | State::AwaitingOperator { .. }
            | State::RollingBack { .. }
            | State::Finished { outcome: Outcome::Completed, .. } => true,
        }
    }

    pub(super) fn seen(&mut self, seen: Sighting, effects: &mut Effects) {
        let installing = seen.candidate.as_ref() == Some(&self.release.id);
        if self.fleet.get(&seen.device).is_none() {
            if !self.plan.who.dynamic || !self.takes_in(&seen) {
                return;
            }
            let device = seen.device.clone();
            self.join(seen);
            self.seen_beside_order(&device, installing, effects);
            return;
        }
        self.fleet.update(&seen.device, |record| {
            record.presence = seen.presence;
            record.pinned = seen.pinned;
            record.active = seen.active;
            record.traits = seen.traits;
        });
        self.seen_beside_order(&seen.device, installing, effects);
        self.readmit(&seen.device, effects);
    }

    /// Holds what a device shows against what it was told.
    fn seen_beside_order(&mut self, device: &DeviceId, installing: bool, effects: &mut Effects) {
        let Some(record) = self.fleet.get(device) else {
            return;
        };
        let runs = record.active.as_ref() == Some(&self.release.id);
        let there = record.presence == Presence::Online;
        let gone = there && !runs && !installing;
        match &record.standing {
            // Running it although nobody here said so, or later than it was waited for.
            Standing::Waiting | Standing::Unreachable { .. } | Standing::Left { .. } if runs => {
                self.runs(device);
            }
            Standing::Failed { failure: Failure::TimedOut { .. }, .. } if runs => self.runs(device),
            // An engineer put something else there: out of the rollout until he gives the device back.
            Standing::Running { .. } | Standing::Left { .. } if gone && record.pinned => {
                self.stand(device, Standing::Waiting);
            }
            Standing::Running { .. } if gone => {
                let deadline = self.clock.plus(WORD_TIME);
                self.stand(device, Standing::Left { deadline });
            }
            Standing::Returning { .. } | Standing::NotReturned { .. } if gone => self.returned(device),
            Standing::Drilling { since, .. } if gone => {
                let took = self.clock.since(*since);
                self.practised(device, Some(took), effects);
            }
            Standing::Waiting
            | Standing::Shadowing { .. }
            | Standing::Drilling { .. }
            | Standing::Installing { .. }
            | Standing::Running { .. }
            | Standing::Left { .. }
            | Standing::Failed { .. }
            | Standing::Unreachable { .. }
            | Standing::Skipped { .. }
            | Standing::Returning { .. }
            | Standing::Returned { .. }
            | Standing::NotReturned { .. } => {}
        }
        if self.takes_back() && there && (runs || installing) {
            self.take_back(device, effects);
        }
    }

    /// A device that was out of reach is there again: told again what it was told.
    pub(super) fn readmit(&mut self, device: &DeviceId, effects: &mut Effects) {
        let Some(record) = self.fleet.get(device) else {
            return;
        };
        let lost = matches!(record.standing, Standing::Unreachable { .. });
        let there = record.presence == Presence::Online && !record.pinned;
        if !lost || !there || !self.spreads() {
            return;
        }
        self.give_again(device, effects);
    }

    /// Another attempt, or the end of attempts.
    fn give_again(&mut self, device: &DeviceId, effects: &mut Effects) {
        let attempts = self.fleet.get(device).map_or(0, |record| record.attempts);
        if attempts < MAX_ATTEMPTS {
            self.give(device, effects);
        } else {
            self.failed(device, Failure::GaveUp { attempts });
        }
    }

    /// Tells a device to run the release.
    pub(super) fn give(&mut self, device: &DeviceId, effects: &mut Effects) {
        let deadline = self.clock.plus(self.plan.deadline);
        let release = self.release.id.clone();
        self.fleet.update(device, |record| {
            // What it ran is forgotten by nobody who returns to it in a drill.
            if record.active.is_some() && record.active.as_ref() != Some(&release) {
                record.before = record.active.clone();
            }
            record.attempts = record.attempts.saturating_add(1);
            record.standing = Standing::Installing { phase: Phase::Idle, deadline };
        });
        let order = Order::Run { release: self.release.clone(), probation: self.plan.probation };
        effects.push(Effect::Assign { device: device.clone(), order, expires: deadline });
    }

    /// A device's update machine moved.
    pub(super) fn moved(
        &mut self,
        device: &DeviceId,
        release: &ReleaseId,
        to: Phase,
        reason: Option<Reason>,
        effects: &mut Effects,
    ) {
        let Some(record) = self.fleet.get(device) else {
            return;
        };
        if *release != self.release.id {
            // Back at work with what it had: as good as its own word that it has left the release.
            let returning = matches!(
                record.standing,
                Standing::Returning { .. } | Standing::NotReturned { .. } | Standing::Drilling { .. }
            );
            if returning && to == Phase::Committed {
                self.fleet.update(device, |record| record.active = Some(release.clone()));
                self.left_it(device, effects);
            }
            return;
        }
        match to {
            Phase::Idle
            | Phase::Assigned
            | Phase::Admitted
            | Phase::Fetching
            | Phase::Verified
            | Phase::Staged
            | Phase::Warming
            | Phase::Shadowing
            | Phase::Probation => self.progressed(device, to),
            Phase::Committed => self.committed(device, effects),
            Phase::Rejected | Phase::RolledBack => self.ended(device, to, reason, effects),
        }
    }

    fn progressed(&mut self, device: &DeviceId, to: Phase) {
        let release = self.release.id.clone();
        self.fleet.update(device, |record| {
            if to == Phase::Probation {
                record.active = Some(release);
            }
            if let Standing::Installing { phase, .. } = &mut record.standing {
                *phase = to;
            }
        });
    }

    fn committed(&mut self, device: &DeviceId, effects: &mut Effects) {
        let release = self.release.id.clone();
        self.fleet.update(device, |record| record.active = Some(release));
        let returning = self.fleet.get(device).is_some_and(|record| {
            matches!(record.standing, Standing::Returning { .. } | Standing::Drilling { .. })
        });
        if !returning {
            self.runs(device);
        }
        if self.takes_back() {
            // It has not heard the word to return, or there was none because it seemed to have left.
            self.take_back(device, effects);
        }
    }

    /// The device gave the release up, or back.
    fn ended(&mut self, device: &DeviceId, to: Phase, reason: Option<Reason>, effects: &mut Effects) {
        let Some(record) = self.fleet.get(device) else {
            return;
        };
        let again = record.attempts > 1;
        match &record.standing {
            Standing::Returning { .. } | Standing::NotReturned { .. } | Standing::Drilling { .. } => {
                if matches!(blame(reason.as_ref()), Blame::Engineer) {
                    self.fleet.update(device, |record| record.pinned = true);
                }
                self.fleet.update(device, |record| record.active = None);
                self.left_it(device, effects);
            }
            // The echo of an earlier attempt that a newer one replaced.
            Standing::Installing { .. }
                if again && matches!(reason, Some(Reason::Superseded | Reason::Expired)) => {}
            Standing::Installing { .. }
            | Standing::Running { .. }
            | Standing::Left { .. }
            | Standing::Shadowing { .. }
            | Standing::Unreachable { .. }
            | Standing::Failed { failure: Failure::TimedOut { .. }, .. } => self.lost(device, to, reason),
            Standing::Waiting
            | Standing::Failed { .. }
            | Standing::Skipped { .. }
            | Standing::Returned { .. } => {}
        }
    }

    fn lost(&mut self, device: &DeviceId, to: Phase, reason: Option<Reason>) {
        let before = self.fleet.get(device).and_then(|record| record.before.clone());
        self.fleet.update(device, |record| {
            if to == Phase::RolledBack {
                record.active = before;
            }
        });
        match (blame(reason.as_ref()), reason) {
            (Blame::Release, reason) if to == Phase::RolledBack => {
                self.failed(device, Failure::RolledBack(reason));
            }
            (Blame::Release, reason) => self.failed(device, Failure::Rejected(reason)),
            (Blame::Order, Some(reason)) => self.stand(device, Standing::Skipped { reason }),
            (Blame::Engineer, _) | (Blame::Order, None) => {
                // Out of the rollout until the engineer gives the device back; then it waits for its turn.
                self.fleet.update(device, |record| record.pinned = true);
                self.stand(device, Standing::Waiting);
            }
        }
    }

    fn runs(&mut self, device: &DeviceId) {
        self.stand(device, Standing::Running { since: self.clock });
    }

    fn failed(&mut self, device: &DeviceId, failure: Failure) {
        self.stand(device, Standing::Failed { at: self.clock, failure });
    }

    /// A device that was told to return has left the release.
    fn left_it(&mut self, device: &DeviceId, effects: &mut Effects) {
        match self.fleet.get(device).map(|record| record.standing.clone()) {
            Some(Standing::Drilling { since, .. }) => {
                self.practised(device, Some(self.clock.since(since)), effects);
            }
            Some(_) | None => self.returned(device),
        }
    }

    fn returned(&mut self, device: &DeviceId) {
        let Some(record) = self.fleet.get(device) else {
            return;
        };
        let told = if let Standing::Returning { since, .. } = &record.standing { Some(*since) } else { None };
        let took = told.map(|since| self.clock.since(since));
        // Where shares follow a reward it may get the release again in a later window.
        let again = self.state.is_forward() && self.stage.allocation.is_some();
        let standing = if again { Standing::Waiting } else { Standing::Returned { at: self.clock, took } };
        self.stand(device, standing);
    }

    pub(super) fn stand(&mut self, device: &DeviceId, standing: Standing) {
        self.fleet.update(device, |record| record.standing = standing);
    }

    /// Ends every wait whose time is over.
    pub(super) fn expire(&mut self, effects: &mut Effects) {
        while let Some(device) = self.fleet.due(self.clock) {
            let Some(record) = self.fleet.get(&device) else {
                return;
            };
            let there = record.presence == Presence::Online;
            let runs = record.active.as_ref() == Some(&self.release.id);
            let since = self.clock;
            match record.standing.clone() {
                // Its word that it committed was lost; it has run the release for its whole probation.
                Standing::Installing { .. } if runs => self.runs(&device),
                Standing::Installing { phase, .. } if there => {
                    self.failed(&device, Failure::TimedOut { phase });
                }
                Standing::Left { .. } if there && !record.pinned && self.spreads() => {
                    self.give_again(&device, effects);
                }
                Standing::Installing { .. } | Standing::Left { .. } => {
                    self.stand(&device, Standing::Unreachable { since });
                }
                Standing::Returning { .. } => self.stand(&device, Standing::NotReturned { since }),
                Standing::Drilling { .. } => self.practised(&device, None, effects),
                Standing::Waiting
                | Standing::Shadowing { .. }
                | Standing::Running { .. }
                | Standing::Failed { .. }
                | Standing::Unreachable { .. }
                | Standing::Skipped { .. }
                | Standing::Returned { .. }
                | Standing::NotReturned { .. } => return,
            }
        }
    }

    /// Devices that could not be given the release while nothing was spread.
    pub(super) fn readmit_all(&mut self, effects: &mut Effects) {
        let lost = |record: &DeviceRecord| matches!(record.standing, Standing::Unreachable { .. });
        let devices: Vec<DeviceId> =
            self.fleet.iter().filter(|(_, record)| lost(record)).map(|(device, _)| device.clone()).collect();
        devices.iter().for_each(|device| self.readmit(device, effects));
    }
}
