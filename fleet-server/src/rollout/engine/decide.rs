//! Between stages, and back: what is done about looks, failures and time.

use super::super::plan::{OnBreach, OnInconclusive};
use super::super::verdict::{Decision, GateName, GateVerdict, Judgement, Verdict};
use super::{
    Arm, DeviceId, Effect, Effects, MIN_CRASHED, Outcome, Purpose, ReleaseId, Rollout, StageProgress, State,
    Tally,
};
use crate::stats::evalue::Crashed;
use serin_protocol::ids::BasisPoints;

impl Rollout {
    /// What follows from the state as it now is, after every event.
    pub(super) fn settle(&mut self, effects: &mut Effects) {
        if self.state.is_forward() {
            if let Some(why) = self.too_many_failures() {
                self.roll_back(&why, None, effects);
            } else {
                self.time_out(effects);
            }
        }
        self.spread(effects);
        if self.state.is_forward() {
            self.note_settled();
            self.note_first_look();
        }
        self.drain_returns(effects);
        if self.all_returned() {
            self.finish_rollback(effects);
        }
    }

    /// A look was judged.
    pub(super) fn judged(&mut self, judgement: Judgement, effects: &mut Effects) {
        let current = judgement.stage == self.stage.index && judgement.look == self.stage.looks;
        if !current || !self.state.is_forward() {
            return;
        }
        let skipped = self.stage.skipped.clone();
        if let Some(why) = breaches(&judgement, OnBreach::RollBack, &skipped) {
            self.roll_back(&why, Some(judgement), effects);
            return;
        }
        self.schedule_look(&judgement);
        if judgement.lacking.is_none() {
            // Only a look at sufficient evidence has spent some of the alpha.
            self.stage.looks = self.stage.looks.saturating_add(1);
        }
        if let Some(why) = breaches(&judgement, OnBreach::Hold, &skipped) {
            self.hold(&why, judgement, effects);
            return;
        }
        let undecided = judgement.inconclusive.clone();
        let undecided = self.allocate(judgement.allocation, effects).or(undecided);
        if let Some(why) = undecided {
            self.inconclusive(&why, Some(judgement), effects);
            return;
        }
        match unshown(&judgement, self.is_last_stage(), &skipped) {
            Some(missing) => self.wait(missing, judgement, effects),
            None => self.go_on(judgement, effects),
        }
    }

    /// Nothing speaks against the release; is everything there that speaks for it?
    fn go_on(&mut self, judgement: Judgement, effects: &mut Effects) {
        let missing = self.unready();
        match (&self.state, missing) {
            (State::Running | State::Holding { .. }, None) => {
                let why = self.why_promoted(&judgement);
                let next = self.stages.get(self.stage.index + 1);
                if next.is_some_and(|stage| stage.approval) {
                    self.await_approval(&why, judgement, effects);
                } else {
                    self.promote(&why, Some(judgement), effects);
                }
            }
            (State::Holding { .. }, Some(missing)) => {
                self.enter(State::Running, effects);
                self.wait(missing, judgement, effects);
            }
            (_, Some(missing)) => self.wait(missing, judgement, effects),
            (_, None) => {
                self.wait(
                    format!("every gate passed, but the rollout is {}", self.state),
                    judgement,
                    effects,
                );
            }
        }
    }

    fn why_promoted(&self, judgement: &Judgement) -> String {
        let small = judgement.small.as_ref().map(|words| format!(" ({words})")).unwrap_or_default();
        let skipped: Vec<String> = self.stage.skipped.iter().map(ToString::to_string).collect();
        let passed = if skipped.is_empty() {
            "every gate passed".to_owned()
        } else {
            format!("every gate passed but {}, which an operator set aside", skipped.join(" and "))
        };
        if matches!(self.plan.purpose(self.stage.index), Purpose::Shadow(_)) {
            return format!("in the shadow on {} devices {passed}", self.fleet.tally().shadowing);
        }
        format!(
            "{} canary and {} control devices reported and {passed}{small}",
            judgement.canary_devices, judgement.control_devices
        )
    }

    /// Everything is shown, and still only an operator's word goes on.
    fn await_approval(&mut self, why: &str, judgement: Judgement, effects: &mut Effects) {
        let next = self.stage.index + 2;
        let words = format!("stage {next} of {} wants an operator's approval: {why}", self.stages.len());
        let sentence = format!("{}: {words}", self.release.id.version);
        self.record(Decision::AwaitApproval, sentence, Some(judgement), effects);
        self.enter(State::AwaitingOperator { since: self.clock, why: words }, effects);
    }

    /// Enters the next stage, or completes.
    pub(super) fn promote(&mut self, why: &str, judgement: Option<Judgement>, effects: &mut Effects) {
        let (version, stages) = (&self.release.id.version, self.stages.len());
        let next = self.stage.index + 1;
        let Some(stage) = self.stages.get(next) else {
            let sentence = format!("{version} is complete: {why}");
            self.record(Decision::Promote, sentence, judgement, effects);
            self.finish(Outcome::Completed, effects);
            return;
        };
        let share = stage.share;
        let sentence =
            format!("{version} enters stage {} of {stages} ({share} of the fleet): {why}", next + 1);
        self.record(Decision::Promote, sentence, judgement, effects);
        self.end_shadows(effects);
        self.stage = StageProgress::entered(next, self.clock, &self.stages);
        self.forget_crashes();
        self.enter(State::Running, effects);
    }

    /// Takes the release back from the whole fleet.
    pub(super) fn roll_back(&mut self, why: &str, judgement: Option<Judgement>, effects: &mut Effects) {
        let sentence = format!("{} is rolled back: {why}", self.release.id.version);
        self.record(Decision::RollBack, sentence, judgement, effects);
        let until = self.rollback_ends();
        self.enter(State::RollingBack { since: self.clock, until, why: why.to_owned() }, effects);
        self.take_back_all(effects);
    }

    pub(super) fn finish(&mut self, outcome: Outcome, effects: &mut Effects) {
        self.enter(State::Finished { at: self.clock, outcome }, effects);
    }

    pub(super) fn fresh_timeout(&mut self) {
        if let Some(timeout) = self.stage_plan().map(|stage| stage.timeout) {
            self.stage.timeout_at = self.clock.plus(timeout);
        }
    }

    fn hold(&mut self, why: &str, judgement: Judgement, effects: &mut Effects) {
        self.stage.missing = Some(why.to_owned());
        let sentence = format!("{} is held at {}: {why}", self.release.id.version, self.stage_words());
        self.record_hold(sentence, judgement, effects);
        if self.state == State::Running {
            self.enter(State::Holding { since: self.clock, why: why.to_owned() }, effects);
        }
    }

    fn wait(&mut self, missing: String, judgement: Judgement, effects: &mut Effects) {
        let sentence = format!("{} stays at {}: {missing}", self.release.id.version, self.stage_words());
        self.stage.missing = Some(missing);
        self.record_hold(sentence, judgement, effects);
    }

    pub(super) fn stage_words(&self) -> String {
        format!("stage {} of {}", self.stage.index + 1, self.stages.len())
    }

    /// Says the same thing once.
    fn record_hold(&mut self, sentence: String, judgement: Judgement, effects: &mut Effects) {
        if self.latest.as_ref().is_none_or(|latest| latest.sentence != sentence) {
            self.record(Decision::Hold, sentence, Some(judgement), effects);
        }
    }

    pub(super) fn record(
        &mut self,
        decision: Decision,
        sentence: String,
        judgement: Option<Judgement>,
        effects: &mut Effects,
    ) {
        let verdict = Verdict { at: self.clock, stage: self.stage.index, decision, sentence, judgement };
        self.latest = Some(verdict.clone());
        effects.push(Effect::Record(verdict));
    }

    /// The hard guard over installation.
    fn too_many_failures(&self) -> Option<String> {
        let tally = self.fleet.tally();
        let (Tally { failed, .. }, exposed) = (tally, tally.reached());
        let budget = self.plan.failures;
        let share = BasisPoints::ratio(u64::from(failed), u64::from(exposed));
        let over = failed >= budget.max_devices && share >= budget.max_share;
        let all = failed > 0 && failed == exposed;
        (over || all).then(|| {
            format!(
                "{failed} of {exposed} devices rejected it, took it back themselves or were not done in time"
            )
        })
    }

    fn time_out(&mut self, effects: &mut Effects) {
        let counts = matches!(self.state, State::Running | State::Holding { .. });
        if !counts || self.clock < self.stage.timeout_at {
            return;
        }
        let missing = self.stage.missing.clone().unwrap_or_else(|| "no device has run it".to_owned());
        let why = format!("the time of {} is over and nothing is shown: {missing}", self.stage_words());
        self.inconclusive(&why, None, effects);
    }

    /// What was looked at will not decide it.
    fn inconclusive(&mut self, why: &str, judgement: Option<Judgement>, effects: &mut Effects) {
        let why = why.to_owned();
        let sentence = format!("{} is inconclusive: {why}", self.release.id.version);
        if matches!(self.state, State::Paused { .. } | State::AwaitingOperator { .. }) {
            // An operator has it already.
            if let Some(judgement) = judgement {
                self.record_hold(sentence, judgement, effects);
            }
            return;
        }
        self.record(Decision::Inconclusive, sentence, judgement, effects);
        match self.plan.on_inconclusive {
            OnInconclusive::Operator => {
                self.enter(State::AwaitingOperator { since: self.clock, why }, effects);
            }
            OnInconclusive::Hold => {
                self.fresh_timeout();
                if self.state == State::Running {
                    self.enter(State::Holding { since: self.clock, why }, effects);
                }
            }
            OnInconclusive::RollBack => self.roll_back(&why, None, effects),
        }
    }

    /// A worker died. The first time since the stage began compares its device with all that could have crashed.
    pub(super) fn device_crashed(&mut self, device: &DeviceId, release: &ReleaseId, effects: &mut Effects) {
        let Some(record) = self.fleet.get(device).filter(|record| !record.pinned && !record.crashed) else {
            return;
        };
        let changing = matches!(self.plan.purpose(self.stage.index), Purpose::Allocate(_));
        let who = match self.arm(record, release, changing) {
            Some(Arm::Canary) => Crashed::Canary,
            Some(Arm::Control) => Crashed::Control,
            None => return,
        };
        let tally = self.fleet.tally();
        let canary = tally.exposed.saturating_sub(tally.exposed_crashed);
        let control = tally.waiting.saturating_sub(tally.waiting_crashed);
        if self.state.is_forward() && !self.is_last_stage() {
            self.crashed.crash(who, canary, control);
        }
        self.fleet.update(device, |record| record.crashed = true);
        let bar = self.plan.crash_bar();
        let over = self.crashed.canary >= MIN_CRASHED && self.crashed.value() >= bar;
        let skipped = self.stage.skipped.contains(&GateName::Crashes);
        if over && !skipped && self.plan.gates.crashes && self.state.is_forward() {
            let (mine, theirs) = (self.crashed.canary, self.crashed.control);
            let why = format!(
                "workers died on {mine} devices with it and on {theirs} without, which a harmful release \
                 explains {:.0} times better than chance (limit {bar:.0})",
                self.crashed.value()
            );
            self.roll_back(&why, None, effects);
        }
    }

    /// A new stage watches all devices alike again.
    fn forget_crashes(&mut self) {
        let crashed = self.fleet.iter().filter(|(_, record)| record.crashed);
        let devices: Vec<DeviceId> = crashed.map(|(device, _)| device.clone()).collect();
        devices.iter().for_each(|device| self.fleet.update(device, |record| record.crashed = false));
    }
}

/// The sentences of all gates whose breach leads to `consequence`.
fn breaches(judgement: &Judgement, consequence: OnBreach, skipped: &[GateName]) -> Option<String> {
    let breached = judgement.gates.iter().filter(|gate| {
        let counts = gate.verdict == GateVerdict::Breach && gate.on_breach == consequence;
        counts && !skipped.contains(&gate.name)
    });
    let sentences: Vec<&str> = breached.map(|gate| gate.sentence.as_str()).collect();
    (!sentences.is_empty()).then(|| sentences.join("; "))
}

/// What a look does not show that it should.
fn unshown(judgement: &Judgement, is_last: bool, skipped: &[GateName]) -> Option<String> {
    if let Some(lacking) = &judgement.lacking {
        return Some(lacking.clone());
    }
    let insufficient = |verdict: GateVerdict| match verdict {
        GateVerdict::Insufficient | GateVerdict::Breach => true,
        GateVerdict::Pass | GateVerdict::NotCompared => false,
    };
    let mut gates = judgement.gates.iter().filter(|gate| !skipped.contains(&gate.name));
    if let Some(gate) = gates.clone().find(|gate| insufficient(gate.verdict)) {
        return Some(format!("{}: {}", gate.name, gate.sentence));
    }
    let compares = |name: GateName| !matches!(name, GateName::Crashes | GateName::Reporting);
    let compared = gates.any(|gate| gate.verdict == GateVerdict::Pass && compares(gate.name));
    (!is_last && !compared && skipped.is_empty()).then(|| "no gate could be compared".to_owned())
}
