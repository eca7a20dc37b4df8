//! Whether a plan makes sense as a whole. Every refusal names the field and says what it should be.

use serin_protocol::ids::{BasisPoints, Millis};

use super::{DriftGate, MAX_STAGES, Plan, Stage};

/// Longest span in a plan: a stage that bakes for longer has been forgotten.
const MAX_SPAN: Millis = Millis::from_secs(90 * 24 * 3600);

/// Shortest bake: looks are taken at eighths of it.
const MIN_BAKE: Millis = Millis(100);

/// A field of a plan is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct PlanError {
    /// Path of the field, as in TOML.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

fn refuse<T>(field: impl Into<String>, problem: impl Into<String>) -> Result<T, PlanError> {
    Err(PlanError { field: field.into(), problem: problem.into() })
}

impl Plan {
    /// Checks the plan as a whole; the error names the first field that is wrong.
    pub fn check(&self) -> Result<(), PlanError> {
        self.check_spans()?;
        self.check_shares()?;
        self.check_stages()?;
        self.check_gates()?;
        if self.failures.max_devices == 0 {
            return refuse("failures.max_devices", "must be at least 1: with 0 nothing could ever start");
        }
        if self.probation.max_worker_deaths == 0 {
            return refuse("probation.max_worker_deaths", "must be at least 1");
        }
        Ok(())
    }

    fn check_spans(&self) -> Result<(), PlanError> {
        let spans = [
            ("deadline", self.deadline),
            ("rollback_deadline", self.rollback_deadline),
            ("probation.duration", self.probation.duration),
        ];
        for (field, span) in spans {
            check_span(field, span, Millis(1))?;
        }
        if self.deadline <= self.probation.duration {
            return refuse(
                "deadline",
                "must be longer than probation.duration, or no device can commit in time",
            );
        }
        Ok(())
    }

    fn check_shares(&self) -> Result<(), PlanError> {
        let shares = [
            ("alpha", self.alpha),
            ("max_silent", self.max_silent),
            ("failures.max_share", self.failures.max_share),
            ("probation.max_error_rate", self.probation.max_error_rate),
            ("strategy.canary.control", self.control()),
        ];
        for (field, share) in shares {
            check_share(field, share)?;
        }
        if self.alpha.0 == 0 || self.alpha.0 > 2000 {
            return refuse("alpha", "must lie between 0.01% and 20%");
        }
        Ok(())
    }

    fn check_stages(&self) -> Result<(), PlanError> {
        let stages = self.stages();
        if stages.is_empty() || stages.len() > MAX_STAGES {
            return refuse(
                "strategy.canary.stages",
                format!("between 1 and {MAX_STAGES} stages are possible"),
            );
        }
        let mut before = BasisPoints(0);
        for (index, stage) in stages.iter().enumerate() {
            let last = index + 1 == stages.len();
            self.check_stage(&format!("strategy.canary.stages[{index}]"), stage, before, last)?;
            before = stage.share;
        }
        Ok(())
    }

    fn check_stage(&self, at: &str, stage: &Stage, before: BasisPoints, last: bool) -> Result<(), PlanError> {
        let field = |name: &str| format!("{at}.{name}");
        check_share(&field("share"), stage.share)?;
        if stage.share <= before {
            return refuse(field("share"), "must be greater than the share of the stage before");
        }
        if last && stage.share != BasisPoints::WHOLE {
            return refuse(field("share"), "the last stage must be 100%");
        }
        let room = BasisPoints::WHOLE.0.saturating_sub(self.control().0);
        if !last && stage.share.0 > room {
            return refuse(
                field("share"),
                "leaves too few devices for the control group before the last stage",
            );
        }
        check_span(&field("bake"), stage.bake, MIN_BAKE)?;
        check_span(&field("timeout"), stage.timeout, Millis(1))?;
        if stage.timeout < self.deadline.plus(stage.bake) {
            return refuse(
                field("timeout"),
                "must be at least deadline + bake, or a slow device ends the stage",
            );
        }
        if stage.min_requests == 0 && !last {
            return refuse(field("min_requests"), "must be at least 1: no data is never a pass");
        }
        Ok(())
    }

    fn check_gates(&self) -> Result<(), PlanError> {
        if self.gates.count() == 0 && self.stages().len() > 1 {
            return refuse("gates", "at least one gate is needed to compare the stages with the control");
        }
        if let Some(gate) = &self.gates.error_rate {
            check_share("gates.error_rate.floor", gate.floor)?;
            check_share("gates.error_rate.hard_max", gate.hard_max)?;
            if gate.max_ratio.0 < 1000 {
                return refuse("gates.error_rate.max_ratio", "must be at least 1.0, the control's own rate");
            }
            if gate.hard_max.0 == 0 {
                return refuse(
                    "gates.error_rate.hard_max",
                    "must be above 0%, or the first error ends everything",
                );
            }
        }
        if let Some(gate) = &self.gates.latency {
            check_share("gates.latency.max_share", gate.max_share)?;
            check_span("gates.latency.floor", gate.floor, Millis(0))?;
            if gate.max_share.0 <= 500 {
                return refuse(
                    "gates.latency.max_share",
                    "must be above 5%, what the control itself has there",
                );
            }
        }
        check_drift("gates.predictions", self.gates.predictions.as_ref())?;
        check_drift("gates.confidence", self.gates.confidence.as_ref())?;
        check_drift("gates.inputs", self.gates.inputs.as_ref())
    }
}

fn check_span(field: &str, span: Millis, least: Millis) -> Result<(), PlanError> {
    if span < least {
        return refuse(field, format!("must be at least {least} ms"));
    }
    if span > MAX_SPAN { refuse(field, "must be at most 90 days") } else { Ok(()) }
}

fn check_share(field: &str, share: BasisPoints) -> Result<(), PlanError> {
    if share > BasisPoints::WHOLE { refuse(field, "must be at most 100%") } else { Ok(()) }
}

fn check_drift(field: &str, gate: Option<&DriftGate>) -> Result<(), PlanError> {
    match gate {
        Some(gate) if gate.threshold.0 == 0 => refuse(format!("{field}.threshold"), "must be above 0"),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
