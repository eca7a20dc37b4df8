//! How right predictions were, as far as the truth became known: counts and sums that merge by addition.

use serde::{Deserialize, Serialize};

/// Bins of the calibration table, equal over 0..=1. Labels are few: with more bins each would hold a handful.
pub const CALIBRATION_BINS: usize = 10;

/// How right the predictions of a release were.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "a report has one, and nothing here allocates")]
pub enum Quality {
    /// It predicts classes.
    Classes(ClassQuality),
    /// It predicts a value.
    Values(ValueQuality),
}

/// Classes predicted, beside the true ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassQuality {
    /// Predictions whose truth became known.
    pub labelled: u64,
    /// … that were right.
    pub right: u64,
    /// … with a confidence, by that confidence.
    pub calibration: [CalibrationBin; CALIBRATION_BINS],
    /// Sum over the calibration table of the squared distance of the confidence from 1 where the prediction was
    /// right and from 0 where it was wrong.
    pub squared: f64,
}

/// Predictions of about the same confidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CalibrationBin {
    /// How many.
    pub labelled: u64,
    /// … that were right.
    pub right: u64,
    /// Sum of their confidence.
    pub confidence: f64,
}

/// Values predicted, beside the true ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ValueQuality {
    /// Predictions whose truth became known.
    pub labelled: u64,
    /// Sum of prediction minus truth.
    pub error: f64,
    /// Sum of the distances.
    pub absolute: f64,
    /// Sum of the squared distances.
    pub squared: f64,
}

impl Quality {
    /// Predictions whose truth became known.
    pub const fn labelled(&self) -> u64 {
        match self {
            Self::Classes(classes) => classes.labelled,
            Self::Values(values) => values.labelled,
        }
    }

    /// Adds what `other` says; one of the other kind adds nothing, and then it is false.
    #[must_use]
    pub fn merge(&mut self, other: &Self) -> bool {
        match (self, other) {
            (Self::Classes(mine), Self::Classes(theirs)) => mine.merge(theirs),
            (Self::Values(mine), Self::Values(theirs)) => mine.merge(theirs),
            (Self::Classes(_), Self::Values(_)) | (Self::Values(_), Self::Classes(_)) => return false,
        }
        true
    }

    /// Whether the parts can have come from counting.
    pub fn is_sane(&self) -> bool {
        match self {
            Self::Classes(classes) => classes.is_sane(),
            Self::Values(values) => values.is_sane(),
        }
    }
}

impl ClassQuality {
    /// Counts one prediction; `confidence` is NaN where none is declared.
    pub fn record(&mut self, right: bool, confidence: f32) {
        self.labelled = self.labelled.saturating_add(1);
        self.right = self.right.saturating_add(right.into());
        if !(0.0..=1.0).contains(&confidence) {
            return;
        }
        let confidence = f64::from(confidence);
        let place = (confidence * CALIBRATION_BINS as f64) as usize;
        if let Some(bin) = self.calibration.get_mut(place.min(CALIBRATION_BINS - 1)) {
            bin.labelled = bin.labelled.saturating_add(1);
            bin.right = bin.right.saturating_add(right.into());
            bin.confidence += confidence;
            let miss = confidence - f64::from(u8::from(right));
            self.squared += miss * miss;
        }
    }

    /// Adds what `other` says.
    pub fn merge(&mut self, other: &Self) {
        self.labelled = self.labelled.saturating_add(other.labelled);
        self.right = self.right.saturating_add(other.right);
        for (mine, theirs) in self.calibration.iter_mut().zip(&other.calibration) {
            mine.labelled = mine.labelled.saturating_add(theirs.labelled);
            mine.right = mine.right.saturating_add(theirs.right);
            mine.confidence += theirs.confidence;
        }
        self.squared += other.squared;
    }

    /// Share of right predictions.
    pub fn accuracy(&self) -> Option<f64> {
        share(self.right as f64, self.labelled)
    }

    /// The expected calibration error, 0 to 1: by how much confidence and accuracy differ in a bin, averaged over
    /// predictions (Naeini, Cooper and Hauskrecht 2015).
    pub fn calibration_error(&self) -> Option<f64> {
        let gap = |bin: &CalibrationBin| (bin.right as f64 - bin.confidence).abs();
        share(self.calibration.iter().map(gap).sum(), self.with_confidence())
    }

    /// The Brier score of the confidence that the predicted class is the right one, 0 to 1.
    pub fn brier(&self) -> Option<f64> {
        share(self.squared, self.with_confidence())
    }

    fn with_confidence(&self) -> u64 {
        self.calibration.iter().fold(0, |sum, bin| sum.saturating_add(bin.labelled))
    }

    fn is_sane(&self) -> bool {
        let bin = |bin: &CalibrationBin| {
            bin.right <= bin.labelled && (0.0..=bin.labelled as f64).contains(&bin.confidence)
        };
        let known = self.with_confidence();
        self.right <= self.labelled
            && known <= self.labelled
            && self.calibration.iter().all(bin)
            && (0.0..=known as f64).contains(&self.squared)
    }
}

impl ValueQuality {
    /// Counts one prediction; what is not finite is no prediction and counts as none.
    pub fn record(&mut self, predicted: f32, truth: f64) {
        let error = f64::from(predicted) - truth;
        if error.is_finite() {
            self.labelled = self.labelled.saturating_add(1);
            self.error += error;
            self.absolute += error.abs();
            self.squared += error * error;
        }
    }

    /// Adds what `other` says.
    pub fn merge(&mut self, other: &Self) {
        self.labelled = self.labelled.saturating_add(other.labelled);
        self.error += other.error;
        self.absolute += other.absolute;
        self.squared += other.squared;
    }

    /// Mean distance from the truth.
    pub fn mean_absolute_error(&self) -> Option<f64> {
        share(self.absolute, self.labelled)
    }

    /// Mean squared distance from the truth.
    pub fn mean_squared_error(&self) -> Option<f64> {
        share(self.squared, self.labelled)
    }

    /// Mean of prediction minus truth.
    pub fn bias(&self) -> Option<f64> {
        share(self.error, self.labelled)
    }

    const fn is_sane(&self) -> bool {
        self.error.is_finite()
            && self.absolute.is_finite()
            && self.absolute >= 0.0
            && self.squared.is_finite()
            && self.squared >= 0.0
    }
}

fn share(sum: f64, of: u64) -> Option<f64> {
    (of > 0).then(|| sum / of as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn seen(predictions: &[(bool, f32)]) -> ClassQuality {
        let mut quality = ClassQuality::default();
        predictions.iter().for_each(|(right, confidence)| quality.record(*right, *confidence));
        quality
    }

    #[test]
    fn a_release_that_is_as_sure_as_it_is_right_is_calibrated() {
        let mut predictions = Vec::from([(true, 0.75); 75]);
        predictions.extend([(false, 0.75); 25]);
        let quality = seen(&predictions);
        assert_eq!((quality.accuracy(), quality.calibration_error()), (Some(0.75), Some(0.0)));
        assert_eq!(quality.brier(), Some(0.1875));
        let boastful = seen(&[(true, 1.0), (false, 1.0), (false, 1.0), (true, 1.0)]);
        assert_eq!((boastful.calibration_error(), boastful.brier()), (Some(0.5), Some(0.5)));
    }

    #[test]
    fn nothing_known_is_no_zero() {
        let nothing = ClassQuality::default();
        assert_eq!((nothing.accuracy(), nothing.brier(), nothing.calibration_error()), (None, None, None));
        assert_eq!(ValueQuality::default().mean_absolute_error(), None);
        // Without a confidence there is an accuracy and no more.
        let unsure = seen(&[(true, f32::NAN), (true, 1.5)]);
        assert_eq!((unsure.accuracy(), unsure.brier()), (Some(1.0), None));
    }

    #[test]
    fn values_are_held_against_the_truth() {
        let mut quality = ValueQuality::default();
        quality.record(3.0, 1.0);
        quality.record(0.0, 1.0);
        quality.record(f32::NAN, 1.0);
        assert_eq!((quality.labelled, quality.bias()), (2, Some(0.5)));
        assert_eq!((quality.mean_absolute_error(), quality.mean_squared_error()), (Some(1.5), Some(2.5)));
    }

    #[test]
    fn the_kinds_do_not_mix() {
        let mut classes = Quality::Classes(seen(&[(true, 0.5)]));
        assert!(!classes.merge(&Quality::Values(ValueQuality::default())));
        assert_eq!(classes.labelled(), 1);
    }

    proptest! {
        #[test]
        fn merging_is_counting_together(
            a in prop::collection::vec((any::<bool>(), 0.0_f32..=1.0), 0..40),
            b in prop::collection::vec((any::<bool>(), any::<f32>()), 0..40),
        ) {
            let together = seen(&[a.clone(), b.clone()].concat());
            let (mut left, mut right) = (seen(&a), seen(&b));
            left.merge(&seen(&b));
            right.merge(&seen(&a));
            for merged in [&left, &right] {
                prop_assert_eq!((merged.labelled, merged.right), (together.labelled, together.right));
                prop_assert!((merged.squared - together.squared).abs() < 1e-9);
                prop_assert!(Quality::Classes(merged.clone()).is_sane());
                let gap = merged.calibration_error().unwrap_or(0.0) - together.calibration_error().unwrap_or(0.0);
                prop_assert!(gap.abs() < 1e-9);
            }
        }
    }
}
