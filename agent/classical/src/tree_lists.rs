//! The lists that describe trees in the attributes of `TreeEnsemble`, which are apart for nodes and leaves and number
//! both through all trees, checked and made the nodes that [`Forest`](super::forest::Forest) is built of.

use std::cmp::Ordering;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::{NodeProto, TensorProto};
use tract_onnx::tract_hir::internal::{DatumType, TractResult, bail, ensure};

use super::attributes::{ints, tensor};
use super::forest::{FEATURE, Real};
use super::leaf_weights::RawWeight;
use super::trees::{MAX_NODES, Mode, RawNode};

/// Most nodes, most leaves and most members of all sets, so that what is laid out can be numbered with 32 bits: a node is
/// at most two and has a copy of two leaves, and a member is two.
const MAX_LISTED: usize = MAX_NODES / 4;

/// Trees as version 5 lists them, each node and leaf in place.
pub(crate) struct Lists<T> {
    /// Tree by tree, in the order of `tree_roots`, the root first.
    pub(crate) nodes: Vec<RawNode<T>>,
    /// What nodes with [`Mode::Member`] compare with. Members ascend, each is there once.
    pub(crate) sets: Vec<Vec<T>>,
    /// One of each leaf.
    pub(crate) weights: Vec<RawWeight<T>>,
}

/// The element type of the trees' tensors, which is also that of rows and scores.
///
/// # Errors
/// A tensor that is missing, or of another type than the others, by name.
pub(crate) fn element_type(node: &NodeProto) -> TractResult<DatumType> {
    let mut found: Option<DatumType> = None;
    for name in ["nodes_splits", "leaf_weights", "membership_values", "nodes_hitrates"] {
        let Some(proto) = node.get_attr_opt::<&TensorProto>(name)? else { continue };
        let own = match proto.data_type {
            1 => DatumType::F32,
            10 => DatumType::F16,
            11 => DatumType::F64,
            other => bail!("{name} has elements of ONNX's type {other}, they must be floats"),
        };
        match found {
            Some(first) if first != own => bail!("{name} is of {own:?}, nodes_splits of {first:?}"),
            _ => found = Some(own),
        }
    }
    match found {
        Some(found) => Ok(found),
        None => bail!("nodes_splits is missing"),
    }
}

/// Reads and checks all lists.
///
/// # Errors
/// The list that is missing, too long, or of another length than those it goes with; the node and what is wrong with it:
/// a mode, feature, node or leaf that there is not, or a node that is followed by what came before.
pub(crate) fn read<T: Real>(context: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Lists<T>> {
    let given = Given::read(context, node)?;
    let mut members = 0_u32;
    let modes = given.modes.iter().enumerate().map(|(at, mode)| named(at, *mode, &mut members));
    let modes = modes.collect::<TractResult<Vec<Mode>>>()?;
    let sets = sets(given.members.clone(), members as usize)?;
    let places = (0..given.features.len()).map(|at| given.place(at));
    let places = places.collect::<TractResult<Vec<Place>>>()?;
    let mut lists = Lists {
        nodes: Vec::with_capacity(3 * places.len()),
        sets,
        weights: Vec::with_capacity(2 * places.len()),
    };
    let mut seen = vec![false; places.len()];
    for (tree, root) in (0_i64..).zip(given.roots) {
        let inside = usize::try_from(*root).ok().filter(|root| *root < places.len());
        let Some(root) = inside else { bail!("tree_roots names node {root} of {}", places.len()) };
        let mut waiting = vec![root];
        while let Some(at) = waiting.pop() {
            let (Some(place), Some(mode)) = (places.get(at), modes.get(at)) else { continue };
            if let Some(seen) = seen.get_mut(at) {
                ensure!(!*seen, "tree {tree}: node {at} follows twice or is two trees' root, it is no tree");
                *seen = true;
            }
            given.lay(tree, at, *mode, *place, &mut lists);
            waiting.extend(place.no.node().into_iter().chain(place.yes.node()));
        }
    }
    Ok(lists)
}

/// What follows a node, its number checked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Node(usize),
    Leaf(usize),
}

impl Next {
    const fn node(self) -> Option<usize> {
        match self {
            Self::Node(at) => Some(at),
            Self::Leaf(_) => None,
        }
    }
}

/// What follows where a comparison holds and where it does not.
#[derive(Clone, Copy)]
struct Place {
    yes: Next,
    no: Next,
}

/// The attributes, their lengths compared.
struct Given<'a, T> {
    features: &'a [i64],
    /// Nodes or leaves, as `leafs` says: for a comparison that holds, and for one that does not.
    next: [&'a [i64]; 2],
    leafs: [&'a [i64]; 2],
    missing: &'a [i64],
    modes: Vec<u8>,
    splits: Vec<T>,
    members: Vec<T>,
    roots: &'a [i64],
    leaf_targets: &'a [i64],
    leaf_weights: Vec<T>,
}

impl<'a, T: Real> Given<'a, T> {
    fn read(context: &ParsingContext<'_>, node: &'a NodeProto) -> TractResult<Self> {
        let reals = |name| -> TractResult<Vec<T>> { Ok(tensor(context, node, name)?.unwrap_or_default()) };
        let given = Self {
            features: ints(node, "nodes_featureids")?,
            next: [ints(node, "nodes_truenodeids")?, ints(node, "nodes_falsenodeids")?],
            leafs: [ints(node, "nodes_trueleafs")?, ints(node, "nodes_falseleafs")?],
            missing: ints(node, "nodes_missing_value_tracks_true")?,
            modes: tensor::<u8>(context, node, "nodes_modes")?.unwrap_or_default(),
            splits: reals("nodes_splits")?,
            members: reals("membership_values")?,
            roots: ints(node, "tree_roots")?,
            leaf_targets: ints(node, "leaf_targetids")?,
            leaf_weights: reals("leaf_weights")?,
        };
        let rates = reals("nodes_hitrates")?.len();
        let count = given.features.len();
        ensure!((1..=MAX_LISTED).contains(&count), "{count} nodes, 1 to {MAX_LISTED} are allowed");
        let ([yes, no], [yes_leafs, no_leafs]) = (given.next, given.leafs);
        for (name, length, is_optional) in [
            ("nodes_splits", given.splits.len(), false),
            ("nodes_modes", given.modes.len(), false),
            ("nodes_truenodeids", yes.len(), false),
            ("nodes_falsenodeids", no.len(), false),
            ("nodes_trueleafs", yes_leafs.len(), false),
            ("nodes_falseleafs", no_leafs.len(), false),
            ("nodes_missing_value_tracks_true", given.missing.len(), true),
            ("nodes_hitrates", rates, true),
        ] {
            let fits = length == count || (is_optional && length == 0);
            ensure!(fits, "{name} has {length} elements, nodes_featureids has {count}");
        }
        let (leaves, targets) = (given.leaf_weights.len(), given.leaf_targets.len());
        ensure!((1..=MAX_LISTED).contains(&leaves), "{leaves} leaf_weights, 1 to {MAX_LISTED} are allowed");
        ensure!(leaves == targets, "leaf_targetids has {targets} elements, leaf_weights has {leaves}");
        let members = given.members.len();
        ensure!(members <= MAX_LISTED, "{members} membership_values, at most {MAX_LISTED} are allowed");
        ensure!(!given.roots.is_empty(), "tree_roots is empty");
        Ok(given)
    }

    fn place(&self, at: usize) -> TractResult<Place> {
        let feature = self.features.get(at).copied().unwrap_or_default();
        let fits = u32::try_from(feature).is_ok_and(|feature| feature < FEATURE);
        ensure!(fits, "node {at} compares feature {feature}");
        let [yes, no] = self.next;
        let [yes_leafs, no_leafs] = self.leafs;
        let next = |(ids, leafs): (&[i64], &[i64]), list: &str| {
            let (id, is_leaf) = (ids.get(at).copied(), leafs.get(at).copied());
            let (Some(id), Some(is_leaf)) = (id, is_leaf) else { bail!("node {at} is missing in {list}") };
            let (next, what, count): (fn(usize) -> Next, _, _) = match is_leaf {
                0 => (Next::Node, "node", self.features.len()),
                1 => (Next::Leaf, "leaf", self.leaf_weights.len()),
                other => bail!("{list}leafs says {other} of node {at}, it must be 0 or 1"),
            };
            match usize::try_from(id).ok().filter(|id| *id < count) {
                Some(id) => Ok(next(id)),
                None => bail!("{list}nodeids: node {at} is followed by {what} {id} of {count}"),
            }
        };
        Ok(Place { yes: next((yes, yes_leafs), "nodes_true")?, no: next((no, no_leafs), "nodes_false")? })
    }

    /// Adds one node to `lists`, and the leaves that follow it. One that leads to a single leaf, which is how a tree of
    /// nothing else is written, becomes that leaf.
    fn lay(&self, tree: i64, at: usize, mode: Mode, place: Place, lists: &mut Lists<T>) {
        let id = number(at);
        let is_end = matches!(place.yes, Next::Leaf(_)) && place.yes == place.no;
        let mut branch = RawNode {
            tree,
            id,
            mode: if is_end { Mode::Leaf } else { mode },
            feature: self.features.get(at).copied().unwrap_or_default(),
            threshold: self.splits.get(at).copied().unwrap_or(T::ZERO),
            yes: 0,
            no: 0,
            missing_is_yes: self.missing.get(at).is_some_and(|missing| *missing != 0),
        };
        let slot = lists.nodes.len();
        lists.nodes.push(branch.clone());
        if is_end {
            self.weigh(tree, id, place.yes, lists);
            return;
        }
        // Every node has room for two leaves behind the numbers of all nodes; they are copied, so that each is reached on
        // one way only.
        let leaf = number(self.features.len()) + 2 * id;
        branch.yes = self.follow(tree, leaf, place.yes, lists);
        branch.no = self.follow(tree, leaf + 1, place.no, lists);
        if let Some(laid) = lists.nodes.get_mut(slot) {
            *laid = branch;
        }
    }

    /// The number of what follows; a leaf is added as `id`.
    fn follow(&self, tree: i64, id: i64, next: Next, lists: &mut Lists<T>) -> i64 {
        if let Next::Node(at) = next {
            return number(at);
        }
        let end = RawNode {
            tree,
            id,
            mode: Mode::Leaf,
            feature: 0,
            threshold: T::ZERO,
            yes: 0,
            no: 0,
            missing_is_yes: false,
        };
        lists.nodes.push(end);
        self.weigh(tree, id, next, lists);
        id
    }

    fn weigh(&self, tree: i64, node: i64, leaf: Next, lists: &mut Lists<T>) {
        let Next::Leaf(leaf) = leaf else { return };
        if let (Some(target), Some(weight)) = (self.leaf_targets.get(leaf), self.leaf_weights.get(leaf)) {
            lists.weights.push(RawWeight { tree, node, target: *target, weight: *weight });
        }
    }
}

/// A node's number where numbers are those of ONNX; there are at most [`MAX_LISTED`].
fn number(at: usize) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX)
}

/// What the number of a mode means. Sets are numbered as nodes that compare with one come.
fn named(at: usize, mode: u8, members: &mut u32) -> TractResult<Mode> {
    Ok(match mode {
        0 => Mode::Leq,
        1 => Mode::Lt,
        2 => Mode::Gte,
        3 => Mode::Gt,
        4 => Mode::Eq,
        5 => Mode::Neq,
        6 => {
            let set = *members;
            *members += 1;
            Mode::Member(set)
        }
        _ => bail!("nodes_modes: node {at} has mode {mode}, there are 0 to 6"),
    })
}

/// The members of `count` sets, which end with a NaN each; the last may do without.
fn sets<T: Real>(mut values: Vec<T>, count: usize) -> TractResult<Vec<Vec<T>>> {
    if values.last().is_some_and(|last| !last.is_missing()) {
        values.push(T::NAN);
    }
    let ends = values.iter().filter(|value| value.is_missing()).count();
    ensure!(ends == count, "membership_values has {ends} sets, nodes_modes has {count} nodes with a set");
    let mut sets: Vec<Vec<T>> =
        values.split(|value| value.is_missing()).take(count).map(<[T]>::to_vec).collect();
    for set in &mut sets {
        set.sort_unstable_by(|one, other| one.partial_cmp(other).unwrap_or(Ordering::Equal));
        set.dedup();
    }
    Ok(sets)
}

#[cfg(test)]
#[path = "tree_lists_tests.rs"]
mod tests;
