//! What the log of reports holds: a report that came, or all that is left of one device's reports about one release.

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serin_protocol::ids::{BootId, DeviceId, UnixMillis};

use super::super::StoreError;
use super::super::values::unreadable;

/// One record of the log. Later ones about the same device and release add to earlier ones, or replace them.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Record<'a> {
    /// A report came.
    Came {
        /// Whose.
        device: &'a str,
        /// About which release.
        release: &'a str,
        /// What tells it from others of the device.
        name: Name,
        /// The report, as on the wire.
        report: Bytes<'a>,
    },
    /// Everything so far of this device about this release, merged where it is old, but for what came last.
    Page {
        /// Whose.
        device: &'a str,
        /// About which release.
        release: &'a str,
        /// Reports as on the wire, the oldest first.
        #[serde(borrow)]
        reports: Vec<Bytes<'a>>,
        /// So many reports that came last stay where they are.
        left: usize,
    },
}

/// What tells a report from others of its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Name {
    pub(super) boot: BootId,
    pub(super) sequence: u64,
    pub(super) first_feature: u16,
}

/// Bytes that are written and borrowed at once, not one by one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Bytes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowed;
        impl<'de> Visitor<'de> for Borrowed {
            type Value = &'de [u8];
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<&'de [u8], E> {
                Ok(bytes)
            }
        }
        deserializer.deserialize_bytes(Borrowed).map(Bytes)
    }
}

impl Record<'_> {
    /// Writes the record behind what is in `into`.
    pub(super) fn write(&self, into: &mut Vec<u8>) {
        // Into a growing buffer nothing fails that can be written at all, and this can.
        if let Ok(written) = postcard::to_extend(self, std::mem::take(into)) {
            *into = written;
        }
    }
}

/// When a report began and ended, and what orders it among those of its device, read from its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct When {
    pub(super) start: UnixMillis,
    boot: BootId,
    sequence: u64,
    pub(super) end: UnixMillis,
}

impl When {
    /// Of a report as on the wire.
    pub(super) fn of(report: &[u8]) -> Result<Self, StoreError> {
        let head = postcard::take_from_bytes::<(DeviceId, BootId, u64, UnixMillis, UnixMillis)>(report);
        let ((_, boot, sequence, start, end), _) =
            head.map_err(|error| unreadable("report", "", &error.to_string()))?;
        Ok(Self { start, boot, sequence, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite::report;
    use crate::store::values::wire;

    #[test]
    fn a_record_is_read_as_it_was_written_behind_what_there_was() {
        let reports = [vec![1, 2, 3], vec![]];
        let page = Record::Page {
            device: "d",
            release: "m@1",
            reports: reports.iter().map(|report| Bytes(report)).collect(),
            left: 3,
        };
        let mut written = vec![9];
        page.write(&mut written);
        assert_eq!(written[0], 9);
        assert_eq!(postcard::from_bytes::<Record<'_>>(&written[1..]).expect("reads"), page);
    }

    #[test]
    fn a_reports_first_bytes_say_when_it_was() {
        let bytes = wire("report", &report("m@1", "d", 70, 3)).expect("writes");
        let when = When::of(&bytes).expect("reads");
        assert_eq!((when.start, when.end), (UnixMillis(70), UnixMillis(80)));
        assert!(When::of(&bytes[..4]).is_err());
        assert!(
            when < When::of(&wire("report", &report("m@1", "d", 70, 4)).expect("writes")).expect("reads")
        );
    }
}
