//! What publishers upload, and the repository as any TUF client reads it over HTTP.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serin_protocol::ids::Digest;

use super::download::{Patience, pieces};
use super::failure::Failure;
use super::{Context, blocking};
use crate::repository::RepositoryError;
use crate::serve::{now, seconds};
use crate::trust::Online;

#[derive(Serialize)]
pub(super) struct Accepted {
    file: String,
}

#[derive(Serialize)]
pub(super) struct Published {
    snapshot: u64,
}

/// Which keys this server signs with.
pub(super) async fn online(State(context): State<Context>) -> Json<Online> {
    Json(context.online.as_ref().clone())
}

/// Keeps one metadata file; it is shown once it is published.
pub(super) async fn accept(
    State(context): State<Context>,
    Path(file): Path<String>,
    body: Bytes,
) -> Result<Json<Accepted>, Failure> {
    let repository = Arc::clone(&context.repository);
    let name = file.clone();
    let kept = blocking(move || Ok(repository.accept(&name, &body, seconds()))).await?;
    kept.map_err(|error| refused(&error))?;
    Ok(Json(Accepted { file }))
}

/// Makes what was uploaded current.
pub(super) async fn publish(State(context): State<Context>) -> Result<Json<Published>, Failure> {
    let (repository, fleet) = (Arc::clone(&context.repository), Arc::clone(&context.fleet));
    let published = blocking(move || {
        let published = repository.publish(seconds());
        if published.is_ok() {
            // It may say that another of the server's keys signs from now on.
            fleet.sign_anew(now())?;
        }
        Ok(published)
    });
    Ok(Json(Published { snapshot: published.await?.map_err(|error| refused(&error))? }))
}

pub(super) async fn metadata(
    State(context): State<Context>,
    Path(file): Path<String>,
) -> Result<Response, Failure> {
    let repository = Arc::clone(&context.repository);
    let bytes = blocking(move || Ok(repository.file(&file))).await?.ok_or_else(nothing)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}

/// A target under its hash: `models/<model>/<sha256>.<version>.release` or `….tar.zst`.
pub(super) async fn target(
    State(context): State<Context>,
    Path(path): Path<String>,
) -> Result<Response, Failure> {
    let name = path.rsplit('/').next().unwrap_or_default();
    let (digest, rest) = name.split_once('.').ok_or_else(nothing)?;
    let digest: Digest = digest.parse().map_err(|_| nothing())?;
    if rest.strip_suffix(".release").is_some() {
        let fleet = Arc::clone(&context.fleet);
        let statement = blocking(move || fleet.statement(&digest)).await?.ok_or_else(nothing)?;
        return Ok(([(header::CONTENT_TYPE, "application/octet-stream")], statement).into_response());
    }
    let objects = Arc::clone(context.fleet.objects());
    let size = objects.size(&digest).ok().flatten().filter(|_| rest.ends_with(".tar.zst"));
    let size = size.ok_or_else(nothing)?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
    ];
    let permit = Arc::clone(&context.downloads).try_acquire_owned().map_err(|_| busy())?;
    Ok((headers, Body::from_stream(pieces(objects, digest, Patience::default(), permit))).into_response())
}

fn busy() -> Failure {
    let text = "too many read the repository now";
    Failure::new(StatusCode::TOO_MANY_REQUESTS, "busy", text).next("try again in a while")
}

fn nothing() -> Failure {
    Failure::not_found("there is no such file in the repository")
}

fn refused(error: &RepositoryError) -> Failure {
    let text = error.to_string();
    match error {
        RepositoryError::Folder(error) => {
            tracing::error!(%error, "the repository could not be written");
            Failure::internal()
        }
        RepositoryError::Name(_) => Failure::bad_request(&text),
        RepositoryError::Trust(_) | RepositoryError::NotDelegated(_) | RepositoryError::Refused(_) => {
            Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "not_trusted", text)
        }
        RepositoryError::Before(_) | RepositoryError::Differs { .. } | RepositoryError::OtherServer(_) => {
            Failure::new(StatusCode::CONFLICT, "conflict", text)
        }
    }
}
