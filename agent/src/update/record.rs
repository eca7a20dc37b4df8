//! The durable state of the update machine: the payload of the boot record, and the only thing that
//! decides what runs.

use serde::{Deserialize, Serialize};
use serin_protocol::assignment::{Probation, ReleaseRef, TrialMode};
use serin_protocol::ids::{ByteCount, Digest, EventNumber, ReleaseId, RolloutId, SequenceNumber, UnixMillis};
use serin_protocol::message::EventKind;
use serin_protocol::trust::MetadataVersion;

/// Written first; another value is another program's record.
pub const FORMAT: u8 = 8;

/// The first format. Each later one has one more field at the end, whose empty value is a zero byte: 2 has
/// `held`, 3 has `sideload`, 4 has `urgent`, 5 has `root_floor`, 6 has `safe_mode`,
/// 7 has `tellings`, 8 has `tried`.
const FIRST_FORMAT: u8 = 1;

/// A field engineer's word that no order of the fleet is taken for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The local user.
    pub by: u32,
    /// It is over then.
    pub until: UnixMillis,
}

/// That the unfinished update was brought by a field engineer, and no assignment ordered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brought {
    /// The local user.
    pub by: u32,
    /// Memory limit of its worker: what would be read from its statement, which cannot be fetched.
    pub memory: ByteCount,
}

/// The highest root that was trusted: no refresh of the trusted metadata ends below it, even when the kept
/// roots are damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFloor {
    /// The digest of the configured root from which it was reached; it says nothing about others.
    pub configured: Digest,
    /// Its version.
    pub version: MetadataVersion,
}

/// A release on disk that can be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Model and version.
    pub release: ReleaseId,
    /// Digest of its signed statement, which also names its directory.
    pub statement: Digest,
    /// Memory limit of its worker.
    pub memory: ByteCount,
    /// How far it is trusted.
    pub standing: Standing,
}

/// How far a release on this device is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It answers, but its probation is not over.
    Unproven,
    /// It passed its probation here.
    Proven,
    /// It was taken back by the device or the fleet; only an explicit order brings it back.
    Condemned,
}

impl Slot {
    /// The slot as an assignment would name it.
    pub fn reference(&self) -> ReleaseRef {
        ReleaseRef { id: self.release.clone(), statement: self.statement }
    }
}

/// How far an unfinished update had come when it was last written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    /// Accepted; nothing of it is on disk but perhaps a partial download.
    Assigned,
    /// Unpacked and checked.
    Staged,
    /// It is the active slot and being watched.
    Probation,
}

/// An update that has neither been committed nor given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The assignment that ordered it.
    pub sequence: SequenceNumber,
    /// Its rollout.
    pub rollout: Option<RolloutId>,
    /// What is to run.
    pub target: ReleaseRef,
    /// How it is watched.
    pub probation: Probation,
    /// Given up if not answering by then.
    pub expires: UnixMillis,
    /// How far it came.
    pub progress: Progress,
}

/// Most events that are said about one write: an update given up for another, what takes its place, and who
/// did so.
pub const MAX_TELLINGS: usize = 4;

/// What is to be said about a write.
pub type Tellings = heapless::Vec<Telling, MAX_TELLINGS>;

/// An event that is to be said once what it is about is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telling {
    /// The assignment in force.
    pub sequence: SequenceNumber,
    /// The rollout of that assignment.
    pub rollout: Option<RolloutId>,
    /// What happened.
    pub kind: EventKind,
}

/// Everything that must survive a power cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Always [`FORMAT`].
    pub format: u8,
    /// The release that answers.
    pub active: Option<Slot>,
    /// The release to return to.
    pub previous: Option<Slot>,
    /// The local user who pinned what runs.
    pub pinned_by: Option<u32>,
    /// Highest assignment accepted.
    pub accepted: SequenceNumber,
    /// Rollout of that assignment.
    pub rollout: Option<RolloutId>,
    /// The unfinished update.
    pub attempt: Option<Attempt>,
    /// Highest signed time seen: the device's clock is never taken to be earlier.
    pub clock_floor: UnixMillis,
    /// No event below this number is free: numbering goes on above it even when the journal is lost.
    pub event_floor: EventNumber,
    /// No order of the fleet is taken for a while.
    pub held: Option<Hold>,
    /// A field engineer brought the unfinished update. Of no meaning without one: see [`Record::brought`].
    pub sideload: Option<Brought>,
    /// Local conditions do not hold up the installation of the unfinished update: it takes another one back.
    pub urgent: bool,
    /// The highest root that was trusted.
    pub root_floor: Option<RootFloor>,
    /// After a crash loop: no release runs until the device is told to run another.
    pub safe_mode: bool,
    /// What was to be said about this write, in order.
    pub tellings: Tellings,
    /// The unfinished update is only to be tried. Of no meaning without one: see [`Record::trial`].
    pub tried: Option<TrialMode>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            format: FORMAT,
            active: None,
            previous: None,
            pinned_by: None,
            accepted: SequenceNumber(0),
            rollout: None,
            attempt: None,
            clock_floor: UnixMillis(0),
            event_floor: EventNumber(0),
            held: None,
            sideload: None,
            urgent: false,
            root_floor: None,
            safe_mode: false,
            tellings: Tellings::new(),
            tried: None,
        }
    }
}

/// The payload of a boot record cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes are no record.
    #[error("the boot record's contents are malformed: {0}")]
    Malformed(postcard::Error),
    /// Another program's, or a later version's.
    #[error("the boot record has format {0}, this agent reads {FORMAT}")]
    Format(u8),
}

impl Record {
    /// Decodes the payload of a boot record.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut upgraded;
        let mut bytes = bytes;
        if let Some((format @ FIRST_FORMAT..FORMAT, body)) = bytes.split_first() {
            // Where the new fields would be, that there is nothing.
            upgraded = vec![FORMAT];
            upgraded.extend_from_slice(body);
            upgraded.resize(upgraded.len() + usize::from(FORMAT - format), 0);
            bytes = &upgraded;
        }
        match bytes.first() {
            Some(&FORMAT) => {}
            Some(other) => return Err(RecordError::Format(*other)),
            None => return Err(RecordError::Malformed(postcard::Error::DeserializeUnexpectedEnd)),
        }
        let (record, rest) = postcard::take_from_bytes::<Self>(bytes).map_err(RecordError::Malformed)?;
        if rest.is_empty() {
            Ok(record)
        } else {
            Err(RecordError::Malformed(postcard::Error::DeserializeBadEncoding))
        }
    }

    /// Encodes the payload of a boot record: under 4 KiB.
    pub fn encode(&self) -> Vec<u8> {
        // Plain data into a growing vector: postcard has nothing to fail on.
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// Who brought the unfinished update; none when the fleet ordered it or there is none.
    pub const fn brought(&self) -> Option<Brought> {
        if self.attempt.is_some() { self.sideload } else { None }
    }

    /// How the unfinished update is tried; none when it is to answer or there is none.
    pub const fn trial(&self) -> Option<TrialMode> {
        if self.attempt.is_some() { self.tried } else { None }
    }

    /// Whether a field engineer decides what runs here.
    pub const fn kept_on_site(&self) -> bool {
        self.pinned_by.is_some() || self.held.is_some() || self.brought().is_some()
    }

    /// What is to be said at start when `next_event` is the next event's number: of what was to be said about this
    /// write, all but as many as have been numbered since.
    pub fn unsaid(&self, next_event: EventNumber) -> &[Telling] {
        let said = usize::try_from(next_event.0.saturating_sub(self.event_floor.0)).unwrap_or(usize::MAX);
        self.tellings.get(said..).unwrap_or_default()
    }

    /// Releases that garbage collection must not touch.
    pub fn named(&self) -> Vec<Digest> {
        let slots = self.active.iter().chain(&self.previous).map(|slot| slot.statement);
        slots.chain(self.attempt.iter().map(|attempt| attempt.target.statement)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_survives_and_another_format_is_named() {
        let record = Record { accepted: SequenceNumber(7), ..Record::default() };
        assert_eq!(Record::decode(&record.encode()), Ok(record.clone()));
        let mut before = record.encode();
        for format in (FIRST_FORMAT..FORMAT).rev() {
            assert_eq!(before.pop(), Some(0));
            before[0] = format;
            assert_eq!(
                Record::decode(&before),
                Ok(record.clone()),
                "an agent that is updated keeps its slots"
            );
        }
        let mut later = record.encode();
        later[0] = 9;
        assert_eq!(Record::decode(&later), Err(RecordError::Format(9)));
    }

    #[test]
    fn what_was_written_and_never_said_is_said_once_more() {
        let telling =
            |uid| Telling { sequence: SequenceNumber(1), rollout: None, kind: EventKind::Unpinned { uid } };
        let tellings = Tellings::from_iter([telling(1), telling(2)]);
        let record = Record { event_floor: EventNumber(7), tellings, ..Record::default() };
        let unsaid = |next| record.unsaid(EventNumber(next)).to_vec();
        assert_eq!(unsaid(7), [telling(1), telling(2)]);
        assert_eq!(unsaid(8), [telling(2)]);
        assert_eq!(unsaid(9), [], "both have been numbered");
        assert_eq!(unsaid(u64::MAX), []);
        assert_eq!(Record::decode(&record.encode()), Ok(record.clone()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes: Vec<u8>) {
            let _ = Record::decode(&bytes);
        }
    }
}
