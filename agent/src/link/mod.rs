//! The link to the broker.

pub mod mqtt;
