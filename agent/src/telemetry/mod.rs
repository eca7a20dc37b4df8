//! What a release does on this device, folded into sketches of fixed size, window by window.
//!
//! `schedule` says which window of time is open, `window` counts (in a `tally` for each segment) what `watched` finds in
//! requests, `effort` sums, `comparison` holds a shadow's answers against the live ones, `answers` remembers predictions
//! until `truth` becomes known, all pure; `recording` lets gateway and supervisor share one count; `resources` reads
//! `/proc`.

pub mod answers;
pub mod comparison;
pub mod effort;
pub mod recording;
pub mod resources;
mod schedule;
mod tally;
pub mod truth;
mod watched;
pub mod window;

pub use answers::Answers;
pub use comparison::Made;
pub use effort::Effort;
pub use recording::Recording;
pub use resources::Memory;
pub use truth::{Truth, Untrue};
pub use watched::{Asked, Segments};
pub use window::{Conduct, Counters, Recorder, Snapshot, Stamp};
