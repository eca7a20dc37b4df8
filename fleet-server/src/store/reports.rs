//! Reports in the `sled` store: as they came for a while, then as sums. Each step is one change, so that after a power
//! cut a report is either itself or part of a sum.

use std::collections::{BTreeMap, BTreeSet};

use serin_protocol::ids::{DeviceId, ReleaseId, UnixMillis};
use serin_protocol::message::Report;
use sled::{Batch, Db, Tree};

use super::StoreError;
use super::history;
use super::seen::SeenReports;
use super::sled::{numbered, prefix, together};
use super::sums::{self, MAX_TOTAL_BYTES, Span, Sum};
use super::values::{from_wire, wire};

/// Reports folded in one change: of the widest model 16 MiB.
const MAX_FOLDED: usize = 512;

/// Reports, what is known of those that came, and sums.
pub(super) struct Reports {
    young: Tree,
    seen: Tree,
    sums: Tree,
}

impl Reports {
    pub(super) fn open(db: &Db) -> Result<Self, StoreError> {
        Ok(Self {
            young: db.open_tree("reports")?,
            seen: db.open_tree("seen reports")?,
            sums: db.open_tree("sums")?,
        })
    }

    pub(super) fn forget_device(&self, device: &DeviceId) -> Result<(), StoreError> {
        self.seen.remove(device.as_str())?;
        Ok(())
    }

    pub(super) fn add(&self, report: &Report, fences: &[UnixMillis]) -> Result<bool, StoreError> {
        let device = report.device.as_str();
        let mut seen = match self.seen.get(device)? {
            Some(bytes) => from_wire("seen reports of", device, &bytes)?,
            None => SeenReports::default(),
        };
        if !seen.add(report.boot, report.sequence, report.first_feature) {
            return Ok(false);
        }
        let mut reports = Batch::default();
        reports.insert(report_key(report), wire("report", report)?);
        let mut of_seen = Batch::default();
        of_seen.insert(device, wire("seen reports", &seen)?);
        together(&self.young, &reports, &self.seen, &of_seen)?;
        self.merge_old(report, fences)?;
        Ok(true)
    }

    pub(super) fn since(&self, release: &ReleaseId, since: UnixMillis) -> Result<Vec<Report>, StoreError> {
        let name = release.to_string();
        let mut reports = Vec::new();
        for value in self.young.scan_prefix(prefix(&name)).values() {
            let report: Report = from_wire("report", &name, &value?)?;
            if report.start >= since {
                reports.push(report);
            }
        }
        Ok(reports)
    }

    /// Makes reports that end at or before `before` part of sums, and lets these age.
    pub(super) fn fold(
        &self,
        release: &ReleaseId,
        before: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        // An hour is folded whole, so that its devices are counted together.
        let before = Span::Hour.start_of(before);
        let name = release.to_string();
        let mut hours: BTreeMap<UnixMillis, Vec<sled::IVec>> = BTreeMap::new();
        for key in self.young.scan_prefix(prefix(&name)).keys() {
            let key = key?;
            if let Some(start) = start_of(&key).filter(|start| *start < before) {
                hours.entry(Span::Hour.start_of(start)).or_default().push(key);
            }
        }
        for keys in hours.into_values() {
            let mut devices: BTreeMap<u8, BTreeSet<DeviceId>> = BTreeMap::new();
            for some in keys.chunks(MAX_FOLDED) {
                self.fold_some(&name, some, before, &mut devices)?;
            }
        }
        self.age(release, now)
    }

    /// Some reports of one hour; `devices` are those of it that were met so far, by role.
    fn fold_some(
        &self,
        name: &str,
        keys: &[sled::IVec],
        before: UnixMillis,
        devices: &mut BTreeMap<u8, BTreeSet<DeviceId>>,
    ) -> Result<(), StoreError> {
        let (mut gone, mut changed) = (Batch::default(), Batch::default());
        let mut reports = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(value) = self.young.get(key)? else { continue };
            let report: Report = from_wire("report", name, &value)?;
            // One that was merged on the way may reach into what is young.
            if report.end <= before {
                gone.remove(key);
                devices.entry(report.role as u8).or_default().insert(report.device.clone());
                reports.push(report);
            }
        }
        for mut sum in sums::by_hour(reports) {
            let key = sum_key(&sum);
            if let Some(known) = self.sums.get(&key)? {
                sum.merge(&from_wire("sum of", name, &known)?);
            }
            let met = devices.get(&(sum.role as u8)).map_or(0, BTreeSet::len);
            sum.devices = sum.devices.max(met as u64);
            changed.insert(key, wire("sum", &sum)?);
        }
        together(&self.young, &gone, &self.sums, &changed)
    }

    pub(super) fn sums(&self, release: &ReleaseId) -> Result<Vec<Sum>, StoreError> {
        let name = release.to_string();
        let values = self.sums.scan_prefix(prefix(&name)).values();
        let mut all: Vec<Sum> =
            values.map(|value| from_wire("sum of", &name, &value?)).collect::<Result<_, _>>()?;
        all.sort_by_key(|sum| (sum.start, sum.span, sum.role as u8));
        Ok(all)
    }

    fn age(&self, release: &ReleaseId, now: UnixMillis) -> Result<(), StoreError> {
        let before = self.sums(release)?;
        let size = |sum: &Sum| wire("sum", sum).map_or(0, |bytes| bytes.len());
        let after = sums::age(before.clone(), now, size);
        if after == before {
            return Ok(());
        }
        let mut batch = Batch::default();
        before.iter().for_each(|sum| batch.remove(sum_key(sum)));
        for sum in &after {
            batch.insert(sum_key(sum), wire("sum", sum)?);
        }
        Ok(self.sums.apply_batch(batch)?)
    }

    /// Drops the oldest sums of all releases until the rest fits.
    pub(super) fn bound(&self) -> Result<(), StoreError> {
        let mut all = Vec::new();
        let mut total = 0_usize;
        for entry in &self.sums {
            let (key, value) = entry?;
            total = total.saturating_add(value.len());
            let start =
                key.rchunks(8).next().and_then(|tail| tail.try_into().ok()).map_or(0, u64::from_be_bytes);
            all.push((start, key, value.len()));
        }
        all.sort();
        let mut batch = Batch::default();
        for (_, key, size) in all {
            if total <= MAX_TOTAL_BYTES {
                break;
            }
            batch.remove(key);
            total = total.saturating_sub(size);
        }
        Ok(self.sums.apply_batch(batch)?)
    }

    fn merge_old(&self, newest: &Report, fences: &[UnixMillis]) -> Result<(), StoreError> {
        let prefix = device_prefix(newest);
        let count = self.young.scan_prefix(&prefix).count();
        if count <= history::MAX_REPORTS {
            return Ok(());
        }
        let name = newest.device.as_str();
        let mut older = Vec::new();
        let mut batch = Batch::default();
        // What is young stays as it is, and where it is.
        for entry in self.young.scan_prefix(&prefix).take(count / 2) {
            let (key, value) = entry?;
            older.push(from_wire("report", name, &value)?);
            batch.remove(key);
        }
        for report in &history::merge_pairs(older, fences) {
            batch.insert(report_key(report), wire("report", report)?);
        }
        self.young.apply_batch(batch)?;
        Ok(())
    }
}

fn device_prefix(report: &Report) -> Vec<u8> {
    let mut key = prefix(&report.release.to_string());
    key.extend(prefix(report.device.as_str()));
    key
}

fn report_key(report: &Report) -> Vec<u8> {
    let mut key = numbered(&device_prefix(report), report.start.0);
    key.extend(report.boot.0.to_be_bytes());
    key.extend(report.sequence.to_be_bytes());
    key.extend(report.first_feature.to_be_bytes());
    key
}

/// The start that a report's key holds.
fn start_of(key: &[u8]) -> Option<UnixMillis> {
    let (_, tail) = key.split_last_chunk::<26>()?;
    tail.first_chunk::<8>().map(|start| UnixMillis(u64::from_be_bytes(*start)))
}

/// The start last, so that age can be read from the key.
fn sum_key(sum: &Sum) -> Vec<u8> {
    let mut key = prefix(&sum.release.to_string());
    key.extend([sum.span as u8, sum.role as u8, sum.segment.0]);
    key.extend(sum.profile.0);
    numbered(&key, sum.start.0)
}
