//! Bins that fit the data, counts that add up, and any bytes getting an answer.

use super::*;
use alloc::vec;
use proptest::prelude::*;

fn name(text: &str) -> FieldName {
    text.parse().expect("name")
}

fn profile_of(values: &[f32]) -> FeatureProfile {
    FeatureProfile::of(name("x"), values)
}

#[test]
fn equal_shares_for_a_smooth_feature() {
    let values: Vec<f32> = (0..1600_u16).map(f32::from).collect();
    let profile = profile_of(&values);
    assert_eq!(profile.sketch.reference.counts.as_slice(), [100; 16]);
    assert_eq!((profile.distinct, profile.extremes), (1600, Some((0.0, 1599.0))));
}

#[test]
fn a_heavy_value_gets_its_own_bin_and_a_constant_one_too() {
    let mut values = vec![0.0; 700];
    values.extend((1..=300_u16).map(f32::from));
    let sketch = profile_of(&values).sketch;
    assert_eq!(sketch.reference.counts.first(), Some(&700));
    assert!(sketch.bins.len() > 4);
    let constant = profile_of(&[5.0; 40]);
    assert_eq!(constant.sketch.reference.counts.as_slice(), [40]);
    assert_eq!((constant.distinct, constant.extremes), (1, Some((5.0, 5.0))));
}

#[test]
fn no_data_still_has_bins() {
    let profile = profile_of(&[f32::NAN, f32::INFINITY]);
    let sketch = &profile.sketch;
    assert_eq!((sketch.bins.len(), sketch.reference.missing, sketch.reference.over), (1, 1, 1));
    assert_eq!((profile.distinct, profile.extremes), (0, None));
}

#[test]
fn few_different_numbers_are_no_categories_unless_that_is_declared() {
    let values: Vec<f32> = (0..400_u16).map(|at| f32::from(at % 3)).collect();
    assert_eq!(profile_of(&values).kind, FeatureKind::Numeric);
    let observed: Vec<_> = values.iter().map(|value| Observed::Number(f64::from(*value))).collect();
    let declared = FeatureProfile::categorical(name("x"), &observed, Division::default());
    assert_eq!(declared.categories().map(|all| all.iter().count()), Some(3));
    assert_eq!((declared.distinct, declared.sketch.reference.total()), (3, 400));
    assert!(!declared.counts_like(&profile_of(&values)));
}

#[test]
fn every_row_is_counted_in_one_segment() {
    let values: Vec<f32> = (0..90_u16).map(f32::from).collect();
    let rows: Vec<_> = (0..90_u8).map(|at| SegmentNumber(at % 3)).collect();
    let sketch = FeatureProfile::numeric(name("x"), &values, Division { rows: &rows, count: 3 }).sketch;
    assert_eq!(sketch.segments.iter().map(Histogram::total).collect::<Vec<_>>(), [30; 3]);
    let mut sum = sketch.segments[0].clone();
    sum.merge(&sketch.segments[1]).expect("same bins");
    sum.merge(&sketch.segments[2]).expect("same bins");
    assert_eq!(sum.counts, sketch.reference.counts);
    assert_eq!(sketch.in_segment(SegmentNumber(2)), &sketch.segments[2]);
    assert_eq!(profile_of(&values).sketch.in_segment(SegmentNumber(2)).total(), 90, "none is declared");
}

#[test]
fn a_profile_that_contradicts_itself_is_refused() {
    let refused = |change: fn(&mut Profile)| {
        let rows = [SegmentNumber(0), SegmentNumber(1)];
        let division = Division { rows: &rows, count: 2 };
        let texts = [Observed::Text("a"), Observed::Text("b")];
        let mut profile = Profile {
            features: vec![
                FeatureProfile::numeric(name("x"), &[0.0, 1.0], division),
                FeatureProfile::categorical(name("city"), &texts, division),
            ],
            centroids: vec![Centroid { input: name("e"), values: vec![0.5] }],
            segments: vec![name("night")],
            ..Profile::default()
        };
        assert_eq!(Profile::parse(&profile.encode().expect("small")), Ok(profile.clone()));
        change(&mut profile);
        Profile::parse(&profile.encode().expect("small")) == Err(ProfileError::Inconsistent)
    };
    assert!(refused(|profile| profile.features[0].sketch.segments[1].counts[0] += 1));
    assert!(refused(|profile| profile.features[0].sketch.segments.clear()));
    assert!(refused(|profile| profile.segments.clear()));
    assert!(refused(|profile| profile.features[1].sketch.bins = Bins::unit(2)));
    assert!(refused(|profile| profile.centroids[0].values[0] = f32::NAN));
}

#[test]
fn the_largest_profile_fits_its_bound() {
    let texts: Vec<alloc::string::String> = (0..15).map(|at| alloc::format!("{at:064}")).collect();
    let rows: Vec<_> = (0..15_u8).map(|at| SegmentNumber(at % 5)).collect();
    let observed: Vec<_> = texts.iter().map(|text| Observed::Text(text)).collect();
    let division = Division { rows: &rows, count: MAX_SEGMENTS };
    let mut feature = FeatureProfile::categorical(name(&"n".repeat(48)), &observed, division);
    // 200,000 rows in every place.
    let fill = |histogram: &mut Histogram| histogram.counts.iter_mut().for_each(|count| *count = 200_000);
    feature.sketch.segments.iter_mut().for_each(fill);
    fill(&mut feature.sketch.reference);
    let values = vec![0.1; MAX_CENTROID_VALUES];
    let profile = Profile {
        features: vec![feature; MAX_FEATURES],
        centroids: vec![Centroid { input: name("e"), values }],
        segments: ["a", "b", "c", "d"].map(name).to_vec(),
        ..Profile::default()
    };
    assert!(profile.encode().is_ok());
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
        prop_assert_eq!(profile_of(&values).sketch.reference.total(), values.len() as u64);
    }

    #[test]
    fn profiles_survive(values in prop::collection::vec(-10.0_f32..10.0, 0..50)) {
        let profile = Profile {
            features: vec![profile_of(&values)],
            predictions: Some(SketchProfile::of(Bins::classes(3), &[0.0, 2.0])),
            confidence: Some(SketchProfile::of(Bins::unit(CONFIDENCE_BINS), &[0.5])),
            entropy: Some(SketchProfile::of(Bins::unit(CONFIDENCE_BINS), &[0.5])),
            ..Profile::default()
        };
        prop_assert_eq!(Profile::parse(&profile.encode().expect("small")), Ok(profile));
    }

    #[test]
    fn any_bytes_are_a_profile_or_an_error(bytes: Vec<u8>) {
        let _ = Profile::parse(&bytes);
    }
}
