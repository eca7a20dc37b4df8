//! Bounds what a device may ask for before it has taken it.
//!
//! Subscribing is getting, so a device that keeps subscribing without reading would fill the server's
//! memory: inside the MQTT engine answers wait in a channel without a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::limits::MAX_SUBSCRIPTIONS;

/// Retained messages that a device has asked for and not been sent: every subscription, twice, so that one
/// that gave up waiting may ask again. Each waits as a few hundred bytes.
pub(super) const MAX_ASKED: usize = 2 * MAX_SUBSCRIPTIONS;

/// What one device has asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked(Arc<AtomicUsize>);

impl Asked {
    /// Takes note of another; false when there are too many.
    pub(super) fn add(&self) -> bool {
        let add = |asked| (asked < MAX_ASKED).then_some(asked + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).is_ok()
    }

    /// One has been sent, or will not be.
    pub(super) fn done(&self) {
        // What came to be retained between the question and the answer was never counted.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |asked| asked.checked_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_may_ask_on() {
        let asked = Asked::default();
        assert!((0..MAX_ASKED).all(|_| asked.add()));
        assert!(!asked.add());
        asked.done();
        assert!(asked.add());
        (0..2 * MAX_ASKED).for_each(|_| asked.done());
        assert!((0..MAX_ASKED).all(|_| asked.add()));
    }
}
