//! What is counted of a request, remembered of its answer, and kept of its rows.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::header::HeaderValue;
use serin_protocol::ids::UnixMillis;

use super::call::Call;
use super::infer::Desk;
use super::router::{Infer, Served};
use crate::review::choose::Answered;
use crate::telemetry::Effort;
use crate::worker::{InferError, Inferred};

/// An answer that was made, and all that is counted of it.
pub(super) struct Made<W> {
    pub(super) served: Arc<Served<W>>,
    pub(super) call: Call,
    pub(super) inferred: Inferred,
    /// From asking the worker to its answer.
    pub(super) took: Duration,
}

impl<W: Infer> Desk<W> {
    /// Counts an answer, and remembers what was predicted.
    pub(super) fn count(&self, made: &Made<W>, request: &HeaderValue) {
        let Made { served, call, inferred, took } = made;
        let mut recorder = served.recording().lock();
        let rows = call.inputs.first().and_then(|input| input.shape.first()).copied();
        recorder.cost(Effort {
            answered: 1,
            failed: 0,
            rows: rows.unwrap_or(0).into(),
            runs: inferred.company.leads().into(),
            waited_micros: inferred.waited_micros,
            computed_micros: inferred.micros,
            answered_micros: micros(*took),
            failed_micros: 0,
            last: Some(wall_clock()),
        });
        let segments = recorder.answered_seeing(
            call.asked(),
            &inferred.pictures,
            &inferred.predictions,
            inferred.micros,
        );
        let names = [Some(request.as_bytes()), call.id.as_deref().map(str::as_bytes)];
        if call.may_be_labelled() {
            self.remembered.keep(names, served.recording(), &inferred.predictions, segments);
        }
    }
}

/// Counts what `served` did not answer.
pub(super) fn count_failed<W>(served: &Served<W>, call: &Call, error: &InferError, took: Duration) {
    let mut recorder = served.recording().lock();
    match error {
        InferError::Model(_) | InferError::Died(_) => {
            recorder.failed(call.asked());
            let failed_micros = micros(took);
            recorder.cost(Effort { failed: 1, failed_micros, last: Some(wall_clock()), ..Effort::default() });
        }
        InferError::Input(_) => recorder.refused(),
        // Stopped by the supervisor, or dead before it came to this request: that says nothing of the
        // request, and a death is counted by itself. One that finds no room may find it later.
        InferError::Stopped | InferError::Unasked(_) | InferError::Busy => {}
    }
}

/// Lets a row be taken for review, where owner and device allow it.
pub(super) fn sample<W>(served: &Served<W>, call: &Call, inferred: &Inferred) {
    let Some(sampler) = served.sampler() else { return };
    let answered =
        Answered { inputs: &call.inputs, body: &call.body, predictions: &inferred.predictions, shadow: None };
    // Without randomness nothing is taken by lot.
    let chance = getrandom::u32().map_or(u16::MAX, |chance| chance as u16);
    sampler.answered(answered, None, chance, wall_clock());
}

pub(super) fn wall_clock() -> UnixMillis {
    UnixMillis(micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()) / 1000)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
