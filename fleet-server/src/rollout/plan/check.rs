//! Whether a plan makes sense as a whole. Every refusal names the field and says what it should be.

use serin_protocol::ids::{BasisPoints, Millis};

use super::super::notation::size::Size;
use super::pace::Rate;
use super::selector::{MAX_TAG_BYTES, MAX_TAGS, Selector};
use super::{DriftGate, FailureBudget, MAX_STAGES, Plan, Stage, Strategy};

/// Longest span in a plan: a stage that bakes for longer has been forgotten.
const MAX_SPAN: Millis = Millis::from_secs(90 * 24 * 3600);

/// Shortest bake: looks are taken at eighths of it.
const MIN_BAKE: Millis = Millis(100);

/// Most windows: one for each day and some to spare.
const MAX_WINDOWS: usize = 16;

/// Most devices a selector names one by one; more are better told apart by a tag.
const MAX_NAMED: usize = 10_000;

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
        check_failures("failures", self.failures)?;
        check_rate("rate", self.rate)?;
        check_rate("rollback_rate", self.rollback_rate)?;
        check_selector("who", &self.who)?;
        if self.schedule.windows.len() > MAX_WINDOWS {
            return refuse("schedule.windows", format!("at most {MAX_WINDOWS} are possible"));
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
        let (at, first) = match &self.strategy {
            Strategy::Canary(_) => ("strategy.canary.stages", 0),
            Strategy::BigBang(_) => ("strategy.big_bang", 0),
            Strategy::Shadow(_) => ("strategy.shadow.stages", 1),
            Strategy::Ab(_) => ("strategy.ab", 0),
            Strategy::Bandit(bandit) => {
                if bandit.windows == 0 || bandit.windows > 1000 {
                    return refuse("strategy.bandit.windows", "between 1 and 1000 are possible");
                }
                if bandit.floor.0 == 0 || bandit.floor.0 > 5000 {
                    return refuse("strategy.bandit.floor", "must lie between 0.01% and 50%");
                }
                if bandit.win.0 <= 5000 || bandit.win > BasisPoints::WHOLE {
                    return refuse("strategy.bandit.win", "must lie above 50%");
                }
                ("strategy.bandit", 0)
            }
        };
        if stages.len() <= first || stages.len() > MAX_STAGES {
            return refuse(at, format!("between 1 and {MAX_STAGES} stages are possible"));
        }
        let mut before = None;
        for (index, stage) in stages.iter().enumerate() {
            let last = index + 1 == stages.len();
            let field = match &self.strategy {
                Strategy::Canary(_) => format!("{at}[{index}]"),
                Strategy::Shadow(_) if index > 0 => format!("{at}[{}]", index - 1),
                Strategy::Shadow(_) => "strategy.shadow".to_owned(),
                Strategy::BigBang(_) | Strategy::Ab(_) | Strategy::Bandit(_) => at.to_owned(),
            };
            self.check_stage(&field, stage, before, last)?;
            // Devices of a shadow have not got the release.
            before = (index >= first).then_some(stage.share);
        }
        Ok(())
    }

    fn check_stage(
        &self,
        at: &str,
        stage: &Stage,
        before: Option<Size>,
        last: bool,
    ) -> Result<(), PlanError> {
        let field = |name: &str| format!("{at}.{name}");
        match (stage.share, before) {
            (Size::Count(0) | Size::Share(BasisPoints(0)), _) => {
                return refuse(field("share"), "must be at least one device");
            }
            (Size::Share(share), Some(Size::Share(before))) if share <= before => {
                return refuse(field("share"), "must be greater than the share of the stage before");
            }
            (Size::Count(count), Some(Size::Count(before))) if count <= before => {
                return refuse(field("share"), "must be greater than that of the stage before");
            }
            (Size::Share(share), _) => check_share(&field("share"), share)?,
            (Size::Count(_), _) => {}
        }
        if last && stage.share != Size::WHOLE {
            return refuse(field("share"), "the last stage must be 100%");
        }
        let room = BasisPoints::WHOLE.0.saturating_sub(self.control().0);
        if !last && matches!(stage.share, Size::Share(share) if share.0 > room) {
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
        if let Some(who) = &stage.who {
            check_selector(&field("who"), who)?;
        }
        stage.failures.map_or(Ok(()), |budget| check_failures(&field("failures"), budget))
    }

    fn check_gates(&self) -> Result<(), PlanError> {
        if self.gates.compared() == 0 && self.stages().len() > 1 {
            return refuse("gates", "at least one gate is needed to compare the stages with the control");
        }
        if let Some(gate) = &self.gates.error_rate {
            check_share("gates.error_rate.floor", gate.floor)?;
            check_share("gates.error_rate.hard_max", gate.hard_max)?;
            if gate.max_ratio.0 < 1000 {
                return refuse("gates.error_rate.max_ratio", "must be at least 1.0, the control's own rate");
            }
            if gate.margin.0 <= 1000 || gate.late_margin.0 <= 1000 {
                return refuse("gates.error_rate.margin", "must be above 1.0: equality cannot be shown");
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
            check_share("gates.latency.hard_share", gate.hard_share)?;
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

fn check_failures(field: &str, budget: FailureBudget) -> Result<(), PlanError> {
    if budget.max_devices == 0 {
        let field = format!("{field}.max_devices");
        return refuse(field, "must be at least 1: with 0 nothing could ever start");
    }
    check_share(&format!("{field}.max_share"), budget.max_share)
}

fn check_rate(field: &str, rate: Option<Rate>) -> Result<(), PlanError> {
    let Some(rate) = rate else { return Ok(()) };
    if rate.per_minute == 0 || rate.max_per_minute < rate.per_minute {
        return refuse(format!("{field}.per_minute"), "must lie between 1 and max_per_minute");
    }
    if rate.growth.0 < 1000 {
        return refuse(format!("{field}.growth"), "must be at least 1.0: a rate does not shrink");
    }
    check_span(&format!("{field}.every"), rate.every, Millis(1000))
}

fn check_selector(field: &str, who: &Selector) -> Result<(), PlanError> {
    let long = |text: &String| text.len() > MAX_TAG_BYTES;
    if who.tags.len() > MAX_TAGS || who.tags.iter().any(|(name, value)| long(name) || long(value)) {
        return refuse(format!("{field}.tags"), "more or longer tags than a device can have");
    }
    if who.devices.len().max(who.except.len()) > MAX_NAMED {
        return refuse(format!("{field}.devices"), format!("at most {MAX_NAMED} can be named"));
    }
    Ok(())
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
