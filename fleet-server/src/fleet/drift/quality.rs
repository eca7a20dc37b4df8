//! How right a release's predictions were, as far as the truth became known, beside the control's at the same time.

use serin_protocol::sketch::{CALIBRATION_BINS, CalibrationBin, ClassQuality, Quality, ValueQuality};

use super::arm::Sums;
use crate::stats::bounds::Counted;
use crate::stats::proportions::{Estimate, Mean, Share};

/// How right predictions were.
#[derive(Clone, Debug, PartialEq)]
pub struct Right {
    /// Predictions whose truth became known.
    pub labelled: u64,
    /// By what they are.
    pub by: Kind,
    /// The accuracy, or the mean absolute error, less the control's; none where that has no truth.
    pub against_control: Option<Estimate>,
}

/// What a model predicts, and how right it is.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a few are made for a question")]
pub enum Kind {
    /// Classes.
    Classes {
        /// Share of right ones, with the interval that so few labels on so different devices allow.
        accuracy: Estimate,
        /// Expected calibration error, where there is a confidence.
        calibration_error: Option<f64>,
        /// Brier score of the confidence.
        brier: Option<f64>,
        /// How right predictions of about the same confidence were.
        calibration: [CalibrationBin; CALIBRATION_BINS],
    },
    /// Values.
    Values {
        /// Mean distance from the truth, with the interval that so few labels allow; none of fewer than two.
        absolute_error: Option<Estimate>,
        /// Root of the mean squared distance.
        root_squared_error: f64,
        /// Mean of prediction minus truth.
        bias: f64,
    },
}

impl Right {
    /// What is known of `seen`, beside `control`; none where no truth became known.
    pub(super) fn of(seen: &Sums, control: Option<&Sums>) -> Option<Self> {
        let quality = seen.quality.as_ref().filter(|quality| quality.labelled() > 0)?;
        let (by, against_control) = match quality {
            Quality::Classes(classes) => {
                let mine = share(seen)?;
                let control = control.and_then(share);
                (of_classes(classes, mine), control.map(|control| mine.minus(control)))
            }
            Quality::Values(values) => {
                let mine = mean(values);
                let control = match control.and_then(|control| control.quality.as_ref()) {
                    Some(Quality::Values(control)) => mean(control),
                    Some(Quality::Classes(_)) | None => None,
                };
                let difference = mine.zip(control).map(|(mine, control)| mine.minus(control));
                (of_values(values, mine)?, difference)
            }
        };
        Some(Self { labelled: quality.labelled(), by, against_control })
    }
}

fn of_classes(classes: &ClassQuality, share: Share) -> Kind {
    Kind::Classes {
        accuracy: share.estimate(),
        calibration_error: classes.calibration_error(),
        brier: classes.brier(),
        calibration: classes.calibration,
    }
}

fn of_values(values: &ValueQuality, mean: Option<Mean>) -> Option<Kind> {
    Some(Kind::Values {
        absolute_error: mean.map(Mean::estimate),
        root_squared_error: values.mean_squared_error()?.sqrt(),
        bias: values.bias()?,
    })
}

fn share(sums: &Sums) -> Option<Share> {
    let devices: Vec<Counted> = sums.right.values().copied().collect();
    Share::over(&devices)
}

fn mean(values: &ValueQuality) -> Option<Mean> {
    Mean::of(values.labelled, values.absolute, values.squared)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(devices: &[(f64, f64)]) -> Sums {
        let (right, labelled) = devices.iter().fold((0.0, 0.0), |(a, b), (c, d)| (a + c, b + d));
        let quality =
            ClassQuality { labelled: labelled as u64, right: right as u64, ..ClassQuality::default() };
        let device = |at: usize| format!("d{at}").parse().expect("id");
        Sums {
            quality: Some(Quality::Classes(quality)),
            right: devices.iter().enumerate().map(|(at, counted)| (device(at), *counted)).collect(),
            ..Sums::default()
        }
    }

    #[test]
    fn few_labels_do_not_show_that_a_release_is_worse() {
        let (few, many) = (classes(&[(3.0, 5.0)]), classes(&[(3000.0, 5000.0)]));
        let control = classes(&[(4000.0, 5000.0)]);
        let worse = |seen: &Sums| {
            let difference = Right::of(seen, Some(&control)).expect("known").against_control;
            let difference = difference.expect("both known");
            assert!((difference.value + 0.2).abs() < 1e-9);
            difference.high < 0.0
        };
        assert!(!worse(&few) && worse(&many));
        assert_eq!(Right::of(&few, None).and_then(|right| right.against_control), None);
    }

    #[test]
    fn no_truth_is_no_accuracy() {
        assert_eq!(Right::of(&Sums::default(), Some(&classes(&[(1.0, 1.0)]))), None);
    }

    #[test]
    fn values_are_judged_by_their_distance() {
        let seen = |errors: &[f32]| {
            let mut values = ValueQuality::default();
            errors.iter().for_each(|error| values.record(*error, 0.0));
            Sums { quality: Some(Quality::Values(values)), ..Sums::default() }
        };
        let right = Right::of(&seen(&[1.0, -3.0]), Some(&seen(&[1.0, 1.0]))).expect("known");
        let Kind::Values { absolute_error, root_squared_error, bias } = right.by else { panic!("values") };
        assert_eq!((absolute_error.expect("two").value, bias), (2.0, -1.0));
        assert!((root_squared_error - 5.0_f64.sqrt()).abs() < 1e-12);
        assert_eq!(right.against_control.map(|difference| difference.value), Some(1.0));
        let one = Right::of(&seen(&[1.0]), None).expect("known");
        assert!(matches!(one.by, Kind::Values { absolute_error: None, .. }));
    }
}
