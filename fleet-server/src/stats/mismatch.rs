//! Whether one arm loses devices: a sample-ratio mismatch. Who is in which arm was drawn by lot, so that as
//! large a share of each should report; where it does not, what the others report is not to be trusted.

/// Fisher's exact test, both sides: how probable it is by chance that the devices that report fall so unevenly on
/// two arms of `a` and `b` devices, of which `in_a` and `in_b` report. 1 without devices.
pub fn mismatch(a: u64, in_a: u64, b: u64, in_b: u64) -> f64 {
    let (in_a, in_b) = (in_a.min(a), in_b.min(b));
    let reporting = in_a + in_b;
    let all = a + b;
    if a == 0 || b == 0 || reporting == 0 || reporting == all {
        return 1.0;
    }
    let (least, most) = (reporting.saturating_sub(b), reporting.min(a));
    // Relative to the first term; their sum makes them probabilities.
    let mut logs = Vec::new();
    let mut log = 0.0;
    for k in least..=most {
        logs.push(log);
        let next = |value: u64| (value as f64).max(f64::MIN_POSITIVE).ln();
        log += next(a - k) + next(reporting - k) - next(k + 1) - next((b + k + 1).saturating_sub(reporting));
    }
    let highest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let observed = usize::try_from(in_a - least).ok().and_then(|at| logs.get(at)).copied().unwrap_or(highest);
    let share = |log: &f64| (log - highest).exp();
    let total: f64 = logs.iter().map(share).sum();
    let extreme: f64 = logs.iter().filter(|log| **log <= observed + 1e-7).map(share).sum();
    (extreme / total).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn agrees_with_scipy() {
        // scipy.stats.fisher_exact([[in_a, a - in_a], [in_b, b - in_b]]).pvalue
        for (a, in_a, b, in_b, expected) in
            [(10, 3, 10, 8, 0.069_778_518), (50, 30, 200, 190, 3.4e-9), (3, 2, 9, 9, 0.25)]
        {
            let found = mismatch(a, in_a, b, in_b);
            assert!((found - expected).abs() < expected * 0.5, "{found} for {expected}");
        }
        assert!((mismatch(10, 3, 10, 8) - 0.069_778_518).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn any_counts_get_a_probability(a in 0_u64..400, in_a in 0_u64..400, b in 0_u64..400, in_b in 0_u64..400) {
            let found = mismatch(a, in_a, b, in_b);
            prop_assert!((0.0..=1.0).contains(&found));
            prop_assert!((found - mismatch(b, in_b, a, in_a)).abs() < 1e-6);
        }
    }
}
