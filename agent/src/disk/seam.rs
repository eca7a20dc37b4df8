//! Every operation on the agent's durable files, few and small, in one place, so that each can be
//! recorded, failed or cut off: on the machine's own file system, or on one in memory (feature
//! `virtual-disk`).

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serin_protocol::ids::ByteCount;

#[cfg(feature = "virtual-disk")]
use super::virtual_disk::{VirtualDisk, VirtualFile};

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
    /// Its permission bits.
    pub mode: u32,
}

/// Access to files. Cheap to clone; every durable thing holds one.
#[derive(Clone, Debug)]
pub struct Files {
    disk: Disk,
}

#[derive(Clone, Debug)]
enum Disk {
    Real,
    #[cfg(feature = "virtual-disk")]
    Virtual(VirtualDisk),
}

/// Carries out the same on either disk.
macro_rules! on {
    ($files:expr, $real:expr, |$disk:ident| $virtual:expr) => {
        match &$files.disk {
            Disk::Real => $real,
            #[cfg(feature = "virtual-disk")]
            Disk::Virtual($disk) => $virtual,
        }
    };
}

impl Files {
    /// The machine's own file system.
    pub const fn real() -> Self {
        Self { disk: Disk::Real }
    }

    /// The files of a virtual disk.
    #[cfg(feature = "virtual-disk")]
    pub const fn on(disk: VirtualDisk) -> Self {
        Self { disk: Disk::Virtual(disk) }
    }

    /// Creates the directory `path` unless it is there, with its parents. The caller syncs the parent.
    pub fn create_dir(&self, path: &Path) -> Result<(), FileError> {
        let made = on!(self, fs::create_dir_all(path), |disk| disk.create_dir(path));
        made.map_err(failed(Operation::CreateDir, path))
    }

    /// Makes sure that the directory `path` is there for good. On a disk that takes no writes any more one
    /// that is there already is good enough.
    pub fn keep_dir(&self, path: &Path) -> Result<(), FileError> {
        let there = if_there(self.examine(path))?.is_some();
        self.create_dir(path)?;
        match path.parent().map_or(Ok(()), |parent| self.sync_dir(parent)) {
            Err(error) if there => {
                tracing::warn!(%error, "the disk takes no writes");
                Ok(())
            }
            other => other,
        }
    }

    /// Creates `path` or empties it, for writing.
    pub fn create(&self, path: &Path) -> Result<OpenFile, FileError> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        self.open_with(&options, path, Operation::Create, true)
    }

    /// The same, readable by its owner alone if it is new.
    pub fn create_private(&self, path: &Path) -> Result<OpenFile, FileError> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        self.open_with(&options, path, Operation::Create, true)
    }

    /// Opens `path` for reading and writing at any place, keeping what is there; creates it if needed.
    pub fn open_or_create(&self, path: &Path) -> Result<OpenFile, FileError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        self.open_with(&options, path, Operation::Create, false)
    }

    /// Puts `bytes` durably in place of what `name` in `folder` holds; a cut leaves either.
    pub fn replace(&self, folder: &Path, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        let path = folder.join(name);
        let new = path.with_extension("new");
        let mut file = self.create(&new)?;
        file.append(bytes)?;
        file.sync()?;
        self.rename(&new, &path)?;
        self.sync_dir(folder)
    }

    /// Opens `path` for reading.
    pub fn open(&self, path: &Path) -> Result<OpenFile, FileError> {
        self.open_with(OpenOptions::new().read(true), path, Operation::Open, false)
    }

    /// With `empty`, what was in it is gone.
    fn open_with(
        &self,
        options: &OpenOptions,
        path: &Path,
        operation: Operation,
        empty: bool,
    ) -> Result<OpenFile, FileError> {
        #[cfg(not(feature = "virtual-disk"))]
        let _ = empty; // The options say it too.
        let opened = on!(self, options.open(path).map(Handle::Real), |disk| {
            disk.open(path, operation, empty).map(Handle::Virtual)
        });
        let handle = opened.map_err(failed(operation, path))?;
        Ok(OpenFile { handle, path: path.to_owned() })
    }

    /// Reads all of `path`, or its first `limit + 1` bytes, so that the caller sees that it is too long.
    pub fn read_at_most(&self, path: &Path, limit: usize) -> Result<Vec<u8>, FileError> {
        let read = || {
            let mut bytes = Vec::new();
            File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        on!(self, read(), |disk| disk.read_at_most(path, limit)).map_err(failed(Operation::Read, path))
    }

    /// Gives `from` the name `to`, replacing what has it. Durable once the directories are synced.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        on!(self, fs::rename(from, to), |disk| disk.rename(from, to)).map_err(failed(Operation::Rename, to))
    }

    /// Gives the file `from` the second name `to`, which must be free.
    pub fn link(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        on!(self, fs::hard_link(from, to), |disk| disk.link(from, to)).map_err(failed(Operation::Link, to))
    }

    /// Removes the file `path`.
    pub fn remove(&self, path: &Path) -> Result<(), FileError> {
        let removed = on!(self, fs::remove_file(path), |disk| disk.remove(path, false));
        removed.map_err(failed(Operation::Remove, path))
    }

    /// Removes the empty directory `path`.
    pub fn remove_dir(&self, path: &Path) -> Result<(), FileError> {
        let removed = on!(self, fs::remove_dir(path), |disk| disk.remove(path, true));
        removed.map_err(failed(Operation::Remove, path))
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
        on!(self, read(), |disk| disk.list(path)).map_err(failed(Operation::List, path))
    }

    /// Makes the entries of the directory `path` durable.
    pub fn sync_dir(&self, path: &Path) -> Result<(), FileError> {
        let sync = || File::open(path)?.sync_all();
        on!(self, sync(), |disk| disk.sync_dir(path)).map_err(failed(Operation::SyncDir, path))
    }

    /// Size, links and number of the file `path`; a symbolic link is not followed.
    pub fn examine(&self, path: &Path) -> Result<Examined, FileError> {
        let examine = || {
            let found = fs::symlink_metadata(path)?;
            Ok(Examined {
                size: ByteCount(found.len()),
                links: found.nlink(),
                inode: found.ino(),
                mode: found.mode() & 0o7777,
            })
        };
        on!(self, examine(), |disk| disk.examine(path)).map_err(failed(Operation::Examine, path))
    }

    /// Bytes that may still be written to the file system of `path` without being root.
    pub fn free_space(&self, path: &Path) -> Result<ByteCount, FileError> {
        let ask = || {
            let space = rustix::fs::statvfs(path)?;
            Ok(ByteCount(space.f_bavail.saturating_mul(space.f_frsize)))
        };
        on!(self, ask(), |disk| disk.free_space(path)).map_err(failed(Operation::FreeSpace, path))
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
    handle: Handle,
    path: PathBuf,
}

#[derive(Debug)]
enum Handle {
    Real(File),
    #[cfg(feature = "virtual-disk")]
    Virtual(VirtualFile),
}

/// Carries out the same on a file of either disk.
macro_rules! with {
    ($handle:expr, |$real:ident| $on_real:expr, |$virtual:ident| $on_virtual:expr) => {
        match $handle {
            Handle::Real($real) => $on_real,
            #[cfg(feature = "virtual-disk")]
            Handle::Virtual($virtual) => $on_virtual,
        }
    };
}

impl OpenFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `bytes` after what was written last.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        let written = with!(&mut self.handle, |file| file.write_all(bytes), |file| file.append(bytes));
        written.map_err(failed(Operation::Write, &self.path))
    }

    /// Writes `bytes` at `offset`.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        let written =
            with!(&self.handle, |file| file.write_all_at(bytes, offset), |file| file.write_at(offset, bytes));
        written.map_err(failed(Operation::Write, &self.path))
    }

    /// Fills `buffer` with what comes next; returns how much of it, less than all only at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, FileError> {
        let read = with!(&mut self.handle, |file| fill(file, buffer), |file| file.read(buffer));
        read.map_err(failed(Operation::Read, &self.path))
    }

    /// Cuts the file to `length` bytes, or extends it with zeros.
    pub fn resize(&self, length: ByteCount) -> Result<(), FileError> {
        let resized = with!(&self.handle, |file| file.set_len(length.0), |file| file.resize(length.0));
        resized.map_err(failed(Operation::Resize, &self.path))
    }

    /// Its present size.
    pub fn size(&self) -> Result<ByteCount, FileError> {
        let size = with!(&self.handle, |file| file.metadata().map(|found| found.len()), |file| file.size());
        size.map(ByteCount).map_err(failed(Operation::Examine, &self.path))
    }

    /// Makes its contents and size durable, not its times, which nobody reads. Its name is durable once its
    /// directory is synced.
    pub fn sync(&self) -> Result<(), FileError> {
        let synced = with!(&self.handle, |file| file.sync_data(), |file| file.sync());
        synced.map_err(failed(Operation::Sync, &self.path))
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn failed(operation: Operation, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { operation, path, source }
}

#[cfg(test)]
#[path = "seam_tests.rs"]
mod tests;
