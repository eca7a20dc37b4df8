//! Alerts of the fleet: looking, telling, silencing, and the rules that operators add to those of the configuration.
//! They have a lock of their own, because looking at many reports takes a while and holds nobody up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serin_protocol::ids::UnixMillis;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::feed::Happening;
use super::{Fleet, FleetError};
use crate::alert::book::{Key, Said, Watched};
use crate::alert::rule::check_all;
use crate::alert::{Alert, Book, Look, Note, Rule, RuleName, Silence, SilenceId};
use crate::notify::outbox::{Content, Delivery, Outbox, Outcome};
use crate::notify::receiver::{ReceiverName, Routes, Speaks};
use crate::store::documents::{numbered, read};
use crate::store::{DocumentChange, Shelf, Store, StoreError};
use crate::trigger::TriggerRule;

/// Notes kept, about 1 KiB each; older ones are dropped.
pub const MAX_NOTES: u64 = 2000;

const BOOK: &str = "book";
const ADDED_RULES: &str = "rules";
const OUTBOX: &str = "outbox";

/// What an operator configured.
#[derive(Clone, Debug, Default)]
pub struct AlertParts {
    /// Who is told what.
    pub routes: Arc<Routes>,
    /// Rules that only the configuration changes.
    pub rules: Vec<Rule>,
    /// What asks for training.
    pub triggers: Vec<TriggerRule>,
}

/// Alerts and what is to be told.
pub(super) struct Alerts {
    routes: Arc<Routes>,
    fixed: Vec<Rule>,
    live: Mutex<Live>,
    waits: Notify,
}

struct Live {
    book: Book,
    added: Vec<Rule>,
    outbox: Outbox,
}

/// A rule, and whether operators may change it.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldRule {
    /// The rule.
    pub rule: Rule,
    /// It stands in the configuration.
    pub fixed: bool,
}

/// What is watched, as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Standings {
    /// Each rule and group.
    pub watched: Vec<(Key, Watched)>,
    /// What rings, with the silence that keeps it from being told.
    pub firing: Vec<(Alert, Option<SilenceId>)>,
    /// The silences that hold.
    pub silences: Vec<Silence>,
}

impl Alerts {
    /// Takes them up where the store has them.
    pub(super) fn open(parts: AlertParts, store: &dyn Store) -> Result<Self, StoreError> {
        let AlertParts { routes, rules: fixed, triggers: _ } = parts;
        let of_shelf = |name: &str| store.document(Shelf::Alerts, name);
        let book = match of_shelf(BOOK)? {
            Some(bytes) => read(BOOK, &bytes)?,
            None => Book::default(),
        };
        let mut added: Vec<Rule> = match of_shelf(ADDED_RULES)? {
            Some(bytes) => read(ADDED_RULES, &bytes)?,
            None => Vec::new(),
        };
        // The configuration has taken its name.
        added.retain(|rule| {
            let free = fixed.iter().all(|other| other.name != rule.name);
            if !free {
                warn!(rule = %rule.name, "the configuration has a rule of this name; the added one is left out");
            }
            free
        });
        let (last, given_up) = match of_shelf(OUTBOX)? {
            Some(bytes) => read(OUTBOX, &bytes)?,
            None => (0, 0),
        };
        let mut waiting = BTreeMap::new();
        for (name, bytes) in store.documents(Shelf::Deliveries)? {
            let delivery: Delivery = read(&name, &bytes)?;
            waiting.insert(delivery.id, delivery);
        }
        let mut outbox = Outbox::of(waiting, last, given_up);
        outbox.forget_others(|name| routes.receivers.contains_key(name));
        let live = Mutex::new(Live { book, added, outbox });
        Ok(Self { routes, fixed, live, waits: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rules(&self, live: &Live) -> Vec<Rule> {
        self.fixed.iter().chain(&live.added).cloned().collect()
    }
}

impl Live {
    /// Queues what was said, one message for each receiver.
    fn queue(&mut self, routes: &Routes, said: &mut Said, now: UnixMillis) {
        let mut of_receiver: BTreeMap<ReceiverName, Vec<Alert>> = BTreeMap::new();
        for (receiver, alert) in said.notices.drain(..) {
            of_receiver.entry(receiver).or_default().push(alert);
        }
        for (receiver, alerts) in of_receiver {
            let latest = routes
                .receivers
                .get(&receiver)
                .is_some_and(|receiver| matches!(receiver.speaks, Speaks::Alertmanager));
            self.outbox.add_alerts(&receiver, alerts, latest, now);
        }
    }
}

impl Fleet {
    /// Holds what the fleet shows against all rules, and has receivers told.
    pub fn look_at_alerts(&self, now: UnixMillis) -> Result<(), FleetError> {
        let rules = self.alerts.rules(&self.alerts.lock());
        let readings = self.readings(&rules, now)?;
        let notes = {
            // Rules that have changed meanwhile are looked at next time.
            let mut live = self.alerts.lock();
            let before = live.outbox.clone();
            let routes = Arc::clone(&self.alerts.routes);
            let look = Look { rules: &rules, routes: &routes, readings: &readings };
            let mut said = live.book.look(now, look);
            live.queue(&routes, &mut said, now);
            if said.changed || live.outbox != before {
                let mut changes = vec![DocumentChange::put(Shelf::Alerts, BOOK, &live.book)?];
                for note in &said.notes {
                    changes.push(DocumentChange::put(Shelf::Notes, numbered(note.number), note)?);
                    if let Some(oldest) = note.number.checked_sub(MAX_NOTES) {
                        changes.push(DocumentChange::remove(Shelf::Notes, numbered(oldest)));
                    }
                }
                changes.extend(deliveries(&before, &live.outbox)?);
                self.keep(&changes)?;
            }
            said.notes
        };
        for note in notes {
            let (change, about) = (note.change, note.alert.summary());
            info!(rule = %note.alert.rule, ?change, silenced = note.silenced, about, "alert");
            let _ = self.feed.send(Happening::Alert(Box::new(note)));
        }
        self.alerts.waits.notify_one();
        Ok(())
    }

    /// How everything watched stands.
    pub fn alert_standings(&self, now: UnixMillis) -> Standings {
        let live = self.alerts.lock();
        let rules = self.alerts.rules(&live);
        let firing = live.book.firing(&rules, &self.alerts.routes).into_iter().map(|alert| {
            let silence = live.book.silenced_by(&alert, now);
            (alert, silence)
        });
        Standings {
            firing: firing.collect(),
            watched: live.book.watched().map(|(key, watched)| (key.clone(), watched.clone())).collect(),
            silences: live.book.silences(now).cloned().collect(),
        }
    }

    /// What happened to alerts, oldest first.
    pub fn alert_notes(&self) -> Result<Vec<Note>, FleetError> {
        let notes = self.store.documents(Shelf::Notes)?;
        Ok(notes.iter().map(|(name, bytes)| read(name, bytes)).collect::<Result<_, _>>()?)
    }

    /// All rules, those of the configuration first.
    pub fn alert_rules(&self) -> Vec<HeldRule> {
        let fixed = self.alerts.fixed.iter().cloned().map(|rule| HeldRule { rule, fixed: true });
        let added = self.alerts.lock().added.clone();
        fixed.chain(added.into_iter().map(|rule| HeldRule { rule, fixed: false })).collect()
    }

    /// Adds rules, or replaces those of the same names, all or none.
    pub fn put_alert_rules(&self, rules: Vec<Rule>) -> Result<(), FleetError> {
        check_all(&rules)?;
        let is_fixed = |rule: &&Rule| self.alerts.fixed.iter().any(|fixed| fixed.name == rule.name);
        if let Some(rule) = rules.iter().find(is_fixed) {
            let words = format!("rule {} stands in the server's configuration; change it there", rule.name);
            return Err(FleetError::Conflict(words));
        }
        let unknown = |name: &&ReceiverName| !self.alerts.routes.receivers.contains_key(name);
        if let Some(name) = rules.iter().flat_map(|rule| &rule.receivers).find(unknown) {
            return Err(FleetError::Conflict(format!(
                "receiver {name} is not in the server's configuration"
            )));
        }
        let mut live = self.alerts.lock();
        let mut added = live.added.clone();
        added.retain(|old| rules.iter().all(|new| new.name != old.name));
        added.extend(rules);
        check_all(&self.alerts.fixed.iter().chain(&added).cloned().collect::<Vec<_>>())?;
        self.keep(&[DocumentChange::put(Shelf::Alerts, ADDED_RULES, &added)?])?;
        live.added = added;
        Ok(())
    }

    /// Takes a rule away. What rings by it is over with the next look.
    pub fn remove_alert_rule(&self, name: &RuleName) -> Result<(), FleetError> {
        if self.alerts.fixed.iter().any(|rule| rule.name == *name) {
            let words = format!("rule {name} stands in the server's configuration; take it away there");
            return Err(FleetError::Conflict(words));
        }
        let mut live = self.alerts.lock();
        let mut added = live.added.clone();
        added.retain(|rule| rule.name != *name);
        if added.len() == live.added.len() {
            return Err(FleetError::NotFound(format!("rule {name}")));
        }
        self.keep(&[DocumentChange::put(Shelf::Alerts, ADDED_RULES, &added)?])?;
        live.added = added;
        Ok(())
    }

    /// Has nobody told about what matches for a while.
    pub fn silence_alerts(&self, silence: Silence, now: UnixMillis) -> Result<SilenceId, FleetError> {
        let mut live = self.alerts.lock();
        let mut book = live.book.clone();
        let (author, reason, until) = (silence.author.clone(), silence.reason.clone(), silence.until);
        let id = book.silence(silence, now)?;
        self.keep(&[DocumentChange::put(Shelf::Alerts, BOOK, &book)?])?;
        live.book = book;
        info!(silence = %id, author, reason, until = until.0, "alerts silenced");
        Ok(id)
    }

    /// Ends a silence.
    pub fn unsilence_alerts(&self, id: SilenceId, now: UnixMillis) -> Result<(), FleetError> {
        let mut live = self.alerts.lock();
        let mut book = live.book.clone();
        book.unsilence(id, now).ok_or_else(|| FleetError::NotFound(format!("silence {id}")))?;
        self.keep(&[DocumentChange::put(Shelf::Alerts, BOOK, &book)?])?;
        live.book = book;
        info!(silence = %id, "silence ended");
        Ok(())
    }

    /// Who can be told what.
    pub fn alert_routes(&self) -> &Arc<Routes> {
        &self.alerts.routes
    }

    /// What is not delivered yet, and how many were given up.
    pub fn undelivered(&self) -> (Vec<Delivery>, u64) {
        let live = self.alerts.lock();
        (live.outbox.waiting().cloned().collect(), live.outbox.numbers().1)
    }

    /// Queues calls of webhooks, as one change with what they rest on.
    pub(super) fn queue_calls(
        &self,
        calls: Vec<(ReceiverName, serde_json::Value)>,
        mut with: Vec<DocumentChange>,
        now: UnixMillis,
    ) -> Result<(), FleetError> {
        let mut live = self.alerts.lock();
        let before = live.outbox.clone();
        for (to, call) in calls {
            live.outbox.add(&to, Content::Call(call), now);
        }
        with.extend(deliveries(&before, &live.outbox)?);
        self.keep(&with)?;
        self.alerts.waits.notify_one();
        Ok(())
    }

    /// What can be delivered now to receivers that are not busy.
    pub fn due_deliveries(&self, now: UnixMillis, busy: &BTreeSet<ReceiverName>) -> Vec<Delivery> {
        self.alerts.lock().outbox.due(now, busy)
    }

    /// Returns when there may be more to deliver.
    pub async fn delivery_waits(&self) {
        self.alerts.waits.notified().await;
    }

    /// Takes in what came of a delivery; true if it is given up.
    pub fn delivery_tried(
        &self,
        id: u64,
        outcome: Outcome,
        jitter: u8,
        now: UnixMillis,
    ) -> Result<bool, FleetError> {
        let mut live = self.alerts.lock();
        let before = live.outbox.clone();
        self.metrics.delivery(&outcome);
        let given_up = live.outbox.tried(id, outcome, now, jitter);
        self.keep(&deliveries(&before, &live.outbox)?)?;
        Ok(given_up)
    }

    /// Writes documents and makes them durable; when the store fails, the server stops.
    pub(super) fn keep(&self, changes: &[DocumentChange]) -> Result<(), FleetError> {
        let kept = self.store.put_documents(changes).and_then(|()| self.store.commit());
        if let Err(error) = &kept {
            self.fail(error);
        }
        Ok(kept?)
    }
}

/// What makes the store's deliveries those of `after`.
fn deliveries(before: &Outbox, after: &Outbox) -> Result<Vec<DocumentChange>, StoreError> {
    let mut changes = Vec::new();
    for delivery in before.waiting().filter(|delivery| after.get(delivery.id).is_none()) {
        changes.push(DocumentChange::remove(Shelf::Deliveries, numbered(delivery.id)));
    }
    for delivery in after.waiting().filter(|delivery| before.get(delivery.id) != Some(delivery)) {
        changes.push(DocumentChange::put(Shelf::Deliveries, numbered(delivery.id), delivery)?);
    }
    if before.numbers() != after.numbers() {
        changes.push(DocumentChange::put(Shelf::Alerts, OUTBOX, &after.numbers())?);
    }
    Ok(changes)
}
