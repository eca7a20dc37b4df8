//! From a packed bundle to checked files in one directory: decompressed and parsed as a stream, every
//! byte counted against what the owner signed, nothing believed before its digest is right.

use std::path::{Path, PathBuf};

use serin_protocol::bundle::{BLOCK, BundleError, BundleFile, BundleReader, Piece, TRAILER};
use serin_protocol::class_needs::ClassNeeds;
use serin_protocol::golden::{Golden, GoldenError};
use serin_protocol::ids::{ByteCount, Digest, Hasher};
use serin_protocol::manifest::{Manifest, ManifestError};
use serin_protocol::message::{Detail, Reason};
use serin_protocol::pipeline::{Pipeline, PipelineError};
use serin_protocol::release::Release;
use serin_protocol::sketch::profile::{Profile, ProfileError, ProfileMismatch};
use zstd::stream::raw::{DParameter, Decoder, Operation as _, Status};

use super::seam::{FileError, Files, OpenFile};

/// Largest zstd window accepted, as a power of two: 128 MiB, what the `zstd` tool accepts without being
/// asked. It bounds the decoder's address space; pages are touched only as far as the output goes, and
/// that is bounded by the signed size.
pub const WINDOW_LOG_MAX: u32 = 27;

/// Bytes read, and bytes decompressed, at a time.
const BUFFER_BYTES: usize = 64 * 1024;

/// What the container adds to the files: a header and padding for each, and the trailer.
const CONTAINER_BYTES: u64 = (BundleFile::ORDER.len() * 2 * BLOCK + TRAILER) as u64;

/// A bundle was not staged.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The disk failed or is full.
    #[error(transparent)]
    File(#[from] FileError),
    /// The packed bundle is not the signed one.
    #[error(
        "the bundle has {found} bytes and digest {digest}, signed are {signed} bytes and {signed_digest}"
    )]
    NotTheSignedBundle {
        /// Size signed.
        signed: ByteCount,
        /// Digest signed.
        signed_digest: Digest,
        /// Size found.
        found: ByteCount,
        /// Digest found.
        digest: Digest,
    },
    /// The compressed stream is damaged or needs too large a window.
    #[error("the bundle does not decompress: {0}")]
    Compression(String),
    /// The compressed stream ends early.
    #[error("the compressed bundle is cut off")]
    CutOff,
    /// Something follows the compressed stream.
    #[error("something follows the compressed bundle")]
    Trailing,
    /// The container breaks its rules.
    #[error(transparent)]
    Container(#[from] BundleError),
    /// It unpacks to more than its owner signed: a zip bomb.
    #[error("the bundle unpacks to more than the signed {signed} bytes")]
    Expands {
        /// Unpacked size signed.
        signed: ByteCount,
    },
    /// A file does not have the size that the manifest lists.
    #[error("{name} has {found} bytes, the manifest lists {listed}")]
    FileSize {
        /// The file.
        name: &'static str,
        /// Size listed.
        listed: ByteCount,
        /// Size found.
        found: ByteCount,
    },
    /// A file does not have the digest that the manifest lists.
    #[error("{name} has digest {found}, the manifest lists {listed}")]
    FileDigest {
        /// The file.
        name: &'static str,
        /// Digest listed.
        listed: Digest,
        /// Digest found.
        found: Digest,
    },
    /// The manifest is malformed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The manifest says something else than the signed statement.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    /// The pipeline is malformed.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The golden vectors are malformed.
    #[error(transparent)]
    Golden(#[from] GoldenError),
    /// The reference profile is malformed.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The reference profile is about something else than the manifest.
    #[error("reference.bin: {0}")]
    ProfileSubject(#[from] ProfileMismatch),
}

impl StageError {
    /// The reason to report: the disk's fault or the bundle's.
    pub fn reason(&self) -> Reason {
        let detail = Detail::new(&self.to_string());
        match self {
            Self::File(_) => Reason::Storage(detail),
            Self::NotTheSignedBundle { .. }
            | Self::Compression(_)
            | Self::CutOff
            | Self::Trailing
            | Self::Container(_)
            | Self::Expands { .. }
            | Self::FileSize { .. }
            | Self::FileDigest { .. }
            | Self::Manifest(_)
            | Self::Contradiction(_)
            | Self::Pipeline(_)
            | Self::Golden(_)
            | Self::Profile(_)
            | Self::ProfileSubject(_) => Reason::BadBundle(detail),
        }
    }
}

/// The manifest and the signed statement disagree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("manifest.json gives {what} {found}, signed is {signed}")]
pub struct Contradiction {
    /// On what.
    pub what: &'static str,
    /// What the statement says.
    pub signed: String,
    /// What the manifest says.
    pub found: String,
}

/// One unpacked, checked file, with its digest.
#[derive(Debug)]
pub(super) struct Unpacked {
    pub(super) file: BundleFile,
    pub(super) digest: Digest,
}

/// Unpacks the bundle at `bundle` into the existing, empty directory `into`, and checks all of it
/// against `statement`. Files are synced, the directory is not.
pub(super) fn unpack(
    files: &Files,
    bundle: &Path,
    statement: &Release,
    into: &Path,
) -> Result<(Manifest, Vec<Unpacked>), StageError> {
    let mut sink = Sink::new(files, statement, into);
    decompress(files, bundle, statement, &mut sink)?;
    let (manifest, unpacked) = sink.finish()?;
    check_contents(files, into, &manifest)?;
    Ok((manifest, unpacked))
}

/// Refuses a manifest that says something else than the signed statement.
pub fn agrees(manifest: &Manifest, manifest_bytes: u64, statement: &Release) -> Result<(), Contradiction> {
    let same = |what, signed: &dyn std::fmt::Display, found: &dyn std::fmt::Display| {
        let (signed, found) = (signed.to_string(), found.to_string());
        if signed == found { Ok(()) } else { Err(Contradiction { what, signed, found }) }
    };
    let list = |targets: &[ClassNeeds]| {
        let names: Vec<String> = targets.iter().map(ToString::to_string).collect();
        format!("[{}]", names.join(", "))
    };
    same("the release", &statement.id, &manifest.id())?;
    same("the runtime", &statement.runtime, &manifest.runtime)?;
    same("the targets", &list(&statement.targets), &list(&manifest.targets))?;
    same("the memory limit", &statement.memory, &manifest.measured.memory_limit)?;
    same("the unpacked size", &statement.unpacked, &manifest.unpacked(manifest_bytes))?;
    let profile = manifest.entry(BundleFile::Reference).map(|entry| entry.digest);
    // The manifest's own check has made sure that every file is listed.
    let profile = profile.map_or_else(String::new, |digest| digest.to_string());
    same("the digest of reference.bin", &statement.profile, &profile)
}

/// Feeds the decompressed bundle to `sink`, piece by piece, and makes sure that the compressed one is
/// exactly what was signed.
fn decompress(files: &Files, bundle: &Path, statement: &Release, sink: &mut Sink) -> Result<(), StageError> {
    let damaged = |error: std::io::Error| StageError::Compression(error.to_string());
    let mut decoder = Decoder::new().map_err(damaged)?;
    decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(damaged)?;
    let mut packed = files.open(bundle)?;
    let mut input = vec![0; BUFFER_BYTES];
    let mut output = vec![0; BUFFER_BYTES];
    let mut hasher = Digest::hasher();
    let mut found = 0_u64;
    let mut ended = false;
    loop {
        let count = packed.read(&mut input)?;
        let mut rest = input.get(..count).unwrap_or_default();
        if rest.is_empty() {
            break;
        }
        found += rest.len() as u64;
        hasher.update(rest);
        // Also when the input is used up, as long as the output buffer may have been too small for it.
        let mut more = true;
        while more {
            if ended && !rest.is_empty() {
                return Err(StageError::Trailing);
            }
            let Status { remaining, bytes_read, bytes_written } =
                decoder.run_on_buffers(rest, &mut output).map_err(damaged)?;
            sink.take(output.get(..bytes_written).unwrap_or_default())?;
            rest = rest.get(bytes_read..).unwrap_or_default();
            ended = remaining == 0;
            more = !rest.is_empty() || (bytes_written == output.len() && !ended);
        }
    }
    if !ended {
        return Err(StageError::CutOff);
    }
    let digest = hasher.finish();
    let signed = statement.bundle;
    if digest != signed.digest || found != signed.size.0 {
        return Err(StageError::NotTheSignedBundle {
            signed: signed.size,
            signed_digest: signed.digest,
            found: ByteCount(found),
            digest,
        });
    }
    Ok(())
}

/// Takes the container apart, writes each file and checks it as it ends.
struct Sink<'a> {
    files: &'a Files,
    statement: &'a Release,
    into: PathBuf,
    reader: BundleReader,
    /// Container bytes seen.
    seen: u64,
    manifest: Option<Manifest>,
    open: Option<Begun>,
    unpacked: Vec<Unpacked>,
}

struct Begun {
    out: OpenFile,
    hasher: Hasher,
    /// The bytes of the manifest, which is bounded by its header; empty for all others.
    kept: Vec<u8>,
}

impl<'a> Sink<'a> {
    fn new(files: &'a Files, statement: &'a Release, into: &Path) -> Self {
        Self {
            files,
            statement,
            into: into.to_owned(),
            reader: BundleReader::default(),
            seen: 0,
            manifest: None,
            open: None,
            unpacked: Vec::with_capacity(BundleFile::ORDER.len()),
        }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), StageError> {
        self.seen = self.seen.saturating_add(bytes.len() as u64);
        self.bounded(self.seen.saturating_sub(CONTAINER_BYTES))?;
        while let Some(piece) = self.reader.next(&mut bytes)? {
            match piece {
                Piece::Start(file, size) => self.start(file, size)?,
                Piece::Data(data) => self.data(data)?,
                Piece::End(file) => self.end(file)?,
            }
        }
        Ok(())
    }

    fn bounded(&self, unpacked: u64) -> Result<(), StageError> {
        if unpacked > self.statement.unpacked.0 {
            return Err(StageError::Expands { signed: self.statement.unpacked });
        }
        Ok(())
    }

    fn start(&mut self, file: BundleFile, size: u64) -> Result<(), StageError> {
        if let Some(entry) = self.manifest.as_ref().and_then(|manifest| manifest.entry(file))
            && entry.size.0 != size
        {
            return Err(StageError::FileSize {
                name: file.name(),
                listed: entry.size,
                found: ByteCount(size),
            });
        }
        self.open = Some(Begun {
            out: self.files.create(&self.into.join(file.name()))?,
            hasher: Digest::hasher(),
            kept: Vec::new(),
        });
        Ok(())
    }

    fn data(&mut self, data: &[u8]) -> Result<(), StageError> {
        // The reader gives data only between start and end.
        let Some(begun) = &mut self.open else {
            return Ok(());
        };
        begun.out.append(data)?;
        begun.hasher.update(data);
        if self.manifest.is_none() {
            begun.kept.extend_from_slice(data);
        }
        Ok(())
    }

    fn end(&mut self, file: BundleFile) -> Result<(), StageError> {
        let Some(begun) = self.open.take() else {
            return Ok(());
        };
        let found = begun.hasher.finish();
        match &self.manifest {
            None => {
                let manifest = Manifest::parse(&begun.kept)?;
                let size = begun.kept.len() as u64;
                agrees(&manifest, size, self.statement)?;
                self.manifest = Some(manifest);
            }
            Some(manifest) => {
                if let Some(entry) = manifest.entry(file)
                    && entry.digest != found
                {
                    return Err(StageError::FileDigest { name: file.name(), listed: entry.digest, found });
                }
            }
        }
        begun.out.sync()?;
        self.unpacked.push(Unpacked { file, digest: found });
        Ok(())
    }

    fn finish(self) -> Result<(Manifest, Vec<Unpacked>), StageError> {
        self.reader.finish()?;
        let manifest = self.manifest.ok_or(BundleError::Truncated)?;
        let found: Vec<BundleFile> = self.unpacked.iter().map(|unpacked| unpacked.file).collect();
        manifest.lists(&found)?;
        Ok((manifest, self.unpacked))
    }
}

/// Parses what will be parsed again when the release runs, so that it is refused now rather than then.
fn check_contents(files: &Files, dir: &Path, manifest: &Manifest) -> Result<(), StageError> {
    let read = |file: BundleFile| {
        // Bounded by the reader already; here for the type's sake.
        let limit = usize::try_from(file.max_bytes()).unwrap_or(usize::MAX - 1);
        files.read_at_most(&dir.join(file.name()), limit)
    };
    Pipeline::parse(&read(BundleFile::Pipeline)?, manifest)?;
    Golden::parse(&read(BundleFile::Golden)?)?;
    let profile = Profile::parse(&read(BundleFile::Reference)?)?;
    Ok(profile.check(manifest)?)
}
