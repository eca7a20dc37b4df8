//! Trees of version 5 against an evaluator that does nothing but follow the specification, and lists that are none.

#![allow(clippy::float_cmp, reason = "what is compared is exactly equal or not")]
#![allow(clippy::cast_possible_wrap, reason = "numbers of nodes and leaves are small")]

use proptest::prelude::*;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use tract_onnx::tract_hir::internal::{
    Datum as _, InferenceFact, InferenceModelExt as _, IntoRunnable as _, Tensor, tvec,
};

use super::*;

const FEATURES: usize = 3;
const TARGETS: usize = 2;
const FLOAT: i32 = 1;
const UINT8: i32 = 2;
const FLOAT16: i32 = 10;
const DOUBLE: i32 = 11;
/// Few numbers, so that features meet thresholds and members.
const NUMBERS: [f32; 7] = [f32::NEG_INFINITY, -1.5, 0.0, 1.0, 2.5, f32::MAX, f32::INFINITY];

/// The lists of one operator.
#[derive(Clone, Debug, Default)]
struct Ensemble {
    features: Vec<i64>,
    modes: Vec<u8>,
    splits: Vec<f32>,
    yes: Vec<i64>,
    no: Vec<i64>,
    yes_leafs: Vec<i64>,
    no_leafs: Vec<i64>,
    missing: Vec<i64>,
    members: Vec<f32>,
    roots: Vec<i64>,
    leaf_targets: Vec<i64>,
    leaf_weights: Vec<f32>,
    aggregate: i64,
    post_transform: i64,
    element: i32,
}

impl Ensemble {
    /// Adds a tree of random numbers, each of which says whether a place is a leaf, and what it compares.
    fn grow(&mut self, choices: &[u32]) {
        let root = self.features.len();
        self.roots.push(root as i64);
        self.branch(choices.first().copied().unwrap_or(0) as usize);
        let (mut open, mut choices) = (vec![(root, true), (root, false)], choices.iter().copied().skip(1));
        while let Some((node, is_yes)) = open.pop() {
            let choice = choices.next().unwrap_or(0) as usize;
            let is_leaf = choice.is_multiple_of(3);
            let id = if is_leaf {
                self.leaf_targets.push((choice / 3 % TARGETS) as i64);
                self.leaf_weights.push((choice / 6 % 17) as f32 - 8.0);
                self.leaf_weights.len() - 1
            } else {
                self.branch(choice / 3);
                open.extend([(self.features.len() - 1, true), (self.features.len() - 1, false)]);
                self.features.len() - 1
            };
            let (ids, leafs) = if is_yes {
                (&mut self.yes, &mut self.yes_leafs)
            } else {
                (&mut self.no, &mut self.no_leafs)
            };
            (ids[node], leafs[node]) = (id as i64, i64::from(is_leaf));
        }
    }

    fn branch(&mut self, choice: usize) {
        self.modes.push((choice % 7) as u8);
        self.features.push((choice / 7 % FEATURES) as i64);
        self.splits.push(NUMBERS[choice / 21 % 7]);
        self.missing.push((choice / 147 % 2) as i64);
        for list in [&mut self.yes, &mut self.no, &mut self.yes_leafs, &mut self.no_leafs] {
            list.push(0);
        }
        if choice % 7 == 6 {
            // The bits say which numbers are members, and some are said twice, out of order.
            let bits = choice / 294;
            let members = (0..7).rev().chain([2, 5]).filter(|at| bits >> at & 1 == 1).map(|at| NUMBERS[at]);
            self.members.extend(members.chain([f32::NAN]));
        }
    }

    /// How many nodes before the node `at` compare with a set.
    fn set_of(&self, at: usize) -> usize {
        self.modes.iter().take(at).map(|mode| usize::from(*mode == 6)).sum()
    }

    /// The scores of `row`, by the text of the specification.
    fn expected(&self, row: &[f32]) -> Vec<f32> {
        let sets: Vec<&[f32]> = self.members.split(|member| member.is_nan()).collect();
        let leaf = |root: &i64| {
            let (mut at, mut is_leaf) = (*root as usize, false);
            while !is_leaf {
                let (value, split) = (row[self.features[at] as usize], self.splits[at]);
                let holds = match self.modes[at] {
                    0 => value <= split,
                    1 => value < split,
                    2 => value >= split,
                    3 => value > split,
                    4 => value == split,
                    5 => value != split,
                    _ => sets[self.set_of(at)].contains(&value),
                };
                let holds = holds || (value.is_nan() && self.missing.get(at) == Some(&1));
                let (ids, leafs) =
                    if holds { (&self.yes, &self.yes_leafs) } else { (&self.no, &self.no_leafs) };
                (at, is_leaf) = (ids[at] as usize, leafs[at] == 1);
            }
            (self.leaf_targets[at] as usize, self.leaf_weights[at])
        };
        let leaves: Vec<(usize, f32)> = self.roots.iter().map(leaf).collect();
        let of = |target| leaves.iter().filter(move |leaf| leaf.0 == target).map(|leaf| leaf.1);
        (0..TARGETS)
            .map(|target| match self.aggregate {
                0 => of(target).sum::<f32>() / self.roots.len() as f32,
                1 => of(target).sum(),
                2 => of(target).reduce(f32::min).unwrap_or(0.0),
                _ => of(target).reduce(f32::max).unwrap_or(0.0),
            })
            .collect()
    }

    fn reals(&self, name: &str, values: &[f32]) -> AttributeProto {
        let raw_data = values.iter().flat_map(|value| match self.element {
            DOUBLE => f64::from(*value).to_le_bytes().to_vec(),
            FLOAT16 => tract_onnx::prelude::f16::from_f32(*value).to_le_bytes().to_vec(),
            _ => value.to_le_bytes().to_vec(),
        });
        packed(name, self.element, values.len(), raw_data.collect())
    }

    fn attributes(&self) -> Vec<AttributeProto> {
        let ints = |name: &str, ints: &[i64]| AttributeProto {
            name: name.into(),
            r#type: AttributeType::Ints as i32,
            ints: ints.to_vec(),
            ..AttributeProto::default()
        };
        let int = |name: &str, i| AttributeProto {
            name: name.into(),
            r#type: AttributeType::Int as i32,
            i,
            ..AttributeProto::default()
        };
        let mut attributes = vec![
            ints("nodes_featureids", &self.features),
            packed("nodes_modes", UINT8, self.modes.len(), self.modes.clone()),
            self.reals("nodes_splits", &self.splits),
            ints("nodes_truenodeids", &self.yes),
            ints("nodes_falsenodeids", &self.no),
            ints("nodes_trueleafs", &self.yes_leafs),
            ints("nodes_falseleafs", &self.no_leafs),
            ints("nodes_missing_value_tracks_true", &self.missing),
            ints("tree_roots", &self.roots),
            ints("leaf_targetids", &self.leaf_targets),
            self.reals("leaf_weights", &self.leaf_weights),
            int("n_targets", TARGETS as i64),
            int("aggregate_function", self.aggregate),
            int("post_transform", self.post_transform),
        ];
        if !self.members.is_empty() {
            attributes.push(self.reals("membership_values", &self.members));
        }
        attributes
    }

    fn run(&self, rows: &[Vec<f32>]) -> TractResult<Tensor> {
        let tensor = type_proto::Tensor { elem_type: self.element, shape: Some(TensorShapeProto::default()) };
        let value = Some(type_proto::Value::TensorType(tensor));
        let input = ValueInfoProto {
            name: "x".into(),
            r#type: Some(TypeProto { value, ..TypeProto::default() }),
            ..ValueInfoProto::default()
        };
        let node = NodeProto {
            op_type: "TreeEnsemble".into(),
            input: vec!["x".into()],
            output: vec!["y".into()],
            attribute: self.attributes(),
            ..NodeProto::default()
        };
        let output = vec![ValueInfoProto { name: "y".into(), ..ValueInfoProto::default() }];
        let graph = GraphProto { node: vec![node], input: vec![input], output, ..GraphProto::default() };
        let proto = ModelProto { graph: Some(graph), ..ModelProto::default() };
        let mut parsed = crate::framework().with_ignore_output_shapes(true).parse(&proto, None)?.model;
        let element = match self.element {
            DOUBLE => f64::datum_type(),
            FLOAT16 => DatumType::F16,
            _ => f32::datum_type(),
        };
        let shape = [rows.len(), FEATURES];
        parsed.set_input_fact(0, InferenceFact::dt_shape(element, shape))?;
        let plan = parsed.into_typed()?.into_optimized()?.into_runnable()?;
        let input = Tensor::from_shape(&shape, &rows.concat())?.cast_to_dt(element)?.into_owned();
        let output = plan.run(tvec![input.into()])?.remove(0);
        ensure!(output.datum_type() == element, "{:?} came of {element:?}", output.datum_type());
        Ok(output.cast_to::<f32>()?.into_owned())
    }

    fn refusal(&self) -> String {
        format!("{:#}", self.run(&[vec![0.0; FEATURES]]).expect_err("no trees"))
    }
}

fn packed(name: &str, data_type: i32, length: usize, raw_data: Vec<u8>) -> AttributeProto {
    let tensor = TensorProto { dims: vec![length as i64], data_type, raw_data, ..TensorProto::default() };
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Tensor as i32,
        t: Some(tensor),
        ..AttributeProto::default()
    }
}

fn values() -> impl Strategy<Value = Vec<f32>> {
    let number = prop_oneof![prop::sample::select(&NUMBERS[..]), Just(0.5), Just(3.0), Just(f32::NAN)];
    prop::collection::vec(number, FEATURES)
}

/// Two nodes and three leaves: `x0 <= 0 ? 1 : (x1 in {1, 2} ? 2 : 4)`.
fn small() -> Ensemble {
    Ensemble {
        features: vec![0, 1],
        modes: vec![0, 6],
        splits: vec![0.0, f32::NAN],
        yes: vec![0, 1],
        no: vec![1, 2],
        yes_leafs: vec![1, 1],
        no_leafs: vec![0, 1],
        missing: vec![],
        members: vec![2.0, 1.0, f32::NAN],
        roots: vec![0],
        leaf_targets: vec![0, 0, 1],
        leaf_weights: vec![1.0, 2.0, 4.0],
        aggregate: 1,
        post_transform: 0,
        element: FLOAT,
    }
}

proptest! {
    #[test]
    fn trees_of_version_5_score_as_the_specification_says(
        choices in prop::collection::vec(prop::collection::vec(any::<u32>(), 0..20), 1..20),
        rows in prop::collection::vec(values(), 1..5),
        aggregate in 0..4_i64,
        is_double: bool,
    ) {
        let element = if is_double { DOUBLE } else { FLOAT };
        let mut ensemble = Ensemble { aggregate, element, ..Ensemble::default() };
        choices.iter().for_each(|choices| ensemble.grow(choices));
        let output = ensemble.run(&rows).expect("trees");
        let expected: Vec<f32> = rows.iter().flat_map(|row| ensemble.expected(row)).collect();
        prop_assert_eq!(output.try_as_plain_ram().expect("plain").as_slice::<f32>().expect("floats"), expected);
    }

    #[test]
    fn any_lists_of_version_5_are_trees_or_an_error(
        nodes in prop::collection::vec((-1..4_i64, 0..8_u8, -1..4_i64, -1..4_i64, 0..3_i64, 0..2_i64), 0..6),
        members in prop::collection::vec(prop::sample::select(&NUMBERS[..]), 0..4),
        roots in prop::collection::vec(-1..4_i64, 0..4),
        leaf_targets in prop::collection::vec(-1..3_i64, 0..4),
        weights in 0..4_usize,
    ) {
        let ensemble = Ensemble {
            features: nodes.iter().map(|node| node.0).collect(),
            modes: nodes.iter().map(|node| node.1).collect(),
            splits: vec![0.5; nodes.len()],
            yes: nodes.iter().map(|node| node.2).collect(),
            no: nodes.iter().map(|node| node.3).collect(),
            yes_leafs: nodes.iter().map(|node| node.4).collect(),
            no_leafs: nodes.iter().map(|node| node.5).collect(),
            leaf_weights: vec![1.0; weights],
            members, roots, leaf_targets,
            ..small()
        };
        let _ = ensemble.run(&[vec![0.0; FEATURES]]);
    }
}

#[test]
fn sets_single_leaves_and_half_precision() {
    let rows: Vec<Vec<f32>> =
        [[0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.5, 0.0], [1.0, f32::NAN, 0.0]].map(Vec::from).into();
    let scores = |ensemble: &Ensemble| {
        let output = ensemble.run(&rows).expect("trees");
        output.try_as_plain_ram().expect("plain").as_slice::<f32>().expect("floats").to_vec()
    };
    assert_eq!(scores(&small()), [1.0, 0.0, 2.0, 0.0, 0.0, 4.0, 0.0, 4.0]);
    let passing = Ensemble { missing: vec![0, 1], element: FLOAT16, ..small() };
    assert_eq!(scores(&passing), [1.0, 0.0, 2.0, 0.0, 0.0, 4.0, 2.0, 0.0]);
    // The last set need not end, and one may be empty.
    assert_eq!(scores(&Ensemble { members: vec![2.0, 1.0], ..small() }), scores(&small()));
    let empty = Ensemble { members: vec![f32::NAN], ..small() };
    assert_eq!(scores(&empty), [1.0, 0.0, 0.0, 4.0, 0.0, 4.0, 0.0, 4.0]);
    // A tree of one leaf has no comparison, whatever its node says.
    let leaf = Ensemble {
        yes: vec![2, 0],
        no: vec![2, 0],
        no_leafs: vec![1, 1],
        splits: vec![f32::NAN; 2],
        ..small()
    };
    assert_eq!(scores(&leaf), [0.0, 4.0].repeat(4));
    let shares = scores(&Ensemble { post_transform: 1, ..small() });
    assert!((shares.iter().sum::<f32>() - 4.0).abs() < 1e-6, "{shares:?}");
}

#[test]
fn a_large_set_is_searched_in_halves() {
    let members: Vec<f32> = (0..1000).map(|at| (at * 3) as f32).collect();
    let ensemble =
        Ensemble { modes: vec![6, 0], no_leafs: vec![1, 1], members, splits: vec![0.0; 2], ..small() };
    let rows: Vec<Vec<f32>> = (-2..3005).map(|at| vec![at as f32, 0.0, 0.0]).collect();
    let output = ensemble.run(&rows).expect("trees");
    let output = output.try_as_plain_ram().expect("plain").as_slice::<f32>().expect("floats").to_vec();
    for (row, score) in rows.iter().zip(output.chunks(2)) {
        let is_member = (0.0..3000.0).contains(&row[0]) && row[0] % 3.0 == 0.0;
        assert_eq!(score[0], if is_member { 1.0 } else { 2.0 }, "{row:?}");
    }
}

#[test]
fn what_is_no_tree_of_version_5_is_named() {
    for (ensemble, words) in [
        (Ensemble { no: vec![0, 2], ..small() }, "node 0 follows twice"),
        (Ensemble { roots: vec![0, 1], ..small() }, "node 1 follows twice or is two trees' root"),
        (Ensemble { roots: vec![2], ..small() }, "tree_roots names node 2 of 2"),
        (Ensemble { roots: vec![], ..small() }, "tree_roots is empty"),
        (Ensemble { no: vec![1, 3], ..small() }, "nodes_falsenodeids: node 1 is followed by leaf 3 of 3"),
        (Ensemble { no: vec![2, 2], ..small() }, "nodes_falsenodeids: node 0 is followed by node 2 of 2"),
        (Ensemble { yes: vec![-1, 1], ..small() }, "nodes_truenodeids: node 0 is followed by leaf -1"),
        (Ensemble { yes_leafs: vec![1, 2], ..small() }, "nodes_trueleafs says 2 of node 1"),
        (
            Ensemble { yes_leafs: vec![1], ..small() },
            "nodes_trueleafs has 1 elements, nodes_featureids has 2",
        ),
        (Ensemble { missing: vec![1], ..small() }, "nodes_missing_value_tracks_true has 1 elements"),
        (Ensemble { modes: vec![0, 7], ..small() }, "node 1 has mode 7"),
        (Ensemble { modes: vec![0, 0], ..small() }, "membership_values has 1 sets, nodes_modes has 0"),
        (Ensemble { members: vec![], ..small() }, "membership_values has 0 sets, nodes_modes has 1"),
        (Ensemble { features: vec![0, -1], ..small() }, "node 1 compares feature -1"),
        (Ensemble { features: vec![0, 3], ..small() }, "it reads feature 3, 3 are given"),
        (Ensemble { splits: vec![f32::NAN; 2], ..small() }, "the threshold of node 0 is not a number"),
        (Ensemble { leaf_targets: vec![0, 0, 2], ..small() }, "target 2 of 2"),
        (Ensemble { leaf_targets: vec![0], ..small() }, "leaf_targetids has 1 elements, leaf_weights has 3"),
        (Ensemble { aggregate: 4, ..small() }, "there is no aggregate_function 4"),
        (Ensemble { post_transform: 5, ..small() }, "there is no post_transform 5"),
        (Ensemble { features: vec![], ..small() }, "0 nodes"),
    ] {
        let refusal = ensemble.refusal();
        assert!(refusal.contains(words), "{words}: {refusal}");
    }
}
