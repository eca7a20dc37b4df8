//! The registry: releases by name, each one that its owner listed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serin_protocol::ids::{Digest, ReleaseId, UnixMillis};
use serin_protocol::message::Report;
use serin_protocol::sketch::profile::{Profile, SketchProfile};
use serin_protocol::sketch::{Bins, Quality};
use tracing::info;

use super::feed::Happening;
use super::{Draft, Fleet, FleetError, Outgoing};
use crate::broker::publish::Job;
use crate::registry::releases::{Checked, check};
use crate::rollout::evidence::Binning;
use crate::store::{ReleaseRecord, Store, StoreError};

/// Most releases in the registry: each is a few kilobytes here and its bundle on disk.
pub const MAX_RELEASES: usize = 2000;

/// A release, with what is asked about it for every report.
#[derive(Debug)]
pub struct ReleaseFacts {
    /// As stored.
    pub record: ReleaseRecord,
    /// Names its bins.
    pub binning: Binning,
    features: Vec<usize>,
    predictions: usize,
    confidence: usize,
    entropy: usize,
    /// Segments, the rest included.
    segments: usize,
    /// Whether it predicts classes or a value, as far as its bins tell.
    predicts: Predicts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Predicts {
    Nothing,
    Classes,
    Values,
    /// One bin is a class, or a value that never changes.
    Either,
}

impl Predicts {
    fn of(profile: &Profile) -> Self {
        match profile.predictions.as_ref().map(|sketch| &sketch.bins) {
            None => Self::Nothing,
            Some(bins) if bins.len() == 1 => Self::Either,
            Some(bins) if *bins == Bins::classes(bins.len()) => Self::Classes,
            Some(_) => Self::Values,
        }
    }

    const fn fits(self, quality: &Quality) -> bool {
        match (self, quality) {
            (Self::Either, _) | (Self::Classes, Quality::Classes(_)) | (Self::Values, Quality::Values(_)) => {
                true
            }
            (Self::Nothing, _)
            | (Self::Classes, Quality::Values(_))
            | (Self::Values, Quality::Classes(_)) => false,
        }
    }
}

impl ReleaseFacts {
    fn new(record: ReleaseRecord, profile: &Profile) -> Self {
        let bins = |sketch: Option<&SketchProfile>| sketch.map_or(0, |sketch| sketch.bins.len());
        Self {
            record,
            binning: Binning::of(profile),
            features: profile.features.iter().map(|feature| feature.sketch.bins.len()).collect(),
            predictions: bins(profile.predictions.as_ref()),
            confidence: bins(profile.confidence.as_ref()),
            entropy: bins(profile.entropy.as_ref()),
            segments: profile.segments.len() + 1,
            predicts: Predicts::of(profile),
        }
    }

    /// Whether a report counts in this release's bins. Parts of a wide window leave the outputs empty.
    pub fn fits(&self, report: &Report) -> bool {
        let expected = self.features.iter().skip(usize::from(report.first_feature));
        let features = report.features.iter().map(|histogram| histogram.counts.len());
        let output = |bins: usize, seen: usize| bins == seen || seen == 0;
        report.profile == self.record.release.profile
            && usize::from(report.first_feature) + report.features.len() <= self.features.len()
            && expected.zip(features).all(|(expected, seen)| *expected == seen)
            && output(self.predictions, report.predictions.counts.len())
            && output(self.confidence, report.confidence.counts.len())
            && output(self.entropy, report.entropy.counts.len())
            && usize::from(report.segment.0) < self.segments
            && report.quality.as_ref().is_none_or(|quality| self.predicts.fits(quality))
    }

    pub(super) fn has_object(&self, object: &Digest) -> bool {
        let release = &self.record.release;
        release.bundle.digest == *object || release.chunk_list.digest == *object
    }
}

/// Reads all releases from the store.
pub(super) fn load(store: &dyn Store) -> Result<BTreeMap<ReleaseId, Arc<ReleaseFacts>>, StoreError> {
    let facts = |record: ReleaseRecord| {
        let profile = profile_of(store, &record)?;
        Ok((record.release.id.clone(), Arc::new(ReleaseFacts::new(record, &profile))))
    };
    store.releases()?.into_iter().map(facts).collect()
}

/// The reference profile of a release.
pub(super) fn profile_of(store: &dyn Store, record: &ReleaseRecord) -> Result<Profile, StoreError> {
    let unreadable = |why: String| StoreError::Unreadable {
        what: "reference profile of",
        name: record.release.id.to_string(),
        why,
    };
    let bytes = store.profile(&record.release.profile)?.ok_or_else(|| unreadable("it is missing".into()))?;
    Profile::parse(&bytes).map_err(|error| unreadable(error.to_string()))
}

impl Fleet {
    /// All releases by name.
    pub fn releases(&self) -> Vec<Arc<ReleaseFacts>> {
        self.lock().releases.values().cloned().collect()
    }

    /// One release.
    pub fn release(&self, id: &ReleaseId) -> Result<Arc<ReleaseFacts>, FleetError> {
        let facts = self.lock().releases.get(id).cloned();
        facts.ok_or_else(|| FleetError::NotFound(format!("release {id}")))
    }

    /// Adds a release whose bundle is in the object store, and has it published. The same statement again
    /// changes nothing.
    pub fn add_release(&self, statement: &[u8], now: UnixMillis) -> Result<ReleaseId, FleetError> {
        // Long, and needs nothing that changes.
        let checked = check(&self.objects, statement, &*self.listed)?;
        let id = checked.release.id.clone();
        let answers = checked.manifest.answers.clone();
        let is_new = self.release(&id).is_err();
        let added = self.change(now, |state, draft| {
            match state.releases.get(&id) {
                Some(known) if known.record.release == checked.release => {
                    draft.outgoing.push(Outgoing::Publish(Job::Release(id.clone())));
                    return Ok(id.clone());
                }
                Some(_) => {
                    return Err(FleetError::Conflict(format!(
                        "{id} is here already with other contents: a version is never changed, make a new one"
                    )));
                }
                None if state.releases.len() >= MAX_RELEASES => {
                    return Err(FleetError::Conflict(format!(
                        "{MAX_RELEASES} releases are here, the most there can be"
                    )));
                }
                None => {}
            }
            let facts = self.store_release(draft, checked, statement, now)?;
            state.releases.insert(id.clone(), Arc::new(facts));
            Ok(id.clone())
        })?;
        if let Some(trigger) = answers.filter(|_| is_new) {
            self.release_answers(&added, &trigger, now);
        }
        Ok(added)
    }

    fn store_release(
        &self,
        draft: &mut Draft,
        checked: Checked,
        statement: &[u8],
        now: UnixMillis,
    ) -> Result<ReleaseFacts, FleetError> {
        let Checked { release, statement: digest, manifest, profile } = checked;
        let id = release.id.clone();
        let record = ReleaseRecord {
            release,
            statement: digest,
            added: now,
            published: false,
            features: manifest.features().iter().map(|feature| feature.name.to_string()).collect(),
            owner: manifest.owner,
            description: manifest.description,
            lineage: Some(manifest.lineage),
            answers: manifest.answers.map(|trigger| trigger.as_str().to_owned()),
            review: manifest.review,
        };
        self.store.put_release(&record, statement, &profile)?;
        info!(release = %id, owner = record.owner, "release added");
        draft.outgoing.push(Outgoing::Publish(Job::Release(id.clone())));
        draft.happenings.push(Happening::Release { release: id, published: false });
        let parsed = profile_of(&*self.store, &record)?;
        Ok(ReleaseFacts::new(record, &parsed))
    }

    /// The statement with this digest, if a release here has it.
    pub fn statement(&self, digest: &Digest) -> Result<Option<Vec<u8>>, FleetError> {
        Ok(self.store.statement(digest)?)
    }

    /// Notes that devices can get a release.
    pub fn release_published(&self, id: &ReleaseId, now: UnixMillis) -> Result<(), FleetError> {
        self.change(now, |state, draft| {
            let record = self.store.release(id)?;
            let record = record.ok_or_else(|| FleetError::NotFound(format!("release {id}")))?;
            let profile = profile_of(&*self.store, &record)?;
            state.releases.insert(id.clone(), Arc::new(ReleaseFacts::new(record, &profile)));
            draft.happenings.push(Happening::Release { release: id.clone(), published: true });
            Ok(())
        })
    }

    /// Has releases published that a stopped server left half way.
    pub fn resume_publishing(&self) {
        let releases = self.releases();
        for facts in releases.iter().filter(|facts| !facts.record.published) {
            (self.outlet)(Outgoing::Publish(Job::Release(facts.record.release.id.clone())));
        }
    }
}
