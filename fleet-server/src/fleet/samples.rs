//! Review samples in the fleet: taken in if their release's owner allows it, kept sealed, shown to whoever says who they
//! are, and deleted after their time. Every look is on record.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serin_protocol::ids::{Millis, UnixMillis};
use serin_protocol::review::Sample;
use tracing::{info, warn};

use super::{Fleet, FleetError};
use crate::ingest::Refused;
use crate::review::queue::{Added, check_person};
use crate::review::seal::NONCE_BYTES;
use crate::review::{Judgement, Listed, Queue, ReviewError, SampleId, SampleKey, View};
use crate::store::documents::{numbered, read};
use crate::store::{DocumentChange, Shelf, Store, StoreError};

/// Views kept, about 200 bytes each.
pub const MAX_VIEWS: u64 = 20_000;

/// How samples are kept.
#[derive(Clone)]
pub struct ReviewParts {
    /// The key they lie under.
    pub key: SampleKey,
    /// How long.
    pub keep: Millis,
}

/// Samples, with a lock of their own.
pub(super) struct Samples {
    parts: ReviewParts,
    live: Mutex<Live>,
}

struct Live {
    queue: Queue,
    last_view: u64,
}

impl Samples {
    /// Takes them up where the store has them.
    pub(super) fn open(parts: ReviewParts, store: &dyn Store) -> Result<Self, StoreError> {
        let mut listed: Vec<Listed> = Vec::new();
        for (name, bytes) in store.documents(Shelf::Samples)? {
            listed.push(read(&name, &bytes)?);
        }
        let views = store.documents(Shelf::SampleViews)?;
        let last_view = views.last().and_then(|(name, _)| name.parse().ok()).unwrap_or(0);
        Ok(Self { parts, live: Mutex::new(Live { queue: Queue::of(listed), last_view }) })
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forgotten(id: &SampleId) -> [DocumentChange; 2] {
    [Shelf::Samples, Shelf::SampleContents].map(|shelf| DocumentChange::remove(shelf, id.as_str()))
}

impl Fleet {
    /// Takes in a sample. It is durable with whatever else was taken in.
    pub(super) fn sample(
        &self,
        state: &super::State,
        sample: &Sample,
        now: UnixMillis,
    ) -> Result<Result<(), Refused>, FleetError> {
        let Some(facts) = state.releases.get(&sample.release) else {
            return Ok(Err(Refused::NotOurs));
        };
        let mut live = self.samples.lock();
        let added = match live.queue.add(sample, facts.record.review.as_ref(), now) {
            Ok(added) => added,
            // Delivered again.
            Err(ReviewError::Known) => return Ok(Ok(())),
            Err(why) => {
                warn!(device = %sample.device, release = %sample.release, %why, "a sample is refused");
                return Ok(Err(Refused::NotReviewed));
            }
        };
        let Added { listed, gone } = added;
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(FleetError::Random)?;
        let content = postcard::to_allocvec(sample)
            .map_err(|error| StoreError::Failed(format!("sample {}: {error}", listed.id)))?;
        let sealed = self.samples.parts.key.seal(listed.id.as_str(), nonce, &content)?;
        let mut changes: Vec<DocumentChange> = gone.iter().flat_map(forgotten).collect();
        changes.push(DocumentChange::put(Shelf::Samples, listed.id.as_str(), &listed)?);
        changes.push(DocumentChange {
            shelf: Shelf::SampleContents,
            name: listed.id.as_str().to_owned(),
            document: Some(sealed),
        });
        self.store.put_documents(&changes)?;
        Ok(Ok(()))
    }

    /// All samples, without contents.
    pub fn list_samples(&self) -> Vec<Listed> {
        self.samples.lock().queue.list()
    }

    /// A sample with its contents, for somebody; that they looked is durable before they do.
    pub fn show_sample(
        &self,
        id: &SampleId,
        by: &str,
        now: UnixMillis,
    ) -> Result<(Listed, Sample), FleetError> {
        check_person(by)?;
        let mut live = self.samples.lock();
        let listed = live.queue.get(id)?.clone();
        let view = view(&mut live, id, by, "show", now)?;
        self.keep(&view)?;
        let sealed = self.store.document(Shelf::SampleContents, id.as_str())?;
        let sealed = sealed.ok_or_else(|| ReviewError::Unknown(id.clone()))?;
        let content = self.samples.parts.key.open(id.as_str(), &sealed)?;
        let unreadable = |error: postcard::Error| StoreError::Unreadable {
            what: "sample",
            name: id.to_string(),
            why: error.to_string(),
        };
        let sample: Sample = postcard::from_bytes(&content).map_err(unreadable)?;
        info!(sample = %id, by, "a sample was looked at");
        Ok((listed, sample))
    }

    /// Notes what somebody found.
    pub fn judge_sample(
        &self,
        id: &SampleId,
        judgement: Judgement,
        now: UnixMillis,
    ) -> Result<Listed, FleetError> {
        let mut live = self.samples.lock();
        let by = judgement.by.clone();
        let mut queue = live.queue.clone();
        let listed = queue.judge(id, judgement)?;
        let mut changes = view(&mut live, id, &by, "judge", now)?;
        changes.push(DocumentChange::put(Shelf::Samples, id.as_str(), &listed)?);
        self.keep(&changes)?;
        live.queue = queue;
        Ok(listed)
    }

    /// Deletes a sample for good.
    pub fn drop_sample(&self, id: &SampleId, by: &str, now: UnixMillis) -> Result<(), FleetError> {
        check_person(by)?;
        let mut live = self.samples.lock();
        live.queue.remove(id)?;
        let mut changes = view(&mut live, id, by, "drop", now)?;
        changes.extend(forgotten(id));
        self.keep(&changes)
    }

    /// Who looked at what, oldest first.
    pub fn sample_views(&self) -> Result<Vec<View>, FleetError> {
        let views = self.store.documents(Shelf::SampleViews)?;
        Ok(views.iter().map(|(name, bytes)| read(name, bytes)).collect::<Result<_, _>>()?)
    }

    /// Deletes samples whose time is over.
    pub fn forget_old_samples(&self, now: UnixMillis) -> Result<(), FleetError> {
        let mut live = self.samples.lock();
        let gone = live.queue.expire(self.samples.parts.keep, now);
        if gone.is_empty() {
            return Ok(());
        }
        info!(count = gone.len(), "samples are deleted, their time is over");
        self.keep(&gone.iter().flat_map(forgotten).collect::<Vec<_>>())
    }
}

fn view(
    live: &mut Live,
    id: &SampleId,
    by: &str,
    act: &str,
    now: UnixMillis,
) -> Result<Vec<DocumentChange>, StoreError> {
    live.last_view = live.last_view.saturating_add(1);
    let (number, by, act) = (live.last_view, by.trim().to_owned(), act.to_owned());
    let view = View { number, at: now, by, sample: id.clone(), act };
    let mut changes = vec![DocumentChange::put(Shelf::SampleViews, numbered(number), &view)?];
    if let Some(oldest) = number.checked_sub(MAX_VIEWS) {
        changes.push(DocumentChange::remove(Shelf::SampleViews, numbered(oldest)));
    }
    Ok(changes)
}
