//! What classifiers have in common: class labels, and scores on their way to probabilities.

use tract_onnx::tract_hir::internal::{DatumType, TDim, TVec, Tensor, TractResult, bail, tensor1, tvec};

use super::kernel::Form;

/// Labels of the classes, in the order of their scores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Labels {
    /// `INT64`.
    Ints(Vec<i64>),
    /// `STRING`.
    Texts(Vec<String>),
}

impl Labels {
    /// How many.
    pub(crate) const fn len(&self) -> usize {
        match self {
            Self::Ints(labels) => labels.len(),
            Self::Texts(labels) => labels.len(),
        }
    }

    /// Their type.
    const fn datum_type(&self) -> DatumType {
        match self {
            Self::Ints(_) => DatumType::I64,
            Self::Texts(_) => DatumType::String,
        }
    }

    /// What a classifier of `rows` rows gives: a label each, and `scores` scores each.
    pub(crate) fn forms(&self, rows: TDim, scores: usize) -> TVec<Form> {
        let labels = (self.datum_type(), tvec![rows.clone()]);
        tvec![labels, (DatumType::F32, tvec![rows, scores.into()])]
    }

    /// The labels of `classes`, one per row.
    pub(crate) fn of(&self, classes: &[usize]) -> Tensor {
        match self {
            Self::Ints(labels) => {
                let label = |class: &usize| labels.get(*class).copied().unwrap_or_default();
                tensor1(&classes.iter().map(label).collect::<Vec<i64>>())
            }
            Self::Texts(labels) => {
                let label = |class: &usize| labels.get(*class).cloned().unwrap_or_default();
                tensor1(&classes.iter().map(label).collect::<Vec<String>>())
            }
        }
    }
}

/// What is done to a row of scores at the end (`post_transform` of the specification).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PostTransform {
    /// Nothing.
    None,
    /// `1 / (1 + e⁻ˣ)` of each.
    Logistic,
    /// `eˣ`, divided by the sum of all.
    Softmax,
    /// The same over those that are not 0; a 0 stays 0.
    SoftmaxZero,
    /// The quantile function of the normal distribution.
    Probit,
}

impl PostTransform {
    /// The one that the specification calls `name`.
    pub(crate) fn named(name: &str) -> TractResult<Self> {
        Ok(match name {
            "NONE" => Self::None,
            "LOGISTIC" => Self::Logistic,
            "SOFTMAX" => Self::Softmax,
            "SOFTMAX_ZERO" => Self::SoftmaxZero,
            "PROBIT" => Self::Probit,
            _ => bail!("there is no post_transform {name:?}"),
        })
    }

    /// The one of the specification's number since version 5, where onnxruntime (1.32) mixes up 1 and 2.
    pub(crate) fn numbered(number: i64) -> TractResult<Self> {
        Ok(match number {
            0 => Self::None,
            1 => Self::Softmax,
            2 => Self::Logistic,
            3 => Self::SoftmaxZero,
            4 => Self::Probit,
            _ => bail!("there is no post_transform {number}"),
        })
    }

    /// Transforms the scores of one row.
    pub(crate) fn apply(self, scores: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Logistic => scores.iter_mut().for_each(|score| *score = logistic(*score)),
            Self::Probit => scores.iter_mut().for_each(|score| *score = probit(*score)),
            Self::Softmax => softmax(scores, |_| true),
            Self::SoftmaxZero => softmax(scores, |score| score.abs() > NEARLY_ZERO),
        }
    }
}

/// Scores no further from 0 count as 0 in `SOFTMAX_ZERO`, as in onnxruntime.
const NEARLY_ZERO: f32 = 1e-7;

/// Softmax over the scores that `counts` names, shifted by the largest score so that nothing overflows.
/// The others are scaled likewise.
fn softmax(scores: &mut [f32], counts: impl Fn(f32) -> bool) {
    let largest = scores.iter().copied().fold(f32::MIN, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        if counts(*score) {
            *score = (*score - largest).exp();
            sum += *score;
        } else {
            *score *= (-largest).exp();
        }
    }
    scores.iter_mut().for_each(|score| *score /= sum);
}

/// The logistic function, symmetric so that small probabilities keep their digits.
pub(crate) fn logistic(x: f32) -> f32 {
    let of_magnitude = 1.0 / (1.0 + (-x.abs()).exp());
    if x < 0.0 { 1.0 - of_magnitude } else { of_magnitude }
}

/// Quantile of the normal distribution by Winitzki's formula for the inverse error function, good to two
/// or three digits. ONNX's reference implementation and onnxruntime compute it so, and golden outputs
/// come from there.
fn probit(probability: f32) -> f32 {
    const A: f32 = 0.147;
    let x = 2.0 * probability - 1.0;
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let v = 2.0 / (std::f32::consts::PI * A) + 0.5 * log;
    std::f32::consts::SQRT_2 * ((v * v - log / A).sqrt() - v).sqrt().copysign(x)
}

/// How the score of the positive class alone becomes those of two classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pairing {
    /// It is a share, unless `LOGISTIC` makes one of it: the other class has the rest.
    Share,
    /// It is a margin: the other class has its opposite.
    Margin,
}

/// Both classes' scores from the `positive` one. `LOGISTIC` makes two shares of it whatever it is;
/// `SOFTMAX` leaves it as it is, as in onnxruntime.
pub(crate) fn pair(positive: f32, pairing: Pairing, post_transform: PostTransform) -> [f32; 2] {
    match (pairing, post_transform) {
        (_, PostTransform::Probit) => {
            let positive = probit(positive);
            [1.0 - positive, positive]
        }
        (_, PostTransform::Logistic) => [logistic(-positive), logistic(positive)],
        (Pairing::Share, _) => [1.0 - positive, positive],
        (Pairing::Margin, _) => [-positive, positive],
    }
}

/// The first of the largest scores among those that `counts` lets take part; 0 when there is none.
pub(crate) fn largest(scores: &[f32], counts: impl Fn(usize) -> bool) -> usize {
    let mut best: Option<(usize, f32)> = None;
    for (class, score) in scores.iter().enumerate().filter(|(class, _)| counts(*class)) {
        if best.is_none_or(|(_, largest)| *score > largest) {
            best = Some((class, *score));
        }
    }
    best.map_or(0, |(class, _)| class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_softmax_of_zeros_keeps_zeros() {
        let mut scores = [0.0, 1.0, 1.0];
        PostTransform::SoftmaxZero.apply(&mut scores);
        assert_eq!(scores.map(f32::to_bits), [0.0_f32, 0.5, 0.5].map(f32::to_bits));
    }

    #[test]
    fn the_median_of_the_normal_distribution_is_zero() {
        assert!(probit(0.5).abs() < 1e-3);
        assert!((probit(0.975) - 1.96).abs() < 0.01);
        assert!((probit(0.025) + 1.96).abs() < 0.01);
    }

    proptest! {
        #[test]
        fn shares_sum_to_one(scores in prop::collection::vec(-50.0_f32..50.0, 1..8)) {
            let mut shares = scores.clone();
            PostTransform::Softmax.apply(&mut shares);
            prop_assert!((shares.iter().sum::<f32>() - 1.0).abs() < 1e-4);
            let [no, yes] = pair(scores[0], Pairing::Margin, PostTransform::Logistic);
            prop_assert!((no + yes - 1.0).abs() < 1e-6);
        }
    }
}
