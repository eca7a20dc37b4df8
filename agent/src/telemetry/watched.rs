//! Where in the raw values of a request the watched features lie, and to which segment each row belongs. Pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::borrow::Cow;
use std::iter;

use serde_json::{Map, Value};
use serin_protocol::ids::{FieldName, SegmentNumber};
use serin_protocol::manifest::segments::{SegmentKey, Segmentation};
use serin_protocol::manifest::{Manifest, Source};
use serin_protocol::sketch::categories::Observed;
use serin_protocol::sketch::profile::Profile;
use serin_protocol::sketch::summary::{Form, RowSums, Summary};
use serin_protocol::tensor::{DataType, TensorHeader};

/// An inference as it was asked for: the raw inputs, before any preprocessing.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// What the body holds.
    pub inputs: &'a [TensorHeader],
    /// Raw values, one input after the other.
    pub body: &'a [u8],
    /// The request's own parameters.
    pub parameters: &'a Map<String, Value>,
}

impl<'a> Asked<'a> {
    /// Every input with its values; of a body cut short with what there is.
    fn parts(self) -> impl Iterator<Item = (&'a TensorHeader, &'a [u8])> {
        let mut rest = self.body;
        self.inputs.iter().map(move |header| {
            let length = usize::try_from(header.bytes).unwrap_or(usize::MAX).min(rest.len());
            let (part, behind) = rest.split_at(length);
            rest = behind;
            (header, part)
        })
    }
}

/// An input of which something is watched.
#[derive(Debug)]
pub(super) struct Watched {
    input: FieldName,
    /// Values of a row.
    width: usize,
    /// Number of the first feature.
    pub(super) first: usize,
    /// What its features are, in order.
    pub(super) sources: Vec<Source>,
    /// How its values lie, where numbers about whole rows are watched.
    form: Option<Form>,
    /// Where what the worker saw of its pictures lies, where that is watched.
    pictured: Option<Columns>,
}

/// Which of the numbers about a row's pictures are an input's.
#[derive(Clone, Copy, Debug)]
struct Columns {
    /// The first of them.
    first: usize,
    /// All numbers of a row.
    stride: usize,
}

/// The numbers about one row of an input.
#[derive(Debug)]
pub(super) enum About<'a> {
    /// They follow from its values.
    Sums(RowSums),
    /// The worker saw them: little-endian, in the order of the input's features.
    Seen(&'a [u8]),
}

impl About<'_> {
    /// The number `summary`, the input's `at`th; NaN where there is none.
    pub(super) fn get(&self, at: usize, summary: Summary) -> f32 {
        match self {
            Self::Sums(sums) => sums.get(summary),
            Self::Seen(numbers) => {
                numbers.as_chunks().0.get(at).copied().map_or(f32::NAN, f32::from_le_bytes)
            }
        }
    }
}

/// Rows of one input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    pub(super) datatype: DataType,
    /// Values of a row.
    pub(super) width: usize,
    pub(super) count: usize,
    pub(super) values: &'a [u8],
    /// What the worker saw of the pictures of all inputs.
    pub(super) pictures: &'a [u8],
}

impl Rows<'_> {
    pub(super) fn number(&self, row: usize, place: usize) -> Option<f64> {
        self.datatype.number(self.values, row.checked_mul(self.width)?.checked_add(place)?)
    }

    /// Each text, behind its length; what is cut ends them.
    pub(super) fn texts(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let mut rest = self.values;
        iter::from_fn(move || {
            let (length, behind) = rest.split_first_chunk::<4>()?;
            let (text, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = behind;
            Some(String::from_utf8_lossy(text))
        })
    }
}

impl Watched {
    /// All inputs of which something is watched.
    pub(super) fn all(manifest: &Manifest) -> Vec<Self> {
        let features = manifest.features();
        let pictures = manifest.watch.pictures(&manifest.inputs);
        let stride = pictures.iter().map(|pictured| pictured.summaries.len()).sum();
        let mut first = 0;
        let watched = manifest.inputs.iter().enumerate().map(|(place, input)| {
            let pictured = pictures.iter().find(|pictured| pictured.place == place);
            let sources: Vec<Source> = features
                .iter()
                .filter(|feature| *feature.input == input.name)
                .map(|feature| feature.source)
                .collect();
            let from = first;
            first += sources.len();
            Self {
                input: input.name.clone(),
                width: input.row_elements().unwrap_or(1).max(1),
                first: from,
                sources,
                form: manifest.watch.form(input),
                pictured: pictured.map(|pictured| Columns { first: pictured.first, stride }),
            }
        });
        watched.filter(|watched| !watched.sources.is_empty()).collect()
    }

    /// Its features that are numbers about whole rows: which of all its features each is, and which number.
    pub(super) fn summaries(&self) -> impl Iterator<Item = (usize, Summary)> {
        self.sources.iter().enumerate().filter_map(|(feature, source)| match source {
            Source::Summary(summary) => Some((feature, *summary)),
            Source::Value(_) | Source::Category(_) | Source::Text => None,
        })
    }

    fn rows<'a>(&self, header: &TensorHeader, values: &'a [u8], pictures: &'a [u8]) -> Rows<'a> {
        let (datatype, width) = (header.datatype, self.width);
        let rows = Rows { datatype, width, count: 0, values, pictures };
        let count = match datatype.width() {
            Some(bytes) => values.len().div_ceil(width.saturating_mul(bytes).max(1)),
            None => rows.texts().count(),
        };
        Rows { count, ..rows }
    }

    /// Whether numbers about whole rows are watched.
    pub(super) const fn is_summarized(&self) -> bool {
        self.form.is_some() || self.pictured.is_some()
    }

    /// The numbers about one row, where such are watched.
    pub(super) fn about<'a>(&self, profile: &Profile, rows: Rows<'a>, row: usize) -> Option<About<'a>> {
        if let Some(Columns { first, stride }) = self.pictured {
            let begin = row.checked_mul(stride)?.checked_add(first)?;
            let seen = rows.pictures.get(begin.checked_mul(size_of::<f32>())?..);
            return Some(About::Seen(seen.unwrap_or_default()));
        }
        let values = (0..self.width).map(|place| rows.number(row, place).unwrap_or(f64::NAN));
        Some(About::Sums(RowSums::of(values, self.form?, profile.centroid(&self.input))))
    }
}

/// How a release's rows are told apart.
#[derive(Debug)]
pub(super) enum Division {
    /// They are not.
    Whole,
    /// By a parameter of the request.
    Parameter(FieldName, Segmentation),
    /// By a feature: which input it is about, and what of it.
    Feature(FieldName, Source, Segmentation),
}

/// The segments of a request's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segments<'a> {
    /// All rows are in this one.
    All(SegmentNumber),
    /// One for each row; they differ.
    Each(&'a [SegmentNumber]),
}

impl Segments<'_> {
    /// That of the first row, and of the request.
    pub fn first(self) -> SegmentNumber {
        match self {
            Self::All(segment) => segment,
            Self::Each(rows) => rows.first().copied().unwrap_or_default(),
        }
    }

    /// That of row `row`.
    pub fn of(self, row: usize) -> SegmentNumber {
        match self {
            Self::All(segment) => segment,
            Self::Each(rows) => rows.get(row).copied().unwrap_or_default(),
        }
    }
}

impl Division {
    /// As the release of `manifest` declares.
    pub(super) fn of(manifest: &Manifest) -> Self {
        let Some(segmentation) = manifest.watch.segments.clone() else { return Self::Whole };
        match &segmentation.key {
            SegmentKey::Parameter(name) => Self::Parameter(name.clone(), segmentation),
            SegmentKey::Feature(name) => {
                let features = manifest.features();
                match features.iter().find(|feature| feature.name == *name) {
                    Some(feature) => Self::Feature(feature.input.clone(), feature.source, segmentation),
                    // The manifest was checked for it.
                    None => Self::Whole,
                }
            }
        }
    }

    /// How many segments there are.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Whole => 1,
            Self::Parameter(_, segmentation) | Self::Feature(_, _, segmentation) => segmentation.count(),
        }
    }

    /// The segments of all rows of a request, of whose `pictures` the worker saw this. `scratch` is room for them.
    pub(super) fn divide<'s>(
        &self,
        asked: Asked<'_>,
        pictures: &[u8],
        watched: &[Watched],
        profile: &Profile,
        scratch: &'s mut Vec<SegmentNumber>,
    ) -> Segments<'s> {
        match self {
            Self::Whole => Segments::All(SegmentNumber(0)),
            Self::Parameter(name, segmentation) => Segments::All(match asked.parameters.get(name.as_str()) {
                Some(Value::String(text)) => segmentation.of(Observed::Text(text)),
                Some(Value::Number(number)) => {
                    segmentation.of(Observed::Number(number.as_f64().unwrap_or(f64::NAN)))
                }
                Some(Value::Bool(truth)) => {
                    segmentation.of(Observed::Text(if *truth { "true" } else { "false" }))
                }
                Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => SegmentNumber(0),
            }),
            Self::Feature(input, source, segmentation) => {
                scratch.clear();
                let part = asked.parts().find(|(header, _)| header.name == *input);
                let watched = watched.iter().find(|watched| watched.input == *input);
                if let (Some((header, values)), Some(watched)) = (part, watched) {
                    let rows = watched.rows(header, values, pictures);
                    let number =
                        |value: Option<f64>| segmentation.of(Observed::Number(value.unwrap_or(f64::NAN)));
                    match source {
                        Source::Value(place) | Source::Category(place) => {
                            scratch.extend((0..rows.count).map(|row| number(rows.number(row, *place))));
                        }
                        Source::Text => {
                            scratch.extend(rows.texts().map(|text| segmentation.of(Observed::Text(&text))));
                        }
                        Source::Summary(summary) => {
                            let at = watched.summaries().position(|(_, other)| other == *summary);
                            let value = |row| {
                                let about = watched.about(profile, rows, row)?;
                                Some(f64::from(about.get(at?, *summary)))
                            };
                            scratch.extend((0..rows.count).map(|row| number(value(row))));
                        }
                    }
                }
                match scratch.as_slice() {
                    [] => Segments::All(SegmentNumber(0)),
                    [first, rest @ ..] if rest.iter().all(|other| other == first) => Segments::All(*first),
                    rows => Segments::Each(rows),
                }
            }
        }
    }
}

/// Hands every watched input with its rows to `each`.
pub(super) fn each_input<'a>(
    asked: Asked<'a>,
    pictures: &'a [u8],
    watched: &[Watched],
    mut each: impl FnMut(&Watched, Rows<'a>),
) {
    for (header, values) in asked.parts() {
        if let Some(watched) = watched.iter().find(|watched| watched.input == header.name) {
            each(watched, watched.rows(header, values, pictures));
        }
    }
}
