//! `LinearClassifier` and `LinearRegressor`, `ai.onnx.ml` version 1. tract composes them of five to ten
//! operators, each of which costs more than the few products of a row.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::{DatumType, TValue, TVec, Tensor, TractResult, ensure, tvec};

use super::attributes::{floats, labels, post_transform, targets};
use super::kernel::{Built, Form, Kernel, Rows, built, by_row, one_form, only, rows_and_width};
use super::scores::{Labels, Pairing, PostTransform, largest, pair};

/// Several weighted sums of one row.
#[derive(Clone, Debug)]
pub(crate) struct Sums {
    /// Weights of each sum, one sum after the other.
    weights: Vec<f32>,
    /// Number of features.
    pub(crate) width: usize,
    /// What each sum begins with.
    intercepts: Vec<f32>,
}

impl Sums {
    /// As many sums as there are intercepts.
    pub(crate) fn new(weights: &[f32], intercepts: Vec<f32>) -> TractResult<Self> {
        let count = intercepts.len();
        ensure!(
            count > 0 && !weights.is_empty() && weights.len().is_multiple_of(count),
            "{} coefficients do not make {count} sums",
            weights.len()
        );
        Ok(Self { weights: weights.to_vec(), width: weights.len() / count, intercepts })
    }

    /// How many.
    const fn count(&self) -> usize {
        self.intercepts.len()
    }

    /// Writes the sums of `row`.
    pub(crate) fn write(&self, row: &[f32], sums: &mut [f32]) {
        let weights = self.weights.chunks_exact(self.width);
        for ((sum, weights), intercept) in sums.iter_mut().zip(weights).zip(&self.intercepts) {
            *sum = dot(weights, row) + intercept;
        }
    }
}

/// The sum of products, in eight sums so that they need not wait for each other.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0_f32; 8];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// Builds `LinearClassifier`: rows `[N, F]` of numbers to labels `[N]` and scores `[N, classes]`.
pub(crate) fn classifier(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let labels = labels(node, "classlabels_ints")?;
    let coefficients = floats(node, "coefficients")?;
    let mut intercepts = floats(node, "intercepts")?.to_vec();
    if intercepts.is_empty() {
        intercepts = vec![0.0; labels.len()];
    }
    let is_paired = labels.len() == 2 && intercepts.len() == 1;
    ensure!(
        is_paired || intercepts.len() == labels.len(),
        "{} intercepts for {} classes",
        intercepts.len(),
        labels.len()
    );
    let sums = Sums::new(coefficients, intercepts)?;
    built(node, Classifier { sums, labels, post_transform: post_transform(node)?, is_paired })
}

struct Classifier {
    sums: Sums,
    labels: Labels,
    post_transform: PostTransform,
    /// Two classes with the positive one's sum alone.
    is_paired: bool,
}

impl Classifier {
    /// Writes the scores of one row and answers its class.
    fn score(&self, row: &[f32], scores: &mut [f32]) -> usize {
        self.sums.write(row, scores);
        if let ([no, yes], true) = (&mut *scores, self.is_paired) {
            let margin = *no;
            // Untransformed, onnxruntime takes the sum for a share.
            [*no, *yes] = pair(margin, Pairing::Share, self.post_transform);
            return usize::from(margin > 0.0);
        }
        let class = largest(scores, |_| true);
        self.post_transform.apply(scores);
        class
    }
}

impl Kernel for Classifier {
    fn name(&self) -> &'static str {
        "LinearClassifier"
    }

    fn forms(&self, inputs: &[Form]) -> TractResult<TVec<Form>> {
        let (rows, _) = rows_and_width(only(inputs)?, Some(self.sums.width), 0)?;
        Ok(self.labels.forms(rows, self.labels.len()))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let rows = Rows::of::<f32>(inputs)?;
        let mut classes = Vec::with_capacity(rows.count);
        let write = |row: &[f32], scores: &mut [f32]| classes.push(self.score(row, scores));
        let scores = by_row(&rows, self.labels.len(), write)?;
        Ok(tvec![self.labels.of(&classes), scores])
    }
}

/// Builds `LinearRegressor`: rows `[N, F]` of numbers to values `[N, targets]`.
pub(crate) fn regressor(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let targets = targets(node, "targets")?;
    let mut intercepts = floats(node, "intercepts")?.to_vec();
    if intercepts.is_empty() {
        intercepts = vec![0.0; targets];
    }
    ensure!(intercepts.len() == targets, "{} intercepts for {targets} targets", intercepts.len());
    let sums = Sums::new(floats(node, "coefficients")?, intercepts)?;
    built(node, Regressor { sums, post_transform: post_transform(node)? })
}

struct Regressor {
    sums: Sums,
    post_transform: PostTransform,
}

impl Kernel for Regressor {
    fn name(&self) -> &'static str {
        "LinearRegressor"
    }

    fn forms(&self, inputs: &[Form]) -> TractResult<TVec<Form>> {
        let (rows, _) = rows_and_width(only(inputs)?, Some(self.sums.width), 0)?;
        Ok(one_form(DatumType::F32, tvec![rows, self.sums.count().into()]))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let write = |row: &[f32], values: &mut [f32]| {
            self.sums.write(row, values);
            self.post_transform.apply(values);
        };
        Ok(tvec![by_row(&Rows::of::<f32>(inputs)?, self.sums.count(), write)?])
    }
}
