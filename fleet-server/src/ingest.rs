//! From bytes on a topic to a message that its device said, or a named refusal. Nothing here changes
//! anything; [`crate::fleet`] does with what passes.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use serin_protocol::enrolment::{Enrolment, EnrolmentRefusal};
use serin_protocol::envelope::{KeyId, KeyRing, OpenError, PublicKey, Signed, open, open_self_signed};
use serin_protocol::ids::{DeviceId, FleetId, UnixMillis};
use serin_protocol::manifest::MAX_FEATURES;
use serin_protocol::message::{Comparison, Event, Hello, Report};
use serin_protocol::review::Sample;
use serin_protocol::sketch::{Histogram, MAX_SEGMENTS, Quality};
use serin_protocol::tag::{TagKey, open_tagged};
use serin_protocol::topic::Topic;

/// Longest window that a device may report on, in milliseconds: two days, twice what an agent can be
/// configured to.
const MAX_WINDOW_MILLIS: u64 = 2 * 24 * 3600 * 1000;

/// How far ahead of the server's clock a window may end, in milliseconds. Device clocks drift; a day is a
/// clock that was never set.
const MAX_AHEAD_MILLIS: u64 = 24 * 3600 * 1000;

/// What a device said.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// Who it is and what it holds.
    Hello(Box<Hello>),
    /// What happened there.
    Event(Box<Event>),
    /// What a release did there.
    Report {
        /// The report.
        report: Box<Report>,
        /// The same as it came, without its envelope.
        message: Bytes,
    },
    /// A row that people may look at.
    Sample(Box<Sample>),
    /// It asks to be one of the fleet.
    Enrolment(Box<Enrolment>),
}

/// A key of ours under which a device may tag reports.
#[derive(Clone, Copy, Debug)]
pub struct Signer<'a> {
    /// Its name.
    pub id: KeyId,
    /// The key.
    pub key: &'a SigningKey,
}

impl<'a> Signer<'a> {
    /// `key` with its name.
    pub fn new(key: &'a SigningKey) -> Self {
        Self { id: PublicKey::of(key).id(), key }
    }
}

/// A known device, whose topic it is.
#[derive(Debug)]
pub struct Sender<'a> {
    /// Its key.
    pub key: PublicKey,
    /// Those of our keys that it may have tagged reports for.
    pub signers: &'a [Signer<'a>],
    /// What it has in common with the one it tagged for last; drawn when it is first needed, as
    /// that takes about as long as to check a signature.
    pub tag: &'a mut Option<TagKey>,
    /// Memory for a report, which is taken for the one that is heard.
    pub spare: &'a mut Option<Box<Report>>,
}

impl<'a> Sender<'a> {
    /// What it has in common with our key `server`, if it may tag for that.
    fn tag_key(self, server: &KeyId) -> Option<&'a TagKey> {
        let signer = self.signers.iter().find(|signer| signer.id == *server)?;
        let device = self.key.id();
        if self.tag.as_ref().is_none_or(|drawn| drawn.server() != *server || drawn.device() != device) {
            *self.tag = TagKey::of_server(signer.key, &self.key).ok();
        }
        self.tag.as_ref()
    }
}

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Larger than its topic allows.
    #[error("{actual} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
        /// Bytes received.
        actual: usize,
    },
    /// On a topic that devices do not write to, or that nothing is expected on.
    #[error("nothing is expected on this topic")]
    Topic,
    /// Not in an envelope that opens with the device's key.
    #[error(transparent)]
    Envelope(OpenError),
    /// The device has another key than the one it came with first.
    #[error("signed with another key than the device's first")]
    OtherKey,
    /// The device has not said hello yet.
    #[error("the device is not known")]
    UnknownDevice,
    /// The message is about another device than its topic.
    #[error("the message is about {0}")]
    OtherDevice(DeviceId),
    /// The message is about another fleet.
    #[error("the message is about the fleet {0}")]
    OtherFleet(FleetId),
    /// The message contradicts itself.
    #[error("the message contradicts itself: {0}")]
    Insane(&'static str),
    /// The device has not enrolled.
    #[error("the device has not enrolled")]
    NotEnrolled,
    /// It asked to enrol and may not.
    #[error("not enrolled: {0}")]
    Enrolment(EnrolmentRefusal),
    /// The device was cut off.
    #[error("the device was revoked")]
    Revoked,
    /// Said by a run of the agent that is over: somebody says it again.
    #[error("the hello is of an earlier start of the agent")]
    Stale,
    /// There are as many devices as there may be.
    #[error("the fleet is full")]
    FleetFull,
    /// The report is about a release that is not in the registry, or uses bins other than its own.
    #[error("the report does not fit any release here")]
    NotOurs,
    /// The release's owner does not allow this sample.
    #[error("the release's owner does not allow this sample")]
    NotReviewed,
}

impl Refused {
    /// A short name for counting.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } | Self::Envelope(OpenError::TooLarge { .. }) => "too_large",
            Self::Topic => "topic",
            Self::Envelope(OpenError::UnknownKey(_)) | Self::OtherKey => "other_key",
            Self::Envelope(OpenError::Signature(_) | OpenError::Purpose { .. }) => "signature",
            Self::Envelope(OpenError::Tag(_) | OpenError::Tagged) => "tag",
            Self::Envelope(OpenError::UnknownServer(_)) => "other_server",
            Self::Envelope(
                OpenError::Empty | OpenError::Version(_) | OpenError::Malformed(_) | OpenError::Trailing(_),
            ) => "malformed",
            Self::UnknownDevice => "unknown_device",
            Self::OtherDevice(_) => "other_device",
            Self::OtherFleet(_) => "other_fleet",
            Self::Insane(_) => "insane",
            Self::NotEnrolled => "not_enrolled",
            Self::Enrolment(_) => "enrolment",
            Self::Stale => "stale",
            Self::Revoked => "revoked",
            Self::FleetFull => "fleet_full",
            Self::NotOurs => "not_ours",
            Self::NotReviewed => "not_reviewed",
        }
    }
}

/// Opens what arrived on `topic` from its `sender`, if that device is known. A first hello brings its own key.
pub fn hear(
    topic: &Topic,
    payload: &Bytes,
    fleet: &FleetId,
    sender: Option<Sender<'_>>,
    now: UnixMillis,
) -> Result<Heard, Refused> {
    let key = sender.as_ref().map(|sender| sender.key);
    let limit = topic.max_payload();
    if payload.len() > limit {
        return Err(Refused::TooLarge { limit, actual: payload.len() });
    }
    match topic {
        Topic::Hello(device) => hello(device, payload, fleet, key),
        Topic::Event(device) => {
            let event: Event = known(payload, key)?;
            same(device, &event.device)?;
            if event.number.0 == 0 {
                return Err(Refused::Insane("events are numbered from 1"));
            }
            Ok(Heard::Event(Box::new(event)))
        }
        Topic::Report(device) => {
            let sender = sender.ok_or(Refused::UnknownDevice)?;
            let (key, spare) = (sender.key, sender.spare.take());
            let opened = open_tagged::<Report>(payload, &key, |server| sender.tag_key(server), spare);
            let (report, message) = opened.map_err(refused)?;
            same(device, &report.device)?;
            check_report(&report, now).map_err(Refused::Insane)?;
            Ok(Heard::Report { report, message: payload.slice_ref(message) })
        }
        Topic::Enrol(device) => {
            let opened = open_self_signed(payload, |enrolment: &Enrolment| enrolment.hello.key);
            let (enrolment, _) = opened.map_err(Refused::Envelope)?;
            same(device, &enrolment.hello.device)?;
            if enrolment.hello.fleet != *fleet {
                return Err(Refused::OtherFleet(enrolment.hello.fleet));
            }
            Ok(Heard::Enrolment(Box::new(enrolment)))
        }
        Topic::Sample(device) => {
            let sample: Sample = known(payload, key)?;
            same(device, &sample.device)?;
            if !sample.is_sane() {
                return Err(Refused::Insane("a sample whose values are not what its headers say"));
            }
            Ok(Heard::Sample(Box::new(sample)))
        }
        Topic::Metadata(_)
        | Topic::Chunk { .. }
        | Topic::Assign(_)
        | Topic::Ack(_)
        | Topic::Enrolled(_)
        | Topic::Pause(_) => Err(Refused::Topic),
    }
}

fn hello(
    device: &DeviceId,
    payload: &[u8],
    fleet: &FleetId,
    key: Option<PublicKey>,
) -> Result<Heard, Refused> {
    let hello: Hello = match key {
        Some(key) => {
            let hello: Hello = known(payload, Some(key))?;
            if hello.key != key {
                return Err(Refused::OtherKey);
            }
            hello
        }
        None => open_self_signed(payload, |hello: &Hello| hello.key).map_err(Refused::Envelope)?.0,
    };
    same(device, &hello.device)?;
    if hello.fleet != *fleet {
        return Err(Refused::OtherFleet(hello.fleet));
    }
    Ok(Heard::Hello(Box::new(hello)))
}

fn known<T: Signed>(payload: &[u8], key: Option<PublicKey>) -> Result<T, Refused> {
    let keys = KeyRing::<1>::new(key).filter(|_| key.is_some()).ok_or(Refused::UnknownDevice)?;
    open(payload, &keys).map_err(refused)
}

/// Of a device whose key is known.
fn refused(error: OpenError) -> Refused {
    match error {
        OpenError::UnknownKey(_) => Refused::OtherKey,
        OpenError::TooLarge { .. }
        | OpenError::Empty
        | OpenError::Version(_)
        | OpenError::Malformed(_)
        | OpenError::Trailing(_)
        | OpenError::Signature(_)
        | OpenError::Tagged
        | OpenError::UnknownServer(_)
        | OpenError::Tag(_)
        | OpenError::Purpose { .. } => Refused::Envelope(error),
    }
}

fn same(topic: &DeviceId, message: &DeviceId) -> Result<(), Refused> {
    if topic == message { Ok(()) } else { Err(Refused::OtherDevice(message.clone())) }
}

fn check_report(report: &Report, now: UnixMillis) -> Result<(), &'static str> {
    let length = report.end.0.checked_sub(report.start.0).filter(|length| *length > 0);
    if length.is_none_or(|length| length > MAX_WINDOW_MILLIS) {
        return Err("the window is empty or longer than two days");
    }
    if report.end.0 > now.0.saturating_add(MAX_AHEAD_MILLIS) {
        return Err("the window lies in the future");
    }
    if report.errors > report.requests {
        return Err("more errors than requests");
    }
    if usize::from(report.first_feature) + report.features.len() > MAX_FEATURES {
        return Err("too many features");
    }
    if usize::from(report.segment.0) >= MAX_SEGMENTS {
        return Err("there are five segments at most");
    }
    if !report.quality.as_ref().is_none_or(Quality::is_sane) {
        return Err("truths that cannot have come from counting");
    }
    let outputs = [&report.predictions, &report.confidence, &report.entropy];
    if !report.features.iter().chain(outputs).all(Histogram::is_sane) {
        return Err("a sketch that cannot have come from counting");
    }
    if !report.comparison.as_ref().is_none_or(Comparison::is_sane) {
        return Err("a comparison that cannot have come from comparing");
    }
    Ok(())
}

#[cfg(test)]
#[path = "ingest_tests.rs"]
mod tests;
