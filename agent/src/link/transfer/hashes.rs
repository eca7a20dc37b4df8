//! The chunk list: the signed digest of every chunk of an object.

use serin_protocol::chunk::ChunkMap;
use serin_protocol::ids::Digest;

/// The signed digests of an object's chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkHashes(Vec<Digest>);

/// A chunk list does not fit its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunk list has {actual} bytes, {expected} are needed for {chunks} chunks")]
pub struct ChunkHashesError {
    /// Chunks of the object.
    pub chunks: u32,
    /// Bytes needed.
    pub expected: usize,
    /// Bytes given.
    pub actual: usize,
}

impl ChunkHashes {
    /// Parses a chunk list: 32 bytes for each chunk of an object cut as `map`, in order.
    pub fn parse(bytes: &[u8], map: ChunkMap) -> Result<Self, ChunkHashesError> {
        let (hashes, rest) = bytes.as_chunks::<32>();
        if hashes.len() != map.count() as usize || !rest.is_empty() {
            return Err(ChunkHashesError {
                chunks: map.count(),
                expected: map.count() as usize * 32,
                actual: bytes.len(),
            });
        }
        Ok(Self(hashes.iter().copied().map(Digest).collect()))
    }

    /// Whether `bytes` are chunk `index`.
    pub fn matches(&self, index: u32, bytes: &[u8]) -> bool {
        self.0.get(index as usize) == Some(&Digest::of(bytes))
    }
}
