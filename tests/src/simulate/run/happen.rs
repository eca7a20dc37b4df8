//! What devices do by themselves and what they are told to do.

use std::cmp::Reverse;

use anyhow::{Context as _, Result, ensure};
use serin_fleet_server::rollout::event::{RolloutEvent, Sighting};
use serin_fleet_server::rollout::state::{Outcome, State};
use serin_protocol::assignment::Order;
use serin_protocol::ids::{DeviceId, Millis};
use serin_protocol::message::{Detail, Phase, Presence, Reason};

use super::{CANNOT, Driver, Item, Points, Pooled, Run, STEP, Step, release};

impl Run<'_> {
    pub(super) fn happen(&mut self, item: Item) -> Result<()> {
        match item {
            Item::Moved(at, step) => self.moved(at, step),
            Item::Crashed(at, ran_new) => {
                let changed = self.world.devices[at].runs_new != ran_new;
                let wait = self.world.next_crash(at);
                self.later(wait, Item::Crashed(at, self.world.devices[at].runs_new));
                if changed || !self.world.is_heard(at, self.now) {
                    return Ok(());
                }
                let device = self.world.devices[at].id.clone();
                let version = if ran_new { "2" } else { "1" };
                self.say(RolloutEvent::DeviceCrashed { device, release: release(version).id })
            }
            Item::Offline(at) => self.seen(at, Presence::Offline),
            Item::Point => {
                let mut pooled = [Pooled::default(); 2];
                self.world.draw_all(self.now, Some(&mut pooled));
                if self.driver == Driver::Clock {
                    let stage = self.rollout.stage().index;
                    if self.points.len() <= stage {
                        self.points.push((self.now, Points::new()));
                    }
                    if let Some((_, points)) = self.points.last_mut()
                        && pooled[1].requests > 0.0
                    {
                        points.push(pooled);
                    }
                }
                self.later(STEP, Item::Point);
                Ok(())
            }
        }
    }

    fn moved(&mut self, at: usize, step: Step) -> Result<()> {
        let device = self.world.devices[at].id.clone();
        let new = release("2").id;
        let event = |to, reason| RolloutEvent::DeviceTransition {
            device: device.clone(),
            release: new.clone(),
            to,
            reason,
        };
        match step {
            Step::Probation => {
                self.world.draw(at, self.now, None);
                self.world.devices[at].runs_new = true;
                self.say(event(Phase::Probation, None))
            }
            Step::Committed => {
                self.first_ran.get_or_insert(self.now);
                let wait = self.world.next_crash(at);
                self.later(wait, Item::Crashed(at, true));
                if !self.world.is_heard(at, self.now) {
                    self.later(Millis(60_000), Item::Offline(at));
                }
                self.say(event(Phase::Committed, None))?;
                // Messages come twice sometimes.
                if self.random.below(10) == 0 {
                    self.say(event(Phase::Committed, None))?;
                }
                self.seen(at, Presence::Online)
            }
            Step::Rejected => self.say(event(Phase::Rejected, Some(Reason::LoadFailed(Detail::new("x"))))),
            Step::Back => {
                self.world.draw(at, self.now, None);
                self.world.devices[at].runs_new = false;
                self.say(event(Phase::RolledBack, Some(Reason::FleetRollback)))
            }
        }
    }

    fn seen(&mut self, at: usize, presence: Presence) -> Result<()> {
        let device = &self.world.devices[at];
        let version = if device.runs_new { "2" } else { "1" };
        let Some(record) = self.rollout.fleet().get(&device.id) else { return Ok(()) };
        let sighting = Sighting {
            device: device.id.clone(),
            presence,
            active: Some(release(version).id),
            candidate: None,
            pinned: false,
            traits: record.traits.clone(),
        };
        self.say(RolloutEvent::DeviceSeen(sighting))
    }

    pub(super) fn obey(&mut self, device: &DeviceId, order: &Order) -> Result<()> {
        let at = *self.numbers.get(device).context("an order to a stranger")?;
        let delay = Millis(30_000 + self.random.below(270_000) as u64);
        match order {
            Order::Run { .. } => {
                let over = matches!(
                    self.rollout.state(),
                    State::RollingBack { .. } | State::Finished { outcome: Outcome::RolledBack, .. }
                );
                ensure!(!over, "{device} is given a release that is being taken back");
                if self.random.unit() < CANNOT {
                    self.later(delay, Item::Moved(at, Step::Rejected));
                } else {
                    self.later(delay, Item::Moved(at, Step::Probation));
                    self.later(delay.plus(Millis(60_000)), Item::Moved(at, Step::Committed));
                }
            }
            Order::RollBack { .. } => self.later(Millis(2_000), Item::Moved(at, Step::Back)),
            Order::Try { .. } | Order::Stay => {}
        }
        Ok(())
    }

    pub(super) fn later(&mut self, wait: Millis, item: Item) {
        self.items += 1;
        self.agenda.push(Reverse((self.now.plus(wait), self.items, item)));
    }
}
