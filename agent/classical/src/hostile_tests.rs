//! Attributes that no exporter writes: each operator is built or refused, and never panics or hangs.

use proptest::prelude::*;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::type_proto::{Tensor as TensorType, Value as Type};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorShapeProto, TypeProto, ValueInfoProto,
};
use tract_onnx::tract_hir::internal::{InferenceModelExt as _, IntoRunnable as _, Tensor, TractResult, tvec};

use super::framework;

const OPERATORS: [&str; 16] = [
    "TreeEnsembleClassifier",
    "TreeEnsembleRegressor",
    "TreeEnsemble",
    "LinearClassifier",
    "LinearRegressor",
    "SVMClassifier",
    "SVMRegressor",
    "Scaler",
    "Normalizer",
    "Imputer",
    "Binarizer",
    "OneHotEncoder",
    "LabelEncoder",
    "CategoryMapper",
    "ArrayFeatureExtractor",
    "FeatureVectorizer",
];
const INTS: [&str; 24] = [
    "nodes_treeids",
    "nodes_nodeids",
    "nodes_featureids",
    "nodes_truenodeids",
    "nodes_falsenodeids",
    "nodes_missing_value_tracks_true",
    "class_ids",
    "class_nodeids",
    "class_treeids",
    "target_ids",
    "target_nodeids",
    "target_treeids",
    "classlabels_int64s",
    "classlabels_ints",
    "vectors_per_class",
    "imputed_value_int64s",
    "cats_int64s",
    "keys_int64s",
    "values_int64s",
    "inputdimensions",
    "targets",
    "n_targets",
    "n_supports",
    "zeros",
];
const FLOATS: [&str; 16] = [
    "nodes_values",
    "class_weights",
    "target_weights",
    "base_values",
    "coefficients",
    "intercepts",
    "rho",
    "prob_a",
    "prob_b",
    "kernel_params",
    "support_vectors",
    "offset",
    "scale",
    "imputed_value_floats",
    "keys_floats",
    "values_floats",
];
const STRINGS: [&str; 7] = [
    "nodes_modes",
    "classlabels_strings",
    "cats_strings",
    "keys_strings",
    "values_strings",
    "classes_strings",
    "post_transform",
];
const WORDS: [&str; 8] = ["BRANCH_LEQ", "LEAF", "BRANCH_EQ", "NONE", "SOFTMAX", "PROBIT", "RBF", "?"];

fn attribute() -> impl Strategy<Value = AttributeProto> {
    let named = |name: &'static str, kind: AttributeType| AttributeProto {
        name: name.into(),
        r#type: kind as i32,
        ..AttributeProto::default()
    };
    let number = prop_oneof![3 => 0..4_i64, 1 => any::<i64>()];
    let real = prop_oneof![3 => -2.0_f32..2.0, 1 => any::<f32>()];
    let is_scalar = |name: &str| matches!(name, "targets" | "n_targets" | "n_supports" | "zeros");
    prop_oneof![
        (prop::sample::select(&INTS[..]), prop::collection::vec(number, 0..5)).prop_map(
            move |(name, ints)| {
                if is_scalar(name) {
                    let i = ints.first().copied().unwrap_or(0);
                    AttributeProto { i, ..named(name, AttributeType::Int) }
                } else {
                    AttributeProto { ints, ..named(name, AttributeType::Ints) }
                }
            }
        ),
        (prop::sample::select(&FLOATS[..]), prop::collection::vec(real, 0..5))
            .prop_map(move |(name, floats)| AttributeProto { floats, ..named(name, AttributeType::Floats) }),
        (prop::sample::select(&STRINGS[..]), prop::collection::vec(prop::sample::select(&WORDS[..]), 1..5))
            .prop_map(move |(name, words)| {
                let strings: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
                if name == "post_transform" {
                    AttributeProto { s: strings[0].clone(), ..named(name, AttributeType::String) }
                } else {
                    AttributeProto { strings, ..named(name, AttributeType::Strings) }
                }
            }),
    ]
}

fn model(operator: &str, attributes: Vec<AttributeProto>) -> ModelProto {
    let tensor = TensorType { elem_type: 1, shape: Some(TensorShapeProto::default()) };
    let input = ValueInfoProto {
        name: "x".into(),
        r#type: Some(TypeProto { value: Some(Type::TensorType(tensor)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    };
    let node = NodeProto {
        op_type: operator.into(),
        input: vec!["x".into()],
        output: vec!["y".into()],
        attribute: attributes,
        ..NodeProto::default()
    };
    let output = ValueInfoProto { name: "y".into(), ..ValueInfoProto::default() };
    let graph =
        GraphProto { node: vec![node], input: vec![input], output: vec![output], ..GraphProto::default() };
    ModelProto { graph: Some(graph), ..ModelProto::default() }
}

fn run(proto: &ModelProto) -> TractResult<()> {
    use tract_onnx::tract_hir::internal::{Datum as _, InferenceFact};
    let mut parsed = framework().with_ignore_output_shapes(true).parse(proto, None)?.model;
    parsed.set_input_fact(0, InferenceFact::dt_shape(f32::datum_type(), [2, 2]))?;
    let plan = parsed.into_typed()?.into_optimized()?.into_runnable()?;
    plan.run(tvec![Tensor::from_shape(&[2, 2], &[0.5_f32, f32::NAN, -3.0, 1e30])?.into()])?;
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_attributes_are_an_operator_or_an_error(
        operator in prop::sample::select(&OPERATORS[..]),
        attributes in prop::collection::vec(attribute(), 0..14),
    ) {
        let _ = run(&model(operator, attributes));
    }
}

#[test]
fn an_operator_with_sensible_attributes_runs() {
    let scaler = ["offset", "scale"].map(|name| AttributeProto {
        name: name.into(),
        r#type: AttributeType::Floats as i32,
        floats: vec![1.0, 2.0],
        ..AttributeProto::default()
    });
    run(&model("Scaler", scaler.into())).expect("runs");
    let fault = run(&model("LinearRegressor", Vec::new())).expect_err("no coefficients");
    assert!(format!("{fault:#}").contains("coefficients"), "{fault:#}");
}
