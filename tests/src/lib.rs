//! Starts real servers, brokers and devices on free loopback ports, feeds them real rows, and waits for
//! what a user would wait for. Everything started here is stopped when its value is dropped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

pub mod adversary;
pub mod alertmanager;
pub mod broker;
pub mod bundles;
pub mod certificates;
pub mod device;
pub mod drifting;
pub mod goals;
pub mod kill_loop;
pub mod lab;
pub mod many_devices;
pub mod memory;
pub mod mlserver;
pub mod power_cut;
pub mod process;
pub mod receiver;
pub mod samples;
pub mod server;
pub mod sim;
pub mod traffic;

use std::time::{Duration, Instant};

/// Asks `look` until it answers, at most for `limit`. `look` itself should wait for an event where
/// there is one; the pause between two looks only keeps it from spinning.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        anyhow::ensure!(started.elapsed() < limit, "waited {limit:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
