//! People's words: each is carried out or refused with a reason, and refused if the rollout has changed
//! since they looked at it.

use super::super::event::{Command, MAX_WORDS, OperatorOrder, Refusal};
use super::super::plan::Selector;
use super::super::verdict::{Decision, GateName};
use super::{Effect, Effects, Outcome, Rollout, StageProgress, State};

impl Rollout {
    pub(super) fn operator(&mut self, order: OperatorOrder, effects: &mut Effects) {
        let reply = effects.len();
        let done = self.check_version(&order).and_then(|()| self.obey(order, effects));
        effects.insert(reply, Effect::Reply(done.map(|()| self.version)));
    }

    fn check_version(&self, order: &OperatorOrder) -> Result<(), Refusal> {
        match order.expected {
            Some(expected) if expected != self.version => {
                Err(Refusal::Conflict { expected, actual: self.version })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn obey(&mut self, order: OperatorOrder, effects: &mut Effects) -> Result<(), Refusal> {
        let by = cut(&order.by);
        match order.command {
            Command::Pause => self.pause(by, effects),
            Command::Resume => self.resume(effects),
            Command::Abort { reason } => self.abort(&said(&by, &reason), effects),
            Command::RollBack { reason, who: Some(who), to: None, .. } => {
                self.operator_take_back(&said(&by, &reason), &who, effects)
            }
            Command::RollBack { who: Some(_), to: Some(_), .. } => {
                let words = "some devices return to what they ran before: to name a release, take back all";
                Err(Refusal::Nothing(words.to_owned()))
            }
            Command::RollBack { reason, who: None, to, at_once } => {
                self.return_to = to;
                self.return_at_once = at_once;
                self.operator_roll_back(&said(&by, &reason), effects)
            }
            Command::Promote { reason } => self.operator_promote(&said(&by, &reason), effects),
            Command::SkipGate { gate, reason } => self.skip_gate(&by, gate, &reason, effects),
            Command::Drill { devices, reason } => {
                self.begin_drill(&by, devices, &said(&by, &reason), effects)?;
                self.changed(effects);
                Ok(())
            }
            Command::Emergency { reason } => self.emergency(&by, &reason, effects),
        }
    }

    fn pause(&mut self, by: String, effects: &mut Effects) -> Result<(), Refusal> {
        match self.state {
            State::Running | State::Holding { .. } | State::AwaitingOperator { .. } => {
                self.enter(State::Paused { since: self.clock, by }, effects);
                Ok(())
            }
            State::Paused { .. } | State::RollingBack { .. } | State::Finished { .. } => {
                self.not_now("pause")
            }
        }
    }

    fn resume(&mut self, effects: &mut Effects) -> Result<(), Refusal> {
        match self.state {
            State::Paused { .. } | State::Holding { .. } | State::AwaitingOperator { .. } => {
                self.fresh_timeout();
                self.pace_anew();
                // Intervals have grown meanwhile; somebody is waiting now.
                self.stage.next_look = None;
                self.enter(State::Running, effects);
                self.readmit_all(effects);
                Ok(())
            }
            State::Running | State::RollingBack { .. } | State::Finished { .. } => self.not_now("resume"),
        }
    }

    fn abort(&mut self, why: &str, effects: &mut Effects) -> Result<(), Refusal> {
        if !self.state.is_forward() {
            return self.not_now("abort");
        }
        let sentence = format!("{} is aborted {why}", self.release.id.version);
        self.record(Decision::Abort, sentence, None, effects);
        self.cancel_all(effects);
        self.finish(Outcome::Aborted, effects);
        Ok(())
    }

    fn operator_roll_back(&mut self, why: &str, effects: &mut Effects) -> Result<(), Refusal> {
        match self.state {
            State::Running
            | State::Paused { .. }
            | State::Holding { .. }
            | State::AwaitingOperator { .. }
            | State::Finished { outcome: Outcome::Completed | Outcome::Aborted, .. } => {
                self.roll_back(why, None, effects);
                Ok(())
            }
            // Faster than the plan's rate, or to another release: who has not been told yet.
            State::RollingBack { .. } if self.return_at_once && !self.queue.is_empty() => {
                self.drain_returns(effects);
                self.changed(effects);
                Ok(())
            }
            State::RollingBack { .. } | State::Finished { outcome: Outcome::RolledBack, .. } => {
                self.not_now("roll back")
            }
        }
    }

    /// From some devices only; the rollout goes on without them.
    fn operator_take_back(
        &mut self,
        why: &str,
        who: &Selector,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let possible = self.state.is_forward()
            || matches!(self.state, State::Finished { outcome: Outcome::Completed | Outcome::Aborted, .. });
        if !possible {
            return self.not_now("take back");
        }
        let mut orders = Effects::new();
        let devices = self.take_back_some(who, &mut orders);
        if devices == 0 {
            return Err(Refusal::Nothing("no device that has the release is meant".to_owned()));
        }
        let sentence = format!("{} is taken back from {devices} devices {why}", self.release.id.version);
        self.record(Decision::TakeBack, sentence, None, effects);
        effects.extend(orders);
        self.changed(effects);
        Ok(())
    }

    fn operator_promote(&mut self, why: &str, effects: &mut Effects) -> Result<(), Refusal> {
        match self.state {
            State::Running | State::Holding { .. } | State::AwaitingOperator { .. } => {
                self.promote(why, None, effects);
                self.readmit_all(effects);
                Ok(())
            }
            State::Paused { .. } | State::RollingBack { .. } | State::Finished { .. } => {
                self.not_now("promote")
            }
        }
    }

    fn skip_gate(
        &mut self,
        by: &str,
        gate: GateName,
        reason: &str,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        if reason.trim().is_empty() {
            return Err(Refusal::NoReason("skipped gate"));
        }
        if !self.state.is_forward() {
            return self.not_now("skip a gate of");
        }
        if self.stage.skipped.contains(&gate) {
            return Err(Refusal::Nothing(format!("{gate} is set aside already")));
        }
        self.stage.skipped.push(gate);
        let sentence = format!("{gate} is not looked at in {} {}", self.stage_words(), said(by, reason));
        self.record(Decision::SkipGate, sentence, None, effects);
        // Somebody is waiting: look again at once.
        self.stage.next_look = None;
        self.changed(effects);
        Ok(())
    }

    fn emergency(&mut self, by: &str, reason: &str, effects: &mut Effects) -> Result<(), Refusal> {
        if reason.trim().is_empty() {
            return Err(Refusal::NoReason("release in an emergency"));
        }
        if !self.state.is_forward() || self.emergency {
            return self.not_now("hurry");
        }
        let version = &self.release.id.version;
        let sentence = format!("{version} goes to everybody at once {}", said(by, reason));
        self.record(Decision::Emergency, sentence, None, effects);
        self.end_shadows(effects);
        self.emergency = true;
        let last = self.stages.len().saturating_sub(1);
        if self.stage.index < last {
            self.stage = StageProgress::entered(last, self.clock, &self.stages);
        }
        self.enter(State::Running, effects);
        self.readmit_all(effects);
        Ok(())
    }

    /// The state is the same, but not what an operator looked at.
    fn changed(&mut self, effects: &mut Effects) {
        self.enter(self.state.clone(), effects);
    }

    pub(super) fn not_now(&self, command: &'static str) -> Result<(), Refusal> {
        Err(Refusal::NotNow { command, state: self.state.to_string() })
    }
}

fn said(by: &str, reason: &str) -> String {
    format!("by {by}: {}", cut(reason))
}

fn cut(words: &str) -> String {
    words.chars().take(MAX_WORDS).collect()
}
