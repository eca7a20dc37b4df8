//! Predictions that wait for their truth outlive the agent: what the gateway remembers goes into the journal with the
//! reports, and comes back at the next start. What runs never depends on it.

use std::collections::HashMap;
use std::sync::Arc;

use serin_protocol::bundle::BundleFile;
use serin_protocol::ids::{Digest, Millis, ReleaseId};
use serin_protocol::message::{Detail, Reason, Report};
use serin_protocol::sketch::profile::Profile;

use super::Supervisor;
use crate::disk::journal::Journal;
use crate::disk::releases::{ReleaseStore, StagedRelease};
use crate::gateway::remember::Remembered;
use crate::telemetry::answers::{Page, PageKey};
use crate::telemetry::{Recorder, Recording};
use crate::update::effect::Now;
use crate::update::record::{Record, Slot};

/// Time between two writings, unless a window is cut before: as often as a device writes reports unless told otherwise.
/// What was predicted since is what a power cut costs.
const EVERY: Millis = Millis::from_secs(60);

impl Supervisor {
    /// Stores reports, and with them what was predicted and which labels are counted in them, so that none counts twice.
    pub(super) fn store_reports(&mut self, reports: &[Report]) {
        if !reports.is_empty() {
            self.write_answers();
        }
        for report in reports {
            self.store_report(report);
        }
    }

    /// Keeps what was predicted, when it is time to and no report came along.
    pub(super) fn tick_answers(&mut self) {
        if self.answers_at <= self.now().elapsed
            && self.write_answers()
            && let Err(error) = self.journal.flush()
        {
            tracing::warn!(%error, "what was predicted lately could not be kept");
        }
    }

    /// Hands all that is new to the journal, which makes it durable with what comes next. Returns whether there was
    /// something.
    pub(super) fn write_answers(&mut self) -> bool {
        let now = self.now();
        self.answers_at = now.elapsed.plus(EVERY);
        let mut written = false;
        // In memory it would not outlive the device either, and would take of it.
        while self.sheltered.is_none()
            && let Some(page) = self.remembered.take_page(now.wall)
        {
            let appended = self.journal.append_page(&page.encode());
            let key = appended.as_ref().ok().copied();
            let useless = self.remembered.page_written(page, key);
            let dropped = useless.map_or(Ok(()), |key| self.journal.drop_pages_up_to(key));
            if let Err(error) = appended.map(drop).and(dropped) {
                tracing::warn!(%error, "what was predicted lately is not kept");
                break;
            }
            written = true;
        }
        written
    }
}

/// Brings back what was predicted before this start and waits for its truth, and returns who counts it: those of the
/// device's releases that predicted something. What cannot be read is left out.
pub(super) fn recall(
    journal: &mut Journal,
    remembered: &Remembered,
    releases: &ReleaseStore,
    record: &Record,
    window: Millis,
    now: Now,
) -> HashMap<Digest, Recording> {
    // None is one that cannot count.
    let mut known: HashMap<ReleaseId, Option<(Digest, Recording)>> = HashMap::new();
    let mut of = |release: &ReleaseId| {
        let found = || {
            let mut slots = record.active.iter().chain(&record.previous);
            let slot = slots.find(|slot| slot.release == *release)?;
            let opened = open(releases, slot, window, now);
            let opened = opened.inspect_err(
                |reason| tracing::warn!(%release, %reason, "labels of earlier predictions cannot count"),
            );
            Some((slot.statement, opened.ok()?))
        };
        let known = known.entry(release.clone()).or_insert_with(found);
        known.as_ref().map(|(_, recording)| recording.clone())
    };
    let (mut count, mut unreadable) = (0_usize, None);
    for (key, page) in pages(journal) {
        match page {
            Some(page) => {
                remembered.recall(&page, key, now.wall, &mut of);
                count += 1;
            }
            // With nothing before it that could be of use it goes.
            None if count == 0 => unreadable = Some(key),
            None => {}
        }
    }
    tracing::debug!(pages = count, "predictions of before are remembered");
    if let Some(useless) = remembered.useless_pages().max(unreadable)
        && let Err(error) = journal.drop_pages_up_to(useless)
    {
        tracing::warn!(%error, "predictions that nobody waits for stay on disk");
    }
    known.into_values().flatten().collect()
}

/// All pages in their order, those that cannot be read without contents.
fn pages(journal: &Journal) -> impl Iterator<Item = (PageKey, Option<Page>)> {
    // A disk that fails here fails at the next page, too.
    let read = journal.pages().map_while(|found| {
        found.inspect_err(|error| tracing::warn!(%error, "pages of predictions cannot be read")).ok()
    });
    read.map(|(key, bytes)| {
        let page = Page::decode(&bytes);
        let page = page.inspect_err(
            |error| tracing::warn!(%error, page = key.0, "this is no page of predictions and is left out"),
        );
        (key, page.ok())
    })
}

fn open(releases: &ReleaseStore, slot: &Slot, window: Millis, now: Now) -> Result<Recording, Reason> {
    let load = |text: &str| Reason::LoadFailed(Detail::new(text));
    let staged = releases.open_release(slot.statement).map_err(|error| load(&error.to_string()))?;
    recording(&staged.ok_or_else(|| load("it is not on this device"))?, window, now)
}

/// Who counts for the release in `staged` from now on, in windows of `window`.
pub(super) fn recording(staged: &StagedRelease, window: Millis, now: Now) -> Result<Recording, Reason> {
    let load = |text: &str| Reason::LoadFailed(Detail::new(text));
    let read = |file: BundleFile| {
        std::fs::read(staged.path(file)).map_err(|error| load(&format!("{}: {error}", file.name())))
    };
    let bytes = read(BundleFile::Reference)?;
    let profile = Profile::parse(&bytes).map_err(|error| load(&error.to_string()))?;
    let recorder = Recorder::new(&staged.manifest, Arc::new(profile), Digest::of(&bytes), window, now);
    let labels = read(BundleFile::Labels)?;
    let recorder = recorder.map_err(|error| load(&error.to_string()))?;
    Ok(Recording::new(recorder.with_labels(String::from_utf8_lossy(&labels).lines())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::seam::Files;
    use crate::gateway::Limits;
    use serin_protocol::ids::{ByteCount, EventNumber, UnixMillis};

    #[test]
    fn pages_that_are_none_are_left_out_and_dropped() {
        let folder = tempfile::tempdir().expect("folder");
        let files = Files::real();
        let opened = Journal::open(&files, folder.path(), EventNumber(0), ByteCount(1000));
        let (mut journal, _) = opened.expect("opens");
        journal.append_page(b"").expect("kept");
        journal.append_page(&[200, 1, 2]).expect("kept");
        journal.append_page(&[1; 40]).expect("kept");
        let releases = ReleaseStore::open(files, folder.path()).expect("opens");
        let limits = Limits::default();
        let remembered = Remembered::new(limits.answers, limits.answers_for);
        let now = Now { wall: UnixMillis(0), elapsed: Millis(0) };
        let (record, window) = (Record::default(), Millis(1000));
        assert!(recall(&mut journal, &remembered, &releases, &record, window, now).is_empty());
        assert!(remembered.take_page(UnixMillis(0)).is_none());
        assert_eq!(journal.pages().count(), 0);
    }
}
