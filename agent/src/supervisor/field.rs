//! Answering the field engineer: what he wants to know at once, what he orders through the update machine.

use serin_protocol::ids::{Digest, EventNumber, Millis, ReleaseId};
use serin_protocol::message::{Event as DeviceEvent, EventKind, Phase, Reason};
use tokio::sync::oneshot;

use super::Supervisor;
use crate::disk::journal::{HISTORY_ENTRIES, HistoryEntry as Stored, HistoryItem};
use crate::field::configuration::redacted;
use crate::field::reply::{
    FieldCode, FieldError, FieldReply, History, HistoryEntry, LinkStatus, RolledBack, SlotStatus, Status,
    WorkerStatus,
};
use crate::field::{self, FieldCommand, FieldRequest};
use crate::telemetry::resources::Memory;
use crate::update::effect::{Event, FieldOrder, FieldOutcome, FieldRefusal};
use crate::update::record::Slot;

/// An engineer who waits for an answer.
pub(super) struct Pending {
    reply: oneshot::Sender<field::FieldOutcome>,
    since: Millis,
    /// The rollback that was accepted and does not answer yet.
    rollback: Option<(ReleaseId, ReleaseId)>,
}

impl Supervisor {
    pub(super) fn on_field(&mut self, request: FieldRequest) {
        self.settling.worked(self.now().elapsed);
        let FieldRequest { uid, command, reply } = request;
        let order = match command {
            FieldCommand::Status => {
                let status = self.status();
                // He may have gone in the meantime; so below.
                let _ = reply.send(Ok(FieldReply::Status(Box::new(status))));
                return;
            }
            FieldCommand::History { limit } => {
                let entries = self.history(limit);
                let _ = reply.send(Ok(FieldReply::History(History { entries })));
                return;
            }
            FieldCommand::Doctor => {
                let _ = reply.send(Ok(FieldReply::Checkup(self.doctor())));
                return;
            }
            FieldCommand::Logs(wanted) => {
                let lines = self.logs.lines(wanted);
                let _ = reply.send(Ok(FieldReply::Logs { lines, run: Some(self.boot) }));
                return;
            }
            FieldCommand::Configuration => {
                let _ = reply.send(Ok(FieldReply::Configuration(redacted(&self.config))));
                return;
            }
            FieldCommand::Verify => return self.verify(reply),
            FieldCommand::Enroll { token } => return self.enrol(uid, &token, reply),
            FieldCommand::Sideload(sideload) => return self.sideload(uid, *sideload, reply),
            FieldCommand::Rollback { to } => FieldOrder::Rollback { to },
            FieldCommand::Pin => FieldOrder::Pin,
            FieldCommand::Unpin => FieldOrder::Unpin,
            FieldCommand::Hold { span } => FieldOrder::Hold { span },
        };
        tracing::info!(uid, ?order, "field engineer");
        self.order(uid, order, reply);
    }

    /// Has the update machine carry out an order.
    pub(super) fn order(&mut self, uid: u32, order: FieldOrder, reply: oneshot::Sender<field::FieldOutcome>) {
        // One who no longer waits holds nobody up.
        self.pending.take_if(|pending| pending.reply.is_closed());
        if self.pending.is_some() {
            let busy = FieldError::new(FieldCode::Busy, "another order is being carried out", "try again");
            let _ = reply.send(Err(busy));
            return;
        }
        self.pending = Some(Pending { reply, since: self.now().elapsed, rollback: None });
        self.feed(Event::Field(uid, order));
    }

    /// The update machine's answer to the order.
    pub(super) fn reply(&mut self, answer: Result<FieldOutcome, FieldRefusal>) {
        // A failed write answers an order only if there is one.
        let Some(mut pending) = self.pending.take() else { return };
        let outcome = match answer {
            Ok(FieldOutcome::RolledBack { from, to, warm: false }) => {
                pending.rollback = Some((from, to));
                self.pending = Some(pending);
                return;
            }
            Ok(FieldOutcome::RolledBack { from, to, warm: true }) => {
                let millis = Millis(self.now().elapsed.0.saturating_sub(pending.since.0));
                Ok(FieldReply::RolledBack(RolledBack { from, to, millis }))
            }
            Ok(FieldOutcome::Pinned(release)) => Ok(FieldReply::Pinned { release }),
            Ok(FieldOutcome::Unpinned) => Ok(FieldReply::Unpinned),
            Ok(FieldOutcome::Held(until)) => Ok(FieldReply::Held { until }),
            Ok(FieldOutcome::Sideloading) => return self.sideload_begun(pending.reply),
            Err(FieldRefusal::Condemned(release)) => {
                Err(FieldError::condemned(&release, self.taken_back(&release).as_ref()))
            }
            Err(refusal) => Err(refusal.into()),
        };
        let _ = pending.reply.send(outcome);
    }

    /// The gateway was pointed to `slot`: perhaps that is what an engineer waits for.
    pub(super) fn rollback_answers(&mut self, slot: &Slot) {
        let waited =
            |pending: &mut Pending| pending.rollback.as_ref().is_some_and(|(_, to)| *to == slot.release);
        let Some(pending) = self.pending.take_if(waited) else { return };
        let millis = Millis(self.now().elapsed.0.saturating_sub(pending.since.0));
        if let Some((from, to)) = pending.rollback {
            let _ = pending.reply.send(Ok(FieldReply::RolledBack(RolledBack { from, to, millis })));
        }
    }

    /// A worker did not come up: perhaps the one an engineer waits for.
    pub(super) fn rollback_failed(&mut self, reason: &Reason) {
        let Some(pending) = self.pending.take_if(|pending| pending.rollback.is_some()) else { return };
        let error = FieldError::new(
            FieldCode::NotStarted,
            format!("the previous release could not be started: {reason}"),
            "see `serin-agent history`; the agent keeps trying",
        );
        let _ = pending.reply.send(Err(error));
    }

    fn status(&self) -> Status {
        let (now, record) = (self.now(), self.machine.record());
        let connected = self.session.is_some();
        let stored = self.journal.stored().ok();
        let waiting = stored.map_or(0, |stored| stored.next_report.0.saturating_sub(stored.oldest_report.0));
        Status {
            device: self.config.device.clone(),
            fleet: self.config.fleet.clone(),
            agent: env!("CARGO_PKG_VERSION").into(),
            now: now.wall,
            uptime: now.elapsed,
            clock_floor: record.clock_floor,
            link: LinkStatus {
                connected,
                since: Some(self.link_since),
                broker: format!("{}:{}", self.config.broker.host, self.config.broker.port),
                last_error: self.link_problem.as_ref().map(|problem| problem.text.clone()),
            },
            active: record.active.as_ref().map(|slot| self.slot_status(slot)),
            previous: record.previous.as_ref().map(|slot| self.slot_status(slot)),
            candidate: self.machine.candidate().cloned(),
            phase: self.phase(),
            waiting: self.waiting(),
            transfer: self.download.as_ref().map(super::download::Download::progress),
            pinned_by: record.pinned_by,
            held_until: record.held.map(|hold| hold.until),
            sequence: record.accepted,
            rollout: record.rollout,
            memory_budget: self.config.models.memory,
            free_space: self.releases.free_space().unwrap_or_default(),
            agent_resident: Memory::own().ok().map(|memory| memory.resident),
            events_waiting: self.outbox.pending(),
            reports_waiting: waiting,
            last_event: self.history(1).pop(),
            safe_mode: self.machine.safe_mode(),
            restarts: self.restarts,
            paused_until: self.paused_until(),
            trial: record.trial().map(Into::into),
            not_enrolled: !self.taken_in,
        }
    }

    const fn phase(&self) -> Phase {
        self.machine.phase()
    }

    fn slot_status(&self, slot: &Slot) -> SlotStatus {
        let worker = self.workers.get(&slot.statement).map(|running| &running.worker);
        SlotStatus {
            release: slot.release.clone(),
            standing: slot.standing.into(),
            memory_limit: slot.memory,
            worker: worker.map(|worker| WorkerStatus {
                pid: worker.pid(),
                peak_resident: worker.peak_resident(),
                data_in_use: worker.data_in_use(),
                sandbox: worker.sandbox(),
            }),
            traffic: self.traffic(slot.statement),
        }
    }

    fn traffic(&self, statement: Digest) -> Option<field::reply::Traffic> {
        self.recordings.get(&statement).map(|recording| recording.lock().snapshot().into())
    }

    /// Why `release` was last taken back, as far as the history goes.
    pub(super) fn taken_back(&self, release: &ReleaseId) -> Option<Reason> {
        let entries = self.journal.history(HISTORY_ENTRIES).unwrap_or_else(|error| {
            tracing::warn!(%error, "the history could not be read");
            Vec::new()
        });
        entries.into_iter().rev().find_map(|entry| match entry.what {
            HistoryItem::Event(EventKind::Transition {
                release: left,
                to: Phase::RolledBack,
                reason,
                ..
            }) if left == *release => Some(reason),
            HistoryItem::Event(_) | HistoryItem::Note(_) => None,
        })?
    }

    /// The newest first.
    fn history(&self, limit: usize) -> Vec<HistoryEntry> {
        let mut entries = match self.journal.history(limit) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(%error, "the history could not be read");
                return Vec::new();
            }
        };
        entries.reverse();
        let numbered = entries.into_iter().zip(1..);
        numbered.map(|(entry, number)| self.in_words(entry, EventNumber(number))).collect()
    }

    fn in_words(&self, entry: Stored, number: EventNumber) -> HistoryEntry {
        match entry.what {
            HistoryItem::Event(kind) => HistoryEntry::from(&DeviceEvent {
                device: self.config.device.clone(),
                number,
                at: entry.at,
                sequence: serin_protocol::ids::SequenceNumber(0),
                rollout: None,
                kind,
            }),
            HistoryItem::Note(text) => HistoryEntry {
                number,
                at: entry.at,
                kind: "note".into(),
                release: None,
                text: text.to_string(),
            },
        }
    }
}
