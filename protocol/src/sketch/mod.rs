//! Mergeable summaries of fixed size: what a device saw, in bins that its release's signed reference
//! profile fixed beforehand. Merging is addition, so neither order nor grouping matters.

mod bins;
mod counting;
mod histogram;
mod latency;
#[cfg(feature = "alloc")]
pub mod profile;

pub use bins::{Bins, BinsError, MAX_BINS, Place};
pub use histogram::{Histogram, MergeError};
pub use latency::{LATENCY_BINS, LatencyHistogram, latency_edge_micros};
