//! What was predicted lately, and the truth about it, which apps and people bring later.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use serin_protocol::frame::Prediction;
use serin_protocol::ids::{Millis, ReleaseId, UnixMillis};

use super::refusal::{Answer, Refusal, json};
use crate::telemetry::answers::{Answers, Forgotten, MAX_LIFE, Name, Page, PageKey, Row};
use crate::telemetry::{Recording, Segments, Truth, Untrue};

/// Most labels in one request: what a person checks in a day.
pub(crate) const MAX_LABELS: usize = 1000;

/// Largest request with labels: names of 128 bytes and texts as long.
pub(super) const MAX_LABELS_BYTES: usize = 512 << 10;

/// What was remembered before the start lies behind it, and nothing is remembered longer than this.
const BEFORE: Millis = Millis(MAX_LIFE.0 * 2);

/// Predictions that were made lately. The supervisor writes them down from time to time, and brings them back at a start.
#[derive(Debug)]
pub(crate) struct Remembered {
    start: Instant,
    /// Labels are taken one request after the other, so that two of the same do not both count.
    taking: Mutex<()>,
    /// Nobody's are those of a release that is not on this device any more.
    answers: Mutex<Answers<Option<Recording>>>,
}

/// What turned out to be true, as it is told.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    labels: Vec<Label>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Label {
    id: String,
    #[serde(default)]
    row: usize,
    value: Truth,
}

/// What became of labels.
#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Taken {
    /// How many count.
    pub(crate) taken: usize,
    /// Those that do not.
    pub(crate) refused: Vec<NotTaken>,
}

/// A label that does not count.
#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct NotTaken {
    /// Its number in the request, from 0.
    pub(crate) at: usize,
    /// The request it is about.
    pub(crate) id: String,
    /// The row.
    pub(crate) row: usize,
    /// For programs: `unknown`, `expired`, `no_row`, `known`, `gone`, `no_prediction`, `no_class` or `no_value`.
    pub(crate) code: String,
    /// For people.
    pub(crate) why: String,
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Forgotten(#[from] Forgotten),
    #[error(transparent)]
    Untrue(#[from] Untrue),
}

impl Fault {
    const fn code(&self) -> &'static str {
        match self {
            Self::Forgotten(Forgotten::Unknown(_)) => "unknown",
            Self::Forgotten(Forgotten::Expired(_)) => "expired",
            Self::Forgotten(Forgotten::NoRow { .. }) => "no_row",
            Self::Forgotten(Forgotten::Known) => "known",
            Self::Untrue(Untrue::Gone) => "gone",
            Self::Untrue(Untrue::NoPrediction) => "no_prediction",
            Self::Untrue(Untrue::NoClass(..)) => "no_class",
            Self::Untrue(Untrue::NoValue(_)) => "no_value",
        }
    }
}

impl Remembered {
    pub(crate) fn new(most: usize, life: Duration) -> Self {
        let life = Millis(u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
        Self { start: Instant::now(), taking: Mutex::new(()), answers: Mutex::new(Answers::new(most, life)) }
    }

    fn now(&self) -> Millis {
        BEFORE.plus(Millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)))
    }

    fn answers(&self) -> MutexGuard<'_, Answers<Option<Recording>>> {
        // What it holds is set whole.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be written down next, at device time `wall`: a page holds every label that was counted before.
    pub(crate) fn take_page(&self, wall: UnixMillis) -> Option<Page> {
        // A label that is being taken is counted and not settled yet.
        let _one = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let release_of = |of: &Option<Recording>| of.as_ref().map(|recording| recording.release().clone());
        self.answers().take_page(self.now(), wall, release_of)
    }

    /// The page taken last was written under `key`, or was not. Returns the last one that may be dropped, with all before it.
    pub(crate) fn page_written(&self, page: Page, key: Option<PageKey>) -> Option<PageKey> {
        let mut answers = self.answers();
        let Some(key) = key else {
            answers.not_written(page);
            return None;
        };
        answers.wrote(&page, key)
    }

    /// The last page that nobody needs any more, with all before it.
    pub(crate) fn useless_pages(&self) -> Option<PageKey> {
        self.answers().useless()
    }

    /// Brings back what was written down; `of` says who counts for a release. All pages come in their order, before anything is
    /// asked.
    pub(crate) fn recall(
        &self,
        page: &Page,
        key: PageKey,
        wall: UnixMillis,
        mut of: impl FnMut(&ReleaseId) -> Option<Recording>,
    ) {
        self.answers().recall(page, key, self.now(), wall, |release| release.and_then(&mut of));
    }

    /// Remembers what was predicted for a request of these names, by the release that `recording` counts.
    pub(super) fn keep(
        &self,
        names: [Option<&[u8]>; 2],
        recording: &Recording,
        predictions: &[Prediction],
        segments: Segments<'_>,
    ) {
        if predictions.is_empty() {
            return;
        }
        let row = |(at, prediction): (usize, &Prediction)| Row {
            prediction: *prediction,
            segment: segments.of(at),
        };
        let rows = predictions.iter().enumerate().map(row);
        // An empty name is none: some clients send one with every request.
        let names = names.map(|name| name.filter(|name| !name.is_empty()).map(Name::of));
        self.answers().remember(self.now(), names, Some(recording.clone()), rows);
    }

    /// Takes the labels in `body`: each counts once, in the window and segment of the release that answered.
    pub(super) fn take(&self, body: &[u8]) -> Result<Answer, Refusal> {
        let told: Told = serde_json::from_slice(body)
            .map_err(|error| Refusal::bad_request(format!("malformed labels: {error}")))?;
        if told.labels.len() > MAX_LABELS {
            return Err(Refusal::bad_request(format!("more than {MAX_LABELS} labels at once")));
        }
        let _one = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outcome = Taken { taken: 0, refused: Vec::new() };
        for (at, Label { id, row, value }) in told.labels.into_iter().enumerate() {
            match self.label(Name::of(id.as_bytes()), row, &value) {
                Ok(()) => outcome.taken += 1,
                Err(fault) => {
                    let (code, why) = (fault.code().to_owned(), fault.to_string());
                    outcome.refused.push(NotTaken { at, id, row, code, why });
                }
            }
        }
        let text = serde_json::to_vec(&outcome).map_err(|error| Refusal::internal(error.to_string()))?;
        Ok(json(StatusCode::OK, text.into()))
    }

    fn label(&self, name: Name, row: usize, truth: &Truth) -> Result<(), Fault> {
        let now = self.now();
        let found = self.answers().find(now, name, row);
        let (recording, predicted) = found?;
        let recording = recording.ok_or(Untrue::Gone)?;
        // The recorder is locked before the answers where requests are counted: never the other way round.
        recording.lock().truth_known(predicted.segment, predicted.prediction, truth)?;
        self.answers().settle(name, row);
        Ok(())
    }
}
