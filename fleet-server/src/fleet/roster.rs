//! The devices of a fleet in memory: up to a quarter of a million, each packed to a few hundred bytes and read when it is
//! asked for. What every message and every count asks for lies open besides, as it was in the record when that was packed.

use std::collections::BTreeMap;

use serin_protocol::envelope::PublicKey;
use serin_protocol::ids::{DeviceId, UnixMillis};
use serin_protocol::message::Presence;
use serin_protocol::tag::TagKey;
use tracing::error;

use crate::store::{DeviceRecord, StoreError};

/// All devices by name.
#[derive(Default)]
pub(super) struct Roster {
    members: BTreeMap<DeviceId, Box<Member>>,
}

/// One device.
pub(super) struct Member {
    /// Its record but for when it was last seen, which every report moves.
    packed: Box<[u8]>,
    last_seen: UnixMillis,
    key: PublicKey,
    standing: Standing,
    /// What it has in common with the key of ours that it last tagged reports for. Not stored: drawn anew.
    tag: Option<TagKey>,
}

#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "as the record has it")]
struct Standing {
    online: bool,
    pinned: bool,
    revoked: bool,
    presumed_gone: bool,
}

/// How many devices there are, and of these are in one way or another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) known: usize,
    pub(super) online: usize,
    pub(super) pinned: usize,
}

impl Roster {
    /// Of what is stored.
    pub(super) fn of(records: &[DeviceRecord]) -> Result<Self, StoreError> {
        let mut roster = Self::default();
        for record in records {
            roster.put(record)?;
        }
        Ok(roster)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn contains(&self, device: &DeviceId) -> bool {
        self.members.contains_key(device)
    }

    /// What every message asks for.
    pub(super) fn member(&mut self, device: &DeviceId) -> Option<&mut Member> {
        self.members.get_mut(device).map(|member| &mut **member)
    }

    /// The record of one.
    pub(super) fn get(&self, device: &DeviceId) -> Option<DeviceRecord> {
        self.members.get(device)?.record()
    }

    /// All records, by name.
    pub(super) fn records(&self) -> impl Iterator<Item = DeviceRecord> {
        self.members.values().filter_map(|member| member.record())
    }

    /// The records of those who were not cut off, by name.
    pub(super) fn admitted(&self) -> impl Iterator<Item = DeviceRecord> {
        let admitted = self.members.values().filter(|member| !member.is_revoked());
        admitted.filter_map(|member| member.record())
    }

    /// The records of those who are there, as last said.
    pub(super) fn online(&self) -> impl Iterator<Item = DeviceRecord> {
        let online = self.members.values().filter(|member| member.standing.online);
        online.filter_map(|member| member.record())
    }

    pub(super) fn census(&self) -> Census {
        let count = |is: fn(&Standing) -> bool| self.members.values().filter(|one| is(&one.standing)).count();
        Census { known: self.len(), online: count(|one| one.online), pinned: count(|one| one.pinned) }
    }

    /// Takes one up, or what has become of it.
    pub(super) fn put(&mut self, record: &DeviceRecord) -> Result<(), StoreError> {
        let mut member = Member {
            packed: pack(record)?,
            last_seen: record.last_seen,
            key: record.key,
            standing: Standing {
                online: record.hello.presence == Presence::Online,
                pinned: record.hello.pinned,
                revoked: record.revoked.is_some(),
                presumed_gone: record.presumed_gone,
            },
            tag: None,
        };
        let device = &record.hello.device;
        if let Some(known) = self.members.get_mut(device) {
            if !member.is_revoked() {
                member.tag = known.tag.take();
            }
            **known = member;
        } else {
            self.members.insert(device.clone(), Box::new(member));
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, device: &DeviceId) {
        self.members.remove(device);
    }
}

impl Member {
    /// The key that everything it says is checked with, and what is drawn from it.
    pub(super) fn keys(&mut self) -> (PublicKey, &mut Option<TagKey>) {
        (self.key, &mut self.tag)
    }

    /// It was cut off.
    pub(super) const fn is_revoked(&self) -> bool {
        self.standing.revoked
    }

    /// It was taken for gone without having said so.
    pub(super) const fn is_presumed_gone(&self) -> bool {
        self.standing.presumed_gone
    }

    pub(super) const fn last_seen(&self) -> UnixMillis {
        self.last_seen
    }

    /// Notes a word of it; its record as it is now, to be stored.
    pub(super) fn seen(&mut self, now: UnixMillis) -> Option<DeviceRecord> {
        self.last_seen = now;
        self.record()
    }

    fn record(&self) -> Option<DeviceRecord> {
        let read = postcard::from_bytes::<DeviceRecord>(&self.packed);
        // Nobody else writes it, and every record that was packed can be read: no device is ever missing for this.
        let read = read.inspect_err(|why| error!(%why, "a record in memory cannot be read")).ok()?;
        Some(DeviceRecord { last_seen: self.last_seen, ..read })
    }
}

fn pack(record: &DeviceRecord) -> Result<Box<[u8]>, StoreError> {
    let packed = postcard::to_allocvec(record);
    let packed = packed.map_err(|why| StoreError::Failed(format!("{}: {why}", record.hello.device)))?;
    Ok(packed.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use serin_protocol::ids::{BootId, Digest, EventNumber};
    use serin_protocol::message::{Phase, Reason, WorkerDeath};

    use super::*;
    use crate::store::{Move, suite};

    fn record(name: &str) -> DeviceRecord {
        suite::device(name)
    }

    /// With everything that may be missing.
    fn eventful(name: &str) -> DeviceRecord {
        let mut record = record(name);
        record.hello.presence = Presence::Online;
        record.hello.pinned = true;
        record.hello.active = Some("digits@2.0.0".parse().expect("a release"));
        record.hello.previous = record.hello.active.clone();
        record.last_event = EventNumber(u64::MAX);
        record.last_move = Some(Move {
            at: UnixMillis(7),
            release: "digits@2.0.0".parse().expect("a release"),
            to: Phase::RolledBack,
            reason: Some(Reason::WorkerDied(WorkerDeath::MemoryLimit)),
        });
        record.revoked = Some(UnixMillis(3));
        record.safe_mode = true;
        record.presumed_gone = true;
        record.paused_until = Some(UnixMillis(11));
        record.past_boots = (0..64).map(|boot| BootId(u64::MAX - boot)).collect();
        record.tags.insert("site".into(), "lisbon".into());
        record
    }

    #[test]
    fn records_are_read_as_they_were_put() {
        let mut roster = Roster::of(&[record("b"), eventful("a")]).expect("packs");
        assert_eq!(roster.get(&eventful("a").hello.device), Some(eventful("a")));
        assert_eq!(roster.records().collect::<Vec<_>>(), [eventful("a"), record("b")]);
        assert_eq!(roster.get(&record("c").hello.device), None);
        let changed = DeviceRecord { safe_mode: true, ..record("b") };
        roster.put(&changed).expect("packs");
        assert_eq!(roster.get(&changed.hello.device), Some(changed));
        assert_eq!(roster.len(), 2);
        roster.remove(&eventful("a").hello.device);
        assert!(!roster.contains(&eventful("a").hello.device));
    }

    #[test]
    fn who_is_there_is_known_without_reading() {
        let mut here = record("here");
        here.hello.presence = Presence::Online;
        let mut gone = record("gone");
        gone.hello.presence = Presence::Offline;
        let roster = Roster::of(&[here, gone, eventful("cut-off")]).expect("packs");
        assert_eq!(roster.census(), Census { known: 3, online: 2, pinned: 1 });
        let names = |records: Vec<DeviceRecord>| -> Vec<String> {
            records.iter().map(|record| record.hello.device.to_string()).collect()
        };
        assert_eq!(names(roster.online().collect()), ["cut-off", "here"]);
        assert_eq!(names(roster.admitted().collect()), ["gone", "here"]);
    }

    #[test]
    fn a_word_moves_when_a_device_was_last_seen_and_nothing_else() {
        let mut roster = Roster::of(&[eventful("a")]).expect("packs");
        let member = roster.member(&eventful("a").hello.device).expect("known");
        let seen = DeviceRecord { last_seen: UnixMillis(99), ..eventful("a") };
        assert_eq!(member.seen(UnixMillis(99)), Some(seen.clone()));
        assert_eq!(roster.get(&seen.hello.device), Some(seen));
    }

    #[test]
    fn what_was_drawn_for_tags_stays_until_a_device_is_cut_off() {
        let mut roster = Roster::of(&[record("a")]).expect("packs");
        let device = record("a").hello.device;
        let (ours, theirs) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&Digest::of(b"a").0));
        let drawn = TagKey::of_server(&ours, &PublicKey::of(&theirs)).expect("in common");
        *roster.member(&device).expect("known").keys().1 = Some(drawn);
        roster.put(&DeviceRecord { safe_mode: true, ..record("a") }).expect("packs");
        assert!(roster.member(&device).expect("known").keys().1.is_some());
        roster.put(&DeviceRecord { revoked: Some(UnixMillis(1)), ..record("a") }).expect("packs");
        assert!(roster.member(&device).expect("known").keys().1.is_none());
        assert!(roster.member(&device).expect("known").is_revoked());
    }
}
