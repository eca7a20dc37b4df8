//! People's words: each is carried out or refused with a reason, and refused if the rollout has changed
//! since they looked at it.

use super::super::event::{Command, MAX_WORDS, OperatorOrder, Refusal};
use super::super::verdict::Decision;
use super::{Effect, Effects, Outcome, Rollout, State};

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
            Command::RollBack { reason } => self.operator_roll_back(&said(&by, &reason), effects),
            Command::Promote { reason } => self.operator_promote(&said(&by, &reason), effects),
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
            State::RollingBack { .. } | State::Finished { outcome: Outcome::RolledBack, .. } => {
                self.not_now("roll back")
            }
        }
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

    fn not_now(&self, command: &'static str) -> Result<(), Refusal> {
        Err(Refusal::NotNow { command, state: self.state.to_string() })
    }
}

fn said(by: &str, reason: &str) -> String {
    format!("by {by}: {}", cut(reason))
}

fn cut(words: &str) -> String {
    words.chars().take(MAX_WORDS).collect()
}
