//! The statistics that rollouts are decided by: distances between binned distributions and permutation
//! tests over devices. Pure: seeds are arguments, and every result is finite or absent, never NaN.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod distance;
pub mod permutation;
pub mod significance;
