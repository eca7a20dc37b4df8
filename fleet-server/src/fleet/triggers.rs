//! Triggers of training in the fleet: looking, calling webhooks, and the releases that answer.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use serin_protocol::ids::{ModelName, ReleaseId, UnixMillis};
use tracing::{info, warn};

use super::feed::Happening;
use super::readings::{add_drift, right};
use super::{Fleet, FleetError};
use crate::alert::{Condition, Reading};
use crate::notify::receiver::ReceiverName;
use crate::store::documents::read;
use crate::store::{DocumentChange, Shelf, Store, StoreError};
use crate::trigger::{Subject, Trigger, TriggerBook, TriggerId, TriggerRule, view};

const BOOK: &str = "book";

/// Triggers, with a lock of their own: looking takes a while.
pub(super) struct Triggers {
    rules: Vec<TriggerRule>,
    book: Mutex<TriggerBook>,
}

impl Triggers {
    /// Takes them up where the store has them.
    pub(super) fn open(rules: Vec<TriggerRule>, store: &dyn Store) -> Result<Self, StoreError> {
        let book = match store.document(Shelf::Triggers, BOOK)? {
            Some(bytes) => read(BOOK, &bytes)?,
            None => TriggerBook::default(),
        };
        Ok(Self { rules, book: Mutex::new(book) })
    }

    fn lock(&self) -> MutexGuard<'_, TriggerBook> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fleet {
    /// All rules.
    pub fn trigger_rules(&self) -> &[TriggerRule] {
        &self.triggers.rules
    }

    /// All triggers, oldest first.
    pub fn list_triggers(&self) -> Vec<Trigger> {
        self.triggers.lock().triggers().to_vec()
    }

    /// Holds what models show against all rules, and calls whoever trains.
    pub fn look_at_triggers(&self, now: UnixMillis) -> Result<(), FleetError> {
        let mut subjects = BTreeMap::new();
        for model in self.triggers.rules.iter().flat_map(|rule| &rule.models) {
            if !subjects.contains_key(model)
                && let Some(subject) = self.subject(model, now)?
            {
                subjects.insert(model.clone(), subject);
            }
        }
        self.change_triggers(now, |book| Ok(book.look(&self.id, &self.triggers.rules, &subjects, now)))
    }

    /// Makes a trigger by hand, for the receivers of the rules about that model.
    pub fn fire_trigger(&self, model: &ModelName, why: &str, now: UnixMillis) -> Result<(), FleetError> {
        let subject = self.subject(model, now)?;
        let subject =
            subject.ok_or_else(|| FleetError::NotFound(format!("device that runs a release of {model}")))?;
        let rules = self.triggers.rules.iter().filter(|rule| rule.models.contains(model));
        let mut receivers: Vec<ReceiverName> = rules.flat_map(|rule| rule.receivers.clone()).collect();
        receivers.sort();
        receivers.dedup();
        self.change_triggers(now, |book| {
            Ok((vec![book.fire(&self.id, subject.clone(), why, receivers.clone(), now)?], true))
        })
    }

    /// Notes that somebody is at it.
    pub fn acknowledge_trigger(&self, id: &TriggerId, by: &str, now: UnixMillis) -> Result<(), FleetError> {
        self.change_triggers(now, |book| {
            book.acknowledge(id, by, now)?;
            Ok((Vec::new(), true))
        })
    }

    /// Notes which release came of it.
    pub fn answer_trigger(
        &self,
        id: &TriggerId,
        release: &ReleaseId,
        now: UnixMillis,
    ) -> Result<(), FleetError> {
        let published = self.release(release)?.record.added;
        self.change_triggers(now, |book| {
            book.answer(id, release, published, now)?;
            Ok((Vec::new(), true))
        })
    }

    /// A release that has just been added names the trigger that it answers. What it names wrongly is said in the log,
    /// and is no reason to refuse a release.
    pub(super) fn release_answers(&self, release: &ReleaseId, named: &str, now: UnixMillis) {
        let answered = TriggerId::new(named)
            .ok_or_else(|| FleetError::NotFound(format!("trigger {named}")))
            .and_then(|id| self.answer_trigger(&id, release, now));
        match answered {
            Ok(()) => info!(%release, trigger = named, "a trigger is answered"),
            Err(why) => {
                warn!(%release, trigger = named, %why, "a release names a trigger that it does not answer");
            }
        }
    }

    /// Works on a copy, makes it durable with the calls that it leads to, and only then goes on with it.
    fn change_triggers(
        &self,
        now: UnixMillis,
        change: impl FnOnce(&mut TriggerBook) -> Result<(Vec<Trigger>, bool), FleetError>,
    ) -> Result<(), FleetError> {
        let mut book = self.triggers.lock();
        let mut next = book.clone();
        let (made, changed) = change(&mut next)?;
        if !changed {
            return Ok(());
        }
        let mut calls: Vec<(ReceiverName, Value)> = Vec::new();
        for trigger in &made {
            let call = json!({ "trigger": view::trigger(trigger) });
            calls.extend(trigger.receivers.iter().map(|receiver| (receiver.clone(), call.clone())));
        }
        self.queue_calls(calls, vec![DocumentChange::put(Shelf::Triggers, BOOK, &next)?], now)?;
        *book = next;
        drop(book);
        for trigger in made {
            info!(trigger = %trigger.id, release = %trigger.release, why = trigger.why, "training is asked for");
            let _ = self.feed.send(Happening::Trigger(Box::new(trigger)));
        }
        Ok(())
    }

    /// The release of a model that most devices run, and what it shows; none if no device runs one.
    fn subject(&self, model: &ModelName, now: UnixMillis) -> Result<Option<Subject>, FleetError> {
        let facts = {
            let state = self.lock();
            let mut counts: BTreeMap<ReleaseId, usize> = BTreeMap::new();
            for release in state.devices.admitted().filter_map(|record| record.hello.active) {
                if release.model == *model && state.releases.contains_key(&release) {
                    *counts.entry(release).or_default() += 1;
                }
            }
            let most = counts.into_iter().max_by_key(|(_, count)| *count);
            most.and_then(|(release, count)| Some((state.releases.get(&release).cloned()?, count)))
        };
        let Some((facts, devices)) = facts else { return Ok(None) };
        let record = &facts.record;
        let mut reading = Reading { devices: devices as u64, ..Reading::default() };
        let looks_at_reports = |rule: &TriggerRule| {
            let reports = rule.when.condition().is_some_and(|condition| {
                matches!(
                    condition,
                    Condition::FeatureDrift(_) | Condition::PredictionDrift(_) | Condition::Quality(_)
                )
            });
            reports && rule.models.contains(model)
        };
        if self.triggers.rules.iter().any(looks_at_reports) {
            let drift = self.drift(&record.release.id, now)?;
            reading.reporting = drift.arm.devices.len() as u64;
            (reading.requests, reading.errors) = (drift.arm.whole.requests, drift.arm.whole.errors);
            add_drift(&mut reading, &drift.whole);
            reading.add_quality(drift.arm.whole.quality.as_ref().and_then(right));
        }
        Ok(Some(Subject {
            release: record.release.id.clone(),
            published: record.added,
            lineage: record.lineage.clone(),
            reading,
        }))
    }
}
