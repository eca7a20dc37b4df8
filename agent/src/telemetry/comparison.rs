//! Two answers to one request, the live one and a shadow's: how far they agree. Pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serin_protocol::frame::Prediction;
use serin_protocol::message::{Comparison, distance_bins, ratio_bins};
use serin_protocol::sketch::Bins;
use serin_protocol::tensor::{DataType, TensorHeader, split_body};

/// FP32 outputs that differ by no more, relative to the larger of them and 1, agree where no class is declared: what
/// another version of a runtime or another processor makes of the same weights stays far below it.
const TOLERANCE: f32 = 1e-3;

/// What a release made of a request.
#[derive(Clone, Copy, Debug)]
pub struct Made<'a> {
    /// Its outputs.
    pub outputs: &'a [TensorHeader],
    /// Their raw values.
    pub body: &'a [u8],
    /// Class per row, where one is declared.
    pub predictions: &'a [Prediction],
    /// Time it took; none where it shared its run with others, which says nothing of its own.
    pub micros: Option<u64>,
}

impl Made<'_> {
    /// The class predicted for a row, where one is declared.
    fn class(self, row: usize) -> Option<i64> {
        self.predictions.get(row).and_then(Prediction::class)
    }
}

/// Comparisons of one window.
#[derive(Debug)]
pub(super) struct Comparing {
    sum: Comparison,
    distances: Bins,
    ratios: Bins,
}

impl Comparing {
    pub(super) fn new(empty: Comparison) -> Self {
        Self { sum: empty, distances: distance_bins(), ratios: ratio_bins() }
    }

    /// What was compared since the last call; none if nothing was.
    pub(super) fn take(&mut self) -> Option<Comparison> {
        let empty = Comparison::new(self.sum.with.clone());
        let sum = std::mem::replace(&mut self.sum, empty);
        (!sum.is_empty()).then_some(sum)
    }

    pub(super) const fn failed(&mut self) {
        self.sum.failed = self.sum.failed.saturating_add(1);
    }

    pub(super) const fn dropped(&mut self) {
        self.sum.dropped = self.sum.dropped.saturating_add(1);
    }

    /// Both computed the same request.
    pub(super) fn computed(&mut self, live: Made<'_>, shadow: Made<'_>) {
        self.sum.requests = self.sum.requests.saturating_add(1);
        // A shadow computes alone: beside a run of several it would look faster than it is.
        if let (Some(live), Some(shadow)) = (live.micros, shadow.micros) {
            self.sum.ratio.record(&self.ratios, shadow.max(1) as f32 / live.max(1) as f32);
        }
        let rows = rows(live.outputs);
        let outputs = common(live, shadow);
        let distance = |row: usize| {
            let floats = outputs.iter().filter(|output| output.datatype == DataType::Fp32);
            let distances = floats.filter_map(|output| output.distance(row, rows));
            distances.reduce(Distance::larger)
        };
        for row in 0..rows {
            let distance = distance(row);
            if let Some(Distance { absolute, .. }) = distance {
                self.sum.distance.record(&self.distances, absolute);
            }
            let agree = match (live.class(row), shadow.class(row)) {
                (Some(live), Some(shadow)) => live == shadow,
                (Some(_), None) | (None, Some(_)) => false,
                // Values agree as other numbers do.
                (None, None) => {
                    outputs.len() == live.outputs.len()
                        && distance.is_none_or(|distance| distance.relative <= TOLERANCE)
                        && outputs.iter().all(Common::same_unless_floats)
                }
            };
            self.sum.rows = self.sum.rows.saturating_add(1);
            self.sum.agreed = self.sum.agreed.saturating_add(agree.into());
        }
    }
}

/// An output that both made, of one type and shape.
struct Common<'a> {
    datatype: DataType,
    live: &'a [u8],
    shadow: &'a [u8],
}

#[derive(Clone, Copy)]
struct Distance {
    absolute: f32,
    relative: f32,
}

impl Distance {
    /// A value that is no number differs from every number and agrees with its like.
    fn of(live: f32, shadow: f32) -> Self {
        if live.is_nan() && shadow.is_nan() || live.to_bits() == shadow.to_bits() {
            return Self { absolute: 0.0, relative: 0.0 };
        }
        let absolute = (live - shadow).abs();
        if absolute.is_nan() || absolute.is_infinite() {
            return Self { absolute: f32::INFINITY, relative: f32::INFINITY };
        }
        Self { absolute, relative: absolute / live.abs().max(shadow.abs()).max(1.0) }
    }

    const fn larger(self, other: Self) -> Self {
        Self { absolute: self.absolute.max(other.absolute), relative: self.relative.max(other.relative) }
    }
}

impl Common<'_> {
    /// Between the values of row `row` of `rows`; none if it has no values.
    fn distance(&self, row: usize, rows: usize) -> Option<Distance> {
        let (live, _) = self.live.as_chunks::<4>();
        let (shadow, _) = self.shadow.as_chunks::<4>();
        let width = live.len().checked_div(rows)?;
        let place = row * width..(row + 1) * width;
        let pairs = live.get(place.clone())?.iter().zip(shadow.get(place)?);
        pairs
            .map(|(live, shadow)| Distance::of(f32::from_le_bytes(*live), f32::from_le_bytes(*shadow)))
            .reduce(Distance::larger)
    }

    fn same_unless_floats(&self) -> bool {
        self.datatype == DataType::Fp32 || self.live == self.shadow
    }
}

fn rows(outputs: &[TensorHeader]) -> usize {
    outputs.first().and_then(|output| output.shape.first()).map_or(0, |rows| *rows as usize)
}

fn common<'a>(live: Made<'a>, shadow: Made<'a>) -> Vec<Common<'a>> {
    let (Some(live_parts), Some(shadow_parts)) =
        (split_body(live.outputs, live.body), split_body(shadow.outputs, shadow.body))
    else {
        return Vec::new();
    };
    let made: Vec<_> = shadow.outputs.iter().zip(shadow_parts).collect();
    let pairs = live.outputs.iter().zip(live_parts).filter_map(|(header, live)| {
        let like = |other: &TensorHeader| {
            other.name == header.name && other.datatype == header.datatype && other.shape == header.shape
        };
        let (_, shadow) = made.iter().find(|(other, _)| like(other))?;
        Some(Common { datatype: header.datatype, live, shadow })
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, datatype: DataType, shape: &[u32], bytes: usize) -> TensorHeader {
        let shape = shape.iter().copied().collect();
        TensorHeader { name: name.parse().expect("name"), datatype, shape, bytes: bytes as u64 }
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn classes(classes: &[i64]) -> Vec<Prediction> {
        classes.iter().map(|class| Prediction::of_class(*class, 0.5)).collect()
    }

    fn compared(live: Made<'_>, shadow: Made<'_>) -> Comparison {
        let mut comparing = Comparing::new(Comparison::new("m@1".parse().expect("id")));
        comparing.computed(live, shadow);
        comparing.take().expect("compared")
    }

    #[test]
    fn rows_agree_on_the_class_and_lie_as_far_apart_as_their_scores() {
        let outputs = [header("p", DataType::Fp32, &[2, 2], 16)];
        let (live, shadow) = (floats(&[0.9, 0.1, 0.6, 0.4]), floats(&[0.9, 0.1, 0.45, 0.55]));
        let (a, b) = (classes(&[0, 0]), classes(&[0, 1]));
        let live = Made { outputs: &outputs, body: &live, predictions: &a, micros: Some(100) };
        let shadow = Made { outputs: &outputs, body: &shadow, predictions: &b, micros: Some(310) };
        let sum = compared(live, shadow);
        assert_eq!((sum.requests, sum.rows, sum.agreed), (1, 2, 1));
        assert_eq!(sum.distance.under, 1, "the first row is the same");
        assert_eq!(sum.distance.counts.iter().position(|count| *count == 1), Some(15), "0.15");
        assert_eq!(sum.ratio.counts.iter().position(|count| *count == 1), Some(9), "3.1 times");
        assert!(sum.is_sane());
        // A run shared with others says nothing of how long this one takes.
        let sum = compared(Made { micros: None, ..live }, shadow);
        assert_eq!((sum.requests, sum.ratio.counts.iter().sum::<u64>()), (1, 0));
    }

    #[test]
    fn without_a_class_outputs_that_hardly_differ_agree() {
        let outputs = [header("y", DataType::Fp32, &[3], 12), header("n", DataType::Int64, &[3], 24)];
        let bytes = |values: [f32; 3], count: u8| [floats(&values), vec![count; 24]].concat();
        let made = |body| Made { outputs: &outputs, body, predictions: &[], micros: Some(1) };
        let live = bytes([1000.0, 1.0, f32::NAN], 1);
        let near = bytes([1000.5, 1.0005, f32::NAN], 1);
        assert_eq!(compared(made(&live), made(&near)).agreed, 3);
        let far = bytes([1002.0, 1.01, 0.0], 1);
        assert_eq!(compared(made(&live), made(&far)).agreed, 0);
        let other = bytes([1000.0, 1.0, f32::NAN], 2);
        assert_eq!(compared(made(&live), made(&other)).agreed, 0);
        assert_eq!(compared(made(&live), made(&live)).agreed, 3);
    }

    #[test]
    fn other_outputs_are_no_agreement_and_no_harm() {
        let (one, two) = ([header("y", DataType::Fp32, &[1, 2], 8)], [header("z", DataType::Fp32, &[1], 4)]);
        let (a, b) = (floats(&[1.0, 2.0]), floats(&[1.0]));
        let live = Made { outputs: &one, body: &a, predictions: &[], micros: Some(0) };
        let sum = compared(live, Made { outputs: &two, body: &b, predictions: &[], micros: Some(0) });
        assert_eq!((sum.rows, sum.agreed, sum.distance.total()), (1, 0, 0));
        let cut = Made { outputs: &one, body: &b, predictions: &[], micros: Some(0) };
        assert_eq!(compared(live, cut).agreed, 0);
    }
}
