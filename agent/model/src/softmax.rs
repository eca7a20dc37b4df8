//! A Softmax along an axis that is not the last: tract gathers each of its many short columns value by value. Written
//! out as `ReduceMax`, `Sub`, `Exp`, `ReduceSum` and `Div`, every step walks memory in order.

use tract_onnx::tract_core::ops::math;
use tract_onnx::tract_core::ops::nn::{Reduce, Reducer, Softmax, SoftmaxKind};
use tract_onnx::tract_hir::internal::{Datum, TDim, TractResult, TypedModel, TypedModelPatch};

/// Writes out every such Softmax of `model` and says which.
///
/// To be done after decluttering, which moves axes about.
pub(crate) fn write_out(model: &mut TypedModel) -> TractResult<Vec<String>> {
    let mut rewrites = Vec::new();
    let found: Vec<usize> =
        model.nodes().iter().filter(|node| is_across(model, node.id)).map(|node| node.id).collect();
    for id in found {
        let node = model.node(id);
        let Some(softmax) = node.op_as::<Softmax>() else { continue };
        let (name, axes) = (node.name.clone(), softmax.axes.clone());
        let reduce = |reducer| Reduce { axes: axes.clone(), reducer };
        let step = |what: &str| format!("{name}/{what}");
        let mut patch = TypedModelPatch::default();
        let input = patch.tap_model(model, node.inputs[0])?;
        let most = patch.wire_node(step("max"), reduce(Reducer::Max), &[input])?[0];
        let below = patch.wire_node(step("sub"), math::sub(), &[input, most])?[0];
        let exponentials = patch.wire_node(step("exp"), math::exp(), &[below])?[0];
        let sum = patch.wire_node(step("sum"), reduce(Reducer::Sum), &[exponentials])?[0];
        let shares = patch.wire_node(step("div"), math::div(), &[exponentials, sum])?[0];
        patch.shunt_outside(model, id.into(), shares)?;
        patch.apply(model)?;
        let axes: Vec<String> = axes.iter().map(ToString::to_string).collect();
        rewrites.push(format!("Softmax {name} along axis {} written out", axes.join(", ")));
    }
    Ok(rewrites)
}

/// Whether the values that one Softmax is over lie apart in memory.
fn is_across(model: &TypedModel, id: usize) -> bool {
    let node = model.node(id);
    let Some(softmax) = node.op_as::<Softmax>() else {
        return false;
    };
    let Ok(fact) = model.outlet_fact(node.inputs[0]) else {
        return false;
    };
    let behind = softmax.axes.iter().max().map_or(0, |last| last + 1);
    let apart = fact
        .shape
        .iter()
        .enumerate()
        .skip(behind)
        .any(|(axis, length)| !softmax.axes.contains(&axis) && *length != TDim::from(1));
    apart && softmax.kind == SoftmaxKind::Softmax && fact.datum_type == f32::datum_type()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::tract_core::internal::{
        DatumExt as _, SpecialOps as _, TVec, Tensor, TypedSimplePlan, tvec,
    };

    fn model(shape: &[usize], axes: TVec<usize>) -> TypedModel {
        let mut model = TypedModel::default();
        let input = model.add_source("x", f32::fact(shape)).expect("a source");
        let softmax = Softmax { axes, ..Softmax::default() };
        let output = model.wire_node("s", softmax, &[input]).expect("wired");
        model.select_output_outlets(&output).expect("an output");
        model
    }

    fn run(model: TypedModel, input: Tensor) -> Vec<f32> {
        let plan = model.into_optimized().and_then(TypedSimplePlan::new).expect("a plan");
        let outputs = plan.run(tvec![input.into()]).expect("runs");
        outputs[0].try_as_plain_ram().expect("plain").as_slice::<f32>().expect("floats").to_vec()
    }

    #[test]
    fn written_out_it_computes_the_same() {
        for (shape, axes) in
            [(vec![2, 5, 7], tvec![1]), (vec![3, 4, 2, 6], tvec![1, 2]), (vec![9, 4], tvec![0])]
        {
            let values: Vec<f32> =
                (0..shape.iter().product::<usize>()).map(|at| (at as f32 * 1.7).sin() * 40.0).collect();
            let input = Tensor::from_shape(&shape, &values).expect("fits");
            let plain = model(&shape, axes);
            let mut other = plain.clone();
            assert_eq!(write_out(&mut other).expect("rewritten").len(), 1);
            assert!(other.nodes().iter().all(|node| !node.op_is::<Softmax>()));
            let (expected, found) = (run(plain, input.clone()), run(other, input));
            let worst =
                expected.iter().zip(&found).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-6, "{worst}");
        }
    }

    #[test]
    fn one_along_the_last_axis_stays() {
        for (shape, axes) in
            [(vec![2, 5, 7], tvec![2]), (vec![2, 5, 1, 1], tvec![1]), (vec![2, 5, 7], tvec![1, 2])]
        {
            let mut plain = model(&shape, axes);
            assert!(write_out(&mut plain).expect("looked at").is_empty());
        }
    }
}
