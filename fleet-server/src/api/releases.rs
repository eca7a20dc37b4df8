//! Releases, and the bundles they are about. A release is added in two steps: its bundle is put under its
//! digest, then the signed statement is posted.

use std::io::{self, Read};
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use futures::StreamExt as _;
use serde::Serialize;
use serin_protocol::ids::{Digest, ReleaseId};
use tokio::sync::mpsc;

use super::failure::Failure;
use super::{Context, blocking};
use crate::fleet::releases::ReleaseFacts;
use crate::registry::objects::ObjectError;
use crate::serve::now;

/// Pieces of an upload that wait for the disk.
const UPLOAD_QUEUE: usize = 16;

#[derive(Serialize)]
pub(super) struct Releases {
    releases: Vec<ReleaseView>,
}

#[derive(Serialize)]
pub(super) struct ReleaseView {
    id: String,
    statement: String,
    bundle: String,
    bundle_bytes: u64,
    unpacked_bytes: u64,
    memory: u64,
    runtime: String,
    targets: Vec<String>,
    owner: String,
    description: String,
    features: Vec<String>,
    published: bool,
    added: u64,
}

impl From<&Arc<ReleaseFacts>> for ReleaseView {
    fn from(facts: &Arc<ReleaseFacts>) -> Self {
        let record = &facts.record;
        let release = &record.release;
        Self {
            id: release.id.to_string(),
            statement: record.statement.to_string(),
            bundle: release.bundle.digest.to_string(),
            bundle_bytes: release.bundle.size.0,
            unpacked_bytes: release.unpacked.0,
            memory: release.memory.0,
            runtime: release.runtime.to_string(),
            targets: release.targets.iter().map(|target| target.class.to_string()).collect(),
            owner: record.owner.clone(),
            description: record.description.clone(),
            features: record.features.clone(),
            published: record.published,
            added: record.added.0,
        }
    }
}

pub(super) async fn list(State(context): State<Context>) -> Json<Releases> {
    Json(Releases { releases: context.fleet.releases().iter().map(ReleaseView::from).collect() })
}

pub(super) async fn one(
    State(context): State<Context>,
    Path(id): Path<String>,
) -> Result<Json<ReleaseView>, Failure> {
    let id: ReleaseId = id.parse().map_err(|error| Failure::bad_request(&error))?;
    Ok(Json(ReleaseView::from(&context.fleet.release(&id)?)))
}

pub(super) async fn add(
    State(context): State<Context>,
    statement: Bytes,
) -> Result<(StatusCode, Json<ReleaseView>), Failure> {
    let fleet = Arc::clone(&context.fleet);
    let id = blocking(move || fleet.add_release(&statement, now())).await?;
    Ok((StatusCode::ACCEPTED, Json(ReleaseView::from(&context.fleet.release(&id)?))))
}

#[derive(Serialize)]
pub(super) struct Uploaded {
    digest: String,
}

/// Writes a bundle to disk as it comes; nothing is kept unless all of it has the digest it came under.
pub(super) async fn upload(
    State(context): State<Context>,
    Path(digest): Path<String>,
    body: Body,
) -> Result<Json<Uploaded>, Failure> {
    let expected: Digest = digest.parse().map_err(|error| Failure::bad_request(&error))?;
    let Ok(_permit) = context.uploads.try_acquire() else {
        let busy = Failure::new(StatusCode::TOO_MANY_REQUESTS, "busy", "too many uploads at a time");
        return Err(busy.next("try again in a minute"));
    };
    let (pieces, mut waiting) = mpsc::channel::<Result<Bytes, io::Error>>(UPLOAD_QUEUE);
    let objects = Arc::clone(context.fleet.objects());
    let writing = tokio::task::spawn_blocking(move || {
        objects.put_expected(&expected, Pieces { waiting: &mut waiting, piece: io::Cursor::default() })
    });
    let mut stream = body.into_data_stream();
    while let Some(piece) = stream.next().await {
        // The writer has gone: it says below why.
        if pieces.send(piece.map_err(io::Error::other)).await.is_err() {
            break;
        }
    }
    drop(pieces);
    match writing.await {
        Ok(Ok(())) => Ok(Json(Uploaded { digest })),
        Ok(Err(error)) => Err(refused(&error)),
        Err(_) => Err(Failure::internal()),
    }
}

fn refused(error: &ObjectError) -> Failure {
    let text = error.to_string();
    match error {
        ObjectError::TooLarge => Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", text),
        ObjectError::Empty | ObjectError::Unexpected { .. } => {
            Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "digest_differs", text)
        }
        ObjectError::Source(_) => Failure::bad_request(&text),
        ObjectError::Disk { .. } | ObjectError::Damaged { .. } => {
            tracing::error!(%error, "an upload failed");
            Failure::internal()
        }
    }
}

/// The pieces of a body as something to read from, for a thread that may wait.
struct Pieces<'a> {
    waiting: &'a mut mpsc::Receiver<Result<Bytes, io::Error>>,
    piece: io::Cursor<Bytes>,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            match self.waiting.blocking_recv() {
                Some(piece) => self.piece = io::Cursor::new(piece?),
                None => return Ok(0),
            }
        }
    }
}
