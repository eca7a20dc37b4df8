//! Which reports are kept, and where in the log: per release and device a page of older ones, and what came since. Small
//! in memory, and found again by reading the log from its beginning.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{iter, mem};

use serin_protocol::ids::{DeviceId, ReleaseId, UnixMillis};
use serin_protocol::message::Report;
use tracing::warn;

use super::super::StoreError;
use super::super::boxes::Boxes;
use super::super::history;
use super::super::seen::SeenReports;
use super::super::values::{from_wire, wire_to};
use super::log::{Log, Place, Reader};
use super::record::{Bytes, Name, Record, When};

/// Bytes that one device's reports about one release are read into, which are kept for the next device's: all of a
/// model of 64 features take about 300 KB with their segments.
const SPARE_BYTES: usize = 1024 * 1024;

/// Reports of one device and release that lie in the log one by one, before the older ones among them are merged.
const LONGEST: usize = history::EXACT + history::FRESH;

/// A report as on the wire, and when it was.
pub(super) type Piece<'a> = (When, &'a [u8]);

/// Where one device's reports about one release are.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct History {
    page: Option<Place>,
    /// The page has nothing. It stays while an older file may say otherwise.
    empty: bool,
    /// What is not in the page, in the order in which it came; fewer than [`LONGEST`] but while one is added.
    came: Vec<Place>,
}

impl History {
    fn places(&self) -> impl Iterator<Item = Place> {
        self.page.into_iter().chain(self.came.iter().copied())
    }

    /// Begins a new page, but for the `left` that came last; what is over with it.
    fn turn_page(&mut self, page: Place, empty: bool, left: usize) -> impl Iterator<Item = Place> {
        let older = self.came.len().saturating_sub(left);
        let over = self.came.drain(..older).chain(self.page);
        (self.page, self.empty) = (Some(page), empty);
        over
    }

    /// All of it but for the `left` that came last, in the order of windows, read into `bytes`, which it has for itself.
    pub(super) fn read<'a>(
        &self,
        left: usize,
        reader: &Reader,
        bytes: &'a mut Vec<u8>,
    ) -> Result<Vec<Piece<'a>>, StoreError> {
        bytes.clear();
        let mut bodies = Vec::with_capacity(self.came.len() + 1);
        let older = self.came.len().saturating_sub(left);
        for place in self.page.into_iter().chain(self.came.iter().copied().take(older)) {
            bodies.extend(reader.read(place, bytes)?);
        }
        let bytes: &'a [u8] = bytes;
        let mut pieces = Vec::with_capacity(self.came.len() + history::MERGED);
        let mut add = |report: &'a [u8]| {
            pieces.push((When::of(report)?, report));
            Ok::<(), StoreError>(())
        };
        for body in bodies {
            match from_wire("reports of", "", bytes.get(body).unwrap_or_default())? {
                Record::Came { report, .. } => add(report.0)?,
                Record::Page { reports, .. } => reports.iter().try_for_each(|report| add(report.0))?,
            }
        }
        pieces.sort_by_key(|(when, _)| *when);
        Ok(pieces)
    }
}

/// All of one release, by device.
pub(super) type Histories = BTreeMap<DeviceId, History>;

/// What is kept.
pub(super) struct Kept {
    pub(super) log: Log,
    histories: BTreeMap<ReleaseId, Histories>,
    seen: BTreeMap<DeviceId, SeenReports>,
    /// Devices of which something was seen that only the log knows yet.
    unsaved: BTreeSet<DeviceId>,
    /// What is merged, and what it is read into and written to: kept from one merging to the next, as memory costs time.
    boxes: Boxes,
    bytes: Vec<u8>,
    merged: Vec<u8>,
}

impl Kept {
    /// Finds what is kept in `folder`, in files of `file_bytes`; `seen` is what was known of reports that the log may have forgotten.
    pub(super) fn open(
        folder: &Path,
        file_bytes: u32,
        seen: BTreeMap<DeviceId, SeenReports>,
    ) -> Result<Self, StoreError> {
        let mut kept = Found { histories: BTreeMap::new(), seen, unsaved: BTreeSet::new(), strange: 0 };
        let mut log = Log::open(folder, file_bytes, |place, body| kept.take(place, body))?;
        let Found { histories, seen, unsaved, strange } = kept;
        if strange > 0 {
            warn!(strange, "records in the log of reports that this version cannot read");
        }
        let places = histories.values().flat_map(BTreeMap::values).flat_map(History::places);
        places.for_each(|place| log.is_live(place));
        let boxes = Boxes::default();
        Ok(Self { log, histories, seen, unsaved, boxes, bytes: Vec::new(), merged: Vec::new() })
    }

    /// Keeps a report, `wire` on the wire; false when it came before.
    pub(super) fn add(
        &mut self,
        report: &Report,
        wire: &[u8],
        fences: &[UnixMillis],
    ) -> Result<bool, StoreError> {
        if !see(&mut self.seen, &report.device, name_of(report)) {
            return Ok(false);
        }
        if !self.unsaved.contains(&report.device) {
            self.unsaved.insert(report.device.clone());
        }
        let release = report.release.to_string();
        let record = Record::Came {
            device: report.device.as_str(),
            release: &release,
            name: name_of(report),
            report: Bytes(wire),
        };
        let place = self.log.append(|body| record.write(body))?;
        let history = history_of(&mut self.histories, &report.release, &report.device);
        history.came.push(place);
        if history.came.len() >= LONGEST {
            self.condense(&report.release, &report.device, fences)?;
        }
        Ok(true)
    }

    /// Merges what is older than what came last, which stays where it is.
    fn condense(
        &mut self,
        release: &ReleaseId,
        device: &DeviceId,
        fences: &[UnixMillis],
    ) -> Result<(), StoreError> {
        let (mut bytes, mut merged) = (mem::take(&mut self.bytes), mem::take(&mut self.merged));
        let older = self.read_older(release, device, history::EXACT, &mut bytes)?;
        let reports = older.iter().map(|(_, bytes)| self.boxes.read(device.as_str(), bytes));
        let reports = history::condense(reports, fences, &self.boxes)?;
        let ends = write_all(reports, &mut merged, &self.boxes)?;
        let begins = iter::once(0).chain(ends.iter().copied());
        let page: Vec<&[u8]> = begins.zip(&ends).filter_map(|(begin, end)| merged.get(begin..*end)).collect();
        self.replace(release, device, &page, history::EXACT)?;
        // A model with many parts and segments takes more; what most take is kept.
        if bytes.capacity() <= SPARE_BYTES {
            (self.bytes, self.merged) = (bytes, merged);
        }
        Ok(())
    }

    /// All that is kept of a device about a release, in the order of windows, read into `bytes`.
    pub(super) fn read<'a>(
        &mut self,
        release: &ReleaseId,
        device: &DeviceId,
        bytes: &'a mut Vec<u8>,
    ) -> Result<Vec<Piece<'a>>, StoreError> {
        self.read_older(release, device, 0, bytes)
    }

    /// The same but for the `left` that came last.
    fn read_older<'a>(
        &mut self,
        release: &ReleaseId,
        device: &DeviceId,
        left: usize,
        bytes: &'a mut Vec<u8>,
    ) -> Result<Vec<Piece<'a>>, StoreError> {
        let reader = self.log.reader()?;
        let history = self.histories.get(release).and_then(|devices| devices.get(device));
        history.map_or(Ok(Vec::new()), |history| history.read(left, &reader, bytes))
    }

    /// Keeps `reports` of a device about a release, the `left` that came last, and no others.
    pub(super) fn replace(
        &mut self,
        release: &ReleaseId,
        device: &DeviceId,
        reports: &[&[u8]],
        left: usize,
    ) -> Result<(), StoreError> {
        let name = release.to_string();
        let reports = reports.iter().map(|report| Bytes(report)).collect::<Vec<_>>();
        let empty = reports.is_empty();
        let record = Record::Page { device: device.as_str(), release: &name, reports, left };
        let place = self.log.append(|body| record.write(body))?;
        let history = history_of(&mut self.histories, release, device);
        let over = history.turn_page(place, empty, left);
        over.for_each(|place| self.log.is_dead(place));
        Ok(())
    }

    /// Where all reports about a release are, and what reads them there.
    pub(super) fn of(&mut self, release: &ReleaseId) -> Result<(Histories, Reader), StoreError> {
        let reader = self.log.reader()?;
        Ok((self.histories.get(release).cloned().unwrap_or_default(), reader))
    }

    /// Copies what is left in one file to the end, when there is more garbage than may be.
    pub(super) fn tidy(&mut self) -> Result<(), StoreError> {
        let Some(file) = self.log.wasteful() else { return Ok(()) };
        let is_there = |history: &History| history.places().any(|place| place.file == file);
        let mut moving = Vec::new();
        for (release, devices) in &self.histories {
            let there = devices.iter().filter(|(_, history)| is_there(history));
            moving.extend(there.map(|(device, _)| (release.clone(), device.clone())));
        }
        let mut bytes = Vec::new();
        for (release, device) in moving {
            let pieces = self.read(&release, &device, &mut bytes)?;
            let reports: Vec<&[u8]> = pieces.into_iter().map(|(_, bytes)| bytes).collect();
            self.replace(&release, &device, &reports, 0)?;
        }
        Ok(())
    }

    /// Gives back files of which nothing is meant any more. What was seen must have been saved, and the log synced.
    pub(super) fn give_back(&mut self) -> Result<(), StoreError> {
        for file in self.log.empty() {
            self.log.remove(file)?;
        }
        let oldest = self.log.oldest();
        for devices in self.histories.values_mut() {
            devices.retain(|_, history| {
                // Nothing older is left that could say otherwise.
                let over = history.empty
                    && history.came.is_empty()
                    && history.page.is_some_and(|page| page.file == oldest);
                if over {
                    history.places().for_each(|place| self.log.is_dead(place));
                }
                !over
            });
        }
        self.histories.retain(|_, devices| !devices.is_empty());
        Ok(())
    }

    /// What was seen of devices and is known to the log alone, which then may forget it.
    pub(super) fn unsaved(&self) -> impl Iterator<Item = (&DeviceId, &SeenReports)> {
        self.unsaved.iter().filter_map(|device| self.seen.get_key_value(device))
    }

    /// All of that is saved.
    pub(super) fn saved(&mut self) {
        self.unsaved.clear();
    }

    pub(super) fn forget_device(&mut self, device: &DeviceId) {
        self.seen.remove(device);
        self.unsaved.remove(device);
    }
}

/// What the log says, while it is read.
struct Found {
    histories: BTreeMap<ReleaseId, Histories>,
    seen: BTreeMap<DeviceId, SeenReports>,
    unsaved: BTreeSet<DeviceId>,
    strange: u64,
}

impl Found {
    fn take(&mut self, place: Place, body: &[u8]) {
        let ids = |release: &str, device: &str| Some((release.parse().ok()?, DeviceId::new(device).ok()?));
        let taken = match postcard::from_bytes(body) {
            Ok(Record::Came { device, release, name, .. }) => {
                ids(release, device).map(|(release, device)| {
                    see(&mut self.seen, &device, name);
                    history_of(&mut self.histories, &release, &device).came.push(place);
                    self.unsaved.insert(device);
                })
            }
            Ok(Record::Page { device, release, reports, left }) => {
                ids(release, device).map(|(release, device)| {
                    let history = history_of(&mut self.histories, &release, &device);
                    drop(history.turn_page(place, reports.is_empty(), left));
                })
            }
            Err(_) => None,
        };
        self.strange += u64::from(taken.is_none());
    }
}

/// Writes reports as on the wire to `into`, which they have for themselves; where each ends.
fn write_all(reports: Vec<Box<Report>>, into: &mut Vec<u8>, boxes: &Boxes) -> Result<Vec<usize>, StoreError> {
    into.clear();
    let mut ends = Vec::with_capacity(reports.len());
    for report in reports {
        wire_to("report", &*report, into)?;
        ends.push(into.len());
        boxes.take_back(report);
    }
    Ok(ends)
}

fn name_of(report: &Report) -> Name {
    Name { boot: report.boot, sequence: report.sequence, first_feature: report.first_feature }
}

/// False when it was seen before.
fn see(seen: &mut BTreeMap<DeviceId, SeenReports>, device: &DeviceId, name: Name) -> bool {
    let Name { boot, sequence, first_feature } = name;
    let known = match seen.get_mut(device) {
        Some(known) => known,
        None => seen.entry(device.clone()).or_default(),
    };
    known.add(boot, sequence, first_feature)
}

fn history_of<'a>(
    histories: &'a mut BTreeMap<ReleaseId, Histories>,
    release: &ReleaseId,
    device: &DeviceId,
) -> &'a mut History {
    // Looked up first: a name is copied only once.
    if !histories.get(release).is_some_and(|devices| devices.contains_key(device)) {
        histories.entry(release.clone()).or_default().entry(device.clone()).or_default();
    }
    histories.entry(release.clone()).or_default().entry(device.clone()).or_default()
}
