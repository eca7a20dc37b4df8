//! Runs the rollout engine: events in, effects out, each stored together with what it leads to.

use std::collections::BTreeMap;

use serin_protocol::assignment::ReleaseRef;
use serin_protocol::ids::{DeviceId, Millis, ReleaseId, RolloutId, UnixMillis};
use serin_protocol::topic::Topic;
use tracing::info;

use super::feed::Happening;
use super::{Draft, Fleet, FleetError, State, evidence};
use crate::rollout::Rollout;
use crate::rollout::cohort::Salt;
use crate::rollout::event::{Effect, Effects, OperatorOrder, RolloutEvent, Sighting, Start};
use crate::rollout::plan::selector::Selector;
use crate::rollout::plan::{Plan, Preset};
use crate::rollout::preview::Preview;
use crate::rollout::state::StateVersion;
use crate::rollout::verdict::Verdict;
use crate::store::{Assigned, Store, StoreError, StoredRollout};

/// Rollouts kept; beyond that the oldest is forgotten. Each keeps a record per device.
pub const MAX_ROLLOUTS: usize = 50;

/// Events stored before they are folded into a snapshot, at least; with more devices, one per device, so
/// that writing snapshots costs no more than writing events.
const EVENTS_BEFORE_FOLD: usize = 1000;

/// How long a first release is watched by default. There is nothing to compare it with.
const FIRST_BAKE: Millis = Millis::from_secs(60);

/// A rollout in memory.
pub(super) struct Live {
    pub(super) rollout: Rollout,
    /// Stored since the last fold.
    events: usize,
}

/// Takes all rollouts up where they were.
pub(super) fn load(store: &dyn Store) -> Result<BTreeMap<RolloutId, Live>, StoreError> {
    let take_up = |stored: StoredRollout| {
        let id = stored.start.id;
        let unreadable = |why: String| StoreError::Unreadable { what: "rollout", name: id.to_string(), why };
        let mut rollout: Rollout = match &stored.snapshot {
            Some(bytes) => serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?,
            None => Rollout::start(stored.start).map_err(|error| unreadable(error.to_string()))?.0,
        };
        let events = stored.events.len();
        for (at, event) in stored.events {
            // What it led to was stored with it. Evidence not yet judged is asked for again.
            let _ = rollout.handle(at, event);
        }
        Ok((id, Live { rollout, events }))
    };
    store.rollouts()?.into_iter().map(take_up).collect()
}

impl Fleet {
    /// Looks at all rollouts, the oldest first.
    pub fn rollouts<T>(&self, look: impl Fn(&Rollout) -> T) -> Vec<T> {
        self.lock().rollouts.values().map(|live| look(&live.rollout)).collect()
    }

    /// Looks at one rollout.
    pub fn rollout<T>(&self, id: RolloutId, look: impl FnOnce(&Rollout) -> T) -> Result<T, FleetError> {
        let state = self.lock();
        let live = state.rollouts.get(&id).ok_or_else(|| FleetError::NotFound(format!("rollout {id}")))?;
        Ok(look(&live.rollout))
    }

    /// Looks at one rollout and what was decided in it, oldest first, as both are at one moment: nobody sees it over
    /// without the verdict that ended it.
    pub fn rollout_with_verdicts<T>(
        &self,
        id: RolloutId,
        look: impl FnOnce(&Rollout, &[Verdict]) -> T,
    ) -> Result<T, FleetError> {
        let state = self.lock();
        let live = state.rollouts.get(&id).ok_or_else(|| FleetError::NotFound(format!("rollout {id}")))?;
        Ok(look(&live.rollout, &self.store.verdicts(id)?))
    }

    /// Rolls a release out. Without a plan: by the preset that fits the fleet where there is something to compare
    /// with, at once for a first release.
    pub fn start_rollout(
        &self,
        release: &ReleaseId,
        plan: Option<Plan>,
        salt: Option<Salt>,
        now: UnixMillis,
    ) -> Result<RolloutId, FleetError> {
        let salt = salt.map_or_else(draw_salt, Ok)?;
        let id = self.change(now, |state, draft| {
            let start = self.prepare(state, release, plan, salt, now)?;
            let (rollout, effects) = Rollout::start(start.clone())?;
            let id = start.id;
            let assigned = self.assignments(state, id, &effects, now)?;
            self.store.add_rollout(&start, &assigned)?;
            self.forget_old_rollouts(state)?;
            state.rollouts.insert(id, Live { rollout, events: 0 });
            info!(rollout = %id, %release, devices = start.devices.len(), "rollout started");
            self.carry_out(state, draft, id, effects, assigned)?;
            Ok(id)
        })?;
        Ok(id)
    }

    /// What a rollout would do, and the salt that makes it do just that.
    pub fn preview_rollout(
        &self,
        release: &ReleaseId,
        plan: Option<Plan>,
        salt: Option<Salt>,
        now: UnixMillis,
    ) -> Result<(Plan, Salt, Preview), FleetError> {
        let salt = salt.map_or_else(draw_salt, Ok)?;
        let start = self.prepare(&self.lock(), release, plan, salt, now)?;
        Ok((start.plan.clone(), salt, Preview::of(start)?))
    }

    /// A release as orders name it; refused unless it can be rolled out.
    pub fn reference(&self, release: &ReleaseId) -> Result<ReleaseRef, FleetError> {
        self.publishable(&self.lock(), release)
    }

    /// A release that devices may be told to run: it is with the broker, and its owner lists it.
    pub(super) fn publishable(&self, state: &State, release: &ReleaseId) -> Result<ReleaseRef, FleetError> {
        let facts = state.releases.get(release);
        let facts = facts.ok_or_else(|| FleetError::NotFound(format!("release {release}")))?;
        if !facts.record.published {
            return Err(FleetError::Conflict(format!("{release} is not with the broker yet")));
        }
        if !(self.listed)(release, &facts.record.statement) {
            return Err(FleetError::Conflict(format!("the owner of {release} no longer lists it")));
        }
        Ok(ReleaseRef { id: release.clone(), statement: facts.record.statement })
    }

    fn prepare(
        &self,
        state: &State,
        release: &ReleaseId,
        plan: Option<Plan>,
        salt: Salt,
        now: UnixMillis,
    ) -> Result<Start, FleetError> {
        let wanted = self.publishable(state, release)?;
        let everybody = Selector::default();
        let who = plan.as_ref().map_or(&everybody, |plan| &plan.who);
        state.refuse_two_at_once(who)?;
        let taking_part = || state.devices.admitted().map(|record| Sighting::from(&record));
        let meant: Vec<Sighting> = taking_part()
            .filter(|seen| who.matches(&seen.device, &seen.traits, seen.active.as_ref()))
            .collect();
        let baselines = baselines(state, release, &meant);
        let first = || Plan::all_at_once(FIRST_BAKE, 0);
        let fitting = || Preset::fitting(meant.len()).plan();
        let plan = plan.unwrap_or_else(|| if baselines.is_empty() { first() } else { fitting() });
        Ok(Start {
            id: self.store.next_rollout()?,
            plan,
            release: wanted,
            baselines,
            salt,
            at: now,
            devices: taking_part().collect(),
        })
    }

    fn forget_old_rollouts(&self, state: &mut State) -> Result<(), FleetError> {
        let finished = |(id, live): (&RolloutId, &Live)| live.rollout.state().is_finished().then_some(*id);
        while state.rollouts.len() >= MAX_ROLLOUTS
            && let Some(id) = state.rollouts.iter().find_map(finished)
        {
            state.rollouts.remove(&id);
            self.store.drop_rollout(id)?;
        }
        Ok(())
    }

    /// Carries an operator's order out.
    pub fn order(
        &self,
        id: RolloutId,
        order: OperatorOrder,
        now: UnixMillis,
    ) -> Result<StateVersion, FleetError> {
        self.change(now, |state, draft| {
            if !state.rollouts.contains_key(&id) {
                return Err(FleetError::NotFound(format!("rollout {id}")));
            }
            if let Some(other) = state.taken_over(id) {
                return Err(FleetError::Conflict(format!(
                    "rollout {id} is over: rollout {other} took its place"
                )));
            }
            info!(rollout = %id, by = order.by, command = ?order.command, "operator's order");
            let event = RolloutEvent::Operator(order);
            match self.step(state, draft, id, &event, now)? {
                Some(answer) => Ok(answer?),
                None => Err(FleetError::Conflict(format!("rollout {id} did not answer"))),
            }
        })
    }

    /// Lets time pass for rollouts that wait for it.
    pub fn tick(&self, now: UnixMillis) -> Result<(), FleetError> {
        let is_due = |live: &Live| live.rollout.next_deadline().is_some_and(|deadline| deadline <= now);
        let due = |state: &State| -> Vec<RolloutId> {
            state.rollouts.iter().filter(|(_, live)| is_due(live)).map(|(id, _)| *id).collect()
        };
        if due(&self.lock()).is_empty() {
            return Ok(());
        }
        self.change(now, |state, draft| {
            for id in due(state) {
                self.step(state, draft, id, &RolloutEvent::Tick, now)?;
            }
            Ok(())
        })
    }

    /// Tells those that have a say about the device it is about.
    pub(super) fn tell_rollouts(
        &self,
        state: &mut State,
        draft: &mut Draft,
        now: UnixMillis,
        event: &RolloutEvent,
    ) -> Result<(), FleetError> {
        let Some(device) = about(event) else {
            return Ok(());
        };
        for id in state.deciding(&device) {
            self.step(state, draft, id, event, now)?;
        }
        Ok(())
    }

    /// Collects and judges the evidence a rollout wants; long, so without holding anybody up.
    pub(super) fn judge(&self, now: UnixMillis, id: RolloutId) -> Result<(), FleetError> {
        let Some(wanted) = self.rollout(id, Rollout::evidence_wanted)? else {
            return Ok(());
        };
        let evidence = evidence::gather(&*self.store, &wanted, |release| self.release(release).ok())?;
        self.change(now, |state, draft| {
            let Some(live) = state.rollouts.get(&id) else {
                return Ok(());
            };
            // An operator was faster: the evidence is about a stage that is over.
            if live.rollout.evidence_wanted().as_ref() != Some(&wanted) {
                return Ok(());
            }
            let judgement = live.rollout.judge(&evidence);
            self.step(state, draft, id, &RolloutEvent::Judged(Box::new(judgement)), now)?;
            Ok(())
        })
    }

    /// One event for one rollout; the answer where it was an operator's order.
    fn step(
        &self,
        state: &mut State,
        draft: &mut Draft,
        id: RolloutId,
        event: &RolloutEvent,
        now: UnixMillis,
    ) -> Result<Option<Answer>, FleetError> {
        let Some(live) = state.rollouts.get_mut(&id) else {
            return Ok(None);
        };
        let about = about(event);
        let before = about.as_ref().and_then(|device| live.rollout.fleet().get(device)).cloned();
        let mut effects = live.rollout.handle(now, event.clone());
        let after = about.as_ref().and_then(|device| live.rollout.fleet().get(device));
        // Most hellos say what is known; they need not be remembered for ever.
        if effects.is_empty() && about.is_some() && before.as_ref() == after {
            return Ok(None);
        }
        live.events += 1;
        // What a rollout still has in mind for devices that a younger one has taken is not said.
        effects.retain(|effect| match effect {
            Effect::Assign { device, .. } | Effect::Shadow { device, .. } => {
                state.deciding(device).contains(&id)
            }
            Effect::Gather(_) | Effect::Record(_) | Effect::StateChanged { .. } | Effect::Reply(_) => true,
        });
        let assigned = self.assignments(state, id, &effects, now)?;
        self.store.add_rollout_event(id, now, event, &assigned)?;
        self.fold(state, id)?;
        self.carry_out(state, draft, id, effects, assigned)
    }

    fn fold(&self, state: &mut State, id: RolloutId) -> Result<(), FleetError> {
        if let Some(live) = state.rollouts.get_mut(&id)
            && live.events >= EVENTS_BEFORE_FOLD.max(live.rollout.fleet().len())
        {
            let unwritable = |error: serde_json::Error| StoreError::Failed(format!("rollout {id}: {error}"));
            let snapshot = serde_json::to_vec(&live.rollout).map_err(unwritable)?;
            self.store.fold_rollout(id, &snapshot)?;
            live.events = 0;
        }
        Ok(())
    }

    fn carry_out(
        &self,
        state: &mut State,
        draft: &mut Draft,
        id: RolloutId,
        effects: Effects,
        assigned: Vec<Assigned>,
    ) -> Result<Option<Answer>, FleetError> {
        self.metrics.assigned(assigned.len());
        for assigned in assigned {
            draft.say(Topic::Assign(assigned.device.clone()), assigned.sealed, true);
            state.assigned.insert(assigned.device, assigned.sequence);
        }
        let mut answer = None;
        for effect in effects {
            match effect {
                // Told above.
                Effect::Assign { .. } | Effect::Shadow { .. } => {}
                Effect::Gather(_) => {
                    draft.gather.insert(id);
                }
                Effect::Record(verdict) => {
                    info!(rollout = %id, decision = %verdict.decision, why = verdict.sentence, "verdict");
                    self.metrics.verdict(verdict.decision);
                    self.store.add_verdict(id, &verdict)?;
                    draft.happenings.push(Happening::Verdict { rollout: id, verdict: Box::new(verdict) });
                }
                Effect::StateChanged { version, state, stage } => {
                    info!(rollout = %id, %state, stage, "rollout moved");
                    draft.happenings.push(Happening::Rollout { rollout: id, version, state, stage });
                }
                Effect::Reply(said) => answer = Some(said),
            }
        }
        Ok(answer)
    }
}

fn draw_salt() -> Result<Salt, FleetError> {
    let mut salt = [0; 8];
    getrandom::fill(&mut salt).map_err(FleetError::Random)?;
    Ok(Salt(u64::from_le_bytes(salt)))
}

type Answer = Result<StateVersion, crate::rollout::event::Refusal>;

/// The device an event is about, if it is about one.
fn about(event: &RolloutEvent) -> Option<DeviceId> {
    match event {
        RolloutEvent::DeviceSeen(sighting) => Some(sighting.device.clone()),
        RolloutEvent::DeviceTransition { device, .. } | RolloutEvent::DeviceCrashed { device, .. } => {
            Some(device.clone())
        }
        RolloutEvent::Judged(_) | RolloutEvent::Operator(_) | RolloutEvent::Tick => None,
    }
}

/// What those who are meant run, the most frequent first.
fn baselines(state: &State, release: &ReleaseId, meant: &[Sighting]) -> Vec<ReleaseRef> {
    let mut counts: BTreeMap<&ReleaseId, usize> = BTreeMap::new();
    for active in meant.iter().filter_map(|seen| seen.active.as_ref()) {
        *counts.entry(active).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().filter(|(id, _)| *id != release).collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let known = counts.into_iter().filter_map(|(id, _)| state.releases.get(id));
    let reference = |facts: &std::sync::Arc<super::releases::ReleaseFacts>| ReleaseRef {
        id: facts.record.release.id.clone(),
        statement: facts.record.statement,
    };
    known.map(reference).take(crate::rollout::event::MAX_BASELINES).collect()
}
