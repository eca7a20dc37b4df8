//! Unpacked releases. Every file is stored once, under its digest; a release is a directory of hard
//! links to its files, built aside and renamed into place, so that it is there whole or not at all.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serin_protocol::bundle::BundleFile;
use serin_protocol::ids::{ByteCount, Digest};
use serin_protocol::manifest::{MAX_MANIFEST_BYTES, Manifest, ManifestError};
use serin_protocol::release::Release;

use super::seam::{FileError, Files, if_there};
use super::unpack::{Contradiction, Unpacked, agrees, unpack};

pub use super::unpack::StageError;

/// Bytes hashed at a time when a release is verified.
const BUFFER_BYTES: usize = 64 * 1024;

/// The releases in one state directory. A handle: cheap to clone. Staging and collecting exclude each
/// other; opening a release never waits for them.
#[derive(Clone, Debug)]
pub struct ReleaseStore {
    files: Files,
    content: PathBuf,
    releases: PathBuf,
    staging: PathBuf,
    writer: Arc<Mutex<()>>,
}

/// A release that is on disk whole.
#[derive(Clone, Debug)]
pub struct StagedRelease {
    /// Digest of its signed statement.
    pub statement: Digest,
    /// Where its files are, under their bundle names.
    pub dir: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
}

impl StagedRelease {
    /// Where `file` is.
    pub fn path(&self, file: BundleFile) -> PathBuf {
        self.dir.join(file.name())
    }
}

/// A release on disk is not what was staged.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The disk failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its manifest no longer parses.
    #[error("release {statement} is damaged: {source}")]
    Manifest {
        /// The release.
        statement: Digest,
        /// What is wrong.
        source: ManifestError,
    },
    /// One of its files is missing or has other contents.
    #[error("release {statement} is damaged: {name} {what}")]
    Damaged {
        /// The release.
        statement: Digest,
        /// The file.
        name: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// It is not what its owner signed.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
}

/// What garbage collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Releases.
    pub releases: usize,
    /// Files that no release had any more.
    pub files: usize,
}

impl ReleaseStore {
    /// Opens the releases in the state directory `dir`, creating what is needed. What an interrupted
    /// staging or removal left behind is cleared.
    pub fn open(files: Files, dir: &Path) -> Result<Self, FileError> {
        let store = Self {
            files,
            content: dir.join("files"),
            releases: dir.join("releases"),
            staging: dir.join("staging"),
            writer: Arc::default(),
        };
        for below in [&store.content, &store.releases, &store.staging] {
            store.files.keep_dir(below)?;
        }
        if let Err(error) = store.clear_staging() {
            tracing::warn!(%error, "what an interrupted staging left stays until the next collection");
        }
        Ok(store)
    }

    /// Unpacks the bundle at `bundle`, checks it against what its owner signed, and stores it under
    /// the digest of that statement. A release that is already here is left as it is; a damaged one is
    /// replaced. After an error nothing of it is left.
    ///
    /// Blocks for as long as the bundle takes to be read, unpacked and synced.
    pub fn stage(&self, bundle: &Path, statement: &Release, digest: Digest) -> Result<Manifest, StageError> {
        let _writing = self.lock();
        if let Ok(Some(release)) = self.open_release(digest)
            && agreed(&self.files, &release, statement).is_ok()
        {
            return Ok(release.manifest);
        }
        let aside = self.staging.join(digest.to_string());
        self.files.remove_tree(&aside)?;
        self.files.create_dir(&aside)?;
        let mut added = Vec::new();
        let staged = self.build(bundle, statement, digest, &aside, &mut added);
        if staged.is_err() {
            self.abandon(&aside, &added);
        }
        staged
    }

    /// The release with this statement digest: `None` when it is not here. Its files are looked for
    /// and their sizes checked, not their contents: see [`Self::verify`].
    pub fn open_release(&self, statement: Digest) -> Result<Option<StagedRelease>, ReleaseError> {
        let dir = self.releases.join(statement.to_string());
        if if_there(self.files.examine(&dir))?.is_none() {
            return Ok(None);
        }
        let damaged = |name, what| ReleaseError::Damaged { statement, name, what };
        let manifest = BundleFile::Manifest.name();
        let bytes = if_there(self.files.read_at_most(&dir.join(manifest), MAX_MANIFEST_BYTES))?
            .ok_or_else(|| damaged(manifest, "is missing"))?;
        let manifest =
            Manifest::parse(&bytes).map_err(|source| ReleaseError::Manifest { statement, source })?;
        for entry in &manifest.files {
            let name = entry.name.name();
            let found =
                if_there(self.files.examine(&dir.join(name)))?.ok_or_else(|| damaged(name, "is missing"))?;
            if found.size != entry.size {
                return Err(damaged(name, "has another size"));
            }
        }
        Ok(Some(StagedRelease { statement, dir, manifest }))
    }

    /// Reads every file of `release` and compares its digest, the manifest's own too; with
    /// `statement`, compares the manifest with what its owner signed.
    pub fn verify(&self, release: &StagedRelease, statement: Option<&Release>) -> Result<(), ReleaseError> {
        let damaged = |file: BundleFile| ReleaseError::Damaged {
            statement: release.statement,
            name: file.name(),
            what: "has other contents",
        };
        for entry in &release.manifest.files {
            if self.hash(&release.path(entry.name))? != entry.digest {
                return Err(damaged(entry.name));
            }
        }
        // Nothing lists the manifest's digest, but it was stored under it.
        let path = release.path(BundleFile::Manifest);
        let stored = self.content.join(self.hash(&path)?.to_string());
        let inode = if_there(self.files.examine(&stored))?.map(|found| found.inode);
        if inode != Some(self.files.examine(&path)?.inode) {
            return Err(damaged(BundleFile::Manifest));
        }
        match statement {
            Some(statement) => agreed(&self.files, release, statement),
            None => Ok(()),
        }
    }

    /// Statement digests of all releases that are here, ascending.
    pub fn list(&self) -> Result<Vec<Digest>, FileError> {
        let entries = self.files.list(&self.releases)?;
        Ok(entries.iter().filter_map(super::seam::Entry::parse).collect())
    }

    /// Removes every release but those named in `keep`, then every file that no release has any more,
    /// then what interrupted work left behind. A release disappears whole, by a rename, before its
    /// first file is removed.
    pub fn remove_except(&self, keep: &[Digest]) -> Result<Removed, FileError> {
        let _writing = self.lock();
        let mut removed = Removed::default();
        self.clear_staging()?;
        for digest in self.list()? {
            if !keep.contains(&digest) {
                self.remove_release(digest)?;
                removed.releases += 1;
            }
        }
        for entry in self.files.list(&self.content)? {
            let path = self.content.join(&entry.name);
            // The name here is one link, each release another.
            if self.files.examine(&path)?.links == 1 {
                self.files.remove(&path)?;
                removed.files += 1;
            }
        }
        Ok(removed)
    }

    /// Bytes free where releases are stored.
    pub fn free_space(&self) -> Result<ByteCount, FileError> {
        self.files.free_space(&self.releases)
    }

    fn build(
        &self,
        bundle: &Path,
        statement: &Release,
        digest: Digest,
        aside: &Path,
        added: &mut Vec<PathBuf>,
    ) -> Result<Manifest, StageError> {
        let (manifest, unpacked) = unpack(&self.files, bundle, statement, aside)?;
        for file in &unpacked {
            self.share(file, aside, added)?;
        }
        self.files.sync_dir(&self.content)?;
        self.files.sync_dir(aside)?;
        // Only a damaged release can be in the way: a sound one was found before.
        self.remove_release(digest)?;
        self.files.rename(aside, &self.releases.join(digest.to_string()))?;
        self.files.sync_dir(&self.releases)?;
        Ok(manifest)
    }

    /// Makes the file just unpacked in `aside` and the stored file of its digest one and the same.
    fn share(&self, unpacked: &Unpacked, aside: &Path, added: &mut Vec<PathBuf>) -> Result<(), FileError> {
        let fresh = aside.join(unpacked.file.name());
        let stored = self.content.join(unpacked.digest.to_string());
        match if_there(self.hash(&stored))? {
            Some(found) if found == unpacked.digest => {
                self.files.remove(&fresh)?;
                self.files.link(&stored, &fresh)
            }
            // Damaged since: the releases that have it keep their link until they are staged anew.
            Some(_) => {
                let renamed = aside.join("replacement");
                self.files.link(&fresh, &renamed)?;
                self.files.rename(&renamed, &stored)
            }
            None => {
                self.files.link(&fresh, &stored)?;
                added.push(stored);
                Ok(())
            }
        }
    }

    fn hash(&self, path: &Path) -> Result<Digest, FileError> {
        let mut file = self.files.open(path)?;
        let mut hasher = Digest::hasher();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let count = file.read(&mut buffer)?;
            match buffer.get(..count) {
                Some([]) | None => return Ok(hasher.finish()),
                Some(bytes) => hasher.update(bytes),
            }
        }
    }

    fn remove_release(&self, digest: Digest) -> Result<(), FileError> {
        let doomed = self.staging.join(format!("{digest}.removed"));
        self.files.remove_tree(&doomed)?;
        let renamed = self.files.rename(&self.releases.join(digest.to_string()), &doomed);
        if if_there(renamed)?.is_none() {
            return Ok(());
        }
        self.files.sync_dir(&self.releases)?;
        self.files.remove_tree(&doomed)
    }

    /// Undoes an interrupted build. What cannot be removed now is garbage for the next collection.
    fn abandon(&self, aside: &Path, added: &[PathBuf]) {
        let cleaned = added
            .iter()
            .try_for_each(|path| self.files.remove(path))
            .and_then(|()| self.files.remove_tree(aside));
        if let Err(error) = cleaned {
            tracing::warn!(%error, "leftovers of a refused bundle stay until the next collection");
        }
    }

    fn clear_staging(&self) -> Result<(), FileError> {
        for entry in self.files.list(&self.staging)? {
            let path = self.staging.join(&entry.name);
            if entry.is_dir {
                self.files.remove_tree(&path)?;
            } else {
                self.files.remove(&path)?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // The lock guards no data; a panic elsewhere leaves only what an interrupted staging leaves.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn agreed(files: &Files, release: &StagedRelease, statement: &Release) -> Result<(), ReleaseError> {
    let size = files.examine(&release.path(BundleFile::Manifest))?.size;
    Ok(agrees(&release.manifest, size.0, statement)?)
}

#[cfg(test)]
#[path = "releases_tests.rs"]
mod tests;
