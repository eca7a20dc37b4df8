//! Reads a request body, bounded in size, in time, and in what all bodies hold together.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::body::{Body as _, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::refusal::Refusal;

/// A body too large is read on and thrown away up to this many times its limit, because a caller that
/// is still sending when the connection closes may not see the answer.
const DISCARD: usize = 4;

/// Bytes reserved for a body that announces its size, so that it is copied out of its pieces once. More is
/// reserved when it comes: of all connections together no more than all bodies may hold.
const RESERVED: usize = 256 << 10;

/// A body, and its share of what all bodies may hold.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    pub(crate) share: Option<OwnedSemaphorePermit>,
}

/// Reads `body` of at most `limit` bytes within `deadline`, taking its bytes out of `budget`.
pub(crate) async fn read(
    body: Incoming,
    limit: usize,
    deadline: Duration,
    budget: &Arc<Semaphore>,
) -> Result<Body, Refusal> {
    tokio::time::timeout(deadline, collect(body, limit, budget)).await.unwrap_or_else(|_| {
        let message = format!("the body did not arrive within {} ms", deadline.as_millis());
        Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, message).closing())
    })
}

async fn collect(mut body: Incoming, limit: usize, budget: &Arc<Semaphore>) -> Result<Body, Refusal> {
    let announced = body.size_hint().exact();
    match announced {
        Some(size) if size > limit.saturating_mul(DISCARD) as u64 => return Err(refuse(limit)),
        Some(size) if size > limit as u64 => return Err(too_large(body, limit).await),
        Some(_) | None => {}
    }
    let reserved = announced.and_then(|size| usize::try_from(size).ok()).unwrap_or(0).min(RESERVED);
    let mut bytes = BytesMut::with_capacity(reserved);
    let mut share: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| Refusal::bad_request(format!("the body cannot be read: {error}")).closing())?;
        let Ok(data) = frame.into_data() else {
            continue; // Trailers say nothing here.
        };
        if bytes.len() + data.len() > limit {
            return Err(too_large(body, limit).await);
        }
        // At most `limit`, which fits.
        let Ok(permit) = Arc::clone(budget).try_acquire_many_owned(data.len() as u32) else {
            discard(body, limit).await;
            return Err(Refusal::too_many("too many large requests at once").closing());
        };
        match &mut share {
            Some(share) => share.merge(permit),
            None => share = Some(permit),
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Body { bytes: bytes.freeze(), share })
}

async fn too_large(body: Incoming, limit: usize) -> Refusal {
    discard(body, limit).await;
    refuse(limit)
}

fn refuse(limit: usize) -> Refusal {
    let message = format!("the body is larger than {limit} bytes; send fewer rows at a time");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message).closing()
}

/// Reads a body that nobody takes, within bounds.
pub(super) async fn throw_away(body: Incoming, limit: usize, deadline: Duration) {
    // Not in time: then he does not see the answer.
    let _ = tokio::time::timeout(deadline, discard(body, limit)).await;
}

async fn discard(mut body: Incoming, limit: usize) {
    let mut left = limit.saturating_mul(DISCARD);
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        if length > left {
            return;
        }
        left -= length;
    }
}
