//! The gates that need no inferences: workers that die, and devices that do not report.

use super::super::plan::OnBreach;
use super::super::verdict::{GateName, GateResult, GateVerdict};
use super::table::{percent, short};
use super::{Look, reporting};
use crate::stats::mismatch::mismatch;

/// A mismatch that chance makes more rarely than this is not chance. Far below any alpha, as it is asked at every
/// look.
const MISMATCH: f64 = 0.001;

/// Devices that may crash whatever the evidence: fewer are the failure budget's matter.
pub(in super::super) const MIN_CRASHED: u32 = 3;

impl Look<'_> {
    /// What the first crashes of devices, counted as they happened, say by now.
    pub(super) fn crashes(&self, lacking: Option<&str>) -> GateResult {
        let bar = self.plan.crash_bar();
        let value = self.crashed.value();
        let (mine, theirs) = (self.crashed.canary, self.crashed.control);
        let verdict = if mine >= MIN_CRASHED && value >= bar {
            GateVerdict::Breach
        } else if lacking.is_some() {
            GateVerdict::Insufficient
        } else if self.is_last() {
            GateVerdict::NotCompared
        } else {
            GateVerdict::Pass
        };
        GateResult {
            name: GateName::Crashes,
            verdict,
            on_breach: OnBreach::RollBack,
            canary: Some(f64::from(mine)),
            control: Some(f64::from(theirs)),
            threshold: bar,
            p_value: Some((1.0 / value.max(1.0)).min(1.0)),
            sentence: format!(
                "workers died on {mine} devices with it and on {theirs} without; a harmful release explains \
                 that {} times better than chance (limit {})",
                short(value),
                short(bar)
            ),
        }
    }

    /// Whether as many canary as control devices report.
    pub(super) fn reporting(&self, lacking: Option<&str>) -> GateResult {
        let mut result = self.blank(GateName::Reporting, OnBreach::Hold, MISMATCH, lacking);
        if self.is_last() {
            return result;
        }
        let (running, waiting) = (self.canary_running, self.control_waiting);
        let (mine, theirs) = (reporting(&self.canary).min(running), reporting(&self.control).min(waiting));
        let share = |part: u32, whole: u32| f64::from(part) / f64::from(whole.max(1));
        let (canary, control) = (share(mine, running), share(theirs, waiting));
        result.canary = Some(canary);
        result.control = Some(control);
        result.sentence = format!(
            "{mine} of {running} canary devices report, {theirs} of {waiting} control devices ({} and {})",
            percent(canary),
            percent(control)
        );
        if !self.baked {
            result.sentence = format!("{}; asked once it was watched long enough", result.sentence);
            return result;
        }
        let numbers = [running, mine, waiting, theirs].map(u64::from);
        let [running_all, mine_all, waiting_all, theirs_all] = numbers;
        let p = mismatch(running_all, mine_all, waiting_all, theirs_all);
        result.p_value = Some(p);
        let allowed = f64::from(self.plan.max_silent.0) / 10_000.0;
        let silent = running.saturating_sub(mine);
        // One silent device of a small stage says nothing.
        let many = silent >= self.plan.failures.max_devices || silent.saturating_mul(2) > running;
        if p < MISMATCH {
            result.verdict = GateVerdict::Breach;
            let words = "that is no chance, and what the others report is not to be trusted";
            result.sentence = format!("{}: {words} (probability {})", result.sentence, short(p));
        } else if many && canary + allowed < control {
            result.sentence = format!("{}: too few to promote", result.sentence);
        } else if lacking.is_none() {
            result.verdict = GateVerdict::Pass;
        }
        result
    }
}
