//! Bounds that show non-inferiority: how bad the canary may still be, at 95 % one-sided, the device being the
//! unit. Rates are sums over devices (a ratio estimator); their spread comes from how much devices differ.

/// Events and inferences of one device.
pub type Counted = (f64, f64);

/// What is known of one arm's rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Events over inferences.
    pub rate: f64,
    /// Its standard error.
    pub error: f64,
    /// Devices.
    pub devices: usize,
    /// Inferences.
    pub n: f64,
}

/// The rate of an arm; `None` without inferences.
pub fn rate(devices: &[Counted]) -> Option<Rate> {
    let (events, n) = devices.iter().fold((0.0, 0.0), |(events, n), (e, r)| (events + e, n + r));
    if n <= 0.0 || !n.is_finite() || !events.is_finite() {
        return None;
    }
    let rate = events / n;
    let count = devices.len() as f64;
    // Cochran (1977), 6.4: residuals of a ratio estimator. One device says nothing of how devices
    // differ: then inferences are all there is.
    let binomial = rate * (1.0 - rate).max(0.0) / n;
    let squares: f64 = devices.iter().map(|(e, r)| (e - rate * r).powi(2)).sum();
    let between = if devices.len() > 1 { squares * count / (count - 1.0) / (n * n) } else { binomial };
    Some(Rate { rate, error: between.max(binomial).sqrt(), devices: devices.len(), n })
}

/// How much larger the canary's rate may be, at 95 % one-sided: as a difference, and as a ratio where both arms
/// have events (delta method on the logarithm).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Upper {
    /// Canary minus control.
    pub difference: f64,
    /// Canary over control.
    pub ratio: Option<f64>,
}

/// The bounds for a canary beside its control.
pub fn upper(canary: Rate, control: Rate) -> Upper {
    let t = t95(canary.devices.saturating_sub(1));
    // Hanley and Lippman-Hand (1983): having seen none of n, up to 3 / n are possible.
    let unseen = if canary.rate > 0.0 { 0.0 } else { 3.0 / canary.n };
    let spread = (canary.error.powi(2) + control.error.powi(2)).sqrt();
    let difference = canary.rate - control.rate + (t * spread).max(unseen);
    let ratio = (canary.rate > 0.0 && control.rate > 0.0).then(|| {
        let relative = (canary.error / canary.rate).powi(2) + (control.error / control.rate).powi(2);
        (canary.rate / control.rate) * (t * relative.sqrt()).min(50.0).exp()
    });
    Upper { difference, ratio }
}

/// How large a single arm's rate may be, and how small, each at 95 % one-sided.
pub fn interval(arm: Rate) -> (f64, f64) {
    let t = t95(arm.devices.saturating_sub(1));
    let unseen = 3.0 / arm.n;
    let low = (arm.rate - t * arm.error).max(0.0);
    let low = if arm.rate >= 1.0 { (1.0 - unseen).max(0.0).min(low) } else { low };
    let high = arm.rate + if arm.rate > 0.0 { t * arm.error } else { unseen };
    (low, high.min(1.0))
}

/// The 95th percentile of Student's t. One device has no spread of its own: the normal distribution's, as its
/// error then comes from inferences.
pub fn t95(freedom: usize) -> f64 {
    const TABLE: [f64; 10] = [6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812];
    match freedom.checked_sub(1) {
        None => 1.645,
        // Beyond the table 1.645 + 1.6 / ν is right to a hundredth.
        Some(at) => TABLE.get(at).copied().unwrap_or(1.645 + 1.6 / freedom as f64),
    }
}

/// The Clopper-Pearson upper bound of a probability of which `events` of `n` trials were seen, at
/// `confidence` one-sided (0.95 say). 1 without trials.
pub fn clopper_pearson_upper(events: u64, n: u64, confidence: f64) -> f64 {
    if events >= n {
        return 1.0;
    }
    let (mut low, mut high) = (events as f64 / n as f64, 1.0);
    // The tail below falls as the probability grows: halve until 1e-12 is left.
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if binomial_at_most(events, n, middle) > 1.0 - confidence { low = middle } else { high = middle }
    }
    high
}

/// P(X ≤ events) for X binomial; the terms are summed in logarithms.
fn binomial_at_most(events: u64, n: u64, p: f64) -> f64 {
    let (log_p, log_q) = (p.ln(), (1.0 - p).ln());
    let mut log_choose = 0.0;
    let mut sum = 0.0;
    for k in 0..=events {
        sum += (log_choose + k as f64 * log_p + (n - k) as f64 * log_q).exp();
        log_choose += ((n - k) as f64).ln() - ((k + 1) as f64).ln();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_of_equal_devices_have_the_binomial_error() {
        let arm = vec![(2.0, 100.0); 25];
        let found = rate(&arm).expect("inferences");
        assert!((found.rate - 0.02).abs() < 1e-12);
        assert!((found.error - (0.02_f64 * 0.98 / 2500.0).sqrt()).abs() < 1e-12);
        assert_eq!(rate(&[]), None);
    }

    #[test]
    fn devices_that_differ_make_the_bound_wider() {
        let equal = rate(&[(2.0, 100.0); 20]).expect("some");
        let spread: Vec<Counted> = (0..20).map(|at| (if at % 5 == 0 { 10.0 } else { 0.0 }, 100.0)).collect();
        let spread = rate(&spread).expect("some");
        let (narrow, wide) = (upper(equal, equal), upper(spread, equal));
        assert!(wide.ratio > narrow.ratio && wide.difference > narrow.difference);
    }

    #[test]
    fn none_seen_still_allows_three_over_n() {
        let none = rate(&[(0.0, 100.0), (0.0, 100.0)]).expect("some");
        assert_eq!(upper(none, none), Upper { difference: 3.0 / 200.0, ratio: None });
    }

    #[test]
    fn clopper_pearson_agrees_with_scipy() {
        // scipy.stats.binomtest(k, n).proportion_ci(0.90, 'exact').high
        for (events, n, expected) in [(0, 100, 0.029_513_05), (3, 2000, 0.003_870_6), (10, 1000, 0.016_895_6)]
        {
            let found = clopper_pearson_upper(events, n, 0.95);
            assert!((found - expected).abs() < 2e-5, "{events}/{n}: {found}");
        }
        assert!((clopper_pearson_upper(5, 5, 0.95) - 1.0).abs() < 1e-12);
    }
}
