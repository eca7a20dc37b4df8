//! Taking in what devices say: size, signature, sender, then store once, then tell the rollouts. A bad
//! message is counted by reason and changes nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serin_protocol::envelope::{KeyRing, OpenError, Signed, open, open_self_signed, seal_to_vec};
use serin_protocol::ids::{DeviceId, EventNumber};
use serin_protocol::message::{Ack, Event, EventKind, Hello, Report};
use serin_protocol::topic::{Topic, TopicError};

use super::view::named;
use super::{Fleet, FleetError, Notice, Outgoing, now};
use crate::rollout::event::{RolloutEvent, Sighting};
use crate::store::{DeviceRecord, Move, StoreError};

/// Counts of what came in, by outcome.
#[derive(Debug, Default)]
pub struct Metrics(Mutex<BTreeMap<&'static str, u64>>);

impl Metrics {
    /// Adds one.
    pub fn count(&self, outcome: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(outcome).or_default() += 1;
    }

    /// All counts.
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(outcome, count)| (*outcome, *count)).collect()
    }
}

/// Why a message was refused.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the topic is refused: {0}")]
    Topic(#[from] TopicError),
    #[error("{0}")]
    Open(#[from] OpenError),
    #[error("it is about {0}")]
    OtherDevice(DeviceId),
    #[error("the device has not said hello yet")]
    Unknown,
    #[error("the device came with another key than at first; remove the device to accept a new one")]
    OtherKey,
    #[error("it contradicts itself")]
    Inconsistent,
    #[error("event {got} came before event {wanted}")]
    Gap { wanted: u64, got: u64 },
    #[error("this topic is not for devices")]
    NotUplink,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Fleet(#[from] FleetError),
}

impl Refused {
    const fn name(&self) -> &'static str {
        match self {
            Self::Topic(_) => "unknown_topic",
            Self::Open(OpenError::TooLarge { .. }) => "too_large",
            Self::Open(OpenError::Signature(_) | OpenError::UnknownKey(_)) => "bad_signature",
            Self::Open(_) => "malformed",
            Self::OtherDevice(_) => "other_device",
            Self::Unknown => "unknown_device",
            Self::OtherKey => "other_key",
            Self::Inconsistent => "inconsistent",
            Self::Gap { .. } => "out_of_order",
            Self::NotUplink => "not_uplink",
            Self::Store(_) | Self::Fleet(_) => "failed",
        }
    }
}

/// What follows from a message once everything is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ingested {
    /// Nothing.
    Nothing,
    /// The device is to be told that its events up to this one are stored.
    Acknowledge(DeviceId, EventNumber),
}

impl Fleet {
    /// Takes in one message. Acknowledge only after [`Fleet::commit`].
    pub fn ingest(&self, topic: &str, payload: &[u8]) -> Ingested {
        match self.take_in(topic, payload) {
            Ok(ingested) => ingested,
            Err(refused) => {
                self.metrics.count(refused.name());
                tracing::warn!(topic, reason = %refused, "message refused");
                Ingested::Nothing
            }
        }
    }

    /// Tells a device what is stored.
    pub fn acknowledge(&self, device: DeviceId, stored: EventNumber) {
        match seal_to_vec(&Ack { device: device.clone(), stored }, &self.key) {
            Ok(sealed) => self.send(Outgoing::Say(Topic::Ack(device), sealed)),
            Err(error) => tracing::error!(%error, "an acknowledgement could not be signed"),
        }
    }

    fn take_in(&self, topic: &str, payload: &[u8]) -> Result<Ingested, Refused> {
        match Topic::parse(&self.id, topic)? {
            Topic::Hello(device) => self.hello(&device, payload),
            Topic::Event(device) => self.event(&device, payload),
            Topic::Report(device) => self.report(&device, payload),
            Topic::Sample(_) | Topic::Metadata(_) | Topic::Chunk { .. } | Topic::Assign(_) | Topic::Ack(_) => {
                Err(Refused::NotUplink)
            }
        }
    }

    fn hello(&self, device: &DeviceId, payload: &[u8]) -> Result<Ingested, Refused> {
        if payload.is_empty() {
            return Ok(Ingested::Nothing);
        }
        let (hello, key) = open_self_signed::<Hello>(payload, |hello| hello.key)?;
        if hello.device != *device || hello.fleet != self.id {
            return Err(Refused::OtherDevice(hello.device));
        }
        let known = self.store.device(device)?;
        if known.as_ref().is_some_and(|record| record.key != key) {
            return Err(Refused::OtherKey);
        }
        self.metrics.count("hello");
        let at = now();
        let sighting = Sighting::from(&hello);
        let notice = Notice::Device {
            device: device.clone(),
            presence: hello.presence,
            active: named(hello.active.as_ref()),
            pinned: hello.pinned,
        };
        let record = match known {
            Some(record) => DeviceRecord { hello, last_seen: at, ..record },
            None => DeviceRecord {
                hello,
                key,
                first_seen: at,
                last_seen: at,
                last_event: EventNumber(0),
                last_move: None,
            },
        };
        self.store.put_device(&record)?;
        self.notify(notice);
        self.tell_rollouts(at, &RolloutEvent::DeviceSeen(sighting))?;
        Ok(Ingested::Nothing)
    }

    fn event(&self, device: &DeviceId, payload: &[u8]) -> Result<Ingested, Refused> {
        let (mut record, event) = self.open_from::<Event>(device, payload)?;
        if event.device != *device {
            return Err(Refused::OtherDevice(event.device));
        }
        let wanted = EventNumber(record.last_event.0 + 1);
        if event.number < wanted {
            // A repetition: its acknowledgement was lost.
            self.metrics.count("event_again");
            return Ok(Ingested::Acknowledge(device.clone(), record.last_event));
        }
        // A device whose journal was lost goes on at a higher number; one that is ahead of its own
        // unacknowledged events sends them in order anyway.
        if event.number > wanted && record.last_event.0 > 0 && !is_restart(&event) {
            return Err(Refused::Gap { wanted: wanted.0, got: event.number.0 });
        }
        self.metrics.count("event");
        let at = now();
        self.store.add_event(&event)?;
        record.last_event = event.number;
        record.last_seen = at;
        if let EventKind::Transition { release, to, reason, .. } = &event.kind {
            record.last_move = Some(Move { at, release: release.clone(), to: *to, reason: reason.clone() });
        }
        self.store.put_device(&record)?;
        self.act_on(&event)?;
        Ok(Ingested::Acknowledge(device.clone(), event.number))
    }

    fn act_on(&self, event: &Event) -> Result<(), Refused> {
        let device = event.device.clone();
        match &event.kind {
            EventKind::Transition { release, to, reason, .. } => {
                let (release, to, reason) = (release.clone(), *to, reason.clone());
                tracing::info!(%device, %release, phase = %to, ?reason, "transition");
                self.notify(Notice::Transition {
                    device: device.clone(),
                    release: release.to_string(),
                    to,
                    reason: reason.as_ref().map(ToString::to_string),
                    rollout: event.rollout,
                });
                self.tell_rollouts(now(), &RolloutEvent::DeviceTransition { device, release, to, reason })?;
            }
            EventKind::ChunksMissing { object, first, count } => {
                tracing::info!(%device, %object, first, count, "chunks are to be published again");
                self.send(Outgoing::Repeat(*object, *first, *count));
            }
            EventKind::Plan { .. }
            | EventKind::FieldRollback { .. }
            | EventKind::Pinned { .. }
            | EventKind::Unpinned { .. }
            | EventKind::WorkerDied { .. }
            | EventKind::Refused { .. }
            | EventKind::JournalLost { .. } => {
                self.notify(Notice::Event { device, text: in_words(&event.kind) });
            }
        }
        Ok(())
    }

    fn report(&self, device: &DeviceId, payload: &[u8]) -> Result<Ingested, Refused> {
        let (_, report) = self.open_from::<Report>(device, payload)?;
        if report.device != *device {
            return Err(Refused::OtherDevice(report.device));
        }
        let sketches = report.features.iter().chain([&report.predictions, &report.confidence]);
        if report.end < report.start || !sketches.clone().all(serin_protocol::sketch::Histogram::is_sane) {
            return Err(Refused::Inconsistent);
        }
        let fresh = self.store.add_report(&report)?;
        self.metrics.count(if fresh { "report" } else { "report_again" });
        if fresh {
            self.notify(Notice::Report { device: device.clone(), release: report.release.to_string() });
        }
        Ok(Ingested::Nothing)
    }

    fn open_from<T: Signed>(&self, device: &DeviceId, payload: &[u8]) -> Result<(DeviceRecord, T), Refused> {
        let record = self.store.device(device)?.ok_or(Refused::Unknown)?;
        let keys = KeyRing::<1>::new([record.key]).unwrap_or_default();
        let message = open(payload, &keys)?;
        Ok((record, message))
    }
}

/// Whether an event may leave a gap in the numbers: its device has lost count.
const fn is_restart(event: &Event) -> bool {
    matches!(event.kind, EventKind::JournalLost { .. })
}

/// An event for people.
pub(crate) fn in_words(kind: &EventKind) -> String {
    match kind {
        EventKind::Transition { release, from, to, reason } => match reason {
            Some(reason) => format!("{release}: {from} → {to}, {reason}"),
            None => format!("{release}: {from} → {to}"),
        },
        EventKind::Plan { release, fetch, here } => {
            format!("{release}: {fetch} bytes to fetch, {here} are here")
        }
        EventKind::ChunksMissing { object, first, count } => {
            format!("{count} chunks of {object} from {first} on are missing")
        }
        EventKind::FieldRollback { uid, from, to } => {
            format!("a field engineer (uid {uid}) went back from {from} to {to}")
        }
        EventKind::Pinned { uid, release } => format!("a field engineer (uid {uid}) pinned {release}"),
        EventKind::Unpinned { uid } => format!("a field engineer (uid {uid}) unpinned it"),
        EventKind::WorkerDied { release, death } => format!("the worker of {release} died: {death}"),
        EventKind::Refused { kind, detail } => format!("refused a message ({kind:?}): {detail}"),
        EventKind::JournalLost { detail } => format!("lost its journal: {detail}"),
    }
}
