//! Answers that are on their way: together they take no more than there is for them, however slowly callers read.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::Written;
use super::refusal::Refusal;

/// Answers of fewer bytes are not counted: those of all connections together are a few megabytes.
const SMALL: usize = 16 << 10;

/// Bytes with their share of what all answers may take, which is given back when they have been sent or given up.
struct Held {
    bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// `written` with its share of `budget`, of `all` bytes; an answer larger than that takes all of it.
pub(super) fn hold(written: Written, budget: &Arc<Semaphore>, all: usize) -> Result<Written, Refusal> {
    let Written { json, raw } = written;
    let bytes = json.len() + raw.as_ref().map_or(0, Bytes::len);
    if bytes < SMALL.min(all) {
        return Ok(Written { json, raw });
    }
    let wanted = u32::try_from(bytes.min(all)).unwrap_or(u32::MAX);
    let share = Arc::clone(budget).try_acquire_many_owned(wanted);
    let share = share.map_err(|_| Refusal::too_many("too many large answers are still being read"))?;
    // It is dropped when the last of the answer has been handed to the system.
    Ok(Written { json: Bytes::from_owner(Held { bytes: json, _share: share }), raw })
}
