//! Shares and means of few observations, with the interval that so few allow, at 95 % two-sided.

use statrs::distribution::{ContinuousCDF as _, StudentsT};

use super::bounds::{Counted, rate};

/// The 97.5th percentile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// A figure and where the true one may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// As it was seen.
    pub value: f64,
    /// Not likely below.
    pub low: f64,
    /// Not likely above.
    pub high: f64,
}

/// A share, and of how many independent observations it is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// The share, 0 to 1.
    pub value: f64,
    /// What it is a share of, fewer where devices differ: those of one device say the same again.
    pub worth: f64,
}

impl Share {
    /// Of events over observations on each device; none without observations.
    pub fn over(devices: &[Counted]) -> Option<Self> {
        let seen = rate(devices)?;
        let binomial = seen.rate * (1.0 - seen.rate);
        let worth = if seen.error > 0.0 { (binomial / seen.error.powi(2)).min(seen.n) } else { seen.n };
        Some(Self { value: seen.rate, worth: worth.max(1.0) })
    }

    /// The score interval (Wilson 1927): never beyond 0 and 1, and wide where there are few.
    pub fn estimate(self) -> Estimate {
        let Self { value, worth } = self;
        let square = Z * Z;
        let centre = (value + square / (2.0 * worth)) / (1.0 + square / worth);
        let spread = (value * (1.0 - value) / worth + square / (4.0 * worth * worth)).sqrt();
        let half = Z * spread / (1.0 + square / worth);
        Estimate { value, low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
    }

    /// How much larger it is than `other` (Newcombe 1998, method 10).
    pub fn minus(self, other: Self) -> Estimate {
        let (mine, theirs) = (self.estimate(), other.estimate());
        let value = self.value - other.value;
        let below = (self.value - mine.low).hypot(theirs.high - other.value);
        let above = (mine.high - self.value).hypot(other.value - theirs.low);
        Estimate { value, low: value - below, high: value + above }
    }
}

/// A mean of `n` observations, with the variance of one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// The mean.
    pub value: f64,
    /// Of a single observation.
    pub variance: f64,
    /// How many.
    pub n: f64,
}

impl Mean {
    /// From the sums of values and of their squares; none of fewer than two.
    pub fn of(n: u64, sum: f64, squares: f64) -> Option<Self> {
        let count = n as f64;
        if n < 2 || !sum.is_finite() || !squares.is_finite() {
            return None;
        }
        let value = sum / count;
        let variance = ((squares - count * value * value) / (count - 1.0)).max(0.0);
        Some(Self { value, variance, n: count })
    }

    /// Student's interval.
    pub fn estimate(self) -> Estimate {
        let half = t(self.n - 1.0) * (self.variance / self.n).sqrt();
        Estimate { value: self.value, low: self.value - half, high: self.value + half }
    }

    /// How much larger it is than `other` (Welch 1947).
    pub fn minus(self, other: Self) -> Estimate {
        let (a, b) = (self.variance / self.n, other.variance / other.n);
        let value = self.value - other.value;
        let squared = a * a / (self.n - 1.0) + b * b / (other.n - 1.0);
        let freedom = if squared > 0.0 { (a + b).powi(2) / squared } else { self.n + other.n - 2.0 };
        let half = t(freedom) * (a + b).sqrt();
        Estimate { value, low: value - half, high: value + half }
    }
}

/// The 97.5th percentile of Student's t.
fn t(freedom: f64) -> f64 {
    StudentsT::new(0.0, 1.0, freedom.max(1.0)).map_or(Z, |students| students.inverse_cdf(0.975))
}

#[cfg(test)]
#[path = "proportions_tests.rs"]
mod tests;
