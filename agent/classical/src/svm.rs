//! `SVMClassifier` and `SVMRegressor`, `ai.onnx.ml` version 1: support vector machines as LIBSVM trains
//! them, one decision per pair of classes.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::{DatumType, TValue, TVec, Tensor, TractResult, bail, ensure, tvec};

use super::attributes::{floats, ints, labels, post_transform};
use super::kernel::{Built, Form, Kernel, Rows, built, by_row, one_form, only, rows_and_width};
use super::linear::{Sums, dot};
use super::scores::{Labels, Pairing, PostTransform, largest, logistic, pair};

/// Most classes: the decisions between them are as many as half their square.
const MAX_CLASSES: usize = 1024;

/// How alike a row and a support vector are (`kernel_type`).
#[derive(Clone, Copy, Debug, PartialEq)]
enum Likeness {
    Linear,
    Polynomial {
        gamma: f32,
        offset: f32,
        degree: f32,
    },
    /// Of their distance.
    Radial {
        gamma: f32,
    },
    Sigmoid {
        gamma: f32,
        offset: f32,
    },
}

impl Likeness {
    fn parse(node: &NodeProto) -> TractResult<Self> {
        let numbers = match *floats(node, "kernel_params")? {
            [] => [0.0; 3],
            [gamma, offset, degree] => [gamma, offset, degree],
            ref other => bail!("kernel_params has {} numbers, not 3", other.len()),
        };
        let [gamma, offset, degree] = numbers;
        Ok(match node.get_attr_opt::<&str>("kernel_type")?.unwrap_or("LINEAR") {
            "LINEAR" => Self::Linear,
            "POLY" => Self::Polynomial { gamma, offset, degree },
            "RBF" => Self::Radial { gamma },
            "SIGMOID" => Self::Sigmoid { gamma, offset },
            name => bail!("there is no kernel_type {name:?}"),
        })
    }

    fn of(self, a: &[f32], b: &[f32]) -> f32 {
        match self {
            Self::Linear => dot(a, b),
            Self::Polynomial { gamma, offset, degree } => (gamma * dot(a, b) + offset).powf(degree),
            Self::Radial { gamma } => {
                let squares = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b));
                (-gamma * squares.sum::<f32>()).exp()
            }
            Self::Sigmoid { gamma, offset } => (gamma * dot(a, b) + offset).tanh(),
        }
    }
}

/// Support vectors with their likeness to a row.
struct Vectors {
    likeness: Likeness,
    values: Vec<f32>,
    width: usize,
    count: usize,
}

impl Vectors {
    fn parse(node: &NodeProto, count: usize) -> TractResult<Self> {
        let values = floats(node, "support_vectors")?.to_vec();
        ensure!(
            count > 0 && !values.is_empty() && values.len().is_multiple_of(count),
            "{} numbers do not make {count} support vectors",
            values.len()
        );
        Ok(Self { likeness: Likeness::parse(node)?, width: values.len() / count, values, count })
    }

    fn write(&self, row: &[f32], likenesses: &mut Vec<f32>) {
        likenesses.clear();
        likenesses.extend(self.values.chunks_exact(self.width).map(|vector| self.likeness.of(row, vector)));
    }
}

/// Builds `SVMRegressor`: rows `[N, F]` of numbers to one value `[N, 1]`.
pub(crate) fn regressor(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let coefficients = floats(node, "coefficients")?.to_vec();
    let count = node.get_attr_opt::<i64>("n_supports")?.unwrap_or(0);
    let Ok(count) = usize::try_from(count) else { bail!("n_supports is {count}") };
    let [rho, ..] = *floats(node, "rho")? else { bail!("rho is missing") };
    let vectors = if count == 0 {
        // Of liblinear: one vector that is the plane itself.
        ensure!(!coefficients.is_empty(), "there are no coefficients");
        let width = coefficients.len();
        Vectors { likeness: Likeness::Linear, values: coefficients.clone(), width, count: 1 }
    } else {
        Vectors::parse(node, count)?
    };
    let coefficients = if count == 0 { vec![1.0] } else { coefficients };
    ensure!(coefficients.len() == vectors.count, "{} coefficients for {count} vectors", coefficients.len());
    let is_one_class = node.get_attr_opt::<i64>("one_class")?.unwrap_or(0) != 0;
    let post_transform = post_transform(node)?;
    built(node, Regressor { vectors, coefficients, rho, is_one_class, post_transform })
}

struct Regressor {
    vectors: Vectors,
    coefficients: Vec<f32>,
    rho: f32,
    /// Answers 1 within the class and −1 outside.
    is_one_class: bool,
    post_transform: PostTransform,
}

impl Kernel for Regressor {
    fn name(&self) -> &'static str {
        "SVMRegressor"
    }

    fn forms(&self, inputs: &[Form]) -> TractResult<TVec<Form>> {
        let (rows, _) = rows_and_width(only(inputs)?, Some(self.vectors.width), 0)?;
        Ok(one_form(DatumType::F32, tvec![rows, 1.into()]))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let mut likenesses = Vec::with_capacity(self.vectors.count);
        let output = by_row::<f32, _>(&Rows::of::<f32>(inputs)?, 1, |row, values| {
            self.vectors.write(row, &mut likenesses);
            let sum = dot(&self.coefficients, &likenesses) + self.rho;
            let class = if sum > 0.0 { 1.0 } else { -1.0 };
            values.fill(if self.is_one_class { class } else { sum });
            self.post_transform.apply(values);
        })?;
        Ok(tvec![output])
    }
}

/// Builds `SVMClassifier`: rows `[N, F]` of numbers to labels `[N]` and scores. These are `[N, classes]`
/// with probabilities, without support vectors, or of two classes; else there is one for each pair of
/// classes.
pub(crate) fn classifier(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let labels = labels(node, "classlabels_ints")?;
    let classes = labels.len();
    ensure!((2..=MAX_CLASSES).contains(&classes), "{classes} classes, 2 to {MAX_CLASSES} are allowed");
    let coefficients = floats(node, "coefficients")?.to_vec();
    let rho = floats(node, "rho")?.to_vec();
    let post_transform = post_transform(node)?;
    let is_positive = coefficients.iter().all(|coefficient| *coefficient >= 0.0);
    let sizes = ints(node, "vectors_per_class")?;
    let Some(count) =
        sizes.iter().try_fold(0_usize, |sum, size| sum.checked_add(usize::try_from(*size).ok()?))
    else {
        bail!("vectors_per_class is {sizes:?}")
    };
    if count == 0 {
        let Some(rho) = rho.first() else { bail!("rho is missing") };
        let sums = Sums::new(&coefficients, vec![*rho; classes])?;
        return built(node, Planes { sums, labels, post_transform, is_positive });
    }
    let pairs = classes * (classes - 1) / 2;
    let sigmoids = [floats(node, "prob_a")?.to_vec(), floats(node, "prob_b")?.to_vec()];
    let [a, b] = &sigmoids;
    let fits = sizes.len() == classes
        && coefficients.len() == (classes - 1).saturating_mul(count)
        && rho.len() == pairs
        && a.len() == b.len()
        && (a.is_empty() || a.len() == pairs);
    ensure!(
        fits,
        "{} coefficients, {} rho, {} prob_a and {} prob_b do not fit {count} vectors of {} for {classes} classes",
        coefficients.len(),
        rho.len(),
        a.len(),
        b.len(),
        sizes.len()
    );
    let vectors = Vectors::parse(node, count)?;
    let mut start = 0;
    let ranges = sizes.iter().map(|size| {
        let from = start;
        start += usize::try_from(*size).unwrap_or(0);
        from..start
    });
    let ranges = ranges.collect();
    built(node, Classifier { vectors, ranges, coefficients, rho, sigmoids, labels, post_transform })
}

/// Planes of liblinear, one per class.
struct Planes {
    sums: Sums,
    labels: Labels,
    post_transform: PostTransform,
    is_positive: bool,
}

impl Kernel for Planes {
    fn name(&self) -> &'static str {
        "SVMClassifier"
    }

    fn forms(&self, inputs: &[Form]) -> TractResult<TVec<Form>> {
        let (rows, _) = rows_and_width(only(inputs)?, Some(self.sums.width), 0)?;
        Ok(self.labels.forms(rows, self.labels.len()))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let rows = Rows::of::<f32>(inputs)?;
        let mut classes = Vec::with_capacity(rows.count);
        let output = by_row::<f32, _>(&rows, self.labels.len(), |row, scores| {
            self.sums.write(row, scores);
            let class = largest(scores, |_| true);
            let bound = if self.is_positive { 0.5 } else { 0.0 };
            // Of two classes onnxruntime takes the second as soon as any score is past the bound.
            let is_past = scores.len() == 2 && scores.get(class).is_some_and(|score| *score > bound);
            classes.push(if is_past { 1 } else { class });
            self.post_transform.apply(scores);
        })?;
        Ok(tvec![self.labels.of(&classes), output])
    }
}

/// One decision per pair of classes.
struct Classifier {
    vectors: Vectors,
    /// Which support vectors are each class's.
    ranges: Vec<std::ops::Range<usize>>,
    /// For each class but one all vectors' coefficients against it.
    coefficients: Vec<f32>,
    rho: Vec<f32>,
    /// Slopes and offsets that make probabilities of decisions (Platt); both empty without.
    sigmoids: [Vec<f32>; 2],
    labels: Labels,
    post_transform: PostTransform,
}

impl Classifier {
    fn has_probabilities(&self) -> bool {
        self.sigmoids.iter().all(|numbers| !numbers.is_empty())
    }

    fn scores(&self) -> usize {
        if self.has_probabilities() || self.labels.len() == 2 { self.labels.len() } else { self.rho.len() }
    }

    /// The pairs of classes, the first below the second, in the order of their decisions.
    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let classes = self.labels.len();
        (0..classes).flat_map(move |one| (one + 1..classes).map(move |other| (one, other)))
    }

    /// Writes the decisions of one row and answers the class with most votes, the first of equals.
    fn decide(&self, likenesses: &[f32], decisions: &mut Vec<f32>) -> usize {
        let part = |class: usize, against: usize| {
            let range = self.ranges.get(class).cloned().unwrap_or_default();
            let offset = against * self.vectors.count;
            let coefficients = self.coefficients.get(offset + range.start..offset + range.end);
            let products =
                coefficients.unwrap_or_default().iter().zip(likenesses.get(range).unwrap_or_default());
            products.map(|(a, b)| f64::from(a * b)).sum::<f64>()
        };
        let mut votes = vec![0.0_f32; self.labels.len()];
        decisions.clear();
        for ((one, other), rho) in self.pairs().zip(&self.rho) {
            let decision = part(one, other - 1) + part(other, one) + f64::from(*rho);
            decisions.push(decision as f32);
            if let Some(votes) = votes.get_mut(if decision > 0.0 { one } else { other }) {
                *votes += 1.0;
            }
        }
        largest(&votes, |_| true)
    }

    /// The probabilities of the classes from those of the pairs.
    fn probabilities(&self, decisions: &[f32], scores: &mut [f32]) {
        let classes = self.labels.len();
        let mut pairwise = vec![0.0_f32; classes * classes];
        let [a, b] = &self.sigmoids;
        for ((((one, other), decision), a), b) in self.pairs().zip(decisions).zip(a).zip(b) {
            let share = (1.0 - logistic(decision * a + b)).clamp(1e-7, 1.0 - 1e-7);
            for (at, share) in [(one * classes + other, share), (other * classes + one, 1.0 - share)] {
                if let Some(slot) = pairwise.get_mut(at) {
                    *slot = share;
                }
            }
        }
        couple(classes, &pairwise, scores);
    }
}

/// Probabilities of classes from those of one class against another, `pairwise[one * classes + other]`, by
/// the second method of Wu, Lin and Weng, "Probability Estimates for Multi-class Classification by
/// Pairwise Coupling" (2004), algorithm 2, with LIBSVM's bound of the error and onnxruntime's 100 rounds.
fn couple(classes: usize, pairwise: &[f32], shares: &mut [f32]) {
    let share = |one: usize, other: usize| pairwise.get(one * classes + other).copied().unwrap_or(0.0);
    let q = |row: usize, column: usize| {
        if row == column {
            let others = (0..classes).filter(|other| *other != row);
            others.map(|other| share(other, row) * share(other, row)).sum()
        } else {
            -share(column, row) * share(row, column)
        }
    };
    let matrix: Vec<f32> = (0..classes * classes).map(|at| q(at / classes, at % classes)).collect();
    shares.fill(1.0 / classes as f32);
    let bound = 0.005 / classes as f32;
    for _ in 0..100 {
        let mut products: Vec<f32> = matrix.chunks_exact(classes).map(|row| dot(row, shares)).collect();
        let mut whole = dot(&products, shares);
        if products.iter().all(|product| (product - whole).abs() < bound) {
            return;
        }
        for (class, row) in matrix.chunks_exact(classes).enumerate() {
            let (Some(diagonal), Some(product)) = (row.get(class), products.get(class)) else { continue };
            let step = (whole - product) / diagonal;
            let scale = 1.0 + step;
            whole = (step * (step * diagonal + 2.0 * product) + whole) / scale / scale;
            if let Some(share) = shares.get_mut(class) {
                *share += step;
            }
            for ((product, element), share) in products.iter_mut().zip(row).zip(shares.iter_mut()) {
                *product = (*product + step * element) / scale;
                *share /= scale;
            }
        }
    }
}

impl Kernel for Classifier {
    fn name(&self) -> &'static str {
        "SVMClassifier"
    }

    fn forms(&self, inputs: &[Form]) -> TractResult<TVec<Form>> {
        let (rows, _) = rows_and_width(only(inputs)?, Some(self.vectors.width), 0)?;
        Ok(self.labels.forms(rows, self.scores()))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let rows = Rows::of::<f32>(inputs)?;
        let (mut likenesses, mut decisions) = (Vec::new(), Vec::new());
        let mut classes = Vec::with_capacity(rows.count);
        let output = by_row::<f32, _>(&rows, self.scores(), |row, scores| {
            self.vectors.write(row, &mut likenesses);
            classes.push(self.decide(&likenesses, &mut decisions));
            if self.has_probabilities() {
                self.probabilities(&decisions, scores);
                self.post_transform.apply(scores);
            } else if let ([decision], [no, yes]) = (decisions.as_slice(), &mut *scores) {
                let is_raw = self.post_transform == PostTransform::None;
                let pairing = if is_raw { Pairing::Margin } else { Pairing::Share };
                [*no, *yes] = pair(*decision, pairing, self.post_transform);
            } else {
                scores.iter_mut().zip(&decisions).for_each(|(score, decision)| *score = *decision);
                self.post_transform.apply(scores);
            }
        })?;
        Ok(tvec![self.labels.of(&classes), output])
    }
}
