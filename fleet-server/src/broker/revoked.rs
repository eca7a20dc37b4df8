//! Devices that are cut off: the broker lets none of them in and ends the sessions they have.

use std::collections::BTreeSet;
use std::sync::{PoisonError, RwLock};

use serin_protocol::ids::DeviceId;
use tokio::sync::watch;

/// Their names, shared by whoever decides and the broker.
#[derive(Debug, Default)]
pub struct Revoked {
    names: RwLock<BTreeSet<DeviceId>>,
    changed: watch::Sender<u64>,
}

impl Revoked {
    /// One more.
    pub fn insert(&self, device: DeviceId) {
        self.names.write().unwrap_or_else(PoisonError::into_inner).insert(device);
        self.changed.send_modify(|times| *times = times.wrapping_add(1));
    }

    /// One less: it was forgotten, and another may take its name.
    pub fn remove(&self, device: &DeviceId) {
        self.names.write().unwrap_or_else(PoisonError::into_inner).remove(device);
    }

    /// Whether this device is cut off.
    pub fn contains(&self, device: &DeviceId) -> bool {
        self.names.read().unwrap_or_else(PoisonError::into_inner).contains(device)
    }

    /// Changes whenever there is one more.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
