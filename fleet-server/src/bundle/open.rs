//! Reads a packed bundle back, as a stream: every file against the size and digest in the manifest, then
//! against its own parser. Only what the server uses is kept, the model is hashed and let go.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;

use serin_protocol::bundle::{BundleError, BundleFile, BundleReader, Piece};
use serin_protocol::chunk::ObjectRef;
use serin_protocol::golden::{Golden, GoldenError};
use serin_protocol::ids::{ByteCount, Digest, Hasher};
use serin_protocol::manifest::{Manifest, ManifestError};
use serin_protocol::pipeline::{Pipeline, PipelineError};
use serin_protocol::sketch::profile::{Profile, ProfileError, ProfileMismatch};
use zstd::stream::read::Decoder;

use super::{BUFFER_BYTES, WINDOW_LOG_MAX};

/// A bundle whose contents were checked; who made it was not.
#[derive(Debug)]
pub struct OpenedBundle {
    /// Digest and size of the packed bundle.
    pub bundle: ObjectRef,
    /// What it holds.
    pub manifest: Manifest,
    /// Bytes of all files once unpacked.
    pub unpacked: ByteCount,
    /// Pre- and postprocessing.
    pub pipeline: Pipeline,
    /// Golden vectors.
    pub golden: Golden,
    /// Class labels, one a line of `labels.txt`.
    pub labels: Vec<String>,
    /// The model card.
    pub card: String,
    /// What the reference data looks like.
    pub profile: Profile,
    /// `reference.bin` as packed: its digest names the profile.
    pub profile_bytes: Vec<u8>,
}

/// A bundle was refused.
#[derive(Debug, thiserror::Error)]
pub enum BundleReadError {
    /// It cannot be read.
    #[error("cannot read the bundle: {0}")]
    Io(io::Error),
    /// The compressed stream is damaged, or needs too large a window.
    #[error("the bundle does not decompress: {0}")]
    Compression(io::Error),
    /// The compressed stream ends early.
    #[error("the compressed bundle is cut off")]
    CutOff,
    /// Something follows the compressed stream.
    #[error("something follows the compressed bundle")]
    Trailing,
    /// The container breaks its rules.
    #[error(transparent)]
    Container(#[from] BundleError),
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
    /// A text file is not text.
    #[error("{0} is not UTF-8")]
    NotText(&'static str),
    /// The manifest is malformed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
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
    #[error("reference.bin does not fit manifest.json: {0}")]
    ProfileSubject(#[from] ProfileMismatch),
}

/// Reads and checks the bundle at `path`.
pub fn read_bundle(path: &Path) -> Result<OpenedBundle, BundleReadError> {
    read(File::open(path).map_err(BundleReadError::Io)?)
}

/// Reads and checks the bundle that `source` yields. Memory is bounded by the largest files that are
/// kept, time by the largest bundle a header can announce.
pub fn read(source: impl Read) -> Result<OpenedBundle, BundleReadError> {
    let hashing = Hashing { source, hasher: Digest::hasher(), size: 0 };
    let buffered = BufReader::with_capacity(BUFFER_BYTES, hashing);
    let mut decoder = Decoder::with_buffer(buffered).map_err(BundleReadError::Io)?.single_frame();
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(BundleReadError::Io)?;
    let mut contents = Contents::default();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = decoder.read(&mut buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => BundleReadError::CutOff,
            _ => BundleReadError::Compression(error),
        })?;
        if count == 0 {
            break;
        }
        contents.take(buffer.get(..count).unwrap_or_default())?;
    }
    let mut rest = decoder.finish();
    if !rest.fill_buf().map_err(BundleReadError::Io)?.is_empty() {
        return Err(BundleReadError::Trailing);
    }
    let Hashing { hasher, size, .. } = rest.into_inner();
    contents.finish(ObjectRef { digest: hasher.finish(), size: ByteCount(size) })
}

/// Passes bytes on and remembers their digest.
struct Hashing<R> {
    source: R,
    hasher: Hasher,
    size: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.size += count as u64;
        Ok(count)
    }
}

/// Takes the container apart and checks each file as it ends.
#[derive(Default)]
struct Contents {
    reader: BundleReader,
    manifest: Option<(Manifest, u64)>,
    hasher: Option<Hasher>,
    /// The file at hand, where it is kept.
    current: Vec<u8>,
    keeps: bool,
    found: Vec<BundleFile>,
    card: Vec<u8>,
    golden: Vec<u8>,
    labels: Vec<u8>,
    pipeline: Vec<u8>,
    reference: Vec<u8>,
}

impl Contents {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), BundleReadError> {
        let mut reader = std::mem::take(&mut self.reader);
        while let Some(piece) = reader.next(&mut bytes)? {
            match piece {
                Piece::Start(file, size) => self.start(file, size)?,
                Piece::Data(data) => self.data(data),
                Piece::End(file) => self.end(file)?,
            }
        }
        self.reader = reader;
        Ok(())
    }

    fn start(&mut self, file: BundleFile, size: u64) -> Result<(), BundleReadError> {
        let listed = self.manifest.as_ref().and_then(|(manifest, _)| manifest.entry(file));
        if let Some(entry) = listed.filter(|entry| entry.size.0 != size) {
            let found = ByteCount(size);
            return Err(BundleReadError::FileSize { name: file.name(), listed: entry.size, found });
        }
        self.hasher = Some(Digest::hasher());
        self.keeps = !matches!(file, BundleFile::Model | BundleFile::Nnef);
        Ok(())
    }

    fn data(&mut self, data: &[u8]) {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(data);
        }
        if self.keeps {
            // Bounded: the reader refuses headers of larger files.
            self.current.extend_from_slice(data);
        }
    }

    fn end(&mut self, file: BundleFile) -> Result<(), BundleReadError> {
        let found = self.hasher.take().map(Hasher::finish);
        let listed = self.manifest.as_ref().and_then(|(manifest, _)| manifest.entry(file));
        if let (Some(entry), Some(found)) = (listed, found)
            && entry.digest != found
        {
            return Err(BundleReadError::FileDigest { name: file.name(), listed: entry.digest, found });
        }
        self.found.push(file);
        let bytes = std::mem::take(&mut self.current);
        match file {
            BundleFile::Manifest => {
                self.manifest = Some((Manifest::parse(&bytes)?, bytes.len() as u64));
            }
            BundleFile::Card => self.card = bytes,
            BundleFile::Golden => self.golden = bytes,
            BundleFile::Labels => self.labels = bytes,
            BundleFile::Model | BundleFile::Nnef => {}
            BundleFile::Pipeline => self.pipeline = bytes,
            BundleFile::Reference => self.reference = bytes,
        }
        Ok(())
    }

    fn finish(self, bundle: ObjectRef) -> Result<OpenedBundle, BundleReadError> {
        self.reader.finish()?;
        let (manifest, manifest_bytes) = self.manifest.ok_or(BundleError::Truncated)?;
        manifest.lists(&self.found)?;
        let text = |file: BundleFile, bytes: Vec<u8>| {
            String::from_utf8(bytes).map_err(|_| BundleReadError::NotText(file.name()))
        };
        let profile = Profile::parse(&self.reference)?;
        profile.check(&manifest)?;
        Ok(OpenedBundle {
            bundle,
            unpacked: manifest.unpacked(manifest_bytes),
            pipeline: Pipeline::parse(&self.pipeline, &manifest)?,
            golden: Golden::parse(&self.golden)?,
            labels: text(BundleFile::Labels, self.labels)?.lines().map(str::to_owned).collect(),
            card: text(BundleFile::Card, self.card)?,
            profile,
            profile_bytes: self.reference,
            manifest,
        })
    }
}

#[cfg(test)]
#[path = "open_tests.rs"]
pub(super) mod tests;
