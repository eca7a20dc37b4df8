//! Permutation tests: how often would dividing the same units otherwise, by chance, show as much? Assumes
//! nothing but that units are exchangeable when the release changes nothing, which the random order
//! of devices makes true; skewed values and unequal arms do not matter.

use super::random::SplitMix64;

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

/// Units that are alike, such as devices of one class: only within a stratum are they divided otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stratum {
    /// How many units; strata follow each other.
    pub units: usize,
    /// How many of them, the first ones, are chosen.
    pub chosen: usize,
}

/// Tests whether the chosen units differ from the rest. `statistic` takes the indices of a chosen group and is
/// large where the group differs; a division for which it is not finite counts as showing as much, which is
/// the careful side. At most `max_draws` divisions are drawn where there are more than [`MAX_EXACT`]; `seed`
/// decides which.
///
/// `None` when nothing can be divided otherwise, or the statistic of the observed division is not finite.
pub fn permutation_test(
    strata: &[Stratum],
    max_draws: u64,
    seed: u64,
    mut statistic: impl FnMut(&[usize]) -> f64,
) -> Option<Permutation> {
    let mut groups = Vec::new();
    let mut first = 0;
    for stratum in strata {
        groups.push(Group { order: (first..first + stratum.units).collect(), chosen: stratum.chosen });
        first += stratum.units;
    }
    if groups.iter().all(|group| group.chosen == 0 || group.chosen >= group.order.len()) {
        return None;
    }
    let mut group = Vec::new();
    choose(&groups, &mut group);
    let observed = statistic(&group);
    if !observed.is_finite() {
        return None;
    }
    // The same values summed in another order differ in the last digits.
    let bar = observed - observed.abs() * 1e-9;
    let as_much = |value: f64| !value.is_finite() || value >= bar;
    let mirrored = groups.iter().all(|group| group.chosen.saturating_mul(2) == group.order.len());
    let mirrors = if mirrored { 2.0 } else { 1.0 };
    if let Some(all) = all_divisions(strata).filter(|all| *all <= MAX_EXACT) {
        let mut as_extreme = 0;
        let mut visit = |group: &[usize]| as_extreme += u64::from(as_much(statistic(group)));
        for_each_division(&groups, &mut Vec::new(), &mut visit);
        let p_value = as_extreme as f64 / all as f64;
        let smallest = mirrors / all as f64;
        return Some(Permutation { p_value, smallest, as_extreme, divisions: all, exact: true });
    }
    let mut random = SplitMix64::new(seed);
    let (mut as_extreme, mut drawn) = (0, 0);
    while drawn < max_draws && as_extreme < ENOUGH {
        for Group { order, chosen } in &mut groups {
            shuffle_head(order, *chosen, &mut random);
        }
        choose(&groups, &mut group);
        as_extreme += u64::from(as_much(statistic(&group)));
        drawn += 1;
    }
    let (as_extreme, divisions) = (as_extreme + 1, drawn + 1);
    let p_value = as_extreme as f64 / divisions as f64;
    let smallest = 1.0 / (max_draws + 1) as f64;
    Some(Permutation { p_value, smallest, as_extreme, divisions, exact: false })
}

/// The units of one stratum in some order; the first ones are chosen.
struct Group {
    order: Vec<usize>,
    chosen: usize,
}

fn choose(groups: &[Group], into: &mut Vec<usize>) {
    into.clear();
    groups.iter().for_each(|group| into.extend(group.order.iter().take(group.chosen)));
}

/// How many divisions there are, unless that is beyond any enumeration.
fn all_divisions(strata: &[Stratum]) -> Option<u64> {
    strata.iter().try_fold(1_u64, |all, stratum| all.checked_mul(divisions(stratum.units, stratum.chosen)?))
}

/// Calls `visit` with every division: every choice of the first group with every one of the others.
fn for_each_division(groups: &[Group], chosen: &mut Vec<usize>, visit: &mut impl FnMut(&[usize])) {
    let Some((first, rest)) = groups.split_first() else {
        return visit(chosen);
    };
    let before = chosen.len();
    for_each_choice(first.order.len(), first.chosen, |group| {
        chosen.truncate(before);
        chosen.extend(group.iter().filter_map(|at| first.order.get(*at)));
        for_each_division(rest, chosen, visit);
    });
    chosen.truncate(before);
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

#[cfg(test)]
#[path = "permutation_tests.rs"]
mod tests;
