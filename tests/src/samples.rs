//! Times measured, and their quantiles.

use std::fmt;
use std::time::Duration;

/// Times of one kind.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    pub fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The nearest rank: a time that was measured, never one between two. Zero without any.
    pub fn quantile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }

    /// The middle of these as a multiple of the middle of `others`.
    pub fn times(&self, others: &Self) -> f64 {
        self.quantile(50).as_secs_f64() / others.quantile(50).as_secs_f64()
    }
}

/// Median and 99th percentile in milliseconds.
impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |percent| self.quantile(percent).as_secs_f64() * 1e3;
        write!(f, "{:.2} / {:.2}", millis(50), millis(99))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times_that_were_measured() {
        let mut samples = Samples::default();
        assert_eq!(samples.quantile(50), Duration::ZERO);
        (1..=120).rev().for_each(|millis| samples.push(Duration::from_millis(millis)));
        assert_eq!(samples.quantile(50), Duration::from_millis(60));
        assert_eq!(samples.quantile(99), Duration::from_millis(119));
        assert_eq!(samples.to_string(), "60.00 / 119.00");
    }
}
