//! Newtypes for everything that names, numbers or measures something on the wire, so that a device id
//! cannot be passed where a fleet id is meant, nor milliseconds where bytes are.

mod digest;

use core::fmt;
use core::str::FromStr;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::digest::{Digest, DigestError, Hasher};

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("the name is empty")]
    Empty,
    /// The text is longer than the kind of name allows.
    #[error("the name has {actual} bytes, at most {limit} are allowed")]
    TooLong {
        /// Bytes allowed.
        limit: usize,
        /// Bytes given.
        actual: usize,
    },
    /// The first character is not a letter or digit.
    #[error("a name starts with a letter or a digit")]
    BadStart,
    /// A character outside `A-Z a-z 0-9 . _ -` occurs.
    #[error("the character at byte {at} is not one of A-Z a-z 0-9 . _ -")]
    BadCharacter {
        /// Byte offset of the character.
        at: usize,
    },
}

/// The grammar of every name: it is safe as an MQTT topic level, a file name and a URL segment.
const fn check_name(text: &str, limit: usize) -> Result<(), NameError> {
    let bytes = text.as_bytes();
    if bytes.is_empty() {
        return Err(NameError::Empty);
    }
    if bytes.len() > limit {
        return Err(NameError::TooLong { limit, actual: bytes.len() });
    }
    let mut rest = bytes;
    let mut at = 0;
    while let [first, tail @ ..] = rest {
        let plain = first.is_ascii_alphanumeric();
        if at == 0 && !plain {
            return Err(NameError::BadStart);
        }
        if !plain && !matches!(first, b'.' | b'_' | b'-') {
            return Err(NameError::BadCharacter { at });
        }
        rest = tail;
        at += 1;
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$meta:meta])* $name:ident, $limit:literal) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(heapless::String<$limit>);

        impl $name {
            /// Longest name in bytes.
            pub const MAX_BYTES: usize = $limit;

            /// Parses `text`.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check_name(text, $limit)?;
                heapless::String::try_from(text)
                    .map(Self)
                    .map_err(|_| NameError::TooLong { limit: $limit, actual: text.len() })
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct NameVisitor;
                impl Visitor<'_> for NameVisitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "a name of 1 to {} characters A-Z a-z 0-9 . _ -", $limit)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::new(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(NameVisitor)
            }
        }
    };
}

name_type!(
    /// One device; also its MQTT client id and, under mutual TLS, the common name of its certificate.
    DeviceId, 64
);
name_type!(
    /// One fleet: a tenant of a broker, the third level of every topic.
    FleetId, 32
);
name_type!(
    /// One model, whatever its versions.
    ModelName, 48
);
name_type!(
    /// One version of a model: semantic, date or hash, as its owner likes. Versions are compared for
    /// equality only; which of two is newer is what the signed release says, never the text.
    Version, 48
);
name_type!(
    /// A kind of device that a bundle is built and measured for, such as `linux-aarch64`.
    TargetClass, 32
);
name_type!(
    /// Name of a model input, an output or a feature.
    FieldName, 48
);

macro_rules! number_type {
    ($(#[$meta:meta])* $name:ident($inner:ty)) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number_type!(
    /// Orders assignments to one device; strictly growing, so that an old one cannot be replayed.
    SequenceNumber(u64)
);
number_type!(
    /// Numbers a device's events, from 1, without gaps, across restarts.
    EventNumber(u64)
);
number_type!(
    /// One rollout of one fleet.
    RolloutId(u64)
);
number_type!(
    /// Drawn at random whenever the agent starts, so that counters that restart can be told apart.
    BootId(u64)
);
number_type!(
    /// Milliseconds since 1970-01-01 UTC.
    UnixMillis(u64)
);
number_type!(
    /// A span of time in milliseconds.
    Millis(u64)
);
number_type!(
    /// A number of bytes.
    ByteCount(u64)
);
number_type!(
    /// A share in hundredths of a percent, 0 to 10,000. Policy never uses floats.
    BasisPoints(u16)
);

number_type!(
    /// One segment of a release's inputs: 1 to 4 are the named ones in the order of its manifest, 0 is what belongs to
    /// none of them, and all there is where none is named.
    SegmentNumber(u8)
);

impl UnixMillis {
    /// This moment plus `span`, saturating.
    #[must_use]
    pub const fn plus(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// The span since `earlier`, zero when that lies in the future.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl Millis {
    /// A span of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// This span plus `other`, saturating.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl ByteCount {
    /// Whole mebibytes.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib.saturating_mul(1 << 20))
    }

    /// A whole number directly followed by its unit, as in `64MiB`: B, KiB, MiB or GiB.
    pub fn parse(text: &str) -> Option<Self> {
        const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
        let (digits, scale) =
            UNITS.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, *scale)))?;
        digits.parse::<u64>().ok()?.checked_mul(scale).map(Self)
    }
}

impl BasisPoints {
    /// The whole, 100 %.
    pub const WHOLE: Self = Self(10_000);

    /// `part` of `whole` in basis points, rounded down; zero of nothing is zero.
    #[must_use]
    pub fn ratio(part: u64, whole: u64) -> Self {
        if whole == 0 {
            return Self(0);
        }
        let points = u128::from(part) * 10_000 / u128::from(whole);
        Self(u16::try_from(points.min(10_000)).unwrap_or(10_000))
    }
}

/// A model and a version of it, written `model@version`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReleaseId {
    /// The model.
    pub model: ModelName,
    /// Its version.
    pub version: Version,
}

/// Why a text is not a release id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseIdError {
    /// There is no `@`.
    #[error("a release is written model@version")]
    NoSeparator,
    /// One of the halves is not a name.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.model, self.version)
    }
}

impl fmt::Debug for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ReleaseId {
    type Err = ReleaseIdError;

    fn from_str(text: &str) -> Result<Self, ReleaseIdError> {
        let (model, version) = text.split_once('@').ok_or(ReleaseIdError::NoSeparator)?;
        Ok(Self { model: ModelName::new(model)?, version: Version::new(version)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    #[test]
    fn names_that_could_leave_their_topic_or_folder_are_refused() {
        for bad in ["", "..", ".hidden", "a/b", "a+b", "#", "a b", "é", "-x", "a\0"] {
            assert!(DeviceId::new(bad).is_err(), "{bad:?}");
        }
        let long = "a".repeat(65);
        assert_eq!(DeviceId::new(&long), Err(NameError::TooLong { limit: 64, actual: 65 }));
    }

    #[test]
    fn a_share_of_nothing_is_nothing() {
        assert_eq!(BasisPoints::ratio(0, 0), BasisPoints(0));
        assert_eq!(BasisPoints::ratio(1, 3), BasisPoints(3333));
        assert_eq!(BasisPoints::ratio(u64::MAX, 1), BasisPoints::WHOLE);
    }

    proptest! {
        #[test]
        fn digests_survive_text(bytes: [u8; 32]) {
            let digest = Digest(bytes);
            prop_assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
        }

        #[test]
        fn any_text_parses_or_errs(text in ".{0,80}") {
            let _ = text.parse::<Digest>();
            let _ = text.parse::<ReleaseId>();
            if let Ok(name) = DeviceId::new(&text) {
                prop_assert_eq!(name.as_str(), text);
            }
        }
    }
}
