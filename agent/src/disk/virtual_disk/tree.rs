//! Directories and files of a virtual disk: as programs see them, and as a power cut would leave them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path};

use rustix::io::Errno;

use super::Loss;

/// Number of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Inode(pub(super) u64);

const ROOT: Inode = Inode(0);

type Names = BTreeMap<OsString, Inode>;

#[derive(Clone, Debug)]
pub(super) struct Tree {
    /// Directories as programs see them.
    now: BTreeMap<Inode, Names>,
    /// Directories as they are on the medium.
    durable: BTreeMap<Inode, Names>,
    /// What lies between the two, in the order in which it happened.
    pending: Vec<Change>,
    files: BTreeMap<Inode, Contents>,
    next: u64,
}

/// A change of names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Add { dir: Inode, name: OsString, inode: Inode },
    Remove { dir: Inode, name: OsString, inode: Inode },
    Move { from: (Inode, OsString), to: (Inode, OsString), inode: Inode },
}

#[derive(Clone, Debug, Default)]
struct Contents {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Edit>,
}

#[derive(Clone, Debug)]
enum Edit {
    Write(usize, Vec<u8>),
    Resize(usize),
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = BTreeMap::from([(ROOT, Names::new())]);
        Self { now: root.clone(), durable: root, pending: Vec::new(), files: BTreeMap::new(), next: 1 }
    }

    pub(super) fn find(&self, path: &Path) -> Result<Inode, Errno> {
        let mut here = ROOT;
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            let names = self.now.get(&here).ok_or(Errno::NOTDIR)?;
            here = *names.get(name).ok_or(Errno::NOENT)?;
        }
        Ok(here)
    }

    pub(super) fn make_dirs(&mut self, path: &Path) -> Result<(), Errno> {
        let mut here = ROOT;
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            let names = self.now.get(&here).ok_or(Errno::NOTDIR)?;
            here = if let Some(below) = names.get(name) {
                *below
            } else {
                let made = self.number();
                self.now.insert(made, Names::new());
                self.durable.insert(made, Names::new());
                self.change(Change::Add { dir: here, name: name.to_owned(), inode: made });
                made
            };
        }
        if self.now.contains_key(&here) { Ok(()) } else { Err(Errno::EXIST) }
    }

    pub(super) fn make_file(&mut self, path: &Path) -> Result<Inode, Errno> {
        let (dir, name) = self.place(path)?;
        let inode = self.number();
        self.files.insert(inode, Contents::default());
        self.change(Change::Add { dir, name, inode });
        Ok(inode)
    }

    pub(super) fn bytes(&self, inode: Inode) -> Result<&[u8], Errno> {
        self.files.get(&inode).map(|contents| contents.now.as_slice()).ok_or(Errno::ISDIR)
    }

    pub(super) fn write(&mut self, inode: Inode, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let offset = usize::try_from(offset).map_err(|_| Errno::FBIG)?;
        self.edit(inode, Edit::Write(offset, bytes.to_vec()))
    }

    pub(super) fn resize(&mut self, inode: Inode, length: u64) -> Result<(), Errno> {
        let length = usize::try_from(length).map_err(|_| Errno::FBIG)?;
        self.edit(inode, Edit::Resize(length))
    }

    pub(super) fn sync(&mut self, inode: Inode) -> Result<(), Errno> {
        let contents = self.files.get_mut(&inode).ok_or(Errno::ISDIR)?;
        contents.durable = contents.now.clone();
        contents.pending.clear();
        Ok(())
    }

    pub(super) fn link(&mut self, from: &Path, to: &Path) -> Result<(), Errno> {
        let inode = self.find(from)?;
        if self.now.contains_key(&inode) {
            return Err(Errno::PERM);
        }
        let (dir, name) = self.place(to)?;
        if self.now.get(&dir).is_some_and(|names| names.contains_key(&name)) {
            return Err(Errno::EXIST);
        }
        self.change(Change::Add { dir, name, inode });
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Errno> {
        let inode = self.find(from)?;
        let (from, to) = (self.place(from)?, self.place(to)?);
        if let Some(there) = self.now.get(&to.0).and_then(|names| names.get(&to.1)) {
            match (self.now.get(there), self.now.contains_key(&inode)) {
                (Some(names), true) if !names.is_empty() => return Err(Errno::NOTEMPTY),
                (Some(_), false) => return Err(Errno::ISDIR),
                (None, true) => return Err(Errno::NOTDIR),
                (Some(_), true) | (None, false) => {}
            }
        }
        self.change(Change::Move { from, to, inode });
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path, directory: bool) -> Result<(), Errno> {
        let inode = self.find(path)?;
        match (self.now.get(&inode), directory) {
            (Some(names), true) if !names.is_empty() => return Err(Errno::NOTEMPTY),
            (Some(_), false) => return Err(Errno::ISDIR),
            (None, true) => return Err(Errno::NOTDIR),
            (Some(_), true) | (None, false) => {}
        }
        let (dir, name) = self.place(path)?;
        self.change(Change::Remove { dir, name, inode });
        Ok(())
    }

    pub(super) fn entries(&self, path: &Path) -> Result<Vec<(OsString, bool)>, Errno> {
        let names = self.now.get(&self.find(path)?).ok_or(Errno::NOTDIR)?;
        Ok(names.iter().map(|(name, inode)| (name.clone(), self.now.contains_key(inode))).collect())
    }

    /// Makes the names in one directory durable, and of others only what moved from or to it.
    pub(super) fn sync_dir(&mut self, path: &Path) -> Result<(), Errno> {
        let dir = self.find(path)?;
        if !self.now.contains_key(&dir) {
            return Err(Errno::NOTDIR);
        }
        let pending = std::mem::take(&mut self.pending);
        for (index, change) in pending.iter().enumerate() {
            if change.touches(dir) {
                change.apply(&mut self.durable);
            } else if !superseded(change, pending.get(index + 1..).unwrap_or_default(), dir) {
                self.pending.push(change.clone());
            }
        }
        Ok(())
    }

    /// How many names the file has.
    pub(super) fn links(&self, inode: Inode) -> u64 {
        let names = self.now.values().flat_map(BTreeMap::values);
        names.filter(|linked| **linked == inode).count() as u64
    }

    /// Bytes of all files that have a name.
    pub(super) fn used(&self) -> u64 {
        self.files.values().map(|contents| contents.now.len() as u64).sum()
    }

    /// What a cut leaves.
    pub(super) fn lose(&mut self, loss: Loss) {
        match loss {
            Loss::Nothing => return,
            Loss::Everything => {
                self.now = self.durable.clone();
                self.files.values_mut().for_each(Contents::forget);
            }
            Loss::Bytes => self.files.values_mut().for_each(Contents::forget),
            Loss::Some(seed) => self.lose_some(&mut Dice(seed)),
        }
        // What is seen after a cut is what is on the medium.
        self.durable = self.now.clone();
        self.pending.clear();
        for contents in self.files.values_mut() {
            contents.durable = contents.now.clone();
            contents.pending.clear();
        }
        self.drop_unreachable();
    }

    fn lose_some(&mut self, dice: &mut Dice) {
        let mut names = self.durable.clone();
        for change in self.pending.iter().filter(|_| dice.roll(2) == 0) {
            change.apply(&mut names);
        }
        self.now = names;
        for contents in self.files.values_mut() {
            let mut bytes = std::mem::take(&mut contents.durable);
            for edit in &contents.pending {
                match (dice.roll(3), edit) {
                    (0, _) => edit.apply(&mut bytes),
                    (1, Edit::Write(offset, written)) => {
                        let part = written.get(..dice.roll(written.len() + 1)).unwrap_or_default();
                        Edit::Write(*offset, part.to_vec()).apply(&mut bytes);
                    }
                    (_, _) => {}
                }
            }
            contents.now = bytes;
        }
    }

    fn edit(&mut self, inode: Inode, edit: Edit) -> Result<(), Errno> {
        let contents = self.files.get_mut(&inode).ok_or(Errno::ISDIR)?;
        edit.apply(&mut contents.now);
        contents.pending.push(edit);
        Ok(())
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.pending.push(change);
        self.drop_unreachable();
    }

    /// Forgets files that no name leads to, now or after a cut. Open ones are lost as well: nobody here
    /// reads a file that was removed.
    fn drop_unreachable(&mut self) {
        let trees = [&self.now, &self.durable].into_iter().flat_map(BTreeMap::values);
        let mut linked: Vec<Inode> = trees.flat_map(BTreeMap::values).copied().collect();
        linked.extend(self.pending.iter().map(Change::inode));
        linked.sort_unstable();
        self.files.retain(|inode, _| linked.binary_search(inode).is_ok());
    }

    fn number(&mut self) -> Inode {
        let inode = Inode(self.next);
        self.next += 1;
        inode
    }

    /// The directory that holds `path`, and its name there.
    fn place(&self, path: &Path) -> Result<(Inode, OsString), Errno> {
        let name = path.file_name().map(OsStr::to_owned).ok_or(Errno::INVAL)?;
        let dir = self.find(path.parent().unwrap_or(Path::new("/")))?;
        if self.now.contains_key(&dir) { Ok((dir, name)) } else { Err(Errno::NOTDIR) }
    }
}

/// Whether a name that `change` gave was taken away again by a move that has just become durable.
fn superseded(change: &Change, later: &[Change], synced: Inode) -> bool {
    let Change::Add { dir, name, inode } = change else { return false };
    let taken = |later: &Change| match later {
        Change::Move { from, inode: moved, .. } => {
            moved == inode && from.0 == *dir && from.1 == *name && later.touches(synced)
        }
        Change::Add { .. } | Change::Remove { .. } => false,
    };
    later.iter().any(taken)
}

impl Change {
    const fn inode(&self) -> Inode {
        match self {
            Self::Add { inode, .. } | Self::Remove { inode, .. } | Self::Move { inode, .. } => *inode,
        }
    }

    fn touches(&self, wanted: Inode) -> bool {
        match self {
            Self::Add { dir, .. } | Self::Remove { dir, .. } => *dir == wanted,
            Self::Move { from, to, .. } => from.0 == wanted || to.0 == wanted,
        }
    }

    fn apply(&self, dirs: &mut BTreeMap<Inode, Names>) {
        match self {
            Self::Add { dir, name, inode } => {
                dirs.entry(*dir).or_default().insert(name.clone(), *inode);
            }
            Self::Remove { dir, name, inode } => take(dirs, *dir, name, *inode),
            Self::Move { from, to, inode } => {
                take(dirs, from.0, &from.1, *inode);
                dirs.entry(to.0).or_default().insert(to.1.clone(), *inode);
            }
        }
    }
}

/// Takes a name away if it still means that file.
fn take(dirs: &mut BTreeMap<Inode, Names>, dir: Inode, name: &OsStr, inode: Inode) {
    if let Some(names) = dirs.get_mut(&dir)
        && names.get(name) == Some(&inode)
    {
        names.remove(name);
    }
}

impl Contents {
    /// Only what was synced is left.
    fn forget(&mut self) {
        self.now = self.durable.clone();
        self.pending.clear();
    }
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, written) => {
                let end = offset.saturating_add(written.len());
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                if let Some(place) = bytes.get_mut(*offset..end) {
                    place.copy_from_slice(written);
                }
            }
            Self::Resize(length) => bytes.resize(*length, 0),
        }
    }
}

/// Splitmix64 (Steele, Lea and Flood, 2014): chance that a seed repeats.
struct Dice(u64);

impl Dice {
    /// A number below `sides`.
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % sides.max(1) as u64).unwrap_or_default()
    }
}
