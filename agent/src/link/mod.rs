//! The line to the fleet: which chunks to ask for and which events to send, as pure functions.

pub mod outbox;
pub mod transfer;
