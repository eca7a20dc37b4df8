//! How an object (a bundle, a chunk list) is cut into retained MQTT messages, and the set of chunks
//! a device already holds.

use core::ops::Range;

use serde::{Deserialize, Serialize};

use crate::ids::{ByteCount, Digest};

/// Bytes in every chunk but the last. 60 KiB: Azure Event Grid keeps at most 64 KB per retained message.
pub const CHUNK_BYTES: usize = 60 * 1024;

/// Most chunks in an object, which bounds a bitmap to 2 KiB and an object to 960 MiB.
pub const MAX_CHUNKS: u32 = 16_384;

/// Largest object in bytes.
pub const MAX_OBJECT_BYTES: u64 = MAX_CHUNKS as u64 * CHUNK_BYTES as u64;

/// An object by digest and exact size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Digest of the whole object.
    pub digest: Digest,
    /// Its exact size in bytes.
    pub size: ByteCount,
}

/// The cut of an object of a known size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkMap {
    size: u64,
}

/// Why an object cannot be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkMapError {
    /// The object is empty; there is nothing to transfer.
    #[error("the object is empty")]
    Empty,
    /// The object is larger than a bitmap can describe.
    #[error("the object has {actual} bytes, at most {MAX_OBJECT_BYTES} can be transferred")]
    TooLarge {
        /// Bytes given.
        actual: u64,
    },
}

impl ChunkMap {
    /// The cut of an object of `size` bytes.
    pub const fn new(size: ByteCount) -> Result<Self, ChunkMapError> {
        match size.0 {
            0 => Err(ChunkMapError::Empty),
            actual if actual > MAX_OBJECT_BYTES => Err(ChunkMapError::TooLarge { actual }),
            size => Ok(Self { size }),
        }
    }

    /// Number of chunks, at least 1.
    pub const fn count(self) -> u32 {
        // At most MAX_CHUNKS by construction.
        self.size.div_ceil(CHUNK_BYTES as u64) as u32
    }

    /// Byte range of chunk `index`; `None` beyond the end.
    pub const fn range(self, index: u32) -> Option<Range<u64>> {
        if index >= self.count() {
            return None;
        }
        let start = index as u64 * CHUNK_BYTES as u64;
        let end = start + CHUNK_BYTES as u64;
        Some(start..if end < self.size { end } else { self.size })
    }

    /// Bytes in chunk `index`; zero beyond the end.
    pub fn len(self, index: u32) -> usize {
        self.range(index).map_or(0, |range| (range.end - range.start) as usize)
    }

    /// Never: an empty object has no map.
    pub const fn is_empty(self) -> bool {
        false
    }
}

const WORDS: usize = (MAX_CHUNKS / 64) as usize;

/// Which chunks of one object are here: a bitmap of the object's chunk count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawChunkSet")]
pub struct ChunkSet {
    count: u32,
    words: heapless::Vec<u64, WORDS>,
}

#[derive(Deserialize)]
struct RawChunkSet {
    count: u32,
    words: heapless::Vec<u64, WORDS>,
}

/// A stored bitmap contradicts its own chunk count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bitmap does not fit its chunk count")]
pub struct ChunkSetError;

impl TryFrom<RawChunkSet> for ChunkSet {
    type Error = ChunkSetError;

    fn try_from(raw: RawChunkSet) -> Result<Self, ChunkSetError> {
        let set = Self { count: raw.count, words: raw.words };
        let length_fits = raw.count <= MAX_CHUNKS && set.words.len() == raw.count.div_ceil(64) as usize;
        let tail = raw.count % 64;
        let tail_clear = tail == 0 || set.words.last().is_none_or(|word| word >> tail == 0);
        if length_fits && tail_clear { Ok(set) } else { Err(ChunkSetError) }
    }
}

impl ChunkSet {
    /// An empty set for an object cut as `map`.
    pub fn empty(map: ChunkMap) -> Self {
        let mut words = heapless::Vec::new();
        // `count` is at most MAX_CHUNKS, so the capacity suffices.
        let _ = words.resize(map.count().div_ceil(64) as usize, 0);
        Self { count: map.count(), words }
    }

    /// Marks `index` as present; false when it was already, or lies beyond the object.
    pub fn insert(&mut self, index: u32) -> bool {
        if index >= self.count {
            return false;
        }
        let Some(word) = self.words.get_mut((index / 64) as usize) else {
            return false;
        };
        let bit = 1_u64 << (index % 64);
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }

    /// Marks `index` as absent; false when it was already, or lies beyond the object.
    pub fn remove(&mut self, index: u32) -> bool {
        if !self.contains(index) {
            return false;
        }
        let Some(word) = self.words.get_mut((index / 64) as usize) else {
            return false;
        };
        *word &= !(1_u64 << (index % 64));
        true
    }

    /// Whether chunk `index` is present.
    pub fn contains(&self, index: u32) -> bool {
        let word = self.words.get((index / 64) as usize).copied().unwrap_or(0);
        index < self.count && word & (1_u64 << (index % 64)) != 0
    }

    /// Chunks present.
    pub fn len(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether none is present.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether all are present.
    pub fn is_complete(&self) -> bool {
        self.len() == self.count
    }

    /// Chunks of the object.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The missing chunks, ascending.
    pub fn missing(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.count).filter(|index| !self.contains(*index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn chunks_tile_the_object(size in 1..MAX_OBJECT_BYTES) {
            let map = ChunkMap::new(ByteCount(size)).expect("in bounds");
            let last = map.range(map.count() - 1).expect("last chunk");
            prop_assert_eq!(last.end, size);
            prop_assert_eq!(map.range(map.count()), None);
            let first = map.range(0).expect("first chunk");
            prop_assert_eq!(first.start, 0);
            prop_assert_eq!(map.len(0) as u64, first.end);
        }

        #[test]
        fn a_set_holds_what_was_inserted(size in 1..20_000_000_u64, picks: Vec<u16>) {
            let map = ChunkMap::new(ByteCount(size)).expect("in bounds");
            let mut set = ChunkSet::empty(map);
            let mut model = BTreeSet::new();
            for pick in picks {
                let index = u32::from(pick) % (map.count() + 2);
                let fresh = set.insert(index);
                prop_assert_eq!(fresh, index < map.count() && model.insert(index));
            }
            prop_assert_eq!(set.len() as usize, model.len());
            prop_assert!(set.missing().all(|index| !model.contains(&index)));
            prop_assert_eq!(set.missing().count() + model.len(), map.count() as usize);
            let mut bytes = [0; 4096];
            let coded = postcard::to_slice(&set, &mut bytes).expect("fits");
            prop_assert_eq!(postcard::from_bytes::<ChunkSet>(coded), Ok(set.clone()));
            for index in model {
                prop_assert!(set.remove(index) && !set.contains(index) && !set.remove(index));
            }
            prop_assert!(set.is_empty());
        }

        #[test]
        fn any_bytes_are_a_consistent_set_or_an_error(bytes: Vec<u8>) {
            if let Ok(set) = postcard::from_bytes::<ChunkSet>(&bytes) {
                prop_assert!(set.len() <= set.count());
            }
        }
    }

    #[test]
    fn objects_beyond_the_bitmap_are_refused() {
        assert_eq!(ChunkMap::new(ByteCount(0)), Err(ChunkMapError::Empty));
        let actual = MAX_OBJECT_BYTES + 1;
        assert_eq!(ChunkMap::new(ByteCount(actual)), Err(ChunkMapError::TooLarge { actual }));
    }
}
