//! Random numbers of the distributions that fleets are made of, from one seed.

use serin_fleet_server::stats::random::SplitMix64;

/// Gamma with mean 1 and this coefficient of variation; 1 without variation. Marsaglia and Tsang (2000).
pub(crate) fn gamma(random: &mut SplitMix64, cv: f64) -> f64 {
    if cv <= 0.0 {
        return 1.0;
    }
    let shape = 1.0 / (cv * cv);
    // Below shape 1: one more, and a power of a uniform takes it off again.
    let boost = if shape < 1.0 { random.unit().powf(1.0 / shape) } else { 1.0 };
    let d = if shape < 1.0 { shape + 1.0 } else { shape } - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = random.normal();
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && random.unit().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v * boost / shape;
        }
    }
}

/// Poisson with this mean: by products of uniforms (Knuth), above 30 by the normal distribution.
pub(crate) fn poisson(random: &mut SplitMix64, mean: f64) -> u64 {
    if mean > 30.0 {
        return (mean + mean.sqrt() * random.normal()).round().max(0.0) as u64;
    }
    let limit = (-mean).exp();
    let mut product = random.unit();
    let mut count = 0;
    while product > limit {
        count += 1;
        product *= random.unit();
    }
    count
}

/// How many of `n` succeed with probability `p`.
pub(crate) fn binomial(random: &mut SplitMix64, n: u64, p: f64) -> u64 {
    if p <= 0.0 || n == 0 {
        return 0;
    }
    let mean = n as f64 * p;
    if n > 50 && mean < 15.0 {
        return poisson(random, mean).min(n);
    }
    (0..n).filter(|_| random.unit() < p).count() as u64
}

/// Exponential waiting time with this mean.
pub(crate) fn wait(random: &mut SplitMix64, mean: f64) -> f64 {
    -mean * random.unit().ln()
}
