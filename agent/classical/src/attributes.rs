//! Attributes of a node, read with their counts and ranges checked: a model file is untrusted.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::{NodeProto, TensorProto};
use tract_onnx::tract_hir::internal::{Datum, TractResult, bail, ensure};

use super::forest::Real;
use super::scores::{Labels, PostTransform};

/// Most classes or targets. Scores are kept for all of them while a row is evaluated.
pub(crate) const MAX_TARGETS: usize = 1 << 20;

/// The list of floats `name`; none when it is absent.
pub(crate) fn floats<'a>(node: &'a NodeProto, name: &str) -> TractResult<&'a [f32]> {
    Ok(node.get_attr_opt_slice::<f32>(name)?.unwrap_or_default())
}

/// The list of integers `name`; none when it is absent.
pub(crate) fn ints<'a>(node: &'a NodeProto, name: &str) -> TractResult<&'a [i64]> {
    Ok(node.get_attr_opt_slice::<i64>(name)?.unwrap_or_default())
}

/// The list of texts `name`; none when it is absent.
pub(crate) fn texts(node: &NodeProto, name: &str) -> TractResult<Vec<String>> {
    Ok(node.get_attr_opt_vec::<String>(name)?.unwrap_or_default())
}

/// The tensor `name`, all its values in one list; `None` when it is absent.
pub(crate) fn tensor<T: Datum + Clone>(
    context: &ParsingContext<'_>,
    node: &NodeProto,
    name: &str,
) -> TractResult<Option<Vec<T>>> {
    match node.get_attr_opt::<&TensorProto>(name)? {
        Some(proto) => {
            let tensor = context.load_tensor(proto)?;
            let tensor = tensor.cast_to::<T>()?;
            Ok(Some(tensor.try_as_plain_ram()?.as_slice::<T>()?.to_vec()))
        }
        None => Ok(None),
    }
}

/// The floats `name`, or those of the tensor `name_as_tensor`, which may be of double precision.
pub(crate) fn reals<T: Real>(
    context: &ParsingContext<'_>,
    node: &NodeProto,
    name: &str,
) -> TractResult<Vec<T>> {
    let listed = floats(node, name)?;
    match tensor::<T>(context, node, &format!("{name}_as_tensor"))? {
        Some(values) if listed.is_empty() => Ok(values),
        Some(_) => bail!("{name} is given as list and as tensor"),
        None => Ok(listed.iter().map(|value| T::from_f32(*value)).collect()),
    }
}

/// The class labels: the integers `ints_name` or `classlabels_strings`.
pub(crate) fn labels(node: &NodeProto, ints_name: &str) -> TractResult<Labels> {
    let numbers = ints(node, ints_name)?;
    let names = texts(node, "classlabels_strings")?;
    let labels = match (numbers.is_empty(), names.is_empty()) {
        (false, true) => Labels::Ints(numbers.to_vec()),
        (true, false) => Labels::Texts(names),
        (true, true) => bail!("neither {ints_name} nor classlabels_strings is given"),
        (false, false) => bail!("{ints_name} and classlabels_strings are given, only one may be"),
    };
    ensure!(labels.len() <= MAX_TARGETS, "{} classes, at most {MAX_TARGETS} are allowed", labels.len());
    Ok(labels)
}

/// The attribute `post_transform`.
pub(crate) fn post_transform(node: &NodeProto) -> TractResult<PostTransform> {
    PostTransform::named(node.get_attr_opt::<&str>("post_transform")?.unwrap_or("NONE"))
}

/// The number `name` of targets, 1 unless given.
pub(crate) fn targets(node: &NodeProto, name: &str) -> TractResult<usize> {
    let targets = node.get_attr_opt::<i64>(name)?.unwrap_or(1);
    match usize::try_from(targets) {
        Ok(targets) if (1..=MAX_TARGETS).contains(&targets) => Ok(targets),
        _ => bail!("{name} is {targets}, it must be 1 to {MAX_TARGETS}"),
    }
}
