//! Operators of ONNX itself where tract gets them wrong: each in a graph of its own, with what the specification says.

use std::f64::consts::LN_2;

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::type_proto::{Tensor as TensorType, Value as Type};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto,
    ValueInfoProto,
};
use tract_onnx::tract_hir::internal::{
    Datum, DatumType, InferenceFact, InferenceModelExt as _, IntoRunnable as _, IntoTensor, TDim, TVec,
    Tensor, ToDim, TractResult, tensor1, tensor2, tvec,
};

use super::framework;

fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: operator.into(),
        input: inputs.iter().map(|name| (*name).into()).collect(),
        output: vec![output.into()],
        ..NodeProto::default()
    }
}

fn with(
    mut node: NodeProto,
    name: &str,
    kind: AttributeType,
    set: impl FnOnce(&mut AttributeProto),
) -> NodeProto {
    let mut attribute =
        AttributeProto { name: name.into(), r#type: kind as i32, ..AttributeProto::default() };
    set(&mut attribute);
    node.attribute.push(attribute);
    node
}

fn int(node: NodeProto, name: &str, value: i64) -> NodeProto {
    with(node, name, AttributeType::Int, |attribute| attribute.i = value)
}

fn float(node: NodeProto, name: &str, value: f32) -> NodeProto {
    with(node, name, AttributeType::Float, |attribute| attribute.f = value)
}

fn word(node: NodeProto, name: &str, value: &str) -> NodeProto {
    with(node, name, AttributeType::String, |attribute| attribute.s = value.as_bytes().to_vec())
}

fn value(name: &str) -> ValueInfoProto {
    let tensor = TensorType { elem_type: 1, shape: None };
    let kind = TypeProto { value: Some(Type::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.into(), r#type: Some(kind), ..ValueInfoProto::default() }
}

fn constant(name: &str, tensor: &Tensor) -> TensorProto {
    let dims = tensor.shape().iter().map(|length| i64::try_from(*length).expect("short")).collect();
    let mut proto = TensorProto { name: name.into(), dims, ..TensorProto::default() };
    let plain = tensor.try_as_plain_ram().expect("plain");
    if tensor.datum_type() == i64::datum_type() {
        proto.data_type = 7;
        proto.int64_data = plain.as_slice::<i64>().expect("whole").to_vec();
    } else {
        proto.data_type = 1;
        proto.float_data = plain.as_slice::<f32>().expect("floats").to_vec();
    }
    proto
}

/// Runs a graph of `nodes` on `x`, of which the axis `open` is of unknown length; answers the outputs of the last node.
fn run(
    nodes: Vec<NodeProto>,
    opset: i64,
    x: Tensor,
    open: Option<usize>,
    constants: &[(&str, Tensor)],
) -> TractResult<Vec<Tensor>> {
    let outputs = nodes.last().map(|node| node.output.clone()).unwrap_or_default();
    let graph = GraphProto {
        node: nodes,
        input: vec![value("x")],
        output: outputs.iter().filter(|name| !name.is_empty()).map(|name| value(name)).collect(),
        initializer: constants.iter().map(|(name, tensor)| constant(name, tensor)).collect(),
        ..GraphProto::default()
    };
    let proto = ModelProto {
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: opset }],
        ..ModelProto::default()
    };
    let onnx = framework().with_ignore_output_shapes(true).with_ignore_output_types(true);
    let mut parsed = onnx.parse(&proto, None)?.model;
    let mut shape: TVec<TDim> = x.shape().iter().map(ToDim::to_dim).collect();
    if let Some(open) = open {
        shape[open] = parsed.symbols.new_with_prefix("rows").to_dim();
    }
    parsed.set_input_fact(0, InferenceFact::dt_shape(x.datum_type(), shape))?;
    let plan = parsed.into_typed()?.into_optimized()?.into_runnable()?;
    let outputs = plan.run(tvec![x.into()])?;
    Ok(outputs.into_iter().map(IntoTensor::into_tensor).collect())
}

fn one(node: NodeProto, opset: i64, x: &Tensor, constants: &[(&str, Tensor)]) -> Tensor {
    let open = (x.rank() > 1).then_some(0);
    run(vec![node], opset, x.clone(), open, constants).expect("runs").remove(0)
}

fn doubles(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.cast_to::<f64>().expect("numbers");
    tensor.try_as_plain_ram().expect("plain").as_slice::<f64>().expect("doubles").to_vec()
}

fn wholes(tensor: &Tensor) -> Vec<i64> {
    let tensor = tensor.cast_to::<i64>().expect("numbers");
    tensor.try_as_plain_ram().expect("plain").as_slice::<i64>().expect("whole").to_vec()
}

fn close(found: &Tensor, expected: &[f64]) {
    let found = doubles(found);
    assert_eq!(found.len(), expected.len());
    for (one, other) in found.iter().zip(expected) {
        // Infinities, too.
        let is_same = one.total_cmp(other).is_eq() || (one.is_nan() && other.is_nan());
        assert!(
            is_same || (one - other).abs() <= 1e-5 * other.abs().max(1e-2),
            "{found:?}, not {expected:?}"
        );
    }
}

#[test]
fn logarithms_of_sums_of_exponentials_hold_of_any_size() {
    let (low, high, none) = (f64::NEG_INFINITY, f64::INFINITY, f64::NAN);
    let rows = [
        [-200.0, -201.0, -202.0],
        [0.0, 0.0, 150.0],
        [low, low, low],
        [high, 0.0, 1.0],
        [none, 0.0, 1.0],
        [-1e30, 0.0, 1.0],
    ];
    let all = [-199.592_394, 150.0, low, high, none, 1.313_262];
    for datum_type in [f32::datum_type(), f64::datum_type()] {
        let x = tensor2(&rows).cast_to_dt(datum_type).expect("cast").into_owned();
        let listed = with(node("ReduceLogSumExp", &["x"], "y"), "axes", AttributeType::Ints, |axes| {
            axes.ints = vec![-1];
        });
        let found = one(int(listed, "keepdims", 0), 13, &x, &[]);
        assert_eq!((found.shape(), found.datum_type()), (&[6][..], datum_type));
        close(&found, &all);
        let found = one(node("ReduceLogSumExp", &["x", "a"], "y"), 18, &x, &[("a", tensor1(&[1_i64]))]);
        assert_eq!(found.shape(), [6, 1]);
        close(&found, &all);
    }
    let found = one(node("ReduceLogSumExp", &["x"], "y"), 18, &tensor2(&[[1000.0_f32, 1000.0]]), &[]);
    close(&found, &[1000.0 + LN_2]);
}

#[test]
fn whole_numbers_are_added_in_64_bits() {
    let x = tensor2(&[[1_i64 << 40, 5, -3], [i64::MIN, i64::MAX, 7], [-1, -(1 << 33), 1 << 62]]);
    let axis = [("a", tensor1(&[1_i64]))];
    let reduced = |operator: &str| wholes(&one(node(operator, &["x", "a"], "y"), 18, &x, &axis));
    assert_eq!(reduced("ReduceSum"), [(1 << 40) + 2, 6, (1 << 62) - 1 - (1 << 33)]);
    assert_eq!(reduced("ReduceMean"), [((1 << 40) + 2) / 3, 2, ((1 << 62) - 1 - (1 << 33)) / 3]);
    let small = tensor2(&[[1_i64 << 31, -(1 << 30), 2]]);
    let reduced = |operator: &str| wholes(&one(node(operator, &["x", "a"], "y"), 18, &small, &axis));
    assert_eq!(reduced("ReduceL1"), [(1 << 31) + (1 << 30) + 2]);
    assert_eq!(reduced("ReduceSumSquare"), [(1 << 62) + (1 << 60) + 4]);
    assert_eq!(wholes(&one(node("Mul", &["x", "x"], "y"), 18, &small, &[])), [1 << 62, 1 << 60, 4]);
}

#[test]
fn a_cast_keeps_64_bits() {
    let cast = |x: Tensor, to: i64| run(vec![int(node("Cast", &["x"], "y"), "to", to)], 18, x, Some(0), &[]);
    let big = (1_i64 << 40) + 5;
    let found = cast(tensor1(&[big, -big, 1]), 7).expect("runs").remove(0);
    assert_eq!((found.datum_type(), wholes(&found)), (DatumType::I64, vec![big, -big, 1]));
    let found = cast(tensor1(&[1.7e12_f64, -2.9]), 7).expect("runs").remove(0);
    assert_eq!((found.datum_type(), wholes(&found)), (DatumType::I64, vec![1_700_000_000_000, -2]));
    let found = cast(tensor1(&["12".to_owned(), "-7".to_owned()]), 7).expect("runs").remove(0);
    assert_eq!(wholes(&found), [12, -7]);
    let fault = cast(tensor1(&[1e10_f32]), 8).expect_err("floats as texts");
    assert!(format!("{fault:#}").contains("to texts is not supported"), "{fault:#}");
}

#[test]
fn lengths_stay_lengths_when_cast() {
    // As exporters write the shape of a value for another.
    let nodes = vec![
        node("Shape", &["x"], "s"),
        int(node("Cast", &["s"], "c"), "to", 7),
        node("ConstantOfShape", &["c"], "z"),
        node("Add", &["x", "z"], "y"),
    ];
    let x = tensor2(&[[1.0_f32, 2.0], [3.0, 4.0]]);
    let found = run(nodes, 18, x, Some(0), &[]).expect("runs").remove(0);
    assert_eq!((found.datum_type(), doubles(&found)), (DatumType::F32, vec![1.0, 2.0, 3.0, 4.0]));
}

#[test]
fn functions_of_doubles_are_of_double_precision() {
    let x = [-800.0, -2.5, -0.5, 0.0, 0.3, 1.5, 2.5, 1e15 + 0.5, f64::NAN];
    let found = |node: NodeProto| {
        let found = one(node, 22, &tensor1(&x), &[]);
        assert_eq!(found.datum_type(), DatumType::F64);
        doubles(&found)
    };
    let check = |found: Vec<f64>, expected: &dyn Fn(f64) -> f64| {
        for (x, found) in x.iter().zip(found) {
            let expected = expected(*x);
            let is_same = found.is_nan() && expected.is_nan();
            assert!(
                is_same || (found - expected).abs() <= 1e-14 * expected.abs(),
                "of {x} {found}, not {expected}"
            );
        }
    };
    check(found(node("Sigmoid", &["x"], "y")), &|x| 1.0 / (1.0 + (-x).exp()));
    let alpha = f64::from(0.1_f32);
    check(found(float(node("LeakyRelu", &["x"], "y"), "alpha", 0.1)), &|x| {
        if x < 0.0 { alpha * x } else { x }
    });
    check(found(node("Round", &["x"], "y")), &f64::round_ties_even);
    check(found(node("HardSwish", &["x"], "y")), &|x| {
        if x.is_nan() { x } else { x * (x / 6.0 + 0.5).clamp(0.0, 1.0) }
    });
}

#[test]
fn what_is_no_number_is_found_among_doubles() {
    let x = tensor1(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0]);
    let found = |node: NodeProto| {
        let found = one(node, 18, &x, &[]);
        found.try_as_plain_ram().expect("plain").as_slice::<bool>().expect("truths").to_vec()
    };
    assert_eq!(found(node("IsNaN", &["x"], "y")), [true, false, false, false]);
    let infinite = || node("IsInf", &["x"], "y");
    assert_eq!(found(infinite()), [false, true, true, false]);
    assert_eq!(found(int(infinite(), "detect_negative", 0)), [false, true, false, false]);
    assert_eq!(found(int(infinite(), "detect_positive", 0)), [false, false, true, false]);
}

#[test]
fn functions_hold_at_large_numbers() {
    for datum_type in [f32::datum_type(), f64::datum_type()] {
        let x = tensor2(&[[0.0, 0.0, 150.0], [1.0, 2.0, 3.0], [-1e4, 1e4, f64::NEG_INFINITY]]);
        let x = x.cast_to_dt(datum_type).expect("cast").into_owned();
        let last = [-150.0, -150.0, 0.0, -2.407_606, -1.407_606, -0.407_606, -2e4, 0.0, f64::NEG_INFINITY];
        close(&one(node("LogSoftmax", &["x"], "y"), 18, &x, &[]), &last);
        close(&one(int(node("LogSoftmax", &["x"], "y"), "axis", 1), 11, &x, &[]), &last);
        let found = doubles(&one(int(node("LogSoftmax", &["x"], "y"), "axis", 0), 18, &x, &[]));
        assert!((found[6] + 1e4).abs() < 2.0, "{found:?}");
        let soft = [LN_2, LN_2, 150.0, 1.313_262, 2.126_928, 3.048_587, 0.0, 1e4, 0.0];
        close(&one(node("Softplus", &["x"], "y"), 18, &x, &[]), &soft);
    }
    let found =
        one(float(node("Celu", &["x"], "y"), "alpha", 2.0), 18, &tensor1(&[1.0_f32, -2.0, -1e4]), &[]);
    close(&found, &[1.0, -1.264_241, -2.0]);
}

/// Numbers that are not all alike.
fn numbers(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|at| (at as f32 * 0.7).sin()).collect();
    Tensor::from_shape(shape, &values).expect("fits")
}

#[test]
fn recurrent_layers_begin_with_zeros_however_many_rows_there_are() {
    for (operator, gates) in [("LSTM", 4), ("GRU", 3), ("RNN", 1)] {
        for directions in [1, 2] {
            let constants = [
                ("w", numbers(&[directions, gates * 5, 3])),
                ("r", numbers(&[directions, gates * 5, 5])),
                ("zeros", Tensor::zero::<f32>(&[directions, 4, 5]).expect("zeros")),
            ];
            let layer = |inputs: &[&str]| {
                let mut layer = int(node(operator, inputs, "ys"), "hidden_size", 5);
                layer.output.push("yh".into());
                if directions == 2 { word(layer, "direction", "bidirectional") } else { layer }
            };
            let x = numbers(&[6, 4, 3]);
            // Of an LSTM in both directions tract does not leave rows open, whatever its initial states are.
            let open = (operator != "LSTM" || directions == 1).then_some(1);
            let open = run(vec![layer(&["x", "w", "r"])], 17, x.clone(), open, &constants).expect("runs");
            let states: &[&str] = if operator == "LSTM" {
                &["x", "w", "r", "", "", "zeros", "zeros"]
            } else {
                &["x", "w", "r", "", "", "zeros"]
            };
            let given = run(vec![layer(states)], 17, x, None, &constants).expect("runs");
            for (one, other) in open.iter().zip(&given) {
                assert_eq!(one.shape(), other.shape());
                close(one, &doubles(other));
            }
        }
    }
}

#[test]
fn a_recurrent_layer_from_the_end_is_one_of_what_is_turned_about() {
    let constants = [("w", numbers(&[1, 20, 3])), ("r", numbers(&[1, 20, 5]))];
    let layer = |direction: &str| {
        let mut layer = int(node("LSTM", &["x", "w", "r"], "ys"), "hidden_size", 5);
        layer.output.extend(["yh".into(), "yc".into()]);
        vec![word(layer, "direction", direction)]
    };
    let turned = |tensor: &Tensor| {
        let steps: Vec<Tensor> =
            (0..tensor.shape()[0]).rev().map(|at| tensor.slice(0, at, at + 1).expect("a step")).collect();
        Tensor::stack_tensors(0, &steps).expect("fits")
    };
    let x = numbers(&[6, 4, 3]);
    let forward = run(layer("forward"), 17, turned(&x), Some(1), &constants).expect("runs");
    let reverse = run(layer("reverse"), 17, x, Some(1), &constants).expect("runs");
    close(&reverse[0], &doubles(&turned(&forward[0])));
    close(&reverse[1], &doubles(&forward[1]));
    close(&reverse[2], &doubles(&forward[2]));
}
