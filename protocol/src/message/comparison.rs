//! What a release that is tried beside the one that answers was found to do, where both computed the same inputs.

use serde::{Deserialize, Serialize};

use crate::ids::ReleaseId;
use crate::sketch::Bins;
use crate::sketch::Histogram;

/// What a release did while it made a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It answered.
    #[default]
    Answers,
    /// It computed what another answered; its own answers went to nobody.
    Shadow,
    /// It answered a share of what was asked, and another release the rest.
    Arm,
}

/// Two releases on the same inputs of one device within one window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The release that answered.
    pub with: ReleaseId,
    /// Requests that both computed.
    pub requests: u64,
    /// Their rows.
    pub rows: u64,
    /// Rows on which both agree: the same predicted class or, where none is declared, outputs that differ by no
    /// more than a thousandth.
    pub agreed: u64,
    /// Requests that only the one that answered could compute.
    pub failed: u64,
    /// Requests that were not compared, because the one before was still being computed.
    pub dropped: u64,
    /// Largest difference between the FP32 outputs of a row, on [`distance_bins`].
    pub distance: Histogram,
    /// Time of the tried release over that of the other, per request, on [`ratio_bins`].
    pub ratio: Histogram,
}

impl Comparison {
    /// With `with`, nothing compared yet.
    pub fn new(with: ReleaseId) -> Self {
        Self {
            with,
            requests: 0,
            rows: 0,
            agreed: 0,
            failed: 0,
            dropped: 0,
            distance: Histogram::over_bins(&distance_bins()),
            ratio: Histogram::over_bins(&ratio_bins()),
        }
    }

    /// Whether there is nothing to say.
    pub const fn is_empty(&self) -> bool {
        self.requests == 0 && self.failed == 0 && self.dropped == 0
    }

    /// Adds what `other` saw; with another release it adds nothing and says so.
    pub fn merge(&mut self, other: &Self) -> bool {
        let fits = self.with == other.with
            && self.distance.counts.len() == other.distance.counts.len()
            && self.ratio.counts.len() == other.ratio.counts.len();
        if fits {
            for (mine, theirs) in [
                (&mut self.requests, other.requests),
                (&mut self.rows, other.rows),
                (&mut self.agreed, other.agreed),
                (&mut self.failed, other.failed),
                (&mut self.dropped, other.dropped),
            ] {
                *mine = mine.saturating_add(theirs);
            }
            // As many bins, as was just seen.
            let _ = self.distance.merge(&other.distance);
            let _ = self.ratio.merge(&other.ratio);
        }
        fits
    }

    /// Whether the parts can have come from comparing.
    pub fn is_sane(&self) -> bool {
        self.agreed <= self.rows
            && self.distance.counts.len() == distance_bins().len()
            && self.ratio.counts.len() == ratio_bins().len()
            && self.distance.is_sane()
            && self.ratio.is_sane()
    }
}

/// Edges of distances: three to a decade, from a millionth, below which lies rounding, to a hundred.
const DISTANCE_EDGES: [f32; 25] = [
    1e-6, 2.154e-6, 4.642e-6, 1e-5, 2.154e-5, 4.642e-5, 1e-4, 2.154e-4, 4.642e-4, 1e-3, 2.154e-3, 4.642e-3,
    1e-2, 2.154e-2, 4.642e-2, 0.1, 0.2154, 0.4642, 1.0, 2.154, 4.642, 10.0, 21.54, 46.42, 100.0,
];

/// Edges of ratios of time: two to an octave, from an eighth to eightfold.
const RATIO_EDGES: [f32; 13] = [0.125, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0];

/// Bins of distances, equal for all releases.
pub fn distance_bins() -> Bins {
    // The edges rise.
    Bins::new(&DISTANCE_EDGES).unwrap_or_else(|_| Bins::unit(1))
}

/// Bins of ratios of time, equal for all releases.
pub fn ratio_bins() -> Bins {
    Bins::new(&RATIO_EDGES).unwrap_or_else(|_| Bins::unit(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sketch::Place;

    #[test]
    fn bins_are_where_they_are_said_to_be() {
        assert_eq!(distance_bins().len(), 24);
        assert_eq!(distance_bins().locate(5e-7), Place::Under);
        assert_eq!(distance_bins().locate(0.0012), Place::Bin(9));
        assert_eq!(distance_bins().locate(101.0), Place::Over);
        assert_eq!(ratio_bins().len(), 12);
        assert_eq!(ratio_bins().locate(1.01), Place::Bin(6));
        assert_eq!(ratio_bins().locate(0.99), Place::Bin(5));
    }

    #[test]
    fn only_comparisons_with_the_same_release_are_added() {
        let release = |text: &str| text.parse::<ReleaseId>().expect("id");
        let mut one = Comparison::new(release("m@1"));
        let two = Comparison { requests: 2, rows: 3, agreed: 3, ..Comparison::new(release("m@1")) };
        assert!(one.is_empty() && one.merge(&two) && one.merge(&two));
        assert_eq!((one.requests, one.rows, one.agreed), (4, 6, 6));
        assert!(!one.merge(&Comparison::new(release("m@0"))) && one.is_sane());
        assert!(!Comparison { agreed: 1, ..Comparison::new(release("m@1")) }.is_sane());
    }
}
