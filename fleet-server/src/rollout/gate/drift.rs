//! The gates on distributions: what the model says, how sure it is, what it is given.

use serin_protocol::ids::Digest;
use serin_protocol::sketch::Histogram;

use super::super::evidence::{Binning, DeviceEvidence};
use super::super::plan::DriftGate;
use super::super::verdict::{GateName, GateResult, GateVerdict};
use super::{Limits, Look, Member, Table, rows, short};
use crate::stats::distance::{Moments, counts, normal_divergence, psi};

/// Numbers per feature where bins cannot be compared: values, their sum and their sum of squares,
/// both about a common centre.
const MOMENT_COLUMNS: usize = 3;

impl Look<'_> {
    pub(super) fn predictions(&self, gate: DriftGate, lacking: Option<&str>) -> GateResult {
        let pick = |device: &DeviceEvidence| device.predictions.clone();
        self.output(GateName::Predictions, "predicted classes", gate, lacking, pick, |bins| bins.predictions)
    }

    pub(super) fn confidence(&self, gate: DriftGate, lacking: Option<&str>) -> GateResult {
        let pick = |device: &DeviceEvidence| device.confidence.clone();
        self.output(GateName::Confidence, "the confidence", gate, lacking, pick, |bins| bins.confidence)
    }

    fn output(
        &self,
        name: GateName,
        what: &str,
        gate: DriftGate,
        lacking: Option<&str>,
        pick: impl Fn(&DeviceEvidence) -> Histogram,
        bins: impl Fn(&Binning) -> Digest,
    ) -> GateResult {
        let mut result = self.blank(name, gate.on_breach, gate.threshold.value(), lacking);
        if result.verdict == GateVerdict::NotCompared || lacking.is_some() {
            return result;
        }
        let declared = |arm: &[Member<'_>]| arm.iter().any(|device| !pick(device).counts.is_empty());
        if !declared(&self.canary) && !declared(&self.control) {
            result.verdict = GateVerdict::NotCompared;
            result.sentence = format!("neither release says {what}");
            return result;
        }
        let same = self.same_bins(bins);
        let row = |device: &DeviceEvidence| counts(&pick(device));
        let table = Table::new(rows(&self.canary, row), rows(&same, row));
        let Some((table, distance)) = table.and_then(|table| {
            let (canary, control) = table.sums();
            psi(&canary, &control).map(|distance| (table, distance))
        }) else {
            result.sentence =
                format!("{what} of the two releases are counted in different bins, or not at all");
            return result;
        };
        result.canary = Some(distance);
        result.sentence = moved(what, distance, &table, result.threshold);
        self.decide(&mut result, limits(gate, distance), &table, psi);
        result
    }

    /// The features compared bin by bin where the releases share them, else by their moments. The
    /// statistic is the worst feature, in each permutation anew, so that many features do not alarm sooner.
    pub(super) fn inputs(&self, gate: DriftGate, lacking: Option<&str>) -> GateResult {
        let mut result = self.blank(GateName::Inputs, gate.on_breach, gate.threshold.value(), lacking);
        if result.verdict == GateVerdict::NotCompared || lacking.is_some() {
            return result;
        }
        let watched = |arm: &[Member<'_>]| arm.iter().map(|device| device.features.len()).max().unwrap_or(0);
        let (mine, theirs) = (watched(&self.canary), watched(&self.control));
        if mine == 0 && theirs == 0 {
            result.verdict = GateVerdict::NotCompared;
            "neither release watches its inputs".clone_into(&mut result.sentence);
            return result;
        }
        if mine != theirs {
            result.sentence =
                format!("the release watches {mine} features, the control {theirs}: not comparable");
            return result;
        }
        let same = self.same_bins(|bins| bins.features);
        if same.is_empty() {
            self.inputs_by_moments(gate, &mut result);
        } else {
            self.inputs_by_bins(gate, &same, &mut result);
        }
        result
    }

    fn inputs_by_bins(&self, gate: DriftGate, control: &[Member<'_>], result: &mut GateResult) {
        let widths: Vec<usize> = self.canary.first().map_or_else(Vec::new, |device| {
            device.features.iter().map(|feature| feature.categories().count()).collect()
        });
        let row = |device: &DeviceEvidence| device.features.iter().flat_map(counts).collect();
        let Some(table) = Table::new(rows(&self.canary, row), rows(control, row)) else {
            "an arm has not reported its inputs".clone_into(&mut result.sentence);
            return;
        };
        let worst = |canary: &[f64], control: &[f64]| {
            let (mut canary, mut control) = (canary, control);
            let distances = widths.iter().filter_map(|width| {
                let (mine, rest) = canary.split_at_checked(*width)?;
                let (theirs, other_rest) = control.split_at_checked(*width)?;
                (canary, control) = (rest, other_rest);
                Some(psi(mine, theirs))
            });
            worst_of(distances)
        };
        self.decide_inputs(gate, &table, "", worst, result);
    }

    fn inputs_by_moments(&self, gate: DriftGate, result: &mut GateResult) {
        let all: Vec<Member<'_>> = self.canary.iter().chain(&self.control).copied().collect();
        let features = self.canary.first().map_or(0, |device| device.features.len());
        // Squares about zero would lose the spread of values far from it.
        let centres: Vec<f64> = (0..features).map(|feature| centre(&all, feature)).collect();
        let row = |device: &DeviceEvidence| {
            let features = device.features.iter().zip(&centres);
            features.flat_map(|(feature, centre)| moment_columns(feature, *centre)).collect()
        };
        let Some(table) = Table::new(rows(&self.canary, row), rows(&self.control, row)) else {
            "an arm has not reported its inputs".clone_into(&mut result.sentence);
            return;
        };
        let worst = |canary: &[f64], control: &[f64]| {
            let pairs = canary.chunks_exact(MOMENT_COLUMNS).zip(control.chunks_exact(MOMENT_COLUMNS));
            worst_of(pairs.map(|(mine, theirs)| normal_divergence(moments(mine)?, moments(theirs)?)))
        };
        self.decide_inputs(gate, &table, ", by mean and spread as their bins differ", worst, result);
    }

    fn decide_inputs(
        &self,
        gate: DriftGate,
        table: &Table,
        how: &str,
        worst: impl Fn(&[f64], &[f64]) -> Option<(usize, f64)>,
        result: &mut GateResult,
    ) {
        let (canary, control) = table.sums();
        let Some((feature, distance)) = worst(&canary, &control) else {
            "no feature has values in both arms".clone_into(&mut result.sentence);
            return;
        };
        result.canary = Some(distance);
        let what = format!("input feature {feature}");
        result.sentence = format!("{}{how}", moved(&what, distance, table, result.threshold));
        let statistic =
            |canary: &[f64], control: &[f64]| worst(canary, control).map(|(_, distance)| distance);
        self.decide(result, limits(gate, distance), table, statistic);
    }

    /// The controls whose bins are the canary's.
    fn same_bins(&self, bins: impl Fn(&Binning) -> Digest) -> Vec<Member<'_>> {
        let Some(mine) = self.canary.first().map(|device| bins(&device.binning)) else {
            return Vec::new();
        };
        self.control.iter().copied().filter(|device| bins(&device.binning) == mine).collect()
    }
}

fn limits(gate: DriftGate, distance: f64) -> Limits {
    Limits {
        matters: distance >= gate.threshold.value(),
        hard: gate.hard.is_some_and(|hard| distance >= hard.value()),
    }
}

fn moved(what: &str, distance: f64, table: &Table, limit: f64) -> String {
    let devices = table.control_devices;
    format!(
        "{what} moved by PSI {} against {devices} control devices (limit {})",
        short(distance),
        short(limit)
    )
}

/// The largest distance and whose it is; features without values in both arms do not count.
fn worst_of(distances: impl Iterator<Item = Option<f64>>) -> Option<(usize, f64)> {
    let known = distances.enumerate().filter_map(|(feature, distance)| Some((feature, distance?)));
    known.max_by(|(_, a), (_, b)| a.total_cmp(b))
}

fn centre(devices: &[Member<'_>], feature: usize) -> f64 {
    let sketches = devices.iter().filter_map(|device| device.features.get(feature));
    let (sum, n) = sketches.fold((0.0, 0.0), |(sum, n), sketch| {
        let present = sketch.present() as f64;
        (sum + sketch.mean * present, n + present)
    });
    if n > 0.0 { sum / n } else { 0.0 }
}

fn moment_columns(feature: &Histogram, centre: f64) -> [f64; MOMENT_COLUMNS] {
    let n = feature.present() as f64;
    let away = feature.mean - centre;
    [n, n * away, feature.m2 + n * away * away]
}

fn moments(columns: &[f64]) -> Option<Moments> {
    match columns {
        [n, sum, squares] if *n > 0.0 => {
            let mean = sum / n;
            Some(Moments { n: *n, mean, variance: (squares / n - mean * mean).max(0.0) })
        }
        _ => None,
    }
}
