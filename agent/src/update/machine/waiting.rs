//! An update that waits until local conditions allow its next step: before or within fetching, and before it
//! is installed. Orders still reach it: it can be cancelled, superseded, and expires.
//!
//! What needs no bytes is not held up by what is said of fetching, and what takes a release back not by what is
//! said of installing: a rollback never waits for a window.

use std::mem::{Discriminant, discriminant};

use serin_protocol::ids::Digest;
use serin_protocol::message::{EventKind, Phase, Wait};
use serin_protocol::release::Release;

use super::{Machine, Work};
use crate::update::effect::{Effect, Effects};
use crate::update::policy::{Step, Verdict, Verdicts};

/// What was reported to be waited for: by which step of which release, and for what kind of thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    statement: Digest,
    step: Step,
    why: Discriminant<Wait>,
}

impl Machine {
    /// What the unfinished update waits for, if its next step may not be taken.
    pub fn waiting(&self) -> Option<(Step, &Verdict)> {
        let verdicts = &self.state.verdicts;
        match &self.state.work {
            Work::Fetching { paused: true, .. } => Some((Step::Fetch, &verdicts.fetch)),
            Work::Staged { .. } => Some((Step::Install, &verdicts.install)),
            Work::None
            | Work::AwaitingStatement
            | Work::Fetching { paused: false, .. }
            | Work::Staging { .. }
            | Work::Warming { .. }
            | Work::Trial { .. }
            | Work::Probation { .. } => None,
        }
    }

    /// Local conditions were looked at.
    pub(super) fn decided(&mut self, verdicts: Verdicts, effects: &mut Effects) {
        self.state.verdicts = verdicts;
        self.go_on(effects);
    }

    /// An admitted release is to be fetched: now, or when it may.
    pub(super) fn fetch(
        &mut self,
        statement: Digest,
        release: Box<Release>,
        installed: bool,
        effects: &mut Effects,
    ) {
        self.state.work = Work::Fetching { release: release.clone(), started: false, paused: !installed };
        if installed {
            effects.push(Effect::Fetch(statement, release));
        } else {
            self.go_on(effects);
        }
    }

    /// Takes the step that waits if it may be taken, and pauses the one that may not go on.
    pub(super) fn go_on(&mut self, effects: &mut Effects) {
        let Some(statement) = self.state.record.attempt.as_ref().map(|attempt| attempt.target.statement)
        else {
            return;
        };
        match self.state.work.clone() {
            // What is brought costs no bytes.
            Work::Fetching { .. } if self.state.record.brought().is_some() => {}
            Work::Fetching { release, started, paused } => {
                self.go_on_fetching(statement, release, started, paused, effects);
            }
            Work::Staged { slot } => {
                let release = slot.release.clone();
                let held = self.state.verdicts.install.clone();
                match held {
                    Verdict::Wait { why, until } if !self.state.record.urgent => {
                        if self.tell(statement, Step::Install, &why) {
                            self.report(EventKind::Waiting { release, why, until }, effects);
                        }
                    }
                    Verdict::Go | Verdict::Wait { .. } => {
                        self.state.told = None;
                        self.state.work = Work::Warming { slot };
                        self.report_move(release, Phase::Staged, Phase::Warming, None, effects);
                    }
                }
            }
            Work::None
            | Work::AwaitingStatement
            | Work::Staging { .. }
            | Work::Warming { .. }
            | Work::Trial { .. }
            | Work::Probation { .. } => {}
        }
    }

    fn go_on_fetching(
        &mut self,
        statement: Digest,
        release: Box<Release>,
        started: bool,
        paused: bool,
        effects: &mut Effects,
    ) {
        let verdict = self.state.verdicts.fetch.clone();
        match &verdict {
            Verdict::Go => {
                self.state.told = None;
                if paused {
                    self.state.work = Work::Fetching { release: release.clone(), started, paused: false };
                    effects.push(Effect::Fetch(statement, release));
                }
            }
            Verdict::Wait { why, .. } => {
                if !paused {
                    self.state.work = Work::Fetching { release: release.clone(), started, paused: true };
                    effects.push(Effect::CancelFetch(statement));
                }
                if self.tell(statement, Step::Fetch, why) {
                    effects.push(Effect::PlanLater(statement, release, verdict));
                }
            }
        }
    }

    /// Whether this is news.
    fn tell(&mut self, statement: Digest, step: Step, why: &Wait) -> bool {
        let told = Some(Told { statement, step, why: discriminant(why) });
        let news = self.state.told != told;
        self.state.told = told;
        news
    }
}

#[cfg(test)]
#[path = "waiting_tests.rs"]
mod tests;
