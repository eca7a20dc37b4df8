//! Runs the declared steps: raw inputs to what is handed to the model, model outputs to declared outputs.
//! Numbers in, numbers out: no file, clock or process is seen here. A crate of its own, shared by what runs the model
//! and what surrounds it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod boxes;
mod categories;
mod decode;
mod finish;
mod image;
mod numbers;
mod prepare;
mod raw;
mod room;

pub use decode::decoders;
pub use finish::{Column, Data, check, find, finish, taken};
pub use numbers::Numbers;
pub use prepare::{Fed, Feed, Preparation};
pub use raw::Raw;
