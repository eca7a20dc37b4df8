//! Brings releases to the broker: every chunk retained, once, then the statement that devices start from.
//! A broker that is not ours is asked for each chunk before the release counts as published.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serin_protocol::chunk::ChunkMap;
use serin_protocol::ids::{Digest, ReleaseId};
use serin_protocol::topic::{FileName, Topic};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::link::{Link, LinkDown};
use crate::registry::objects::{ObjectError, ObjectStore};
use crate::store::{ReleaseRecord, Store, StoreError};

/// Publications, or questions, under way at a time.
const WINDOW: usize = 8;
/// Jobs that may wait. Devices ask again for what is dropped here.
pub const MAX_JOBS: usize = 1024;
/// How long a broker may take to hand out a retained message.
const READ_BACK_PATIENCE: Duration = Duration::from_secs(10);
/// Times that a missing chunk is published again before the release waits for the next restart.
const READ_BACK_ROUNDS: u32 = 5;
/// Many devices miss the same chunk at the same time; once in this time is enough for all.
const REPEAT_AFTER: Duration = Duration::from_secs(10);
/// Chunks remembered as just published again; beyond it all are forgotten, at the cost of a few repeats.
const MAX_REMEMBERED: usize = 4096;

/// What is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// A whole release.
    Release(ReleaseId),
    /// Chunks that a device found missing.
    Chunks {
        /// The object.
        object: Digest,
        /// First chunk.
        first: u32,
        /// How many.
        count: u32,
    },
    /// The statements of all published releases: what a broker that forgot everything lacks first.
    Statements,
}

/// Why a job failed. Only a lost link is worth another try.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(transparent)]
    Link(#[from] LinkDown),
    #[error(transparent)]
    Objects(#[from] ObjectError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("chunk {index} of {object} is not in the object store")]
    NoChunk { object: Digest, index: u32 },
    #[error("{0} is not in the store")]
    NoRelease(ReleaseId),
    #[error("the broker does not keep chunk {index} of {object}")]
    NotKept { object: Digest, index: u32 },
}

/// Publishes, one job after the other.
pub struct Publisher {
    /// The way to the broker.
    pub link: Link,
    /// Where chunks are read from.
    pub objects: Arc<ObjectStore>,
    /// Where it is noted that a release is published.
    pub store: Arc<dyn Store>,
    /// Whether the broker must be asked for what it was given.
    pub read_back: bool,
    /// Called when a release has been published.
    pub published: Box<dyn Fn(&ReleaseId) + Send + Sync>,
}

impl Publisher {
    /// Works until no more jobs can come.
    pub async fn run(self, mut jobs: mpsc::Receiver<Job>) {
        let mut recent = HashMap::new();
        while let Some(job) = jobs.recv().await {
            loop {
                if !self.link.connected().await {
                    return;
                }
                match self.carry_out(&job, &mut recent).await {
                    Ok(()) => break,
                    // Retained messages may repeat: the whole job again, over the next session.
                    Err(PublishError::Link(LinkDown)) => warn!(?job, "publishing was interrupted"),
                    Err(error) => {
                        error!(?job, %error, "cannot publish");
                        break;
                    }
                }
            }
        }
    }

    async fn carry_out(
        &self,
        job: &Job,
        recent: &mut HashMap<(Digest, u32), Instant>,
    ) -> Result<(), PublishError> {
        match job {
            Job::Release(id) => self.release(id).await,
            Job::Chunks { object, first, count } => self.chunks_again(object, *first, *count, recent).await,
            Job::Statements => {
                for record in self.store.releases()?.iter().filter(|record| record.published) {
                    self.statement(record).await?;
                }
                Ok(())
            }
        }
    }

    async fn release(&self, id: &ReleaseId) -> Result<(), PublishError> {
        let record = self.store.release(id)?.ok_or_else(|| PublishError::NoRelease(id.clone()))?;
        if record.published {
            return Ok(());
        }
        for object in [&record.release.chunk_list.digest, &record.release.bundle.digest] {
            let count = self.objects.chunk_map(object)?.map_or(0, ChunkMap::count);
            let all = (0..count).map(|index| self.chunk(object, index));
            stream::iter(all).buffer_unordered(WINDOW).try_collect::<()>().await?;
            if self.read_back {
                let all = (0..count).map(|index| self.ensure_kept(object, index));
                stream::iter(all).buffer_unordered(WINDOW).try_collect::<()>().await?;
            }
        }
        // Last: whoever sees the statement finds everything else.
        self.statement(&record).await?;
        self.store.set_published(id)?;
        self.store.commit()?;
        info!(release = %id, bytes = record.release.bundle.size.0, "published");
        (self.published)(id);
        Ok(())
    }

    async fn statement(&self, record: &ReleaseRecord) -> Result<(), PublishError> {
        let id = &record.release.id;
        let statement = self.store.statement(&record.statement)?;
        let statement = statement.ok_or_else(|| PublishError::NoRelease(id.clone()))?;
        let topic = Topic::Metadata(FileName::of_release(&record.statement));
        Ok(self.link.retain(topic, statement.into()).await?)
    }

    async fn chunk(&self, object: &Digest, index: u32) -> Result<(), PublishError> {
        let payload = self.read(object, index)?;
        Ok(self.link.retain(Topic::Chunk { object: *object, index }, payload).await?)
    }

    fn read(&self, object: &Digest, index: u32) -> Result<Bytes, PublishError> {
        self.objects.chunk(object, index)?.ok_or(PublishError::NoChunk { object: *object, index })
    }

    /// A broker may acknowledge and still drop what is too large or too much for it.
    async fn ensure_kept(&self, object: &Digest, index: u32) -> Result<(), PublishError> {
        let expected = self.read(object, index)?;
        let topic = Topic::Chunk { object: *object, index };
        for _ in 0..READ_BACK_ROUNDS {
            if self.link.fetch(&topic, READ_BACK_PATIENCE).await?.as_ref() == Some(&expected) {
                return Ok(());
            }
            self.link.retain(topic.clone(), expected.clone()).await?;
        }
        Err(PublishError::NotKept { object: *object, index })
    }

    async fn chunks_again(
        &self,
        object: &Digest,
        first: u32,
        count: u32,
        recent: &mut HashMap<(Digest, u32), Instant>,
    ) -> Result<(), PublishError> {
        let chunks = self.objects.chunk_map(object)?.map_or(0, ChunkMap::count);
        let now = Instant::now();
        for index in first..first.saturating_add(count).min(chunks) {
            let last = recent.get(&(*object, index));
            if last.is_some_and(|last| now.duration_since(*last) < REPEAT_AFTER) {
                continue;
            }
            self.chunk(object, index).await?;
            if recent.len() >= MAX_REMEMBERED {
                recent.clear();
            }
            recent.insert((*object, index), now);
        }
        Ok(())
    }
}
