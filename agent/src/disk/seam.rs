//! Every operation on the agent's durable files, few and small, in one place, so that each can be
//! recorded, failed or cut off in a test.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serin_protocol::ids::ByteCount;

/// What was attempted on a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Open an existing file.
    Open,
    /// Create or empty a file.
    Create,
    /// Read from a file.
    Read,
    /// Write to a file.
    Write,
    /// Set a file's length.
    Resize,
    /// Make a file's contents durable.
    Sync,
    /// Create a directory.
    CreateDir,
    /// List a directory.
    List,
    /// Make a directory's entries durable.
    SyncDir,
    /// Give a file or directory another name.
    Rename,
    /// Give a file a second name.
    Link,
    /// Remove a file or an empty directory.
    Remove,
    /// Look up size and links of a file.
    Examine,
    /// Ask for free space.
    FreeSpace,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Read => "read",
            Self::Write => "write",
            Self::Resize => "resize",
            Self::Sync => "sync",
            Self::CreateDir => "create directory",
            Self::List => "list",
            Self::SyncDir => "sync directory",
            Self::Rename => "rename",
            Self::Link => "link",
            Self::Remove => "remove",
            Self::Examine => "examine",
            Self::FreeSpace => "ask for the free space of",
        })
    }
}

/// A file operation failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {source}", path.display())]
pub struct FileError {
    /// What was attempted.
    pub operation: Operation,
    /// On what.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}

impl FileError {
    /// Whether the file or directory is simply not there.
    pub fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Turns "not there" into `None`; every other failure stays one.
pub fn if_there<T>(result: Result<T, FileError>) -> Result<Option<T>, FileError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its name.
    pub name: OsString,
    /// Whether it is a directory itself.
    pub is_dir: bool,
}

impl Entry {
    /// The name read as a `T`; `None` when it is something else.
    pub fn parse<T: std::str::FromStr>(&self) -> Option<T> {
        self.name.to_str()?.parse().ok()
    }
}

/// What is known about a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Examined {
    /// Its size.
    pub size: ByteCount,
    /// Number of names it has.
    pub links: u64,
    /// Its number within the file system: equal for all its names.
    pub inode: u64,
}

/// Access to files. Cheap to clone; every durable thing holds one.
#[derive(Clone, Debug)]
pub struct Files {
    // Room for the recording and failing variants; callers cannot build one but through a constructor.
    _real: (),
}

impl Files {
    /// The machine's own file system.
    pub const fn real() -> Self {
        Self { _real: () }
    }

    /// Creates the directory `path` unless it is there, with its parents. The caller syncs the parent.
    pub fn create_dir(&self, path: &Path) -> Result<(), FileError> {
        fs::create_dir_all(path).map_err(failed(Operation::CreateDir, path))
    }

    /// Creates `path` or empties it, for writing.
    pub fn create(&self, path: &Path) -> Result<OpenFile, FileError> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        OpenFile::new(&options, path, Operation::Create)
    }

    /// Opens `path` for reading and writing at any place, keeping what is there; creates it if needed.
    pub fn open_or_create(&self, path: &Path) -> Result<OpenFile, FileError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        OpenFile::new(&options, path, Operation::Create)
    }

    /// Opens `path` for reading.
    pub fn open(&self, path: &Path) -> Result<OpenFile, FileError> {
        OpenFile::new(OpenOptions::new().read(true), path, Operation::Open)
    }

    /// Reads all of `path`, or its first `limit + 1` bytes, so that the caller sees that it is too long.
    pub fn read_at_most(&self, path: &Path, limit: usize) -> Result<Vec<u8>, FileError> {
        let mut bytes = Vec::new();
        let file = self.open(path)?.file;
        file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(failed(Operation::Read, path))?;
        Ok(bytes)
    }

    /// Gives `from` the name `to`, replacing what has it. Durable once the directories are synced.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        fs::rename(from, to).map_err(failed(Operation::Rename, to))
    }

    /// Gives the file `from` the second name `to`, which must be free.
    pub fn link(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        fs::hard_link(from, to).map_err(failed(Operation::Link, to))
    }

    /// Removes the file `path`.
    pub fn remove(&self, path: &Path) -> Result<(), FileError> {
        fs::remove_file(path).map_err(failed(Operation::Remove, path))
    }

    /// Removes the empty directory `path`.
    pub fn remove_dir(&self, path: &Path) -> Result<(), FileError> {
        fs::remove_dir(path).map_err(failed(Operation::Remove, path))
    }

    /// The entries of the directory `path`, sorted by name.
    pub fn list(&self, path: &Path) -> Result<Vec<Entry>, FileError> {
        let read = || -> io::Result<Vec<Entry>> {
            let mut entries = Vec::new();
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                entries.push(Entry { name: entry.file_name(), is_dir: entry.file_type()?.is_dir() });
            }
            entries.sort();
            Ok(entries)
        };
        read().map_err(failed(Operation::List, path))
    }

    /// Makes the entries of the directory `path` durable.
    pub fn sync_dir(&self, path: &Path) -> Result<(), FileError> {
        File::open(path).and_then(|dir| dir.sync_all()).map_err(failed(Operation::SyncDir, path))
    }

    /// Size, links and number of the file `path`; a symbolic link is not followed.
    pub fn examine(&self, path: &Path) -> Result<Examined, FileError> {
        let metadata = fs::symlink_metadata(path).map_err(failed(Operation::Examine, path))?;
        Ok(Examined { size: ByteCount(metadata.len()), links: metadata.nlink(), inode: metadata.ino() })
    }

    /// Bytes that may still be written to the file system of `path` without being root.
    pub fn free_space(&self, path: &Path) -> Result<ByteCount, FileError> {
        let space =
            rustix::fs::statvfs(path).map_err(|error| failed(Operation::FreeSpace, path)(error.into()))?;
        Ok(ByteCount(space.f_bavail.saturating_mul(space.f_frsize)))
    }

    /// Removes `path` with everything below it; fine when it is not there. Made of the operations above.
    pub fn remove_tree(&self, path: &Path) -> Result<(), FileError> {
        let Some(entries) = if_there(self.list(path))? else {
            return Ok(());
        };
        for entry in entries {
            let below = path.join(&entry.name);
            if entry.is_dir {
                self.remove_tree(&below)?;
            } else {
                self.remove(&below)?;
            }
        }
        self.remove_dir(path)
    }
}

/// An open file.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    path: PathBuf,
}

impl OpenFile {
    fn new(options: &OpenOptions, path: &Path, operation: Operation) -> Result<Self, FileError> {
        let file = options.open(path).map_err(failed(operation, path))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `bytes` after what was written last.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.file.write_all(bytes).map_err(failed(Operation::Write, &self.path))
    }

    /// Writes `bytes` at `offset`.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        self.file.write_all_at(bytes, offset).map_err(failed(Operation::Write, &self.path))
    }

    /// Fills `buffer` with what comes next; returns how much of it, less than all only at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, FileError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read(rest) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(Operation::Read, &self.path)(error)),
            }
        }
        Ok(filled)
    }

    /// Cuts the file to `length` bytes, or extends it with zeros.
    pub fn resize(&self, length: ByteCount) -> Result<(), FileError> {
        self.file.set_len(length.0).map_err(failed(Operation::Resize, &self.path))
    }

    /// Its present size.
    pub fn size(&self) -> Result<ByteCount, FileError> {
        let metadata = self.file.metadata().map_err(failed(Operation::Examine, &self.path))?;
        Ok(ByteCount(metadata.len()))
    }

    /// Makes its contents and size durable, not its times, which nobody reads. Its name is durable once its
    /// directory is synced.
    pub fn sync(&self) -> Result<(), FileError> {
        self.file.sync_data().map_err(failed(Operation::Sync, &self.path))
    }
}

fn failed(operation: Operation, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { operation, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_told_from_an_unreadable_one() {
        let dir = tempfile::tempdir().expect("tempdir");
        let files = Files::real();
        let missing = dir.path().join("missing");
        assert!(if_there(files.open(&missing)).expect("an answer").is_none());
        // A directory opens but cannot be read as a file.
        let error = if_there(files.read_at_most(dir.path(), 10)).expect_err("a directory");
        assert!(error.to_string().starts_with("cannot read /"), "{error}");
    }

    #[test]
    fn reading_stops_just_past_the_limit() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("long");
        let files = Files::real();
        files.create(&path).and_then(|mut file| file.append(&[7; 100])).expect("written");
        assert_eq!(files.read_at_most(&path, 10).expect("read").len(), 11);
        assert_eq!(files.read_at_most(&path, 100).expect("read").len(), 100);
    }

    #[test]
    fn a_tree_is_removed_whole_and_its_absence_is_fine() {
        let dir = tempfile::tempdir().expect("tempdir");
        let files = Files::real();
        let tree = dir.path().join("tree");
        files.create_dir(&tree.join("inner")).expect("created");
        files.create(&tree.join("inner/file")).expect("created");
        files.remove_tree(&tree).expect("removed");
        assert!(!tree.exists());
        files.remove_tree(&tree).expect("still fine");
    }

    #[test]
    fn free_space_is_known() {
        let dir = tempfile::tempdir().expect("tempdir");
        assert!(Files::real().free_space(dir.path()).expect("statvfs").0 > 0);
    }
}
