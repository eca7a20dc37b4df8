//! Carrying out what the trust client wants, and what must wait for it: assignments and acknowledgements
//! are looked at once it is known who signs them.

use std::collections::VecDeque;

use bytes::Bytes;
use serin_protocol::assignment::{Assignment, Order, ReleaseRef};
use serin_protocol::envelope::{named_key, open};
use serin_protocol::message::{Ack, Detail, Reason, RefusedKind};
use serin_protocol::topic::{FileName, Topic};

use super::Supervisor;
use super::reports::Tagging;
use crate::link::outbox;
use crate::trust::client::{Client, Effect, Effects};
use crate::update::effect::Event;

/// The client with what it wants done and what waits for it.
pub(super) struct Trust {
    pub(super) client: Client,
    effects: VecDeque<Effect>,
    /// Subscriptions the session had no place for; at most one for each file of a refresh.
    pub(super) postponed: Effects,
    /// The last assignment, acknowledgement, answer to an enrolment and pause that came before the keys were
    /// known.
    assignment: Option<Bytes>,
    ack: Option<Bytes>,
    pub(super) enrolled: Option<Bytes>,
    pub(super) pause: Option<Bytes>,
    /// For which of the server's keys reports are tagged.
    pub(super) tagging: Tagging,
}

impl Trust {
    pub(super) fn new(client: Client) -> Self {
        let (effects, postponed) = (VecDeque::new(), Effects::new());
        let (assignment, ack, enrolled, pause) = (None, None, None, None);
        Self { client, effects, postponed, assignment, ack, enrolled, pause, tagging: Tagging::default() }
    }
}

impl Supervisor {
    /// Takes note of how far the chain of roots goes.
    pub(super) fn begin_trust(&mut self) {
        let begun = self.trust.client.root_trusted();
        self.trust.effects.push_back(begun);
        self.attend_trust();
    }

    /// Looks for a release; [`Event::Statement`] follows in any case.
    pub(super) fn search(&mut self, target: ReleaseRef) {
        let effects = self.trust.client.search(self.now(), target);
        self.trust.effects.extend(effects);
    }

    /// Has what the client wants done at the next occasion.
    pub(super) fn trust_wants(&mut self, effects: Effects) {
        self.trust.effects.extend(effects);
    }

    pub(super) fn trust_connected(&mut self) {
        let effects = self.trust.client.connected(self.now());
        self.trust.effects.extend(effects);
    }

    pub(super) fn trust_disconnected(&mut self) {
        self.trust.client.disconnected();
        self.trust.postponed.clear();
    }

    pub(super) fn on_metadata(&mut self, file: &FileName, payload: &Bytes) {
        let effects = self.trust.client.message(self.now(), file, payload);
        self.trust.effects.extend(effects);
    }

    pub(super) fn tick_trust(&mut self) {
        let postponed = std::mem::take(&mut self.trust.postponed);
        self.trust.effects.extend(postponed);
        let effects = self.trust.client.tick(self.now());
        self.trust.effects.extend(effects);
    }

    /// Carries out what the client wants. Called when nothing else is being carried out.
    pub(super) fn attend_trust(&mut self) {
        while let Some(effect) = self.trust.effects.pop_front() {
            match effect {
                Effect::Ask(_) | Effect::Leave(_) => self.subscribe_to(effect),
                Effect::RootTrusted { floor, recovered } => {
                    self.feed(Event::RootTrusted { floor, recovered });
                }
                Effect::Refreshed { keys_changed } => self.refreshed(keys_changed),
                Effect::Listed(target) => self.await_statement(target),
                Effect::Unlisted(target, detail) => {
                    let outcome = Err(Reason::Untrusted(detail));
                    self.feed(Event::Statement { statement: target.statement, outcome });
                }
                Effect::Refuse(detail) => self.refuse(RefusedKind::Metadata, &detail),
            }
        }
    }

    fn subscribe_to(&mut self, effect: Effect) {
        let Some(session) = &self.session else { return };
        let sent = match &effect {
            // A subscription anew brings the retained message anew.
            Effect::Ask(file) => {
                let topic = Topic::Metadata(file.clone());
                session.unsubscribe(&topic).and_then(|()| session.subscribe(&topic))
            }
            Effect::Leave(file) => session.unsubscribe(&Topic::Metadata(file.clone())),
            _ => Ok(()),
        };
        if sent.is_err() {
            self.trust.postponed.push(effect);
        }
    }

    fn refreshed(&mut self, keys_changed: bool) {
        tracing::debug!(keys_changed, "trusted metadata is current");
        if let Some(pause) = self.trust.pause.take() {
            self.on_pause(&pause);
        }
        if let Some(ack) = self.trust.ack.take() {
            self.on_ack(&ack);
        }
        if let Some(enrolled) = self.trust.enrolled.take() {
            self.on_enrolled(&enrolled);
        }
        if let Some(assignment) = self.trust.assignment.take() {
            self.on_assignment(&assignment);
        } else if keys_changed {
            // One signed by the new key may have been refused before.
            self.ask_assignment();
        }
    }

    pub(super) fn on_assignment(&mut self, payload: &Bytes) {
        // The server clears an assignment by an empty retained message.
        if payload.is_empty() {
            self.trust.assignment = None;
            return;
        }
        let Some(keys) = self.trust.client.fleet_keys(self.now().wall) else {
            tracing::info!("an assignment waits for trusted metadata");
            self.trust.assignment = Some(payload.clone());
            return;
        };
        let opened = open::<Assignment, _>(payload, keys).map_err(|error| Detail::new(&error.to_string()));
        let checked = opened
            .and_then(|assignment| self.trust.client.check_issued(assignment.issued).map(|()| assignment));
        match checked {
            Ok(assignment) => {
                tracing::info!(sequence = assignment.sequence.0, order = ?assignment.order, "assignment");
                self.trust.tagging.heard_from(named_key::<Assignment>(payload).ok());
                let event = match self.returns_below_floor(&assignment.order) {
                    Some(why) => Event::AssignedBelowFloor(Box::new(assignment), why),
                    None => Event::Assigned(assignment),
                };
                self.feed(event);
            }
            Err(detail) => self.refuse(RefusedKind::Assignment, &detail),
        }
    }

    /// Why the fleet must not bring the previous release back: that asks nobody, so that its owner's floor
    /// is looked up beforehand.
    fn returns_below_floor(&self, order: &Order) -> Option<Detail> {
        let target = match order {
            Order::Run { release, .. } | Order::Try { release, .. } | Order::RollBack { to: release, .. } => {
                release
            }
            Order::Stay => return None,
        };
        let previous = self.machine.record().previous.as_ref();
        previous.filter(|previous| previous.statement == target.statement)?;
        self.trust.client.below_floor(&target.id)
    }

    pub(super) fn on_ack(&mut self, payload: &Bytes) {
        let Some(keys) = self.trust.client.fleet_keys(self.now().wall) else {
            self.trust.ack = Some(payload.clone());
            return;
        };
        match open::<Ack, _>(payload, keys) {
            Ok(ack) if ack.device == self.config.device => {
                self.taken_in = true;
                self.trust.tagging.heard_from(named_key::<Ack>(payload).ok());
                self.outbox(outbox::Input::Acknowledged(ack.stored));
            }
            Ok(ack) => {
                let detail = Detail::new(&format!("the acknowledgement is for {}", ack.device));
                self.refuse(RefusedKind::Ack, &detail);
            }
            Err(error) => self.refuse(RefusedKind::Ack, &Detail::new(&error.to_string())),
        }
    }
}
