//! Serin's fleet server.

pub mod api;
pub mod broker;
pub mod cli;
pub mod config;
pub mod fleet;
pub mod ingest;
pub mod registry;
pub mod rollout;
pub mod serve;
pub mod stats;
pub mod store;
