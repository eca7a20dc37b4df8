//! One row of numbers per device, summed per arm; what a comparison and its permutations work on. Devices
//! are divided otherwise only within their stratum.

use super::super::verdict::GateName;
use crate::stats::permutation::{Permutation, Stratum, permutation_test};

/// Most rows of the canary, and of both arms together. Larger arms are summed into blocks of equally
/// many devices: the test loses little, and its cost stays bounded whatever the fleet.
const MAX_CANARY_ROWS: usize = 200;
const MAX_ROWS: usize = 1000;

/// Bound on the additions of one test, about half a second in a release build.
const MAX_ADDITIONS: u64 = 400_000_000;

/// Divisions drawn at least, and at most where the alpha left asks for more.
const MIN_DRAWS: u64 = 999;
const MAX_DRAWS: u64 = 100_000;

/// Largest probability by chance that a small fleet's most extreme division may have and still stand behind a
/// hard limit. One device against eight can show 1/9.
const SMALL_FLEET_P: f64 = 0.12;

/// What one device showed, and which stratum it is in.
pub(super) struct Row {
    pub(super) stratum: usize,
    pub(super) values: Vec<f64>,
}

/// Rows of equal width; in each stratum those of the canary first.
pub(super) struct Table {
    rows: Vec<Vec<f64>>,
    strata: Vec<Stratum>,
    /// Devices behind the rows.
    pub(super) canary_devices: usize,
    /// See `canary_devices`.
    pub(super) control_devices: usize,
}

/// Whether an effect is more than chance, with the words that say how this is known.
pub(super) struct Shown {
    pub(super) weight: Weight,
    pub(super) p_value: Option<f64>,
    pub(super) words: String,
}

/// What a test can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// More than chance, at the alpha of this look.
    MoreThanChance,
    /// Chance shows as much.
    Chance,
    /// No test of so few devices can reach that alpha, but no other division of them shows as much.
    FewMostExtreme,
    /// No test of so few devices can reach that alpha.
    Few,
}

impl Table {
    /// A table of both arms in random order; rows that are not as wide as the first are left out. `None`
    /// when an arm has no row.
    pub(super) fn new(canary: Vec<Row>, control: Vec<Row>) -> Option<Self> {
        let width = canary.first()?.values.len();
        let fitting = |rows: Vec<Row>| -> Vec<Row> {
            rows.into_iter().filter(|row| row.values.len() == width).collect()
        };
        let (canary, control) = (fitting(canary), fitting(control));
        if canary.is_empty() || control.is_empty() || width == 0 {
            return None;
        }
        let (canary_devices, control_devices) = (canary.len(), control.len());
        let all = canary_devices.saturating_add(control_devices);
        let block = canary_devices.div_ceil(MAX_CANARY_ROWS).max(all.div_ceil(MAX_ROWS));
        let last = canary.iter().chain(&control).map(|row| row.stratum).max().unwrap_or(0);
        let (mut rows, mut strata) = (Vec::new(), Vec::new());
        for stratum in 0..=last {
            let of = |arm: &[Row]| -> Vec<Vec<f64>> {
                let rows = arm.iter().filter(|row| row.stratum == stratum);
                rows.map(|row| row.values.clone()).collect()
            };
            let mine = blocks(&of(&canary), block);
            let theirs = blocks(&of(&control), block);
            strata.push(Stratum { units: mine.len() + theirs.len(), chosen: mine.len() });
            rows.extend(mine);
            rows.extend(theirs);
        }
        Some(Self { rows, strata, canary_devices, control_devices })
    }

    /// The sums of canary and control.
    pub(super) fn sums(&self) -> (Vec<f64>, Vec<f64>) {
        let (mut canary, mut control, mut rows) = (Vec::new(), Vec::new(), self.rows.as_slice());
        for stratum in &self.strata {
            let (mine, rest) = rows.split_at(stratum.chosen.min(rows.len()));
            let (theirs, rest) = rest.split_at((stratum.units - stratum.chosen).min(rest.len()));
            canary.extend_from_slice(mine);
            control.extend_from_slice(theirs);
            rows = rest;
        }
        (sum(&canary), sum(&control))
    }

    /// Whether chance, dividing the same devices otherwise, shows as much of `statistic` too often.
    pub(super) fn shown(
        &self,
        alpha: f64,
        seed: u64,
        statistic: impl Fn(&[f64], &[f64]) -> Option<f64>,
    ) -> Shown {
        let total = sum(&self.rows);
        let width = total.len().max(1) as u64;
        let chosen: usize = self.strata.iter().map(|stratum| stratum.chosen).sum();
        let affordable = MAX_ADDITIONS / width.saturating_mul(chosen.max(1) as u64);
        let wanted = (3.0 / alpha).ceil().min(MAX_DRAWS as f64) as u64;
        let draws = wanted.max(MIN_DRAWS).min(affordable.max(19));
        let (mut sums, mut rest) = (total.clone(), total.clone());
        let found = permutation_test(&self.strata, draws, seed, |group| {
            sums.fill(0.0);
            for row in group.iter().filter_map(|index| self.rows.get(*index)) {
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
            for ((rest, total), sum) in rest.iter_mut().zip(&total).zip(&sums) {
                *rest = total - sum;
            }
            statistic(&sums, &rest).unwrap_or(f64::NAN)
        });
        self.weigh(found, alpha)
    }

    fn weigh(&self, found: Option<Permutation>, alpha: f64) -> Shown {
        let arms = format!("{} against {} devices", self.canary_devices, self.control_devices);
        let Some(found) = found else {
            return Shown { weight: Weight::Few, p_value: None, words: format!("{arms} cannot be compared") };
        };
        let others = found.divisions - 1;
        let p = short(found.p_value);
        let few = format!("{arms} are too few for any test at this alpha");
        let (weight, words) = if found.p_value <= alpha {
            let allowed = short(alpha);
            (
                Weight::MoreThanChance,
                format!("by chance this is seen with probability {p}, {allowed} is allowed"),
            )
        } else if found.smallest <= alpha {
            (
                Weight::Chance,
                format!("chance alone shows as much with probability {p}, so that nothing is shown"),
            )
        } else if found.is_most_extreme() && found.smallest <= SMALL_FLEET_P {
            (
                Weight::FewMostExtreme,
                format!("{few}, though none of the {others} other divisions of them shows as much"),
            )
        } else {
            (Weight::Few, few)
        };
        Shown { weight, p_value: Some(found.p_value), words }
    }
}

fn blocks(rows: &[Vec<f64>], block: usize) -> Vec<Vec<f64>> {
    rows.chunks(block.max(1)).map(sum).collect()
}

fn sum(rows: &[Vec<f64>]) -> Vec<f64> {
    let mut total = vec![0.0; rows.first().map_or(0, Vec::len)];
    for row in rows {
        total.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    total
}

/// A number for a sentence: two places, more where it is small.
pub(super) fn short(value: f64) -> String {
    let places = if value == 0.0 || value >= 0.1 { 2 } else { 1 - (value.log10().floor() as i32).max(-9) };
    let text = format!("{value:.*}", usize::try_from(places).unwrap_or(2));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A share for a sentence.
pub(super) fn percent(share: f64) -> String {
    format!("{} %", short(share * 100.0))
}

/// Different draws for different gates.
pub(super) fn seed_for(seed: u64, gate: GateName) -> u64 {
    let number = GateName::ALL.iter().position(|name| *name == gate).unwrap_or(0);
    seed.wrapping_mul(31).wrapping_add(number as u64 + 1)
}
