//! The parallel lists that describe trees in a node's attributes, checked to be trees and laid out as a
//! [`Forest`].

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::{TractResult, bail, ensure};

use super::attributes::{ints, reals};
use super::forest::{Forest, Real, Weights};
use super::layout::{Layout, Slots};
use super::leaf_weights::{LeafWeights, RawWeight};

/// Most nodes, so that they can be numbered with 32 bits when each takes two.
pub(crate) const MAX_NODES: usize = 1 << 30;

/// `nodes_modes` of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `x <= threshold`.
    Leq,
    /// `x < threshold`.
    Lt,
    /// `x >= threshold`.
    Gte,
    /// `x > threshold`.
    Gt,
    /// `x == threshold`.
    Eq,
    /// `x != threshold`.
    Neq,
    /// `x` is in the set of this number. In version 5 only.
    Member(u32),
    /// No comparison: the end.
    Leaf,
}

impl Mode {
    fn named(name: &[u8]) -> TractResult<Self> {
        Ok(match name {
            b"BRANCH_LEQ" => Self::Leq,
            b"BRANCH_LT" => Self::Lt,
            b"BRANCH_GTE" => Self::Gte,
            b"BRANCH_GT" => Self::Gt,
            b"BRANCH_EQ" => Self::Eq,
            b"BRANCH_NEQ" => Self::Neq,
            b"LEAF" => Self::Leaf,
            _ => bail!("there is no node mode {:?}", String::from_utf8_lossy(name)),
        })
    }
}

/// One node as the attributes describe it.
#[derive(Clone, Debug)]
pub(crate) struct RawNode<T> {
    /// Number of its tree.
    pub(crate) tree: i64,
    /// Its number within the tree.
    pub(crate) id: i64,
    pub(crate) mode: Mode,
    pub(crate) feature: i64,
    pub(crate) threshold: T,
    /// Number of the node that follows where the comparison holds.
    pub(crate) yes: i64,
    /// Number of the one that follows elsewhere.
    pub(crate) no: i64,
    /// Whether a missing value goes the way of a comparison that holds.
    pub(crate) missing_is_yes: bool,
}

/// Nodes and weights of several trees.
pub(crate) type RawTrees<'a, T> = (Vec<RawNode<T>>, LeafWeights<'a, T>);

/// The `nodes_*` lists, and the leaves' lists, whose names begin with `leaves` (`class` or `target`),
/// unchecked.
pub(crate) fn raw<'a, T: Real>(
    context: &ParsingContext<'_>,
    node: &'a NodeProto,
    leaves: &str,
) -> TractResult<RawTrees<'a, T>> {
    Ok((nodes(context, node)?, weights(context, node, leaves)?))
}

fn nodes<T: Real>(context: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Vec<RawNode<T>>> {
    let trees = ints(node, "nodes_treeids")?;
    let ids = ints(node, "nodes_nodeids")?;
    let features = ints(node, "nodes_featureids")?;
    let yes = ints(node, "nodes_truenodeids")?;
    let no = ints(node, "nodes_falsenodeids")?;
    let missing = ints(node, "nodes_missing_value_tracks_true")?;
    let modes = node.get_attr_opt_slice::<Vec<u8>>("nodes_modes")?.unwrap_or_default();
    let thresholds = reals::<T>(context, node, "nodes_values")?;
    let count = trees.len();
    ensure!((1..=MAX_NODES).contains(&count), "{count} nodes, 1 to {MAX_NODES} are allowed");
    let lengths = [ids.len(), features.len(), yes.len(), no.len(), modes.len(), thresholds.len()];
    ensure!(
        lengths.iter().all(|length| *length == count) && (missing.is_empty() || missing.len() == count),
        "the nodes_ lists have different lengths: {count}, {lengths:?}, {}",
        missing.len()
    );
    let mut nodes = Vec::with_capacity(count);
    let lists = trees.iter().zip(ids).zip(features).zip(yes).zip(no).zip(modes).zip(&thresholds);
    for (at, ((((((tree, id), feature), yes), no), mode), threshold)) in lists.enumerate() {
        nodes.push(RawNode {
            tree: *tree,
            id: *id,
            mode: Mode::named(mode)?,
            feature: *feature,
            threshold: *threshold,
            yes: *yes,
            no: *no,
            missing_is_yes: missing.get(at).is_some_and(|missing| *missing != 0),
        });
    }
    Ok(nodes)
}

fn weights<'a, T: Real>(
    context: &ParsingContext<'_>,
    node: &'a NodeProto,
    prefix: &str,
) -> TractResult<LeafWeights<'a, T>> {
    let list = |name: &str| ints(node, &format!("{prefix}_{name}"));
    let (trees, nodes, targets) = (list("treeids")?, list("nodeids")?, list("ids")?);
    let weights = reals::<T>(context, node, &format!("{prefix}_weights"))?;
    let lengths = [trees.len(), nodes.len(), targets.len(), weights.len()];
    ensure!(
        lengths.iter().all(|length| *length == weights.len()),
        "the {prefix}_ lists have different lengths: {lengths:?}"
    );
    ensure!(weights.len() < MAX_NODES, "{} leaf weights are too many", weights.len());
    Ok(LeafWeights::listed(trees.into(), nodes.into(), targets.into(), weights))
}

impl<T: Real> Forest<T> {
    /// Checks that the nodes are trees, each with one root from which all its nodes are reached, and lays them out tree by
    /// tree. A node may follow several others, as exporters of `LightGBM` and `XGBoost` write a set of categories; it is laid
    /// out once. None may follow itself, so every descent ends.
    ///
    /// # Errors
    /// What is wrong, with the numbers of tree and node.
    pub(crate) fn build(
        nodes: &[RawNode<T>],
        weights: &LeafWeights<'_, T>,
        targets: usize,
    ) -> TractResult<Self> {
        Self::with_sets(nodes, &[], weights, targets)
    }

    /// The same of trees that compare with `sets` too, whose members ascend.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub(crate) fn with_sets(
        nodes: &[RawNode<T>],
        sets: &[Vec<T>],
        weights: &LeafWeights<'_, T>,
        targets: usize,
    ) -> TractResult<Self> {
        let index = Index::new(nodes)?;
        let followings = index.followings(nodes)?;
        let roots = roots(nodes, &followings)?;
        // Where no node follows two others, whatever is reached from a root is a tree.
        if followings.iter().any(|count| *count > 1) {
            index.check_ends(nodes, &roots, followings)?;
        }
        check_weights(weights, nodes, &index, targets)?;
        let own = |node: &RawNode<T>| weights.of(node.tree, node.id);
        let mut layout = Layout {
            single: targets == 1 && nodes.iter().all(|node| node.mode != Mode::Leaf || own(node).len() == 1),
            nodes: Vec::with_capacity(nodes.len()),
            ends: Vec::new(),
            weights: Vec::new(),
            missing_passes: false,
            width: 0,
        };
        let mut starts = Vec::with_capacity(roots.len());
        // The number that each node was laid out as.
        let mut numbers: Vec<Option<u32>> = vec![None; nodes.len()];
        let mut laid = 0_usize;
        // Where the number of a node is to be written once it is known.
        let mut waiting: Vec<(usize, Slots)> = Vec::new();
        for root in roots {
            starts.push(layout.number());
            waiting.push((root, Vec::new()));
            while let Some((at, slots)) = waiting.pop() {
                let (Some(node), Some(number)) = (nodes.get(at), numbers.get_mut(at)) else { continue };
                let number = *number.get_or_insert(layout.number());
                layout.point_to(number, &slots);
                if number != layout.number() {
                    continue;
                }
                laid += 1;
                if node.mode == Mode::Leaf {
                    layout.leaf(own(node));
                    continue;
                }
                let (yes, no) = layout.branch(node, sets)?;
                waiting.push((index.child(node, node.no)?, no));
                waiting.push((index.child(node, node.yes)?, yes));
            }
        }
        ensure!(laid == nodes.len(), "{} nodes follow each other in a circle", nodes.len() - laid);
        Ok(Self {
            nodes: layout.nodes,
            roots: starts,
            weights: if layout.single { Weights::Single } else { Weights::Many(layout.ends, layout.weights) },
            missing_passes: layout.missing_passes,
            targets,
            width: layout.width,
        })
    }
}

/// Finds nodes by the numbers of tree and node.
struct Index {
    sorted: Vec<((i64, i64), u32)>,
}

impl Index {
    fn new<T>(nodes: &[RawNode<T>]) -> TractResult<Self> {
        let mut sorted: Vec<_> = (0..).zip(nodes).map(|(at, node)| ((node.tree, node.id), at)).collect();
        sorted.sort_unstable();
        for (one, other) in sorted.iter().zip(sorted.iter().skip(1)) {
            let (tree, id) = one.0;
            ensure!(one.0 != other.0, "tree {tree} has two nodes {id}");
        }
        Ok(Self { sorted })
    }

    fn find(&self, tree: i64, id: i64) -> Option<usize> {
        let at = self.sorted.binary_search_by_key(&(tree, id), |(key, _)| *key).ok()?;
        self.sorted.get(at).map(|(_, at)| *at as usize)
    }

    fn child<T>(&self, node: &RawNode<T>, id: i64) -> TractResult<usize> {
        let RawNode { tree, id: from, .. } = node;
        match self.find(*tree, id) {
            Some(at) => Ok(at),
            None => bail!("tree {tree}: node {from} is followed by {id}, which is not there"),
        }
    }

    /// For each node how often it follows another.
    fn followings<T>(&self, nodes: &[RawNode<T>]) -> TractResult<Vec<u32>> {
        let mut followings = vec![0_u32; nodes.len()];
        for node in nodes.iter().filter(|node| node.mode != Mode::Leaf) {
            for id in [node.yes, node.no] {
                if let Some(count) = followings.get_mut(self.child(node, id)?) {
                    *count += 1;
                }
            }
        }
        Ok(followings)
    }

    /// That no node follows itself, over however many others: each is taken once all that it follows are.
    fn check_ends<T>(&self, nodes: &[RawNode<T>], roots: &[usize], mut open: Vec<u32>) -> TractResult<()> {
        let (mut ready, mut taken) = (roots.to_vec(), 0_usize);
        while let Some(at) = ready.pop() {
            taken += 1;
            let Some(node) = nodes.get(at).filter(|node| node.mode != Mode::Leaf) else { continue };
            for id in [node.yes, node.no] {
                let next = self.child(node, id)?;
                if let Some(open) = open.get_mut(next) {
                    *open -= 1;
                    if *open == 0 {
                        ready.push(next);
                    }
                }
            }
        }
        ensure!(taken == nodes.len(), "{} nodes follow each other in a circle", nodes.len() - taken);
        Ok(())
    }
}

/// The one node of each tree that follows no other, in the order of the list.
fn roots<T>(nodes: &[RawNode<T>], followings: &[u32]) -> TractResult<Vec<usize>> {
    let is_root = |at: &usize| followings.get(*at).is_some_and(|count| *count == 0);
    let roots: Vec<usize> = (0..nodes.len()).filter(is_root).collect();
    let mut rooted: Vec<i64> = roots.iter().filter_map(|at| nodes.get(*at)).map(|node| node.tree).collect();
    rooted.sort_unstable();
    if let Some((tree, _)) = rooted.iter().zip(rooted.iter().skip(1)).find(|(one, other)| one == other) {
        bail!("tree {tree} has more than one root");
    }
    let rootless = |tree: &i64| rooted.binary_search(tree).is_err();
    if let Some(tree) = nodes.iter().map(|node| node.tree).find(rootless) {
        bail!("tree {tree} has no root: its nodes follow each other in a circle");
    }
    Ok(roots)
}

/// Every weight belongs to a node that there is and to one of the targets. Weights of nodes that are no
/// leaves are never reached; some exporters write them.
fn check_weights<T: Real>(
    weights: &LeafWeights<'_, T>,
    nodes: &[RawNode<T>],
    index: &Index,
    targets: usize,
) -> TractResult<()> {
    for RawWeight { tree, node, target, .. } in weights.iter() {
        let known = index.find(tree, node).is_some_and(|at| at < nodes.len());
        ensure!(known, "tree {tree}: a weight is given for node {node}, which is not there");
        let fits = usize::try_from(target).is_ok_and(|target| target < targets);
        ensure!(fits, "tree {tree}: node {node} has a weight for target {target} of {targets}");
    }
    Ok(())
}
