//! Writes the container: the canonical tar, compressed so that equal contents are equal bytes.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serin_protocol::bundle::{BLOCK, BundleFile, TRAILER, header, padding};
use serin_protocol::ids::Digest;
use tempfile::NamedTempFile;
use zstd::stream::write::Encoder;

/// Bundles are packed once and travel often: the strongest level that needs no extra memory to decode.
const LEVEL: i32 = 19;

/// Window written, as a power of two: 8 MiB. A device's supervisor holds that much while it unpacks, and
/// weights repeat nothing over longer distances.
const WINDOW_LOG: u32 = 23;

/// Smallest window that zstd knows.
const WINDOW_LOG_MIN: u32 = 10;

/// The contents of one file of a bundle.
pub enum Contents<'a> {
    /// In memory.
    Bytes(&'a [u8]),
    /// On disk, with the size and digest that the manifest lists.
    Stored(&'a super::model_folder::StoredFile),
}

impl Contents<'_> {
    fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Stored(file) => file.size.0,
        }
    }
}

/// A file in `folder` that gets its name when it is complete, and is gone if it never is. Readable like
/// any other that the user makes.
pub(super) fn unfinished(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(".serin-").permissions(Permissions::from_mode(0o666)).tempfile_in(folder)
}

/// Writes a bundle of `contents`, which gives each file's that the bundle has, to `out`.
pub fn write<'a>(out: impl Write, contents: impl Fn(BundleFile) -> Option<Contents<'a>>) -> io::Result<()> {
    let blocks = |size: u64| BLOCK as u64 + size + padding(size) as u64;
    let files = || BundleFile::ORDER.into_iter().filter_map(|file| Some((file, contents(file)?)));
    let total = files().map(|(_, contents)| blocks(contents.size())).sum::<u64>() + TRAILER as u64;
    let mut encoder = Encoder::new(BufWriter::new(out), LEVEL)?;
    encoder.long_distance_matching(true)?;
    encoder.window_log(total.next_power_of_two().ilog2().clamp(WINDOW_LOG_MIN, WINDOW_LOG))?;
    encoder.include_checksum(true)?;
    encoder.include_contentsize(true)?;
    encoder.set_pledged_src_size(Some(total))?;
    for (file, contents) in files() {
        let size = contents.size();
        encoder.write_all(&header(file, size))?;
        match contents {
            Contents::Bytes(bytes) => encoder.write_all(bytes)?,
            Contents::Stored(stored) => copy(stored, &mut encoder)?,
        }
        encoder.write_all([0; BLOCK].get(..padding(size)).unwrap_or_default())?;
    }
    encoder.write_all(&[0; TRAILER])?;
    encoder.finish()?.flush()
}

/// Copies a file that was looked at before and must still be the same.
fn copy(stored: &super::model_folder::StoredFile, out: &mut impl Write) -> io::Result<()> {
    let mut file = File::open(&stored.path)?.take(stored.size.0);
    let mut hasher = Digest::hasher();
    let mut buffer = vec![0; super::BUFFER_BYTES];
    loop {
        let count = file.read(&mut buffer)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        hasher.update(bytes);
        out.write_all(bytes)?;
    }
    if hasher.finish() != stored.digest {
        return Err(io::Error::other(format!("{} was changed while it was packed", stored.path.display())));
    }
    Ok(())
}
