//! A bundle that is brought in one stream, written as a download is, and whole with the signed digest or
//! refused. Plain and synchronous; whoever calls it may wait.

use bytes::Bytes;
use serin_protocol::chunk::{CHUNK_BYTES, ChunkMap, ChunkMapError, ObjectRef};
use serin_protocol::message::{Detail, Reason};

use super::partial::{Complete, Partial, PartialError, PartialStore};

/// The next bytes, or why there are no more.
pub type Piece = Result<Bytes, String>;

/// A bundle was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// It cannot be written, or is not the signed one.
    #[error(transparent)]
    Partial(#[from] PartialError),
    /// The object cannot be cut into chunks.
    #[error(transparent)]
    Map(#[from] ChunkMapError),
    /// Nothing more came.
    #[error("it broke off after {here} of {size} bytes; sideload it again")]
    BrokenOff {
        /// Bytes that came.
        here: u64,
        /// Bytes signed.
        size: u64,
    },
    /// More came than was signed.
    #[error("it is longer than the {size} bytes signed")]
    Longer {
        /// Bytes signed.
        size: u64,
    },
    /// It could not be read any further.
    #[error("it broke off after {here} bytes: {why}")]
    Unreadable {
        /// Bytes that came.
        here: u64,
        /// Why.
        why: String,
    },
}

impl IntakeError {
    /// The reason to report: the disk's fault or the bundle's.
    pub fn reason(&self) -> Reason {
        let detail = Detail::new(&self.to_string());
        match self {
            Self::Partial(PartialError::File(_)) => Reason::Storage(detail),
            Self::Partial(
                PartialError::Map(_) | PartialError::Misfit { .. } | PartialError::WrongDigest { .. },
            )
            | Self::Map(_)
            | Self::BrokenOff { .. }
            | Self::Longer { .. }
            | Self::Unreadable { .. } => Reason::BadBundle(detail),
        }
    }
}

/// Writes `bundle` from `pieces`, at most a chunk of which is held, and makes it durable.
pub fn take_in(
    partials: &PartialStore,
    bundle: ObjectRef,
    pieces: impl IntoIterator<Item = Piece>,
) -> Result<Complete, IntakeError> {
    let map = ChunkMap::new(bundle.size)?;
    partials.keep_only(&[bundle.digest]).map_err(PartialError::File)?;
    let (partial, _) = partials.begin(bundle, None)?;
    let mut filling = Filling { partial: &partial, map, index: 0, held: Vec::with_capacity(CHUNK_BYTES) };
    let mut here = 0_u64;
    for piece in pieces {
        let piece = piece.map_err(|why| IntakeError::Unreadable { here, why })?;
        here = here.saturating_add(piece.len() as u64);
        if here > bundle.size.0 {
            return Err(IntakeError::Longer { size: bundle.size.0 });
        }
        filling.take(&piece)?;
    }
    if here < bundle.size.0 {
        return Err(IntakeError::BrokenOff { here, size: bundle.size.0 });
    }
    Ok(partial.finish()?)
}

struct Filling<'a> {
    partial: &'a Partial,
    map: ChunkMap,
    index: u32,
    held: Vec<u8>,
}

impl Filling<'_> {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), PartialError> {
        while !bytes.is_empty() {
            let missing = self.map.len(self.index).saturating_sub(self.held.len());
            let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
            self.held.extend_from_slice(taken);
            bytes = rest;
            if self.held.len() >= self.map.len(self.index) {
                self.partial.write(self.index, &self.held)?;
                self.held.clear();
                self.index += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::seam::Files;
    use proptest::prelude::*;
    use serin_protocol::ids::{ByteCount, Digest};

    fn contents() -> Vec<u8> {
        (0..CHUNK_BYTES * 2 + 500).map(|at| (at * 31 % 251) as u8).collect()
    }

    fn object(contents: &[u8]) -> ObjectRef {
        ObjectRef { digest: Digest::of(contents), size: ByteCount(contents.len() as u64) }
    }

    fn taken(bundle: ObjectRef, pieces: Vec<Piece>) -> (tempfile::TempDir, Result<Vec<u8>, IntakeError>) {
        let dir = tempfile::tempdir().expect("tempdir");
        let partials = PartialStore::open(Files::real(), dir.path()).expect("opened");
        let taken = take_in(&partials, bundle, pieces);
        (dir, taken.map(|whole| whole.read().expect("readable")))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn it_arrives_whole_in_pieces_of_any_size(step in 1..200_000_usize) {
            let contents = contents();
            let pieces = contents.chunks(step.max(64)).map(|piece| Ok(Bytes::copy_from_slice(piece)));
            let (_dir, taken) = taken(object(&contents), pieces.collect());
            prop_assert_eq!(taken.expect("whole"), contents);
        }
    }

    #[test]
    fn what_breaks_off_goes_on_or_differs_is_refused_by_name() {
        let contents = contents();
        let whole = || Ok(Bytes::from(contents.clone()));
        let bundle = object(&contents);
        let (_dir, short) = taken(bundle, vec![Ok(Bytes::copy_from_slice(&contents[..1000]))]);
        assert!(matches!(short, Err(IntakeError::BrokenOff { here: 1000, .. })), "{short:?}");
        let (_dir, long) = taken(bundle, vec![whole(), Ok(Bytes::from_static(b"x"))]);
        assert!(matches!(long, Err(IntakeError::Longer { .. })), "{long:?}");
        let (_dir, pulled) = taken(bundle, vec![whole(), Err("the stick was pulled".into())]);
        assert!(pulled.expect_err("pulled").to_string().contains("the stick was pulled"));
        let mut changed = contents.clone();
        changed[70_000] ^= 1;
        let (dir, changed) = taken(bundle, vec![Ok(changed.into())]);
        let refused = changed.expect_err("another");
        assert!(matches!(refused.reason(), Reason::BadBundle(_)), "{refused}");
        let left = std::fs::read_dir(dir.path().join("partial")).expect("listed").count();
        assert_eq!(left, 0, "nothing of it stays");
    }
}
