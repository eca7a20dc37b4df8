pub mod rollout;
pub mod stats;
