//! What a release does on this device, folded into sketches of fixed size, window by window.
//!
//! `schedule` says which window of time is open, `window` counts (in its `tally`), `effort` sums, `comparison` holds a
//! shadow's answers against the live ones, all pure; `recording` lets gateway
//! and supervisor share one count; `resources` reads `/proc`.

pub mod comparison;
pub mod effort;
pub mod recording;
pub mod resources;
mod schedule;
mod tally;
pub mod window;

pub use comparison::Made;
pub use effort::Effort;
pub use recording::Recording;
pub use resources::Memory;
pub use window::{Counters, ProfileMismatch, Recorder, Snapshot, Stamp};
