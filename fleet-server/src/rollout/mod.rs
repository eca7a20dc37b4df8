//! Rollouts: who gets a release when, and what stops it. Pure: `handle(now, event) -> effects`, no
//! tokio, no files, no clock, no randomness; the same events give the same rollout on every machine.
//!
//! `plan` is the strategy as data; `cohort` orders devices; `evidence` is what they showed; `gate` judges
//! it into a `verdict`; `engine` is the machine that turns events into orders and verdicts.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod cohort;
mod engine;
pub mod event;
pub mod evidence;
pub mod fleet;
mod gate;
pub mod notation;
pub mod plan;
pub mod preview;
pub mod state;
pub mod verdict;

pub use engine::Rollout;

#[cfg(test)]
mod test_fleet;
