//! Serin's fleet server.

pub mod rollout;
