//! The store in a `sled` database: one tree per kind of thing, JSON values except where messages are
//! stored as they came over the wire.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serin_protocol::ids::{DeviceId, Digest, ReleaseId, RolloutId, SequenceNumber, UnixMillis};
use serin_protocol::message::{Event, Report};
use sled::{Batch, Db, Transactional as _, Tree};

use super::{Assigned, DeviceRecord, EVENTS_PER_DEVICE, ReleaseRecord, Store, StoreError, StoredRollout};
use crate::rollout::event::{RolloutEvent, Start};

/// Memory for pages; the working set of a fleet of thousands is a few megabytes.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;

/// Everything in one folder.
pub struct SledStore {
    db: Db,
    devices: Tree,
    events: Tree,
    releases: Tree,
    statements: Tree,
    profiles: Tree,
    reports: Tree,
    rollouts: Tree,
    rollout_events: Tree,
    assignments: Tree,
}

impl SledStore {
    /// Opens the store in `folder`, creating it when there is none.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let db = sled::Config::new().path(folder).cache_capacity(CACHE_BYTES).open()?;
        Ok(Self {
            devices: db.open_tree("devices")?,
            events: db.open_tree("events")?,
            releases: db.open_tree("releases")?,
            statements: db.open_tree("statements")?,
            profiles: db.open_tree("profiles")?,
            reports: db.open_tree("reports")?,
            rollouts: db.open_tree("rollouts")?,
            rollout_events: db.open_tree("rollout events")?,
            assignments: db.open_tree("assignments")?,
            db,
        })
    }
}

impl Store for SledStore {
    fn devices(&self) -> Result<Vec<DeviceRecord>, StoreError> {
        all(&self.devices, "device")
    }

    fn device(&self, id: &DeviceId) -> Result<Option<DeviceRecord>, StoreError> {
        one(&self.devices, "device", id.as_str())
    }

    fn put_device(&self, record: &DeviceRecord) -> Result<(), StoreError> {
        self.devices.insert(record.hello.device.as_str(), json("device", record)?)?;
        Ok(())
    }

    fn add_event(&self, event: &Event) -> Result<(), StoreError> {
        let prefix = prefix(event.device.as_str());
        self.events.insert(numbered(&prefix, event.number.0), wire("event", event)?)?;
        if let Some(oldest) = event.number.0.checked_sub(EVENTS_PER_DEVICE as u64) {
            let dropped = self.events.range(numbered(&prefix, 0)..=numbered(&prefix, oldest));
            for key in dropped.keys() {
                self.events.remove(key?)?;
            }
        }
        Ok(())
    }

    fn events(&self, device: &DeviceId) -> Result<Vec<Event>, StoreError> {
        let entries = self.events.scan_prefix(prefix(device.as_str()));
        entries.values().map(|value| from_wire("event", device.as_str(), &value?)).collect()
    }

    fn releases(&self) -> Result<Vec<ReleaseRecord>, StoreError> {
        all(&self.releases, "release")
    }

    fn release(&self, id: &ReleaseId) -> Result<Option<ReleaseRecord>, StoreError> {
        one(&self.releases, "release", &id.to_string())
    }

    fn put_release(
        &self,
        record: &ReleaseRecord,
        statement: &[u8],
        profile: &[u8],
    ) -> Result<(), StoreError> {
        self.statements.insert(record.statement.0, statement)?;
        self.profiles.insert(record.release.profile.0, profile)?;
        // Last, so that a release never lacks its parts.
        self.releases.insert(record.release.id.to_string(), json("release", record)?)?;
        Ok(())
    }

    fn set_published(&self, id: &ReleaseId) -> Result<(), StoreError> {
        if let Some(mut record) = self.release(id)? {
            record.published = true;
            self.releases.insert(id.to_string(), json("release", &record)?)?;
        }
        Ok(())
    }

    fn statement(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.statements.get(digest.0)?.map(|bytes| bytes.to_vec()))
    }

    fn profile(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.profiles.get(digest.0)?.map(|bytes| bytes.to_vec()))
    }

    fn add_report(&self, report: &Report) -> Result<bool, StoreError> {
        let value = wire("report", report)?;
        Ok(self.reports.insert(report_key(report), value)?.is_none())
    }

    fn reports(&self, release: &ReleaseId, since: UnixMillis) -> Result<Vec<Report>, StoreError> {
        let prefix = prefix(&release.to_string());
        let from = numbered(&prefix, since.0);
        let entries = self.reports.range(from..numbered(&prefix, u64::MAX));
        entries.values().map(|value| from_wire("report", &release.to_string(), &value?)).collect()
    }

    fn drop_reports(&self, release: &ReleaseId, before: UnixMillis) -> Result<(), StoreError> {
        let prefix = prefix(&release.to_string());
        for key in self.reports.range(numbered(&prefix, 0)..numbered(&prefix, before.0)).keys() {
            self.reports.remove(key?)?;
        }
        Ok(())
    }

    fn next_rollout(&self) -> Result<RolloutId, StoreError> {
        let last = self
            .rollouts
            .last()?
            .and_then(|(key, _)| Some(u64::from_be_bytes(key.as_ref().try_into().ok()?)));
        Ok(RolloutId(last.unwrap_or(0) + 1))
    }

    fn add_rollout(&self, start: &Start, assigned: &[Assigned]) -> Result<(), StoreError> {
        let mut rollouts = Batch::default();
        rollouts.insert(&start.id.0.to_be_bytes(), json("rollout", start)?);
        together(&self.rollouts, &rollouts, &self.assignments, &batch_of(assigned))
    }

    fn add_rollout_event(
        &self,
        id: RolloutId,
        at: UnixMillis,
        event: &RolloutEvent,
        assigned: &[Assigned],
    ) -> Result<(), StoreError> {
        let prefix = id.0.to_be_bytes().to_vec();
        let last = self.rollout_events.scan_prefix(&prefix).next_back().transpose()?;
        let last = last.and_then(|(key, _)| Some(u64::from_be_bytes(key.get(8..)?.try_into().ok()?)));
        let mut events = Batch::default();
        events.insert(numbered(&prefix, last.unwrap_or(0) + 1), json("rollout event", &(at, event))?);
        together(&self.rollout_events, &events, &self.assignments, &batch_of(assigned))
    }

    fn rollouts(&self) -> Result<Vec<StoredRollout>, StoreError> {
        let starts: Vec<Start> = all(&self.rollouts, "rollout")?;
        let with_events = |start: Start| {
            let entries = self.rollout_events.scan_prefix(start.id.0.to_be_bytes());
            let name = start.id.to_string();
            let events: Result<_, StoreError> =
                entries.values().map(|value| from_json("rollout event", &name, &value?)).collect();
            Ok(StoredRollout { start, events: events? })
        };
        starts.into_iter().map(with_events).collect()
    }

    fn assignments(&self) -> Result<Vec<Assigned>, StoreError> {
        let assigned = |entry: sled::Result<(sled::IVec, sled::IVec)>| {
            let (key, value) = entry?;
            let name = String::from_utf8_lossy(&key).into_owned();
            let unreadable = |why: &str| StoreError::Unreadable {
                what: "assignment",
                name: name.clone(),
                why: why.into(),
            };
            let (sequence, sealed) = value.split_first_chunk::<8>().ok_or_else(|| unreadable("too short"))?;
            Ok(Assigned {
                device: DeviceId::new(&name).map_err(|error| unreadable(&error.to_string()))?,
                sequence: SequenceNumber(u64::from_be_bytes(*sequence)),
                sealed: sealed.to_vec(),
            })
        };
        self.assignments.iter().map(assigned).collect()
    }

    fn commit(&self) -> Result<(), StoreError> {
        self.db.flush()?;
        Ok(())
    }
}

fn batch_of(assigned: &[Assigned]) -> Batch {
    let mut batch = Batch::default();
    for Assigned { device, sequence, sealed } in assigned {
        let mut value = sequence.0.to_be_bytes().to_vec();
        value.extend(sealed);
        batch.insert(device.as_str(), value);
    }
    batch
}

/// Applies two batches as one change.
fn together(left: &Tree, of_left: &Batch, right: &Tree, of_right: &Batch) -> Result<(), StoreError> {
    let applied = (left, right).transaction(|(left, right)| {
        left.apply_batch(of_left)?;
        right.apply_batch(of_right)?;
        Ok::<(), sled::transaction::ConflictableTransactionError<()>>(())
    });
    match applied {
        Ok(()) | Err(sled::transaction::TransactionError::Abort(())) => Ok(()),
        Err(sled::transaction::TransactionError::Storage(error)) => Err(error.into()),
    }
}

/// Names hold no zero byte, so that one name's keys never lie among another's.
fn prefix(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.push(0);
    key
}

fn numbered(prefix: &[u8], number: u64) -> Vec<u8> {
    let mut key = prefix.to_vec();
    key.extend(number.to_be_bytes());
    key
}

fn report_key(report: &Report) -> Vec<u8> {
    let mut key = numbered(&prefix(&report.release.to_string()), report.start.0);
    key.extend(prefix(report.device.as_str()));
    key.extend(report.boot.0.to_be_bytes());
    key.extend(report.sequence.to_be_bytes());
    key.extend(report.first_feature.to_be_bytes());
    key
}

fn all<T: DeserializeOwned>(tree: &Tree, what: &'static str) -> Result<Vec<T>, StoreError> {
    let read = |entry: sled::Result<(sled::IVec, sled::IVec)>| {
        let (key, value) = entry?;
        from_json(what, &String::from_utf8_lossy(&key), &value)
    };
    tree.iter().map(read).collect()
}

fn one<T: DeserializeOwned>(tree: &Tree, what: &'static str, name: &str) -> Result<Option<T>, StoreError> {
    tree.get(name)?.map(|value| from_json(what, name, &value)).transpose()
}

fn json<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| unreadable(what, "", &error.to_string()))
}

fn from_json<T: DeserializeOwned>(what: &'static str, name: &str, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| unreadable(what, name, &error.to_string()))
}

fn wire<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, StoreError> {
    postcard::to_allocvec(value).map_err(|error| unreadable(what, "", &error.to_string()))
}

fn from_wire<T: DeserializeOwned>(what: &'static str, name: &str, bytes: &[u8]) -> Result<T, StoreError> {
    postcard::from_bytes(bytes).map_err(|error| unreadable(what, name, &error.to_string()))
}

fn unreadable(what: &'static str, name: &str, why: &str) -> StoreError {
    StoreError::Unreadable { what, name: name.into(), why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sled_keeps_the_contract() {
        let folder = tempfile::tempdir().expect("folder");
        crate::store::suite::check(&|| Box::new(SledStore::open(folder.path()).expect("opens")));
    }
}
