//! Checked trees laid out as flat nodes: every comparison of the specification made of the one that a
//! [`Forest`](super::forest::Forest) makes.

use tract_onnx::tract_hir::internal::{TractResult, bail, ensure};

use super::forest::{FEATURE, MISSING_PASSES, Node, Real};
use super::leaf_weights::RawWeight;
use super::trees::{Mode, RawNode};

/// Nodes as they are laid out.
pub(crate) struct Layout<T> {
    /// Whether each leaf's only weight is its node's value.
    pub(crate) single: bool,
    pub(crate) nodes: Vec<Node<T>>,
    /// See [`Weights::Many`](super::forest::Weights::Many).
    pub(crate) ends: Vec<u32>,
    pub(crate) weights: Vec<(u32, T)>,
    pub(crate) missing_passes: bool,
    /// Values a row must have.
    pub(crate) width: usize,
}

/// A node's place, and which of its two successors is meant.
pub(crate) type Slots = Vec<(usize, usize)>;

impl<T: Real> Layout<T> {
    /// The number of the next node; there are at most twice [`MAX_NODES`].
    pub(crate) fn number(&self) -> u32 {
        u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)
    }

    /// Makes the next node the one that follows at `slots`.
    fn point(&mut self, slots: &[(usize, usize)]) {
        self.point_to(self.number(), slots);
    }

    /// Makes the node `number` the one that follows at `slots`.
    pub(crate) fn point_to(&mut self, number: u32, slots: &[(usize, usize)]) {
        for (at, way) in slots {
            if let Some(next) = self.nodes.get_mut(*at).and_then(|node| node.next.get_mut(*way)) {
                *next = number;
            }
        }
    }

    fn push(&mut self, value: T, feature: u32) -> usize {
        let at = self.number();
        self.missing_passes |= feature & MISSING_PASSES != 0;
        self.nodes.push(Node { value, feature, next: [at; 2] });
        if !self.single {
            self.ends.push(u32::try_from(self.weights.len()).unwrap_or(u32::MAX));
        }
        at as usize
    }

    pub(crate) fn leaf(&mut self, mut weights: impl ExactSizeIterator<Item = RawWeight<T>>) {
        let value = match weights.next() {
            Some(only) if self.single && weights.len() == 0 => only.weight,
            first => {
                let target = |weight: &RawWeight<T>| u32::try_from(weight.target).unwrap_or(u32::MAX);
                let all = first.into_iter().chain(weights);
                self.weights.extend(all.map(|weight| (target(&weight), weight.weight)));
                T::ZERO
            }
        };
        self.push(value, 0);
    }

    /// Lays out a comparison, where it is one with a set that of `sets`; answers where the numbers of what follows a
    /// `yes` and a `no` belong.
    pub(crate) fn branch(&mut self, node: &RawNode<T>, sets: &[Vec<T>]) -> TractResult<(Slots, Slots)> {
        let RawNode { tree, id, threshold, .. } = node;
        let feature = u32::try_from(node.feature).ok().filter(|feature| *feature < FEATURE);
        let Some(feature) = feature else {
            bail!("tree {tree}: node {id} compares feature {}", node.feature);
        };
        if !matches!(node.mode, Mode::Member(_)) {
            ensure!(!threshold.is_missing(), "tree {tree}: the threshold of node {id} is not a number");
        }
        self.width = self.width.max(feature as usize + 1);
        let flagged = |passes: bool| if passes { feature | MISSING_PASSES } else { feature };
        let smaller = || below(*threshold);
        let missing = node.missing_is_yes;
        Ok(match node.mode {
            Mode::Leq => {
                let at = self.push(*threshold, flagged(missing));
                (vec![(at, 1)], vec![(at, 0)])
            }
            Mode::Lt => {
                let at = self.push(smaller(), flagged(missing));
                (vec![(at, 1)], vec![(at, 0)])
            }
            // The opposite of `<`, but for a missing value, for which no comparison holds.
            Mode::Gte => {
                let at = self.push(smaller(), flagged(!missing));
                (vec![(at, 0)], vec![(at, 1)])
            }
            Mode::Gt => {
                let at = self.push(*threshold, flagged(!missing));
                (vec![(at, 0)], vec![(at, 1)])
            }
            // `x <= threshold` and then not `x < threshold`; a missing value that is to count as equal
            // passes the first and fails the second.
            Mode::Eq => {
                let first = self.push(*threshold, flagged(missing));
                let second = self.push(smaller(), feature);
                self.follow(first, second);
                (vec![(second, 0)], vec![(first, 0), (second, 1)])
            }
            // A missing value differs from everything.
            Mode::Neq => {
                let first = self.push(*threshold, feature);
                let second = self.push(smaller(), feature);
                self.follow(first, second);
                (vec![(first, 0), (second, 1)], vec![(second, 0)])
            }
            Mode::Member(set) => {
                let members = usize::try_from(set).ok().and_then(|set| sets.get(set));
                let Some(members) = members else { bail!("tree {tree}: node {id} has no set {set}") };
                self.set(members, feature, missing)
            }
            Mode::Leaf => bail!("tree {tree}: node {id} is a leaf"),
        })
    }

    /// Lays out whether a feature is one of `members`, which ascend: the smallest member that is not below it is searched
    /// for in halves, and must then not be above it. Two comparisons are laid out per member, and of those a descent
    /// makes as many as the number of members has binary digits, and two.
    fn set(&mut self, members: &[T], feature: u32, missing_is_yes: bool) -> (Slots, Slots) {
        let first = if missing_is_yes { feature | MISSING_PASSES } else { feature };
        let Some(last) = members.last() else {
            // Nothing is of no set; only a missing value may pass.
            let at = self.push(T::NAN, first);
            return (vec![(at, 1)], vec![(at, 0)]);
        };
        // A missing value that passes this fails everything else and so ends as if it were the last member.
        let at = self.push(*last, first);
        let (mut yes, mut no) = (Vec::new(), vec![(at, 0)]);
        let mut waiting: Vec<(&[T], (usize, usize))> = vec![(members, (at, 1))];
        while let Some((members, slot)) = waiting.pop() {
            self.point(&[slot]);
            let (lower, upper) = members.split_at(members.len() / 2);
            match (lower.last(), upper.first()) {
                (Some(border), _) => {
                    let at = self.push(*border, feature);
                    waiting.push((upper, (at, 0)));
                    waiting.push((lower, (at, 1)));
                }
                (None, Some(member)) => {
                    let at = self.push(below(*member), feature);
                    yes.push((at, 0));
                    no.push((at, 1));
                }
                (None, None) => {}
            }
        }
        (yes, no)
    }

    /// Makes `second` follow where `first` holds.
    fn follow(&mut self, first: usize, second: usize) {
        let number = u32::try_from(second).unwrap_or(u32::MAX);
        if let Some([_, passes]) = self.nodes.get_mut(first).map(|node| &mut node.next) {
            *passes = number;
        }
    }
}

/// The threshold of `x < threshold` as one of `x <= …`.
fn below<T: Real>(threshold: T) -> T {
    let smaller = threshold.below();
    // Only the smallest number has none below it; no number compares with NaN.
    if smaller < threshold { smaller } else { T::NAN }
}
