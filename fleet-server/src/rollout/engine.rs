//! The rollout as a machine: `handle(now, event) -> effects`. Folding the same events over the same start
//! gives the same rollout, so that a restarted server goes on exactly where it was, from the stored state or
//! from the stored events.
//!
//! What holds after every event: shares never exceed the plan; controls are untouched before the last
//! stage; whatever is waited for has a deadline; after an abort or a rollback no device is told to run
//! the release; nothing is promoted without evidence. `spread` gives the release, `devices` follows each
//! device, `looks` asks for evidence and weighs what is missing, `judging` has it judged, `decide` moves between stages, `arms` changes
//! shares and ends shadows, `returning` takes back, `drill` proves the way back, `operator` answers people.

mod arms;
mod decide;
mod devices;
mod drill;
mod judging;
mod looks;
mod operator;
mod returning;
mod spread;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serin_protocol::assignment::ReleaseRef;
use serin_protocol::ids::{DeviceId, Digest, Millis, ReleaseId, RolloutId, UnixMillis};
use serin_protocol::message::{Phase, Presence};

use super::cohort::{Position, Salt, control_start};
use super::event::{Effect, Effects, MAX_BASELINES, MAX_DEVICES, RolloutEvent, Sighting, Start, StartError};
use super::fleet::{Fleet, Tally};
use super::gate::MIN_CRASHED;
use super::plan::{Plan, Purpose, Stage};
use super::state::{DeviceRecord, Drill, Outcome, StageProgress, Standing, State, StateVersion};
use super::verdict::Verdict;
use crate::stats::evalue::LogRank;
use judging::Arm;

/// Looks are not closer than this, however short a bake is.
const SHORTEST_LOOK: Millis = Millis(100);

/// How far back from its start a rollout looks at how devices differ anyway: a day has every hour in it.
const BEFORE: Millis = Millis::from_secs(24 * 3600);

/// One rollout. Stored whole as JSON or postcard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    id: RolloutId,
    plan: Plan,
    // What the plan's strategy comes to, made from it when it starts.
    stages: Vec<Stage>,
    release: ReleaseRef,
    baselines: Vec<ReleaseRef>,
    salt: Salt,
    started: UnixMillis,
    // The latest time seen: a clock that is set back does not turn deadlines back.
    clock: UnixMillis,
    state: State,
    version: StateVersion,
    stage: StageProgress,
    control_start: Option<Position>,
    fleet: Fleet,
    crashed: LogRank,
    // Rates, windows and comparisons are set aside.
    emergency: bool,
    // To be told to return, in this order, as fast as the plan allows.
    queue: VecDeque<DeviceId>,
    // What an operator named to return to.
    return_to: Option<ReleaseRef>,
    // Whatever the rate.
    return_at_once: bool,
    drill: Option<Drill>,
    latest: Option<Verdict>,
}

impl Rollout {
    /// Begins a rollout: the first stage is entered and its devices are told.
    pub fn start(start: Start) -> Result<(Self, Effects), StartError> {
        start.plan.check()?;
        if start.devices.len() > MAX_DEVICES {
            return Err(StartError::TooManyDevices(start.devices.len()));
        }
        if start.baselines.len() > MAX_BASELINES {
            return Err(StartError::TooManyBaselines(start.baselines.len()));
        }
        if start.baselines.iter().any(|baseline| baseline.id == start.release.id) {
            return Err(StartError::ReleaseIsBaseline(start.release.id));
        }
        let who = &start.plan.who;
        let meant = |seen: &&Sighting| who.matches(&seen.device, &seen.traits, seen.active.as_ref());
        let devices: Vec<Sighting> = start.devices.iter().filter(meant).cloned().collect();
        if devices.is_empty() && !who.dynamic {
            return Err(StartError::Nobody(start.devices.len()));
        }
        let stages = start.plan.stages();
        let eligible = devices.iter().filter(|seen| !seen.pinned);
        let mut positions: Vec<Position> =
            eligible.map(|seen| Position::of(start.salt, &seen.device)).collect();
        let mut rollout = Self {
            id: start.id,
            stage: StageProgress::entered(0, start.at, &stages),
            stages,
            control_start: control_start(start.plan.control(), &mut positions),
            plan: start.plan,
            release: start.release,
            baselines: start.baselines,
            salt: start.salt,
            started: start.at,
            clock: start.at,
            state: State::Running,
            version: StateVersion(1),
            fleet: Fleet::default(),
            crashed: LogRank::default(),
            emergency: false,
            queue: VecDeque::new(),
            return_to: None,
            return_at_once: false,
            drill: None,
            latest: None,
        };
        let mut effects = Effects::new();
        rollout.announce(&mut effects);
        // All are known before the first is told: a share is a share of all.
        devices.into_iter().for_each(|seen| rollout.join(seen));
        rollout.settle(&mut effects);
        Ok((rollout, effects))
    }

    /// Begins a rollout again from its stored events.
    pub fn replay(
        start: Start,
        events: impl IntoIterator<Item = (UnixMillis, RolloutEvent)>,
    ) -> Result<Self, StartError> {
        let (mut rollout, _) = Self::start(start)?;
        for (at, event) in events {
            let _ = rollout.handle(at, event);
        }
        Ok(rollout)
    }

    /// Takes one event and returns what is to be done, in order.
    #[must_use]
    pub fn handle(&mut self, now: UnixMillis, event: RolloutEvent) -> Effects {
        self.clock = self.clock.max(now);
        let mut effects = Effects::new();
        // A person's word comes before whatever time would do next: cancel wins.
        if !matches!(event, RolloutEvent::Operator(_)) {
            self.expire(&mut effects);
        }
        match event {
            RolloutEvent::DeviceSeen(seen) => self.seen(seen, &mut effects),
            RolloutEvent::DeviceTransition { device, release, to, reason } => {
                self.moved(&device, &release, to, reason, &mut effects);
            }
            RolloutEvent::DeviceCrashed { device, release } => {
                self.device_crashed(&device, &release, &mut effects);
            }
            RolloutEvent::Judged(judgement) => self.judged(*judgement, &mut effects),
            RolloutEvent::Operator(order) => self.operator(order, &mut effects),
            RolloutEvent::Tick => self.look(&mut effects),
        }
        self.settle(&mut effects);
        effects
    }

    /// When [`RolloutEvent::Tick`] is due next. It may lie in the past: then it is due now.
    pub fn next_deadline(&self) -> Option<UnixMillis> {
        let devices = self.fleet.next_deadline();
        let stage = match &self.state {
            State::Running | State::Holding { .. } => {
                let settled = self.stage.settled_at.is_none().then(|| self.settled_by());
                // Past it only those count whom the rate or a window holds up.
                let settled = settled.filter(|by| *by > self.clock);
                [self.stage.next_look, Some(self.stage.timeout_at), settled]
            }
            State::Paused { .. } | State::AwaitingOperator { .. } => [self.stage.next_look, None, None],
            State::RollingBack { until, .. } => [Some(*until), None, None],
            State::Finished { .. } => [None; 3],
        };
        let told = [self.next_told(), self.next_returned()];
        stage.into_iter().chain(told).flatten().chain(devices).min()
    }

    /// Its number.
    pub const fn id(&self) -> RolloutId {
        self.id
    }

    /// Its plan.
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What its strategy comes to.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// The drill of the way back that is under way.
    pub const fn drill(&self) -> Option<&Drill> {
        self.drill.as_ref()
    }

    /// Decides who is early.
    pub const fn salt(&self) -> Salt {
        self.salt
    }

    /// Whether it is given to everybody without regard to rates, windows and comparisons.
    pub const fn is_emergency(&self) -> bool {
        self.emergency
    }

    /// What is rolled out.
    pub const fn release(&self) -> &ReleaseRef {
        &self.release
    }

    /// What the fleet ran before.
    pub fn baselines(&self) -> &[ReleaseRef] {
        &self.baselines
    }

    /// When it started.
    pub const fn started(&self) -> UnixMillis {
        self.started
    }

    /// What it is doing.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Counts changes of state and stage.
    pub const fn version(&self) -> StateVersion {
        self.version
    }

    /// The current stage, or the one it ended in.
    pub const fn stage(&self) -> &StageProgress {
        &self.stage
    }

    /// Its devices.
    pub const fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The last verdict. All were given out as [`Effect::Record`].
    pub const fn latest_verdict(&self) -> Option<&Verdict> {
        self.latest.as_ref()
    }

    fn stage_plan(&self) -> Option<&Stage> {
        self.stages.get(self.stage.index)
    }

    fn is_last_stage(&self) -> bool {
        self.stage.index + 1 >= self.stages.len()
    }

    /// Whether devices are being taken back: a finished rollback goes on for those that return.
    const fn takes_back(&self) -> bool {
        match &self.state {
            State::RollingBack { .. } | State::Finished { outcome: Outcome::RolledBack, .. } => true,
            State::Running
            | State::Paused { .. }
            | State::Holding { .. }
            | State::AwaitingOperator { .. }
            | State::Finished { outcome: Outcome::Completed | Outcome::Aborted, .. } => false,
        }
    }

    fn enter(&mut self, state: State, effects: &mut Effects) {
        self.state = state;
        self.version = StateVersion(self.version.0.saturating_add(1));
        self.announce(effects);
    }

    fn announce(&self, effects: &mut Effects) {
        effects.push(Effect::StateChanged {
            version: self.version,
            state: self.state.clone(),
            stage: self.stage.index,
        });
    }
}

impl StageProgress {
    fn entered(index: usize, now: UnixMillis, stages: &[Stage]) -> Self {
        let timeout = stages.get(index).map_or(Millis(0), |stage| stage.timeout);
        Self {
            index,
            entered: now,
            timeout_at: now.plus(timeout),
            settled_at: None,
            looks: 0,
            next_look: None,
            missing: None,
            pace_from: now,
            told: 0,
            skipped: Vec::new(),
            allocation: None,
            windows: 0,
        }
    }
}

/// A device's own record when it joins.
fn newcomer(seen: &Sighting, position: Position, control: bool) -> DeviceRecord {
    DeviceRecord {
        position,
        control,
        presence: seen.presence,
        pinned: seen.pinned,
        traits: seen.traits.clone(),
        crashed: false,
        active: seen.active.clone(),
        before: None,
        attempts: 0,
        standing: Standing::Waiting,
    }
}

#[cfg(test)]
#[path = "engine_properties.rs"]
mod properties;
#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
