//! A bundle on its way to whoever reads it over HTTP, piece by piece. Whoever takes a piece too slowly loses his
//! place, so that nobody keeps others out by not reading on.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use serin_protocol::ids::Digest;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;

use crate::registry::objects::ObjectStore;

/// How fast a bundle must be taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Time before that counts.
    grace: Duration,
    /// Time for each piece of 60 KiB.
    piece: Duration,
}

impl Default for Patience {
    /// Ten seconds a piece, 6 KiB/s: the slowest link that a bundle is worth waiting for. A minute before it,
    /// as buffers on the way hide the first pieces.
    fn default() -> Self {
        Self { grace: Duration::from_mins(1), piece: Duration::from_secs(10) }
    }
}

/// The object piece by piece, each read where reading may wait. Who holds the place is `permit`.
pub(super) fn pieces(
    objects: Arc<ObjectStore>,
    object: Digest,
    patience: Patience,
    permit: OwnedSemaphorePermit,
) -> ReceiverStream<io::Result<Bytes>> {
    // One waits while the next is read.
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        hand_out(objects, object, patience, sender).await;
        drop(permit);
    });
    ReceiverStream::new(receiver)
}

/// Ends with the object, with its reader, or with its reader's time: then the answer is shorter than announced,
/// which every client notices.
async fn hand_out(
    objects: Arc<ObjectStore>,
    object: Digest,
    patience: Patience,
    sender: mpsc::Sender<io::Result<Bytes>>,
) {
    let begun = Instant::now();
    for index in 0_u32.. {
        let objects = Arc::clone(&objects);
        let read = tokio::task::spawn_blocking(move || objects.chunk(&object, index)).await;
        let piece = match read.map_err(io::Error::other) {
            Ok(Ok(None)) => return,
            Ok(Ok(Some(piece))) => Ok(piece),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(error) => Err(error),
        };
        let broken = piece.is_err();
        let until = begun + patience.grace.saturating_add(patience.piece.saturating_mul(index));
        match timeout_at(until, sender.send(piece)).await {
            Ok(Ok(())) if !broken => {}
            Ok(Ok(()) | Err(_)) => return,
            Err(_) => {
                tracing::debug!(%object, index, "a reader was too slow");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;
    use serin_protocol::chunk::CHUNK_BYTES;
    use tokio::sync::Semaphore;

    fn stored() -> (tempfile::TempDir, Arc<ObjectStore>, Digest, Vec<u8>) {
        let folder = tempfile::tempdir().expect("a folder");
        let objects = ObjectStore::open(folder.path()).expect("opens");
        let bytes: Vec<u8> = (0..CHUNK_BYTES * 4 + 9).map(|at| (at % 251) as u8).collect();
        let object = objects.put(bytes.as_slice()).expect("stored");
        (folder, Arc::new(objects), object, bytes)
    }

    #[tokio::test]
    async fn an_object_is_handed_out_whole_to_one_who_reads() {
        let (_folder, objects, object, bytes) = stored();
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.expect("open");
        let pieces = pieces(objects, object, Patience::default(), permit);
        let read: Vec<_> = pieces.map(|piece| piece.expect("readable")).collect().await;
        assert_eq!(read.concat(), bytes);
    }

    #[tokio::test]
    async fn one_who_stops_reading_loses_his_place() {
        let (_folder, objects, object, _) = stored();
        let places = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&places).acquire_owned().await.expect("open");
        let patience = Patience { grace: Duration::from_millis(20), piece: Duration::from_millis(1) };
        let pieces = pieces(objects, object, patience, permit);
        // The connection is still there, and nobody reads from it.
        drop(places.acquire().await.expect("the place is free again"));
        drop(pieces);
    }
}
