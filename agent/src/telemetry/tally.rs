//! The counts of one window, while it is open.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::{iter, mem};

use serin_protocol::frame::Prediction;
use serin_protocol::ids::FieldName;
use serin_protocol::sketch::profile::{Profile, SketchProfile};
use serin_protocol::sketch::{Histogram, LatencyHistogram};
use serin_protocol::tensor::DataType;

use super::window::Counters;

/// Bytes of one FP32 value.
const WIDTH: usize = 4;

/// An input whose values are features.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) input: FieldName,
    /// Features, which is values per row.
    pub(super) row: usize,
    /// Number of the first of them.
    pub(super) first: usize,
}

/// Counts of one window.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) counters: Counters,
    pub(super) worker_deaths: u32,
    pub(super) latency: LatencyHistogram,
    pub(super) features: Vec<Histogram>,
    pub(super) predictions: Histogram,
    pub(super) confidence: Histogram,
}

impl Tally {
    pub(super) fn new(profile: &Profile) -> Self {
        Self {
            counters: Counters::default(),
            worker_deaths: 0,
            latency: LatencyHistogram::default(),
            features: profile
                .features
                .iter()
                .map(|feature| Histogram::over_bins(&feature.sketch.bins))
                .collect(),
            predictions: empty(profile.predictions.as_ref()),
            confidence: empty(profile.confidence.as_ref()),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counters == Counters::default() && self.worker_deaths == 0
    }

    pub(super) fn record_rows(
        &mut self,
        profile: &Profile,
        watched: &Watched,
        datatype: DataType,
        values: &[u8],
    ) {
        let Some(width) = datatype.width() else { return };
        let rows = values.len().div_ceil(watched.row.saturating_mul(width).max(1));
        let sketches = profile.features.iter().zip(&mut self.features);
        for (at, (feature, histogram)) in sketches.skip(watched.first).take(watched.row).enumerate() {
            let bins = &feature.sketch.bins;
            if datatype == DataType::Fp32 {
                let (values, _cut) = values.as_chunks::<WIDTH>();
                let column = values.iter().skip(at).step_by(watched.row).map(|raw| f32::from_le_bytes(*raw));
                // What a cut row lacks is missing.
                histogram.record_all(bins, column.chain(iter::repeat(f32::NAN)).take(rows));
            } else {
                let number = |row: usize| datatype.number(values, row * watched.row + at);
                // Beyond the range of single precision is beyond every bin.
                let column = (0..rows).map(|row| number(row).map_or(f32::NAN, |value| value as f32));
                histogram.record_all(bins, column);
            }
        }
    }

    pub(super) fn record_prediction(&mut self, profile: &Profile, prediction: Prediction) {
        if let Some(sketch) = &profile.predictions {
            self.predictions.record(&sketch.bins, prediction.class as f32);
        }
        if let Some(sketch) = &profile.confidence {
            self.confidence.record(&sketch.bins, prediction.confidence);
        }
    }
}

pub(super) fn empty(sketch: Option<&SketchProfile>) -> Histogram {
    sketch.map_or_else(Histogram::default, |sketch| Histogram::over_bins(&sketch.bins))
}

pub(super) fn renew(histogram: &mut Histogram, sketch: Option<&SketchProfile>) -> Histogram {
    mem::replace(histogram, empty(sketch))
}
