//! Which rollouts have a say about a device. Several run side by side as long as no device is in two of them.

use serin_protocol::ids::{DeviceId, RolloutId, UnixMillis};

use super::rollouts::Live;
use super::{FleetError, State};
use crate::rollout::Rollout;
use crate::rollout::event::Sighting;
use crate::rollout::plan::selector::Selector;
use crate::rollout::state::{self, Outcome};

/// Rollouts that are not finished, at most: each looks at every device that it has, again and again.
pub(super) const MAX_LIVE: usize = 16;

/// How a rollout ended, if it has.
fn outcome(rollout: &Rollout) -> Option<Outcome> {
    match rollout.state() {
        state::State::Finished { outcome, .. } => Some(*outcome),
        state::State::Running
        | state::State::Paused { .. }
        | state::State::Holding { .. }
        | state::State::AwaitingOperator { .. }
        | state::State::RollingBack { .. } => None,
    }
}

fn has(live: &Live, device: &DeviceId) -> bool {
    live.rollout.fleet().get(device).is_some()
}

impl State {
    /// Rollouts that are not finished.
    pub(super) fn live(&self) -> impl Iterator<Item = &Rollout> {
        self.rollouts.values().map(|live| &live.rollout).filter(|rollout| !rollout.state().is_finished())
    }

    /// Who has a say about a device: the rollout it is in, while that is not finished. Else the youngest one that has it
    /// or lets it join; and where that one has taken its release back, also the youngest completed one before it, whose
    /// release late devices still get.
    pub(super) fn deciding(&self, device: &DeviceId) -> Vec<RolloutId> {
        let rollouts = || self.rollouts.iter().rev();
        let unfinished = |live: &Live| !live.rollout.state().is_finished();
        if let Some((id, _)) = rollouts().find(|(_, live)| unfinished(live) && has(live, device)) {
            return vec![*id];
        }
        let sighting = self.devices.get(device).map(|record| Sighting::from(&record));
        let lets_join = |live: &Live| {
            let who = &live.rollout.plan().who;
            let means = |seen: &Sighting| who.matches(device, &seen.traits, seen.active.as_ref());
            // An aborted one has ended for all but those it has: late devices get what a completed one before it spread.
            let ended = outcome(&live.rollout) == Some(Outcome::Aborted);
            who.dynamic && !ended && sighting.as_ref().is_some_and(means)
        };
        let mut concerned = rollouts().filter(|(_, live)| has(live, device) || lets_join(live));
        let Some((id, youngest)) = concerned.next() else {
            return Vec::new();
        };
        let mut deciding = Vec::new();
        if outcome(&youngest.rollout) == Some(Outcome::RolledBack) {
            let completed = concerned.find(|(_, live)| outcome(&live.rollout) == Some(Outcome::Completed));
            deciding.extend(completed.map(|(id, _)| *id));
        }
        deciding.push(*id);
        deciding
    }

    /// The younger rollout that has a say about devices of rollout `id` now. One that has taken its release back
    /// leaves the say to a completed one before it.
    pub(super) fn taken_over(&self, id: RolloutId) -> Option<RolloutId> {
        let mine = &self.rollouts.get(&id)?.rollout;
        let shares = |live: &Live| mine.fleet().iter().any(|(device, _)| has(live, device));
        let younger = self.rollouts.iter().rev().take_while(|(other, _)| **other > id);
        let completed = outcome(mine) == Some(Outcome::Completed);
        let stands = |live: &Live| !completed || outcome(&live.rollout) != Some(Outcome::RolledBack);
        younger.filter(|(_, live)| stands(live) && shares(live)).map(|(other, _)| *other).next()
    }

    /// Refuses a rollout for whom `who` means that is in another one, or may come to be in two.
    pub(super) fn refuse_two_at_once(&self, who: &Selector) -> Result<(), FleetError> {
        if self.live().count() >= MAX_LIVE {
            return Err(FleetError::Conflict(format!(
                "{MAX_LIVE} rollouts are under way; a further one must wait"
            )));
        }
        for other in self.live() {
            let busy = format!("rollout {} of {} is {}", other.id(), other.release().id, other.state());
            let is_in_it = |record: &crate::store::DeviceRecord| {
                let seen = Sighting::from(record);
                who.matches(&seen.device, &seen.traits, seen.active.as_ref())
                    && other.fleet().get(&seen.device).is_some()
            };
            let shared = self.devices.records().filter(is_in_it).count();
            if shared > 0 {
                return Err(FleetError::Conflict(format!(
                    "{busy} on {shared} of these devices; a device is in one rollout at a time: wait, or name others"
                )));
            }
            if who.dynamic && other.plan().who.dynamic && !who.excludes(&other.plan().who) {
                return Err(FleetError::Conflict(format!(
                    "{busy}; devices that come later could be meant by both: name others, or write who.dynamic = false"
                )));
            }
        }
        Ok(())
    }

    /// Times over which reports must not be merged: evidence is asked for from there on.
    pub(super) fn fences(&self) -> Vec<UnixMillis> {
        self.live().flat_map(|rollout| [rollout.started(), rollout.stage().entered]).collect()
    }
}
