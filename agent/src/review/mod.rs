//! Review samples on the device: which rows are taken, what of them is left out before anything is kept, and the few
//! that wait to be sent. Nothing here is ever on the device's disk.
//!
//! [`choose`] is pure; [`tray`] holds the day's budget and what waits, and is shared by gateway and supervisor.

pub mod choose;
pub mod tray;

pub use choose::Chooser;
pub use tray::{Limits, Sampler, Tray};
