//! What reference data looks like, as devices will count what they see: each value as the input's own type holds it.

use serin_protocol::ids::{FieldName, SegmentNumber};
use serin_protocol::manifest::segments::{SegmentKey, Segmentation};
use serin_protocol::manifest::watch::{Pictured, SummaryKind};
use serin_protocol::manifest::{Source, TensorSpec, Watch, WatchedFeature};
use serin_protocol::sketch::categories::Observed;
use serin_protocol::sketch::profile::{Centroid, Division, FeatureProfile, Profile};
use serin_protocol::sketch::summary::RowSums;
use serin_protocol::tensor::DataType;

use super::ReferenceRows;

/// What is known of the reference data without the model: everything but what it predicts.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// The features.
    pub profile: Profile,
    /// The segment of each row; none where no segments are declared.
    segments: Vec<SegmentNumber>,
    count: usize,
}

impl Watched {
    /// How its rows are told apart.
    pub fn division(&self) -> Division<'_> {
        Division { rows: &self.segments, count: self.count }
    }
}

/// The values of one feature.
enum Seen<'a> {
    Numbers(Vec<f32>),
    Categories(Vec<Observed<'a>>),
}

impl Seen<'_> {
    fn observed(&self, row: usize) -> Observed<'_> {
        match self {
            Self::Numbers(numbers) => {
                Observed::Number(f64::from(numbers.get(row).copied().unwrap_or(f32::NAN)))
            }
            Self::Categories(values) => values.get(row).copied().unwrap_or(Observed::Number(f64::NAN)),
        }
    }
}

/// What the watched features of `inputs` look like in `rows`. `pictures` has what the device program saw of the pictures of
/// each row, none where it saw none; without it what is watched of them is missing everywhere.
pub fn profile(
    rows: &ReferenceRows,
    inputs: &[TensorSpec],
    watch: &Watch,
    pictures: &[Vec<Option<f32>>],
) -> Watched {
    let pictured = watch.pictures(inputs);
    let centroids = centroids(rows, inputs, watch);
    let features = watch.features(inputs);
    let mut seen = Vec::with_capacity(features.len());
    for (place, input) in inputs.iter().enumerate() {
        let about: Vec<&WatchedFeature<'_>> =
            features.iter().filter(|feature| *feature.input == input.name).collect();
        let of_pictures = pictured.iter().find(|pictured| pictured.place == place);
        let column = |pictured: &Pictured, at: usize| {
            let number = |row: usize| pictures.get(row)?.get(pictured.first + at).copied()?;
            (0..rows.len()).map(|row| number(row).unwrap_or(f32::NAN)).collect()
        };
        match of_pictures {
            Some(pictured) => {
                let mut numbers = (0..pictured.summaries.len()).map(|at| column(pictured, at));
                seen.extend(about.iter().map(|feature| match feature.source {
                    Source::Summary(_) => Seen::Numbers(numbers.next().unwrap_or_default()),
                    Source::Value(_) | Source::Category(_) | Source::Text => texts(rows, input),
                }));
            }
            None => seen.extend(of_input(rows, input, &about, watch, &centroids)),
        }
    }
    let segments = watch.segments.as_ref();
    let segments_of = |segmentation| divide(rows, segmentation, &features, &seen);
    let rows_in = segments.map(segments_of).unwrap_or_default();
    let division = Division { rows: &rows_in, count: segments.map_or(0, Segmentation::count) };
    let profiled = features.iter().zip(&seen).map(|(feature, seen)| match seen {
        Seen::Numbers(numbers) => FeatureProfile::numeric(feature.name.clone(), numbers, division),
        Seen::Categories(values) => FeatureProfile::categorical(feature.name.clone(), values, division),
    });
    let names = segments.map_or(&[][..], |segments| &segments.named).iter();
    let profile = Profile {
        features: profiled.collect(),
        centroids,
        segments: names.map(|segment| segment.name.clone()).collect(),
        ..Profile::default()
    };
    Watched { profile, count: division.count, segments: rows_in }
}

/// The values of all features about `input`, in order.
fn of_input<'a>(
    rows: &'a ReferenceRows,
    input: &TensorSpec,
    about: &[&WatchedFeature<'_>],
    watch: &Watch,
    centroids: &[Centroid],
) -> Vec<Seen<'a>> {
    let numbers = |name: &FieldName| {
        let numbers = rows.numbers(name).unwrap_or_default();
        numbers.iter().map(|number| as_held(input.datatype, *number))
    };
    let centroid = centroids.iter().find(|centroid| centroid.input == input.name);
    let centroid = centroid.map_or(&[][..], |centroid| &centroid.values);
    let raw = rows.input(input);
    let held = |row: usize| raw.row(row).map(|number| as_held(input.datatype, number));
    let sums: Vec<RowSums> = match watch.form(input) {
        Some(form) => (0..rows.len()).map(|row| RowSums::of(held(row), form, centroid)).collect(),
        None => Vec::new(),
    };
    let seen = about.iter().map(|feature| match feature.source {
        Source::Value(_) => Seen::Numbers(numbers(&feature.name).map(|number| number as f32).collect()),
        Source::Category(_) => Seen::Categories(numbers(&feature.name).map(Observed::Number).collect()),
        Source::Text => texts(rows, input),
        Source::Summary(summary) => Seen::Numbers(sums.iter().map(|sums| sums.get(summary)).collect()),
    });
    seen.collect()
}

fn texts<'a>(rows: &'a ReferenceRows, input: &TensorSpec) -> Seen<'a> {
    let texts = rows.texts(&input.name).unwrap_or_default();
    Seen::Categories(texts.iter().map(|text| Observed::Text(text)).collect())
}

/// A number as an input of this type holds it.
fn as_held(datatype: DataType, value: f64) -> f64 {
    match datatype {
        DataType::Fp32 => f64::from(value as f32),
        DataType::Fp64
        | DataType::Int64
        | DataType::Int32
        | DataType::Uint8
        | DataType::Bool
        | DataType::Bytes => value,
    }
}

/// The mean row of every input from whose mean distances are watched.
fn centroids(rows: &ReferenceRows, inputs: &[TensorSpec], watch: &Watch) -> Vec<Centroid> {
    let watched = watch.summaries.iter().filter(|summarized| summarized.of.contains(&SummaryKind::Distance));
    let centroid = |input: &TensorSpec| {
        let mut sums = vec![(0.0_f64, 0.0_f64); input.row_elements().unwrap_or(0)];
        let raw = rows.input(input);
        for row in 0..rows.len() {
            for ((count, sum), value) in sums.iter_mut().zip(raw.row(row)) {
                let value = as_held(input.datatype, value);
                if value.is_finite() {
                    *count += 1.0;
                    *sum += value;
                }
            }
        }
        let mean = |(count, sum): &(f64, f64)| if *count > 0.0 { (sum / count) as f32 } else { 0.0 };
        Centroid { input: input.name.clone(), values: sums.iter().map(mean).collect() }
    };
    let input = |name: &FieldName| inputs.iter().find(|input| input.name == *name);
    watched.filter_map(|summarized| input(&summarized.input).map(centroid)).collect()
}

/// The segment of each row.
fn divide(
    rows: &ReferenceRows,
    segmentation: &Segmentation,
    features: &[WatchedFeature<'_>],
    seen: &[Seen<'_>],
) -> Vec<SegmentNumber> {
    let all = 0..rows.len();
    match &segmentation.key {
        SegmentKey::Parameter(name) => {
            let texts = rows.texts(name).unwrap_or_default();
            let segment = |row: usize| {
                let cell = texts.get(row).map_or("", String::as_str);
                match (segmentation.of(Observed::Text(cell)), cell.parse()) {
                    // Requests may have it as a number.
                    (SegmentNumber(0), Ok(number)) => segmentation.of(Observed::Number(number)),
                    (segment, _) => segment,
                }
            };
            all.map(segment).collect()
        }
        SegmentKey::Feature(name) => {
            let mut pairs = features.iter().zip(seen);
            match pairs.find(|(feature, _)| feature.name == *name) {
                Some((_, seen)) => all.map(|row| segmentation.of(seen.observed(row))).collect(),
                None => all.map(|_| SegmentNumber(0)).collect(),
            }
        }
    }
}
