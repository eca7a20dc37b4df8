//! One model: its ONNX file read, put in order, rewritten to run well, and run by tract. Model files are untrusted input;
//! only a worker's process comes here. A crate of its own, so that nothing else of the agent sees tract.
//!
//! | module | what lives there |
//! |---|---|
//! | `model` | loading and running |
//! | `typed` | the graph once types and shapes are known |
//! | `graph` | what the file says of itself, and what of it is kept |
//! | `operators`, `misread` | what of a model cannot be run, runs slowly, or would be read as something else |
//! | `branches`, `softmax` | what is rewritten to run well |
//! | `steps` | simplifying and optimising, with a call between any two steps |
//! | `nnef` | the second form of a model |
//! | `tensors` | prepared values as tensors, and outputs as what can be answered |
//! | `panics` | panics of tract as errors |
//! | `exhaustion` | how the layers below say that memory ran out |

mod branches;
mod exhaustion;
mod graph;
mod misread;
mod model;
pub mod nnef;
mod operators;
pub mod panics;
mod softmax;
mod steps;
mod tensors;
mod typed;

pub use exhaustion::tells_of_exhaustion;
pub use model::{Model, ROWS_AT_ONCE, Record};
