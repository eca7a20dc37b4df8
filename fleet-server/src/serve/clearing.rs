//! Waits for the broker's word that it has dropped what it kept of a device, and tells the fleet.

use std::sync::Arc;

use bytes::Bytes;
use serin_protocol::ids::{DeviceId, UnixMillis};
use serin_protocol::topic::Topic;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::now;
use crate::broker::link::{Link, LinkDown};
use crate::fleet::Fleet;

/// Most that may wait for the broker's word. What does not fit stays owed and is said again with the next connection.
pub(super) const MAX_CLEARINGS: usize = 4096;

/// What the broker was told to drop.
pub(super) struct Clearing {
    device: DeviceId,
    since: UnixMillis,
    words: Vec<oneshot::Receiver<()>>,
}

impl Clearing {
    /// Tells it, behind all that was said before.
    pub(super) fn begin(
        link: &Link,
        device: DeviceId,
        since: UnixMillis,
        topics: Vec<Topic>,
    ) -> Result<Self, LinkDown> {
        // An empty retained message takes the kept one away.
        let words = topics.into_iter().map(|topic| link.retain_soon(topic, Bytes::new()));
        Ok(Self { device, since, words: words.collect::<Result<_, _>>()? })
    }
}

/// Tells the fleet of each that is done, until no more can come.
pub(super) async fn note(fleet: Arc<Fleet>, mut begun: mpsc::Receiver<Clearing>) {
    while let Some(Clearing { device, since, words }) = begun.recv().await {
        if futures::future::try_join_all(words).await.is_err() {
            // The connection is lost: said again with the next.
            continue;
        }
        let fleet = Arc::clone(&fleet);
        let noted = tokio::task::spawn_blocking(move || fleet.cleared(&device, since, now())).await;
        if let Ok(Err(error)) = noted {
            error!(%error, "what the broker has dropped could not be noted");
        }
    }
}
