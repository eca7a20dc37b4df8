//! Gates: what the evidence of one look says about the canary, beside devices that ran the baseline in
//! the same hours. The device is the unit; an effect must be large enough to matter *and* be more than
//! chance. Missing data is never a pass.
//!
//! The rollout's alpha is spent over stages, gates and looks (see [`Look::alpha`]): summed over all of them for
//! ever this stays below alpha, whatever depends on what. Arms too small for any test at that level are decided
//! by hard limits only, and what is shown to be harmless all the same may be promoted; the sentence says so.

mod arms;
mod drift;
mod guards;
mod rates;
mod table;

use core::ops::Deref;

use super::evidence::{DeviceEvidence, ShadowEvidence};
use super::plan::{OnBreach, Plan, Purpose, Stage};
use super::verdict::{GateName, GateResult, GateVerdict, Judgement};
use crate::stats::evalue::LogRank;
pub(super) use guards::MIN_CRASHED;
use table::{Row, Table, Weight, seed_for, short};

/// Looks of a stage that share four fifths of its alpha equally; further ones share the last fifth.
const PLANNED_LOOKS: u32 = 5;

/// Devices per arm from which a test is worth asking for.
const TESTABLE: u32 = 20;

/// One look at the evidence of one stage.
pub(super) struct Look<'a> {
    pub(super) plan: &'a Plan,
    pub(super) stages: &'a [Stage],
    pub(super) stage: usize,
    /// Looks at sufficient evidence before this one.
    pub(super) looks: u32,
    pub(super) seed: u64,
    /// One entry per device that has the release, in random order.
    pub(super) canary: Vec<Member<'a>>,
    /// One entry per device that does not, in random order.
    pub(super) control: Vec<Member<'a>>,
    /// One entry per device that has it in the shadow.
    pub(super) shadows: Vec<&'a ShadowEvidence>,
    /// First crashes so far.
    pub(super) crashed: LogRank,
    /// Whether the stage was watched as long as its plan says.
    pub(super) baked: bool,
    /// Devices that were given the release and can be reached.
    pub(super) canary_reachable: u32,
    /// Devices that run the release.
    pub(super) canary_running: u32,
    /// Devices that were not given the release and can be reached.
    pub(super) control_reachable: u32,
    /// Devices that were not given the release.
    pub(super) control_waiting: u32,
    /// Devices that run the release in the shadow.
    pub(super) shadowing: u32,
}

/// A device's evidence, and the stratum it is compared within.
#[derive(Clone, Copy)]
pub(super) struct Member<'a> {
    pub(super) shown: &'a DeviceEvidence,
    pub(super) stratum: usize,
}

impl Deref for Member<'_> {
    type Target = DeviceEvidence;

    fn deref(&self) -> &DeviceEvidence {
        self.shown
    }
}

/// How an effect lies to the limits of its gate.
#[derive(Clone, Copy)]
struct Limits {
    /// Large enough to matter.
    matters: bool,
    /// Too large even where no test can decide.
    hard: bool,
}

impl Plan {
    /// The e-value of crashes that rolls back: the reciprocal of that gate's part of the alpha, which is spent
    /// once over the whole rollout.
    pub(super) fn crash_bar(&self) -> f64 {
        f64::from(self.gates.count().max(1)) * 10_000.0 / f64::from(self.alpha.0.max(1))
    }
}

impl Look<'_> {
    /// Judges every gate of the plan.
    pub(super) fn judge(&self) -> Judgement {
        let mut judgement = match self.plan.purpose(self.stage) {
            Purpose::Shadow(shadow) => {
                let lacking = self.lacking_shadow(shadow);
                let gates = vec![self.shadow(shadow, lacking.as_deref())];
                Judgement { gates, ..self.judgement(lacking) }
            }
            Purpose::Spread => {
                let lacking = self.lacking();
                Judgement { gates: self.guards(lacking.as_deref()), ..self.judgement(lacking) }
            }
            Purpose::Compare(ab) => {
                let lacking = self.lacking();
                let mut gates = self.guards(lacking.as_deref());
                let (metric, inconclusive) = self.metric(ab, lacking.as_deref());
                gates.push(metric);
                Judgement { inconclusive, gates, ..self.judgement(lacking) }
            }
            Purpose::Allocate(bandit) => {
                let lacking = self.lacking();
                let mut gates = self.guards(lacking.as_deref());
                let found = self.reward(bandit, lacking.as_deref());
                gates.push(found.result);
                Judgement { gates, allocation: found.share, ..self.judgement(lacking) }
            }
        };
        judgement.gates.iter_mut().for_each(round);
        judgement
    }

    fn judgement(&self, lacking: Option<String>) -> Judgement {
        Judgement {
            stage: self.stage,
            look: self.looks,
            canary_devices: reporting(&self.canary),
            canary_requests: requests(&self.canary),
            control_devices: reporting(&self.control),
            control_requests: requests(&self.control),
            small: self.small(),
            allocation: None,
            inconclusive: None,
            lacking,
            gates: Vec::new(),
        }
    }

    fn guards(&self, lacking: Option<&str>) -> Vec<GateResult> {
        let gates = &self.plan.gates;
        let mut results: Vec<GateResult> = Vec::new();
        results.extend(gates.error_rate.map(|gate| self.error_rate(gate, lacking)));
        results.extend(gates.latency.map(|gate| self.latency(gate, lacking)));
        results.extend(gates.predictions.map(|gate| self.predictions(gate, lacking)));
        results.extend(gates.confidence.map(|gate| self.confidence(gate, lacking)));
        results.extend(gates.inputs.map(|gate| self.inputs(gate, lacking)));
        results.extend(gates.crashes.then(|| self.crashes(lacking)));
        // Arms whose devices change places do not report alike.
        let steady = !matches!(self.plan.purpose(self.stage), Purpose::Allocate(_));
        results.extend((gates.reporting && steady).then(|| self.reporting(lacking)));
        results
    }

    fn lacking(&self) -> Option<String> {
        self.stage_plan().map_or_else(
            || Some("this stage does not exist".to_owned()),
            |stage| self.lacking_canary(stage).or_else(|| self.lacking_control(stage)),
        )
    }

    fn stage_plan(&self) -> Option<&Stage> {
        self.stages.get(self.stage)
    }

    /// Below the numbers that tests need the verdict says so.
    fn small(&self) -> Option<String> {
        let (canary, control) = (reporting(&self.canary), reporting(&self.control));
        let shadow = matches!(self.plan.purpose(self.stage), Purpose::Shadow(_));
        let small = !shadow && !self.is_last() && canary.min(control) < TESTABLE;
        small.then(|| {
            format!(
                "{canary} against {control} devices are few: hard limits and what is shown to be harmless \
                 decide, not tests"
            )
        })
    }

    /// The last stage leaves no control to compare with.
    fn is_last(&self) -> bool {
        self.stage + 1 >= self.stages.len()
    }

    /// The last stage that is compared with anything.
    fn is_last_compared(&self) -> bool {
        self.stage + 2 >= self.stages.len()
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

    fn whole_alpha(&self) -> f64 {
        f64::from(self.plan.alpha.0) / 10_000.0
    }

    /// What this look may spend on one gate: an equal part for each compared stage and each gate; of that four
    /// fifths over the planned looks and, as 1/2 + 1/6 + 1/12 + … = 1, the last fifth over all later ones.
    fn alpha(&self) -> f64 {
        let compared = self.stages.len().saturating_sub(1).max(1) as f64;
        let further = matches!(self.plan.purpose(self.stage), Purpose::Compare(_));
        let gates = f64::from(self.plan.gates.count().max(1) + u32::from(further));
        let part = match self.looks.checked_sub(PLANNED_LOOKS) {
            None => 0.8 / f64::from(PLANNED_LOOKS),
            Some(later) => {
                let later = f64::from(later) + 1.0;
                0.2 / (later * (later + 1.0))
            }
        };
        self.whole_alpha() / compared / gates * part
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

    /// Passes what is not large enough to matter; breaches what is and is more than chance, or is beyond a hard
    /// limit where devices are too few for any test.
    fn decide(
        &self,
        result: &mut GateResult,
        limits: Limits,
        table: &Table,
        statistic: impl Fn(&[f64], &[f64]) -> Option<f64>,
    ) {
        if !limits.matters {
            result.verdict = GateVerdict::Pass;
            return;
        }
        let shown = table.shown(self.alpha(), seed_for(self.seed, result.name), statistic);
        result.p_value = shown.p_value;
        let (verdict, hard) = match shown.weight {
            Weight::MoreThanChance => (GateVerdict::Breach, ""),
            Weight::FewMostExtreme if limits.hard => (GateVerdict::Breach, ": beyond the hard limit"),
            Weight::FewMostExtreme | Weight::Few | Weight::Chance => (GateVerdict::Insufficient, ""),
        };
        result.verdict = verdict;
        result.sentence = format!("{}; {}{hard}", result.sentence, shown.words);
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

fn reporting(arm: &[Member<'_>]) -> u32 {
    let devices = arm.iter().filter(|device| device.requests > 0).count();
    u32::try_from(devices).unwrap_or(u32::MAX)
}

fn requests(arm: &[Member<'_>]) -> u64 {
    arm.iter().fold(0, |sum, device| sum.saturating_add(device.requests))
}

fn errors(arm: &[Member<'_>]) -> u64 {
    arm.iter().fold(0, |sum, device| sum.saturating_add(device.errors.min(device.requests)))
}

/// One row per device that reported anything.
fn rows(arm: &[Member<'_>], row: impl Fn(&DeviceEvidence) -> Vec<f64>) -> Vec<Row> {
    let devices = arm.iter().filter(|device| device.requests > 0);
    devices.map(|device| Row { stratum: device.stratum, values: row(device) }).collect()
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
