//! Runs the declared steps: raw inputs to what is handed to the model, model outputs to declared outputs.
//! Numbers in, numbers out: no file, clock or process is seen here.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod boxes;
mod categories;
mod decode;
mod finish;
mod image;
mod numbers;
mod prepare;
mod raw;

pub(super) use decode::decoders;
pub(super) use finish::{Column, Data, check, find, finish, taken};
pub(super) use numbers::Numbers;
pub(super) use prepare::{Feed, Preparation};
pub(super) use raw::Raw;
