//! The store in a `sled` database: one tree per kind of thing, JSON values except where messages are
//! stored as they came over the wire. Reports, of which there are most, are in a log beside it.

use std::path::Path;

use serin_protocol::enrolment::TokenId;
use serin_protocol::ids::{DeviceId, Digest, ReleaseId, RolloutId, SequenceNumber, UnixMillis};
use serin_protocol::message::{Event, Report};
use sled::{Batch, Db, Transactional as _, Tree};

use super::documents;
use super::reports::Reports;
use super::sums::Sum;
use super::values::{all, from_json, from_wire, json, one, wire};
use super::{
    Assigned, DeviceRecord, DocumentChange, EVENTS_PER_DEVICE, ReleaseRecord, RevokedKey, Shelf, Store,
    StoreError, StoredRollout, TokenRecord, VERDICTS_PER_ROLLOUT,
};
use crate::rollout::event::{RolloutEvent, Start};
use crate::rollout::verdict::Verdict;

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
    reports: Reports,
    rollouts: Tree,
    rollout_events: Tree,
    snapshots: Tree,
    verdicts: Tree,
    assignments: Tree,
    tokens: Tree,
    revoked_keys: Tree,
    documents: Tree,
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
            reports: Reports::open(&db, &folder.join("reports"))?,
            rollouts: db.open_tree("rollouts")?,
            rollout_events: db.open_tree("rollout events")?,
            snapshots: db.open_tree("snapshots")?,
            verdicts: db.open_tree("verdicts")?,
            assignments: db.open_tree("assignments")?,
            tokens: db.open_tree("tokens")?,
            revoked_keys: db.open_tree("revoked keys")?,
            documents: db.open_tree("documents")?,
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

    fn forget_device(&self, id: &DeviceId) -> Result<(), StoreError> {
        for key in self.events.scan_prefix(prefix(id.as_str())).keys() {
            self.events.remove(key?)?;
        }
        self.reports.forget_device(id)?;
        for tree in [&self.assignments, &self.devices] {
            tree.remove(id.as_str())?;
        }
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

    fn tokens(&self) -> Result<Vec<TokenRecord>, StoreError> {
        all(&self.tokens, "claim token")
    }

    fn put_token(&self, record: &TokenRecord) -> Result<(), StoreError> {
        self.tokens.insert(record.id.0.to_be_bytes(), json("claim token", record)?)?;
        Ok(())
    }

    fn forget_token(&self, id: TokenId) -> Result<(), StoreError> {
        self.tokens.remove(id.0.to_be_bytes())?;
        Ok(())
    }

    fn revoked_keys(&self) -> Result<Vec<RevokedKey>, StoreError> {
        all(&self.revoked_keys, "revoked key")
    }

    fn add_revoked_key(&self, revoked: &RevokedKey) -> Result<(), StoreError> {
        self.revoked_keys.insert(revoked.key.to_string(), json("revoked key", revoked)?)?;
        Ok(())
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

    fn add_report(&self, report: &Report, wire: &[u8], fences: &[UnixMillis]) -> Result<bool, StoreError> {
        self.reports.add(report, wire, fences)
    }

    fn visit_reports(
        &self,
        release: &ReleaseId,
        since: UnixMillis,
        each: &mut dyn FnMut(&Report),
    ) -> Result<(), StoreError> {
        self.reports.visit(release, since, each)
    }

    fn fold_reports(
        &self,
        release: &ReleaseId,
        before: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.reports.fold(release, before, now)
    }

    fn sums(&self, release: &ReleaseId) -> Result<Vec<Sum>, StoreError> {
        self.reports.sums(release)
    }

    fn bound_sums(&self) -> Result<(), StoreError> {
        self.reports.bound()
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
        let key = next_key(&self.rollout_events, id)?;
        let mut events = Batch::default();
        events.insert(key, json("rollout event", &(at, event))?);
        together(&self.rollout_events, &events, &self.assignments, &batch_of(assigned))
    }

    fn fold_rollout(&self, id: RolloutId, snapshot: &[u8]) -> Result<(), StoreError> {
        let mut snapshots = Batch::default();
        snapshots.insert(&id.0.to_be_bytes(), snapshot);
        let mut events = Batch::default();
        for key in self.rollout_events.scan_prefix(id.0.to_be_bytes()).keys() {
            events.remove(key?);
        }
        together(&self.snapshots, &snapshots, &self.rollout_events, &events)
    }

    fn drop_rollout(&self, id: RolloutId) -> Result<(), StoreError> {
        let prefix = id.0.to_be_bytes();
        // The start last, so that what is left after a cut is dropped again.
        for tree in [&self.rollout_events, &self.verdicts, &self.snapshots, &self.rollouts] {
            for key in tree.scan_prefix(prefix).keys() {
                tree.remove(key?)?;
            }
        }
        Ok(())
    }

    fn add_verdict(&self, id: RolloutId, verdict: &Verdict) -> Result<(), StoreError> {
        self.verdicts.insert(next_key(&self.verdicts, id)?, json("verdict", verdict)?)?;
        let keys: Result<Vec<_>, _> = self.verdicts.scan_prefix(id.0.to_be_bytes()).keys().collect();
        let keys = keys?;
        for key in keys.iter().take(keys.len().saturating_sub(VERDICTS_PER_ROLLOUT)) {
            self.verdicts.remove(key)?;
        }
        Ok(())
    }

    fn verdicts(&self, id: RolloutId) -> Result<Vec<Verdict>, StoreError> {
        let entries = self.verdicts.scan_prefix(id.0.to_be_bytes());
        entries.values().map(|value| from_json("verdict of rollout", &id.to_string(), &value?)).collect()
    }

    fn rollouts(&self) -> Result<Vec<StoredRollout>, StoreError> {
        let starts: Vec<Start> = all(&self.rollouts, "rollout")?;
        let with_events = |start: Start| {
            let entries = self.rollout_events.scan_prefix(start.id.0.to_be_bytes());
            let name = start.id.to_string();
            let events: Result<_, StoreError> =
                entries.values().map(|value| from_json("rollout event", &name, &value?)).collect();
            let snapshot = self.snapshots.get(start.id.0.to_be_bytes())?.map(|bytes| bytes.to_vec());
            Ok(StoredRollout { start, snapshot, events: events? })
        };
        starts.into_iter().map(with_events).collect()
    }

    fn put_assignments(&self, assigned: &[Assigned]) -> Result<(), StoreError> {
        Ok(self.assignments.apply_batch(batch_of(assigned))?)
    }

    fn assignments(&self) -> Result<Vec<Assigned>, StoreError> {
        let assigned = |entry: sled::Result<(sled::IVec, sled::IVec)>| {
            let (key, value) = entry?;
            let name = String::from_utf8_lossy(&key);
            let device = DeviceId::new(&name).map_err(|error| bad_assignment(&name, &error.to_string()))?;
            assigned_to(device, &value)
        };
        self.assignments.iter().map(assigned).collect()
    }

    fn assignment(&self, device: &DeviceId) -> Result<Option<Assigned>, StoreError> {
        let value = self.assignments.get(device.as_str())?;
        value.map(|value| assigned_to(device.clone(), &value)).transpose()
    }

    fn put_documents(&self, changes: &[DocumentChange]) -> Result<(), StoreError> {
        documents::put(&self.documents, changes)
    }

    fn document(&self, shelf: Shelf, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        documents::one(&self.documents, shelf, name)
    }

    fn documents(&self, shelf: Shelf) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        documents::all(&self.documents, shelf)
    }

    fn commit(&self) -> Result<(), StoreError> {
        self.reports.commit()?;
        self.db.flush()?;
        Ok(())
    }
}

/// The key after the last one of a rollout.
fn next_key(tree: &Tree, id: RolloutId) -> Result<Vec<u8>, StoreError> {
    let prefix = id.0.to_be_bytes();
    let last = tree.scan_prefix(prefix).next_back().transpose()?;
    let last = last.and_then(|(key, _)| Some(u64::from_be_bytes(key.get(8..)?.try_into().ok()?)));
    Ok(numbered(&prefix, last.unwrap_or(0) + 1))
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

fn assigned_to(device: DeviceId, value: &[u8]) -> Result<Assigned, StoreError> {
    let read = value.split_first_chunk::<8>();
    let (sequence, sealed) = read.ok_or_else(|| bad_assignment(device.as_str(), "too short"))?;
    Ok(Assigned { device, sequence: SequenceNumber(u64::from_be_bytes(*sequence)), sealed: sealed.to_vec() })
}

fn bad_assignment(name: &str, why: &str) -> StoreError {
    StoreError::Unreadable { what: "assignment", name: name.to_owned(), why: why.to_owned() }
}

/// Applies two batches as one change.
pub(super) fn together(
    left: &Tree,
    of_left: &Batch,
    right: &Tree,
    of_right: &Batch,
) -> Result<(), StoreError> {
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
pub(super) fn prefix(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.push(0);
    key
}

pub(super) fn numbered(prefix: &[u8], number: u64) -> Vec<u8> {
    let mut key = prefix.to_vec();
    key.extend(number.to_be_bytes());
    key
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
