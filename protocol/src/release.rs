//! What an owner signs about a bundle: enough for a device to decide, before the first byte is
//! fetched, whether it may and can run it.

use serde::{Deserialize, Serialize};

use crate::chunk::ObjectRef;
use crate::envelope::Signed;
use crate::ids::{ByteCount, Digest, ReleaseId, TargetClass};

/// Most target classes in one release.
pub const MAX_TARGETS: usize = 8;

/// A bundle, signed by its model's owner. The signature covers the bundle whole, by digest.
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
    /// Device classes it was built for; empty means any.
    pub targets: heapless::Vec<TargetClass, MAX_TARGETS>,
    /// Digest of the reference profile, which names the bins of every sketch about this release.
    pub profile: Digest,
}

impl Signed for Release {
    const PURPOSE: u8 = 2;
    // Names, four digests, eight target classes: under 1 KiB.
    const MAX_BYTES: usize = 2048;
}
