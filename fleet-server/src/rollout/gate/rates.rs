//! The gates on rates: failed inferences and slow ones. Critical: more than chance rolls back, and a stage is
//! promoted only once they are shown not to be worse than the margin.

use serin_protocol::ids::Millis;
use serin_protocol::sketch::{LATENCY_BINS, latency_edge_micros};

use super::super::evidence::DeviceEvidence;
use super::super::plan::{ErrorRateGate, LatencyGate, OnBreach};
use super::super::verdict::{GateName, GateResult, GateVerdict};
use super::table::{Table, percent, short};
use super::{Limits, Look, Member, errors, reporting, requests, rows};
use crate::stats::bounds;

/// Failed inferences of fewer than these say nothing, even about a hard limit.
const HARD_LIMIT_REQUESTS: u64 = 30;

/// The quantile of the control that slow inferences are counted above.
const SLOW: f64 = 0.95;

/// Share of the devices of both arms whose earlier rates must be known for them to be allowed for.
const KNOWN_BEFORE: f64 = 0.8;

impl Look<'_> {
    pub(super) fn error_rate(&self, gate: ErrorRateGate, lacking: Option<&str>) -> GateResult {
        let limit = f64::from(gate.hard_max.0) / 10_000.0;
        let (failed, all) = (errors(&self.canary), requests(&self.canary));
        let rate = failed as f64 / all.max(1) as f64;
        let devices = reporting(&self.canary);
        let stage_devices = self.stage_plan().map_or(1, |stage| stage.min_devices);
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
        // What a device always did is not the release's doing.
        let usual = rate_before(&self.canary).unwrap_or(0.0) * gate.margin.value();
        if rate >= limit && rate >= usual && all >= HARD_LIMIT_REQUESTS && enough_devices {
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
        let expected = self.expected_errors();
        let row = |device: &DeviceEvidence| {
            let errors = device.errors.min(device.requests) as f64;
            vec![errors, expected(device), device.requests as f64]
        };
        let (canary, control) = (rows(&self.canary, row), rows(&self.control, row));
        let counted = |rows: &[super::table::Row]| -> Vec<bounds::Counted> {
            let pair = |values: &[f64]| match values {
                [errors, expected, _] => Some((*errors, *expected)),
                _ => None,
            };
            rows.iter().filter_map(|row| pair(&row.values)).collect()
        };
        let (mine, theirs) = (bounds::rate(&counted(&canary)), bounds::rate(&counted(&control)));
        let Some((table, mine, theirs)) =
            Table::new(canary, control).and_then(|table| Some((table, mine?, theirs?)))
        else {
            "an arm has not reported".clone_into(&mut result.sentence);
            return;
        };
        let (_, sums) = table.sums();
        let (Some(control), Some(per_expected)) = (raw_rate(&sums), expected_rate(&sums)) else {
            "the control has not reported".clone_into(&mut result.sentence);
            return;
        };
        // What the canary would show if its devices were like the control's.
        let adjusted = control + (mine.rate - theirs.rate) * per_expected;
        let floor = f64::from(gate.floor.0) / 10_000.0;
        // Both must be crossed: a ratio alone is nothing near zero, a difference alone nothing near one.
        let threshold = (control * gate.max_ratio.value()).max(control + floor);
        result.control = Some(control);
        result.threshold = threshold;
        let allowing = if (adjusted - rate).abs() > rate * 0.1 {
            format!(" ({} allowing for what these devices failed before)", percent(adjusted.max(0.0)))
        } else {
            String::new()
        };
        result.sentence = format!(
            "{} of inferences failed{allowing}, {} on {} control devices (limit {})",
            percent(rate),
            percent(control),
            table.control_devices,
            percent(threshold)
        );
        let statistic =
            |canary: &[f64], control: &[f64]| Some(adjusted_rate(canary)? - adjusted_rate(control)?);
        let matters = adjusted >= threshold && adjusted > control;
        self.decide(result, Limits { matters, hard: false }, &table, statistic);
        if result.verdict == GateVerdict::Pass {
            let bound = bounds::upper(mine, theirs);
            let margin = if self.is_last_compared() { gate.late_margin } else { gate.margin };
            let difference = bound.difference * per_expected;
            let shown = difference < floor || bound.ratio.is_some_and(|ratio| ratio < margin.value());
            if !shown {
                result.verdict = GateVerdict::Insufficient;
                let could = bound.ratio.map_or_else(
                    || format!("{} more than there", percent(difference)),
                    |ratio| format!("{} times as many as there", short(ratio)),
                );
                result.sentence = format!(
                    "{}; at 95 % confidence it could still be {could}, and less than {} times must be shown",
                    result.sentence,
                    short(margin.value())
                );
            }
        }
    }

    /// How many failures a device would show if the release changed nothing: its own rate before the rollout,
    /// drawn towards the fleet's as far as devices do not differ more than chance makes them. Where little is
    /// known of before, the same for every inference.
    fn expected_errors(&self) -> impl Fn(&DeviceEvidence) -> f64 + use<> {
        let all = || self.canary.iter().chain(&self.control).filter(|device| device.requests > 0);
        let before = || all().filter_map(|device| device.before.filter(|before| before.requests > 0));
        let known = before().count() as f64 >= KNOWN_BEFORE * all().count() as f64;
        let (errors, requests) = before().fold((0.0, 0.0), |(errors, requests), before| {
            (errors + before.errors.min(before.requests) as f64, requests + before.requests as f64)
        });
        let mean = if requests > 0.0 { errors / requests } else { 0.0 };
        let count = before().count() as f64;
        // Method of moments for a gamma prior: the spread between devices beyond Poisson's.
        let spread = before()
            .map(|before| {
                let own = before.errors as f64 / before.requests as f64;
                (own - mean).powi(2) - mean / before.requests as f64
            })
            .sum::<f64>()
            / count.max(1.0);
        // Inferences that the fleet's rate is worth beside a device's own.
        let weight = if spread > 0.0 { mean / spread } else { f64::INFINITY };
        let usable = known && mean > 0.0;
        move |device| {
            let requests = device.requests as f64;
            if !usable {
                return requests;
            }
            let Some(before) = device.before.filter(|_| weight.is_finite()) else {
                return requests * mean;
            };
            let own = before.errors.min(before.requests) as f64;
            requests * (own + weight * mean) / (before.requests as f64 + weight)
        }
    }

    pub(super) fn latency(&self, gate: LatencyGate, lacking: Option<&str>) -> GateResult {
        let threshold = f64::from(gate.max_share.0) / 10_000.0;
        let mut result = self.blank(GateName::Latency, OnBreach::RollBack, threshold, lacking);
        if result.verdict == GateVerdict::NotCompared || lacking.is_some() {
            return result;
        }
        let row = |device: &DeviceEvidence| device.latency.counts().map(|count| count as f64).to_vec();
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
        let shares =
            slow.and_then(|slow| Some((slow, share_from(&canary, slow)?, share_from(&control, slow)?)));
        let Some((slow, canary_share, control_share)) = shares else {
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
        let limits = Limits {
            matters: canary_share >= threshold && canary_share > control_share,
            hard: canary_share >= f64::from(gate.hard_share.0) / 10_000.0,
        };
        self.decide(&mut result, limits, &table, statistic);
        if result.verdict == GateVerdict::Pass {
            let could = slow_bound(&self.canary, slow);
            if could >= threshold {
                result.verdict = GateVerdict::Insufficient;
                let words = "; at 95 % confidence it could still be";
                result.sentence = format!("{}{words} {}", result.sentence, percent(could));
            }
        }
        result
    }
}

/// What these devices failed before the rollout; `None` where nothing is known.
fn rate_before(arm: &[Member<'_>]) -> Option<f64> {
    let before = arm.iter().filter_map(|device| device.before);
    let (errors, requests) = before.fold((0_u64, 0_u64), |(errors, requests), before| {
        let failed = before.errors.min(before.requests);
        (errors.saturating_add(failed), requests.saturating_add(before.requests))
    });
    (requests > 0).then(|| errors as f64 / requests as f64)
}

/// The largest share of slow inferences that the canary may still have.
fn slow_bound(canary: &[Member<'_>], slow: usize) -> f64 {
    let counted = canary.iter().map(|device| {
        let counts = device.latency.counts().map(|count| count as f64);
        (counts.iter().skip(slow).sum(), counts.iter().sum())
    });
    let counted: Vec<bounds::Counted> = counted.collect();
    bounds::rate(&counted).map_or(1.0, |rate| bounds::interval(rate).1)
}

fn raw_rate(sums: &[f64]) -> Option<f64> {
    match sums {
        [errors, _, requests] if *requests > 0.0 => Some(errors / requests),
        _ => None,
    }
}

/// Failures per inference of a device with the expected rate of 1.
fn expected_rate(sums: &[f64]) -> Option<f64> {
    match sums {
        [_, expected, requests] if *requests > 0.0 => Some(expected / requests),
        _ => None,
    }
}

fn adjusted_rate(sums: &[f64]) -> Option<f64> {
    match sums {
        [errors, expected, _] if *expected > 0.0 => Some(errors / expected),
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
