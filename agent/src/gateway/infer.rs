//! One inference, from request bytes to answer bytes, counted once by the release that was asked.

use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Incoming;
use serin_protocol::ids::ReleaseId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer;
use super::body::{self, Body};
use super::call::Call;
use super::limits::Limits;
use super::refusal::{Answer, Refusal, json};
use super::router::{Infer, Router, Served};
use crate::worker::{InferError, Inferred};

/// What inferences share.
#[derive(Debug)]
pub(super) struct Desk<W> {
    pub(super) router: Arc<Router<W>>,
    pub(super) limits: Limits,
    in_flight: Arc<Semaphore>,
    /// One permit per byte.
    bodies: Arc<Semaphore>,
}

/// The model and perhaps the version in the path of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) model: String,
    pub(super) version: Option<String>,
}

impl Asked {
    /// Whether `release` is what is asked for.
    pub(super) fn check(&self, release: &ReleaseId) -> Result<(), Refusal> {
        if self.model != release.model.as_str() {
            let message = format!("there is no such model here, only {}", release.model);
            return Err(Refusal::not_found(message));
        }
        match &self.version {
            Some(version) if version != release.version.as_str() => {
                let ReleaseId { model, version } = release;
                Err(Refusal::not_found(format!("{model} answers in version {version} only")))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Why a release did not answer.
enum Failure {
    /// Nothing is to be gained from asking again.
    Final(Refusal),
    /// Its worker is gone; another release may answer.
    Gone(InferError),
}

impl<W> Desk<W> {
    pub(super) fn new(router: Arc<Router<W>>, limits: Limits) -> Self {
        let in_flight = Arc::new(Semaphore::new(limits.in_flight));
        let bodies = Arc::new(Semaphore::new(limits.bodies));
        Self { router, limits, in_flight, bodies }
    }

    /// Counts a request that never came to an inference.
    fn refused(&self, refusal: Refusal) -> Refusal {
        if let Some(served) = self.router.current() {
            served.recording().lock().refused();
        }
        refusal
    }
}

impl<W: Infer> Desk<W> {
    /// Reads `body` and answers it.
    pub(super) async fn infer(self: Arc<Self>, asked: Asked, body: Incoming) -> Result<Answer, Refusal> {
        let Ok(place) = Arc::clone(&self.in_flight).try_acquire_owned() else {
            let message = format!("{} requests are being answered already", self.limits.in_flight);
            return Err(self.refused(Refusal::too_many(message).closing()));
        };
        let body = body::read(body, self.limits.body, self.limits.receive, &self.bodies).await;
        let body = body.map_err(|refusal| self.refused(refusal))?;
        // In a task of its own, so that an inference is counted even when its caller has given up: a
        // release that is too slow for its callers must not look idle.
        match tokio::spawn(self.compute(asked, body, place)).await {
            Ok(outcome) => outcome.map(|bytes| json(StatusCode::OK, bytes)),
            Err(_) => Err(Refusal::unavailable("the agent is stopping")),
        }
    }

    async fn compute(
        self: Arc<Self>,
        asked: Asked,
        body: Body,
        _place: OwnedSemaphorePermit,
    ) -> Result<Bytes, Refusal> {
        let Some(served) = self.router.current_or_coming(self.limits.takeover).await else {
            return Err(Refusal::unavailable(self.router.why_not()));
        };
        asked.check(served.release()).map_err(|refusal| self.refused(refusal))?;
        let Body { bytes, share: _share } = body;
        let call = Call::parse(&bytes, served.manifest());
        drop(bytes);
        let call = call.map_err(|message| self.refused(Refusal::bad_request(message)))?;
        let error = match ask(&served, &call).await {
            Ok(answer) => return Ok(answer),
            Err(Failure::Final(refusal)) => return Err(refusal),
            Err(Failure::Gone(error)) => error,
        };
        let Some(other) = self.successor(&asked, &call, &served, &error).await else {
            return Err(Refusal::unavailable(error.to_string()));
        };
        tracing::info!(from = %served.release(), to = %other.release(), "a request is asked again");
        match ask(&other, &call).await {
            Ok(answer) => Ok(answer),
            Err(Failure::Final(refusal)) => Err(refusal),
            Err(Failure::Gone(error)) => Err(Refusal::unavailable(error.to_string())),
        }
    }

    /// Another release that takes over from `served` and can answer `call`.
    ///
    /// The one whose worker died is not asked again, for `call` may be what it died of.
    async fn successor(
        &self,
        asked: &Asked,
        call: &Call,
        served: &Arc<Served<W>>,
        error: &InferError,
    ) -> Option<Arc<Served<W>>> {
        let died = matches!(error, InferError::Died(_));
        if died && asked.version.is_some() {
            return None;
        }
        let is_other = |other: &Arc<Served<W>>| !Arc::ptr_eq(other, served);
        let other = self.router.takeover(self.limits.takeover, is_other).await?;
        let fits = !(died && other.release() == served.release())
            && asked.check(other.release()).is_ok()
            && call.check(other.manifest()).is_ok();
        fits.then_some(other)
    }
}

/// Asks `served` and counts what comes of it.
async fn ask<W: Infer>(served: &Served<W>, call: &Call) -> Result<Bytes, Failure> {
    let outcome = served.worker().infer(call.inputs.clone(), call.body.clone()).await;
    count(served, call, &outcome);
    let inferred = outcome.map_err(|error| match error {
        InferError::Input(message) => Failure::Final(Refusal::bad_request(message)),
        InferError::Model(_) => Failure::Final(Refusal::internal(error.to_string())),
        InferError::Busy => Failure::Final(Refusal::too_many(error.to_string())),
        InferError::Died(_) | InferError::Stopped => Failure::Gone(error),
    })?;
    answer::write(served.release(), call.id.as_deref(), &call.outputs, &inferred)
        .map_err(|message| Failure::Final(Refusal::internal(message)))
}

fn count<W>(served: &Served<W>, call: &Call, outcome: &Result<Inferred, InferError>) {
    let mut recorder = served.recording().lock();
    match outcome {
        Ok(inferred) => {
            recorder.answered(&call.inputs, &call.body, &inferred.predictions, inferred.micros);
        }
        Err(InferError::Model(_) | InferError::Died(_)) => recorder.failed(),
        Err(InferError::Input(_) | InferError::Busy) => recorder.refused(),
        // Stopped by the supervisor: that says nothing about the release.
        Err(InferError::Stopped) => {}
    }
}
