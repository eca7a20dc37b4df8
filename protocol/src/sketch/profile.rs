//! The reference profile (`reference.bin`): bins chosen on reference data and what that data looks
//! like in them. Signed with the bundle; its digest names the bins in every report.

use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use super::bins::{Bins, MAX_BINS};
use super::histogram::Histogram;
use crate::ids::FieldName;
use crate::manifest::MAX_FEATURES;

/// Largest `reference.bin` in bytes: [`MAX_FEATURES`] features of at most 500 bytes.
pub const MAX_PROFILE_BYTES: usize = 1024 * 1024;

/// Bins of a numeric feature. 16 bins cost about 22 bytes in a report and keep the Kolmogorov-Smirnov
/// distance within 0.0015.
pub const FEATURE_BINS: usize = 16;

/// Bins of the confidence, equal over 0..=1.
pub const CONFIDENCE_BINS: usize = 20;

/// What the reference data looks like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// One entry per watched feature, in manifest order.
    pub features: Vec<FeatureProfile>,
    /// Bins and counts of the predicted class, where one is declared.
    pub predictions: Option<SketchProfile>,
    /// Bins and counts of its confidence.
    pub confidence: Option<SketchProfile>,
}

/// A feature's name, bins and reference counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureProfile {
    /// Name in the manifest.
    pub name: FieldName,
    /// Bins and counts.
    pub sketch: SketchProfile,
}

/// Bins with the reference data's counts in them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SketchProfile {
    /// The bins.
    pub bins: Bins,
    /// The reference data in these bins.
    pub reference: Histogram,
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
        let mut reference = Histogram::over_bins(&bins);
        for value in values {
            reference.record(&bins, *value);
        }
        Self { bins, reference }
    }

    fn is_consistent(&self) -> bool {
        self.reference.counts.len() == self.bins.len() && self.reference.is_sane()
    }
}

impl FeatureProfile {
    /// Chooses bins for a numeric feature so that each holds about the same share of `values`; a value
    /// heavier than a bin's share gets a bin of its own.
    pub fn of(name: FieldName, values: &[f32]) -> Self {
        Self { name, sketch: SketchProfile::of(quantile_bins(values, FEATURE_BINS), values) }
    }
}

/// At most `count` bins over the finite `values`, cut at quantiles, heavy values apart. One bin around
/// zero when there is no finite value.
fn quantile_bins(values: &[f32], count: usize) -> Bins {
    let mut sorted: Vec<f32> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_unstable_by(f32::total_cmp);
    let (Some(first), Some(last)) = (sorted.first().copied(), sorted.last().copied()) else {
        return Bins::classes(1);
    };
    let mut edges: Vec<f32> = Vec::new();
    edges.push(first);
    // Walk over runs of equal values; close a bin when it has its share, and before a heavy run.
    let share = sorted.len().div_ceil(count.clamp(1, MAX_BINS));
    let mut held = 0_usize;
    for run in sorted.chunk_by(|a, b| a.total_cmp(b).is_eq()) {
        let Some(value) = run.first().copied() else {
            continue;
        };
        let heavy = run.len() >= share;
        if held > 0 && (heavy || held >= share) {
            edges.push(value);
            held = 0;
        }
        held += run.len();
        if heavy && value < last {
            edges.push(value.next_up());
            held = 0;
        }
    }
    edges.push(last.next_up());
    edges.dedup();
    // Light remainders between heavy values can make up to two bins per share: merge from the right.
    while edges.len() > MAX_BINS + 1 {
        edges.remove(edges.len() - 2);
    }
    // −0.0 and 0.0 are equal and f32::MAX has no finite successor; both leave edges that Bins refuses.
    Bins::new(&edges).unwrap_or_else(|_| Bins::classes(1))
}

impl Profile {
    /// Decodes and checks `reference.bin`.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProfileError> {
        if bytes.len() > MAX_PROFILE_BYTES {
            return Err(ProfileError::TooLarge(bytes.len()));
        }
        let (profile, rest) = postcard::take_from_bytes::<Self>(bytes).map_err(ProfileError::Malformed)?;
        let sketches = profile.features.iter().map(|feature| &feature.sketch);
        let mut sketches = sketches.chain(&profile.predictions).chain(&profile.confidence);
        let consistent = profile.features.len() <= MAX_FEATURES && sketches.all(SketchProfile::is_consistent);
        if consistent && rest.is_empty() { Ok(profile) } else { Err(ProfileError::Inconsistent) }
    }

    /// Encodes `reference.bin`.
    pub fn encode(&self) -> Result<Vec<u8>, ProfileError> {
        let bytes = postcard::to_allocvec(self).map_err(ProfileError::Malformed)?;
        if bytes.len() > MAX_PROFILE_BYTES { Err(ProfileError::TooLarge(bytes.len())) } else { Ok(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn profile_of(values: &[f32]) -> FeatureProfile {
        FeatureProfile::of("x".parse().expect("name"), values)
    }

    #[test]
    fn equal_shares_for_a_smooth_feature() {
        let values: Vec<f32> = (0..1600_u16).map(f32::from).collect();
        let counts = profile_of(&values).sketch.reference.counts;
        assert_eq!(counts.as_slice(), [100; 16]);
    }

    #[test]
    fn a_heavy_value_gets_its_own_bin_and_a_constant_one_too() {
        let mut values = vec![0.0; 700];
        values.extend((1..=300_u16).map(f32::from));
        let sketch = profile_of(&values).sketch;
        assert_eq!(sketch.reference.counts.first(), Some(&700));
        assert!(sketch.bins.len() > 4);
        let constant = profile_of(&[5.0; 40]).sketch;
        assert_eq!(constant.reference.counts.as_slice(), [40]);
    }

    #[test]
    fn no_data_still_has_bins() {
        let sketch = profile_of(&[f32::NAN, f32::INFINITY]).sketch;
        assert_eq!((sketch.bins.len(), sketch.reference.missing, sketch.reference.over), (1, 1, 1));
    }

    proptest! {
        #[test]
        fn all_reference_values_fall_inside(values in prop::collection::vec(-100_i16..100, 1..500)) {
            let values: Vec<f32> = values.into_iter().map(|value| f32::from(value) / 7.0).collect();
            let sketch = profile_of(&values).sketch;
            prop_assert_eq!((sketch.reference.under, sketch.reference.over), (0, 0));
            prop_assert_eq!(sketch.reference.total(), values.len() as u64);
        }

        #[test]
        fn extreme_values_make_bins_too(values in prop::collection::vec(any::<f32>(), 0..50)) {
            let profile = Profile { features: vec![profile_of(&values)], predictions: None, confidence: None };
            prop_assert_eq!(profile.features[0].sketch.reference.total(), values.len() as u64);
        }

        #[test]
        fn profiles_survive(values in prop::collection::vec(-10.0_f32..10.0, 0..50)) {
            let profile = Profile {
                features: vec![profile_of(&values)],
                predictions: Some(SketchProfile::of(Bins::classes(3), &[0.0, 2.0])),
                confidence: Some(SketchProfile::of(Bins::unit(CONFIDENCE_BINS), &[0.5])),
            };
            prop_assert_eq!(Profile::parse(&profile.encode().expect("small")), Ok(profile));
        }

        #[test]
        fn any_bytes_are_a_profile_or_an_error(bytes: Vec<u8>) {
            let _ = Profile::parse(&bytes);
        }
    }
}
