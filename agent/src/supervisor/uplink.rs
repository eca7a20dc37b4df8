//! What the device says: hello and events, and its subscriptions. Reports are in `reports`.

use serin_protocol::envelope::{SealError, seal_to_vec};
use serin_protocol::ids::{ByteCount, RolloutId, SequenceNumber};
use serin_protocol::message::{Detail, Event, EventKind, Hello, Presence, RefusedKind, Turn};
use serin_protocol::topic::Topic;

use super::Supervisor;
use crate::disk::journal::{HistoryEntry, HistoryItem, JournalError};
use crate::disk::journal_home;
use crate::disk::losses::{Losses, Lost};
use crate::disk::seam::FileError;
use crate::link::backoff::Jitter;
use crate::link::mqtt::{Problem, Session};
use crate::link::outbox::{Effect, Input, Outbox};
use crate::update::record::Telling;

/// Why an event is not kept for the fleet.
#[derive(Debug, thiserror::Error)]
enum Unkept {
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Supervisor {
    pub(super) fn on_connected(&mut self, session: Session) {
        tracing::info!("connected");
        let now = self.now();
        (self.link_since, self.link_problem) = (now.wall, None);
        let device = || self.config.device.clone();
        for topic in
            [Topic::Pause(device()), Topic::Assign(device()), Topic::Ack(device()), Topic::Enrolled(device())]
        {
            if session.subscribe(&topic).is_err() {
                // A fresh session has room for four; without them it is of no use.
                tracing::error!(?topic, "could not subscribe");
            }
        }
        self.session = Some(session);
        self.hellos.set(0);
        self.trust_connected();
        self.announce();
        let record = self.machine.record();
        let (sequence, rollout) = (record.accepted, record.rollout);
        self.say_losses(sequence, rollout);
        if let Some(awaited) = &mut self.awaited {
            awaited.ask_at = now.elapsed;
        }
        self.ask_statement_again();
        if self.open_session().is_none() {
            return;
        }
        if let Some(download) = &mut self.download {
            let notices = download.connected(now.elapsed);
            self.on_notices(notices);
        }
        self.outbox(Input::Connected);
    }

    pub(super) fn on_disconnected(&mut self, problem: Problem) {
        let now = self.now();
        if self.session.take().is_some() {
            tracing::warn!(problem = problem.text, "disconnected");
            self.link_since = now.wall;
        }
        self.link_problem = Some(problem);
        self.trust_disconnected();
        if let Some(download) = &mut self.download {
            let notices = download.disconnected(now.elapsed);
            self.on_notices(notices);
        }
        self.outbox(Input::Disconnected);
    }

    pub(super) fn ask_assignment(&self) {
        let Some(session) = &self.session else { return };
        let topic = Topic::Assign(self.config.device.clone());
        let busy = session.unsubscribe(&topic).and_then(|()| session.subscribe(&topic)).is_err();
        self.assignment_due.set(busy);
    }

    /// What the link had no room for at the time.
    pub(super) fn say_what_is_due(&self) {
        if self.hello_due.get() {
            self.announce();
        }
        if self.assignment_due.get() {
            self.ask_assignment();
        }
    }

    /// What this device is and holds; to be said once.
    pub(super) fn hello(&self, presence: Presence) -> Hello {
        self.hellos.update(|hellos| hellos.saturating_add(1));
        let record = self.machine.record();
        Hello {
            device: self.config.device.clone(),
            fleet: self.config.fleet.clone(),
            key: serin_protocol::envelope::PublicKey::of(&self.key),
            boot: self.boot,
            turn: Turn {
                connection: self.session.as_ref().map_or(0, Session::connection),
                number: self.hellos.get(),
            },
            presence,
            agent: env!("CARGO_PKG_VERSION").parse().unwrap_or_default(),
            target: self.config.target.clone(),
            memory_budget: self.config.models.memory,
            free_space: self.releases.free_space().unwrap_or(ByteCount(0)),
            sequence: record.accepted,
            active: record.active.as_ref().map(|slot| slot.release.clone()),
            previous: record.previous.as_ref().map(|slot| slot.release.clone()),
            candidate: self.machine.candidate().cloned(),
            pinned: record.kept_on_site(),
            decoders: crate::worker::decoders(),
        }
    }

    pub(super) fn announce(&self) {
        self.say_hello(Presence::Online);
    }

    fn say_hello(&self, presence: Presence) {
        let Some(session) = &self.session else { return };
        let topic = Topic::Hello(self.config.device.clone());
        match seal_to_vec(&self.hello(presence), &self.key) {
            Ok(sealed) => {
                self.hello_due.set(session.publish(&topic, sealed, true, None).is_err());
            }
            Err(error) => tracing::error!(%error, "hello could not be signed"),
        }
    }

    /// Says at start what was written down and not said when the power went.
    pub(super) fn say_again(&mut self) {
        for Telling { sequence, rollout, kind } in
            self.machine.record().unsaid(self.journal.next_event()).to_vec()
        {
            self.report(sequence, rollout, kind);
        }
    }

    /// Reports under the assignment in force.
    pub(super) fn report_now(&mut self, kind: EventKind) {
        let record = self.machine.record();
        let (sequence, rollout) = (record.accepted, record.rollout);
        self.report(sequence, rollout, kind);
    }

    /// Stores an event until the server has acknowledged it; before it, how many could not be.
    pub(super) fn report(&mut self, sequence: SequenceNumber, rollout: Option<RolloutId>, kind: EventKind) {
        let at = self.now().wall;
        tracing::info!(event = ?kind, "event");
        let entry = HistoryEntry { at, what: HistoryItem::Event(kind.clone()) };
        if let Err(error) = self.journal.append_history(&entry) {
            tracing::warn!(%error, "the history could not be written");
        }
        self.say_losses(sequence, rollout);
        let mut stored = self.number_and_store(sequence, rollout, kind.clone());
        if let Err(Unkept::Journal(why @ (JournalError::Io(_) | JournalError::File(_)))) = &stored
            && self.take_shelter(why)
        {
            stored = self.number_and_store(sequence, rollout, kind);
        }
        if let Err(error) = stored {
            // The device goes on; what it runs does not depend on the journal.
            tracing::error!(%error, "an event could not be kept for the fleet");
            self.note_losses(|losses| losses.add(Lost { events: 1, reports: 0 }));
        }
    }

    /// From now on the journal is in memory, if it is not there already.
    pub(super) fn take_shelter(&mut self, why: &JournalError) -> bool {
        if self.sheltered.is_some() {
            return false;
        }
        let moved = journal_home::leave(&self.journal, &self.config.data, self.config.telemetry.backlog);
        let moved = moved.and_then(|journal| Ok((journal.stored()?, journal)));
        match moved {
            Ok((stored, journal)) => {
                self.journal = journal;
                self.outbox = Outbox::new(stored, Jitter::new(self.boot.0));
                if self.session.is_some() {
                    self.outbox(Input::Connected);
                }
                self.note_shelter(why);
                true
            }
            Err(error) => {
                tracing::error!(%error, "there is no journal in memory either");
                false
            }
        }
    }

    /// Says that the journal is in memory.
    pub(super) fn note_shelter(&mut self, why: &JournalError) {
        tracing::error!(%why, "the disk takes no events; they are kept in memory");
        self.sheltered = Some(why.to_string());
        let detail = Detail::new(&format!("events are kept in memory: {why}"));
        self.report_now(EventKind::JournalLost { detail });
    }

    /// Tells what was lost since it was last told.
    fn say_losses(&mut self, sequence: SequenceNumber, rollout: Option<RolloutId>) {
        let Lost { events, reports } = self.losses.unsaid();
        // While offline ever more reports are dropped: said once when there is somebody to hear it.
        let reports = if self.session.is_some() { reports } else { 0 };
        let kinds = [
            (EventKind::EventsLost { count: events }, Lost { events, reports: 0 }),
            (EventKind::ReportsDropped { count: reports }, Lost { events: 0, reports }),
        ];
        for (kind, lost) in kinds {
            if lost != Lost::default() && self.number_and_store(sequence, rollout, kind).is_ok() {
                self.note_losses(|losses| losses.said(lost));
            }
        }
    }

    pub(super) fn note_losses(&mut self, note: impl FnOnce(&mut Losses) -> Result<(), FileError>) {
        if let Err(error) = note(&mut self.losses) {
            tracing::warn!(%error, "what was lost is known only until the agent ends");
        }
    }

    fn number_and_store(
        &mut self,
        sequence: SequenceNumber,
        rollout: Option<RolloutId>,
        kind: EventKind,
    ) -> Result<(), Unkept> {
        let at = self.now().wall;
        let number = self.journal.next_event();
        let event = Event { device: self.config.device.clone(), number, at, sequence, rollout, kind };
        let sealed = seal_to_vec(&event, &self.key)?;
        self.journal.append_event(number, &sealed)?;
        self.outbox(Input::EventStored(number));
        Ok(())
    }

    /// Sends one sample for review, once there is nothing else to say or to fetch.
    pub(super) fn send_sample(&self) {
        let held = self.pausing.until(self.now().elapsed).is_some();
        let Some(session) = self.session.as_ref().filter(|_| !held) else { return };
        if !self.outbox.is_idle() || self.download.is_some() {
            return;
        }
        let Some(sample) = self.tray.take() else { return };
        match seal_to_vec(&sample, &self.key) {
            Ok(sealed) => {
                let topic = Topic::Sample(self.config.device.clone());
                if session.publish(&topic, sealed, false, None).is_err() {
                    self.tray.put_back(sample);
                }
            }
            Err(error) => tracing::warn!(%error, "a sample could not be signed"),
        }
    }

    /// Hands what happened to the outbox and carries out what it wants.
    pub(super) fn outbox(&mut self, input: Input) {
        let now = self.now().elapsed;
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for effect in self.outbox.handle(now, input) {
                match effect {
                    Effect::PublishEvent(number) => match self.journal.event(number) {
                        Ok(Some(sealed)) => {
                            self.publish(&Topic::Event(self.config.device.clone()), sealed, None);
                        }
                        Ok(None) => inputs.push(Input::EventGone(number)),
                        Err(error) => tracing::error!(%error, "an event could not be read"),
                    },
                    Effect::PublishReport(key) => match self.journal.report(key) {
                        Ok(Some(sealed)) => {
                            let topic = Topic::Report(self.config.device.clone());
                            self.publish(&topic, self.still_proven(sealed), Some(key.0));
                        }
                        Ok(None) => inputs.push(Input::ReportGone(key)),
                        Err(error) => tracing::error!(%error, "a report could not be read"),
                    },
                    Effect::DropEventsUpTo(number) => {
                        if let Err(error) = self.journal.drop_events_up_to(number) {
                            tracing::error!(%error, "acknowledged events could not be dropped");
                        }
                    }
                    Effect::DropReport(key) => {
                        if let Err(error) = self.journal.drop_report(key) {
                            tracing::error!(%error, "a sent report could not be dropped");
                        }
                    }
                    Effect::RefuseAck(number) => {
                        let text = format!("event {number} is acknowledged, far above any that was sent");
                        self.refuse(RefusedKind::Ack, &Detail::new(&text));
                    }
                    Effect::NumberAbove(number) => match self.journal.number_above(number) {
                        Ok(()) => {
                            let text = format!("the server has events up to {number} that are not here");
                            self.report_now(EventKind::JournalLost { detail: Detail::new(&text) });
                        }
                        Err(error) => tracing::error!(%error, "events could not be renumbered"),
                    },
                }
            }
        }
    }

    fn publish(&self, topic: &Topic, sealed: Vec<u8>, token: Option<u64>) {
        let Some(session) = &self.session else { return };
        if session.publish(topic, sealed, false, token).is_err() {
            // The outbox sends it again when its deadline passes.
            tracing::debug!(?topic, "the link is busy");
        }
    }

    /// Says goodbye in an orderly stop.
    pub(super) async fn goodbye(
        mut self,
        mut link: tokio::sync::mpsc::Receiver<crate::link::mqtt::LinkEvent>,
    ) {
        self.router.flip(None);
        let now = self.now();
        let mut reports = Vec::new();
        for recording in self.recordings.values() {
            reports.extend(recording.lock().cut(now, &mut self.stamp));
        }
        self.store_reports(&reports);
        self.write_answers();
        self.watch.close();
        if let Err(error) = self.journal.flush() {
            tracing::warn!(%error, "the journal could not be flushed");
        }
        self.say_hello(Presence::Offline);
        if let Some(session) = self.session.take() {
            session.disconnect();
            // Until the goodbye is written; a broken link is not waited for.
            let closed = async {
                while let Some(event) = link.recv().await {
                    if matches!(event, crate::link::mqtt::LinkEvent::Disconnected(_)) {
                        break;
                    }
                }
            };
            let _ = tokio::time::timeout(std::time::Duration::from_secs(2), closed).await;
        }
        if let Err(error) = self.starts.forget() {
            tracing::warn!(%error, "this stop will be taken for a crash");
        }
        for running in self.workers.values() {
            // A process that hangs in the kernel is not waited for.
            let _ = tokio::time::timeout(std::time::Duration::from_secs(2), running.worker.stop()).await;
        }
        tracing::info!("stopped");
    }
}
