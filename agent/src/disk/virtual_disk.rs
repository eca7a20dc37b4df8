//! A file system in memory whose power can be cut before any operation, with everything in mind that was
//! not made durable yet: what a simulation of the device runs on (feature `virtual-disk`).
//!
//! It promises as little as POSIX does. Bytes are durable once their file is synced, names once their
//! directory is synced, and of what is not, any part may be there after a cut or not. Only a rename happens
//! as a whole, as on every file system with a journal.

mod tree;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use serin_protocol::ids::ByteCount;

use self::tree::{Inode, Tree};
use super::seam::{Entry, Examined, Operation};

/// A disk. Cheap to clone: a clone is the same disk.
#[derive(Clone)]
pub struct VirtualDisk(Arc<Mutex<Disk>>);

struct Disk {
    tree: Tree,
    /// Bytes there are.
    capacity: u64,
    /// What was asked of it, in order.
    log: Vec<Step>,
    trouble: Option<Trouble>,
    powered: bool,
}

/// One operation that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub operation: Operation,
    /// On which file or directory.
    pub path: PathBuf,
}

impl Step {
    /// Whether it changes anything, or makes a change durable.
    pub const fn changes(&self) -> bool {
        match self.operation {
            Operation::Create
            | Operation::Write
            | Operation::Resize
            | Operation::Sync
            | Operation::CreateDir
            | Operation::SyncDir
            | Operation::Rename
            | Operation::Link
            | Operation::Remove => true,
            Operation::Open
            | Operation::Read
            | Operation::List
            | Operation::Examine
            | Operation::FreeSpace => false,
        }
    }
}

/// What happens at the operation with this number, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// At which.
    pub at: usize,
    /// What.
    pub kind: TroubleKind,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// The operation and all after it do not happen: the process or the machine has ended.
    Cut,
    /// The same, but half of what was to be written is.
    Torn,
    /// This operation fails, later ones do not.
    Once(Fault),
    /// Every operation that changes anything fails from now on, until [`VirtualDisk::repair`].
    FromNowOn(Fault),
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// ENOSPC.
    NoSpace,
    /// EIO.
    Broken,
    /// EROFS.
    ReadOnly,
}

/// What a cut leaves of what was not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of it: only the process ended.
    Nothing,
    /// None of it.
    Everything,
    /// Names are there, the bytes are not: files appear empty, or as they were.
    Bytes,
    /// Of names and bytes some, chosen by this seed; a write may be torn.
    Some(u64),
}

impl VirtualDisk {
    /// An empty disk.
    pub fn new(capacity: ByteCount) -> Self {
        Self(Arc::new(Mutex::new(Disk {
            tree: Tree::new(),
            capacity: capacity.0,
            log: Vec::new(),
            trouble: None,
            powered: true,
        })))
    }

    /// Another disk with the same contents, durable or not, and an empty log.
    #[must_use]
    pub fn copy(&self) -> Self {
        let disk = self.disk();
        let copy = Disk {
            tree: disk.tree.clone(),
            capacity: disk.capacity,
            log: Vec::new(),
            trouble: None,
            powered: disk.powered,
        };
        Self(Arc::new(Mutex::new(copy)))
    }

    /// What has been asked of it since it was made.
    pub fn log(&self) -> Vec<Step> {
        self.disk().log.clone()
    }

    /// From now on this will happen.
    pub fn expect(&self, trouble: Trouble) {
        self.disk().trouble = Some(trouble);
    }

    /// Whether the power is on. After [`TroubleKind::Cut`] or [`TroubleKind::Torn`] it is not.
    pub fn is_powered(&self) -> bool {
        self.disk().powered
    }

    /// Nothing fails any more.
    pub fn repair(&self) {
        self.disk().trouble = None;
    }

    /// The power comes back; `loss` says what was lost with it. Nothing fails any more.
    pub fn power_on(&self, loss: Loss) {
        let mut disk = self.disk();
        disk.tree.lose(loss);
        disk.powered = true;
        disk.trouble = None;
    }

    /// The bytes of a file, whatever is wrong with the disk.
    pub fn peek(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk();
        let inode = disk.tree.find(path).ok()?;
        disk.tree.bytes(inode).ok().map(<[u8]>::to_vec)
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        // A panic in a simulation ends it; what the lock guards is looked at no more.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let there = disk.tree.entries(path).is_ok();
        // As on a read-only file system: what is there need not be made.
        disk.begin(if there { Operation::Examine } else { Operation::CreateDir }, path)?;
        Ok(disk.tree.make_dirs(path)?)
    }

    /// Opens `path`; with `operation` [`Operation::Create`] it is made if it is not there.
    pub(super) fn open(&self, path: &Path, operation: Operation, empty: bool) -> io::Result<VirtualFile> {
        let mut disk = self.disk();
        disk.begin(operation, path)?;
        let inode = match disk.tree.find(path) {
            Err(Errno::NOENT) if operation == Operation::Create => disk.tree.make_file(path)?,
            found => found?,
        };
        if empty {
            disk.tree.resize(inode, 0)?;
        }
        let file = VirtualFile { disk: self.clone(), inode, path: path.to_owned(), position: 0 };
        Ok(file)
    }

    pub(super) fn read_at_most(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        let mut disk = self.disk();
        disk.begin(Operation::Read, path)?;
        let inode = disk.tree.find(path)?;
        let bytes = disk.tree.bytes(inode)?;
        Ok(bytes.get(..limit.saturating_add(1)).unwrap_or(bytes).to_vec())
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.begin(Operation::Rename, to)?;
        Ok(disk.tree.rename(from, to)?)
    }

    pub(super) fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.begin(Operation::Link, to)?;
        Ok(disk.tree.link(from, to)?)
    }

    pub(super) fn remove(&self, path: &Path, directory: bool) -> io::Result<()> {
        let mut disk = self.disk();
        disk.begin(Operation::Remove, path)?;
        Ok(disk.tree.remove(path, directory)?)
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut disk = self.disk();
        disk.begin(Operation::List, path)?;
        let entries = disk.tree.entries(path)?;
        Ok(entries.into_iter().map(|(name, is_dir)| Entry { name, is_dir }).collect())
    }

    pub(super) fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.begin(Operation::SyncDir, path)?;
        Ok(disk.tree.sync_dir(path)?)
    }

    pub(super) fn examine(&self, path: &Path) -> io::Result<Examined> {
        let mut disk = self.disk();
        disk.begin(Operation::Examine, path)?;
        let inode = disk.tree.find(path)?;
        let size = disk.tree.bytes(inode).map_or(0, |bytes| bytes.len() as u64);
        // Nobody else is here whom a mode could keep out.
        Ok(Examined { size: ByteCount(size), links: disk.tree.links(inode), inode: inode.0, mode: 0o600 })
    }

    pub(super) fn free_space(&self, path: &Path) -> io::Result<ByteCount> {
        let mut disk = self.disk();
        disk.begin(Operation::FreeSpace, path)?;
        Ok(ByteCount(disk.free()))
    }
}

impl fmt::Debug for VirtualDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualDisk").finish_non_exhaustive()
    }
}

impl Disk {
    /// Notes the operation; what goes wrong with it does so here.
    fn begin(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        self.ask(operation, path).map_err(io::Error::from)
    }

    fn ask(&mut self, operation: Operation, path: &Path) -> Result<(), Errno> {
        if !self.powered {
            return Err(Errno::IO);
        }
        let number = self.log.len();
        let step = Step { operation, path: path.to_owned() };
        let changes = step.changes();
        self.log.push(step);
        let Some(Trouble { at, kind }) = self.trouble else { return Ok(()) };
        match kind {
            TroubleKind::Cut | TroubleKind::Torn if at == number => {
                self.powered = false;
                Err(Errno::IO)
            }
            TroubleKind::Once(fault) if at == number => Err(fault.errno()),
            TroubleKind::FromNowOn(fault) if at <= number && changes => Err(fault.errno()),
            TroubleKind::Cut | TroubleKind::Torn | TroubleKind::Once(_) | TroubleKind::FromNowOn(_) => Ok(()),
        }
    }

    fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.tree.used())
    }

    fn write(&mut self, inode: Inode, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let number = self.log.len();
        let torn = Some(Trouble { at: number, kind: TroubleKind::Torn }) == self.trouble;
        if torn && self.powered {
            let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
            self.tree.write(inode, offset, half)?;
        }
        self.ask(Operation::Write, path)?;
        if self.free() < bytes.len() as u64 {
            return Err(Errno::NOSPC);
        }
        self.tree.write(inode, offset, bytes)
    }
}

impl Fault {
    const fn errno(self) -> Errno {
        match self {
            Self::NoSpace => Errno::NOSPC,
            Self::Broken => Errno::IO,
            Self::ReadOnly => Errno::ROFS,
        }
    }
}

/// An open file of a virtual disk.
pub(super) struct VirtualFile {
    disk: VirtualDisk,
    inode: Inode,
    path: PathBuf,
    position: u64,
}

impl fmt::Debug for VirtualFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl VirtualFile {
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_at(self.position, bytes)?;
        self.position = self.position.saturating_add(bytes.len() as u64);
        Ok(())
    }

    pub(super) fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        Ok(self.disk.disk().write(self.inode, &self.path, offset, bytes)?)
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut disk = self.disk.disk();
        disk.begin(Operation::Read, &self.path)?;
        let bytes = disk.tree.bytes(self.inode)?;
        let start = usize::try_from(self.position).unwrap_or(usize::MAX);
        let rest = bytes.get(start..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.position = self.position.saturating_add(count as u64);
        Ok(count)
    }

    pub(super) fn resize(&self, length: u64) -> io::Result<()> {
        let mut disk = self.disk.disk();
        disk.begin(Operation::Resize, &self.path)?;
        Ok(disk.tree.resize(self.inode, length)?)
    }

    pub(super) fn size(&self) -> io::Result<u64> {
        let mut disk = self.disk.disk();
        disk.begin(Operation::Examine, &self.path)?;
        Ok(disk.tree.bytes(self.inode)?.len() as u64)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk.disk();
        disk.begin(Operation::Sync, &self.path)?;
        Ok(disk.tree.sync(self.inode)?)
    }
}

#[cfg(test)]
#[path = "virtual_disk_tests.rs"]
mod tests;
