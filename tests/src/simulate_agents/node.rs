//! One device of a simulated fleet with its disk, its power and its link.

use std::collections::VecDeque;

use anyhow::{Context as _, Result, ensure};
use serin_agent::disk::virtual_disk::{Loss, Trouble, TroubleKind, VirtualDisk};
use serin_agent::update::record::{Attempt, Progress};
use serin_fleet_server::rollout::event::Sighting;
use serin_fleet_server::rollout::plan::selector::{Tags, Traits};
use serin_fleet_server::stats::random::SplitMix64;
use serin_protocol::assignment::Assignment;
use serin_protocol::ids::{Digest, Millis, ReleaseId, UnixMillis};
use serin_protocol::message::{EventKind, Presence};
use serin_tests::sim::broker::{BEGIN, Broker};
use serin_tests::sim::device::{Device, factory_disk};

use super::fleet::{STEP, Transition};

/// What the server hears of a device.
pub(super) enum Heard {
    Hello { turn: u64, sighting: Sighting, sequence: u64 },
    Event { number: u64, transition: Option<Transition> },
}

/// What travels, and when it arrives.
struct Travelling<T> {
    arrives: Millis,
    what: T,
}

/// What a device hears.
enum Told {
    /// Its retained assignment as it was then.
    Assignment(Box<Assignment>),
    Stored(u64),
}

/// Messages sent again if they are not acknowledged.
const REPEAT: Millis = Millis(30_000);

/// Longest a message is on its way.
const DELAY: usize = 15_000;

/// Of so many messages one is lost, and one comes twice.
const LOST: usize = 8;
const TWICE: usize = 8;

/// Of so many steps one cuts the link, one the power.
const CUTS: usize = 400;
const POWER_CUTS: usize = 1500;

pub(super) struct Node {
    /// Link and power may fail.
    pub(super) unreliable: bool,
    broker: Broker,
    disk: VirtualDisk,
    device: Option<Device>,
    random: SplitMix64,
    linked: bool,
    link_back: Millis,
    power_back: Millis,
    retained: Option<Assignment>,
    outbox: VecDeque<(u64, Option<Transition>)>,
    numbered: u64,
    repeat: Millis,
    turn: u64,
    said: Option<Sighting>,
    up: Vec<Travelling<Heard>>,
    down: Vec<Travelling<Told>>,
    verified: Option<Digest>,
    had: bool,
}

impl Node {
    pub(super) fn new(broker: &Broker, seed: u64) -> Result<Self> {
        Ok(Self {
            unreliable: false,
            broker: broker.clone(),
            disk: factory_disk(broker)?,
            device: None,
            random: SplitMix64::new(seed),
            linked: false,
            link_back: Millis(0),
            power_back: Millis(0),
            retained: None,
            outbox: VecDeque::new(),
            numbered: 0,
            repeat: Millis(0),
            turn: 0,
            said: None,
            up: Vec::new(),
            down: Vec::new(),
            verified: None,
            had: false,
        })
    }

    pub(super) const fn is_linked(&self) -> bool {
        self.linked && self.device.is_some()
    }

    /// What answers there.
    pub(super) fn active(&self) -> Option<ReleaseId> {
        let record = self.device.as_ref()?.machine.record();
        record.active.as_ref().map(|slot| slot.release.clone())
    }

    /// Retains an assignment, and the device hears of it, perhaps.
    pub(super) fn tell(&mut self, now: Millis, assignment: &Assignment) {
        self.retained = Some(assignment.clone());
        self.broker.put(assignment);
        self.tell_again(now);
    }

    pub(super) fn tell_again(&mut self, now: Millis) {
        if let Some(assignment) = &self.retained {
            let told = Told::Assignment(Box::new(assignment.clone()));
            self.send_down(now, told);
        }
    }

    pub(super) fn acknowledge(&mut self, now: Millis, stored: u64) {
        self.send_down(now, Told::Stored(stored));
    }

    /// Goes on to `now`; what has reached the server by then is returned.
    pub(super) fn step(&mut self, now: Millis) -> Result<Vec<Heard>> {
        self.power(now)?;
        self.link(now);
        self.listen(now);
        if let Some(device) = &mut self.device {
            device.advance(now);
        }
        self.check(now)?;
        if self.disk.is_powered() {
            self.speak(now);
        }
        Ok(self.arrived(now))
    }

    fn power(&mut self, now: Millis) -> Result<()> {
        if self.device.is_some() && !self.disk.is_powered() {
            // It went in the middle of a write.
            self.device = None;
            self.linked = false;
            self.power_back = now.plus(Millis(10_000 + self.random.below(200_000) as u64));
        }
        if self.device.is_none() && now >= self.power_back {
            let losses = [Loss::Nothing, Loss::Everything, Loss::Bytes, Loss::Some(self.random.bits())];
            self.disk.power_on(losses[self.random.below(losses.len())]);
            let device =
                Device::power_on_at(&self.disk, &self.broker, now).context("does not start again")?;
            self.device = Some(device);
            self.verified = None;
            self.link_back = now.plus(Millis(self.random.below(20_000) as u64));
        }
        if self.unreliable && self.device.is_some() && self.random.below(POWER_CUTS) == 0 {
            let at = self.disk.log().len() + self.random.below(40);
            let kind = if self.random.below(2) == 0 { TroubleKind::Cut } else { TroubleKind::Torn };
            self.disk.expect(Trouble { at, kind });
        }
        if !self.unreliable {
            self.disk.repair();
        }
        Ok(())
    }

    fn link(&mut self, now: Millis) {
        let cut = self.unreliable && self.random.below(CUTS) == 0;
        let Some(device) = &mut self.device else { return };
        if self.linked && cut {
            device.disconnect();
            self.linked = false;
            // A quarter of them last longer than anybody waits.
            let long = if self.random.below(4) == 0 { 1_800_000 } else { 120_000 };
            self.link_back = now.plus(Millis(self.random.below(long) as u64));
            self.turn += 1;
            if let Some(said) = &self.said {
                // The broker's word, when it has noticed.
                let sighting = Sighting { presence: Presence::Offline, ..said.clone() };
                let heard = Heard::Hello { turn: self.turn, sighting, sequence: u64::MAX };
                self.up.push(Travelling { arrives: now.plus(Millis(60_000)), what: heard });
            }
            self.said = None;
        } else if !self.linked && (now >= self.link_back || !self.unreliable) {
            self.linked = true;
            device.connect();
            // What is retained comes with the subscription.
            device.hear(&self.broker);
            self.repeat = now;
        }
    }

    fn listen(&mut self, now: Millis) {
        let mut waiting = Vec::new();
        for told in std::mem::take(&mut self.down) {
            if told.arrives > now {
                waiting.push(told);
                continue;
            }
            let Some(device) = self.device.as_mut().filter(|_| self.linked) else { continue };
            match told.what {
                Told::Assignment(assignment) => {
                    // One that was overtaken on its way comes all the same.
                    let mut then = self.broker.clone();
                    then.put(&assignment);
                    device.hear(&then);
                }
                Told::Stored(number) => self.outbox.retain(|(own, _)| *own > number),
            }
        }
        self.down = waiting;
    }

    /// Numbers what was said, and says it until it is acknowledged.
    fn speak(&mut self, now: Millis) {
        let Some(device) = &mut self.device else { return };
        let before = self.outbox.len();
        for kind in device.said.drain(..) {
            self.numbered += 1;
            let transition = match kind {
                EventKind::Transition { release, to, reason, .. } => Some((release, to, reason)),
                _ => None,
            };
            self.outbox.push_back((self.numbered, transition));
        }
        let record = device.machine.record();
        let sighting = Sighting {
            device: self.broker.device().clone(),
            presence: Presence::Online,
            active: record.active.as_ref().map(|slot| slot.release.clone()),
            candidate: record.attempt.as_ref().map(|attempt| attempt.target.id.clone()),
            pinned: record.pinned_by.is_some(),
            traits: Traits { target: "linux-x86_64".parse().expect("a name"), tags: Tags::new() },
        };
        let sequence = record.accepted.0;
        if !self.linked {
            return;
        }
        let all = now >= self.repeat;
        if all {
            self.repeat = now.plus(REPEAT);
        }
        if all || self.said.as_ref() != Some(&sighting) {
            self.turn += 1;
            self.said = Some(sighting.clone());
            self.send_up(now, || Heard::Hello { turn: 0, sighting: sighting.clone(), sequence });
        }
        let messages: Vec<_> = self.outbox.iter().skip(if all { 0 } else { before }).cloned().collect();
        for (number, transition) in messages {
            self.send_up(now, || Heard::Event { number, transition: transition.clone() });
        }
    }

    fn send_up(&mut self, now: Millis, what: impl Fn() -> Heard) {
        for arrives in self.fates(now) {
            let mut what = what();
            if let Heard::Hello { turn, .. } = &mut what {
                *turn = self.turn;
            }
            self.up.push(Travelling { arrives, what });
        }
    }

    fn send_down(&mut self, now: Millis, what: Told) {
        // The broker delivers in order and once per session; sessions end and messages with them.
        if let Some(arrives) = self.fates(now).into_iter().next() {
            self.down.push(Travelling { arrives, what });
        }
    }

    /// When the copies of a message arrive: none of one that is lost.
    fn fates(&mut self, now: Millis) -> Vec<Millis> {
        let copies = match self.random.below(LOST.max(TWICE)) {
            0 if self.unreliable => 0,
            1 if self.unreliable => 2,
            _ => 1,
        };
        (0..copies).map(|_| now.plus(Millis(self.random.below(DELAY) as u64))).collect()
    }

    fn arrived(&mut self, now: Millis) -> Vec<Heard> {
        let (mut arrived, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.up).into_iter().partition(|message| message.arrives <= now);
        self.up = waiting;
        arrived.sort_by_key(|message| message.arrives);
        arrived.into_iter().map(|message| message.what).collect()
    }

    /// A device that ever ran a release answers with one, and every byte of it is what its owner signed. What it was
    /// told to install is given up in time.
    fn check(&mut self, now: Millis) -> Result<()> {
        let Some(device) = self.device.as_ref().filter(|_| self.disk.is_powered()) else { return Ok(()) };
        let record = device.machine.record();
        // One that answers already is watched to the end.
        let unproven = record.attempt.as_ref().filter(|attempt| attempt.progress != Progress::Probation);
        let late = |attempt: &&Attempt| attempt.expires.plus(STEP) <= UnixMillis(BEGIN * 1000).plus(now);
        if let Some(late) = unproven.filter(late) {
            anyhow::bail!(
                "the update to {} outlives its deadline, in {:?}",
                late.target.id,
                device.machine.phase()
            );
        }
        match device.serving {
            Some(serving) => {
                if self.verified != Some(serving) {
                    let verified = device.verify(serving);
                    if !self.disk.is_powered() {
                        // Looking was the operation at which the power went.
                        return Ok(());
                    }
                    verified.context("what answers is not what was signed")?;
                    self.verified = Some(serving);
                }
                self.had = true;
            }
            None => ensure!(!self.had, "nothing answers any more"),
        }
        Ok(())
    }
}
