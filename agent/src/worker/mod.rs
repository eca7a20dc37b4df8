//! One process per loaded model: what it does inside its sandbox, and how the supervisor starts, asks,
//! watches and ends it. Model files are untrusted input, and only this process ever parses them.
//!
//! | module | side | what lives there |
//! |---|---|---|
//! | [`serve`] | worker | the process: confine, load, answer frames |
//! | `limits`, `sandbox` | worker | resource limits; files and network out of reach |
//! | `engine`, `graph`, `model`, `pipeline` | worker | one request; the ONNX file, tract, the declared steps |
//! | `ml` | worker | operators of classical models |
//! | [`process`] | supervisor | the handle: start, ask, stop, learn of its death |
//! | `driver`, `wire`, `stderr` | supervisor | its task: one request at a time, deadlines, reaping |
//! | [`death`] | supervisor | which end a process came to (pure) |
//! | [`golden`] | supervisor | golden vectors against a live worker |
//! | [`qualify`], [`verdict`] | supervisor | the same with measurements, as a command for the packer; what it prints |

pub mod death;
mod driver;
mod engine;
pub mod golden;
mod graph;
mod limits;
mod ml;
mod model;
mod pipeline;
pub mod process;
pub mod qualify;
mod sandbox;
pub mod serve;
mod stderr;
pub mod verdict;
mod wire;

/// Whether this kernel keeps files and network out of reach of a worker.
pub fn files_can_be_closed() -> bool {
    sandbox::files_can_be_closed()
}

pub use process::{InferError, Inferred, StartFault, Worker, WorkerSpec};
