//! The weights of leaves as a model lists them, of which forests have several times as many as nodes: read where they are,
//! in the order of the trees, and copied only into the forest.

use std::borrow::Cow;
use std::ops::Range;

use super::forest::Real;

/// One weight of a leaf.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawWeight<T> {
    pub(crate) tree: i64,
    /// Number of the leaf within the tree.
    pub(crate) node: i64,
    pub(crate) target: i64,
    pub(crate) weight: T,
}

/// Weights in the order of tree and node, those of one node in the order they were given in.
#[derive(Clone, Debug)]
pub(crate) struct LeafWeights<'a, T> {
    trees: Cow<'a, [i64]>,
    nodes: Cow<'a, [i64]>,
    targets: Cow<'a, [i64]>,
    weights: Vec<T>,
    /// Where each is in the lists; `None` where they are in order, as exporters write them.
    order: Option<Vec<u32>>,
}

impl<'a, T: Real> LeafWeights<'a, T> {
    /// Of lists that are equally long, with fewer than 2³² weights.
    pub(crate) fn listed(
        trees: Cow<'a, [i64]>,
        nodes: Cow<'a, [i64]>,
        targets: Cow<'a, [i64]>,
        weights: Vec<T>,
    ) -> Self {
        let keys = || trees.iter().zip(&*nodes);
        let is_sorted = keys().is_sorted();
        let order = (!is_sorted).then(|| {
            let mut order: Vec<u32> = (0..).zip(&weights).map(|(at, _)| at).collect();
            let key = |at: u32| trees.get(at as usize).zip(nodes.get(at as usize));
            // With their places, so that equal ones stay in order without memory for a second list.
            order.sort_unstable_by_key(|at| (key(*at), *at));
            order
        });
        Self { trees, nodes, targets, weights, order }
    }

    pub(crate) const fn len(&self) -> usize {
        self.weights.len()
    }

    /// All of them in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = RawWeight<T>> {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    /// Those of one node.
    pub(crate) fn of(&self, tree: i64, node: i64) -> impl ExactSizeIterator<Item = RawWeight<T>> {
        let range = self.first(|key| key >= (tree, node))..self.first(|key| key > (tree, node));
        Own { all: self, range }
    }

    /// Has all of them count for the first target.
    pub(crate) fn count_for_one(&mut self) {
        self.targets = vec![0; self.len()].into();
    }

    /// Keeps of each node the first one only.
    pub(crate) fn keep_first(&mut self) {
        let key = |at: usize| self.get(at).map(|weight| (weight.tree, weight.node));
        let is_first = |at: &usize| at.checked_sub(1).is_none_or(|before| key(before) != key(*at));
        if !(0..self.len()).all(|at| is_first(&at)) {
            let kept: LeafWeights<'_, T> =
                (0..self.len()).filter(is_first).filter_map(|at| self.get(at)).collect();
            *self = kept;
        }
    }

    fn get(&self, at: usize) -> Option<RawWeight<T>> {
        let at = match &self.order {
            Some(order) => *order.get(at)? as usize,
            None => at,
        };
        Some(RawWeight {
            tree: *self.trees.get(at)?,
            node: *self.nodes.get(at)?,
            target: *self.targets.get(at)?,
            weight: *self.weights.get(at)?,
        })
    }

    /// The place of the first one whose tree and node are `there`, as are those of all behind it.
    fn first(&self, there: impl Fn((i64, i64)) -> bool) -> usize {
        let Range { mut start, mut end } = 0..self.len();
        while start < end {
            let middle = start.midpoint(end);
            if self.get(middle).is_none_or(|weight| there((weight.tree, weight.node))) {
                end = middle;
            } else {
                start = middle + 1;
            }
        }
        start
    }
}

impl<T: Real> FromIterator<RawWeight<T>> for LeafWeights<'_, T> {
    fn from_iter<I: IntoIterator<Item = RawWeight<T>>>(all: I) -> Self {
        let (mut trees, mut nodes, mut targets, mut weights) = (vec![], vec![], vec![], vec![]);
        for RawWeight { tree, node, target, weight } in all {
            trees.push(tree);
            nodes.push(node);
            targets.push(target);
            weights.push(weight);
        }
        Self::listed(trees.into(), nodes.into(), targets.into(), weights)
    }
}

/// The weights of one node.
struct Own<'a, 'b, T> {
    all: &'a LeafWeights<'b, T>,
    range: Range<usize>,
}

impl<T: Real> Iterator for Own<'_, '_, T> {
    type Item = RawWeight<T>;

    fn next(&mut self) -> Option<RawWeight<T>> {
        self.all.get(self.range.next()?)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.range.size_hint()
    }
}

impl<T: Real> ExactSizeIterator for Own<'_, '_, T> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_node_has_its_weights_in_the_order_given(
            keys in prop::collection::vec((-2..3_i64, 0..4_i64), 0..40),
        ) {
            let given: Vec<RawWeight<f32>> = (0_i16..)
                .zip(&keys)
                .map(|(at, (tree, node))| RawWeight { tree: *tree, node: *node, target: at.into(), weight: at.into() })
                .collect();
            let weights: LeafWeights<'_, f32> = given.iter().copied().collect();
            prop_assert_eq!(weights.iter().count(), given.len());
            let mut first = weights.clone();
            first.keep_first();
            for tree in -3..4 {
                for node in -1..5 {
                    let own = weights.of(tree, node);
                    let expected = given.iter().filter(|weight| (weight.tree, weight.node) == (tree, node));
                    prop_assert_eq!(own.len(), expected.clone().count());
                    let kept = first.of(tree, node).map(|weight| weight.target);
                    prop_assert!(kept.eq(expected.clone().map(|weight| weight.target).take(1)));
                    prop_assert!(own.map(|weight| weight.target).eq(expected.map(|weight| weight.target)));
                }
            }
        }
    }
}
