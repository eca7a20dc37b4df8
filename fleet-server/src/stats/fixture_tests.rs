//! Distances and quantiles against what numpy, scipy and `datasketches` compute from the same values:
//! `tests/fixtures/drift`, with the script that made it.

use serde::Deserialize;
use serin_protocol::sketch::{Bins, Histogram, LatencyHistogram};
use std::collections::BTreeMap;

use super::distance::{counts, jensen_shannon, kolmogorov_smirnov, psi, wasserstein};
use super::significance::chi_square;

#[derive(Deserialize)]
struct Fixture {
    distances: BTreeMap<String, Distances>,
    durations: Durations,
}

#[derive(Deserialize)]
struct Distances {
    edges: Vec<f32>,
    left: Vec<Option<f32>>,
    right: Vec<Option<f32>>,
    psi: f64,
    ks: f64,
    js: f64,
    chi_square_p: f64,
    wasserstein: f64,
}

#[derive(Deserialize)]
struct Durations {
    values: Vec<u64>,
    shares: Vec<f64>,
    exact: Vec<u64>,
    kll: Vec<f64>,
    kll_rank_error: f64,
}

fn fixture() -> Fixture {
    let text = include_str!("../../../tests/fixtures/drift/values.json");
    serde_json::from_str(text).expect("the fixture")
}

/// Recorded by several devices, whose sketches are merged.
fn merged(bins: &Bins, values: &[Option<f32>]) -> Histogram {
    let mut whole = Histogram::over_bins(bins);
    for part in values.chunks(37) {
        let mut device = Histogram::over_bins(bins);
        device.record_all(bins, part.iter().map(|value| value.unwrap_or(f32::NAN)));
        whole.merge(&device).expect("same bins");
    }
    whole
}

#[test]
fn distances_of_merged_sketches_are_those_of_the_values_in_one_place() {
    for (name, case) in fixture().distances {
        let bins = Bins::new(&case.edges).expect("edges");
        let (left, right) = (merged(&bins, &case.left), merged(&bins, &case.right));
        let (a, b) = (counts(&left), counts(&right));
        for (what, found, expected, tolerance) in [
            ("PSI", psi(&a, &b), case.psi, 1e-12),
            ("KS", kolmogorov_smirnov(&a, &b), case.ks, 1e-12),
            ("JS", jensen_shannon(&a, &b), case.js, 1e-12),
            // The oracle adds up an area on a grid.
            ("Wasserstein", wasserstein(&left, &right, bins.edges()), case.wasserstein, 1e-6),
            ("p", chi_square(&a, &b).map(|test| test.p), case.chi_square_p, 1e-9),
        ] {
            let found = found.expect("values on both sides");
            assert!((found - expected).abs() <= tolerance, "{name}: {what} {found} is not {expected}");
        }
    }
}

#[test]
fn quantiles_of_latency_keep_to_their_stated_bound() {
    let Durations { values, shares, exact, kll, kll_rank_error } = fixture().durations;
    let mut histogram = LatencyHistogram::default();
    values.iter().for_each(|value| histogram.record_micros(*value));
    for ((share, exact), kll) in shares.iter().zip(&exact).zip(&kll) {
        let found = histogram.quantile_micros(*share).expect("recorded");
        assert!(found >= *exact && found as f64 <= *exact as f64 * 1.61, "{share}: {found} for {exact}");
        // The other sketch errs in rank where this one errs in value; by its own bound it is near the same quantile.
        let below =
            values.iter().filter(|value| (**value as f64) < *kll).count() as f64 / values.len() as f64;
        assert!((below - share).abs() <= kll_rank_error + 1e-3, "{share}: {below}");
    }
}
