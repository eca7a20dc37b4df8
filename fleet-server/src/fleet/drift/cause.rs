//! Whether something has moved, and whether the world did it or the release: pure, from counts alone.
//!
//! Two questions, each with two hurdles. Chance: the probability that nothing moved, adjusted for all features looked
//! at. Size: a distance worth acting on, for with values enough everything differs. Against the reference it may be the
//! world that moved; then devices with another release see it move too.

use serin_protocol::sketch::Histogram;

use crate::stats::distance::{counts, psi};
use crate::stats::significance::{benjamini_hochberg, chi_square, psi_floor};

/// A PSI below this is of no practical matter: by custom 0.1 is a little, 0.25 a lot.
pub const PRACTICAL: f64 = 0.1;
/// Share of false alarms among all, as [`benjamini_hochberg`] bounds it.
pub const FALSE_ALARMS: f64 = 0.01;
/// Values below which nothing is said: with fewer, 16 bins hold a handful each.
pub const FEWEST: u64 = 100;

/// What moved a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing did, as far as can be told.
    Steady,
    /// Too few values were seen to say anything.
    TooFew,
    /// What devices see: it moved wherever it can be compared.
    World,
    /// The release: devices with another one, at the same time, see something else.
    Release,
    /// It moved, and there is nothing to tell world and release apart by.
    Unknown,
}

/// One distribution three times: as it was in the reference data, on devices with the release, on the control.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// In the reference data.
    pub reference: &'a Histogram,
    /// With the release.
    pub release: &'a Histogram,
    /// With another release, at the same time and on the same bins.
    pub control: Option<&'a Histogram>,
}

/// What is said of one distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    /// What moved it.
    pub cause: Cause,
    /// Probability of so much difference from the reference by chance, adjusted for all that were looked at together.
    pub p: Option<f64>,
    /// PSI that chance alone stays below in 99 of 100 cases, with as many values.
    pub floor: Option<f64>,
}

/// Judges distributions that are looked at together.
pub fn judge(all: &[Seen<'_>]) -> Vec<Finding> {
    let against_reference = compare(all.iter().map(|seen| enough(seen.reference, seen.release)));
    let against_control = compare(all.iter().map(|seen| enough(seen.control?, seen.release)));
    let of_control = compare(all.iter().map(|seen| enough(seen.reference, seen.control?)));
    let judged = all.iter().zip(against_reference).zip(against_control.into_iter().zip(of_control));
    judged
        .map(|((seen, reference), (between, control))| {
            let cause = match (reference, between, control) {
                (None, _, _) if seen.release.total() < FEWEST => Cause::TooFew,
                (_, Some(between), _) if between.moved => Cause::Release,
                (Some(reference), Some(_), _) if reference.moved => Cause::World,
                (Some(reference), None, _) if reference.moved => Cause::Unknown,
                (_, Some(_), Some(control)) if control.moved => Cause::World,
                (_, _, _) => Cause::Steady,
            };
            Finding {
                cause,
                p: reference.map(|reference| reference.p),
                floor: reference.and_then(|reference| reference.floor),
            }
        })
        .collect()
}

/// Two samples that are large enough to be compared.
fn enough<'a>(a: &'a Histogram, b: &'a Histogram) -> Option<(&'a Histogram, &'a Histogram)> {
    (a.total() >= FEWEST && b.total() >= FEWEST && a.counts.len() == b.counts.len()).then_some((a, b))
}

#[derive(Clone, Copy)]
struct Compared {
    moved: bool,
    p: f64,
    floor: Option<f64>,
}

fn compare<'a>(pairs: impl Iterator<Item = Option<(&'a Histogram, &'a Histogram)>>) -> Vec<Option<Compared>> {
    struct Pair {
        p: f64,
        psi: f64,
        floor: Option<f64>,
    }
    let compared: Vec<Option<Pair>> = pairs
        .map(|pair| {
            let (one, other) = pair?;
            let (left, right) = (counts(one), counts(other));
            let categories = left.iter().zip(&right).filter(|(left, right)| **left + **right > 0.0).count();
            let floor = psi_floor(one.total() as f64, other.total() as f64, categories, 0.99);
            // A constant column has nothing that could move.
            let p = chi_square(&left, &right).map_or(1.0, |test| test.p);
            Some(Pair { p, psi: psi(&left, &right)?, floor })
        })
        .collect();
    let ps: Vec<f64> = compared.iter().flatten().map(|pair| pair.p).collect();
    let mut adjusted = benjamini_hochberg(&ps).into_iter();
    compared
        .into_iter()
        .map(|pair| {
            let Pair { psi, floor, .. } = pair?;
            let p = adjusted.next().unwrap_or(1.0);
            let size = floor.unwrap_or(0.0).max(PRACTICAL);
            Some(Compared { moved: p <= FALSE_ALARMS && psi >= size, p, floor })
        })
        .collect()
}

#[cfg(test)]
#[path = "cause_tests.rs"]
mod tests;
