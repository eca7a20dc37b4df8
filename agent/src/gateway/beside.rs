//! A release that is tried beside the one that answers: which requests it is given, and what becomes of a shadow's
//! answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serin_protocol::assignment::TrialMode;
use serin_protocol::ids::{BasisPoints, Digest};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::call::Call;
use super::counting::wall_clock;
use super::router::{Infer, Served};
use crate::review::Sampler;
use crate::review::choose::Answered;
use crate::telemetry::Made;
use crate::worker::{Company, Inferred, Worker};

/// Requests that a shadow computes at once. One, and no queue before it: it may be slow, but neither hold memory nor
/// fall behind what apps ask.
const AT_ONCE: usize = 1;

/// All of something, in basis points.
const WHOLE: u32 = 10_000;

/// A release on trial, with its worker.
#[derive(Debug)]
pub struct Beside<W = Worker> {
    served: Arc<Served<W>>,
    mode: TrialMode,
    places: Arc<Semaphore>,
    /// Share of requests that came and were not picked yet, summed up.
    credit: AtomicU32,
}

/// By what a request comes to one of two releases that share the work.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arm<'a> {
    /// It names the version.
    Version(&'a str),
    /// On whose behalf it is made.
    Key(&'a [u8]),
}

/// A place for one request at a shadow.
#[derive(Debug)]
pub(super) struct Mirror<W> {
    served: Arc<Served<W>>,
    place: OwnedSemaphorePermit,
}

impl<W> Beside<W> {
    /// `served` is tried in this way.
    pub fn new(served: Arc<Served<W>>, mode: TrialMode) -> Self {
        Self { served, mode, places: Arc::new(Semaphore::new(AT_ONCE)), credit: AtomicU32::new(0) }
    }

    /// The release that is tried, if it answers some of what is asked.
    pub(super) const fn answers(&self) -> Option<&Arc<Served<W>>> {
        match self.mode {
            TrialMode::Arm { .. } => Some(&self.served),
            TrialMode::Shadow { .. } => None,
        }
    }

    /// The release that is tried, if it answers what is asked so.
    pub(super) fn arm(&self, asked: Arm<'_>) -> Option<&Arc<Served<W>>> {
        let TrialMode::Arm { share, salt } = self.mode else { return None };
        let answers = match asked {
            Arm::Version(version) => version == self.served.release().version.as_str(),
            Arm::Key(key) => falls_into(share, salt, key),
        };
        answers.then_some(&self.served)
    }

    /// A place at the shadow for a request that was answered just now: none if there is no shadow, if the request is
    /// not of its share, or if it is still computing, which is counted.
    pub(super) fn mirror(&self) -> Option<Mirror<W>> {
        let TrialMode::Shadow { share } = self.mode else { return None };
        if !self.picks(share) {
            return None;
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.served.recording().lock().not_mirrored();
            return None;
        };
        Some(Mirror { served: Arc::clone(&self.served), place })
    }

    /// Every so many requests one, so that any run of them has its share.
    fn picks(&self, share: BasisPoints) -> bool {
        let share = u32::from(share.0).min(WHOLE);
        let before = self.credit.fetch_add(share, Ordering::Relaxed) % WHOLE;
        before + share >= WHOLE
    }
}

impl<W: Infer> Mirror<W> {
    /// Computes `call` in the background and compares with what was answered; of what differs `sampler` may take a row.
    pub(super) fn compute(self, call: Call, live: Inferred, sampler: Option<Sampler>) {
        tokio::spawn(async move {
            let Self { served, place } = self;
            let outcome = match call.check(served.manifest()) {
                Ok(()) => served.worker().infer(call.inputs.clone(), call.body.clone()).await.ok(),
                Err(_) => None,
            };
            if let (Some(sampler), Some(shadow)) = (sampler, &outcome) {
                let answered = Answered {
                    inputs: &call.inputs,
                    body: &call.body,
                    predictions: &live.predictions,
                    shadow: Some(&shadow.predictions),
                };
                sampler.answered(answered, Some(served.release()), 0, wall_clock());
            }
            let mut recorder = served.recording().lock();
            if let Some(shadow) = outcome {
                recorder.answered_seeing(call.asked(), &shadow.pictures, &shadow.predictions, shadow.micros);
                recorder.compared(made(&live), made(&shadow));
            } else {
                recorder.failed(call.asked());
                recorder.not_compared();
            }
            drop(recorder);
            drop(place);
        });
    }
}

fn made(inferred: &Inferred) -> Made<'_> {
    let Inferred { outputs, body, predictions, micros, company, .. } = inferred;
    Made { outputs, body, predictions, micros: (*company == Company::Alone).then_some(*micros) }
}

/// Whether `key` is one of the `share` of keys that `salt` chooses. With the same salt a larger share has all keys of
/// a smaller one.
fn falls_into(share: BasisPoints, salt: u64, key: &[u8]) -> bool {
    let mut hasher = Digest::hasher();
    hasher.update(&salt.to_le_bytes());
    hasher.update(key);
    let Digest(hash) = hasher.finish();
    let Some(first) = hash.first_chunk::<8>() else { return false };
    u64::from_le_bytes(*first) % u64::from(WHOLE) < u64::from(share.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(share: u16, salt: u64) -> Vec<u32> {
        (0..2000_u32).filter(|key| falls_into(BasisPoints(share), salt, &key.to_le_bytes())).collect()
    }

    #[test]
    fn shares_of_keys_only_grow_and_depend_on_the_salt() {
        let (tenth, third) = (hits(1000, 1), hits(3333, 1));
        assert!((150..=250).contains(&tenth.len()) && (570..=770).contains(&third.len()));
        assert!(tenth.iter().all(|key| third.contains(key)));
        assert_ne!(tenth, hits(1000, 2));
        assert_eq!((hits(0, 1).len(), hits(10_000, 1).len()), (0, 2000));
    }
}
