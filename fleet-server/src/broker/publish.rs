//! Publishing a release: each chunk once, retained, whatever the size of the fleet; then the chunk list;
//! then, when every chunk has come back from the broker, the signed statement.

use std::sync::Arc;

use serin_protocol::chunk::{ChunkMap, ObjectRef};
use serin_protocol::topic::{FileName, Topic};
use tracing::{info, warn};

use super::link::{Gone, LinkConfig, Session};
use super::read_back::missing_chunks;
use crate::registry::objects::{ObjectError, ObjectStore};
use crate::store::ReleaseRecord;

/// Times that chunks are published again before the release is given up until the next connection.
const ROUNDS: u32 = 4;

/// A release could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The connection broke; it is tried again with the next one.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// The object store failed.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The object store lost an object.
    #[error("object {0} is not in the object store")]
    NoObject(serin_protocol::ids::Digest),
    /// The broker does not keep what it is given.
    #[error(
        "the broker does not deliver {missing} of {chunks} chunks of {object}; check its limits for message \
             size, retained messages and its access rules"
    )]
    NotKept {
        /// The object.
        object: serin_protocol::ids::Digest,
        /// Chunks that do not come back.
        missing: usize,
        /// Chunks of the object.
        chunks: u32,
    },
}

/// Publishes everything a device needs to fetch `record`.
pub async fn publish_release(
    session: &Session,
    config: &LinkConfig,
    objects: &Arc<ObjectStore>,
    record: &ReleaseRecord,
    statement: Vec<u8>,
) -> Result<(), PublishError> {
    for object in [record.release.chunk_list, record.release.bundle] {
        publish_object(session, config, objects, object).await?;
    }
    session.publish(&Topic::Metadata(FileName::of_release(&record.statement)), statement, true).await?;
    info!(release = %record.release.id, "published");
    Ok(())
}

async fn publish_object(
    session: &Session,
    config: &LinkConfig,
    objects: &Arc<ObjectStore>,
    object: ObjectRef,
) -> Result<(), PublishError> {
    let lost = PublishError::NoObject(object.digest);
    let map = ChunkMap::new(object.size).map_err(|_| lost)?;
    let expected = |index| objects.chunk(&object.digest, index).ok().flatten();
    // What is there from before is not sent again.
    let mut missing = missing_chunks(config, object.digest, map, expected).await;
    for _ in 0..ROUNDS {
        if missing.is_empty() {
            return Ok(());
        }
        for index in missing {
            publish_chunk(session, objects, object, index).await?;
        }
        missing = missing_chunks(config, object.digest, map, expected).await;
        if !missing.is_empty() {
            warn!(object = %object.digest, missing = missing.len(), "the broker does not deliver all chunks");
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(PublishError::NotKept { object: object.digest, missing: missing.len(), chunks: map.count() })
}

/// Publishes one chunk, retained.
pub async fn publish_chunk(
    session: &Session,
    objects: &Arc<ObjectStore>,
    object: ObjectRef,
    index: u32,
) -> Result<(), PublishError> {
    let bytes = objects.chunk(&object.digest, index)?.ok_or(PublishError::NoObject(object.digest))?;
    let topic = Topic::Chunk { object: object.digest, index };
    Ok(session.publish(&topic, bytes.to_vec(), true).await?)
}
