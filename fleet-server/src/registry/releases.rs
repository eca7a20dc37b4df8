//! Checks an uploaded release before anything of it is believed: that its owner's signed metadata lists it,
//! and that the bundle is what the statement says, file by file.

use std::io::{self, Read};

use serin_protocol::bundle::{BundleError, BundleFile, BundleReader, Piece};
use serin_protocol::chunk::ObjectRef;
use serin_protocol::ids::{ByteCount, Digest, ReleaseId};
use serin_protocol::manifest::{Manifest, ManifestError};
use serin_protocol::release::{Release, StatementError};
use serin_protocol::sketch::profile::{Profile, ProfileError};

use super::objects::{ObjectError, ObjectStore};

/// Bytes unpacked at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// Headers, padding and trailer of a container of at most eight files.
const CONTAINER_BYTES: u64 = 16 * 1024;

/// A release that holds what its statement says.
#[derive(Debug)]
pub struct Checked {
    /// What the owner said.
    pub release: Release,
    /// Digest of the statement.
    pub statement: Digest,
    /// The manifest in the bundle.
    pub manifest: Manifest,
    /// `reference.bin`.
    pub profile: Vec<u8>,
}

/// Why a release is refused.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// It is none.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// No owner's metadata lists it.
    #[error("no owner's metadata here lists {0} with this statement")]
    NotListed(ReleaseId),
    /// The bundle was not uploaded.
    #[error("the bundle {0} is not here")]
    NoBundle(Digest),
    /// The statement and the bundle contradict each other.
    #[error("the bundle is not what the statement says: {0}")]
    Contradiction(String),
    /// The bundle cannot be unpacked.
    #[error("the bundle cannot be unpacked: {0}")]
    Unpack(#[from] io::Error),
    /// Its container is not in form.
    #[error("the bundle is refused: {0}")]
    Container(#[from] BundleError),
    /// Its manifest is refused.
    #[error("the bundle is refused: {0}")]
    Manifest(#[from] ManifestError),
    /// Its reference profile is refused.
    #[error("the bundle is refused: {0}")]
    Profile(#[from] ProfileError),
    /// The object store failed.
    #[error(transparent)]
    Objects(#[from] ObjectError),
}

/// Whether an owner's signed metadata lists the release with the statement of this digest.
pub type Listed = dyn Fn(&ReleaseId, &Digest) -> bool + Send + Sync;

/// Checks the bundle of `statement` in `objects` and stores its chunk list beside it.
pub fn check(objects: &ObjectStore, statement: &[u8], listed: &Listed) -> Result<Checked, ReleaseError> {
    let release = Release::parse(statement)?;
    if !listed(&release.id, &Digest::of(statement)) {
        return Err(ReleaseError::NotListed(release.id));
    }
    let size = objects.size(&release.bundle.digest)?;
    let size = size.ok_or(ReleaseError::NoBundle(release.bundle.digest))?;
    if size != release.bundle.size {
        return Err(contradiction(format!("it has {size} bytes, not {}", release.bundle.size)));
    }
    let (manifest, manifest_bytes, profile) = unpack(objects, &release)?;
    let profile_digest = Digest::of(&profile);
    let facts = [
        ("model and version", manifest.id() == release.id),
        ("reference profile", profile_digest == release.profile),
        ("runtime", manifest.runtime == release.runtime),
        ("target classes", manifest.targets.as_slice() == release.targets.as_slice()),
        ("memory limit", manifest.measured.memory_limit == release.memory),
        ("unpacked size", manifest.unpacked(manifest_bytes) == release.unpacked),
    ];
    if let Some((name, _)) = facts.iter().find(|(_, agrees)| !agrees) {
        return Err(contradiction(format!("its {name} differs")));
    }
    let named = Profile::parse(&profile)?;
    named.check(&manifest).map_err(|mismatch| contradiction(mismatch.to_string()))?;
    store_chunk_list(objects, &release)?;
    Ok(Checked { release, statement: Digest::of(statement), manifest, profile })
}

/// Reads manifest and profile out of the bundle and checks every file's digest on the way.
fn unpack(objects: &ObjectStore, release: &Release) -> Result<(Manifest, u64, Vec<u8>), ReleaseError> {
    let bundle =
        ObjectReader { objects, object: release.bundle.digest, next: 0, piece: io::Cursor::default() };
    let limit = release.unpacked.0.saturating_add(CONTAINER_BYTES);
    let mut bytes = zstd::Decoder::new(bundle)?.take(limit);
    let mut reader = BundleReader::default();
    let mut files = Files::default();
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let read = bytes.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        let mut input = buffer.get(..read).unwrap_or_default();
        while let Some(piece) = reader.next(&mut input)? {
            files.take(&piece)?;
        }
    }
    reader.finish()?;
    let manifest = files.manifest.ok_or(BundleError::Truncated)?;
    manifest.lists(&files.found)?;
    Ok((manifest, files.manifest_bytes, files.profile))
}

#[derive(Default)]
struct Files {
    manifest: Option<Manifest>,
    manifest_bytes: u64,
    profile: Vec<u8>,
    found: Vec<BundleFile>,
    kept: Vec<u8>,
    size: u64,
    hasher: Option<serin_protocol::ids::Hasher>,
}

impl Files {
    fn take(&mut self, piece: &Piece<'_>) -> Result<(), ReleaseError> {
        match piece {
            Piece::Start(_, size) => {
                self.size = *size;
                self.kept.clear();
                self.hasher = Some(Digest::hasher());
            }
            Piece::Data(data) => {
                if let Some(hasher) = &mut self.hasher {
                    hasher.update(data);
                }
                // Of model and golden vectors only the digest is wanted; the other files are small.
                if self.size <= serin_protocol::sketch::profile::MAX_PROFILE_BYTES as u64 {
                    self.kept.extend_from_slice(data);
                }
            }
            Piece::End(file) => return self.end(*file),
        }
        Ok(())
    }

    fn end(&mut self, file: BundleFile) -> Result<(), ReleaseError> {
        let digest = self.hasher.take().map(serin_protocol::ids::Hasher::finish);
        self.found.push(file);
        if file == BundleFile::Manifest {
            self.manifest_bytes = self.size;
            self.manifest = Some(Manifest::parse(&self.kept)?);
            return Ok(());
        }
        let entry = self.manifest.as_ref().and_then(|manifest| manifest.entry(file));
        let agrees = entry.is_some_and(|entry| Some(entry.digest) == digest && entry.size.0 == self.size);
        if !agrees {
            return Err(contradiction(format!("{} is not what the manifest says", file.name())));
        }
        if file == BundleFile::Reference {
            self.profile = std::mem::take(&mut self.kept);
        }
        Ok(())
    }
}

/// The digests of the bundle's chunks in order are an object of their own.
fn store_chunk_list(objects: &ObjectStore, release: &Release) -> Result<(), ReleaseError> {
    let bundle = release.bundle.digest;
    let map = objects.chunk_map(&bundle)?.ok_or(ReleaseError::NoBundle(bundle))?;
    let mut list = Vec::with_capacity(map.count() as usize * 32);
    for index in 0..map.count() {
        let chunk = objects.chunk(&bundle, index)?.ok_or(ReleaseError::NoBundle(bundle))?;
        list.extend_from_slice(&Digest::of(&chunk).0);
    }
    let computed = ObjectRef { digest: Digest::of(&list), size: ByteCount(list.len() as u64) };
    if computed != release.chunk_list {
        return Err(contradiction("its list of chunks differs".into()));
    }
    objects.put(list.as_slice())?;
    Ok(())
}

fn contradiction(what: String) -> ReleaseError {
    ReleaseError::Contradiction(what)
}

/// Reads an object from start to end.
struct ObjectReader<'a> {
    objects: &'a ObjectStore,
    object: Digest,
    next: u32,
    piece: io::Cursor<bytes::Bytes>,
}

impl Read for ObjectReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            match self.objects.chunk(&self.object, self.next).map_err(io::Error::other)? {
                Some(piece) => self.piece = io::Cursor::new(piece),
                None => return Ok(0),
            }
            self.next += 1;
        }
    }
}

#[cfg(test)]
#[path = "releases_tests.rs"]
mod tests;
