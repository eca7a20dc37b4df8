//! All triggers of a fleet, from the look that made them to the release that answers or the day they expire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_protocol::ids::{FleetId, Millis, ModelName, ReleaseId, UnixMillis};
use serin_protocol::manifest::Lineage;

use super::rule::{Cause, TriggerId, TriggerRule};
use crate::alert::note::Numbers;
use crate::alert::{Judged, Reading, RuleName, Signal, Standing};
use crate::notify::receiver::ReceiverName;
use crate::rollout::notation::span;

/// Triggers kept, about 2 KiB each; the oldest that are over are forgotten.
pub const MAX_TRIGGERS: usize = 500;
/// How long the answer to a trigger by hand is awaited.
const BY_HAND_EXPIRES: Millis = Millis::from_secs(30 * 24 * 3600);
/// Longest word of a person.
const MAX_TEXT_BYTES: usize = 300;

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Progress {
    /// Whoever trains was called.
    Fired,
    /// They said that they are at it.
    Acknowledged {
        /// When.
        at: UnixMillis,
        /// Who.
        by: String,
    },
    /// A release came of it.
    Answered {
        /// When.
        at: UnixMillis,
        /// Which.
        release: ReleaseId,
    },
    /// None came in time.
    Expired {
        /// When.
        at: UnixMillis,
    },
}

impl Progress {
    const fn is_open(&self) -> bool {
        matches!(self, Self::Fired | Self::Acknowledged { .. })
    }
}

/// A trigger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trigger {
    /// Its name.
    pub id: TriggerId,
    /// By which rule; none by hand.
    pub rule: Option<RuleName>,
    /// In one word.
    pub cause: String,
    /// The release that runs.
    pub release: ReleaseId,
    /// Where that came from.
    pub lineage: Option<Lineage>,
    /// When.
    pub fired: UnixMillis,
    /// Until when an answer is awaited.
    pub expires: UnixMillis,
    /// In words.
    pub why: String,
    /// What was found, where something was looked at.
    pub found: Option<Judged>,
    /// The sums that rests on.
    pub numbers: Numbers,
    /// How far it is.
    pub progress: Progress,
    /// Webhooks that were called.
    pub receivers: Vec<ReceiverName>,
}

/// A model as a look sees it.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The release that most devices run.
    pub release: ReleaseId,
    /// When it was published.
    pub published: UnixMillis,
    /// Where it came from.
    pub lineage: Option<Lineage>,
    /// What it shows.
    pub reading: Reading,
}

/// An order about a trigger is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TriggerError {
    /// There is none of this name.
    #[error("there is no trigger {0}")]
    Unknown(TriggerId),
    /// It is over.
    #[error("trigger {0} is over; see `trigger list`")]
    Over(TriggerId),
    /// Another is open.
    #[error("trigger {0} of this model is open; it must be answered or expire first")]
    Open(TriggerId),
    /// Of another model.
    #[error("{release} does not answer trigger {id}, which is about {model}")]
    OtherModel {
        /// The trigger.
        id: TriggerId,
        /// The release.
        release: ReleaseId,
        /// The trigger's model.
        model: ModelName,
    },
    /// It was there before.
    #[error("{0} was published before the trigger; an answer is a later release")]
    Earlier(ReleaseId),
    /// Nobody said it, or too much was said.
    #[error("say who and why, in at most {MAX_TEXT_BYTES} bytes each")]
    Unsaid,
}

/// All triggers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TriggerBook {
    triggers: Vec<Trigger>,
    standings: Vec<(RuleName, ModelName, Standing)>,
    last: u64,
}

impl TriggerBook {
    /// All that are kept, oldest first.
    pub fn triggers(&self) -> &[Trigger] {
        &self.triggers
    }

    /// Holds what models show against the rules; the triggers that this makes, and whether anything changed.
    pub fn look(
        &mut self,
        fleet: &FleetId,
        rules: &[TriggerRule],
        subjects: &BTreeMap<ModelName, Subject>,
        now: UnixMillis,
    ) -> (Vec<Trigger>, bool) {
        let before = self.clone();
        for trigger in self.triggers.iter_mut().filter(|trigger| trigger.progress.is_open()) {
            if trigger.expires <= now {
                trigger.progress = Progress::Expired { at: now };
            }
        }
        let mut made = Vec::new();
        let mut standings = Vec::new();
        for rule in rules {
            for model in &rule.models {
                let Some(subject) = subjects.get(model) else { continue };
                let (signal, why, found) = self.judge(rule, subject, now);
                let before = self.standing(&rule.name, model);
                let standing = before.step(now, signal, rule.hold, Millis(0));
                standings.push((rule.name.clone(), model.clone(), standing));
                if standing.firing().is_some() && self.may_fire(model, rule.cooldown, now) {
                    let trigger = Trigger {
                        id: self.next_id(fleet),
                        rule: Some(rule.name.clone()),
                        cause: rule.when.as_str().to_owned(),
                        release: subject.release.clone(),
                        lineage: subject.lineage.clone(),
                        fired: now,
                        expires: now.plus(rule.expires),
                        why,
                        found,
                        numbers: Numbers::from(&subject.reading),
                        progress: Progress::Fired,
                        receivers: rule.receivers.clone(),
                    };
                    self.add(trigger.clone());
                    made.push(trigger);
                }
            }
        }
        self.standings = standings;
        let changed = *self != before;
        (made, changed)
    }

    /// Makes a trigger by hand, whatever the cool-down says.
    pub fn fire(
        &mut self,
        fleet: &FleetId,
        subject: Subject,
        why: &str,
        receivers: Vec<ReceiverName>,
        now: UnixMillis,
    ) -> Result<Trigger, TriggerError> {
        check_text(why)?;
        let model = &subject.release.model;
        if let Some(open) = self.of_model(model).find(|trigger| trigger.progress.is_open()) {
            return Err(TriggerError::Open(open.id.clone()));
        }
        let trigger = Trigger {
            id: self.next_id(fleet),
            rule: None,
            cause: "manual".to_owned(),
            numbers: Numbers::from(&subject.reading),
            release: subject.release,
            lineage: subject.lineage,
            fired: now,
            expires: now.plus(BY_HAND_EXPIRES),
            why: why.to_owned(),
            found: None,
            progress: Progress::Fired,
            receivers,
        };
        self.add(trigger.clone());
        Ok(trigger)
    }

    /// Notes that somebody is at it.
    pub fn acknowledge(&mut self, id: &TriggerId, by: &str, now: UnixMillis) -> Result<(), TriggerError> {
        check_text(by)?;
        let trigger = self.open(id)?;
        trigger.progress = Progress::Acknowledged { at: now, by: by.to_owned() };
        Ok(())
    }

    /// Notes the release, published at a time, that came of it.
    pub fn answer(
        &mut self,
        id: &TriggerId,
        release: &ReleaseId,
        published: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), TriggerError> {
        let trigger = self.open(id)?;
        if trigger.release.model != release.model {
            let (id, model) = (id.clone(), trigger.release.model.clone());
            return Err(TriggerError::OtherModel { id, release: release.clone(), model });
        }
        if published < trigger.fired {
            return Err(TriggerError::Earlier(release.clone()));
        }
        trigger.progress = Progress::Answered { at: now, release: release.clone() };
        Ok(())
    }

    fn judge(
        &self,
        rule: &TriggerRule,
        subject: &Subject,
        now: UnixMillis,
    ) -> (Signal, String, Option<Judged>) {
        let by_time = |since: UnixMillis, limit: Millis, what: &str| {
            let age = now.since(since);
            let signal = if age >= limit { Signal::Bad } else { Signal::Good };
            (signal, format!("{what} {} ago", span::text(Millis(age.0 / 1000 * 1000))), None)
        };
        match &rule.when {
            Cause::Schedule(schedule) => {
                let last = self.of_model(&subject.release.model).map(|trigger| trigger.fired).max();
                let since = last.map_or(subject.published, |last| last.max(subject.published));
                by_time(since, schedule.every, "the model was last trained, or asked to be,")
            }
            Cause::Staleness(staleness) => {
                let what = format!("{} was published", subject.release);
                by_time(subject.published, staleness.older_than, &what)
            }
            Cause::FeatureDrift(_) | Cause::PredictionDrift(_) | Cause::Quality(_) => {
                match rule.when.condition().map(|condition| condition.judge(&subject.reading)) {
                    Some(judged) => (judged.signal, judged.text.clone(), Some(judged)),
                    None => (Signal::Unknown, String::new(), None),
                }
            }
        }
    }

    fn standing(&self, rule: &RuleName, model: &ModelName) -> Standing {
        let known = self.standings.iter().find(|(name, of, _)| name == rule && of == model);
        known.map_or_else(Standing::default, |(_, _, standing)| *standing)
    }

    fn may_fire(&self, model: &ModelName, cooldown: Millis, now: UnixMillis) -> bool {
        self.of_model(model)
            .all(|trigger| !trigger.progress.is_open() && now.since(trigger.fired) >= cooldown)
    }

    fn of_model<'a>(&'a self, model: &'a ModelName) -> impl Iterator<Item = &'a Trigger> {
        self.triggers.iter().filter(move |trigger| trigger.release.model == *model)
    }

    fn open(&mut self, id: &TriggerId) -> Result<&mut Trigger, TriggerError> {
        let trigger = self.triggers.iter_mut().find(|trigger| trigger.id == *id);
        let trigger = trigger.ok_or_else(|| TriggerError::Unknown(id.clone()))?;
        if trigger.progress.is_open() { Ok(trigger) } else { Err(TriggerError::Over(id.clone())) }
    }

    fn next_id(&mut self, fleet: &FleetId) -> TriggerId {
        self.last = self.last.saturating_add(1);
        TriggerId::of(fleet, self.last)
    }

    /// Of models there are few, and one trigger each is open: something that is over can always go.
    fn add(&mut self, trigger: Trigger) {
        if self.triggers.len() >= MAX_TRIGGERS {
            let over = self.triggers.iter().position(|trigger| !trigger.progress.is_open());
            self.triggers.remove(over.unwrap_or(0));
        }
        self.triggers.push(trigger);
    }
}

fn check_text(text: &str) -> Result<(), TriggerError> {
    if (1..=MAX_TEXT_BYTES).contains(&text.trim().len()) { Ok(()) } else { Err(TriggerError::Unsaid) }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
