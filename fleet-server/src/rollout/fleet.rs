//! All devices of a rollout, with what is asked about them often kept ready: whose turn is next, whose
//! deadline is next, how many stand where. Only the records are stored; the rest is rebuilt from them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serin_protocol::ids::{DeviceId, TargetClass, UnixMillis};
use serin_protocol::message::Presence;

use super::cohort::Position;
use super::state::{DeviceRecord, Standing};

/// The devices of a rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<DeviceId, DeviceRecord>", into = "BTreeMap<DeviceId, DeviceRecord>")]
pub struct Fleet {
    devices: BTreeMap<DeviceId, DeviceRecord>,
    // Of each kind of device: who waits, is online and not pinned, in the order in which they get the
    // release, controls last; and how many have it.
    kinds: BTreeMap<TargetClass, Kind>,
    deadlines: BTreeSet<(UnixMillis, DeviceId)>,
    tally: Tally,
}

/// The devices of one kind.
#[derive(Clone, Debug, Default, PartialEq)]
struct Kind {
    ready: BTreeSet<(bool, Position, DeviceId)>,
    eligible: u32,
    exposed: u32,
}

/// How many devices stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// All.
    pub known: u32,
    /// Never given the release, and not pinned: the controls of the moment.
    pub waiting: u32,
    /// … of these, offline.
    pub waiting_offline: u32,
    /// Left out because a field engineer decides what runs there.
    pub pinned: u32,
    /// Given the release at some time, whatever became of it.
    pub exposed: u32,
    /// Run it in the shadow.
    pub shadowing: u32,
    /// Return and come back in a drill.
    pub drilling: u32,
    /// Exposed devices whose worker has died since the stage began.
    pub exposed_crashed: u32,
    /// Waiting devices, not pinned, whose worker has died since the stage began.
    pub waiting_crashed: u32,
    /// Told to run it, not done.
    pub installing: u32,
    /// Running it, committed.
    pub running: u32,
    /// … of these, offline.
    pub running_offline: u32,
    /// Seen with something else without a word why.
    pub left: u32,
    /// Could not or would not run it.
    pub failed: u32,
    /// Not reached in time.
    pub unreachable: u32,
    /// Taken by somebody else's order.
    pub skipped: u32,
    /// Told to return, not done.
    pub returning: u32,
    /// … of these, online.
    pub returning_online: u32,
    /// Have left the release.
    pub returned: u32,
    /// Did not report their return in time.
    pub not_returned: u32,
}

impl Tally {
    /// Devices that count for shares: all but those that are pinned to something else.
    pub const fn eligible(&self) -> u32 {
        self.waiting.saturating_add(self.exposed).saturating_add(self.shadowing)
    }

    /// Devices that have been told anything.
    pub const fn reached(&self) -> u32 {
        self.exposed.saturating_add(self.shadowing)
    }

    /// Exposed devices that are not heard of.
    pub const fn silent(&self) -> u32 {
        self.unreachable.saturating_add(self.running_offline)
    }

    fn count(&mut self, record: &DeviceRecord, change: Change) {
        let offline = record.presence == Presence::Offline;
        let add = |counter: &mut u32, applies: bool| {
            if applies {
                *counter = match change {
                    Change::Add => counter.saturating_add(1),
                    Change::Remove => counter.saturating_sub(1),
                };
            }
        };
        add(&mut self.known, true);
        add(&mut self.exposed, record.standing.is_exposed());
        add(&mut self.exposed_crashed, record.crashed && record.standing.is_exposed());
        match &record.standing {
            Standing::Waiting => {
                add(&mut self.pinned, record.pinned);
                add(&mut self.waiting, !record.pinned);
                add(&mut self.waiting_offline, !record.pinned && offline);
                add(&mut self.waiting_crashed, !record.pinned && record.crashed);
            }
            Standing::Shadowing { .. } => add(&mut self.shadowing, true),
            Standing::Drilling { .. } => add(&mut self.drilling, true),
            Standing::Installing { .. } => add(&mut self.installing, true),
            Standing::Running { .. } => {
                add(&mut self.running, true);
                add(&mut self.running_offline, offline);
            }
            Standing::Left { .. } => add(&mut self.left, true),
            Standing::Failed { .. } => add(&mut self.failed, true),
            Standing::Unreachable { .. } => add(&mut self.unreachable, true),
            Standing::Skipped { .. } => add(&mut self.skipped, true),
            Standing::Returning { .. } => {
                add(&mut self.returning, true);
                add(&mut self.returning_online, !offline);
            }
            Standing::Returned { .. } => add(&mut self.returned, true),
            Standing::NotReturned { .. } => add(&mut self.not_returned, true),
        }
    }
}

#[derive(Clone, Copy)]
enum Change {
    Add,
    Remove,
}

impl Fleet {
    /// One device.
    pub fn get(&self, device: &DeviceId) -> Option<&DeviceRecord> {
        self.devices.get(device)
    }

    /// All devices by name.
    pub fn iter(&self) -> impl Iterator<Item = (&DeviceId, &DeviceRecord)> {
        self.devices.iter()
    }

    /// How many devices there are.
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// How many stand where.
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// Whose turn it is among those that wait, are there, are not pinned and may be told: the first in line of
    /// the kind of device that has had the least of its share. Controls only if asked for.
    pub(super) fn next_ready(
        &self,
        controls: bool,
        may: impl Fn(&DeviceId, &DeviceRecord) -> bool,
    ) -> Option<DeviceId> {
        let allowed = |(control, _, device): &&(bool, Position, DeviceId)| {
            (controls || !*control) && self.devices.get(device).is_some_and(|record| may(device, record))
        };
        let firsts = self.kinds.values().filter_map(|kind| Some((kind, kind.ready.iter().find(allowed)?)));
        // Controls after all others; then as fractions, compared crosswise.
        let first = firsts.min_by(|(kind, a), (other, b)| {
            let mine = u64::from(kind.exposed) * u64::from(other.eligible);
            let theirs = u64::from(other.exposed) * u64::from(kind.eligible);
            a.0.cmp(&b.0).then(mine.cmp(&theirs)).then_with(|| a.cmp(b))
        });
        first.map(|(_, (_, _, device))| device.clone())
    }

    /// All that wait, are there and are not pinned.
    pub(super) fn ready(&self) -> impl Iterator<Item = (&DeviceId, &DeviceRecord)> {
        let all = self.kinds.values().flat_map(|kind| &kind.ready);
        all.filter_map(|(_, _, device)| self.devices.get_key_value(device))
    }

    /// The earliest deadline.
    pub(super) fn next_deadline(&self) -> Option<UnixMillis> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// A device whose deadline has come.
    pub(super) fn due(&self, now: UnixMillis) -> Option<DeviceId> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, device)| device.clone())
    }

    /// Adds a device, or replaces it.
    pub(super) fn insert(&mut self, device: DeviceId, record: DeviceRecord) {
        self.remove(&device);
        self.tally.count(&record, Change::Add);
        let kind = self.kinds.entry(record.traits.target.clone()).or_default();
        let (eligible, exposed) = stake(&record);
        kind.eligible = kind.eligible.saturating_add(eligible);
        kind.exposed = kind.exposed.saturating_add(exposed);
        if is_ready(&record) {
            kind.ready.insert((record.control, record.position, device.clone()));
        }
        if let Some(deadline) = record.standing.deadline() {
            self.deadlines.insert((deadline, device.clone()));
        }
        self.devices.insert(device, record);
    }

    /// Changes a device, if it is known.
    pub(super) fn update(&mut self, device: &DeviceId, change: impl FnOnce(&mut DeviceRecord)) {
        if let Some(mut record) = self.remove(device) {
            change(&mut record);
            self.insert(device.clone(), record);
        }
    }

    fn remove(&mut self, device: &DeviceId) -> Option<DeviceRecord> {
        let record = self.devices.remove(device)?;
        self.tally.count(&record, Change::Remove);
        if let Some(kind) = self.kinds.get_mut(&record.traits.target) {
            let (eligible, exposed) = stake(&record);
            kind.eligible = kind.eligible.saturating_sub(eligible);
            kind.exposed = kind.exposed.saturating_sub(exposed);
            kind.ready.remove(&(record.control, record.position, device.clone()));
        }
        if let Some(deadline) = record.standing.deadline() {
            self.deadlines.remove(&(deadline, device.clone()));
        }
        Some(record)
    }
}

/// What a device counts among its kind: eligible, and told.
fn stake(record: &DeviceRecord) -> (u32, u32) {
    let told = record.standing != Standing::Waiting;
    (u32::from(told || !record.pinned), u32::from(told))
}

fn is_ready(record: &DeviceRecord) -> bool {
    record.standing == Standing::Waiting && record.presence == Presence::Online && !record.pinned
}

impl From<BTreeMap<DeviceId, DeviceRecord>> for Fleet {
    fn from(devices: BTreeMap<DeviceId, DeviceRecord>) -> Self {
        let mut fleet = Self::default();
        devices.into_iter().for_each(|(device, record)| fleet.insert(device, record));
        fleet
    }
}

impl From<Fleet> for BTreeMap<DeviceId, DeviceRecord> {
    fn from(fleet: Fleet) -> Self {
        fleet.devices
    }
}
