//! `TreeEnsembleClassifier` and `TreeEnsembleRegressor`, `ai.onnx.ml` versions 1 and 3, and `TreeEnsemble`, version 5:
//! decision trees, random forests, boosted trees.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::tract_num_traits::Zero;
use tract_onnx::tract_hir::internal::{DatumType, TValue, TVec, Tensor, TractResult, bail, ensure, tvec};

use super::attributes::{labels, post_transform, reals, targets};
use super::forest::{Aggregate, Forest, Real, Scores};
use super::kernel::{Built, Form, Kernel, Rows, built, by_row, one_form, only, plain, rows_and_width};
use super::precision::{EitherPrecision, may_be_double};
use super::scores::{Labels, Pairing, PostTransform, largest, pair};
use super::{tree_lists, trees};

/// Builds `TreeEnsembleClassifier`: rows `[N, F]` of numbers to labels `[N]` and scores `[N, classes]`.
pub(crate) fn classifier(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let double = || Classifier::<f64>::parse(context, node);
    if is_double(node, "class_weights_as_tensor") {
        return built(node, double()?);
    }
    let single = Classifier::<f32>::parse(context, node)?;
    if may_be_double(context) {
        built(node, EitherPrecision::new(single, double()?))
    } else {
        built(node, single)
    }
}

/// Builds `TreeEnsembleRegressor`: rows `[N, F]` of numbers to values `[N, targets]`.
pub(crate) fn regressor(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let double = || Regressor::<f64>::parse(context, node);
    if is_double(node, "target_weights_as_tensor") {
        return built(node, double()?);
    }
    let single = Regressor::<f32>::parse(context, node)?;
    if may_be_double(context) {
        built(node, EitherPrecision::new(single, double()?))
    } else {
        built(node, single)
    }
}

/// Builds `TreeEnsemble`: rows `[N, F]` of floats to scores `[N, targets]` of the same type.
pub(crate) fn ensemble(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    match tree_lists::element_type(node)? {
        DatumType::F64 => built(node, Ensemble::<f64>::parse(context, node, DatumType::F64)?),
        // Half precision compares and adds in single precision, which holds all of its numbers.
        element => built(node, Ensemble::<f32>::parse(context, node, element)?),
    }
}

/// Whether trees are given in double precision and features are to be compared in it, whatever they come in. Trees in
/// single precision are widened where features are of double, as onnxruntime does it.
fn is_double(node: &NodeProto, weights: &str) -> bool {
    node.attribute
        .iter()
        .any(|attribute| attribute.name == "nodes_values_as_tensor" || attribute.name == weights)
}

struct Classifier<T> {
    forest: Forest<T>,
    labels: Labels,
    base: Vec<T>,
    post_transform: PostTransform,
    /// Of two classes whose leaves score only one: what that score is.
    pairing: Option<Pairing>,
}

impl<T: Real> Classifier<T> {
    fn parse(context: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Self> {
        let labels = labels(node, "classlabels_int64s")?;
        let (nodes, mut weights) = trees::raw::<T>(context, node, "class")?;
        let base = reals::<T>(context, node, "base_values")?;
        let classes = labels.len();
        let fits = base.is_empty() || base.len() == classes || (classes == 2 && base.len() == 1);
        ensure!(fits, "{} base values for {classes} classes", base.len());
        let only = weights.iter().next().map(|weight| weight.target);
        let is_paired = classes == 2
            && only.is_some_and(|only| (0..2).contains(&only))
            && weights.iter().all(|weight| Some(weight.target) == only);
        let pairing = is_paired.then(|| {
            let is_share = weights.iter().all(|weight| weight.weight >= T::ZERO);
            if is_share { Pairing::Share } else { Pairing::Margin }
        });
        if is_paired {
            weights.count_for_one();
        }
        let forest = Forest::build(&nodes, &weights, if is_paired { 1 } else { classes })?;
        Ok(Self { forest, labels, base, post_transform: post_transform(node)?, pairing })
    }

    /// Writes the scores of one row and answers its class.
    fn finish(&self, scores: &mut Scores<T>, row: &mut [f32]) -> usize {
        if let Some(pairing) = self.pairing {
            let score = scores.values.first().copied().unwrap_or(T::ZERO);
            // Of two base values the second is the positive class's, which is the one that is scored.
            let positive = self.base.last().map_or(score, |base| score.plus(*base)).to_f32();
            if let [no, yes] = row {
                [*no, *yes] = pair(positive, pairing, self.post_transform);
            }
            let bound = if pairing == Pairing::Share { 0.5 } else { 0.0 };
            return usize::from(positive > bound);
        }
        let has_base = self.base.len() == scores.values.len();
        for (at, (slot, score)) in row.iter_mut().zip(&scores.values).enumerate() {
            *slot = self.base.get(at).map_or(*score, |base| score.plus(*base)).to_f32();
        }
        // The top class also of two, where onnxruntime (1.32) takes the second as soon as its score is
        // above 0. A class that no leaf spoke of is not the best one because all others are below 0.
        let class = largest(row, |class| has_base || scores.seen.get(class).copied().unwrap_or(false));
        self.post_transform.apply(row);
        class
    }
}

impl<T: Real> Kernel for Classifier<T> {
    fn name(&self) -> &'static str {
        "TreeEnsembleClassifier"
    }

    fn forms(&self, inputs: &[Form]) -> TractResult<TVec<Form>> {
        let (rows, _) = rows_and_width(only(inputs)?, None, self.forest.width)?;
        Ok(self.labels.forms(rows, self.labels.len()))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let rows = Rows::of::<T>(inputs)?;
        let mut scores = Scores::new(self.forest.targets);
        let mut classes = Vec::with_capacity(rows.count);
        let output = by_row::<T, _>(&rows, self.labels.len(), |row, slots| {
            self.forest.score(row, Aggregate::Sum, &mut scores);
            classes.push(self.finish(&mut scores, slots));
        })?;
        Ok(tvec![self.labels.of(&classes), output])
    }
}

struct Regressor<T> {
    forest: Forest<T>,
    base: Vec<T>,
    aggregate: Aggregate,
    post_transform: PostTransform,
}

impl<T: Real> Regressor<T> {
    fn parse(context: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Self> {
        let targets = targets(node, "n_targets")?;
        let (nodes, mut weights) = trees::raw::<T>(context, node, "target")?;
        if targets == 1 {
            // skl2onnx lists the number of a leaf once for each class; onnxruntime takes it once.
            weights.keep_first();
        }
        let base = reals::<T>(context, node, "base_values")?;
        ensure!(base.is_empty() || base.len() == targets, "{} base values for {targets} targets", base.len());
        let aggregate = match node.get_attr_opt::<&str>("aggregate_function")?.unwrap_or("SUM") {
            "SUM" => Aggregate::Sum,
            "AVERAGE" => Aggregate::Average,
            "MIN" => Aggregate::Min,
            "MAX" => Aggregate::Max,
            name => bail!("there is no aggregate_function {name:?}"),
        };
        let forest = Forest::build(&nodes, &weights, targets)?;
        Ok(Self { forest, base, aggregate, post_transform: post_transform(node)? })
    }
}

impl<T: Real> Kernel for Regressor<T> {
    fn name(&self) -> &'static str {
        "TreeEnsembleRegressor"
    }

    fn forms(&self, inputs: &[Form]) -> TractResult<TVec<Form>> {
        let (rows, _) = rows_and_width(only(inputs)?, None, self.forest.width)?;
        Ok(one_form(DatumType::F32, tvec![rows, self.forest.targets.into()]))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let rows = Rows::of::<T>(inputs)?;
        let mut scores = Scores::new(self.forest.targets);
        let output = by_row::<T, _>(&rows, self.forest.targets, |row, slots| {
            self.forest.score(row, self.aggregate, &mut scores);
            for (at, (slot, score)) in slots.iter_mut().zip(&scores.values).enumerate() {
                *slot = self.base.get(at).map_or(*score, |base| score.plus(*base)).to_f32();
            }
            self.post_transform.apply(slots);
        })?;
        Ok(tvec![output])
    }
}

struct Ensemble<T> {
    forest: Forest<T>,
    aggregate: Aggregate,
    post_transform: PostTransform,
    /// Of rows and scores.
    element: DatumType,
}

impl<T: Real> Ensemble<T> {
    fn parse(context: &ParsingContext<'_>, node: &NodeProto, element: DatumType) -> TractResult<Self> {
        let targets = targets(node, "n_targets")?;
        let aggregate = match node.get_attr_opt::<i64>("aggregate_function")?.unwrap_or(1) {
            0 => Aggregate::Average,
            1 => Aggregate::Sum,
            2 => Aggregate::Min,
            3 => Aggregate::Max,
            number => bail!("there is no aggregate_function {number}"),
        };
        let post_transform =
            PostTransform::numbered(node.get_attr_opt::<i64>("post_transform")?.unwrap_or(0))?;
        let lists = tree_lists::read::<T>(context, node)?;
        let forest =
            Forest::with_sets(&lists.nodes, &lists.sets, &lists.weights.into_iter().collect(), targets)?;
        Ok(Self { forest, aggregate, post_transform, element })
    }
}

impl<T: Real + Zero> Kernel for Ensemble<T> {
    fn name(&self) -> &'static str {
        "TreeEnsemble"
    }

    fn forms(&self, inputs: &[Form]) -> TractResult<TVec<Form>> {
        let input = only(inputs)?;
        let (given, element) = (plain(input.0), self.element);
        ensure!(given == element, "its rows are of {given:?}, its trees of {element:?}");
        let (rows, _) = rows_and_width(input, None, self.forest.width)?;
        Ok(one_form(element, tvec![rows, self.forest.targets.into()]))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let rows = Rows::of::<T>(inputs)?;
        let mut scores = Scores::new(self.forest.targets);
        let mut singles = vec![0.0; self.forest.targets];
        let output = by_row::<T, T>(&rows, self.forest.targets, |row, slots| {
            self.forest.score(row, self.aggregate, &mut scores);
            if self.post_transform == PostTransform::None {
                slots.iter_mut().zip(&scores.values).for_each(|(slot, score)| *slot = *score);
                return;
            }
            // In single precision also where scores are of double, as onnxruntime does it.
            singles.iter_mut().zip(&scores.values).for_each(|(single, score)| *single = score.to_f32());
            self.post_transform.apply(&mut singles);
            slots.iter_mut().zip(&singles).for_each(|(slot, single)| *slot = T::from_f32(*single));
        })?;
        Ok(tvec![output.cast_to_dt(self.element)?.into_owned()])
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
