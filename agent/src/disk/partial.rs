//! Objects being downloaded: one file each, chunks written at their places. Nothing is noted about which
//! are there: on reopening each chunk is hashed, so that no crash can make a wrong one count.

use std::path::{Path, PathBuf};

use serin_protocol::chunk::{CHUNK_BYTES, ChunkMap, ChunkMapError, ChunkSet, ObjectRef};
use serin_protocol::ids::Digest;

use super::seam::{FileError, Files, OpenFile, if_there};
use crate::link::transfer::ChunkHashes;

/// A partial download cannot be read or written, or is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum PartialError {
    /// The disk failed or is full.
    #[error(transparent)]
    File(#[from] FileError),
    /// The object cannot be cut into chunks.
    #[error(transparent)]
    Map(#[from] ChunkMapError),
    /// A chunk has the wrong length or number. The transfer checks this before.
    #[error("chunk {index} of {object} cannot have {actual} bytes")]
    Misfit {
        /// The object.
        object: Digest,
        /// Number of the chunk.
        index: u32,
        /// Bytes given.
        actual: usize,
    },
    /// All chunks are there, but together they are not the object. The file is gone; start over.
    #[error("the downloaded object has digest {found}, not {expected}")]
    WrongDigest {
        /// Digest wanted.
        expected: Digest,
        /// Digest found.
        found: Digest,
    },
}

/// The partial downloads in one state directory.
#[derive(Clone, Debug)]
pub struct PartialStore {
    files: Files,
    dir: PathBuf,
}

/// One object being downloaded.
#[derive(Debug)]
pub struct Partial {
    files: Files,
    file: OpenFile,
    object: ObjectRef,
    map: ChunkMap,
}

/// A whole object with the right digest.
#[derive(Debug)]
pub struct Complete {
    files: Files,
    path: PathBuf,
    object: ObjectRef,
}

impl PartialStore {
    /// Opens the downloads in the state directory `dir`, creating what is needed.
    pub fn open(files: Files, dir: &Path) -> Result<Self, FileError> {
        let store = Self { files, dir: dir.join("partial") };
        store.files.keep_dir(&store.dir)?;
        Ok(store)
    }

    /// Opens the download of `object`, begun earlier or new, with the chunks that are already right.
    /// Without `hashes`, as for a chunk list, it is all of them or none.
    ///
    /// Blocks for as long as the file takes to be read and hashed.
    pub fn begin(
        &self,
        object: ObjectRef,
        hashes: Option<&ChunkHashes>,
    ) -> Result<(Partial, ChunkSet), PartialError> {
        let map = ChunkMap::new(object.size)?;
        let mut file = self.files.open_or_create(&self.path(object.digest))?;
        if file.size()? > object.size {
            file.resize(object.size)?;
        }
        let have = match hashes {
            Some(hashes) => right_chunks(&mut file, map, hashes)?,
            None if hash(&mut file)? == object.digest => all_chunks(map),
            None => ChunkSet::empty(map),
        };
        let files = self.files.clone();
        Ok((Partial { files, file, object, map }, have))
    }

    /// Removes every download but that of these objects: an interrupted one is worth keeping only while it
    /// is wanted.
    pub fn keep_only(&self, objects: &[Digest]) -> Result<(), FileError> {
        for entry in self.files.list(&self.dir)? {
            let kept = entry.parse().is_some_and(|digest: Digest| objects.contains(&digest));
            if !kept && !entry.is_dir {
                self.files.remove(&self.dir.join(&entry.name))?;
            }
        }
        Ok(())
    }

    fn path(&self, object: Digest) -> PathBuf {
        self.dir.join(object.to_string())
    }
}

impl Partial {
    /// The object.
    pub const fn object(&self) -> ObjectRef {
        self.object
    }

    /// Writes chunk `index` at its place. Not synced: what a power cut takes is noticed on reopening.
    pub fn write(&self, index: u32, bytes: &[u8]) -> Result<(), PartialError> {
        match self.map.range(index) {
            Some(range) if bytes.len() as u64 == range.end - range.start => {
                Ok(self.file.write_at(range.start, bytes)?)
            }
            Some(_) | None => {
                Err(PartialError::Misfit { object: self.object.digest, index, actual: bytes.len() })
            }
        }
    }

    /// Makes the object durable and checks its digest as a whole; a wrong one is removed.
    pub fn finish(self) -> Result<Complete, PartialError> {
        self.file.sync()?;
        let path = self.file.path().to_owned();
        let found = hash(&mut self.files.open(&path)?)?;
        if found != self.object.digest {
            self.files.remove(&path)?;
            return Err(PartialError::WrongDigest { expected: self.object.digest, found });
        }
        Ok(Complete { files: self.files, path, object: self.object })
    }
}

impl Complete {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its bytes, for an object small enough to be held: the caller knows from its signed size.
    pub fn read(&self) -> Result<Vec<u8>, FileError> {
        let size = usize::try_from(self.object.size.0).unwrap_or(usize::MAX - 1);
        self.files.read_at_most(&self.path, size)
    }

    /// Removes it, once it is unpacked or parsed.
    pub fn remove(self) -> Result<(), FileError> {
        if_there(self.files.remove(&self.path)).map(|_| ())
    }
}

fn right_chunks(file: &mut OpenFile, map: ChunkMap, hashes: &ChunkHashes) -> Result<ChunkSet, FileError> {
    let mut have = ChunkSet::empty(map);
    let mut buffer = vec![0; CHUNK_BYTES];
    for index in 0..map.count() {
        let chunk = buffer.get_mut(..map.len(index)).unwrap_or_default();
        if file.read(chunk)? < chunk.len() {
            break;
        }
        if hashes.matches(index, chunk) {
            have.insert(index);
        }
    }
    Ok(have)
}

fn all_chunks(map: ChunkMap) -> ChunkSet {
    let mut have = ChunkSet::empty(map);
    for index in 0..map.count() {
        have.insert(index);
    }
    have
}

/// The digest of what `file` holds from its present position on.
fn hash(file: &mut OpenFile) -> Result<Digest, FileError> {
    let mut hasher = Digest::hasher();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = file.read(&mut buffer)?;
        match buffer.get(..count) {
            Some([]) | None => return Ok(hasher.finish()),
            Some(bytes) => hasher.update(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serin_protocol::ids::ByteCount;
    use std::fs;

    /// Two and a bit chunks, no two alike.
    fn contents() -> Vec<u8> {
        (0..CHUNK_BYTES * 2 + 5000).map(|at| (at % 251 + at / CHUNK_BYTES) as u8).collect()
    }

    fn object(contents: &[u8]) -> (ObjectRef, ChunkHashes) {
        let object = ObjectRef { digest: Digest::of(contents), size: ByteCount(contents.len() as u64) };
        let list: Vec<u8> = contents.chunks(CHUNK_BYTES).flat_map(|chunk| Digest::of(chunk).0).collect();
        let map = ChunkMap::new(object.size).expect("in bounds");
        (object, ChunkHashes::parse(&list, map).expect("fits"))
    }

    fn chunk(contents: &[u8], index: u32) -> &[u8] {
        contents.chunks(CHUNK_BYTES).nth(index as usize).expect("in range")
    }

    fn store() -> (tempfile::TempDir, PartialStore) {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = PartialStore::open(Files::real(), dir.path()).expect("opens");
        (dir, store)
    }

    #[test]
    fn a_download_goes_on_where_it_was_cut() {
        let (_dir, store) = store();
        let contents = contents();
        let (object, hashes) = object(&contents);
        let (partial, have) = store.begin(object, Some(&hashes)).expect("begun");
        assert!(have.is_empty());
        partial.write(2, chunk(&contents, 2)).expect("written");
        partial.write(0, chunk(&contents, 0)).expect("written");
        drop(partial);
        let (partial, have) = store.begin(object, Some(&hashes)).expect("reopened");
        assert_eq!(have.missing().collect::<Vec<_>>(), [1]);
        partial.write(1, chunk(&contents, 1)).expect("written");
        let complete = partial.finish().expect("whole");
        assert_eq!(complete.read().expect("read"), contents);
        let path = complete.path().to_owned();
        complete.remove().expect("removed");
        assert!(!path.exists());
    }

    #[test]
    fn a_chunk_list_is_there_whole_or_not_at_all() {
        let (_dir, store) = store();
        let contents = contents();
        let (object, _) = object(&contents);
        let (partial, _) = store.begin(object, None).expect("begun");
        partial.write(0, chunk(&contents, 0)).expect("written");
        let (partial, have) = store.begin(object, None).expect("reopened");
        assert!(have.is_empty());
        for index in 0..3 {
            partial.write(index, chunk(&contents, index)).expect("written");
        }
        let (_, have) = store.begin(object, None).expect("reopened");
        assert!(have.is_complete());
    }

    #[test]
    fn a_wrong_whole_is_refused_and_begun_anew() {
        let (_dir, store) = store();
        let contents = contents();
        let (object, _) = object(&contents);
        let (partial, _) = store.begin(object, None).expect("begun");
        partial.write(0, chunk(&contents, 1)).expect("a chunk of the right length");
        let path = partial.file.path().to_owned();
        let refused = partial.finish().expect_err("wrong");
        assert!(refused.to_string().contains(&object.digest.to_string()), "{refused}");
        assert!(!path.exists());
    }

    #[test]
    fn a_chunk_that_does_not_fit_its_place_is_refused() {
        let (_dir, store) = store();
        let (object, _) = object(&contents());
        let (partial, _) = store.begin(object, None).expect("begun");
        for (index, length) in [(0, 5), (2, CHUNK_BYTES), (3, 5000)] {
            let refused = partial.write(index, &vec![0; length]);
            assert!(matches!(refused, Err(PartialError::Misfit { .. })), "{index}");
        }
    }

    #[test]
    fn only_wanted_downloads_are_kept() {
        let (dir, store) = store();
        let contents = contents();
        let (wanted, _) = object(&contents);
        let (other, _) = object(&contents[1..]);
        drop(store.begin(wanted, None).expect("begun"));
        drop(store.begin(other, None).expect("begun"));
        fs::write(dir.path().join("partial/stray"), b"x").expect("written");
        store.keep_only(&[wanted.digest]).expect("cleaned");
        let left: Vec<_> = fs::read_dir(dir.path().join("partial")).expect("listed").collect();
        assert_eq!(left.len(), 1);
        assert!(store.path(wanted.digest).exists());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Whatever a crash left in the file, only right chunks count, and the download completes.
        #[test]
        fn whatever_is_in_the_file_only_right_chunks_count(
            written in prop::collection::vec(0..3_u32, 0..4),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            length in prop::option::of(0..CHUNK_BYTES * 4),
        ) {
            let (_dir, store) = store();
            let contents = contents();
            let (object, hashes) = object(&contents);
            let (partial, _) = store.begin(object, Some(&hashes)).expect("begun");
            for index in written {
                partial.write(index, chunk(&contents, index)).expect("written");
            }
            let path = partial.file.path().to_owned();
            drop(partial);
            let mut bytes = fs::read(&path).expect("read");
            for (at, byte) in damage {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            bytes.resize(length.unwrap_or(bytes.len()), 0);
            fs::write(&path, &bytes).expect("written");

            let (partial, have) = store.begin(object, Some(&hashes)).expect("reopened");
            for index in 0..3 {
                let there = bytes.chunks(CHUNK_BYTES).nth(index as usize).unwrap_or_default();
                let right = there.get(..chunk(&contents, index).len()) == Some(chunk(&contents, index));
                prop_assert_eq!(have.contains(index), right);
            }
            for index in have.missing() {
                partial.write(index, chunk(&contents, index)).expect("written");
            }
            prop_assert_eq!(partial.finish().expect("whole").read().expect("read"), contents);
        }
    }
}
