//! Triggers of training: when a model should be trained anew, who is asked to, and which release answers. Pure.
//!
//! One trigger of a model is open at a time, and after it a while passes before the next, so that a pipeline is asked
//! once for what many looks show.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod book;
pub mod rule;
pub mod view;

pub use book::{Progress, Subject, Trigger, TriggerBook, TriggerError};
pub use rule::{Cause, TriggerId, TriggerRule};
