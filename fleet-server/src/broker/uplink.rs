//! Slows devices to the server's pace.
//!
//! Inside the MQTT engine messages travel through channels without a bound. So every message of a device
//! carries a permit of its device's share and of the whole until it has been delivered or dropped, and a
//! device that has none left is simply not read from: its own TCP connection makes it wait.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most bytes of all devices' messages under way to the server.
pub(super) const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of one device's messages under way: its largest packet, twice.
const DEVICE_BYTES: usize = 256 * 1024;

/// What a message weighs besides its payload: topic, identity, queue slots.
const OVERHEAD_BYTES: usize = 512;

/// Most messages under way, which follows.
pub(super) const MAX_MESSAGES: usize = MAX_BYTES / OVERHEAD_BYTES;

/// What devices together may have under way.
#[derive(Debug)]
pub(super) struct Uplink(Arc<Semaphore>);

/// What one device may have under way.
#[derive(Debug, Clone)]
pub(super) struct Share(Arc<Semaphore>);

impl Uplink {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_BYTES)))
    }

    /// Waits until `payload` may enter and returns a copy of it that holds its place until dropped. A copy,
    /// because `payload` is a slice of a read buffer that may be a hundred times larger.
    pub(super) async fn admit(&self, share: &Share, payload: &[u8]) -> Bytes {
        let weight = (payload.len() + OVERHEAD_BYTES).min(DEVICE_BYTES) as u32;
        // The device's share first: who waits for it must not hold what others could use.
        let share = Arc::clone(&share.0).acquire_many_owned(weight).await;
        let whole = Arc::clone(&self.0).acquire_many_owned(weight).await;
        // Neither semaphore is ever closed; were one, the message would pass without a permit.
        Bytes::from_owner(Admitted { payload: payload.into(), _permits: [share.ok(), whole.ok()] })
    }

    /// Bytes that may still enter.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.0.available_permits()
    }
}

impl Share {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(DEVICE_BYTES)))
    }
}

struct Admitted {
    payload: Box<[u8]>,
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

impl AsRef<[u8]> for Admitted {
    fn as_ref(&self) -> &[u8] {
        &self.payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn a_device_waits_for_its_own_messages_and_for_no_others() {
        let uplink = Uplink::new();
        let (loud, quiet) = (Share::new(), Share::new());
        let sample = vec![7; 100 * 1024];
        let held: Vec<_> = (0..2).filter_map(|_| uplink.admit(&loud, &sample).now_or_never()).collect();
        assert_eq!(held.len(), 2);
        assert!(uplink.admit(&loud, &sample).now_or_never().is_none());
        assert!(uplink.admit(&quiet, &sample).now_or_never().is_some());
        drop(held);
        assert!(uplink.admit(&loud, &sample).now_or_never().is_some_and(|bytes| bytes == sample));
        assert_eq!(uplink.free(), MAX_BYTES);
    }

    #[test]
    fn a_copy_that_is_still_queued_holds_its_place() {
        let uplink = Uplink::new();
        let bytes = uplink.admit(&Share::new(), b"event").now_or_never().expect("there is room");
        let queued = bytes.slice(..);
        drop(bytes);
        assert!(uplink.free() < MAX_BYTES);
        drop(queued);
        assert_eq!(uplink.free(), MAX_BYTES);
    }
}
