//! One rollout over a generated fleet, by the real engine, with its invariants checked at every step.

mod happen;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use anyhow::{Result, ensure};
use serin_fleet_server::rollout::Rollout;
use serin_fleet_server::rollout::cohort::Salt;
use serin_fleet_server::rollout::event::{
    Command, Effect, Effects, OperatorOrder, RolloutEvent, Sighting, Start,
};
use serin_fleet_server::rollout::evidence::Evidence;
use serin_fleet_server::rollout::plan::selector::{Tags, Traits};
use serin_fleet_server::rollout::plan::{Gates, Plan, Preset};
use serin_fleet_server::rollout::state::{Outcome, Standing, State};
use serin_fleet_server::rollout::verdict::{Decision, Verdict};
use serin_fleet_server::stats::random::SplitMix64;
use serin_protocol::assignment::ReleaseRef;
use serin_protocol::ids::{DeviceId, Digest, Millis, ReleaseId, RolloutId, TargetClass, UnixMillis};
use serin_protocol::message::Presence;

use super::world::{HOUR, Pooled, Setting, World};

/// The moment at which simulations begin.
const BEGIN: UnixMillis = UnixMillis(1_795_000_000_000);

/// Longest a rollout may take before it counts as stuck: two stages of a day and a stage of an hour, with room.
const HORIZON: Millis = Millis(120 * HOUR);

/// A rollout that is held for so long has been stopped.
const HELD: Millis = Millis(3 * HOUR);

/// Between two points of the streams that pooled judges see.
pub(super) const STEP: Millis = Millis(150_000);

/// Share of devices that cannot install the release, whatever it is like.
const CANNOT: f64 = 0.002;

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Completed,
    RolledBack,
    /// It waits for an operator.
    Operator,
}

/// What one rollout came to.
pub(crate) struct Ran {
    pub(crate) end: End,
    /// From the first device that ran it to the decision that ended it.
    pub(crate) decided_after: Millis,
    /// Share of the fleet that had it at most.
    pub(crate) exposed: f64,
    /// Looks that were judged.
    pub(crate) looks: u32,
    pub(crate) events: usize,
}

/// Who decides.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    /// The plan with its gates.
    Engine,
    /// An operator who enters every stage when its bake is over: the streams that pooled judges watch.
    Clock,
}

/// What the pooled judges see of one stage.
pub(crate) type Points = Vec<[Pooled; 2]>;

pub(crate) struct Run<'a> {
    pub(crate) rollout: Rollout,
    start: Start,
    world: World,
    now: UnixMillis,
    log: Vec<(UnixMillis, RolloutEvent)>,
    agenda: BinaryHeap<Reverse<(UnixMillis, u64, Item)>>,
    items: u64,
    random: SplitMix64,
    numbers: BTreeMap<DeviceId, usize>,
    driver: Driver,
    looks: u32,
    exposed: u32,
    first_ran: Option<UnixMillis>,
    decided: Option<UnixMillis>,
    verdicts: Vec<Verdict>,
    /// Per stage, with the time at which its first point ends.
    pub(crate) points: Vec<(UnixMillis, Points)>,
    trace: &'a mut dyn FnMut(UnixMillis, String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Moved(usize, Step),
    Crashed(usize, bool),
    Offline(usize),
    Point,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Probation,
    Committed,
    Rejected,
    Back,
}

fn release(version: &str) -> ReleaseRef {
    let id: ReleaseId = format!("digits@{version}").parse().expect("a release");
    ReleaseRef { id, statement: Digest::of(version.as_bytes()) }
}

fn plan(setting: Setting, driver: Driver) -> Plan {
    let mut plan = Preset::fitting(setting.devices).plan();
    if driver == Driver::Clock {
        // Nothing holds it but time.
        plan.gates = Gates { crashes: false, reporting: false, ..Gates::default() };
        plan.gates.error_rate = None;
        plan.gates.latency = None;
    }
    plan
}

impl<'a> Run<'a> {
    /// `watched`: devices are drawn every [`STEP`], as pooled judges need it, and not only for looks.
    pub(crate) fn new(
        seed: u64,
        driver: Driver,
        watched: bool,
        trace: &'a mut dyn FnMut(UnixMillis, String),
    ) -> Result<Self> {
        let setting = Setting::of(seed);
        let world = World::new(seed, setting, BEGIN);
        let mut random = SplitMix64::new(seed ^ 0xd1ce);
        let kinds: [TargetClass; 2] =
            ["linux-x86_64", "linux-aarch64"].map(|name| name.parse().expect("a target"));
        let sighting = |device: &super::world::Simulated| Sighting {
            device: device.id.clone(),
            presence: Presence::Online,
            active: Some(release("1").id),
            candidate: None,
            pinned: false,
            traits: Traits { target: kinds[random.below(2)].clone(), tags: Tags::new() },
        };
        let devices = world.devices.iter().map(sighting).collect();
        let start = Start {
            id: RolloutId(1),
            plan: plan(setting, driver),
            release: release("2"),
            baselines: vec![release("1")],
            salt: Salt(random.bits()),
            at: BEGIN,
            devices,
        };
        let (rollout, effects) = Rollout::start(start.clone())?;
        let numbers = world.devices.iter().enumerate().map(|(at, device)| (device.id.clone(), at));
        let mut run = Self {
            rollout,
            start,
            numbers: numbers.collect(),
            world,
            now: BEGIN,
            log: Vec::new(),
            agenda: BinaryHeap::new(),
            items: 0,
            random,
            driver,
            looks: 0,
            exposed: 0,
            first_ran: None,
            decided: None,
            verdicts: Vec::new(),
            points: Vec::new(),
            trace,
        };
        for at in 0..run.world.devices.len() {
            let wait = run.world.next_crash(at);
            run.later(wait, Item::Crashed(at, false));
        }
        if watched {
            run.later(STEP, Item::Point);
        }
        run.carry_out(effects)?;
        Ok(run)
    }

    /// Plays it to its end.
    pub(crate) fn play(mut self) -> Result<(Ran, Vec<(UnixMillis, Points)>)> {
        let end = loop {
            if let Some(end) = self.end() {
                break end;
            }
            ensure!(self.now < BEGIN.plus(HORIZON), "stuck: {}", self.rollout.state());
            self.step()?;
        };
        self.replay()?;
        let held = match self.rollout.state() {
            State::Holding { since, .. } => Some(*since),
            _ => None,
        };
        let decided = self.decided.or(held).unwrap_or(self.now);
        let ran = Ran {
            end,
            decided_after: decided.since(self.first_ran.unwrap_or(BEGIN)),
            exposed: f64::from(self.exposed) / self.world.devices.len().max(1) as f64,
            looks: self.looks,
            events: self.log.len(),
        };
        Ok((ran, self.points))
    }

    fn end(&self) -> Option<End> {
        match self.rollout.state() {
            State::Finished { outcome: Outcome::Completed, .. } => Some(End::Completed),
            State::Finished { outcome: Outcome::RolledBack, .. } => Some(End::RolledBack),
            State::Finished { outcome: Outcome::Aborted, .. } | State::AwaitingOperator { .. } => {
                Some(End::Operator)
            }
            // By then somebody has looked at why.
            State::Holding { since, .. } if self.now.since(*since) >= HELD => Some(End::Operator),
            State::Running | State::Paused { .. } | State::Holding { .. } | State::RollingBack { .. } => None,
        }
    }

    /// Goes to whatever is next.
    fn step(&mut self) -> Result<()> {
        let due = self.rollout.next_deadline();
        let item = self.agenda.peek().map(|Reverse((at, ..))| *at);
        match (due, item) {
            (Some(due), Some(item)) if due < item => self.tick(due),
            (Some(due), None) => self.tick(due),
            (_, Some(_)) => {
                let Some(Reverse((at, _, item))) = self.agenda.pop() else { return Ok(()) };
                self.now = at;
                self.happen(item)
            }
            (None, None) => anyhow::bail!("nothing will ever happen again: {}", self.rollout.state()),
        }
    }

    fn tick(&mut self, due: UnixMillis) -> Result<()> {
        self.now = self.now.max(due);
        self.say(RolloutEvent::Tick)?;
        let next = self.rollout.next_deadline();
        ensure!(next.is_none_or(|next| next > self.now), "a tick leaves something due");
        // What is overdue would be in the answer above; that it is, is looked at now and then.
        let now_and_then = self.log.len().is_multiple_of(16);
        for (device, record) in self.rollout.fleet().iter().filter(|_| now_and_then) {
            let late = record.standing.deadline().is_some_and(|deadline| deadline <= self.now);
            ensure!(!late, "the assignment of {device} outlives its deadline");
        }
        if self.driver == Driver::Clock {
            let stage = self.rollout.stage();
            let bake = self.rollout.stages()[stage.index].bake;
            if stage.settled_at.is_some_and(|settled| settled.plus(bake) <= self.now) {
                let command = Command::Promote { reason: String::new() };
                let order = OperatorOrder { expected: None, by: "clock".to_owned(), command };
                self.say(RolloutEvent::Operator(order))?;
            }
        }
        Ok(())
    }

    fn say(&mut self, event: RolloutEvent) -> Result<()> {
        self.log.push((self.now, event.clone()));
        let stage = self.rollout.stage().index;
        let effects = self.rollout.handle(self.now, event);
        if self.rollout.stage().index != stage {
            self.world.draw_all(self.now, None);
            self.world.forget();
        }
        self.carry_out(effects)?;
        self.check()
    }

    fn carry_out(&mut self, effects: Effects) -> Result<()> {
        for effect in effects {
            match effect {
                Effect::Assign { device, order, expires } => {
                    ensure!(expires > self.now, "{device} is told something that is over");
                    self.obey(&device, &order)?;
                }
                Effect::Gather(_) => self.look()?,
                Effect::Record(verdict) => self.recorded(verdict),
                Effect::StateChanged { state, stage, .. } => {
                    (self.trace)(self.now, format!("rollout is {state}, stage {}", stage + 1));
                }
                Effect::Shadow { .. } | Effect::Reply(_) => {}
            }
        }
        Ok(())
    }

    fn recorded(&mut self, verdict: Verdict) {
        (self.trace)(self.now, format!("{}: {}", verdict.decision, verdict.sentence));
        let stops = matches!(verdict.decision, Decision::RollBack | Decision::Inconclusive);
        if stops {
            self.decided.get_or_insert(self.now);
        }
        self.verdicts.push(verdict);
    }

    fn look(&mut self) -> Result<()> {
        self.looks += 1;
        if self.driver == Driver::Clock {
            return Ok(());
        }
        self.world.draw_all(self.now, None);
        let devices = self.world.evidence(&release("1").id, &release("2").id);
        let judgement = self.rollout.judge(&Evidence { devices, shadows: Vec::new() });
        self.say(RolloutEvent::Judged(Box::new(judgement)))
    }

    /// What holds after every event.
    fn check(&mut self) -> Result<()> {
        let tally = self.rollout.fleet().tally();
        self.exposed = self.exposed.max(tally.exposed);
        if self.rollout.state().is_forward() {
            let size = self.rollout.stages()[self.rollout.stage().index].share;
            let most = size.of(tally.eligible() as usize);
            ensure!(tally.reached() as usize <= most, "{} devices have it, {most} may", tally.reached());
        }
        Ok(())
    }

    /// Folding what happened gives what is, also from what a server restarted half-way had stored.
    fn replay(&self) -> Result<()> {
        let replayed = Rollout::replay(self.start.clone(), self.log.iter().cloned())?;
        ensure!(replayed == self.rollout, "replay gives another rollout");
        let controls = |(_, record): &(&DeviceId, &serin_fleet_server::rollout::state::DeviceRecord)| {
            record.control && record.standing != Standing::Waiting
        };
        let last = self.rollout.stage().index + 1 == self.rollout.stages().len();
        ensure!(last || !self.rollout.fleet().iter().any(|entry| controls(&entry)), "a control was touched");
        Ok(())
    }
}
