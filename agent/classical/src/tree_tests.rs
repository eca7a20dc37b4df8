//! Trees against an evaluator that does nothing but follow the specification.

#![allow(clippy::float_cmp, reason = "what is compared is exactly equal or not")]
#![allow(clippy::cast_possible_wrap, reason = "numbers of trees and targets are small")]

use proptest::prelude::*;

use super::super::leaf_weights::RawWeight;
use super::super::trees::{Mode, RawNode};
use super::*;

const MODES: [Mode; 6] = [Mode::Leq, Mode::Lt, Mode::Gte, Mode::Gt, Mode::Eq, Mode::Neq];
const FEATURES: usize = 3;
const TARGETS: usize = 2;
/// Few numbers, so that features meet thresholds.
const NUMBERS: [f32; 8] = [f32::NEG_INFINITY, -1.5, -0.0, 0.0, 1.0, 2.5, f32::MAX, f32::INFINITY];

type Trees = (Vec<RawNode<f32>>, Vec<RawWeight<f32>>);

/// Grows a tree from random numbers: each says whether a place is a leaf, and what it compares.
fn grown(tree: i64, choices: &[u32], targets: usize) -> Trees {
    let (mut nodes, mut weights) = (Vec::new(), Vec::new());
    let mut open = vec![0_i64];
    let mut next = 1;
    let mut choices = choices.iter().copied();
    while let Some(id) = open.pop() {
        let choice = choices.next().unwrap_or(0) as usize;
        let is_leaf = choice.is_multiple_of(3);
        let (yes, no) = if is_leaf { (0, 0) } else { (next, next + 1) };
        nodes.push(RawNode {
            tree,
            id,
            mode: if is_leaf { Mode::Leaf } else { MODES[choice / 3 % 6] },
            feature: (choice / 18 % FEATURES) as i64,
            threshold: NUMBERS[choice / 54 % 8],
            yes,
            no,
            missing_is_yes: choice / 432 % 2 == 1,
        });
        if is_leaf {
            let weight = (choice % 17) as f32 - 8.0;
            weights.push(RawWeight { tree, node: id, target: (choice / 17 % targets) as i64, weight });
        } else {
            open.extend([next, next + 1]);
            next += 2;
        }
    }
    (nodes, weights)
}

/// Follows one tree as the specification says and answers its leaf.
fn leaf(nodes: &[RawNode<f32>], tree: i64, row: &[f32]) -> i64 {
    let mut id = 0;
    loop {
        let node = nodes.iter().find(|node| node.tree == tree && node.id == id).expect("there");
        let value = row[node.feature as usize];
        let holds = match node.mode {
            Mode::Leq => value <= node.threshold,
            Mode::Lt => value < node.threshold,
            Mode::Gte => value >= node.threshold,
            Mode::Gt => value > node.threshold,
            Mode::Eq => value == node.threshold,
            Mode::Neq => value != node.threshold,
            Mode::Member(_) => unreachable!("tested with the lists of version 5"),
            Mode::Leaf => return id,
        };
        id = if holds || (node.missing_is_yes && value.is_nan()) { node.yes } else { node.no };
    }
}

fn expected(
    (nodes, weights): &Trees,
    trees: i64,
    targets: usize,
    aggregate: Aggregate,
    row: &[f32],
) -> Vec<f32> {
    (0..targets)
        .map(|target| {
            let of_tree = |tree| {
                let leaf = leaf(nodes, tree, row);
                let own = move |weight: &&RawWeight<f32>| {
                    (weight.tree, weight.node, weight.target) == (tree, leaf, target as i64)
                };
                weights.iter().filter(own).map(|weight| weight.weight)
            };
            let reached = (0..trees).flat_map(of_tree);
            match aggregate {
                Aggregate::Sum => reached.sum(),
                Aggregate::Average => reached.sum::<f32>() / trees as f32,
                Aggregate::Min => reached.reduce(f32::min).unwrap_or(0.0),
                Aggregate::Max => reached.reduce(f32::max).unwrap_or(0.0),
            }
        })
        .collect()
}

fn values() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(
        (0..NUMBERS.len() + 1).prop_map(|at| NUMBERS.get(at).copied().unwrap_or(f32::NAN)),
        FEATURES,
    )
}

proptest! {
    #[test]
    fn forests_score_as_the_specification_says(
        choices in prop::collection::vec(prop::collection::vec(any::<u32>(), 0..20), 1..20),
        rows in prop::collection::vec(values(), 1..5),
        targets in 1..=TARGETS,
    ) {
        let mut all: Trees = (Vec::new(), Vec::new());
        for (tree, choices) in (0..).zip(&choices) {
            let (nodes, weights) = grown(tree, choices, targets);
            all.0.extend(nodes);
            all.1.extend(weights);
        }
        let forest = Forest::build(&all.0, &all.1.iter().copied().collect(), targets).expect("trees");
        let wide = |node: &RawNode<f32>| RawNode {
            threshold: f64::from(node.threshold), tree: node.tree, id: node.id, mode: node.mode,
            feature: node.feature, yes: node.yes, no: node.no, missing_is_yes: node.missing_is_yes,
        };
        let wide_nodes: Vec<RawNode<f64>> = all.0.iter().map(wide).collect();
        let wide_weight = |weight: &RawWeight<f32>| RawWeight {
            tree: weight.tree, node: weight.node, target: weight.target, weight: f64::from(weight.weight),
        };
        let wide_forest = Forest::build(&wide_nodes, &all.1.iter().map(wide_weight).collect(), targets).expect("trees");
        let (mut scores, mut wide_scores) = (Scores::new(targets), Scores::new(targets));
        for row in &rows {
            for aggregate in [Aggregate::Sum, Aggregate::Average, Aggregate::Min, Aggregate::Max] {
                let expected = expected(&all, choices.len() as i64, targets, aggregate, row);
                forest.score(row, aggregate, &mut scores);
                prop_assert_eq!(&scores.values, &expected);
                let wide_row: Vec<f64> = row.iter().copied().map(f64::from).collect();
                wide_forest.score(&wide_row, aggregate, &mut wide_scores);
                let rounded: Vec<f32> = wide_scores.values.iter().map(|value| *value as f32).collect();
                prop_assert_eq!(&rounded, &expected);
            }
        }
    }

    #[test]
    fn any_lists_are_a_forest_or_an_error(
        nodes in prop::collection::vec(any::<(i8, i8, u8, i8, i8, i8)>(), 0..12),
        weights in prop::collection::vec((0..3_i64, 0..6_i64, -1..3_i64), 0..12),
        is_small: bool,
    ) {
        // Small numbers are nearly trees, and so come further.
        let cut = |number: i8| if is_small { i64::from(number.rem_euclid(4)) } else { i64::from(number) };
        let node = |(tree, id, mode, feature, yes, no): &(i8, i8, u8, i8, i8, i8)| RawNode {
            tree: cut(*tree) / 2, id: cut(*id), mode: *MODES.get(*mode as usize % 8).unwrap_or(&Mode::Leaf),
            feature: cut(*feature), threshold: 0.5_f32, yes: cut(*yes), no: cut(*no), missing_is_yes: false,
        };
        let nodes: Vec<RawNode<f32>> = nodes.iter().map(node).collect();
        let weight = |(tree, node, target): &(i64, i64, i64)| RawWeight { tree: *tree, node: *node, target: *target, weight: 1.0 };
        if let Ok(forest) = Forest::build(&nodes, &weights.iter().map(weight).collect(), 2) {
            let mut scores = Scores::new(2);
            forest.score(&vec![0.0; forest.width], Aggregate::Sum, &mut scores);
        }
    }
}

fn refused(nodes: &[RawNode<f32>]) -> String {
    Forest::build(nodes, &std::iter::empty().collect(), 1).expect_err("no tree").to_string()
}

fn branch(id: i64, yes: i64, no: i64) -> RawNode<f32> {
    RawNode { tree: 7, id, mode: Mode::Leq, feature: 0, threshold: 0.0, yes, no, missing_is_yes: false }
}

fn end(id: i64) -> RawNode<f32> {
    RawNode { mode: Mode::Leaf, ..branch(id, 0, 0) }
}

#[test]
fn what_is_no_tree_is_named() {
    assert!(refused(&[branch(0, 0, 0)]).contains("tree 7 has no root"));
    assert!(refused(&[branch(0, 1, 2), branch(1, 0, 3), end(2), end(3)]).contains("tree 7 has no root"));
    let aside = [end(0), branch(1, 2, 3), branch(2, 1, 4), end(3), end(4)];
    assert!(refused(&aside).contains("4 nodes follow each other in a circle"));
    assert!(refused(&[branch(0, 1, 9), end(1)]).contains("followed by 9"));
    assert!(refused(&[end(0), end(1)]).contains("more than one root"));
    assert!(refused(&[end(0), end(0)]).contains("two nodes 0"));
    let foreign = RawNode { feature: -1, ..branch(0, 1, 2) };
    assert!(refused(&[foreign, end(1), end(2)]).contains("feature -1"));
    let weight = RawWeight { tree: 7, node: 0, target: 1, weight: 1.0 };
    let fault =
        Forest::build(&[end(0)], &std::iter::once(weight).collect(), 1).expect_err("one target").to_string();
    assert!(fault.contains("target 1 of 1"), "{fault}");
}

#[test]
fn a_node_that_follows_several_is_laid_out_once_and_a_circle_is_refused() {
    // As a set of categories is written: node 0 asks for one, node 1 for the other, and both lead to node 2.
    let equals = |id, number, no| RawNode { mode: Mode::Eq, threshold: number, ..branch(id, 2, no) };
    let nodes = [equals(0, 3.0, 1), equals(1, 5.0, 3), branch(2, 4, 5), end(3), end(4), end(5)];
    let weight = |node: i64| RawWeight { tree: 7, node, target: 0, weight: node as f32 };
    let forest = Forest::build(&nodes, &[3, 4, 5].into_iter().map(weight).collect(), 1).expect("a tree");
    let mut scores = Scores::new(1);
    for (value, leaf) in [(3.0, 5.0), (5.0, 5.0), (4.0, 3.0), (f32::NAN, 3.0)] {
        forest.score(&[value], Aggregate::Sum, &mut scores);
        assert_eq!(scores.values, [leaf], "{value}");
    }
    let circle = [branch(0, 1, 2), branch(1, 2, 3), branch(2, 1, 3), end(3)];
    assert!(refused(&circle).contains("3 nodes follow each other in a circle"), "{}", refused(&circle));
}

#[test]
fn many_ways_through_few_nodes_take_no_time_to_lay_out() {
    // Each node leads to the next one by both ways: more ways than any computer counts.
    let mut nodes: Vec<RawNode<f32>> = (0..10_000).map(|id| branch(id, id + 1, id + 1)).collect();
    nodes.push(end(10_000));
    let weight = RawWeight { tree: 7, node: 10_000, target: 0, weight: 2.5 };
    let forest = Forest::build(&nodes, &std::iter::once(weight).collect(), 1).expect("a tree");
    assert_eq!(forest.nodes.len(), nodes.len());
    let mut scores = Scores::new(1);
    forest.score(&[0.0], Aggregate::Sum, &mut scores);
    assert_eq!(scores.values, [2.5]);
}
