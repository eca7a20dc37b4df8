//! The statistics that rollouts are decided by: distances between binned distributions, permutation tests over
//! devices within strata, e-values for first crashes, bounds that show non-inferiority, intervals
//! of few observations, and allocation between arms. Pure: seeds are arguments, and every result is finite or absent, never NaN.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod allocation;
pub mod bounds;
pub mod distance;
pub mod evalue;
pub mod mismatch;
pub mod permutation;
pub mod proportions;
pub mod random;
pub mod significance;

#[cfg(test)]
mod fixture_tests;
