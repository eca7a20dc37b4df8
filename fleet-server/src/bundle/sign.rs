//! What an owner signs about a bundle, and whether a bundle is what was signed.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use serin_protocol::bundle::BundleFile;
use serin_protocol::chunk::{CHUNK_BYTES, ChunkMap, ChunkMapError, MAX_OBJECT_BYTES, ObjectRef};
use serin_protocol::envelope::{self, KeyRing, OpenError, SealError};
use serin_protocol::ids::{ByteCount, Digest, TargetClass};
use serin_protocol::release::Release;

use super::open::{BundleReadError, OpenedBundle, read_bundle};

/// A bundle was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The bundle is not a good one.
    #[error(transparent)]
    Bundle(#[from] BundleReadError),
    /// It cannot be read a second time.
    #[error("cannot read the bundle: {0}")]
    Io(#[from] io::Error),
    /// It was changed between the first and the second reading.
    #[error("the bundle was changed while it was signed")]
    Changed,
    /// It cannot be transferred.
    #[error(transparent)]
    Size(#[from] ChunkMapError),
    /// It names more target classes than a statement holds.
    #[error("the manifest names too many target classes")]
    Targets,
    /// The statement is too large.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// A bundle is not what was signed.
#[derive(Debug, thiserror::Error)]
pub enum MatchError {
    /// It cannot be read.
    #[error("cannot read the bundle: {0}")]
    Io(#[from] io::Error),
    /// It differs from the signed statement.
    #[error("{what} is {found}, signed is {signed}")]
    Differs {
        /// In what.
        what: &'static str,
        /// What was signed.
        signed: String,
        /// What the bundle has.
        found: String,
    },
}

/// Where the signed statement about the bundle at `bundle` is kept.
pub fn release_path(bundle: &Path) -> PathBuf {
    let mut name = bundle.as_os_str().to_owned();
    name.push(".release");
    name.into()
}

/// Checks the bundle at `path` and signs what it is; returns the statement and its envelope.
pub fn sign(path: &Path, key: &SigningKey) -> Result<(Release, Vec<u8>), SignError> {
    let opened = read_bundle(path)?;
    let (bundle, list) = cut(path)?;
    if bundle != opened.bundle {
        return Err(SignError::Changed);
    }
    let release = statement(&opened, &list)?;
    let envelope = envelope::seal_to_vec(&release, key)?;
    Ok((release, envelope))
}

/// What is signed about `opened`, whose chunks have the digests in `list`.
fn statement(opened: &OpenedBundle, list: &[u8]) -> Result<Release, SignError> {
    ChunkMap::new(opened.bundle.size)?;
    let manifest = &opened.manifest;
    Ok(Release {
        id: manifest.id(),
        bundle: opened.bundle,
        chunk_list: object(list),
        unpacked: opened.unpacked,
        memory: manifest.measured.memory_limit,
        runtime: manifest.runtime.clone(),
        targets: heapless::Vec::from_slice(&manifest.targets).map_err(|_| SignError::Targets)?,
        profile: Digest::of(&opened.profile_bytes),
    })
}

/// The SHA-256 digests of the chunks of the bundle at `path`, 32 bytes each, in order.
pub fn chunk_list(path: &Path) -> io::Result<Vec<u8>> {
    cut(path).map(|(_, list)| list)
}

/// The whole object, and the digests of its chunks.
fn cut(path: &Path) -> io::Result<(ObjectRef, Vec<u8>)> {
    // One byte more than can be transferred shows that there is more.
    let mut file = File::open(path)?.take(MAX_OBJECT_BYTES + 1);
    let mut whole = Digest::hasher();
    let mut size = 0_u64;
    let mut list = Vec::new();
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    loop {
        chunk.clear();
        file.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() {
            return Ok((ObjectRef { digest: whole.finish(), size: ByteCount(size) }, list));
        }
        whole.update(&chunk);
        size += chunk.len() as u64;
        list.extend_from_slice(&Digest::of(&chunk).0);
    }
}

fn object(bytes: &[u8]) -> ObjectRef {
    ObjectRef { digest: Digest::of(bytes), size: ByteCount(bytes.len() as u64) }
}

/// The statement in `bytes`, if a key of `keys` signed it.
pub fn verify_release<const N: usize>(bytes: &[u8], keys: &KeyRing<N>) -> Result<Release, OpenError> {
    envelope::open(bytes, keys)
}

/// Whether the bundle at `path`, whose contents are `opened`, is the one that `release` is about.
pub fn matches(path: &Path, opened: &OpenedBundle, release: &Release) -> Result<(), MatchError> {
    let (bundle, list) = cut(path)?;
    let list = object(&list);
    let manifest = &opened.manifest;
    same("the digest of the bundle", &release.bundle.digest, &bundle.digest)?;
    same("the size of the bundle", &release.bundle.size, &bundle.size)?;
    same("the digest of the contents read", &release.bundle.digest, &opened.bundle.digest)?;
    same("the digest of the chunk list", &release.chunk_list.digest, &list.digest)?;
    same("the size of the chunk list", &release.chunk_list.size, &list.size)?;
    same("the release", &release.id, &manifest.id())?;
    same("the runtime", &release.runtime, &manifest.runtime)?;
    same("the list of targets", &names(&release.targets), &names(&manifest.targets))?;
    same("the memory limit", &release.memory, &manifest.measured.memory_limit)?;
    same("the unpacked size", &release.unpacked, &opened.unpacked)?;
    let profile = manifest.entry(BundleFile::Reference).map_or(Digest([0; 32]), |entry| entry.digest);
    same("the digest of reference.bin", &release.profile, &profile)
}

fn same<T: PartialEq + Display>(what: &'static str, signed: &T, found: &T) -> Result<(), MatchError> {
    if signed == found {
        return Ok(());
    }
    Err(MatchError::Differs { what, signed: signed.to_string(), found: found.to_string() })
}

fn names(targets: &[TargetClass]) -> String {
    let names: Vec<&str> = targets.iter().map(AsRef::as_ref).collect();
    format!("[{}]", names.join(", "))
}
