//! One inference, from request bytes to answer bytes, counted once by the release that was asked: after its answer
//! was sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use serin_protocol::ids::ReleaseId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::{Instrument as _, Span, field};

use super::aftermath;
use super::answer::{self, Written};
use super::beside::Arm;
use super::binary::{self, JSON_LENGTH};
use super::body::{self, Body};
use super::call::Call;
use super::counting::{Made, count_failed, sample};
use super::limits::Limits;
use super::refusal::{self, Answer, Refusal};
use super::remember::{MAX_LABELS_BYTES, Remembered};
use super::request_id::{REQUEST_ID, RequestIds};
use super::route::Asked;
use super::router::{Infer, Router, Served};
use super::unread;
use crate::worker::{InferError, Inferred};

/// Most workers that one request is given to: the active release's, its replacement after it died, the
/// previous release's after a rollback, and one more for whoever waits through all of that.
const MAX_ASKED: usize = 4;

/// Header that says on whose behalf a request is made: all of one key are answered by the same release while two
/// share the work. Without it the request's `id` is the key.
const REQUEST_KEY: HeaderName = HeaderName::from_static("serin-request-key");

/// What inferences share.
#[derive(Debug)]
pub(super) struct Desk<W> {
    pub(super) router: Arc<Router<W>>,
    pub(super) limits: Limits,
    in_flight: Arc<Semaphore>,
    /// One permit per byte.
    bodies: Arc<Semaphore>,
    /// One permit per byte of answers that are not yet read.
    unread: Arc<Semaphore>,
    ids: RequestIds,
    /// What was predicted lately.
    pub(super) remembered: Arc<Remembered>,
}

/// Why a release did not answer.
enum Failure {
    /// Nothing is to be gained from asking again.
    Final(Refusal),
    /// Its worker has no room.
    Full(InferError),
    /// Its worker is gone; another may answer.
    Gone(InferError),
}

/// What a request is called, in its headers.
struct Names {
    /// In traces, and in its answer.
    request: HeaderValue,
    /// On whose behalf it is made.
    key: Option<HeaderValue>,
    /// In traces, with more to be said.
    span: Span,
}

/// What has become of a request so far.
#[derive(Default)]
struct Past {
    /// Workers it was given to.
    asked: usize,
    /// The release whose worker died while it ran the request.
    suspect: Option<ReleaseId>,
}

impl Past {
    /// Whether the request may be asked once more after `release` failed it with `error`. It is not when a
    /// worker has died under it twice, for it may be what they died of.
    fn may_go_on(&mut self, release: &ReleaseId, error: &InferError) -> bool {
        self.asked += 1;
        let again = self.asked < MAX_ASKED;
        match error {
            InferError::Died(_) => again && self.suspect.replace(release.clone()).is_none(),
            InferError::Unasked(_)
            | InferError::Stopped
            | InferError::Busy
            | InferError::Input(_)
            | InferError::Model(_) => again,
        }
    }
}

/// What is said of a request that no worker is left for.
fn gone(error: &InferError) -> Refusal {
    let refusal = Refusal::unavailable(error.to_string());
    if matches!(error, InferError::Died(_)) { refusal.deadly() } else { refusal }
}

impl<W> Desk<W> {
    pub(super) fn new(router: Arc<Router<W>>, limits: Limits) -> Self {
        let in_flight = Arc::new(Semaphore::new(limits.in_flight));
        let bodies = Arc::new(Semaphore::new(limits.bodies));
        let unread = Arc::new(Semaphore::new(limits.unread));
        // Without randomness names are only less easily told apart.
        let ids = RequestIds::new(getrandom::u32().unwrap_or_default());
        let remembered = Arc::new(Remembered::new(limits.answers, limits.answers_for));
        Self { router, limits, in_flight, bodies, unread, ids, remembered }
    }

    /// Counts a request that never came to an inference.
    fn refused(&self, refusal: Refusal) -> Refusal {
        if let Some(served) = self.router.current() {
            served.recording().lock().refused();
        }
        refusal
    }

    fn check(&self, asked: &Asked, release: &ReleaseId) -> Result<(), Refusal> {
        asked.check(release, |other| self.router.is_warm(other))
    }

    /// Takes what turned out to be true.
    pub(super) async fn labels(&self, body: Incoming) -> Result<Answer, Refusal> {
        let body = body::read(body, MAX_LABELS_BYTES, self.limits.receive, &self.bodies).await?;
        self.remembered.take(&body.bytes)
    }

    /// The arm of a trial that `asked` names by its version.
    pub(super) fn named_arm(&self, asked: &Asked) -> Option<Arc<Served<W>>> {
        let version = asked.version.as_deref()?;
        self.router.beside()?.arm(Arm::Version(version)).cloned()
    }

    /// The arm of a trial that answers `call` in place of the active release, if there is one and it can.
    fn arm_of(&self, key: Option<&HeaderValue>, call: &Call) -> Option<Arc<Served<W>>> {
        let beside = self.router.beside()?;
        // Clients and proxies send an empty one for none; all of those would be one user.
        let given = |key: &&[u8]| !key.is_empty();
        let id = || call.id.as_deref().map(str::as_bytes).filter(given);
        let key = key.map(HeaderValue::as_bytes).filter(given).or_else(id)?;
        let arm = beside.arm(Arm::Key(key))?;
        call.check(arm.manifest()).is_ok().then(|| Arc::clone(arm))
    }
}

impl<W: Infer> Desk<W> {
    /// Reads `body` and answers it. Traces show the request's names, release and end, never values.
    pub(super) async fn infer(self: Arc<Self>, asked: Asked, headers: &HeaderMap, body: Incoming) -> Answer {
        let name = self.ids.name(headers);
        let shown = name.to_str().unwrap_or_default();
        // Made only where it is shown: it took 8 % of a small request's processor time.
        let span =
            tracing::debug_span!("inference", request = shown, id = field::Empty, release = field::Empty);
        let answer = async {
            match self.read(asked, &name, headers, body, &span).await {
                Ok(written) => respond(written),
                Err(refusal) => {
                    tracing::debug!(status = refusal.status().as_u16(), "not answered");
                    refusal.into_answer()
                }
            }
        };
        let mut answer = answer.instrument(span.clone()).await;
        answer.headers_mut().insert(REQUEST_ID, name);
        answer
    }

    async fn read(
        self: Arc<Self>,
        asked: Asked,
        name: &HeaderValue,
        headers: &HeaderMap,
        body: Incoming,
        span: &Span,
    ) -> Result<Written, Refusal> {
        let Ok(place) = Arc::clone(&self.in_flight).try_acquire_owned() else {
            let message = format!("{} requests are being answered already", self.limits.in_flight);
            // Whoever is still sending when the connection closes may not see the answer.
            body::throw_away(body, self.limits.body, self.limits.receive).await;
            return Err(self.refused(Refusal::too_many(message).closing()));
        };
        let body = body::read(body, self.limits.body, self.limits.receive, &self.bodies).await;
        let body = body.map_err(|refusal| self.refused(refusal))?;
        let json = form(headers).map_err(|refusal| self.refused(refusal))?;
        // In a task of its own, so that an inference is counted even when its caller has given up: a
        // release that is too slow for its callers must not look idle.
        let names =
            Names { request: name.clone(), key: headers.get(REQUEST_KEY).cloned(), span: span.clone() };
        let (reply, answered) = oneshot::channel();
        let (unread, all) = (Arc::clone(&self.unread), self.limits.unread);
        tokio::spawn(self.compute(asked, names, json, body, place, reply).instrument(span.clone()));
        let written =
            answered.await.unwrap_or_else(|_| Err(Refusal::unavailable("the agent is stopping")))?;
        unread::hold(written, &unread, all)
    }

    /// Replies, then counts.
    async fn compute(
        self: Arc<Self>,
        asked: Asked,
        names: Names,
        json: Option<u64>,
        body: Body,
        _place: OwnedSemaphorePermit,
        reply: oneshot::Sender<Result<Written, Refusal>>,
    ) {
        let (made, written) = match self.answer(asked, &names, json, body).await {
            Ok(answered) => answered,
            Err(refusal) => {
                // Whoever asked may have gone away meanwhile, here and below.
                let _ = reply.send(Err(refusal));
                return;
            }
        };
        let _ = reply.send(Ok(written));
        aftermath::after_those_who_wait().await;
        self.count(&made, &names.request);
        let Made { served, call, inferred, .. } = made;
        sample(&served, &call, &inferred);
        if let Some(mirror) = self.router.beside().and_then(|beside| beside.mirror()) {
            mirror.compute(call, inferred, served.sampler().cloned());
        }
    }

    /// What is asked, by whichever release answers, and the answer as it is sent.
    async fn answer(
        &self,
        asked: Asked,
        Names { request, key, span }: &Names,
        json: Option<u64>,
        body: Body,
    ) -> Result<(Made<W>, Written), Refusal> {
        let Some(mut served) = self.router.current_or_coming(self.limits.takeover).await else {
            return Err(Refusal::unavailable(self.router.why_not()));
        };
        if let Some(arm) = self.named_arm(&asked) {
            served = arm;
        }
        self.check(&asked, served.release()).map_err(|refusal| self.refused(refusal))?;
        let Body { bytes, share: _share } = body;
        let call = Call::parse(&bytes, json, served.manifest());
        drop(bytes);
        let call = call.map_err(|message| {
            span.record("release", field::display(served.release()));
            self.refused(Refusal::bad_request(message))
        })?;
        if asked.version.is_none()
            && let Some(arm) = self.arm_of(key.as_ref(), &call)
        {
            served = arm;
        }
        span.record("release", field::display(served.release()));
        if let Some(id) = &call.id {
            // Quoted: it may hold anything.
            span.record("id", field::debug(id));
        }
        let mut past = Past::default();
        let patience = tokio::time::Instant::now() + self.limits.takeover;
        loop {
            let error = match Self::ask(&served, &call, request).await {
                Ok((written, inferred, took)) => {
                    return Ok((Made { served, call, inferred, took }, written));
                }
                Err(Failure::Final(refusal)) => return Err(refusal),
                Err(Failure::Full(error)) => {
                    // Whom another worker has let down has waited his turn once.
                    let waits = past.asked > 0;
                    if !waits || tokio::time::timeout_at(patience, served.worker().room()).await.is_err() {
                        served.recording().lock().refused();
                        return Err(Refusal::too_many(error.to_string()));
                    }
                    continue;
                }
                Err(Failure::Gone(error)) => error,
            };
            if !past.may_go_on(served.release(), &error) {
                return Err(gone(&error));
            }
            let Some(other) = self.successor(&asked, &call, &served, &past).await else {
                return Err(gone(&error));
            };
            tracing::info!(?request, %error, to = %other.release(), "a request is asked again");
            served = other;
        }
    }

    /// Another worker that takes over from `served` and can answer `call`.
    ///
    /// The release whose worker died while it ran the call is not asked again, for the call may be what it
    /// died of.
    async fn successor(
        &self,
        asked: &Asked,
        call: &Call,
        served: &Arc<Served<W>>,
        past: &Past,
    ) -> Option<Arc<Served<W>>> {
        if past.suspect.is_some() && asked.version.is_some() {
            return None;
        }
        let is_other = |other: &Arc<Served<W>>| !Arc::ptr_eq(other, served);
        let other = self.router.takeover(self.limits.takeover, is_other).await?;
        let fits = past.suspect.as_ref() != Some(other.release())
            && self.check(asked, other.release()).is_ok()
            && call.check(other.manifest()).is_ok();
        fits.then_some(other)
    }

    /// Asks `served`, and counts what comes of it unless it is an answer, which is counted when it is on its way.
    async fn ask(
        served: &Served<W>,
        call: &Call,
        request: &HeaderValue,
    ) -> Result<(Written, Inferred, Duration), Failure> {
        let start = Instant::now();
        let outcome = served.worker().infer(call.inputs.clone(), call.body.clone()).await;
        let took = start.elapsed();
        let inferred = outcome.map_err(|error| {
            count_failed(served, call, &error, took);
            match error {
                InferError::Input(message) => Failure::Final(Refusal::bad_request(message)),
                InferError::Model(_) => {
                    tracing::info!(?request, %error, "not answered");
                    Failure::Final(Refusal::internal(error.to_string()))
                }
                InferError::Busy => Failure::Full(error),
                InferError::Died(_) | InferError::Unasked(_) | InferError::Stopped => Failure::Gone(error),
            }
        })?;
        tracing::debug!(micros = inferred.micros, waited = inferred.waited_micros, "answered");
        match answer::write(served.release(), call.id.as_deref(), &call.wanted, &inferred) {
            Ok(written) => Ok((written, inferred, took)),
            Err(message) => {
                count_failed(served, call, &InferError::Model(message.clone()), took);
                Err(Failure::Final(Refusal::internal(message)))
            }
        }
    }
}

/// How many bytes of a body with these `headers` are JSON; `None` for all.
fn form(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(header::CONTENT_ENCODING).iter().all(plain) {
        let message = "compressed requests are not supported";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    binary::json_length(headers).map_err(|fault| Refusal::bad_request(fault.to_string()))
}

fn respond(Written { json, raw }: Written) -> Answer {
    let Some(raw) = raw else { return refusal::json(StatusCode::OK, json) };
    let length = HeaderValue::from(json.len());
    let mut answer = refusal::with_raw(StatusCode::OK, json, raw, "application/octet-stream");
    answer.headers_mut().insert(JSON_LENGTH, length);
    answer
}
