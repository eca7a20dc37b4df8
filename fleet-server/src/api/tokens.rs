//! Claim tokens. A token's text is shown once, to whoever made it.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serin_protocol::enrolment::TokenId;
use serin_protocol::ids::{DeviceId, Millis};

use super::failure::Failure;
use super::{Context, blocking};
use crate::fleet::enrolment::MAX_VALID;
use crate::serve::now;
use crate::store::TokenRecord;

/// How long a token is good unless told otherwise: long enough for a day's work on site.
const DEFAULT_SECONDS: u64 = 24 * 3600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Invitation {
    device: Option<DeviceId>,
    valid_seconds: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct Tokens {
    tokens: Vec<TokenView>,
}

#[derive(Serialize)]
pub(super) struct TokenView {
    id: String,
    /// Only in the answer to whoever made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    device: Option<String>,
    made: u64,
    expires: u64,
    used_by: Option<String>,
}

impl From<TokenRecord> for TokenView {
    fn from(record: TokenRecord) -> Self {
        Self {
            id: record.id.to_string(),
            token: None,
            device: record.device.map(|device| device.to_string()),
            made: record.made.0,
            expires: record.expires.0,
            used_by: record.used_by.map(|(device, _)| device.to_string()),
        }
    }
}

pub(super) async fn list(State(context): State<Context>) -> Json<Tokens> {
    Json(Tokens { tokens: context.fleet.tokens().into_iter().map(TokenView::from).collect() })
}

pub(super) async fn invite(
    State(context): State<Context>,
    Json(invitation): Json<Invitation>,
) -> Result<(StatusCode, Json<TokenView>), Failure> {
    let seconds = invitation.valid_seconds.unwrap_or(DEFAULT_SECONDS);
    if seconds == 0 || seconds > MAX_VALID.0 / 1000 {
        return Err(Failure::bad_request(&format!("valid_seconds must be 1 to {}", MAX_VALID.0 / 1000)));
    }
    let valid = Millis::from_secs(seconds);
    let (token, record) = blocking(move || context.fleet.invite(invitation.device, valid, now())).await?;
    let view = TokenView { token: Some(token.text().as_str().to_owned()), ..record.into() };
    Ok((StatusCode::CREATED, Json(view)))
}

pub(super) async fn withdraw(
    State(context): State<Context>,
    Path(id): Path<String>,
) -> Result<StatusCode, Failure> {
    let id: TokenId = id.parse().map_err(|_| Failure::bad_request(&"a token's id has 16 digits"))?;
    blocking(move || context.fleet.withdraw_token(id, now())).await?;
    Ok(StatusCode::NO_CONTENT)
}
