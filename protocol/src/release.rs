//! What an owner says about a bundle, a target that the owner's TUF metadata lists: enough for a device to decide, before the first byte is
//! fetched, whether it may and can run it.

use serde::{Deserialize, Serialize};

use crate::chunk::ObjectRef;
use crate::class_needs::ClassNeeds;
use crate::envelope::WIRE_VERSION;
use crate::ids::{ByteCount, Digest, ReleaseId};

/// Most target classes in one release.
pub const MAX_TARGETS: usize = 8;

/// Largest statement in bytes: names, four digests and eight target classes with all that they can need take 2,220.
pub const MAX_STATEMENT_BYTES: usize = 2304;

/// What turns a file into an image. Agents are built with those that their models need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decoder {
    /// JPEG, baseline and progressive.
    Jpeg,
    /// PNG.
    Png,
}

/// A set of decoders, each at most once, in their order.
pub type Decoders = heapless::Vec<Decoder, { Decoder::ALL.len() }>;

impl Decoder {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Jpeg, Self::Png];

    /// Its name, as in `pipeline.json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
        }
    }

    /// The one for `file`, by how it begins; `None` where it is neither. No such file is UTF-8.
    pub fn of(file: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|decoder| file.starts_with(decoder.beginning()))
    }

    /// How its files begin: the marker of a JPEG's start and of what follows (ITU-T T.81, B.1.1.3), the signature of a PNG
    /// (W3C PNG, 5.2).
    const fn beginning(self) -> &'static [u8] {
        match self {
            Self::Jpeg => b"\xFF\xD8\xFF",
            Self::Png => b"\x89PNG\r\n\x1A\n",
        }
    }
}

/// A bundle as its model's owner describes it. What the owner signs covers this by digest, and this the
/// bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Model and version.
    pub id: ReleaseId,
    /// The bundle, a `tar.zst`.
    pub bundle: ObjectRef,
    /// The digests of its chunks, 32 bytes each, in order: itself an object.
    pub chunk_list: ObjectRef,
    /// Bytes on disk once unpacked.
    pub unpacked: ByteCount,
    /// Memory limit the worker needs, measured at packing with a margin.
    pub memory: ByteCount,
    /// Inference engine and its series, such as `tract-0.23`.
    pub runtime: heapless::String<32>,
    /// Device classes it was built for, with what it needs of each; empty means any.
    pub targets: heapless::Vec<ClassNeeds, MAX_TARGETS>,
    /// Decoders that its pipeline needs.
    pub decoders: Decoders,
    /// Digest of the reference profile, which names the bins of every sketch about this release.
    pub profile: Digest,
}

/// Bytes are no release statement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Larger than any statement.
    #[error("a release statement has at most {MAX_STATEMENT_BYTES} bytes, not {0}")]
    TooLarge(usize),
    /// Not a single byte.
    #[error("the release statement is empty")]
    Empty,
    /// Of another version of this format.
    #[error("the release statement has version {0}, this program reads {WIRE_VERSION}")]
    Version(u8),
    /// Not what it should be.
    #[error("the release statement is malformed")]
    Malformed,
}

impl Release {
    /// The statement as a file: `version byte · postcard`. Its digest names the release wherever one is
    /// ordered.
    pub fn to_bytes(&self) -> Result<heapless::Vec<u8, MAX_STATEMENT_BYTES>, StatementError> {
        let mut body = [0; MAX_STATEMENT_BYTES - 1];
        let body = postcard::to_slice(self, &mut body).map_err(|_| StatementError::Malformed)?;
        let mut bytes = heapless::Vec::from_iter([WIRE_VERSION]);
        bytes.extend_from_slice(body).map_err(|_| StatementError::Malformed)?;
        Ok(bytes)
    }

    /// Reads a statement whose digest was compared with what its owner lists.
    pub fn parse(bytes: &[u8]) -> Result<Self, StatementError> {
        if bytes.len() > MAX_STATEMENT_BYTES {
            return Err(StatementError::TooLarge(bytes.len()));
        }
        match bytes.split_first() {
            None => Err(StatementError::Empty),
            Some((&WIRE_VERSION, body)) => match postcard::take_from_bytes(body) {
                Ok((release, [])) => Ok(release),
                Ok(_) | Err(_) => Err(StatementError::Malformed),
            },
            Some((version, _)) => Err(StatementError::Version(*version)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class_needs::{KernelVersion, MAX_FEATURES};
    use proptest::prelude::*;

    /// The largest there is.
    fn release() -> Release {
        let object = ObjectRef { digest: Digest([1; 32]), size: ByteCount(u64::MAX) };
        let needs = ClassNeeds {
            class: "t".repeat(32).parse().expect("name"),
            kernel: Some(KernelVersion { major: u32::MAX, minor: u32::MAX }),
            features: core::iter::repeat_n("f".repeat(16).parse().expect("fits"), MAX_FEATURES).collect(),
        };
        let id = std::format!("{}@{}", "m".repeat(48), "v".repeat(48));
        Release {
            id: id.parse().expect("id"),
            bundle: object,
            chunk_list: object,
            unpacked: ByteCount(u64::MAX),
            memory: ByteCount(u64::MAX),
            runtime: "r".repeat(32).parse().expect("fits"),
            targets: core::iter::repeat_n(needs, MAX_TARGETS).collect(),
            profile: Digest([2; 32]),
            decoders: Decoder::ALL.into_iter().collect(),
        }
    }

    #[test]
    fn a_statement_survives_and_what_is_none_is_named() {
        let bytes = release().to_bytes().expect("fits");
        assert_eq!(Release::parse(&bytes), Ok(release()));
        assert_eq!(Release::parse(&[]), Err(StatementError::Empty));
        assert_eq!(Release::parse(&[9]), Err(StatementError::Version(9)));
        assert_eq!(Release::parse(&bytes[..bytes.len() - 1]), Err(StatementError::Malformed));
        let mut longer = bytes;
        longer.push(0).expect("fits");
        assert_eq!(Release::parse(&longer), Err(StatementError::Malformed));
        assert_eq!(Release::parse(&[WIRE_VERSION; 2305]), Err(StatementError::TooLarge(2305)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_statement_or_an_error(bytes: std::vec::Vec<u8>) {
            let _ = Release::parse(&bytes);
        }
    }
}
