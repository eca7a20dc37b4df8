//! The counts of one window in one segment, while it is open.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::mem;

use serin_protocol::frame::Prediction;
use serin_protocol::manifest::Source;
use serin_protocol::sketch::categories::Observed;
use serin_protocol::sketch::profile::{FeatureProfile, Profile, SketchProfile};
use serin_protocol::sketch::{Histogram, LatencyHistogram, OpenHistogram, Quality};
use serin_protocol::tensor::DataType;

use super::watched::{Rows, Watched};
use super::window::Counters;

/// Bytes of one FP32 value.
const WIDTH: usize = 4;

/// Counts of one window in one segment.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) counters: Counters,
    pub(super) worker_deaths: u32,
    pub(super) latency: LatencyHistogram,
    pub(super) features: Vec<OpenHistogram>,
    pub(super) predictions: Histogram,
    pub(super) confidence: Histogram,
    pub(super) entropy: Histogram,
    pub(super) quality: Option<Quality>,
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
                .map(|feature| OpenHistogram::over_bins(&feature.sketch.bins))
                .collect(),
            predictions: empty(profile.predictions.as_ref()),
            confidence: empty(profile.confidence.as_ref()),
            entropy: empty(profile.entropy.as_ref()),
            quality: None,
        }
    }

    /// Whether nothing is counted. Rows without a request are those of one that began in another segment.
    pub(super) fn is_empty(&self) -> bool {
        self.counters == Counters::default()
            && self.worker_deaths == 0
            && self.quality.is_none()
            && self.predictions.total() == 0
            && self.features.first().is_none_or(|feature| feature.total() == 0)
    }

    /// Counts those of `rows` that `takes` says belong here.
    pub(super) fn record_rows(
        &mut self,
        profile: &Profile,
        watched: &Watched,
        rows: Rows<'_>,
        takes: impl Fn(usize) -> bool + Copy,
    ) {
        let takes_all = (0..rows.count).all(takes);
        let sketches = profile.features.iter().zip(&mut self.features).skip(watched.first);
        for (source, (feature, recording)) in watched.sources.iter().zip(sketches) {
            match source {
                Source::Value(place) if takes_all && rows.datatype == DataType::Fp32 => {
                    let (values, _cut) = rows.values.as_chunks::<WIDTH>();
                    recording.record_column(&feature.sketch.bins, values, *place, rows.width, rows.count);
                }
                Source::Value(place) => record_numbers(feature, recording, rows, *place, takes),
                Source::Category(place) => {
                    let number = |row| rows.number(row, *place).unwrap_or(f64::NAN);
                    let values = (0..rows.count).filter(|row| takes(*row));
                    values.for_each(|row| categorize(feature, recording, Observed::Number(number(row))));
                }
                Source::Text => {
                    let texts = rows.texts().enumerate().filter(|(row, _)| takes(*row));
                    texts.for_each(|(_, text)| categorize(feature, recording, Observed::Text(&text)));
                }
                // Below, all of a row together.
                Source::Summary(_) => {}
            }
        }
        if watched.is_summarized() {
            self.summarize(profile, watched, rows, takes);
        }
    }

    fn summarize(
        &mut self,
        profile: &Profile,
        watched: &Watched,
        rows: Rows<'_>,
        takes: impl Fn(usize) -> bool,
    ) {
        for row in (0..rows.count).filter(|row| takes(*row)) {
            let Some(about) = watched.about(profile, rows, row) else { continue };
            for (at, (feature, summary)) in watched.summaries().enumerate() {
                let number = watched.first + feature;
                let (feature, recording) = (profile.features.get(number), self.features.get_mut(number));
                if let (Some(feature), Some(recording)) = (feature, recording) {
                    recording.record(&feature.sketch.bins, about.get(at, summary));
                }
            }
        }
    }

    pub(super) fn record_prediction(&mut self, profile: &Profile, prediction: Prediction) {
        let record = |histogram: &mut Histogram, sketch: &Option<SketchProfile>, value: f32| {
            if let Some(sketch) = sketch {
                histogram.record(&sketch.bins, value);
            }
        };
        match prediction {
            Prediction::Class { class, confidence, entropy } => {
                record(&mut self.predictions, &profile.predictions, class as f32);
                record(&mut self.confidence, &profile.confidence, confidence);
                record(&mut self.entropy, &profile.entropy, entropy);
            }
            Prediction::Value(value) => record(&mut self.predictions, &profile.predictions, value),
        }
    }
}

fn record_numbers(
    feature: &FeatureProfile,
    recording: &mut OpenHistogram,
    rows: Rows<'_>,
    place: usize,
    takes: impl Fn(usize) -> bool,
) {
    // Beyond the range of single precision is beyond every bin; what a cut row lacks is missing.
    let value = |row| rows.number(row, place).map_or(f32::NAN, |value| value as f32);
    recording.record_all(&feature.sketch.bins, (0..rows.count).filter(|row| takes(*row)).map(value));
}

fn categorize(feature: &FeatureProfile, recording: &mut OpenHistogram, value: Observed<'_>) {
    if let Some(categories) = feature.categories() {
        recording.count(categories.place(value));
    }
}

fn empty(sketch: Option<&SketchProfile>) -> Histogram {
    sketch.map_or_else(Histogram::default, |sketch| Histogram::over_bins(&sketch.bins))
}

pub(super) fn renew(histogram: &mut Histogram, sketch: Option<&SketchProfile>) -> Histogram {
    mem::replace(histogram, empty(sketch))
}
