//! Refreshes that fail: when the next one is due and what is worth reporting.

use serin_protocol::ids::Millis;
use serin_protocol::message::Detail;
use serin_protocol::trust::TrustError;

use super::store::TrustStoreError;
use crate::link::backoff::{Backoff, Jitter};

/// Between refreshes that fail.
const RETRY: Backoff = Backoff { first: Millis::from_secs(1), cap: Millis::from_secs(300) };

/// Why a refresh goes no further.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Store(#[from] TrustStoreError),
}

/// The disk, or one of the attacks: their texts carry the time and would never be equal.
type Kind = Option<std::mem::Discriminant<TrustError>>;

impl Problem {
    const fn kind(&self) -> Kind {
        match self {
            Self::Trust(error) => Some(std::mem::discriminant(error)),
            Self::Store(_) => None,
        }
    }
}

/// Failures since the last refresh that was complete.
#[derive(Debug)]
pub(super) struct Failures {
    jitter: Jitter,
    count: u32,
    last: Option<String>,
    reported: Option<Kind>,
    pub(super) retry_at: Option<Millis>,
}

impl Failures {
    pub(super) const fn new(jitter: Jitter) -> Self {
        Self { jitter, count: 0, last: None, reported: None, retry_at: None }
    }

    /// Notes a failure; the text to be reported, if it is. A first failure is not: a root and a timestamp
    /// signed by its new keys can overtake each other. Of each kind in a row only one is.
    pub(super) fn note(&mut self, now: Millis, problem: &Problem) -> Option<Detail> {
        let text = problem.to_string();
        self.count = self.count.saturating_add(1);
        self.retry_at = Some(now.plus(RETRY.wait(self.count, &mut self.jitter)));
        let report = self.count > 1 && self.reported != Some(problem.kind());
        let detail = report.then(|| Detail::new(&text));
        if report {
            self.reported = Some(problem.kind());
        }
        self.last = Some(text);
        detail
    }

    /// A refresh was complete.
    pub(super) fn clear(&mut self) {
        (self.count, self.last, self.reported) = (0, None, None);
    }

    pub(super) fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }
}
