//! The link to the broker: the session, and as pure functions which chunks to ask for, which messages to
//! send and how long to wait between tries.

pub mod backoff;
pub mod certificates;
pub mod mqtt;
pub mod outbox;
pub mod tls;
pub mod transfer;
