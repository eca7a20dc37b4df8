//! Triggers of training: which there were, and what their pipelines say.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use serin_protocol::ids::{ModelName, ReleaseId};

use super::failure::Failure;
use super::{Context, blocking};
use crate::serve::now;
use crate::trigger::{TriggerId, view};

pub(super) async fn list(State(context): State<Context>) -> Json<Value> {
    let triggers: Vec<Value> = context.fleet.list_triggers().iter().map(view::trigger).collect();
    Json(json!({ "triggers": triggers, "rules": context.fleet.trigger_rules() }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fire {
    model: ModelName,
    why: String,
}

pub(super) async fn fire(
    State(context): State<Context>,
    Json(Fire { model, why }): Json<Fire>,
) -> Result<StatusCode, Failure> {
    blocking(move || context.fleet.fire_trigger(&model, &why, now())).await?;
    Ok(StatusCode::CREATED)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Acknowledgement {
    by: String,
}

pub(super) async fn acknowledge(
    State(context): State<Context>,
    Path(id): Path<String>,
    Json(Acknowledgement { by }): Json<Acknowledgement>,
) -> Result<StatusCode, Failure> {
    let id = parse(&id)?;
    blocking(move || context.fleet.acknowledge_trigger(&id, &by, now())).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    release: String,
}

pub(super) async fn answer(
    State(context): State<Context>,
    Path(id): Path<String>,
    Json(Answer { release }): Json<Answer>,
) -> Result<StatusCode, Failure> {
    let id = parse(&id)?;
    let release: ReleaseId = release.parse().map_err(|error| Failure::bad_request(&error))?;
    blocking(move || context.fleet.answer_trigger(&id, &release, now())).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn parse(id: &str) -> Result<TriggerId, Failure> {
    TriggerId::new(id).ok_or_else(|| Failure::not_found(format!("there is no trigger {id}")))
}
