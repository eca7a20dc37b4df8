//! Serin's fleet server.

pub mod broker;
pub mod registry;
pub mod rollout;
pub mod stats;
pub mod store;
