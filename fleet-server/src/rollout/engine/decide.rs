//! Between stages, and back: what is done about looks, failures and time.

use super::super::notation::{share, span};
use super::super::plan::{OnBreach, OnInconclusive};
use super::super::verdict::{Decision, GateVerdict, Judgement, Verdict};
use super::{
    DeviceRecord, Effect, Effects, Millis, Outcome, Rollout, SHORTEST_LOOK, StageProgress, Standing, State,
    Tally,
};
use serin_protocol::ids::{BasisPoints, UnixMillis};

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
            if self.stage.next_look.is_none() && self.fleet.tally().running > 0 {
                self.stage.next_look = Some(self.clock.plus(self.eighth_of_bake()));
            }
        }
        if self.all_returned() {
            self.finish(Outcome::RolledBack, effects);
        }
    }

    /// Asks for evidence when a look is due.
    pub(super) fn look(&mut self, effects: &mut Effects) {
        let due = self.stage.next_look.is_some_and(|due| due <= self.clock);
        if let Some(wanted) = self.evidence_wanted().filter(|_| due) {
            // Asked again if no answer comes, which is not before the shell had time for one.
            self.stage.next_look = Some(self.clock.plus(self.eighth_of_bake()));
            effects.push(Effect::Gather(wanted));
        }
    }

    /// A look was judged.
    pub(super) fn judged(&mut self, judgement: Judgement, effects: &mut Effects) {
        let current = judgement.stage == self.stage.index && judgement.look == self.stage.looks;
        if !current || !self.state.is_forward() {
            return;
        }
        if let Some(why) = breaches(&judgement, OnBreach::RollBack) {
            self.roll_back(&why, Some(judgement), effects);
            return;
        }
        self.schedule_look(&judgement);
        if judgement.lacking.is_none() {
            // Only a look at sufficient evidence has spent some of the alpha.
            self.stage.looks = self.stage.looks.saturating_add(1);
        }
        if let Some(why) = breaches(&judgement, OnBreach::Hold) {
            self.hold(&why, judgement, effects);
            return;
        }
        match unshown(&judgement, self.is_last_stage()) {
            Some(missing) => self.wait(missing, judgement, effects),
            None => self.go_on(judgement, effects),
        }
    }

    /// Nothing speaks against the release; is everything there that speaks for it?
    fn go_on(&mut self, judgement: Judgement, effects: &mut Effects) {
        let missing = self.unready();
        match (&self.state, missing) {
            (State::Running | State::Holding { .. }, None) => {
                let why = format!(
                    "{} canary and {} control devices reported and every gate passed",
                    judgement.canary_devices, judgement.control_devices
                );
                self.promote(&why, Some(judgement), effects);
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

    /// Enters the next stage, or completes.
    pub(super) fn promote(&mut self, why: &str, judgement: Option<Judgement>, effects: &mut Effects) {
        let (version, stages) = (&self.release.id.version, self.plan.stages().len());
        let next = self.stage.index + 1;
        let Some(stage) = self.plan.stages().get(next) else {
            let sentence = format!("{version} is complete: {why}");
            self.record(Decision::Promote, sentence, judgement, effects);
            self.finish(Outcome::Completed, effects);
            return;
        };
        let share = share::text(stage.share);
        let sentence =
            format!("{version} enters stage {} of {stages} ({share} of the fleet): {why}", next + 1);
        self.record(Decision::Promote, sentence, judgement, effects);
        self.stage = StageProgress::entered(next, self.clock, self.plan.stages());
        self.enter(State::Running, effects);
    }

    /// Takes the release back from the whole fleet.
    pub(super) fn roll_back(&mut self, why: &str, judgement: Option<Judgement>, effects: &mut Effects) {
        let sentence = format!("{} is rolled back: {why}", self.release.id.version);
        self.record(Decision::RollBack, sentence, judgement, effects);
        let until = self.clock.plus(self.plan.rollback_deadline);
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

    /// When a stage counts as settled at the latest, whoever is still installing.
    pub(super) fn settled_by(&self) -> UnixMillis {
        self.stage.entered.plus(self.plan.deadline)
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

    fn stage_words(&self) -> String {
        format!("stage {} of {}", self.stage.index + 1, self.plan.stages().len())
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
        let Tally { failed, exposed, .. } = self.fleet.tally();
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

    /// A stage in which more than the budget's share failed is not promoted, however few devices that is. What
    /// failed in earlier stages was weighed there, perhaps by an operator.
    fn too_many_failures_for_the_stage(&self) -> Option<String> {
        let exposed = self.fleet.tally().exposed;
        let here = |record: &DeviceRecord| match record.standing {
            Standing::Failed { at, .. } => at >= self.stage.entered,
            Standing::Waiting
            | Standing::Installing { .. }
            | Standing::Running { .. }
            | Standing::Left { .. }
            | Standing::Unreachable { .. }
            | Standing::Skipped { .. }
            | Standing::Returning { .. }
            | Standing::Returned { .. }
            | Standing::NotReturned { .. } => false,
        };
        let failed = self.fleet.iter().filter(|(_, record)| here(record)).count();
        let share = BasisPoints::ratio(failed as u64, u64::from(exposed));
        (share > self.plan.failures.max_share)
            .then(|| format!("{failed} of {exposed} devices failed with it"))
    }

    fn time_out(&mut self, effects: &mut Effects) {
        let counts = matches!(self.state, State::Running | State::Holding { .. });
        if !counts || self.clock < self.stage.timeout_at {
            return;
        }
        let missing = self.stage.missing.clone().unwrap_or_else(|| "no device has run it".to_owned());
        let why = format!("the time of {} is over and nothing is shown: {missing}", self.stage_words());
        let sentence = format!("{} is inconclusive: {why}", self.release.id.version);
        self.record(Decision::Inconclusive, sentence, None, effects);
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

    /// The bake counts from when nobody of the stage is installing any more; late devices do not turn it back.
    fn note_settled(&mut self) {
        let Tally { exposed, installing, left, .. } = self.fleet.tally();
        let settled = exposed > 0 && installing == 0 && left == 0;
        if self.stage.settled_at.is_none() && (settled || self.clock >= self.settled_by()) {
            self.stage.settled_at = Some(self.clock);
        }
    }

    /// Looks come at growing intervals, and one exactly when the bake is over.
    fn schedule_look(&mut self, judgement: &Judgement) {
        let elapsed = self.clock.since(self.stage.entered);
        let growth = if judgement.lacking.is_some() { elapsed.0 / 8 } else { elapsed.0 / 2 };
        let next = self.clock.plus(Millis(growth.max(self.eighth_of_bake().0)));
        let baked = self.baked_at().filter(|baked| *baked > self.clock);
        self.stage.next_look = Some(baked.map_or(next, |baked| baked.min(next)));
    }

    fn eighth_of_bake(&self) -> Millis {
        let bake = self.stage_plan().map_or(Millis(0), |stage| stage.bake);
        Millis((bake.0 / 8).max(SHORTEST_LOOK.0))
    }

    fn baked_at(&self) -> Option<UnixMillis> {
        let bake = self.stage_plan()?.bake;
        self.stage.settled_at.map(|settled| settled.plus(bake))
    }

    /// What time and devices still lack for the next stage.
    fn unready(&self) -> Option<String> {
        let tally = self.fleet.tally();
        let Some(baked) = self.baked_at() else {
            return Some(format!("{} devices are still installing it", tally.installing + tally.left));
        };
        if tally.running == 0 {
            return Some("no device runs it".to_owned());
        }
        if let Some(words) = self.too_many_failures_for_the_stage().or_else(|| self.too_silent()) {
            return Some(words);
        }
        let left = baked.since(self.clock);
        (left.0 > 0).then(|| format!("it is watched for another {}", span::text(left)))
    }

    /// A release that breaks a device's connection shows as silence, more than the control's. A single
    /// silent device of a small stage says nothing and blocks nothing, nor does any in the last stage.
    fn too_silent(&self) -> Option<String> {
        let tally = self.fleet.tally();
        let silent = tally.silent();
        let usual = BasisPoints::ratio(u64::from(tally.waiting_offline), u64::from(tally.waiting));
        let allowed = BasisPoints(self.plan.max_silent.0.saturating_add(usual.0));
        let share = BasisPoints::ratio(u64::from(silent), u64::from(tally.exposed));
        let many = silent >= self.plan.failures.max_devices || silent.saturating_mul(2) > tally.exposed;
        (!self.is_last_stage() && many && share > allowed)
            .then(|| format!("{silent} of {} devices have fallen silent with it", tally.exposed))
    }
}

/// The sentences of all gates whose breach leads to `consequence`.
fn breaches(judgement: &Judgement, consequence: OnBreach) -> Option<String> {
    let breached = judgement
        .gates
        .iter()
        .filter(|gate| gate.verdict == GateVerdict::Breach && gate.on_breach == consequence);
    let sentences: Vec<&str> = breached.map(|gate| gate.sentence.as_str()).collect();
    (!sentences.is_empty()).then(|| sentences.join("; "))
}

/// What a look does not show that it should.
fn unshown(judgement: &Judgement, is_last: bool) -> Option<String> {
    if let Some(lacking) = &judgement.lacking {
        return Some(lacking.clone());
    }
    let insufficient = |verdict: GateVerdict| match verdict {
        GateVerdict::Insufficient | GateVerdict::Breach => true,
        GateVerdict::Pass | GateVerdict::NotCompared => false,
    };
    if let Some(gate) = judgement.gates.iter().find(|gate| insufficient(gate.verdict)) {
        return Some(format!("{}: {}", gate.name, gate.sentence));
    }
    let compared = judgement.gates.iter().any(|gate| gate.verdict == GateVerdict::Pass);
    (!is_last && !compared).then(|| "no gate could be compared".to_owned())
}
