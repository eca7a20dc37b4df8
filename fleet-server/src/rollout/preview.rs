//! Which devices a plan gives a release when, if all goes well: the engine itself, with devices that do at once
//! what they are told.

use serin_protocol::assignment::Order;
use serin_protocol::ids::{DeviceId, Millis, UnixMillis};
use serin_protocol::message::{Phase, Presence};

use super::Rollout;
use super::event::{Command, Effect, OperatorOrder, RolloutEvent, Start, StartError};
use super::notation::size::Size;
use super::plan::Purpose;
use super::state::State;

/// What a plan comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// In order.
    pub stages: Vec<StagePreview>,
    /// Devices that the plan does not mean.
    pub not_meant: usize,
    /// Devices left out because a field engineer decides there.
    pub pinned: u32,
    /// Devices that are compared with until the last stage, at least.
    pub control: Vec<DeviceId>,
}

/// What one stage comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagePreview {
    /// Its size by the plan.
    pub share: Size,
    /// What it is for, in a word.
    pub purpose: &'static str,
    /// Who is told, and when at the earliest.
    pub told: Vec<(DeviceId, UnixMillis)>,
    /// When it can be over at the earliest.
    pub over: UnixMillis,
    /// Whether an operator must approve of it.
    pub approval: bool,
    /// Not all of its devices can be told before its time is over.
    pub too_slow: bool,
}

/// Most steps of time of one stage: more devices than that are not told one by one.
const MAX_STEPS: usize = 300_000;

impl Preview {
    /// Plays a rollout through. Devices that are offline are taken as there: when they return is not known.
    pub fn of(mut start: Start) -> Result<Self, StartError> {
        let known = start.devices.len();
        start.devices.iter_mut().for_each(|seen| seen.presence = Presence::Online);
        let mut now = start.at;
        let (mut rollout, effects) = Rollout::start(start)?;
        let mut stages = Vec::new();
        let control = rollout.fleet().iter().filter(|(_, record)| record.control && !record.pinned);
        let control = control.map(|(device, _)| device.clone()).collect();
        let tally = rollout.fleet().tally();
        let mut pending = effects;
        for index in 0..rollout.stages().len() {
            let mut told = Vec::new();
            for _ in 0..MAX_STEPS {
                for device in recipients(std::mem::take(&mut pending)) {
                    let to = Phase::Committed;
                    let release = rollout.release().id.clone();
                    told.push((device.clone(), now));
                    let event = RolloutEvent::DeviceTransition { device, release, to, reason: None };
                    if !matches!(rollout.plan().purpose(index), Purpose::Shadow(_)) {
                        pending.extend(rollout.handle(now, event));
                    }
                }
                if !pending.is_empty() {
                    continue;
                }
                match rollout.next_told().filter(|_| *rollout.state() == State::Running) {
                    Some(at) => {
                        now = at;
                        pending = rollout.handle(now, RolloutEvent::Tick);
                    }
                    None => break,
                }
            }
            let Some(stage) = rollout.stages().get(index).cloned() else { break };
            let too_slow = *rollout.state() != State::Running;
            now = now.plus(bake(&rollout, index));
            stages.push(StagePreview {
                share: stage.share,
                purpose: word(rollout.plan().purpose(index)),
                told,
                over: now,
                approval: stage.approval,
                too_slow,
            });
            if too_slow {
                break;
            }
            let command = Command::Promote { reason: String::new() };
            let order = OperatorOrder { expected: None, by: String::new(), command };
            pending = rollout.handle(now, RolloutEvent::Operator(order));
        }
        Ok(Self {
            stages,
            not_meant: known - rollout.fleet().len().min(known),
            pinned: tally.pinned,
            control,
        })
    }
}

fn bake(rollout: &Rollout, index: usize) -> Millis {
    match rollout.plan().purpose(index) {
        Purpose::Allocate(bandit) => Millis(bandit.window.0.saturating_mul(u64::from(bandit.windows))),
        Purpose::Spread | Purpose::Shadow(_) | Purpose::Compare(_) => {
            rollout.stages().get(index).map_or(Millis(0), |stage| stage.bake)
        }
    }
}

const fn word(purpose: Purpose<'_>) -> &'static str {
    match purpose {
        Purpose::Spread => "spread",
        Purpose::Shadow(_) => "shadow",
        Purpose::Compare(_) => "compare",
        Purpose::Allocate(_) => "allocate",
    }
}

fn recipients(effects: Vec<Effect>) -> Vec<DeviceId> {
    let told = effects.into_iter().filter_map(|effect| match effect {
        Effect::Assign { device, order: Order::Run { .. }, .. } | Effect::Shadow { device, .. } => {
            Some(device)
        }
        Effect::Assign { .. }
        | Effect::Gather(_)
        | Effect::Record(_)
        | Effect::StateChanged { .. }
        | Effect::Reply(_) => None,
    });
    told.collect()
}
