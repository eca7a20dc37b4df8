//! What strategies other than a canary are decided by: disagreement in the shadow, a metric that two arms are
//! compared by, a reward that shares follow.

use serin_protocol::ids::BasisPoints;

use super::super::evidence::DeviceEvidence;
use super::super::plan::{Ab, Bandit, Metric, OnBreach, OnTie, Shadow};
use super::super::verdict::{GateName, GateResult, GateVerdict};
use super::table::{Row, Table, Weight, percent, seed_for, short};
use super::{Look, Member};
use crate::stats::allocation::{Reward, probability_better};
use crate::stats::bounds;

/// Devices from which their spread says how far pairs of one device go together. Below, pairs are taken as they
/// are, and the sentence says so.
const CLUSTERS: usize = 5;

/// What a bandit's look leads to.
pub(super) struct Allocation {
    pub(super) result: GateResult,
    pub(super) share: Option<BasisPoints>,
}

impl Look<'_> {
    pub(super) fn lacking_shadow(&self, shadow: &Shadow) -> Option<String> {
        let wanted = shadow.min_devices.min(self.shadowing).max(1);
        let here = self.shadows.iter().filter(|device| device.pairs > 0).count();
        if here < usize::try_from(wanted).unwrap_or(usize::MAX) {
            return Some(format!("{here} of {wanted} devices have reported pairs of answers"));
        }
        let pairs = self.shadows.iter().fold(0_u64, |sum, device| sum.saturating_add(device.pairs));
        (pairs < shadow.min_pairs).then(|| format!("{pairs} of {} pairs of answers", shadow.min_pairs))
    }

    /// Both answered the same inputs, so that how devices differ cancels out: a few devices are enough.
    pub(super) fn shadow(&self, shadow: &Shadow, lacking: Option<&str>) -> GateResult {
        let budget = f64::from(shadow.max_disagreement.0) / 10_000.0;
        let mut result = GateResult {
            name: GateName::Shadow,
            verdict: GateVerdict::Insufficient,
            on_breach: OnBreach::RollBack,
            canary: None,
            control: None,
            threshold: budget,
            p_value: None,
            sentence: lacking.unwrap_or_default().to_owned(),
        };
        let counted: Vec<bounds::Counted> = self
            .shadows
            .iter()
            .filter(|device| device.pairs > 0)
            .map(|device| (device.disagreements.min(device.pairs) as f64, device.pairs as f64))
            .collect();
        let Some(rate) = bounds::rate(&counted).filter(|_| lacking.is_none()) else {
            return result;
        };
        let clustered = counted.len() >= CLUSTERS;
        let binomial = (rate.rate * (1.0 - rate.rate) / rate.n).sqrt();
        let rate = if clustered { rate } else { bounds::Rate { error: binomial, devices: 1, ..rate } };
        let (low, high) = bounds::interval(rate);
        result.canary = Some(rate.rate);
        let how = if clustered { "" } else { ", taking pairs as they are on so few devices" };
        result.sentence = format!(
            "in the shadow it disagreed in {} of {} pairs on {} devices, at 95 % confidence in {} to {}{how} \
             (limit {})",
            percent(rate.rate),
            rate.n,
            counted.len(),
            percent(low),
            percent(high),
            percent(budget)
        );
        result.verdict = if high <= budget {
            GateVerdict::Pass
        } else if low > budget {
            GateVerdict::Breach
        } else {
            GateVerdict::Insufficient
        };
        result
    }

    /// At the horizon and not before: which arm is better.
    pub(super) fn metric(&self, ab: &Ab, lacking: Option<&str>) -> (GateResult, Option<String>) {
        // Half of the alpha to each side.
        let alpha = self.whole_alpha() / f64::from(self.plan.gates.count() + 1) / 2.0;
        let mut result = self.blank(GateName::Metric, OnBreach::RollBack, alpha, lacking);
        if lacking.is_some() {
            return (result, None);
        }
        if !self.baked {
            "decided at its horizon".clone_into(&mut result.sentence);
            return (result, None);
        }
        let row = |device: &Member<'_>| {
            Some(Row { stratum: device.stratum, values: vec![value(ab.metric, device)?, 1.0] })
        };
        let arm = |arm: &[Member<'_>]| arm.iter().filter_map(row).collect::<Vec<_>>();
        let Some(table) = Table::new(arm(&self.canary), arm(&self.control)) else {
            "an arm has not reported it".clone_into(&mut result.sentence);
            return (result, None);
        };
        let (mine, theirs) = table.sums();
        let (Some(mine), Some(theirs)) = (mean(&mine), mean(&theirs)) else { return (result, None) };
        result.canary = Some(mine);
        result.control = Some(theirs);
        let seed = seed_for(self.seed, GateName::Metric);
        let better = |a: &[f64], b: &[f64]| Some(mean(a)? - mean(b)?);
        let up = table.shown(alpha, seed, better);
        let down = table.shown(alpha, seed.wrapping_add(1), |a, b| better(b, a));
        let name = word(ab.metric);
        let values = format!("{name}: {} with it, {} without", short(mine.abs()), short(theirs.abs()));
        let mut tie = None;
        if up.weight == Weight::MoreThanChance {
            result.verdict = GateVerdict::Pass;
            result.p_value = up.p_value;
            result.sentence = format!("{values}: it is better; {}", up.words);
        } else if down.weight == Weight::MoreThanChance {
            result.verdict = GateVerdict::Breach;
            result.p_value = down.p_value;
            result.sentence = format!("{values}: it is worse; {}", down.words);
        } else {
            result.p_value = up.p_value;
            let words = format!("{values}: neither is shown to be better; {}", up.words);
            match ab.on_tie {
                OnTie::Promote => result.verdict = GateVerdict::Pass,
                OnTie::RollBack => result.verdict = GateVerdict::Breach,
                OnTie::Operator => tie = Some(words.clone()),
            }
            result.sentence = words;
        }
        (result, tie)
    }

    /// How large a share the release deserves by now.
    pub(super) fn reward(&self, bandit: &Bandit, lacking: Option<&str>) -> Allocation {
        let win = f64::from(bandit.win.0) / 10_000.0;
        let mut result = self.blank(GateName::Reward, OnBreach::RollBack, win, lacking);
        let arm = |arm: &[Member<'_>]| {
            let values = arm.iter().filter_map(|device| value(bandit.metric, device));
            Reward::of(&values.collect::<Vec<_>>())
        };
        let (Some(mine), Some(theirs), None) = (arm(&self.canary), arm(&self.control), lacking) else {
            if lacking.is_none() {
                "an arm has fewer than two devices".clone_into(&mut result.sentence);
            }
            return Allocation { result, share: None };
        };
        let better = probability_better(mine, theirs, seed_for(self.seed, GateName::Reward));
        let floor = f64::from(bandit.floor.0) / 10_000.0;
        let share = better.clamp(floor, 1.0 - floor);
        result.canary = Some(mine.mean);
        result.control = Some(theirs.mean);
        result.p_value = Some(better);
        result.verdict = if better >= win {
            GateVerdict::Pass
        } else if better <= 1.0 - win {
            GateVerdict::Breach
        } else {
            GateVerdict::Insufficient
        };
        result.sentence = format!(
            "{}: {} with it on {} devices, {} without on {}; it is the better one with probability {}",
            word(bandit.metric),
            short(mine.mean.abs()),
            mine.devices,
            short(theirs.mean.abs()),
            theirs.devices,
            short(better)
        );
        let open = result.verdict == GateVerdict::Insufficient;
        Allocation { result, share: open.then_some(BasisPoints((share * 10_000.0).round() as u16)) }
    }
}

const fn word(metric: Metric) -> &'static str {
    match metric {
        Metric::ErrorRate => "share of failed inferences",
        Metric::Latency => "mean latency bin",
        Metric::Confidence => "mean confidence",
    }
}

fn mean(sums: &[f64]) -> Option<f64> {
    match sums {
        [sum, count] if *count > 0.0 => Some(sum / count),
        _ => None,
    }
}

/// What a device shows, turned so that more is better.
fn value(metric: Metric, device: &DeviceEvidence) -> Option<f64> {
    if device.requests == 0 {
        return None;
    }
    match metric {
        Metric::ErrorRate => Some(-(device.errors.min(device.requests) as f64) / device.requests as f64),
        Metric::Latency => {
            let counts = device.latency.counts();
            let (sum, all) = counts.iter().enumerate().fold((0.0, 0.0), |(sum, all), (bin, count)| {
                (sum + bin as f64 * *count as f64, all + *count as f64)
            });
            (all > 0.0).then(|| -sum / all)
        }
        Metric::Confidence => (device.confidence.present() > 0).then_some(device.confidence.mean),
    }
}
