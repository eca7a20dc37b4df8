//! How others would have decided on the same streams: Kayenta's judge and Flagger's thresholds. Both see arms as
//! pooled rates over time. Each is tried at several strictnesses, so that it can be compared at a rate of false
//! alarms that it does not choose by default.

use super::run::Points;
use super::world::{ERROR_RATE, Pooled};

/// Which judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Judge {
    /// Spinnaker's Kayenta, `NetflixACAJudge`: Mann-Whitney on the points of both arms, "high" when the lower end
    /// of the 98 % confidence interval of the shift lies above a quarter of the estimate; with its effect size
    /// by ratio of means, which is the strictness.
    Kayenta,
    /// Flagger's canary analysis: a check fails when the canary's rate is above a threshold, and five failed
    /// checks roll back. The strictness is the threshold as a multiple of what is usual.
    Flagger,
}

pub(crate) const STRICTNESSES: [f64; 10] = [1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0];

impl Judge {
    pub(crate) const ALL: [Self; 2] = [Self::Kayenta, Self::Flagger];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kayenta => "Kayenta, Mann-Whitney",
            Self::Flagger => "Flagger, thresholds",
        }
    }

    /// What it would be set to without knowing the fleet: Kayenta without an effect size, Flagger at half more
    /// than usual.
    pub(crate) const fn usual(self) -> usize {
        match self {
            Self::Kayenta => 0,
            Self::Flagger => 3,
        }
    }

    /// For each strictness, the number of points after which it stops the rollout, if it does.
    pub(crate) fn stops(self, stages: &[&Points]) -> [Option<usize>; STRICTNESSES.len()] {
        let mut stops = [None; STRICTNESSES.len()];
        let mut seen = 0;
        for points in stages {
            let failed = match self {
                Self::Kayenta => kayenta(points),
                Self::Flagger => flagger(points),
            };
            for (stop, at) in stops.iter_mut().zip(failed) {
                *stop = stop.or(at.map(|at| seen + at));
            }
            seen += points.len();
        }
        stops
    }
}

/// The least that Kayenta asks for: fewer points are "no data".
const LEAST_POINTS: usize = 4;

/// Points between two of its analyses.
const INTERVAL: usize = 3;

fn kayenta(points: &Points) -> [Option<usize>; STRICTNESSES.len()] {
    let mut stops = [None; STRICTNESSES.len()];
    let mut at = LEAST_POINTS;
    while at <= points.len() {
        let so_far = &points[..at];
        for pick in [errors as fn(&Pooled) -> f64, slow] {
            let arm = |which: usize| so_far.iter().map(|pair| pick(&pair[which])).collect::<Vec<f64>>();
            let (control, canary) = (arm(0), arm(1));
            if is_high(&canary, &control) {
                let ratio = mean(&canary) / mean(&control).max(1e-12);
                for (stop, strictness) in stops.iter_mut().zip(STRICTNESSES) {
                    if ratio >= strictness {
                        *stop = stop.or(Some(at));
                    }
                }
            }
        }
        at += INTERVAL;
    }
    stops
}

/// Failed checks that end a rollout; what its documentation shows.
const FAILED_CHECKS: usize = 5;

/// Slow inferences that are usual, as a share; known from before.
const USUAL_SLOW: f64 = 0.04;

fn flagger(points: &Points) -> [Option<usize>; STRICTNESSES.len()] {
    let mut stops = [None; STRICTNESSES.len()];
    for (stop, strictness) in stops.iter_mut().zip(STRICTNESSES) {
        let fails = |pair: &[Pooled; 2]| {
            errors(&pair[1]) > ERROR_RATE * strictness || slow(&pair[1]) > (USUAL_SLOW * strictness).max(0.3)
        };
        let failed = points.iter().enumerate().filter(|(_, pair)| fails(pair));
        *stop = failed.map(|(at, _)| at + 1).nth(FAILED_CHECKS - 1);
    }
    stops
}

fn errors(arm: &Pooled) -> f64 {
    arm.errors / arm.requests.max(1.0)
}

fn slow(arm: &Pooled) -> f64 {
    arm.slow / arm.requests.max(1.0)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The shift by Hodges and Lehmann, and the lower end of its 98 % interval by the normal approximation.
fn is_high(canary: &[f64], control: &[f64]) -> bool {
    let mut shifts: Vec<f64> =
        canary.iter().flat_map(|mine| control.iter().map(move |theirs| mine - theirs)).collect();
    shifts.sort_by(f64::total_cmp);
    let (n, m) = (canary.len() as f64, control.len() as f64);
    let half = n * m / 2.0;
    let spread = (n * m * (n + m + 1.0) / 12.0).sqrt();
    // 2.326: 1 % on each side.
    let lower = half - 2.326 * spread;
    if lower < 0.0 {
        return false;
    }
    let estimate = shifts[shifts.len() / 2];
    shifts[lower as usize] > 0.25 * estimate.abs()
}
