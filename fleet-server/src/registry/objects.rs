//! Immutable blobs on disk, named by their SHA-256: `objects/ab/<64 hexadecimal digits>`.
//!
//! A name appears only after its bytes are on the disk, so whoever sees an object sees all of it, after
//! any crash. Nothing is ever changed in place. One process owns the folder.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serin_protocol::chunk::{ChunkMap, MAX_OBJECT_BYTES};
use serin_protocol::ids::{ByteCount, Digest};
use tempfile::NamedTempFile;

/// Bytes read from a source at a time: large enough that hashing, not system calls, is the cost.
const COPY_BYTES: usize = 64 * 1024;

/// A content-addressed store of objects.
#[derive(Debug)]
pub struct ObjectStore {
    objects: PathBuf,
    incoming: PathBuf,
}

/// Why an object could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// A file or folder of the store could not be used.
    #[error("{action} {}", path.display())]
    Disk {
        /// What was attempted, such as `creating`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// What should be stored could not be read.
    #[error("reading what should be stored")]
    Source(#[source] io::Error),
    /// There is nothing to store: an empty object cannot be transferred.
    #[error("the object is empty")]
    Empty,
    /// More bytes than a transfer can describe.
    #[error("the object is larger than {MAX_OBJECT_BYTES} bytes")]
    TooLarge,
    /// A stored file has a size that no object can have; it was changed from outside.
    #[error("{} has {size} bytes, which no object has", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
}

impl ObjectStore {
    /// Opens the store in `root`, creating it when missing, and removes what an interrupted
    /// [`put`](Self::put) left behind.
    pub fn open(root: &Path) -> Result<Self, ObjectError> {
        let store = Self { objects: root.join("objects"), incoming: root.join("incoming") };
        for folder in [&store.objects, &store.incoming] {
            fs::create_dir_all(folder).map_err(disk("creating", folder))?;
        }
        for entry in fs::read_dir(&store.incoming).map_err(disk("listing", &store.incoming))? {
            let path = entry.map_err(disk("listing", &store.incoming))?.path();
            fs::remove_file(&path).map_err(disk("removing", &path))?;
        }
        Ok(store)
    }

    /// Stores everything `source` yields, at most [`MAX_OBJECT_BYTES`], and returns its digest. When it
    /// returns, the object survives a power cut. Storing what is already here changes nothing.
    pub fn put(&self, mut source: impl Read) -> Result<Digest, ObjectError> {
        let mut file = NamedTempFile::new_in(&self.incoming).map_err(disk("creating in", &self.incoming))?;
        let digest = copy(&mut source, &mut file, MAX_OBJECT_BYTES)?;
        let path = self.path(&digest);
        if path.try_exists().map_err(disk("looking for", &path))? {
            return Ok(digest);
        }
        file.as_file().sync_all().map_err(disk("writing", file.path()))?;
        let folder = self.folder(&digest);
        if !folder.try_exists().map_err(disk("looking for", &folder))? {
            fs::create_dir_all(&folder).map_err(disk("creating", &folder))?;
            sync_folder(&self.objects)?;
        }
        // Two puts of the same bytes may race; either file is right.
        file.persist(&path).map_err(|error| disk("renaming to", &path)(error.error))?;
        sync_folder(&folder)?;
        Ok(digest)
    }

    /// Whether the object is here.
    pub fn contains(&self, digest: &Digest) -> Result<bool, ObjectError> {
        let path = self.path(digest);
        path.try_exists().map_err(disk("looking for", &path))
    }

    /// Size of the object in bytes; `None` when it is not here.
    pub fn size(&self, digest: &Digest) -> Result<Option<ByteCount>, ObjectError> {
        let path = self.path(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(ByteCount(metadata.len()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(disk("reading", &path)(error)),
        }
    }

    /// How the object is cut into chunks; `None` when it is not here.
    pub fn chunk_map(&self, digest: &Digest) -> Result<Option<ChunkMap>, ObjectError> {
        let Some(size) = self.size(digest)? else {
            return Ok(None);
        };
        match ChunkMap::new(size) {
            Ok(map) => Ok(Some(map)),
            Err(_) => Err(ObjectError::Damaged { path: self.path(digest), size: size.0 }),
        }
    }

    /// The bytes of chunk `index`; `None` when the object is not here or has no such chunk.
    pub fn chunk(&self, digest: &Digest, index: u32) -> Result<Option<Bytes>, ObjectError> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(disk("opening", &path)(error)),
        };
        let size = file.metadata().map_err(disk("reading", &path))?.len();
        let Ok(map) = ChunkMap::new(ByteCount(size)) else {
            return Err(ObjectError::Damaged { path, size });
        };
        let Some(range) = map.range(index) else {
            return Ok(None);
        };
        let mut bytes = vec![0; map.len(index)];
        file.read_exact_at(&mut bytes, range.start).map_err(disk("reading", &path))?;
        Ok(Some(bytes.into()))
    }

    /// Removes the object; false when it was not here.
    pub fn remove(&self, digest: &Digest) -> Result<bool, ObjectError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Ok(()) => sync_folder(&self.folder(digest)).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(disk("removing", &path)(error)),
        }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder(digest).join(digest.to_string())
    }

    /// One folder per first byte keeps folders small enough to list.
    fn folder(&self, digest: &Digest) -> PathBuf {
        let [first, ..] = digest.0;
        self.objects.join(format!("{first:02x}"))
    }
}

fn copy(source: &mut impl Read, file: &mut NamedTempFile, limit: u64) -> Result<Digest, ObjectError> {
    let mut hasher = Digest::hasher();
    let mut buffer = vec![0; COPY_BYTES];
    let mut size = 0_u64;
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ObjectError::Source(error)),
        };
        size += read as u64;
        if size > limit {
            return Err(ObjectError::TooLarge);
        }
        let piece = buffer.get(..read).unwrap_or_default();
        hasher.update(piece);
        file.write_all(piece).map_err(|error| disk("writing", file.path())(error))?;
    }
    if size == 0 { Err(ObjectError::Empty) } else { Ok(hasher.finish()) }
}

/// A new name is durable only when its folder is.
fn sync_folder(folder: &Path) -> Result<(), ObjectError> {
    File::open(folder).and_then(|handle| handle.sync_all()).map_err(disk("writing", folder))
}

fn disk(action: &'static str, path: &Path) -> impl Fn(io::Error) -> ObjectError {
    move |source| ObjectError::Disk { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_protocol::chunk::CHUNK_BYTES;

    fn store() -> (tempfile::TempDir, ObjectStore) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = ObjectStore::open(folder.path()).expect("opens");
        (folder, store)
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8).collect()
    }

    /// Yields some bytes, then fails.
    struct Torn(usize);

    impl Read for Torn {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::other("the upload broke off"));
            }
            let read = self.0.min(buffer.len());
            self.0 -= read;
            Ok(read)
        }
    }

    #[test]
    fn chunks_of_an_object_are_its_bytes() {
        let (_folder, store) = store();
        let bytes = pattern(2 * CHUNK_BYTES + 17);
        let digest = store.put(bytes.as_slice()).expect("stored");
        assert_eq!(digest, Digest::of(&bytes));
        assert!(store.contains(&digest).expect("readable"));
        assert_eq!(store.size(&digest).expect("readable"), Some(ByteCount(bytes.len() as u64)));
        let mut back = Vec::new();
        for index in 0..3 {
            back.extend_from_slice(&store.chunk(&digest, index).expect("readable").expect("present"));
        }
        assert_eq!(back, bytes);
        assert_eq!(store.chunk(&digest, 3).expect("readable"), None);
    }

    #[test]
    fn an_object_survives_reopening_and_a_second_put() {
        let (folder, store) = store();
        let digest = store.put(&b"twice"[..]).expect("stored");
        assert_eq!(store.put(&b"twice"[..]).expect("stored"), digest);
        drop(store);
        let store = ObjectStore::open(folder.path()).expect("opens");
        assert_eq!(store.chunk(&digest, 0).expect("readable").as_deref(), Some(&b"twice"[..]));
    }

    #[test]
    fn an_interrupted_put_leaves_no_object_and_no_litter() {
        let (folder, store) = store();
        assert!(matches!(store.put(Torn(100_000)), Err(ObjectError::Source(_))));
        let count = |name: &str| fs::read_dir(folder.path().join(name)).expect("listed").count();
        assert_eq!((count("objects"), count("incoming")), (0, 0));

        fs::write(folder.path().join("incoming/killed-in-the-middle"), b"half").expect("written");
        ObjectStore::open(folder.path()).expect("opens");
        assert_eq!(count("incoming"), 0);
    }

    #[test]
    fn missing_empty_and_damaged_are_three_answers() {
        let (folder, store) = store();
        assert!(matches!(store.put(io::empty()), Err(ObjectError::Empty)));
        let digest = store.put(&b"content"[..]).expect("stored");
        let absent = Digest::of(b"never stored");
        assert_eq!(store.chunk(&absent, 0).expect("readable"), None);
        assert_eq!(store.size(&absent).expect("readable"), None);

        let [first, ..] = digest.0;
        fs::write(folder.path().join(format!("objects/{first:02x}/{digest}")), b"").expect("written");
        assert!(matches!(store.chunk(&digest, 0), Err(ObjectError::Damaged { size: 0, .. })));
    }

    #[test]
    fn a_removed_object_is_gone() {
        let (_folder, store) = store();
        let digest = store.put(&b"short-lived"[..]).expect("stored");
        assert!(store.remove(&digest).expect("removed"));
        assert!(!store.remove(&digest).expect("nothing to remove"));
        assert!(!store.contains(&digest).expect("readable"));
    }

    #[test]
    fn an_endless_source_is_cut_off() {
        let (_folder, store) = store();
        let mut file = NamedTempFile::new_in(&store.incoming).expect("a file");
        let cut = copy(&mut io::repeat(7), &mut file, 1_000_000);
        assert!(matches!(cut, Err(ObjectError::TooLarge)));
        assert!(file.as_file().metadata().expect("readable").len() <= 1_000_000);
    }
}
