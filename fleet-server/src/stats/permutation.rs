//! Permutation tests: how often would dividing the same units otherwise, by chance, show as much? Assumes
//! nothing but that units are exchangeable when the release changes nothing, which the random order
//! of devices makes true; skewed values and unequal arms do not matter.

/// Up to this many divisions all are looked at; beyond, divisions are drawn. 12 choose 3 is 220, 20
/// choose 6 is 38,760.
pub const MAX_EXACT: u64 = 40_000;

/// Drawing stops once this many divisions show as much: the p value is then known to about a quarter
/// of itself, and far from any boundary that matters (Besag and Clifford 1991).
const ENOUGH: u64 = 20;

/// What a test found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Permutation {
    /// The probability that chance shows at least as much.
    pub p_value: f64,
    /// The smallest p value that this many units can show.
    pub smallest: f64,
    /// Divisions that show at least as much, the observed one included.
    pub as_extreme: u64,
    /// Divisions looked at, the observed one included.
    pub divisions: u64,
    /// Whether these are all there are.
    pub exact: bool,
}

impl Permutation {
    /// Whether no division shows as much as the observed one (and, with two arms of equal size, its
    /// mirror image).
    pub fn is_most_extreme(&self) -> bool {
        self.p_value <= self.smallest * (1.0 + 1e-9)
    }
}

/// Tests whether the first `chosen` of `units` units differ from the rest. `statistic` takes the
/// indices of a chosen group and is large where the group differs; a division for which it is not
/// finite counts as showing as much, which is the careful side. At most `max_draws` divisions are drawn where
/// there are more than [`MAX_EXACT`]; `seed` decides which.
///
/// `None` when either group is empty, or the statistic of the observed division is not finite.
pub fn permutation_test(
    units: usize,
    chosen: usize,
    max_draws: u64,
    seed: u64,
    mut statistic: impl FnMut(&[usize]) -> f64,
) -> Option<Permutation> {
    if chosen == 0 || chosen >= units {
        return None;
    }
    let mut order: Vec<usize> = (0..units).collect();
    let observed = statistic(order.get(..chosen)?);
    if !observed.is_finite() {
        return None;
    }
    // The same values summed in another order differ in the last digits.
    let bar = observed - observed.abs() * 1e-9;
    let as_much = |value: f64| !value.is_finite() || value >= bar;
    let mirrors = if chosen.saturating_mul(2) == units { 2.0 } else { 1.0 };
    if let Some(all) = divisions(units, chosen).filter(|all| *all <= MAX_EXACT) {
        let mut as_extreme = 0;
        for_each_choice(units, chosen, |group| as_extreme += u64::from(as_much(statistic(group))));
        let p_value = as_extreme as f64 / all as f64;
        let smallest = mirrors / all as f64;
        return Some(Permutation { p_value, smallest, as_extreme, divisions: all, exact: true });
    }
    let mut random = SplitMix64(seed);
    let (mut as_extreme, mut drawn) = (0, 0);
    while drawn < max_draws && as_extreme < ENOUGH {
        shuffle_head(&mut order, chosen, &mut random);
        as_extreme += u64::from(as_much(statistic(order.get(..chosen)?)));
        drawn += 1;
    }
    let (as_extreme, divisions) = (as_extreme + 1, drawn + 1);
    let p_value = as_extreme as f64 / divisions as f64;
    let smallest = 1.0 / (max_draws + 1) as f64;
    Some(Permutation { p_value, smallest, as_extreme, divisions, exact: false })
}

/// `units` choose `chosen`, unless it is beyond any enumeration.
fn divisions(units: usize, chosen: usize) -> Option<u64> {
    let chosen = chosen.min(units.saturating_sub(chosen));
    let mut all = 1_u64;
    for step in 0..chosen {
        // Each intermediate product is itself a binomial coefficient, so that dividing is exact.
        all = all.checked_mul(u64::try_from(units - step).ok()?)? / u64::try_from(step + 1).ok()?;
        if all > MAX_EXACT.saturating_mul(1000) {
            return None;
        }
    }
    Some(all)
}

/// Calls `visit` with every choice of `chosen` out of `units` indices, in lexicographic order.
fn for_each_choice(units: usize, chosen: usize, mut visit: impl FnMut(&[usize])) {
    let mut group: Vec<usize> = (0..chosen).collect();
    loop {
        visit(&group);
        // The rightmost index that can still move moves one up; those after it follow closely.
        let movable = group.iter().enumerate().rev().find(|(at, index)| **index < units - chosen + at);
        let Some((at, index)) = movable.map(|(at, index)| (at, *index)) else {
            return;
        };
        group.iter_mut().skip(at).enumerate().for_each(|(step, slot)| *slot = index + 1 + step);
    }
}

/// Makes the first `count` of `order` a uniform choice (Fisher and Yates, stopped early).
fn shuffle_head(order: &mut [usize], count: usize, random: &mut SplitMix64) {
    let len = order.len();
    for at in 0..count.min(len) {
        order.swap(at, at + random.below(len - at));
    }
}

/// Steele, Lea and Flood (2014): 64 bits of state, equidistributed, good enough to draw divisions.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Uniform below `bound` up to a bias of `bound / 2^64` (Lemire 2019, without the rejection).
    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
#[path = "permutation_tests.rs"]
mod tests;
