//! Reports: in a log as they came for a while, then as sums in the database. Wherever power is cut, a report is either
//! itself or part of a sum, never both and never neither.
//!
//! A report is appended once, and what is old of a device is now and then written together; nothing else is written for
//! it, so that taking one in costs little. Reports that were folded into sums are taken out of the log in three steps:
//! sums and a note of what is in them, as one change; then the log without these reports; then the note goes. A note that
//! is found at opening tells what is still to be taken out.

mod kept;
mod log;
mod record;
mod sum_tree;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serin_protocol::ids::{DeviceId, ReleaseId, UnixMillis};
use serin_protocol::message::Report;
use sled::{Batch, Db, Tree};

use super::StoreError;
use super::boxes::Boxes;
use super::seen::SeenReports;
use super::sled::together;
use super::sums::{self, Span, Sum};
use super::values::{from_wire, unreadable, wire};
use kept::{Kept, Piece};

/// Reports folded in one change at least, if there are so many: of the widest model 16 MiB.
const FOLDED: usize = 512;

/// Devices folded in one change at most, so that its note stays small.
const FOLDED_DEVICES: usize = 512;

/// Where sums are; their histograms are written as they were not before version 3 of the wire.
const SUMS: &str = "sums 3";

/// Under what the note of a folding is kept.
const NOTE: &str = "folding";

/// Reports, what is known of those that came, and sums.
pub(super) struct Reports {
    db: Db,
    seen: Tree,
    sums: Tree,
    folding: Tree,
    kept: Mutex<Kept>,
}

/// Reports of these devices about this release, those of hours before that time, are in sums.
#[derive(Serialize, Deserialize)]
struct Folding {
    release: ReleaseId,
    devices: Vec<DeviceId>,
    before: UnixMillis,
}

impl Reports {
    pub(super) fn open(db: &Db, folder: &Path) -> Result<Self, StoreError> {
        Self::of_files(db, folder, log::FILE_BYTES)
    }

    fn of_files(db: &Db, folder: &Path, file_bytes: u32) -> Result<Self, StoreError> {
        let seen = db.open_tree("seen reports")?;
        let known = seen.iter().map(|entry| {
            let (key, value) = entry?;
            let name = String::from_utf8_lossy(&key).into_owned();
            let device = DeviceId::new(&name)
                .map_err(|error| unreadable("seen reports of", &name, &error.to_string()))?;
            Ok((device, from_wire::<SeenReports>("seen reports of", &name, &value)?))
        });
        let known = known.collect::<Result<BTreeMap<_, _>, StoreError>>()?;
        let reports = Self {
            db: db.clone(),
            seen,
            sums: db.open_tree(SUMS)?,
            folding: db.open_tree("folding")?,
            kept: Mutex::new(Kept::open(folder, file_bytes, known)?),
        };
        reports.finish_folding()?;
        Ok(reports)
    }

    pub(super) fn forget_device(&self, device: &DeviceId) -> Result<(), StoreError> {
        self.lock().forget_device(device);
        self.seen.remove(device.as_str())?;
        Ok(())
    }

    pub(super) fn add(
        &self,
        report: &Report,
        wire: &[u8],
        fences: &[UnixMillis],
    ) -> Result<bool, StoreError> {
        self.lock().add(report, wire, fences)
    }

    pub(super) fn visit(
        &self,
        release: &ReleaseId,
        since: UnixMillis,
        each: &mut dyn FnMut(&Report),
    ) -> Result<(), StoreError> {
        let (histories, reader) = self.lock().of(release)?;
        let (boxes, mut bytes) = (Boxes::default(), Vec::new());
        for (device, history) in &histories {
            for (when, bytes) in history.read(0, &reader, &mut bytes)? {
                if when.start >= since {
                    let report = boxes.read(device.as_str(), bytes)?;
                    each(&report);
                    boxes.take_back(report);
                }
            }
        }
        Ok(())
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
        let (histories, _) = self.lock().of(release)?;
        let mut met: BTreeMap<(UnixMillis, u8), BTreeSet<DeviceId>> = BTreeMap::new();
        let (mut some, mut count, mut bytes) = (Vec::new(), 0, Vec::new());
        for device in histories.into_keys() {
            count += self
                .lock()
                .read(release, &device, &mut bytes)?
                .iter()
                .filter(|piece| is_old(piece, before))
                .count();
            some.push(device);
            if count >= FOLDED || some.len() >= FOLDED_DEVICES {
                self.fold_some(release, std::mem::take(&mut some), before, &mut met)?;
                count = 0;
            }
        }
        if count > 0 {
            self.fold_some(release, some, before, &mut met)?;
        }
        sum_tree::age(&self.sums, release, now)
    }

    /// `met` are the devices of each hour and role that were met so far.
    fn fold_some(
        &self,
        release: &ReleaseId,
        devices: Vec<DeviceId>,
        before: UnixMillis,
        met: &mut BTreeMap<(UnixMillis, u8), BTreeSet<DeviceId>>,
    ) -> Result<(), StoreError> {
        let mut kept = self.lock();
        let (mut old, mut concerned) = (Vec::new(), Vec::new());
        let (boxes, mut bytes) = (Boxes::default(), Vec::new());
        for device in devices {
            let pieces = kept.read(release, &device, &mut bytes)?;
            let before_it = old.len();
            for (_, bytes) in pieces.iter().filter(|piece| is_old(piece, before)) {
                let report = boxes.read(device.as_str(), bytes)?;
                let hour = (Span::Hour.start_of(report.start), report.role as u8);
                met.entry(hour).or_default().insert(device.clone());
                old.push(*report);
            }
            if old.len() > before_it {
                concerned.push(device);
            }
        }
        if old.is_empty() {
            return Ok(());
        }
        let mut sums = sums::by_hour(old);
        for sum in &mut sums {
            let met = met.get(&(sum.start, sum.role as u8)).map_or(0, BTreeSet::len);
            sum.devices = sum.devices.max(met as u64);
        }
        // Nothing that is in a sum may be lost with a power cut and come again.
        kept.log.sync()?;
        let folding = Folding { release: release.clone(), devices: concerned, before };
        let mut note = Batch::default();
        note.insert(NOTE, wire("folding", &folding)?);
        together(&self.sums, &sum_tree::adding(&self.sums, sums)?, &self.folding, &note)?;
        self.db.flush()?;
        self.take_out(&mut kept, &folding)
    }

    fn finish_folding(&self) -> Result<(), StoreError> {
        let Some(note) = self.folding.get(NOTE)? else { return Ok(()) };
        let folding: Folding = from_wire("folding", "", &note)?;
        self.take_out(&mut self.lock(), &folding)
    }

    /// Takes out of the log what is in sums. Done twice it changes nothing more; nothing may come in between.
    fn take_out(&self, kept: &mut Kept, folding: &Folding) -> Result<(), StoreError> {
        let Folding { release, devices, before } = folding;
        let mut bytes = Vec::new();
        for device in devices {
            let mut left = kept.read(release, device, &mut bytes)?;
            left.retain(|piece| !is_old(piece, *before));
            let left: Vec<&[u8]> = left.into_iter().map(|(_, bytes)| bytes).collect();
            kept.replace(release, device, &left, 0)?;
        }
        kept.log.sync()?;
        self.folding.remove(NOTE)?;
        // Before anything comes that is as old and in no sum.
        self.db.flush()?;
        Ok(())
    }

    pub(super) fn sums(&self, release: &ReleaseId) -> Result<Vec<Sum>, StoreError> {
        sum_tree::of(&self.sums, release)
    }

    pub(super) fn bound(&self) -> Result<(), StoreError> {
        sum_tree::bound(&self.sums)
    }

    /// Makes everything durable, and gives back what the log does not need.
    pub(super) fn commit(&self) -> Result<(), StoreError> {
        let mut kept = self.lock();
        kept.tidy()?;
        kept.log.sync()?;
        if kept.log.empty().is_empty() {
            return Ok(());
        }
        // The log is about to forget what was seen.
        let mut seen = Batch::default();
        for (device, reports) in kept.unsaved() {
            seen.insert(device.as_str(), wire("seen reports", reports)?);
        }
        self.seen.apply_batch(seen)?;
        self.db.flush()?;
        kept.saved();
        kept.give_back()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it belongs to an hour that is folded. One that was merged on the way may reach into what is young.
fn is_old((when, _): &Piece<'_>, before: UnixMillis) -> bool {
    when.start < before && when.end <= before
}

#[cfg(test)]
#[path = "reports_tests.rs"]
mod tests;
