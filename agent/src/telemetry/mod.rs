//! What a release does on this device, folded into sketches of fixed size, window by window.
//!
//! `schedule` says which window of time is open, `window` counts, both pure; `recording` lets gateway
//! and supervisor share one count; `resources` reads `/proc`.

pub mod recording;
pub mod resources;
mod schedule;
pub mod window;

pub use recording::Recording;
pub use window::{Counters, ProfileMismatch, Recorder, Snapshot, Stamp};
