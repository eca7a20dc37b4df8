//! Many values counted into bins at once. Places and moments of a block of values are found side by side in vector
//! registers, without a branch that depends on them.

use wide::bytemuck::cast;
use wide::{f32x4, f64x2, i32x4};

use super::bins::{Bins, MAX_BINS};

/// Values of a block: enough for every vector unit, few enough for registers.
pub(super) const LANES: usize = 16;
/// Values of a vector register that every processor with vectors has.
const WIDTH: usize = 4;

/// Room for every number of edges that can be at or below a value, 0 to `MAX_BINS + 1`; a power of two, so that it is
/// kept by a mask and not by a branch.
const PLACES: usize = 64;
const _: () = assert!(MAX_BINS + 2 <= PLACES);

/// Every value of a vector passes a test.
const ALL: u32 = (1 << WIDTH) - 1;

/// Blocks are counted in turn, so that equal values one after the other need not wait for each other.
const TURNS: usize = 4;

/// Some values, as many as a block holds; the rest of it no numbers.
pub(super) struct Block {
    pub(super) values: [f32; LANES],
    pub(super) held: usize,
}

impl Block {
    /// The next values.
    pub(super) fn fill(values: &mut impl Iterator<Item = f32>) -> Self {
        let mut block = Self { values: [f32::NAN; LANES], held: 0 };
        for (slot, value) in block.values.iter_mut().zip(values) {
            *slot = value;
            block.held += 1;
        }
        block
    }

    /// Every `width`th of raw little-endian values, from the first one on, `wanted` at most.
    pub(super) fn fill_raw(values: &[[u8; 4]], width: usize, wanted: usize) -> Self {
        let mut block = Self { values: [f32::NAN; LANES], held: wanted.min(LANES) };
        let mut at = 0;
        for slot in block.values.iter_mut().take(block.held) {
            if let Some(raw) = values.get(at) {
                *slot = f32::from_le_bytes(*raw);
            }
            at = at.saturating_add(width);
        }
        block
    }
}

/// Number, mean and spread of values of whole blocks.
pub(super) struct Moments {
    /// One of the values: what distances are taken from, so that no digits are lost while values lie nearer to each other
    /// than to zero.
    origin: f32,
    finite: u64,
    sums: f64x2,
    squares: f64x2,
}

impl Moments {
    /// Of none so far; `first` are among those that come.
    pub(super) fn about(first: &[f32; LANES]) -> Self {
        let origin = first.iter().find(|value| value.is_finite()).copied().unwrap_or(0.0);
        Self { origin, finite: 0, sums: f64x2::ZERO, squares: f64x2::ZERO }
    }

    /// Adds those of `values` that are finite; whether all are.
    pub(super) fn take(&mut self, values: &[f32; LANES]) -> bool {
        let is_finite = |vector: f32x4| vector.abs().simd_lt(f32x4::splat(f32::INFINITY));
        let all = vectors(values)
            .into_iter()
            .fold(f32x4::splat(f32::from_bits(u32::MAX)), |all, one| all & is_finite(one));
        if all.to_bitmask() == ALL {
            self.finite += LANES as u64;
            self.add(values);
            return true;
        }
        self.finite += values.iter().filter(|value| value.is_finite()).count() as u64;
        // Others are moved to where they add nothing to sums of distances.
        self.add(&values.map(|value| if value.is_finite() { value } else { self.origin }));
        false
    }

    fn add(&mut self, values: &[f32; LANES]) {
        let origin = f64x2::splat(f64::from(self.origin));
        // Two of each, so that additions need not wait for each other.
        let (mut sums, mut squares) = ([f64x2::ZERO; 2], [f64x2::ZERO; 2]);
        let (pairs, _) = values.as_chunks::<2>();
        let (fours, _) = pairs.as_chunks::<2>();
        for four in fours {
            for ((pair, sum), square) in four.iter().zip(&mut sums).zip(&mut squares) {
                let distance = f64x2::new(pair.map(f64::from)) - origin;
                *sum += distance;
                *square += distance * distance;
            }
        }
        self.sums += sums.into_iter().fold(f64x2::ZERO, |sum, more| sum + more);
        self.squares += squares.into_iter().fold(f64x2::ZERO, |sum, more| sum + more);
    }

    /// How many were finite, their mean, and their squared distances from it.
    pub(super) fn done(&self) -> (f64, f64, f64) {
        let count = self.finite as f64;
        if self.finite == 0 {
            return (0.0, 0.0, 0.0);
        }
        let (sum, squares) = (self.sums.reduce_add(), self.squares.reduce_add());
        let mean = f64::from(self.origin) + sum / count;
        // Rounding may leave less than nothing.
        (count, mean, (squares - sum * sum / count).max(0.0))
    }
}

/// How many edges are at or below each value; no numbers lie below all.
pub(super) fn passed(bins: &Bins, values: &[f32; LANES]) -> [[i32; WIDTH]; LANES / WIDTH] {
    let vectors = vectors(values);
    let mut places = [i32x4::ZERO; LANES / WIDTH];
    let mut pass = |edge: f32| {
        let edge = f32x4::splat(edge);
        for (place, vector) in places.iter_mut().zip(vectors) {
            // All bits are set where it holds: that is -1.
            *place -= cast::<f32x4, i32x4>(edge.simd_le(vector));
        }
    };
    let (fours, rest) = bins.edges().as_chunks::<WIDTH>();
    // Four at a time, so that the loop is seldom asked whether it has ended.
    for four in fours {
        four.iter().for_each(|edge| pass(*edge));
    }
    rest.iter().copied().for_each(pass);
    places.map(i32x4::to_array)
}

fn vectors(values: &[f32; LANES]) -> [f32x4; LANES / WIDTH] {
    let mut vectors = [f32x4::ZERO; LANES / WIDTH];
    let (fours, _) = values.as_chunks::<WIDTH>();
    for (vector, four) in vectors.iter_mut().zip(fours) {
        *vector = f32x4::new(*four);
    }
    vectors
}

/// What was seen of some values.
pub(super) struct Counted {
    /// By number of edges at or below the value. No numbers lie below all.
    tallies: [[u64; PLACES]; TURNS],
    missing: u64,
    /// Places of blocks that were not filled; counted as no numbers.
    unfilled: u64,
    moments: Moments,
}

impl Counted {
    /// Counts a first block.
    pub(super) fn of(bins: &Bins, first: &Block) -> Self {
        let mut counted = Self {
            tallies: [[0; PLACES]; TURNS],
            missing: 0,
            unfilled: 0,
            moments: Moments::about(&first.values),
        };
        counted.take(bins, first);
        counted
    }

    /// Counts another one.
    pub(super) fn take(&mut self, bins: &Bins, block: &Block) {
        if !self.moments.take(&block.values) {
            self.missing += block.values.iter().filter(|value| value.is_nan()).count() as u64;
            self.unfilled += (LANES - block.held) as u64;
        }
        for turn in passed(bins, &block.values) {
            for (place, tally) in turn.into_iter().zip(&mut self.tallies) {
                if let Some(count) = tally.get_mut(place as usize % PLACES) {
                    *count += 1;
                }
            }
        }
    }

    /// Values at or above so many edges and no more: below all (`0`), in a bin, above all.
    pub(super) fn at(&self, edges: usize) -> u64 {
        let all: u64 = self.tallies.iter().filter_map(|tally| tally.get(edges)).sum();
        if edges == 0 { all - self.missing } else { all }
    }

    /// Values that were no number.
    pub(super) const fn missing(&self) -> u64 {
        self.missing - self.unfilled
    }

    /// How many were finite, their mean, and their squared distances from it.
    pub(super) fn moments(&self) -> (f64, f64, f64) {
        self.moments.done()
    }
}
