//! The MQTT topic grammar under `serin/1/<fleet>/`, written and parsed in one place, with the largest
//! payload each topic may carry.

use core::fmt::Write as _;

use crate::chunk::{CHUNK_BYTES, MAX_CHUNKS};
use crate::ids::{DeviceId, Digest, FleetId, NameError};

/// Longest topic in bytes: `serin/1/` + fleet (32) + `/b/` + digest (64) + `/` + index, or + `/t/` + file.
pub const MAX_TOPIC_BYTES: usize = 200;

/// A topic as text.
pub type TopicName = heapless::String<MAX_TOPIC_BYTES>;

/// Name of a metadata file, a single path segment.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FileName(heapless::String<128>);

impl FileName {
    /// Parses `text`: 1 to 128 characters `A-Z a-z 0-9 . _ -`, starting with a letter or digit.
    pub fn new(text: &str) -> Result<Self, TopicError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let starts_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !starts_well || !text.bytes().all(plain) {
            return Err(TopicError::FileName);
        }
        heapless::String::try_from(text).map(Self).map_err(|_| TopicError::FileName)
    }

    /// The file in which the release with this digest is published.
    pub fn of_release(digest: &Digest) -> Self {
        let mut name = heapless::String::new();
        // 64 + 8 characters fit into 128.
        let _ = write!(name, "{digest}.release");
        Self(name)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Everything that is said over MQTT.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Topic {
    /// `t/<file>`: a metadata file; retained, written by the server.
    Metadata(FileName),
    /// `b/<sha256>/<n>`: chunk `index` of an object; retained, written by the server.
    Chunk {
        /// Digest of the whole object.
        object: Digest,
        /// Number of the chunk, from 0.
        index: u32,
    },
    /// `d/<device>/assign`: the device's signed assignment; retained, written by the server.
    Assign(DeviceId),
    /// `d/<device>/up/event`: numbered events.
    Event(DeviceId),
    /// `d/<device>/up/report`: telemetry windows.
    Report(DeviceId),
    /// `d/<device>/up/sample`: review samples.
    Sample(DeviceId),
    /// `d/<device>/up/hello`: presence; retained, also the last will.
    Hello(DeviceId),
    /// `d/<device>/ack`: highest event stored; written by the server.
    Ack(DeviceId),
    /// `d/<device>/up/enrol`: asks to be one of the fleet.
    Enrol(DeviceId),
    /// `d/<device>/enrolled`: the answer; written by the server.
    Enrolled(DeviceId),
    /// `d/<device>/pause`: asks the device to hold back; retained, written by the server.
    Pause(DeviceId),
}

/// Why a text is not one of our topics.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Not under `serin/1/<fleet>/`.
    #[error("the topic is not under serin/1/<this fleet>/")]
    Foreign,
    /// Under our prefix, but no topic we know.
    #[error("no such topic")]
    Unknown,
    /// The file name breaks the grammar.
    #[error("not a metadata file name")]
    FileName,
    /// The object or the chunk number breaks the grammar or the bound.
    #[error("not a chunk: <64 hexadecimal digits>/<number below {MAX_CHUNKS}>")]
    Chunk,
    /// The device id breaks the grammar.
    #[error("not a device id: {0}")]
    Device(#[from] NameError),
}

impl Topic {
    /// The topic as text.
    pub fn name(&self, fleet: &FleetId) -> TopicName {
        let mut name = TopicName::new();
        // MAX_TOPIC_BYTES holds the longest of these; a test proves it.
        let _ = match self {
            Self::Metadata(file) => write!(name, "serin/1/{fleet}/t/{}", file.as_str()),
            Self::Chunk { object, index } => write!(name, "serin/1/{fleet}/b/{object}/{index}"),
            Self::Assign(device) => write!(name, "serin/1/{fleet}/d/{device}/assign"),
            Self::Event(device) => write!(name, "serin/1/{fleet}/d/{device}/up/event"),
            Self::Report(device) => write!(name, "serin/1/{fleet}/d/{device}/up/report"),
            Self::Sample(device) => write!(name, "serin/1/{fleet}/d/{device}/up/sample"),
            Self::Hello(device) => write!(name, "serin/1/{fleet}/d/{device}/up/hello"),
            Self::Ack(device) => write!(name, "serin/1/{fleet}/d/{device}/ack"),
            Self::Enrol(device) => write!(name, "serin/1/{fleet}/d/{device}/up/enrol"),
            Self::Enrolled(device) => write!(name, "serin/1/{fleet}/d/{device}/enrolled"),
            Self::Pause(device) => write!(name, "serin/1/{fleet}/d/{device}/pause"),
        };
        name
    }

    /// Parses a topic of `fleet`. Wildcards are not topics.
    pub fn parse(fleet: &FleetId, text: &str) -> Result<Self, TopicError> {
        let rest = text
            .strip_prefix("serin/1/")
            .and_then(|rest| rest.strip_prefix(fleet.as_str()))
            .and_then(|rest| rest.strip_prefix('/'))
            .ok_or(TopicError::Foreign)?;
        let mut levels = rest.split('/');
        let path = (levels.next(), levels.next(), levels.next(), levels.next(), levels.next());
        match path {
            (Some("t"), Some(file), None, None, None) => FileName::new(file).map(Self::Metadata),
            (Some("b"), Some(object), Some(index), None, None) => parse_chunk(object, index),
            (Some("d"), Some(device), Some("assign"), None, None) => Ok(Self::Assign(device.parse()?)),
            (Some("d"), Some(device), Some("ack"), None, None) => Ok(Self::Ack(device.parse()?)),
            (Some("d"), Some(device), Some("enrolled"), None, None) => Ok(Self::Enrolled(device.parse()?)),
            (Some("d"), Some(device), Some("pause"), None, None) => Ok(Self::Pause(device.parse()?)),
            (Some("d"), Some(device), Some("up"), Some(kind), None) => parse_up(device.parse()?, kind),
            _ => Err(TopicError::Unknown),
        }
    }

    /// The device whose topic this is, if it is one device's.
    pub const fn device(&self) -> Option<&DeviceId> {
        match self {
            Self::Metadata(_) | Self::Chunk { .. } => None,
            Self::Assign(device)
            | Self::Event(device)
            | Self::Report(device)
            | Self::Sample(device)
            | Self::Hello(device)
            | Self::Ack(device)
            | Self::Enrol(device)
            | Self::Enrolled(device)
            | Self::Pause(device) => Some(device),
        }
    }

    /// Largest payload in bytes; anything larger is dropped before it is parsed.
    pub const fn max_payload(&self) -> usize {
        match self {
            // A release statement is under 2 KiB; metadata files must fit the broker's packets of 128 KiB.
            Self::Metadata(_) => 120 * 1024,
            Self::Chunk { .. } => CHUNK_BYTES,
            Self::Assign(_) => crate::assignment::MAX_ASSIGNMENT_BYTES,
            Self::Event(_) => crate::message::MAX_EVENT_BYTES,
            Self::Report(_) => crate::message::MAX_REPORT_BYTES,
            // One opted-in sample with its inputs: `review::MAX_SAMPLE_BYTES`.
            Self::Sample(_) => 32 * 1024,
            Self::Hello(_) => crate::message::MAX_HELLO_BYTES,
            Self::Ack(_) => crate::message::MAX_ACK_BYTES,
            Self::Enrol(_) => crate::enrolment::MAX_ENROLMENT_BYTES,
            Self::Enrolled(_) => crate::enrolment::MAX_ENROLLED_BYTES,
            Self::Pause(_) => crate::pause::MAX_PAUSE_BYTES,
        }
    }
}

/// Filters for the server's own subscriptions: everything the fleet's devices say.
pub fn uplink_filter(fleet: &FleetId) -> TopicName {
    let mut name = TopicName::new();
    let _ = write!(name, "serin/1/{fleet}/d/+/up/+");
    name
}

fn parse_chunk(object: &str, index: &str) -> Result<Topic, TopicError> {
    let object = object.parse().map_err(|_| TopicError::Chunk)?;
    // One spelling per number: no sign, no leading zero.
    let canonical = index == "0" || !index.starts_with(['0', '+']);
    let index: u32 = index.parse().map_err(|_| TopicError::Chunk)?;
    if !canonical || index >= MAX_CHUNKS {
        return Err(TopicError::Chunk);
    }
    Ok(Topic::Chunk { object, index })
}

fn parse_up(device: DeviceId, kind: &str) -> Result<Topic, TopicError> {
    match kind {
        "event" => Ok(Topic::Event(device)),
        "report" => Ok(Topic::Report(device)),
        "sample" => Ok(Topic::Sample(device)),
        "hello" => Ok(Topic::Hello(device)),
        "enrol" => Ok(Topic::Enrol(device)),
        _ => Err(TopicError::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;
    use std::string::String;

    fn fleet() -> FleetId {
        FleetId::new("demo").expect("valid")
    }

    fn any_topic() -> impl Strategy<Value = Topic> {
        let device =
            "[a-z0-9][a-z0-9._-]{0,63}".prop_map(|text: String| DeviceId::new(&text).expect("valid"));
        (device, any::<[u8; 32]>(), 0..MAX_CHUNKS, 0..11_u8).prop_map(|(device, digest, index, kind)| {
            match kind {
                0 => Topic::Metadata(FileName::of_release(&Digest(digest))),
                1 => Topic::Chunk { object: Digest(digest), index },
                2 => Topic::Assign(device),
                3 => Topic::Event(device),
                4 => Topic::Report(device),
                5 => Topic::Sample(device),
                6 => Topic::Hello(device),
                7 => Topic::Enrol(device),
                8 => Topic::Enrolled(device),
                9 => Topic::Pause(device),
                _ => Topic::Ack(device),
            }
        })
    }

    proptest! {
        #[test]
        fn topics_survive_text(topic in any_topic()) {
            let name = topic.name(&fleet());
            prop_assert_eq!(Topic::parse(&fleet(), &name), Ok(topic));
        }

        #[test]
        fn any_text_is_a_topic_or_an_error(text in "(serin/1/demo/)?[tbd]?/?.{0,100}") {
            if let Ok(topic) = Topic::parse(&fleet(), &text) {
                let name = topic.name(&fleet());
                prop_assert_eq!(name.as_str(), text);
            }
        }
    }

    #[test]
    fn the_longest_topic_fits() {
        let fleet = FleetId::new(&"f".repeat(FleetId::MAX_BYTES)).expect("valid");
        let device = DeviceId::new(&"d".repeat(DeviceId::MAX_BYTES)).expect("valid");
        let file = FileName::new(&"t".repeat(128)).expect("valid");
        let chunk = Topic::Chunk { object: Digest([7; 32]), index: MAX_CHUNKS - 1 };
        for topic in [Topic::Metadata(file), chunk, Topic::Report(device)] {
            let name = topic.name(&fleet);
            assert_eq!(Topic::parse(&fleet, &name), Ok(topic), "{name}");
        }
    }

    #[test]
    fn wildcards_other_fleets_and_other_spellings_are_refused() {
        let object = Digest([7; 32]);
        for bad in [
            "serin/1/demo/d/+/assign",
            "serin/1/demo/#",
            "serin/1/other/d/a/assign",
            "serin/2/demo/d/a/assign",
            "serin/1/demo/d/a/up/shout",
            "serin/1/demo/d/a/assign/x",
            "serin/1/demo/t/../root.json",
            "serin/1/demo/t/..",
            &format!("serin/1/demo/b/{object}/007"),
            &format!("serin/1/demo/b/{object}/+1"),
            &format!("serin/1/demo/b/{object}/{MAX_CHUNKS}"),
        ] {
            assert!(Topic::parse(&fleet(), bad).is_err(), "{bad}");
        }
    }
}
