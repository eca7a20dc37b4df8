//! What an owner says about a bundle, and whether a bundle is what was said.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serin_protocol::bundle::BundleFile;
use serin_protocol::chunk::{CHUNK_BYTES, ChunkMap, ChunkMapError, MAX_OBJECT_BYTES, ObjectRef};
use serin_protocol::class_needs::ClassNeeds;
use serin_protocol::ids::{ByteCount, Digest};
use serin_protocol::release::{Release, StatementError};

use super::open::{BundleReadError, OpenedBundle, read_bundle};

/// A bundle was not described.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// The bundle is not a good one.
    #[error(transparent)]
    Bundle(#[from] BundleReadError),
    /// It cannot be read a second time.
    #[error("cannot read the bundle: {0}")]
    Io(#[from] io::Error),
    /// It was changed between the first and the second reading.
    #[error("the bundle was changed while it was read")]
    Changed,
    /// It cannot be transferred.
    #[error(transparent)]
    Size(#[from] ChunkMapError),
    /// It names more target classes than a statement holds.
    #[error("the manifest names too many target classes")]
    Targets,
    /// The statement is too large.
    #[error(transparent)]
    Statement(#[from] StatementError),
}

/// A bundle is not what its statement says.
#[derive(Debug, thiserror::Error)]
pub enum MatchError {
    /// It cannot be read.
    #[error("cannot read the bundle: {0}")]
    Io(#[from] io::Error),
    /// It differs from the statement.
    #[error("{what} is {found}, stated is {stated}")]
    Differs {
        /// In what.
        what: &'static str,
        /// What the statement says.
        stated: String,
        /// What the bundle has.
        found: String,
    },
}

/// Where the statement about the bundle at `bundle` is kept.
pub fn statement_file(bundle: &Path) -> PathBuf {
    let mut name = bundle.as_os_str().to_owned();
    name.push(".release");
    name.into()
}

/// Checks the bundle at `path` and says what it is.
pub fn describe(path: &Path) -> Result<Release, DescribeError> {
    let opened = read_bundle(path)?;
    let (bundle, list) = cut(path)?;
    if bundle != opened.bundle {
        return Err(DescribeError::Changed);
    }
    statement(&opened, &list)
}

/// What is said about `opened`, whose chunks have the digests in `list`.
fn statement(opened: &OpenedBundle, list: &[u8]) -> Result<Release, DescribeError> {
    ChunkMap::new(opened.bundle.size)?;
    let manifest = &opened.manifest;
    Ok(Release {
        id: manifest.id(),
        bundle: opened.bundle,
        chunk_list: object(list),
        unpacked: opened.unpacked,
        memory: manifest.measured.memory_limit,
        runtime: manifest.runtime.clone(),
        targets: heapless::Vec::from_slice(&manifest.targets).map_err(|_| DescribeError::Targets)?,
        profile: Digest::of(&opened.profile_bytes),
        decoders: opened.pipeline.decoders(),
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

fn same<T: PartialEq + Display>(what: &'static str, stated: &T, found: &T) -> Result<(), MatchError> {
    if stated == found {
        return Ok(());
    }
    Err(MatchError::Differs { what, stated: stated.to_string(), found: found.to_string() })
}

fn names(targets: &[ClassNeeds]) -> String {
    let names: Vec<String> = targets.iter().map(ToString::to_string).collect();
    format!("[{}]", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::open::tests::good;
    use serin_protocol::ids::TargetClass;

    /// A bundle in a folder of its own, with its statement.
    fn described() -> (tempfile::TempDir, PathBuf, Release) {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("m.serin");
        std::fs::write(&path, good()).expect("written");
        let release = describe(&path).expect("good");
        (folder, path, release)
    }

    #[test]
    fn the_chunk_list_has_the_digest_of_every_chunk() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("object");
        let bytes: Vec<u8> = (0..150_000_u32).map(|number| (number % 251) as u8).collect();
        std::fs::write(&path, &bytes).expect("written");
        let expected: Vec<u8> = bytes.chunks(CHUNK_BYTES).flat_map(|chunk| Digest::of(chunk).0).collect();
        assert_eq!(expected.len(), 3 * 32);
        assert_eq!(chunk_list(&path).expect("read"), expected);
    }

    #[test]
    fn every_difference_between_statement_and_bundle_is_named() {
        let (_folder, path, release) = described();
        let opened = read_bundle(&path).expect("good");
        matches(&path, &opened, &release).expect("the described one");
        let says = |change: &dyn Fn(&mut Release)| {
            let mut other = release.clone();
            change(&mut other);
            matches(&path, &opened, &other).expect_err("differs").to_string()
        };
        let digest = Digest::of(b"another");
        assert!(says(&|other| other.bundle.digest = digest).contains("the digest of the bundle"));
        assert!(says(&|other| other.bundle.size.0 += 1).contains("the size of the bundle"));
        assert!(says(&|other| other.chunk_list.digest = digest).contains("the chunk list"));
        assert!(says(&|other| other.memory.0 += 1).contains("the memory limit"));
        assert!(says(&|other| other.unpacked.0 += 1).contains("the unpacked size"));
        assert!(says(&|other| other.id.version = "2".parse().expect("name")).contains("stated is m@2"));
        assert!(says(&|other| other.runtime = "tract-9".parse().expect("short")).contains("tract-9"));
        assert!(says(&|other| other.profile = digest).contains("reference.bin"));
        let target = || [TargetClass::new("t").expect("name").into()].into_iter().collect();
        assert!(says(&|other| other.targets = target()).contains("[t]"));
    }

    #[test]
    fn a_bundle_that_was_replaced_after_it_was_read_does_not_match() {
        let (_folder, path, release) = described();
        let opened = read_bundle(&path).expect("good");
        std::fs::write(&path, b"something else").expect("ours");
        assert!(matches!(matches(&path, &opened, &release), Err(MatchError::Differs { .. })));
    }

    #[test]
    fn a_damaged_bundle_is_not_described() {
        let (_folder, path, _) = described();
        let mut bytes = good();
        bytes.truncate(bytes.len() - 1);
        std::fs::write(&path, bytes).expect("ours");
        assert!(matches!(describe(&path), Err(DescribeError::Bundle(BundleReadError::CutOff))));
    }
}
