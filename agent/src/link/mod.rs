//! The line to the fleet: which chunks to ask for and which messages to send, as pure functions.

pub mod backoff;
pub mod outbox;
pub mod transfer;
