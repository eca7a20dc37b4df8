//! Whole rollouts with the agent's real update machine, stores, trust and transfer on virtual disks, behind a
//! network that delays, loses, repeats and reorders messages and is cut, on devices whose power fails in the
//! middle of a write. The server's side is the real engine. Time goes in steps of five seconds.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serin_fleet_server::rollout::Rollout;
use serin_fleet_server::rollout::cohort::Salt;
use serin_fleet_server::rollout::event::{
    Command, Effect, Effects, OperatorOrder, RolloutEvent, Sighting, Start,
};
use serin_fleet_server::rollout::evidence::{Before, Binning, DeviceEvidence, Evidence};
use serin_fleet_server::rollout::notation::size::Size;
use serin_fleet_server::rollout::plan::{
    Canary, DriftGate, OnBreach, OnInconclusive, Plan, Stage, Strategy, Thousandths,
};
use serin_fleet_server::rollout::state::{Outcome, Standing, State};
use serin_fleet_server::stats::random::SplitMix64;
use serin_protocol::assignment::{Assignment, Probation};
use serin_protocol::ids::{
    BasisPoints, DeviceId, Digest, Millis, ReleaseId, RolloutId, SequenceNumber, UnixMillis,
};
use serin_protocol::message::{Phase, Presence};
use serin_protocol::sketch::{Bins, Histogram, LatencyHistogram};
use serin_tests::sim::broker::{self, Broker};
use serin_tests::sim::publisher::Published;

use super::node::{Heard, Node};

/// One step of time.
pub(super) const STEP: Millis = Millis(5_000);

/// Longest a rollout may take: its stages' times with every hold, and as much again.
const HORIZON: Millis = Millis(4 * 3_600_000);

/// How long the network is whole after a rollout, so that everybody hears how it ended.
const HEALED: Millis = Millis(45 * 60_000);

/// The fleet of one seed.
pub(crate) struct Fleet<'a> {
    releases: &'a [Published; 3],
    nodes: BTreeMap<DeviceId, Node>,
    sequences: BTreeMap<DeviceId, u64>,
    events: BTreeMap<DeviceId, u64>,
    turns: BTreeMap<DeviceId, u64>,
    known: BTreeMap<DeviceId, Sighting>,
    elapsed: Millis,
    random: SplitMix64,
    broken_class: Option<ReleaseId>,
    pub(crate) handled: usize,
}

/// One rollout that is under way.
struct Live {
    rollout: Rollout,
    start: Start,
    log: Vec<(UnixMillis, RolloutEvent)>,
}

impl<'a> Fleet<'a> {
    pub(crate) fn new(seed: u64, releases: &'a [Published; 3], broker: &Broker) -> Result<Self> {
        let mut random = SplitMix64::new(seed ^ 0xa9e7);
        let count = 4 + random.below(5);
        let mut nodes = BTreeMap::new();
        for number in 0..count {
            let device = DeviceId::new(&format!("edge-{number}"))?;
            nodes.insert(device.clone(), Node::new(&broker.for_device(device), random.bits())?);
        }
        Ok(Self {
            releases,
            nodes,
            sequences: BTreeMap::new(),
            events: BTreeMap::new(),
            turns: BTreeMap::new(),
            known: BTreeMap::new(),
            elapsed: Millis(0),
            random,
            broken_class: None,
            handled: 0,
        })
    }

    /// A first release to everybody, a better one in stages, and a harmful one.
    pub(crate) fn play(&mut self) -> Result<()> {
        for node in self.nodes.values_mut() {
            node.unreliable = false;
        }
        self.pass(Millis(60_000), None)?;
        self.roll_out(0, &[], Plan::all_at_once(Millis::from_secs(60), 0), false).context("first release")?;
        for node in self.nodes.values_mut() {
            node.unreliable = true;
        }
        let plan = self.plan();
        let first = self.roll_out(1, &[0], plan, false).context("second release")?;
        let plan = self.plan();
        self.broken_class = Some(self.releases[2].release.id.clone());
        let baselines: &[usize] = if first == Outcome::Completed { &[1, 0] } else { &[0, 1] };
        let harmful = self.roll_out(2, baselines, plan, true).context("harmful release")?;
        ensure!(
            harmful != Outcome::Completed || self.broken_class.is_none(),
            "a harmful release was completed"
        );
        Ok(())
    }

    fn now(&self) -> UnixMillis {
        UnixMillis(broker::BEGIN * 1000).plus(self.elapsed)
    }

    fn plan(&mut self) -> Plan {
        let stage = |share| Stage {
            min_devices: 2,
            min_requests: 100,
            timeout: Millis::from_secs(50 * 60),
            ..Stage::of(Size::Share(BasisPoints(share)), Millis::from_secs(300))
        };
        let stages = vec![stage(3000), stage(10_000)];
        let policies = [OnInconclusive::Operator, OnInconclusive::RollBack, OnInconclusive::Hold];
        let mut plan = Plan {
            strategy: Strategy::Canary(Canary { stages, control: BasisPoints(3000) }),
            deadline: Millis::from_secs(20 * 60),
            rollback_deadline: Millis::from_secs(15 * 60),
            probation: Probation { duration: Millis::from_secs(30), ..Probation::default() },
            on_inconclusive: policies[self.random.below(policies.len())],
            ..Plan::default()
        };
        plan.gates.predictions = Some(DriftGate {
            threshold: Thousandths(250),
            on_breach: OnBreach::RollBack,
            hard: Some(Thousandths(500)),
        });
        plan
    }

    fn roll_out(&mut self, index: usize, baselines: &[usize], plan: Plan, harmful: bool) -> Result<Outcome> {
        let start = Start {
            id: RolloutId(index as u64 + 1),
            plan,
            release: self.releases[index].reference(),
            baselines: baselines.iter().map(|index| self.releases[*index].reference()).collect(),
            salt: Salt(self.random.bits()),
            at: self.now(),
            devices: self.known.values().cloned().collect(),
        };
        let (rollout, effects) = Rollout::start(start.clone())?;
        let mut live = Live { rollout, start, log: Vec::new() };
        self.carry_out(&mut live, effects)?;
        let begin = self.elapsed;
        let mut waiting_since = None;
        while !live.rollout.state().is_finished() {
            ensure!(self.elapsed.0 - begin.0 < HORIZON.0, "stuck: {}", live.rollout.state());
            self.pass(STEP, Some(&mut live))?;
            self.operate(&mut live, &mut waiting_since, harmful)?;
        }
        self.heal(&mut live)?;
        let replayed = Rollout::replay(live.start.clone(), live.log.iter().cloned())?;
        ensure!(replayed == live.rollout, "replay gives another rollout");
        match live.rollout.state() {
            State::Finished { outcome, .. } => Ok(*outcome),
            other => anyhow::bail!("it began again: {other}"),
        }
    }

    /// What people do: now and then something, and an answer when they are asked.
    fn operate(&mut self, live: &mut Live, waiting: &mut Option<Millis>, harmful: bool) -> Result<()> {
        let reason = || "because".to_owned();
        let asked = matches!(live.rollout.state(), State::Paused { .. } | State::AwaitingOperator { .. });
        let holding = matches!(live.rollout.state(), State::Holding { .. });
        let since = *waiting.get_or_insert(self.elapsed);
        if !asked && !holding {
            *waiting = None;
        }
        let long = self.elapsed.0 - since.0 > if asked { 600_000 } else { 7_200_000 };
        let command = match (asked || holding) && long {
            true if harmful => {
                Some(Command::RollBack { reason: reason(), who: None, to: None, at_once: true })
            }
            true if matches!(live.rollout.state(), State::Paused { .. }) => Some(Command::Resume),
            true => Some(Command::Promote { reason: reason() }),
            false if !live.start.baselines.is_empty() => match self.random.below(1500) {
                0 => Some(Command::Pause),
                1 if self.random.below(4) == 0 => Some(Command::Abort { reason: reason() }),
                2 if self.random.below(4) == 0 => {
                    Some(Command::RollBack { reason: reason(), who: None, to: None, at_once: false })
                }
                3 => Some(Command::Drill { devices: 1, reason: reason() }),
                _ => None,
            },
            false => None,
        };
        match command {
            Some(command) => {
                // A drill decides nothing: whoever has waited goes on waiting.
                if !matches!(command, Command::Drill { .. }) {
                    *waiting = None;
                }
                let order = OperatorOrder { expected: None, by: "op".to_owned(), command };
                self.say(live, RolloutEvent::Operator(order))
            }
            None => Ok(()),
        }
    }

    /// The network is whole again and nobody's power fails: in the end everybody runs what the outcome says.
    fn heal(&mut self, live: &mut Live) -> Result<()> {
        for node in self.nodes.values_mut() {
            node.unreliable = false;
        }
        self.pass(HEALED, Some(live))?;
        let State::Finished { outcome, .. } = live.rollout.state() else {
            anyhow::bail!("a finished rollout began again: {}", live.rollout.state());
        };
        let new = live.rollout.release().id.clone();
        for (device, record) in live.rollout.fleet().iter() {
            let active = self.nodes[device].active();
            let (runs, told) = (active.as_ref() == Some(&new), &record.standing);
            let right = match outcome {
                Outcome::Completed => {
                    runs || matches!(
                        told,
                        Standing::Failed { .. } | Standing::Skipped { .. } | Standing::Returned { .. }
                    )
                }
                Outcome::RolledBack => !runs || live.start.baselines.is_empty(),
                Outcome::Aborted => true,
            };
            ensure!(right, "{device} runs {active:?} after all, {outcome:?}, {told:?}");
        }
        for node in self.nodes.values_mut() {
            node.unreliable = true;
        }
        Ok(())
    }

    /// Lets time pass.
    fn pass(&mut self, span: Millis, mut live: Option<&mut Live>) -> Result<()> {
        let end = self.elapsed.plus(span);
        while self.elapsed < end {
            self.elapsed = self.elapsed.plus(STEP);
            let devices: Vec<DeviceId> = self.nodes.keys().cloned().collect();
            for device in devices {
                let node = self.nodes.get_mut(&device).context("a node")?;
                let heard = node.step(self.elapsed).with_context(|| device.to_string())?;
                for heard in heard {
                    self.heard(&device, heard, live.as_deref_mut())?;
                }
            }
            if let Some(live) = live.as_deref_mut() {
                let now = self.now();
                while live.rollout.next_deadline().is_some_and(|due| due <= now) {
                    self.say(live, RolloutEvent::Tick)?;
                }
                for (device, record) in live.rollout.fleet().iter() {
                    let late = record.standing.deadline().is_some_and(|deadline| deadline <= now);
                    ensure!(!late, "the assignment of {device} outlives its deadline");
                }
            }
        }
        Ok(())
    }

    /// The server's side of one message.
    fn heard(&mut self, device: &DeviceId, heard: Heard, live: Option<&mut Live>) -> Result<()> {
        match heard {
            Heard::Hello { turn, sighting, sequence } => {
                let last = self.turns.entry(device.clone()).or_default();
                if turn <= *last {
                    return Ok(());
                }
                *last = turn;
                self.known.insert(device.clone(), sighting.clone());
                let node = self.nodes.get_mut(device).context("a node")?;
                if sighting.presence == Presence::Online
                    && self.sequences.get(device).is_some_and(|last| *last > sequence)
                {
                    node.tell_again(self.elapsed);
                }
                match live {
                    Some(live) => self.say(live, RolloutEvent::DeviceSeen(sighting)),
                    None => Ok(()),
                }
            }
            Heard::Event { number, transition } => {
                let last = self.events.entry(device.clone()).or_default();
                let next = number == *last + 1;
                if next {
                    *last = number;
                }
                let stored = *last;
                self.nodes.get_mut(device).context("a node")?.acknowledge(self.elapsed, stored);
                match (next, live, transition) {
                    (true, Some(live), Some((release, to, reason))) => {
                        let device = device.clone();
                        self.say(live, RolloutEvent::DeviceTransition { device, release, to, reason })
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    fn say(&mut self, live: &mut Live, event: RolloutEvent) -> Result<()> {
        let now = self.now();
        live.log.push((now, event.clone()));
        self.handled += 1;
        let effects = live.rollout.handle(now, event);
        // The server restarts now and then, and goes on from what it stored.
        if self.random.below(200) == 0 {
            let stored = serde_json::to_vec(&live.rollout)?;
            let restored: Rollout = serde_json::from_slice(&stored)?;
            ensure!(restored == live.rollout, "a restarted server goes on with something else");
            live.rollout = restored;
        }
        self.carry_out(live, effects)?;
        let tally = live.rollout.fleet().tally();
        if live.rollout.state().is_forward() {
            let size = live.rollout.stages()[live.rollout.stage().index].share;
            let most = size.of(tally.eligible() as usize);
            ensure!(tally.reached() as usize <= most, "{} devices have it, {most} may", tally.reached());
        }
        Ok(())
    }

    fn carry_out(&mut self, live: &mut Live, effects: Effects) -> Result<()> {
        for effect in effects {
            match effect {
                Effect::Assign { device, order, expires } => {
                    let sequence = self.sequences.entry(device.clone()).or_default();
                    *sequence += 1;
                    let assignment = Assignment {
                        device: device.clone(),
                        fleet: broker::fleet(),
                        sequence: SequenceNumber(*sequence),
                        rollout: Some(live.rollout.id()),
                        issued: self.now(),
                        expires,
                        order,
                    };
                    let node = self.nodes.get_mut(&device).context("an order to a stranger")?;
                    node.tell(self.elapsed, &assignment);
                }
                Effect::Gather(_) => {
                    let devices = self.nodes.iter().filter_map(|(device, node)| self.shown(device, node));
                    let evidence = Evidence { devices: devices.collect(), shadows: Vec::new() };
                    let judgement = live.rollout.judge(&evidence);
                    self.say(live, RolloutEvent::Judged(Box::new(judgement)))?;
                }
                Effect::Record(_)
                | Effect::StateChanged { .. }
                | Effect::Shadow { .. }
                | Effect::Reply(_) => {}
            }
        }
        Ok(())
    }

    /// What a device that can report reports.
    fn shown(&self, device: &DeviceId, node: &Node) -> Option<DeviceEvidence> {
        let release = node.active().filter(|_| node.is_linked())?;
        let broken = self.broken_class.as_ref() == Some(&release);
        let mut latency = LatencyHistogram::default();
        (0..200).for_each(|_| latency.record_micros(2000));
        let histogram = |counts: [u64; 4]| {
            let mut histogram = Histogram::over_bins(&Bins::classes(4));
            histogram.counts.copy_from_slice(&counts);
            histogram
        };
        let digest = Digest::of(b"bins");
        Some(DeviceEvidence {
            device: device.clone(),
            release,
            requests: 200,
            errors: 0,
            latency,
            predictions: histogram(if broken { [185, 5, 5, 5] } else { [50, 51, 49, 50] }),
            confidence: Histogram::default(),
            features: vec![histogram([50, 49, 51, 50])],
            before: Some(Before { requests: 1000, errors: 0 }),
            binning: Binning { features: digest, predictions: digest, confidence: digest },
        })
    }
}

/// Kept here, so that both files speak of the same thing.
pub(super) type Transition = (ReleaseId, Phase, Option<serin_protocol::message::Reason>);
