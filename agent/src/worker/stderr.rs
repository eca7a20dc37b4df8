//! A worker's standard error: into the log up to a bound, its end kept for the coroner.

use serin_protocol::ids::ReleaseId;
use tokio::io::AsyncReadExt as _;
use tokio::process::ChildStderr;
use tracing::warn;

/// Bytes kept of the end: enough for a panic message with its place.
const TAIL_BYTES: usize = 4096;
/// Bytes of one worker that are logged: a model that chatters must not fill the device's log.
const LOGGED_BYTES: usize = 16 * 1024;

/// Reads to the end and gives back the last words.
pub(super) async fn follow(mut stderr: ChildStderr, release: ReleaseId) -> String {
    let mut tail: Vec<u8> = Vec::new();
    let mut buffer = [0_u8; 1024];
    let mut logged = 0;
    // A broken pipe is its end as well.
    while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
        let piece = buffer.get(..count).unwrap_or_default();
        if logged < LOGGED_BYTES {
            logged += count;
            warn!(%release, text = %String::from_utf8_lossy(piece).trim_end(), "worker says");
            if logged >= LOGGED_BYTES {
                warn!(%release, "worker says too much, the rest is not logged");
            }
        }
        tail.extend_from_slice(piece);
        if tail.len() > TAIL_BYTES {
            tail.drain(..tail.len() - TAIL_BYTES);
        }
    }
    String::from_utf8_lossy(&tail).into_owned()
}
