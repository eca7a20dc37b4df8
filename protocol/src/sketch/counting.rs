//! Many values counted into bins at once. Places and moments of a block of values are found side by side without a
//! branch that depends on them, which compilers turn into vector instructions.

use super::bins::{Bins, MAX_BINS};

/// Values of a block: enough for every vector unit, few enough for registers.
pub(super) const LANES: usize = 16;

/// Places a value can fall in: under, the bins, over, missing.
const PLACES: usize = MAX_BINS + 3;

/// Blocks are counted in turn, so that equal values one after the other need not wait for each other.
const TURNS: usize = 4;

/// What was seen of some values.
pub(super) struct Counted {
    /// By number of edges at or below the value; missing ones last, behind every number of edges there can be.
    tallies: [[u64; PLACES]; TURNS],
    /// A value of the first block: what distances are taken from, so that no digits are lost while values lie nearer to
    /// each other than to zero.
    origin: f64,
    finite: [u64; LANES],
    sums: [f64; LANES],
    squares: [f64; LANES],
}

impl Counted {
    /// Counts a first block and what comes after it.
    pub(super) fn of(bins: &Bins, first: &[f32; LANES], rest: impl Iterator<Item = f32>) -> Self {
        let origin = first.iter().find(|value| value.is_finite());
        let mut counted = Self {
            tallies: [[0; PLACES]; TURNS],
            origin: origin.map_or(0.0, |value| f64::from(*value)),
            finite: [0; LANES],
            sums: [0.0; LANES],
            squares: [0.0; LANES],
        };
        counted.take(bins, first, LANES);
        let (mut block, mut held) = ([f32::NAN; LANES], 0);
        for value in rest {
            if let Some(slot) = block.get_mut(held) {
                *slot = value;
            }
            held += 1;
            if held == LANES {
                counted.take(bins, &block, held);
                held = 0;
            }
        }
        // What is left of the block before lies behind them and is not counted.
        block.iter_mut().skip(held).for_each(|value| *value = f32::NAN);
        counted.take(bins, &block, held);
        counted
    }

    /// Counts the first `held` of a block; the others are no numbers.
    fn take(&mut self, bins: &Bins, block: &[f32; LANES], held: usize) {
        let mut places = [0_u32; LANES];
        for edge in bins.edges() {
            for (place, value) in places.iter_mut().zip(block) {
                *place += u32::from(*edge <= *value);
            }
        }
        let origin = self.origin;
        let moments = self.finite.iter_mut().zip(&mut self.sums).zip(&mut self.squares);
        for (value, ((finite, sum), square)) in block.iter().zip(moments) {
            let is_finite = value.abs() < f32::INFINITY;
            let distance = if is_finite { f64::from(*value) - origin } else { 0.0 };
            *finite += u64::from(is_finite);
            *sum += distance;
            *square += distance * distance;
        }
        for (lane, (place, value)) in places.iter().zip(block).take(held).enumerate() {
            let place = if value.is_nan() { PLACES - 1 } else { *place as usize };
            if let Some(count) = self.tallies.get_mut(lane % TURNS).and_then(|tally| tally.get_mut(place)) {
                *count += 1;
            }
        }
    }

    /// Values at or above so many edges and no more: below all (`0`), in a bin, above all.
    pub(super) fn at(&self, edges: usize) -> u64 {
        self.tallies.iter().filter_map(|tally| tally.get(edges)).sum()
    }

    /// Values that were no number.
    pub(super) fn missing(&self) -> u64 {
        self.at(PLACES - 1)
    }

    /// How many were finite, their mean, and their squared distances from it.
    pub(super) fn moments(&self) -> (f64, f64, f64) {
        let count = self.finite.iter().sum::<u64>() as f64;
        if count == 0.0 {
            return (0.0, 0.0, 0.0);
        }
        let (sum, squares) = (self.sums.iter().sum::<f64>(), self.squares.iter().sum::<f64>());
        let mean = self.origin + sum / count;
        // Rounding may leave less than nothing.
        (count, mean, (squares - sum * sum / count).max(0.0))
    }
}
