//! Evidence from first crashes, valid whenever it is looked at: a log-rank e-value.
//!
//! Each crash that is the first of its device compares who could have crashed: of `n` canary and `m`
//! control devices at risk it is a canary's with probability `n / (n + m)` if the release changes nothing and
//! `θn / (θn + m)` if it multiplies the hazard by `θ`. The product of the ratios of the two is, for each θ, a
//! martingale that starts at 1; so is their mean over several θ, and it exceeds `1 / α` at any time at all
//! with probability at most α (Ville 1939; Grünwald, Ly, Pérez-Ortiz, ter Schure 2020, "safe log-rank").

use serde::{Deserialize, Serialize};

/// The hazard ratios that a release is suspected of.
pub const RATIOS: [f64; 5] = [1.5, 2.0, 3.0, 5.0, 10.0];

/// Millionths of a nat, so that the state is exact as text and the same on every machine.
const SCALE: f64 = 1e6;

/// The evidence so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRank {
    /// Per hazard ratio, the logarithm of its likelihood ratio, in millionths.
    log: [i64; RATIOS.len()],
    /// First crashes on the canary.
    pub canary: u32,
    /// First crashes on the control.
    pub control: u32,
}

/// Whose device crashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crashed {
    /// One that has the release.
    Canary,
    /// One that has not.
    Control,
}

impl LogRank {
    /// Counts a first crash; `canary` and `control` devices were at risk just before, the crashed one
    /// included. Without devices at risk on both sides a crash compares nothing and only the count grows.
    pub fn crash(&mut self, who: Crashed, canary: u32, control: u32) {
        match who {
            Crashed::Canary => self.canary = self.canary.saturating_add(1),
            Crashed::Control => self.control = self.control.saturating_add(1),
        }
        if canary == 0 || control == 0 {
            return;
        }
        let (n, m) = (f64::from(canary), f64::from(control));
        for (log, ratio) in self.log.iter_mut().zip(RATIOS) {
            let likelihood = match who {
                Crashed::Canary => ratio * (n + m) / (ratio * n + m),
                Crashed::Control => (n + m) / (ratio * n + m),
            };
            // Rounded down: rounding never makes evidence.
            *log = log.saturating_add((likelihood.ln() * SCALE).floor() as i64);
        }
    }

    /// The e-value: how many times better a harmful release explains the crashes. Finite.
    pub fn value(&self) -> f64 {
        let mean = self.log.iter().map(|log| (*log as f64 / SCALE).min(600.0).exp()).sum::<f64>();
        mean / RATIOS.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::random::SplitMix64;

    #[test]
    fn nothing_has_happened_is_no_evidence() {
        assert!((LogRank::default().value() - 1.0).abs() < 1e-12);
        let mut lonely = LogRank::default();
        lonely.crash(Crashed::Canary, 5, 0);
        assert_eq!((lonely.canary, lonely.value()), (1, 1.0));
    }

    #[test]
    fn one_crash_of_equal_arms_is_what_the_formula_says() {
        let mut evidence = LogRank::default();
        evidence.crash(Crashed::Canary, 50, 50);
        // mean of 2θ / (θ + 1) over 1.5, 2, 3, 5, 10
        let expected = [1.2, 4.0 / 3.0, 1.5, 5.0 / 3.0, 20.0 / 11.0].iter().sum::<f64>() / 5.0;
        assert!((evidence.value() - expected).abs() < 1e-5);
    }

    /// Crashes among `n` and `m` devices whose hazards differ by `ratio`, until `crashes` have come or the
    /// e-value has exceeded `bar` once.
    fn alarmed(random: &mut SplitMix64, ratio: f64, bar: f64, crashes: u32) -> bool {
        let (mut n, mut m) = (50_u32, 450_u32);
        let mut evidence = LogRank::default();
        for _ in 0..crashes {
            let weight = ratio * f64::from(n);
            let canary = random.unit() < weight / (weight + f64::from(m));
            evidence.crash(if canary { Crashed::Canary } else { Crashed::Control }, n, m);
            if canary {
                n = n.saturating_sub(1);
            } else {
                m = m.saturating_sub(1);
            }
            if evidence.value() >= bar {
                return true;
            }
        }
        false
    }

    #[test]
    fn looking_after_every_crash_does_not_spend_more_than_alpha() {
        let mut random = SplitMix64::new(11);
        let alarms = (0..4000).filter(|_| alarmed(&mut random, 1.0, 20.0, 60)).count();
        // At most 5 % of 4,000 is 200.
        assert!(alarms <= 200, "{alarms}");
        let harmful = (0..400).filter(|_| alarmed(&mut random, 5.0, 20.0, 60)).count();
        assert!(harmful >= 396, "{harmful} of 400");
    }
}
