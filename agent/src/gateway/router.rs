//! The pointer to the release that answers, and to the one that is tried beside it.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serin_protocol::ids::{FieldName, ReleaseId};
use serin_protocol::manifest::Manifest;
use serin_protocol::pipeline::Pipeline;
use serin_protocol::release::Decoder;
use serin_protocol::tensor::TensorHeader;
use tokio::sync::watch;

use super::beside::Beside;
use crate::review::Sampler;
use crate::telemetry::Recording;
use crate::worker::{InferError, Inferred, Worker};

/// What can be asked for an inference: a worker process, or its double in tests.
pub trait Infer: Send + Sync + 'static {
    /// Runs pipeline and model over `inputs`, whose raw values lie in `body` one after another.
    fn infer(
        &self,
        inputs: Vec<TensorHeader>,
        body: Bytes,
    ) -> impl Future<Output = Result<Inferred, InferError>> + Send;

    /// Resolves when another request would find a place, or none ever will.
    fn room(&self) -> impl Future<Output = ()> + Send;
}

impl Infer for Worker {
    fn infer(
        &self,
        inputs: Vec<TensorHeader>,
        body: Bytes,
    ) -> impl Future<Output = Result<Inferred, InferError>> + Send {
        Self::infer(self, inputs, body)
    }

    fn room(&self) -> impl Future<Output = ()> + Send {
        Self::room(self)
    }
}

/// A release that can answer: what it is, who computes it, who counts.
#[derive(Debug)]
pub struct Served<W = Worker> {
    release: ReleaseId,
    manifest: Arc<Manifest>,
    worker: W,
    recording: Recording,
    sampler: Option<Sampler>,
    /// Inputs that are files of images, with their formats.
    images: Vec<(FieldName, Vec<Decoder>)>,
}

impl<W> Served<W> {
    /// The release of `manifest`, computed by `worker`. A new worker of the same release goes on with the
    /// same `recording`.
    pub fn new(manifest: Arc<Manifest>, worker: W, recording: Recording) -> Self {
        Self { release: manifest.id(), manifest, worker, recording, sampler: None, images: Vec::new() }
    }

    /// The same, whose requests are sampled for review.
    #[must_use]
    pub fn sampled(self, sampler: Option<Sampler>) -> Self {
        Self { sampler, ..self }
    }

    /// The same, which tells whoever asks that what `pipeline` decodes are files of images.
    #[must_use]
    pub fn preparing(self, pipeline: &Pipeline) -> Self {
        let images = pipeline.images().map(|(input, formats)| (input.clone(), formats.to_vec()));
        Self { images: images.collect(), ..self }
    }

    /// The formats of files that `input` takes, where it takes images.
    pub fn formats(&self, input: &FieldName) -> Option<&[Decoder]> {
        self.images.iter().find(|(image, _)| image == input).map(|(_, formats)| formats.as_slice())
    }

    /// Who samples its requests for review, if anybody does.
    pub const fn sampler(&self) -> Option<&Sampler> {
        self.sampler.as_ref()
    }

    /// Model and version.
    pub const fn release(&self) -> &ReleaseId {
        &self.release
    }

    /// Its inputs and outputs.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Who computes it.
    pub const fn worker(&self) -> &W {
        &self.worker
    }

    /// Who counts.
    pub const fn recording(&self) -> &Recording {
        &self.recording
    }
}

/// Points to the release that answers, or to none.
///
/// Whoever has taken [`Router::current`] keeps that release, and its worker, until he is done.
#[derive(Debug)]
pub struct Router<W = Worker> {
    pointer: watch::Sender<Option<Arc<Served<W>>>>,
    /// Why nothing answers, where nothing does.
    absence: Mutex<Absence>,
    /// What is kept ready for a rollback and does not answer.
    warm: Mutex<Option<ReleaseId>>,
    /// What is tried beside the release that answers.
    beside: Mutex<Option<Arc<Beside<W>>>>,
}

/// Why no release answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Absence {
    #[default]
    NothingActive,
    /// A release is being brought up that will.
    Between,
    /// A crash loop.
    SafeMode,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these is set whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<W> Default for Router<W> {
    fn default() -> Self {
        Self {
            pointer: watch::Sender::new(None),
            absence: Mutex::default(),
            warm: Mutex::default(),
            beside: Mutex::default(),
        }
    }
}

impl<W> Router<W> {
    /// Lets `next` answer from the next request on and returns what answered until now. The recorders
    /// learn of it.
    pub fn flip(&self, next: Option<Arc<Served<W>>>) -> Option<Arc<Served<W>>> {
        let entering = next.clone();
        let left = self.point(next, false);
        Self::tell(left.as_ref(), entering.as_ref());
        left
    }

    /// Lets nothing answer until the next flip, which is on its way.
    pub fn suspend(&self) {
        let left = self.point(None, true);
        Self::tell(left.as_ref(), None);
    }

    /// Tells the recorders who answers no longer, and who does now.
    fn tell(left: Option<&Arc<Served<W>>>, entering: Option<&Arc<Served<W>>>) {
        match (left, entering) {
            // Only its worker is another.
            (Some(left), Some(entering)) if left.recording.is(&entering.recording) => {}
            _ => {
                left.iter().for_each(|left| left.recording.lock().leave());
                entering.iter().for_each(|entering| entering.recording.lock().enter());
            }
        }
    }

    /// Lets a release be tried beside the one that answers, or none.
    pub fn set_beside(&self, beside: Option<Beside<W>>) {
        *lock(&self.beside) = beside.map(Arc::new);
    }

    /// What is tried beside the release that answers.
    pub(super) fn beside(&self) -> Option<Arc<Beside<W>>> {
        lock(&self.beside).clone()
    }

    /// Points to `next`, and says whether another is on its way: both at once for whoever holds the lock.
    fn point(&self, next: Option<Arc<Served<W>>>, between: bool) -> Option<Arc<Served<W>>> {
        let mut absence = lock(&self.absence);
        // Safe mode ends when it is said.
        if *absence != Absence::SafeMode {
            *absence = if between { Absence::Between } else { Absence::NothingActive };
        }
        self.pointer.send_replace(next)
    }

    /// Tells callers whether it is a crash loop that keeps every release from answering.
    pub fn say_safe_mode(&self, safe: bool) {
        let mut absence = lock(&self.absence);
        if safe {
            *absence = Absence::SafeMode;
        } else if *absence == Absence::SafeMode {
            *absence = Absence::NothingActive;
        }
    }

    /// Tells callers which release is kept ready for a rollback, if any.
    pub fn say_warm(&self, release: Option<&ReleaseId>) {
        let mut warm = lock(&self.warm);
        if warm.as_ref() != release {
            *warm = release.cloned();
        }
    }

    /// Whether `release` is kept ready for a rollback.
    pub(super) fn is_warm(&self, release: &ReleaseId) -> bool {
        lock(&self.warm).as_ref() == Some(release)
    }

    /// Why no release answers, for callers.
    pub(super) fn why_not(&self) -> &'static str {
        match *lock(&self.absence) {
            Absence::SafeMode => {
                "this device is in safe mode: its agent kept crashing, and no release runs until it is told to run another"
            }
            Absence::Between => "one version is taking the place of another; ask again in a moment",
            Absence::NothingActive => "no release is active on this device",
        }
    }

    /// The release that answers now.
    pub fn current(&self) -> Option<Arc<Served<W>>> {
        self.pointer.borrow().clone()
    }

    /// The release that answers now, or will within `patience` because it is on its way.
    pub(super) async fn current_or_coming(&self, patience: Duration) -> Option<Arc<Served<W>>> {
        if let Some(current) = self.current() {
            return Some(current);
        }
        {
            // It may have come since it was looked for.
            let absence = lock(&self.absence);
            let current = self.current();
            if current.is_some() || *absence != Absence::Between {
                return current;
            }
        }
        self.takeover(patience, |_| true).await
    }

    /// Waits, `patience` at most, for a release to answer that `is_fit` says can take over; at once if it
    /// already does.
    pub(super) async fn takeover(
        &self,
        patience: Duration,
        is_fit: impl Fn(&Arc<Served<W>>) -> bool,
    ) -> Option<Arc<Served<W>>> {
        let mut pointer = self.pointer.subscribe();
        let fit = pointer.wait_for(|current| current.as_ref().is_some_and(&is_fit));
        tokio::time::timeout(patience, fit).await.ok()?.ok()?.clone()
    }
}
