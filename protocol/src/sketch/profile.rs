//! The reference profile (`reference.bin`): bins chosen on reference data and what that data looks
//! like in them. Signed with the bundle; its digest names the bins in every report.

mod numeric;
mod subject;

use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use self::numeric::{distinct, extremes, quantile_bins};
pub use self::subject::ProfileMismatch;
use super::MAX_SEGMENTS;
use super::bins::Bins;
use super::categories::{Categories, Observed};
use super::histogram::Histogram;
use crate::ids::{FieldName, SegmentNumber};
use crate::manifest::MAX_FEATURES;

/// Largest `reference.bin` in bytes: [`MAX_FEATURES`] features of 2 KiB, with the reference counts of every segment
/// and the longest categories, and [`MAX_CENTROID_VALUES`] values.
pub const MAX_PROFILE_BYTES: usize = 2 * 1024 * 1024 + 4 * MAX_CENTROID_VALUES;

/// Values of all centroids together: embeddings in the field have up to 4,096.
pub const MAX_CENTROID_VALUES: usize = 16 * 1024;

/// Bins of a numeric feature. 16 bins cost about 22 bytes in a report and keep the Kolmogorov-Smirnov
/// distance within 0.0015.
pub const FEATURE_BINS: usize = 16;

/// Bins of the confidence and of the entropy, equal over 0..=1.
pub const CONFIDENCE_BINS: usize = 20;

/// What the reference data looks like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// One entry per watched feature, in manifest order.
    pub features: Vec<FeatureProfile>,
    /// Bins and counts of the predicted class or value, where one is declared.
    pub predictions: Option<SketchProfile>,
    /// Bins and counts of its confidence.
    pub confidence: Option<SketchProfile>,
    /// Bins and counts of how evenly its probabilities are spread over the classes.
    pub entropy: Option<SketchProfile>,
    /// Means of inputs from which distances are watched.
    pub centroids: Vec<Centroid>,
    /// Names of the segments from number 1 on; none where all rows are looked at together.
    pub segments: Vec<FieldName>,
}

/// The mean row of an input in the reference data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Centroid {
    /// The input.
    pub input: FieldName,
    /// The mean of every value of a row.
    pub values: Vec<f32>,
}

/// A feature's name, kind, bins and reference counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureProfile {
    /// Name in the manifest.
    pub name: FieldName,
    /// What its values are.
    pub kind: FeatureKind,
    /// Bins and counts.
    pub sketch: SketchProfile,
    /// Different values in the reference data, the missing apart.
    pub distinct: u32,
    /// Smallest and largest finite number in the reference data.
    pub extremes: Option<(f32, f32)>,
}

/// What the values of a feature are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FeatureKind {
    /// Amounts: near ones are alike.
    Numeric,
    /// Names. Their bins are their places in this list.
    Categorical(Categories),
}

/// Bins with the reference data's counts in them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SketchProfile {
    /// The bins.
    pub bins: Bins,
    /// The reference data in these bins.
    pub reference: Histogram,
    /// The same by segment, in the order of their numbers; empty where none is declared.
    pub segments: Vec<Histogram>,
}

/// Which segment each row of the reference data belongs to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Division<'a> {
    /// A number for each row; none where no segment is declared.
    pub rows: &'a [SegmentNumber],
    /// How many segments there are, the one for the rest included; 0 where none is declared.
    pub count: usize,
}

/// `reference.bin` was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Larger than allowed.
    #[error("reference profile of {0} bytes, at most {MAX_PROFILE_BYTES} are allowed")]
    TooLarge(usize),
    /// Not what it should be.
    #[error("malformed reference profile: {0}")]
    Malformed(postcard::Error),
    /// Counts do not fit their bins, or too many features.
    #[error("the reference profile contradicts itself")]
    Inconsistent,
}

impl SketchProfile {
    /// Counts `values` in `bins`.
    pub fn of(bins: Bins, values: &[f32]) -> Self {
        Self::divided(bins, values, Division::default())
    }

    /// Counts `values` in `bins`, and by segment.
    pub fn divided(bins: Bins, values: &[f32], division: Division<'_>) -> Self {
        let record = |histogram: &mut Histogram, at: usize| {
            histogram.record_all(&bins, values.get(at).copied());
        };
        let (reference, segments) = counted(&bins, values.len(), division, record);
        Self { bins, reference, segments }
    }

    /// What the reference data looks like in one segment; the whole of it where none is declared.
    pub fn in_segment(&self, segment: SegmentNumber) -> &Histogram {
        self.segments.get(usize::from(segment.0)).unwrap_or(&self.reference)
    }

    fn is_consistent(&self) -> bool {
        let fits = |histogram: &Histogram| histogram.counts.len() == self.bins.len() && histogram.is_sane();
        let counted = self.segments.iter().fold(0_u64, |sum, one| sum.saturating_add(one.total()));
        fits(&self.reference)
            && self.segments.len() <= MAX_SEGMENTS
            && self.segments.iter().all(fits)
            && (self.segments.is_empty() || counted == self.reference.total())
    }
}

/// Has `record` count each of `rows` rows in a whole over `bins`, and in its segment.
fn counted(
    bins: &Bins,
    rows: usize,
    division: Division<'_>,
    record: impl Fn(&mut Histogram, usize),
) -> (Histogram, Vec<Histogram>) {
    let mut whole = Histogram::over_bins(bins);
    let mut segments = alloc::vec![whole.clone(); division.count.min(MAX_SEGMENTS)];
    for at in 0..rows {
        record(&mut whole, at);
        let segment = division.rows.get(at).map_or(0, |segment| usize::from(segment.0));
        if let Some(histogram) = segments.get_mut(segment) {
            record(histogram, at);
        }
    }
    (whole, segments)
}

impl FeatureProfile {
    /// Chooses bins for a numeric feature so that each holds about the same share of `values`; a value
    /// heavier than a bin's share gets a bin of its own.
    pub fn of(name: FieldName, values: &[f32]) -> Self {
        Self::numeric(name, values, Division::default())
    }

    /// The same, counted by segment as well.
    pub fn numeric(name: FieldName, values: &[f32], division: Division<'_>) -> Self {
        Self {
            name,
            kind: FeatureKind::Numeric,
            sketch: SketchProfile::divided(quantile_bins(values, FEATURE_BINS), values, division),
            distinct: distinct(values),
            extremes: extremes(values),
        }
    }

    /// Names of which the most frequent are counted each.
    pub fn categorical(name: FieldName, values: &[Observed<'_>], division: Division<'_>) -> Self {
        let (categories, distinct) = Categories::most_frequent(values.iter().copied());
        let record = |histogram: &mut Histogram, at: usize| {
            if let Some(value) = values.get(at) {
                histogram.count(categories.place(*value));
            }
        };
        let bins = categories.bins();
        let (reference, segments) = counted(&bins, values.len(), division, record);
        Self {
            name,
            sketch: SketchProfile { bins, reference, segments },
            kind: FeatureKind::Categorical(categories),
            distinct: u32::try_from(distinct).unwrap_or(u32::MAX),
            extremes: None,
        }
    }

    /// The categories, where it has any.
    pub const fn categories(&self) -> Option<&Categories> {
        match &self.kind {
            FeatureKind::Numeric => None,
            FeatureKind::Categorical(categories) => Some(categories),
        }
    }

    /// Whether counts of this feature and of `other` are about the same things.
    pub fn counts_like(&self, other: &Self) -> bool {
        self.name == other.name && self.kind == other.kind && self.sketch.bins == other.sketch.bins
    }

    fn is_consistent(&self) -> bool {
        let places = self.categories().map(Categories::bins);
        self.sketch.is_consistent() && places.is_none_or(|places| places == self.sketch.bins)
    }
}

impl Profile {
    /// Decodes and checks `reference.bin`.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProfileError> {
        if bytes.len() > MAX_PROFILE_BYTES {
            return Err(ProfileError::TooLarge(bytes.len()));
        }
        let (profile, rest) = postcard::take_from_bytes::<Self>(bytes).map_err(ProfileError::Malformed)?;
        if profile.is_consistent() && rest.is_empty() { Ok(profile) } else { Err(ProfileError::Inconsistent) }
    }

    fn is_consistent(&self) -> bool {
        let mut outputs = self.outputs();
        let centroids: usize = self.centroids.iter().map(|centroid| centroid.values.len()).sum();
        let finite = |centroid: &Centroid| centroid.values.iter().all(|value| value.is_finite());
        self.features.len() <= MAX_FEATURES
            && self.features.iter().all(FeatureProfile::is_consistent)
            && outputs.all(SketchProfile::is_consistent)
            && centroids <= MAX_CENTROID_VALUES
            && self.centroids.iter().all(finite)
            && self.same_segments()
    }

    fn outputs(&self) -> impl Iterator<Item = &SketchProfile> {
        self.predictions.iter().chain(&self.confidence).chain(&self.entropy)
    }

    fn same_segments(&self) -> bool {
        let count = if self.segments.is_empty() { 0 } else { self.segments.len() + 1 };
        count <= MAX_SEGMENTS && self.sketches().all(|sketch| sketch.segments.len() == count)
    }

    fn sketches(&self) -> impl Iterator<Item = &SketchProfile> {
        self.features.iter().map(|feature| &feature.sketch).chain(self.outputs())
    }

    /// The mean row of `input`; empty where no distance from it is watched.
    pub fn centroid(&self, input: &FieldName) -> &[f32] {
        let found = self.centroids.iter().find(|centroid| centroid.input == *input);
        found.map_or(&[], |centroid| &centroid.values)
    }

    /// Encodes `reference.bin`.
    pub fn encode(&self) -> Result<Vec<u8>, ProfileError> {
        let bytes = postcard::to_allocvec(self).map_err(ProfileError::Malformed)?;
        if bytes.len() > MAX_PROFILE_BYTES { Err(ProfileError::TooLarge(bytes.len())) } else { Ok(bytes) }
    }
}

#[cfg(test)]
mod tests;
