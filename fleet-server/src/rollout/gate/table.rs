//! One row of numbers per device, summed per arm; what a comparison and its permutations work on.

use super::super::verdict::GateName;
use crate::stats::permutation::{Permutation, permutation_test};

/// Most rows of the canary, and of both arms together. Larger arms are summed into blocks of equally
/// many devices: the test loses little, and its cost stays bounded whatever the fleet.
const MAX_CANARY_ROWS: usize = 200;
const MAX_ROWS: usize = 1000;

/// Bound on the additions of one test, about half a second in a release build.
const MAX_ADDITIONS: u64 = 400_000_000;

/// Divisions drawn at least, and at most where the alpha left asks for more.
const MIN_DRAWS: u64 = 999;
const MAX_DRAWS: u64 = 100_000;

/// Largest probability by chance that a small fleet's most extreme division may have and still decide.
/// One device against eight can show 1/9.
const SMALL_FLEET_P: f64 = 0.1;

/// Rows of equal width, those of the canary first.
pub(super) struct Table {
    rows: Vec<Vec<f64>>,
    canary_rows: usize,
    /// Devices behind the rows.
    pub(super) canary_devices: usize,
    /// See `canary_devices`.
    pub(super) control_devices: usize,
}

/// Whether an effect is more than chance, with the words that say how this is known.
pub(super) struct Shown {
    pub(super) is_more: bool,
    pub(super) p_value: Option<f64>,
    pub(super) words: String,
}

impl Table {
    /// A table of both arms in random order; rows that are not as wide as the first are left out. `None`
    /// when an arm has no row.
    pub(super) fn new(canary: Vec<Vec<f64>>, control: Vec<Vec<f64>>) -> Option<Self> {
        let width = canary.first()?.len();
        let fitting = |rows: Vec<Vec<f64>>| -> Vec<Vec<f64>> {
            rows.into_iter().filter(|row| row.len() == width).collect()
        };
        let (canary, control) = (fitting(canary), fitting(control));
        if canary.is_empty() || control.is_empty() || width == 0 {
            return None;
        }
        let (canary_devices, control_devices) = (canary.len(), control.len());
        let all = canary_devices.saturating_add(control_devices);
        let block = canary_devices.div_ceil(MAX_CANARY_ROWS).max(all.div_ceil(MAX_ROWS));
        let mut rows = blocks(&canary, block);
        let canary_rows = rows.len();
        rows.extend(blocks(&control, block));
        Some(Self { rows, canary_rows, canary_devices, control_devices })
    }

    /// The sums of canary and control.
    pub(super) fn sums(&self) -> (Vec<f64>, Vec<f64>) {
        let (canary, control) = self.rows.split_at(self.canary_rows.min(self.rows.len()));
        (sum(canary), sum(control))
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
        let affordable = MAX_ADDITIONS / width.saturating_mul(self.canary_rows.max(1) as u64);
        let wanted = (3.0 / alpha).ceil().min(MAX_DRAWS as f64) as u64;
        let draws = wanted.max(MIN_DRAWS).min(affordable.max(19));
        let (mut chosen, mut rest) = (total.clone(), total.clone());
        let found = permutation_test(self.rows.len(), self.canary_rows, draws, seed, |group| {
            chosen.fill(0.0);
            for row in group.iter().filter_map(|index| self.rows.get(*index)) {
                chosen.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
            for ((rest, total), chosen) in rest.iter_mut().zip(&total).zip(&chosen) {
                *rest = total - chosen;
            }
            statistic(&chosen, &rest).unwrap_or(f64::NAN)
        });
        self.weigh(found, alpha)
    }

    fn weigh(&self, found: Option<Permutation>, alpha: f64) -> Shown {
        let arms = format!("{} against {} devices", self.canary_devices, self.control_devices);
        let Some(found) = found else {
            return Shown { is_more: false, p_value: None, words: format!("{arms} cannot be compared") };
        };
        let others = found.divisions - 1;
        let (is_more, words) = if found.p_value <= alpha {
            let p = short(found.p_value);
            (true, format!("by chance this is seen with probability {p}, {} is allowed", short(alpha)))
        } else if found.smallest <= alpha {
            let p = short(found.p_value);
            (false, format!("chance alone shows as much with probability {p}, so that nothing is shown"))
        } else if found.smallest > SMALL_FLEET_P {
            (false, format!("{arms} are too few to tell the release from the devices"))
        } else if found.is_most_extreme() {
            let how = "which a test cannot decide at this alpha: decided by the size of the effect";
            (true, format!("{arms}, {how}, which none of the {others} other divisions of them reaches"))
        } else {
            let others = format!("{} of the {others} other divisions of them", found.as_extreme - 1);
            (false, format!("{arms}, and {others} shows as much: nothing is shown"))
        };
        Shown { is_more, p_value: Some(found.p_value), words }
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
    let number = match gate {
        GateName::ErrorRate => 1,
        GateName::Latency => 2,
        GateName::Predictions => 3,
        GateName::Confidence => 4,
        GateName::Inputs => 5,
    };
    seed.wrapping_mul(31).wrapping_add(number)
}
