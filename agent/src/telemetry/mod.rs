//! What a release does on this device, folded into sketches of fixed size, window by window.
//!
//! `schedule` says which window of time is open, `window` counts, `effort` sums, all pure; `recording` lets gateway
//! and supervisor share one count; `resources` reads `/proc`.

pub mod effort;
pub mod recording;
pub mod resources;
mod schedule;
pub mod window;

pub use effort::Effort;
pub use recording::Recording;
pub use resources::Memory;
pub use window::{Counters, ProfileMismatch, Recorder, Snapshot, Stamp};
