//! Gates: what the evidence of one look says about the canary, beside devices that ran the baseline in
//! the same hours. The device is the unit; an effect must be large enough to matter *and* be more than
//! chance. Missing data is never a pass.
//!
//! The rollout's alpha is spent as `alpha / (stages · gates · k · (k + 1))` at the k-th look: summed over
//! all looks for ever, gates and stages this stays below alpha, whatever depends on what. Arms too small
//! for any test at that level are decided by the size of the effect, if no other division of the same
//! devices shows as much, and the sentence says so.

mod drift;
mod table;

use serin_protocol::ids::Millis;
use serin_protocol::sketch::{LATENCY_BINS, latency_edge_micros};

use super::evidence::DeviceEvidence;
use super::plan::{ErrorRateGate, LatencyGate, OnBreach, Plan, Stage};
use super::verdict::{GateName, GateResult, GateVerdict, Judgement};
use table::{Table, percent, seed_for, short};

/// Failed inferences of fewer than these say nothing, even about a hard limit.
const HARD_LIMIT_REQUESTS: u64 = 30;

/// The quantile of the control that slow inferences are counted above.
const SLOW: f64 = 0.95;

/// One look at the evidence of one stage.
pub(super) struct Look<'a> {
    pub(super) plan: &'a Plan,
    pub(super) stage: usize,
    /// Looks at sufficient evidence before this one.
    pub(super) looks: u32,
    pub(super) seed: u64,
    /// One entry per device that has the release, in random order.
    pub(super) canary: Vec<&'a DeviceEvidence>,
    /// One entry per device that does not, in random order.
    pub(super) control: Vec<&'a DeviceEvidence>,
    /// Devices that were given the release and can be reached.
    pub(super) canary_reachable: u32,
    /// Devices that run the release.
    pub(super) canary_running: u32,
    /// Devices that were not given the release and can be reached.
    pub(super) control_reachable: u32,
}

impl Look<'_> {
    /// Judges every gate of the plan.
    pub(super) fn judge(&self) -> Judgement {
        let lacking = self.plan.stages().get(self.stage).map_or_else(
            || Some("this stage does not exist".to_owned()),
            |stage| self.lacking_canary(stage).or_else(|| self.lacking_control(stage)),
        );
        let gates = &self.plan.gates;
        let mut results: Vec<GateResult> = Vec::new();
        results.extend(gates.error_rate.map(|gate| self.error_rate(gate, lacking.as_deref())));
        results.extend(gates.latency.map(|gate| self.latency(gate, lacking.as_deref())));
        results.extend(gates.predictions.map(|gate| self.predictions(gate, lacking.as_deref())));
        results.extend(gates.confidence.map(|gate| self.confidence(gate, lacking.as_deref())));
        results.extend(gates.inputs.map(|gate| self.inputs(gate, lacking.as_deref())));
        results.iter_mut().for_each(round);
        Judgement {
            stage: self.stage,
            look: self.looks,
            canary_devices: reporting(&self.canary),
            canary_requests: requests(&self.canary),
            control_devices: reporting(&self.control),
            control_requests: requests(&self.control),
            lacking,
            gates: results,
        }
    }

    /// The last stage leaves no control to compare with.
    fn is_last(&self) -> bool {
        self.stage + 1 >= self.plan.stages().len()
    }

    fn lacking_canary(&self, stage: &Stage) -> Option<String> {
        let wanted = stage.min_devices.min(self.canary_reachable).max(1);
        let (here, what) = if stage.min_requests == 0 {
            (self.canary_running, "run the release")
        } else {
            (reporting(&self.canary), "have reported")
        };
        if here < wanted {
            return Some(format!("{here} of {wanted} canary devices {what}"));
        }
        lacking_requests("canary", requests(&self.canary), stage.min_requests)
    }

    fn lacking_control(&self, stage: &Stage) -> Option<String> {
        if self.is_last() {
            return None;
        }
        let wanted = stage.min_devices.min(self.control_reachable).max(1);
        let here = reporting(&self.control);
        if here < wanted {
            return Some(format!("{here} of {wanted} control devices have reported"));
        }
        lacking_requests("control", requests(&self.control), stage.min_requests)
    }

    /// What this look may spend on one gate.
    fn alpha(&self) -> f64 {
        let compared = self.plan.stages().len().saturating_sub(1).max(1) as f64;
        let gates = f64::from(self.plan.gates.count().max(1));
        let look = f64::from(self.looks) + 1.0;
        f64::from(self.plan.alpha.0) / 10_000.0 / compared / gates / (look * (look + 1.0))
    }

    fn error_rate(&self, gate: ErrorRateGate, lacking: Option<&str>) -> GateResult {
        let limit = f64::from(gate.hard_max.0) / 10_000.0;
        let (failed, all) = (errors(&self.canary), requests(&self.canary));
        let rate = failed as f64 / all.max(1) as f64;
        let devices = reporting(&self.canary);
        let stage_devices = self.plan.stages().get(self.stage).map_or(1, |stage| stage.min_devices);
        let enough_devices = devices >= stage_devices.min(self.canary_reachable).max(1);
        let mut result = GateResult {
            name: GateName::ErrorRate,
            verdict: GateVerdict::Insufficient,
            on_breach: OnBreach::RollBack,
            canary: (all > 0).then_some(rate),
            control: None,
            threshold: limit,
            p_value: None,
            sentence: String::new(),
        };
        let measured = format!("{} of inferences failed on {devices} devices", percent(rate));
        if rate >= limit && all >= HARD_LIMIT_REQUESTS && enough_devices {
            result.verdict = GateVerdict::Breach;
            result.sentence = format!("{measured} (never more than {})", percent(limit));
        } else if let Some(lacking) = lacking {
            lacking.clone_into(&mut result.sentence);
        } else if self.is_last() {
            result.verdict = GateVerdict::NotCompared;
            result.sentence = format!("{measured}; no control is left to compare with");
        } else {
            self.compare_error_rate(gate, rate, &mut result);
        }
        result
    }

    fn compare_error_rate(&self, gate: ErrorRateGate, rate: f64, result: &mut GateResult) {
        let row = |device: &&DeviceEvidence| {
            vec![device.errors.min(device.requests) as f64, device.requests as f64]
        };
        let Some(table) = Table::new(rows(&self.canary, row), rows(&self.control, row)) else {
            "an arm has not reported".clone_into(&mut result.sentence);
            return;
        };
        let (_, control) = table.sums();
        let control = rate_of(&control).unwrap_or(0.0);
        let floor = f64::from(gate.floor.0) / 10_000.0;
        // Both must be crossed: a ratio alone is nothing near zero, a difference alone nothing near one.
        let threshold = (control * gate.max_ratio.value()).max(control + floor);
        result.control = Some(control);
        result.threshold = threshold;
        result.sentence = format!(
            "{} of inferences failed, {} on {} control devices (limit {})",
            percent(rate),
            percent(control),
            table.control_devices,
            percent(threshold)
        );
        let statistic = |canary: &[f64], control: &[f64]| Some(rate_of(canary)? - rate_of(control)?);
        self.decide(result, rate >= threshold && rate > control, &table, statistic);
    }

    fn latency(&self, gate: LatencyGate, lacking: Option<&str>) -> GateResult {
        let threshold = f64::from(gate.max_share.0) / 10_000.0;
        let mut result = self.blank(GateName::Latency, OnBreach::RollBack, threshold, lacking);
        if result.verdict == GateVerdict::NotCompared || lacking.is_some() {
            return result;
        }
        let row = |device: &&DeviceEvidence| device.latency.counts().map(|count| count as f64).to_vec();
        let Some(table) = Table::new(rows(&self.canary, row), rows(&self.control, row)) else {
            "an arm has not reported".clone_into(&mut result.sentence);
            return result;
        };
        let (canary, control) = table.sums();
        let statistic = |canary: &[f64], control: &[f64]| {
            let slow = slow_from(control, gate.floor)?;
            Some(share_from(canary, slow)? - share_from(control, slow)?)
        };
        let slow = slow_from(&control, gate.floor);
        let shares = slow.and_then(|slow| Some((share_from(&canary, slow)?, share_from(&control, slow)?)));
        let Some((canary_share, control_share)) = shares else {
            "no latency was reported".clone_into(&mut result.sentence);
            return result;
        };
        result.canary = Some(canary_share);
        result.control = Some(control_share);
        result.sentence = format!(
            "{} of inferences were slower than nearly all on {} control devices, {} there (limit {})",
            percent(canary_share),
            table.control_devices,
            percent(control_share),
            percent(threshold)
        );
        self.decide(
            &mut result,
            canary_share >= threshold && canary_share > control_share,
            &table,
            statistic,
        );
        result
    }

    /// A result without a decision yet: `Insufficient`, or `NotCompared` in the last stage.
    fn blank(
        &self,
        name: GateName,
        on_breach: OnBreach,
        threshold: f64,
        lacking: Option<&str>,
    ) -> GateResult {
        let (verdict, sentence) = match lacking {
            Some(lacking) => (GateVerdict::Insufficient, lacking.to_owned()),
            None if self.is_last() => {
                (GateVerdict::NotCompared, "no control is left to compare with".to_owned())
            }
            None => (GateVerdict::Insufficient, String::new()),
        };
        GateResult {
            name,
            verdict,
            on_breach,
            canary: None,
            control: None,
            threshold,
            p_value: None,
            sentence,
        }
    }

    /// Passes what is not large enough to matter; breaches what is and is more than chance.
    fn decide(
        &self,
        result: &mut GateResult,
        matters: bool,
        table: &Table,
        statistic: impl Fn(&[f64], &[f64]) -> Option<f64>,
    ) {
        if !matters {
            result.verdict = GateVerdict::Pass;
            return;
        }
        let shown = table.shown(self.alpha(), seed_for(self.seed, result.name), statistic);
        result.p_value = shown.p_value;
        result.verdict = if shown.is_more { GateVerdict::Breach } else { GateVerdict::Insufficient };
        result.sentence = format!("{}; {}", result.sentence, shown.words);
    }
}

/// Nine places are more than any decision means, and survive being written as text and read back.
fn round(result: &mut GateResult) {
    let nine = |value: f64| (value * 1e9).round() / 1e9;
    result.canary = result.canary.map(nine);
    result.control = result.control.map(nine);
    result.threshold = nine(result.threshold);
    result.p_value = result.p_value.map(nine);
}

fn lacking_requests(arm: &str, here: u64, wanted: u64) -> Option<String> {
    (here < wanted).then(|| format!("{here} of {wanted} inferences by the {arm}"))
}

fn reporting(arm: &[&DeviceEvidence]) -> u32 {
    let devices = arm.iter().filter(|device| device.requests > 0).count();
    u32::try_from(devices).unwrap_or(u32::MAX)
}

fn requests(arm: &[&DeviceEvidence]) -> u64 {
    arm.iter().fold(0, |sum, device| sum.saturating_add(device.requests))
}

fn errors(arm: &[&DeviceEvidence]) -> u64 {
    arm.iter().fold(0, |sum, device| sum.saturating_add(device.errors.min(device.requests)))
}

/// One row per device that reported anything.
fn rows(arm: &[&DeviceEvidence], row: impl Fn(&&DeviceEvidence) -> Vec<f64>) -> Vec<Vec<f64>> {
    arm.iter().filter(|device| device.requests > 0).map(row).collect()
}

fn rate_of(sums: &[f64]) -> Option<f64> {
    match sums {
        [errors, requests] if *requests > 0.0 => Some(errors / requests),
        _ => None,
    }
}

/// The first latency bin that is slow: wholly above the control's 95th percentile and above `floor`.
fn slow_from(control: &[f64], floor: Millis) -> Option<usize> {
    let total: f64 = control.iter().sum();
    if total <= 0.0 {
        return None;
    }
    let mut below = 0.0;
    let quantile = control.iter().position(|count| {
        below += count;
        below >= total * SLOW
    })?;
    let floor = floor.0.saturating_mul(1000);
    let above_floor =
        (0..LATENCY_BINS).find(|bin| latency_edge_micros(*bin).is_none_or(|edge| edge >= floor))?;
    Some(quantile.max(above_floor) + 1)
}

fn share_from(counts: &[f64], bin: usize) -> Option<f64> {
    let total: f64 = counts.iter().sum();
    (total > 0.0).then(|| counts.iter().skip(bin).sum::<f64>() / total)
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
