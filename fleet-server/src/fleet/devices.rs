//! What devices say, taken in.

use serin_protocol::ids::{DeviceId, EventNumber, UnixMillis};
use serin_protocol::message::{CrashAction, Event, EventKind, Hello, Phase, Presence};
use serin_protocol::topic::Topic;
use tracing::{debug, info, warn};

use super::enrolment::Policy;
use super::feed::Happening;
use super::reports::Batch;
use super::{Delivery, Draft, Fleet, FleetError, Message, State};
use crate::broker::publish::Job;
use crate::fleet::Outgoing;
use crate::ingest::{Heard, Refused, hear};
use crate::rollout::event::{RolloutEvent, Sighting};
use crate::rollout::plan::selector::Tags;
use crate::store::{DeviceRecord, Move};

/// Most devices in a fleet; more are refused, so that nobody who can reach the broker can fill the disk. A
/// device takes some 1.6 KB of memory, with its part of the database's cache, which has a bound of its own.
pub const MAX_DEVICES: usize = 250_000;

/// Starts of an agent that are remembered, so that nobody says again what was said then: a device that starts once
/// a day is covered for two months, at 640 bytes of memory.
const MAX_PAST_BOOTS: usize = 64;

/// Most chunks that one event can have published again; the device's window is 16.
const MAX_CHUNKS_AGAIN: u32 = 64;

impl Fleet {
    /// All devices by name.
    pub fn devices(&self) -> Vec<DeviceRecord> {
        self.lock().devices.records().collect()
    }

    /// One device with its events, oldest first.
    pub fn device(&self, id: &DeviceId) -> Result<(DeviceRecord, Vec<Event>), FleetError> {
        let record = self.lock().devices.get(id);
        let record = record.ok_or_else(|| FleetError::NotFound(format!("device {id}")))?;
        Ok((record, self.store.events(id)?))
    }

    /// Takes in what devices said, all made durable together.
    pub fn take_in(&self, messages: &[Message], now: UnixMillis) -> Result<(), FleetError> {
        self.change(now, |state, draft| {
            let mut batch = Batch::new(self.tag_signers());
            for message in messages {
                if let Some(device) = message.topic.device() {
                    self.metrics.message(&message.topic, message.payload.len());
                    self.take_in_one(state, draft, &mut batch, device, message, now)?;
                }
            }
            Ok(())
        })
    }

    /// Notes that nobody is there: the broker has only just been started, and with the one before it went
    /// every connection, unsaid. Whoever is still there says hello again.
    pub fn nobody_is_there(&self, now: UnixMillis) -> Result<(), FleetError> {
        self.change(now, |state, draft| {
            let hellos: Vec<Hello> = state.devices.online().map(|record| record.hello).collect();
            for mut hello in hellos {
                hello.presence = Presence::Offline;
                // A device that is known is never refused here.
                let _ = self.hello(state, draft, hello, Delivery::Live, now)?;
            }
            Ok(())
        })
    }

    /// Says again what may have been lost with a connection.
    pub fn reconnected(&self, now: UnixMillis) -> Result<(), FleetError> {
        self.change(now, |state, draft| {
            draft.outgoing.push(Outgoing::Publish(Job::Statements));
            // Before what the same names are to be told now.
            Self::clear_again(state, draft);
            for record in state.devices.admitted() {
                self.say_again(state, draft, &record)?;
                self.say_pause_again(draft, &record, now)?;
            }
            Ok(())
        })
    }

    fn take_in_one(
        &self,
        state: &mut State,
        draft: &mut Draft,
        batch: &mut Batch<'_>,
        device: &DeviceId,
        message: &Message,
        now: UnixMillis,
    ) -> Result<(), FleetError> {
        if message.payload.is_empty() && matches!(message.topic, Topic::Hello(_)) {
            // What takes a kept hello away says nothing itself.
            return Ok(());
        }
        let known = state.devices.member(device);
        if known.as_ref().is_some_and(|member| member.is_revoked())
            && !matches!(message.topic, Topic::Enrol(_))
        {
            self.refused(draft, device, &Refused::Revoked);
            return Ok(());
        }
        batch.next(&message.topic);
        let sender = known.map(|member| batch.sender(member));
        let taken = match hear(&message.topic, &message.payload, &self.id, sender, now) {
            Ok(Heard::Hello(hello)) if state.is_cleared(&hello, message.delivery) => Ok(()),
            Ok(Heard::Hello(mut hello)) => {
                if message.delivery == Delivery::Earlier {
                    hello.presence = Presence::Offline;
                }
                self.hello(state, draft, *hello, message.delivery, now)?
            }
            Ok(Heard::Enrolment(enrolment)) => self.enrol(state, draft, *enrolment, now)?,
            Ok(Heard::Event(event)) => self.event(state, draft, *event, now)?,
            Ok(Heard::Report { report, message }) => {
                let taken = self.report(state, batch, (&report, &message), now)?;
                batch.take_back(report);
                taken
            }
            Ok(Heard::Sample(sample)) => self.sample(state, &sample, now)?,
            Err(refused) => Err(refused),
        };
        match taken {
            Err(refused) => self.refused(draft, device, &refused),
            Ok(()) if message.delivery == Delivery::Live => self.is_there(state, draft, device, now)?,
            Ok(()) => {}
        }
        Ok(())
    }

    /// A device has just spoken; perhaps it was taken for gone.
    fn is_there(
        &self,
        state: &mut State,
        draft: &mut Draft,
        device: &DeviceId,
        now: UnixMillis,
    ) -> Result<(), FleetError> {
        if !state.devices.member(device).is_some_and(|member| member.is_presumed_gone()) {
            return Ok(());
        }
        let Some(record) = state.devices.get(device) else {
            return Ok(());
        };
        let hello = Hello { presence: Presence::Online, ..record.hello };
        // What it said itself is never refused here.
        let _ = self.enrolled(state, draft, hello, Delivery::Live, now)?;
        Ok(())
    }

    fn hello(
        &self,
        state: &mut State,
        draft: &mut Draft,
        hello: Hello,
        delivery: Delivery,
        now: UnixMillis,
    ) -> Result<Result<(), Refused>, FleetError> {
        if state.is_revoked(&hello.key) {
            return Ok(Err(Refused::Revoked));
        }
        if self.policy == Policy::Token && !state.devices.contains(&hello.device) {
            return Ok(Err(Refused::NotEnrolled));
        }
        self.enrolled(state, draft, hello, delivery, now)
    }

    /// Takes in a hello of a device that may be one of the fleet.
    pub(super) fn enrolled(
        &self,
        state: &mut State,
        draft: &mut Draft,
        mut hello: Hello,
        delivery: Delivery,
        now: UnixMillis,
    ) -> Result<Result<(), Refused>, FleetError> {
        let device = hello.device.clone();
        let record = match state.devices.get(&device) {
            Some(known) => {
                let mut record = known.clone();
                if hello.boot == known.hello.boot {
                    // Alive where it was taken for gone, over the connection that was taken for over.
                    let is_there = known.presumed_gone
                        && delivery == Delivery::Live
                        && hello.turn.connection == known.hello.turn.connection;
                    if !is_there && !is_news(&known.hello, &hello) {
                        return Ok(Err(Refused::Stale));
                    }
                } else {
                    if record.past_boots.contains(&hello.boot) {
                        return Ok(Err(Refused::Stale));
                    }
                    record.past_boots.push(known.hello.boot);
                    let over = record.past_boots.len().saturating_sub(MAX_PAST_BOOTS);
                    record.past_boots.drain(..over);
                }
                // A last will was written when the connection began; only its absence is news.
                if hello.presence == Presence::Offline {
                    let (boot, turn) = (hello.boot, hello.turn);
                    hello = Hello { presence: Presence::Offline, boot, turn, ..known.hello.clone() };
                } else {
                    record.last_seen = now;
                }
                record.presumed_gone = hello.presence == Presence::Offline && delivery == Delivery::Earlier;
                record.hello = hello;
                record
            }
            None if state.devices.len() >= MAX_DEVICES => {
                return Ok(Err(Refused::FleetFull));
            }
            None => {
                info!(%device, key = %hello.key, "a new device");
                DeviceRecord {
                    key: hello.key,
                    hello,
                    first_seen: now,
                    last_seen: now,
                    last_event: EventNumber(0),
                    last_move: None,
                    revoked: None,
                    safe_mode: false,
                    presumed_gone: delivery == Delivery::Earlier,
                    paused_until: None,
                    past_boots: Vec::new(),
                    tags: Tags::new(),
                }
            }
        };
        self.store.put_device(&record)?;
        let sighting = Sighting::from(&record);
        draft.happenings.push(Happening::Device(Box::new(record.clone())));
        if record.hello.presence == Presence::Online {
            self.say_again(state, draft, &record)?;
            self.say_pause_again(draft, &record, now)?;
        }
        state.devices.put(&record)?;
        self.tell_rollouts(state, draft, now, &RolloutEvent::DeviceSeen(sighting))?;
        Ok(Ok(()))
    }

    fn event(
        &self,
        state: &mut State,
        draft: &mut Draft,
        event: Event,
        now: UnixMillis,
    ) -> Result<Result<(), Refused>, FleetError> {
        let device = event.device.clone();
        let Some(mut record) = state.devices.get(&device) else {
            return Ok(Err(Refused::UnknownDevice));
        };
        draft.acknowledge.insert(device.clone());
        let gap = state.gaps.get(&device).copied();
        match place(record.last_event, gap, event.number) {
            Place::Known => return Ok(Ok(())),
            Place::AfterGap(first) => {
                debug!(%device, number = %event.number, last = %record.last_event, "events are missing");
                state.gaps.insert(device, first);
                return Ok(Ok(()));
            }
            Place::Next => {
                state.gaps.remove(&device);
            }
        }
        record.last_event = event.number;
        record.last_seen = now;
        record.hello.sequence = record.hello.sequence.max(event.sequence);
        if let EventKind::Transition { release, to, reason, .. } = &event.kind {
            record.last_move =
                Some(Move { at: now, release: release.clone(), to: *to, reason: reason.clone() });
        }
        if let Some(safe) = safe_mode(&event.kind) {
            record.safe_mode = safe;
        }
        self.store.add_event(&event)?;
        self.store.put_device(&record)?;
        state.devices.put(&record)?;
        self.metrics.event(&event.kind);
        draft.happenings.push(Happening::Event(Box::new(event.clone())));
        self.act_on(state, draft, event, now)?;
        Ok(Ok(()))
    }

    fn act_on(
        &self,
        state: &mut State,
        draft: &mut Draft,
        event: Event,
        now: UnixMillis,
    ) -> Result<(), FleetError> {
        let Event { device, kind, .. } = event;
        match kind {
            EventKind::Transition { release, to, reason, .. } => {
                info!(%device, %release, phase = %to, "device moved");
                let moved = RolloutEvent::DeviceTransition { device, release, to, reason };
                self.tell_rollouts(state, draft, now, &moved)
            }
            EventKind::WorkerDied { release, .. } => {
                let crashed = RolloutEvent::DeviceCrashed { device, release };
                self.tell_rollouts(state, draft, now, &crashed)
            }
            EventKind::ChunksMissing { object, first, count } => {
                warn!(%device, %object, first, count, "chunks are missing at the broker");
                let ours = state.releases.values().any(|facts| facts.has_object(&object));
                if ours {
                    let count = count.min(MAX_CHUNKS_AGAIN);
                    draft.outgoing.push(Outgoing::Publish(Job::Chunks { object, first, count }));
                }
                Ok(())
            }
            // Kept and shown. Where slots have changed, a hello says so.
            EventKind::FieldRollback { .. }
            | EventKind::Pinned { .. }
            | EventKind::Unpinned { .. }
            | EventKind::Held { .. }
            | EventKind::Plan { .. }
            | EventKind::Planned { .. }
            | EventKind::Waiting { .. }
            | EventKind::Refused { .. }
            | EventKind::JournalLost { .. }
            | EventKind::Sideloaded { .. }
            | EventKind::Enrolled { .. }
            | EventKind::CrashLoop { .. }
            | EventKind::EventsLost { .. }
            | EventKind::ReportsDropped { .. } => Ok(()),
        }
    }
}

/// What an event says about the safe mode of its device: entered, or left because another release runs or an
/// engineer said so.
const fn safe_mode(kind: &EventKind) -> Option<bool> {
    match kind {
        EventKind::CrashLoop { action: CrashAction::SafeMode, .. } => Some(true),
        EventKind::Transition { to: Phase::Probation | Phase::Committed | Phase::RolledBack, .. }
        | EventKind::FieldRollback { .. }
        | EventKind::Unpinned { .. } => Some(false),
        EventKind::CrashLoop { .. }
        | EventKind::Transition { .. }
        | EventKind::Plan { .. }
        | EventKind::ChunksMissing { .. }
        | EventKind::Pinned { .. }
        | EventKind::Held { .. }
        | EventKind::WorkerDied { .. }
        | EventKind::Refused { .. }
        | EventKind::EventsLost { .. }
        | EventKind::ReportsDropped { .. }
        | EventKind::Sideloaded { .. }
        | EventKind::Enrolled { .. }
        | EventKind::Planned { .. }
        | EventKind::Waiting { .. }
        | EventKind::JournalLost { .. } => None,
    }
}

/// Whether `hello` was said after what is `known` of the same start of the agent. With the last will or a
/// goodbye a connection is over; a broker repeats the last hello that it keeps.
fn is_news(known: &Hello, hello: &Hello) -> bool {
    match (known.presence, hello.presence) {
        (_, Presence::Offline) => hello.turn.connection >= known.turn.connection,
        (Presence::Offline, Presence::Online) => hello.turn.connection > known.turn.connection,
        (Presence::Online, Presence::Online) => hello.turn >= known.turn,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Stored before.
    Known,
    /// To be stored.
    Next,
    /// Some before it are missing; this is the first number behind the gap.
    AfterGap(EventNumber),
}

/// Where an event stands among those stored. Devices send all that is unacknowledged in order, and again
/// until acknowledged. So if the first number behind a gap comes again and nothing before it came in
/// between, the device has nothing before it: the gap is real.
fn place(last: EventNumber, gap: Option<EventNumber>, number: EventNumber) -> Place {
    if number <= last {
        return Place::Known;
    }
    if number.0 == last.0 + 1 || gap == Some(number) {
        return Place::Next;
    }
    Place::AfterGap(gap.map_or(number, |gap| gap.min(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_taken_once_and_in_order() {
        let number = EventNumber;
        assert_eq!(place(number(0), None, number(1)), Place::Next);
        assert_eq!(place(number(5), None, number(5)), Place::Known);
        assert_eq!(place(number(5), None, number(6)), Place::Next);
    }

    #[test]
    fn a_gap_is_believed_when_the_device_begins_behind_it_again() {
        let number = EventNumber;
        // 3 and 4 were lost on the way: the device sends them again first.
        assert_eq!(place(number(2), None, number(5)), Place::AfterGap(number(5)));
        assert_eq!(place(number(2), Some(number(5)), number(6)), Place::AfterGap(number(5)));
        assert_eq!(place(number(2), Some(number(5)), number(3)), Place::Next);
        // The device has no 3 and 4.
        assert_eq!(place(number(2), Some(number(5)), number(5)), Place::Next);
    }
}
