//! How large a share an arm deserves: batched Thompson sampling on device-level posteriors.

use super::random::SplitMix64;

/// Draws per decision: a share is then known to about 1 %.
const DRAWS: u32 = 4000;

/// The reward of an arm: mean over its devices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reward {
    /// Mean.
    pub mean: f64,
    /// Variance between devices.
    pub variance: f64,
    /// Devices.
    pub devices: usize,
}

impl Reward {
    /// Of one value per device; `None` with fewer than two: nothing is then known of how they differ.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.len() < 2 || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
        Some(Self { mean, variance, devices: values.len() })
    }

    fn draw(self, random: &mut SplitMix64) -> f64 {
        self.mean + random.normal() * (self.variance / self.devices as f64).sqrt()
    }
}

/// The probability that `a` is the better arm: how often a draw of its posterior mean is the larger. Ties count
/// half.
pub fn probability_better(a: Reward, b: Reward, seed: u64) -> f64 {
    let mut random = SplitMix64::new(seed);
    let mut wins = 0.0;
    for _ in 0..DRAWS {
        let (mine, theirs) = (a.draw(&mut random), b.draw(&mut random));
        wins += match mine.total_cmp(&theirs) {
            core::cmp::Ordering::Greater => 1.0,
            core::cmp::Ordering::Equal => 0.5,
            core::cmp::Ordering::Less => 0.0,
        };
    }
    wins / f64::from(DRAWS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_better_arm_gets_more_and_equal_arms_get_half() {
        let arm = |mean| Reward { mean, variance: 1.0, devices: 100 };
        assert!(probability_better(arm(0.5), arm(0.0), 1) > 0.99);
        assert!((probability_better(arm(0.0), arm(0.0), 1) - 0.5).abs() < 0.04);
        // Φ(0.1 / √(2 / 100)) = 0.760
        assert!((probability_better(arm(0.1), arm(0.0), 1) - 0.760).abs() < 0.03);
        let still = Reward { mean: 1.0, variance: 0.0, devices: 3 };
        assert!((probability_better(still, still, 1) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn one_device_is_no_posterior() {
        assert_eq!(Reward::of(&[1.0]), None);
        assert_eq!(Reward::of(&[1.0, f64::NAN]), None);
        assert_eq!(Reward::of(&[1.0, 3.0]), Some(Reward { mean: 2.0, variance: 2.0, devices: 2 }));
    }
}
