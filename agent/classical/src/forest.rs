//! Decision trees as flat arrays, and their descent: several trees side by side without a branch that
//! depends on the data, so that a processor overlaps their steps.

use tract_onnx::tract_hir::internal::Datum;

/// Bits of [`Node::feature`] that number the feature.
pub(crate) const FEATURE: u32 = u32::MAX >> 1;
/// Bit of [`Node::feature`]: a missing value (NaN) goes on at `next[1]`.
pub(crate) const MISSING_PASSES: u32 = 1 << 31;

/// Trees that descend side by side: enough to hide how long a step takes, few enough for registers.
const LANES: usize = 8;

/// Single or double precision.
pub(crate) trait Real: Datum + Copy + PartialOrd {
    /// Not a number.
    const NAN: Self;
    /// 0.
    const ZERO: Self;
    /// Converts.
    fn from_f32(value: f32) -> Self;
    /// Converts, rounding.
    fn to_f32(self) -> f32;
    /// The next smaller number.
    fn below(self) -> Self;
    /// Whether it is no number.
    fn is_missing(self) -> bool;
    /// The sum.
    fn plus(self, other: Self) -> Self;
    /// The share of one of `count`.
    fn share_of(self, count: usize) -> Self;
}

macro_rules! real {
    ($real:ty) => {
        impl Real for $real {
            const NAN: Self = <$real>::NAN;
            const ZERO: Self = 0.0;

            #[inline]
            fn from_f32(value: f32) -> Self {
                value.into()
            }

            #[inline]
            fn to_f32(self) -> f32 {
                self as f32
            }

            #[inline]
            fn below(self) -> Self {
                self.next_down()
            }

            #[inline]
            fn is_missing(self) -> bool {
                self.is_nan()
            }

            #[inline]
            fn plus(self, other: Self) -> Self {
                self + other
            }

            #[inline]
            fn share_of(self, count: usize) -> Self {
                self / count as Self
            }
        }
    };
}

real!(f32);
real!(f64);

/// One node. All comparisons of the specification are made of this one:
/// `next[value of the feature <= threshold]`. A leaf is followed by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Node<T> {
    /// The threshold; of a leaf with the only weight of its tree's only target, that weight.
    pub(crate) value: T,
    /// Number of the feature, with [`MISSING_PASSES`].
    pub(crate) feature: u32,
    /// The node that follows where the comparison fails, and where it holds.
    pub(crate) next: [u32; 2],
}

/// What the leaves add to the scores.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Weights<T> {
    /// One target; each leaf's weight is its node's value.
    Single,
    /// For each node the end of its weights, which begin where those of the node before end, each with
    /// its target.
    Many(Vec<u32>, Vec<(u32, T)>),
}

/// How the weights of all trees become a score (`aggregate_function` of the specification).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aggregate {
    /// Their sum.
    Sum,
    /// Their sum divided by the number of trees.
    Average,
    /// The smallest.
    Min,
    /// The largest.
    Max,
}

/// Trees that were checked: every number of a node, feature or target is in range and every descent ends.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Forest<T> {
    pub(crate) nodes: Vec<Node<T>>,
    /// The first node of each tree.
    pub(crate) roots: Vec<u32>,
    pub(crate) weights: Weights<T>,
    /// Whether any node lets missing values pass.
    pub(crate) missing_passes: bool,
    /// Number of scores.
    pub(crate) targets: usize,
    /// Values a row must have.
    pub(crate) width: usize,
}

/// Scores of one row, kept from row to row for their memory.
#[derive(Clone, Debug)]
pub(crate) struct Scores<T> {
    /// One per target.
    pub(crate) values: Vec<T>,
    /// Which targets any leaf reached had a weight for.
    pub(crate) seen: Vec<bool>,
}

impl<T: Real> Scores<T> {
    /// Scores of so many targets.
    pub(crate) fn new(targets: usize) -> Self {
        Self { values: vec![T::ZERO; targets], seen: vec![false; targets] }
    }

    fn add(&mut self, target: usize, weight: T, aggregate: Aggregate) {
        let (Some(value), Some(seen)) = (self.values.get_mut(target), self.seen.get_mut(target)) else {
            return;
        };
        let better = match aggregate {
            Aggregate::Sum | Aggregate::Average => {
                *value = value.plus(weight);
                *seen = true;
                return;
            }
            Aggregate::Min => weight < *value,
            Aggregate::Max => weight > *value,
        };
        if better || !*seen {
            *value = weight;
        }
        *seen = true;
    }
}

impl<T: Real> Forest<T> {
    /// Evaluates all trees on `row`, which has at least [`width`](Self::width) values; a missing one is NaN.
    pub(crate) fn score(&self, row: &[T], aggregate: Aggregate, scores: &mut Scores<T>) {
        scores.values.fill(T::ZERO);
        scores.seen.fill(false);
        match (&self.weights, aggregate) {
            (Weights::Single, Aggregate::Sum | Aggregate::Average) => {
                let mut sum = T::ZERO;
                self.each_leaf(row, |leaf| sum = sum.plus(self.value(leaf)));
                if let (Some(value), Some(seen)) = (scores.values.first_mut(), scores.seen.first_mut()) {
                    (*value, *seen) = (sum, true);
                }
            }
            (Weights::Single, Aggregate::Min | Aggregate::Max) => {
                self.each_leaf(row, |leaf| scores.add(0, self.value(leaf), aggregate));
            }
            (Weights::Many(ends, weights), _) => self.each_leaf(row, |leaf| {
                let end =
                    |node: Option<usize>| node.and_then(|node| ends.get(node)).map_or(0, |end| *end as usize);
                let leaf = leaf as usize;
                let own = weights.get(end(leaf.checked_sub(1))..end(Some(leaf))).unwrap_or_default();
                own.iter().for_each(|(target, weight)| scores.add(*target as usize, *weight, aggregate));
            }),
        }
        if aggregate == Aggregate::Average {
            let trees = self.roots.len();
            scores.values.iter_mut().for_each(|value| *value = value.share_of(trees));
        }
    }

    fn value(&self, leaf: u32) -> T {
        self.nodes.get(leaf as usize).map_or(T::ZERO, |node| node.value)
    }

    /// Calls `visit` with the leaf that each tree comes to, tree by tree.
    fn each_leaf(&self, row: &[T], visit: impl FnMut(u32)) {
        if self.missing_passes {
            self.descend::<true>(row, visit);
        } else {
            self.descend::<false>(row, visit);
        }
    }

    fn descend<const MISSING: bool>(&self, row: &[T], mut visit: impl FnMut(u32)) {
        let (groups, rest) = self.roots.as_chunks::<LANES>();
        for group in groups {
            // Spelt out, so that they stay in registers also where the compiler is told to save space.
            let [mut n0, mut n1, mut n2, mut n3, mut n4, mut n5, mut n6, mut n7] = *group;
            loop {
                // Leaves follow themselves, so that trees which are done stay where they are.
                let mut moved = self.step::<MISSING>(&mut n0, row);
                moved |= self.step::<MISSING>(&mut n1, row);
                moved |= self.step::<MISSING>(&mut n2, row);
                moved |= self.step::<MISSING>(&mut n3, row);
                moved |= self.step::<MISSING>(&mut n4, row);
                moved |= self.step::<MISSING>(&mut n5, row);
                moved |= self.step::<MISSING>(&mut n6, row);
                moved |= self.step::<MISSING>(&mut n7, row);
                if moved == 0 {
                    break;
                }
            }
            for leaf in [n0, n1, n2, n3, n4, n5, n6, n7] {
                visit(leaf);
            }
        }
        for root in rest {
            let mut node = *root;
            while self.step::<MISSING>(&mut node, row) != 0 {}
            visit(node);
        }
    }

    /// Goes on to the next node; 0 when that is the same one.
    #[expect(clippy::inline_always, reason = "a call costs as much as a step, also where size comes first")]
    #[inline(always)]
    fn step<const MISSING: bool>(&self, at: &mut u32, row: &[T]) -> u32 {
        let Some(node) = self.nodes.get(*at as usize) else {
            return 0;
        };
        let value = match row.get((node.feature & FEATURE) as usize) {
            Some(value) => *value,
            None => T::NAN,
        };
        let mut holds = value <= node.value;
        if MISSING {
            let passes = node.feature & MISSING_PASSES != 0;
            holds |= passes && value.is_missing();
        }
        // Looked up, not jumped to: where a tree goes cannot be predicted.
        let next = node.next[usize::from(holds)];
        let moved = next ^ *at;
        *at = next;
        moved
    }
}
