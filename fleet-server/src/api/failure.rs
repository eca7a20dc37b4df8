//! How a request fails: what, a stable code for programs, and what to do next.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::fleet::FleetError;
use crate::registry::releases::ReleaseError;
use crate::review::ReviewError;
use crate::rollout::event::Refusal;
use crate::trigger::TriggerError;

/// A failed request.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    body: Body,
}

#[derive(Debug, Serialize)]
struct Body {
    error: String,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'static str>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, code: &'static str, error: impl Into<String>) -> Self {
        Self { status, body: Body { error: error.into(), code, next: None } }
    }

    pub(super) fn next(mut self, next: &'static str) -> Self {
        self.body.next = Some(next);
        self
    }

    pub(super) fn bad_request(error: &impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", error.to_string())
    }

    pub(super) fn not_found(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", error)
    }

    pub(super) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the server failed; its log says why")
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

impl From<FleetError> for Failure {
    fn from(error: FleetError) -> Self {
        let text = error.to_string();
        match error {
            FleetError::NotFound(_)
            | FleetError::Trigger(TriggerError::Unknown(_))
            | FleetError::Review(ReviewError::Unknown(_)) => Self::not_found(text),
            FleetError::Conflict(_) => Self::new(StatusCode::CONFLICT, "conflict", text),
            FleetError::Refused(Refusal::Conflict { .. }) => Self::new(StatusCode::CONFLICT, "changed", text)
                .next("look at the rollout again, then decide"),
            FleetError::Refused(Refusal::NotNow { .. } | Refusal::Nothing(_)) => {
                Self::new(StatusCode::CONFLICT, "not_now", text)
            }
            FleetError::Refused(Refusal::NoReason(_)) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "reason_missing", text)
                    .next("say why with `--reason`")
            }
            FleetError::Rule(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "rule_refused", text),
            FleetError::Silence(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "silence_refused", text),
            FleetError::Trigger(_) => Self::new(StatusCode::CONFLICT, "trigger_refused", text),
            FleetError::Review(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "review_refused", text),
            FleetError::Start(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "plan_refused", text),
            FleetError::Release(error) => release(&error),
            FleetError::Store(_)
            | FleetError::Sample(_)
            | FleetError::Seal(_)
            | FleetError::Random(_)
            | FleetError::NoKey => {
                tracing::error!(error = text, "a request failed");
                Self::internal()
            }
        }
    }
}

fn release(error: &ReleaseError) -> Failure {
    let text = error.to_string();
    match error {
        ReleaseError::NoBundle(_) => Failure::new(StatusCode::CONFLICT, "bundle_missing", text)
            .next("PUT the bundle to /api/v1/bundles/<its SHA-256> first"),
        ReleaseError::Statement(_) => {
            Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "statement_refused", text)
                .next("make it with `serin-fleet release sign`")
        }
        ReleaseError::NotListed(_) => Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "not_listed", text)
            .next("sign it with `serin-fleet release sign` and publish with `--trust FOLDER`"),
        ReleaseError::Contradiction(_)
        | ReleaseError::Unpack(_)
        | ReleaseError::Container(_)
        | ReleaseError::Manifest(_)
        | ReleaseError::Profile(_) => Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "bundle_refused", text),
        ReleaseError::Objects(error) => {
            tracing::error!(%error, "a request failed");
            Failure::internal()
        }
    }
}
