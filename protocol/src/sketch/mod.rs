//! Mergeable summaries of fixed size: what a device saw, in bins that its release's signed reference
//! profile fixed beforehand. Merging is addition, so neither order nor grouping matters.

mod bins;
#[cfg(feature = "alloc")]
pub mod categories;
mod counting;
mod histogram;
mod latency;
mod open_histogram;
pub(crate) mod packed;
#[cfg(feature = "alloc")]
pub mod profile;
mod quality;
#[cfg(feature = "alloc")]
pub mod summary;

pub use bins::{Bins, BinsError, MAX_BINS, Place};
pub use histogram::{Histogram, MergeError};
pub use latency::{LATENCY_BINS, LatencyHistogram, latency_edge_micros};
pub use open_histogram::OpenHistogram;
pub use quality::{CALIBRATION_BINS, CalibrationBin, ClassQuality, Quality, ValueQuality};

/// Segments of a release's inputs: four named ones, for each of which enough is seen to say something, and the rest.
/// Every sketch is kept once for each on the device.
pub const MAX_SEGMENTS: usize = 5;
