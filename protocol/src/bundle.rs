//! The bundle's container: a tar in which everything that could vary is fixed (owner 0, time 0, mode
//! 0644, known names in a known order), so that equal contents are equal bytes.
//!
//! Reading is a push parser without I/O. Because only one encoding of each header is right, a header is
//! checked by writing it anew and comparing: links, paths, other names, sparse files and long-name
//! tricks are not special cases, they simply differ.

use serde::{Deserialize, Serialize};

/// The name of a packed bundle ends so.
pub const EXTENSION: &str = "serin";
/// Size of a tar header and the unit to which contents are padded.
pub const BLOCK: usize = 512;
/// Zero bytes after the last file.
pub const TRAILER: usize = 2 * BLOCK;

/// The files of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BundleFile {
    /// What the bundle holds.
    #[serde(rename = "manifest.json")]
    Manifest,
    /// The model card.
    #[serde(rename = "card.md")]
    Card,
    /// Golden vectors.
    #[serde(rename = "golden.bin")]
    Golden,
    /// Class labels, one a line.
    #[serde(rename = "labels.txt")]
    Labels,
    /// The model in the form that its runtime loads best, where it pays; no bundle needs it.
    #[serde(rename = "model.nnef")]
    Nnef,
    /// The model.
    #[serde(rename = "model.onnx")]
    Model,
    /// Pre- and postprocessing.
    #[serde(rename = "pipeline.json")]
    Pipeline,
    /// Reference profile.
    #[serde(rename = "reference.bin")]
    Reference,
}

impl BundleFile {
    /// The files that every bundle has, in bundle order: the manifest, then by name.
    pub const ALL: [Self; 7] = [
        Self::Manifest,
        Self::Card,
        Self::Golden,
        Self::Labels,
        Self::Model,
        Self::Pipeline,
        Self::Reference,
    ];

    /// The files that a bundle may have, in bundle order.
    pub const ORDER: [Self; 8] = [
        Self::Manifest,
        Self::Card,
        Self::Golden,
        Self::Labels,
        Self::Nnef,
        Self::Model,
        Self::Pipeline,
        Self::Reference,
    ];

    /// Its name in the bundle and on disk.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest.json",
            Self::Card => "card.md",
            Self::Golden => "golden.bin",
            Self::Labels => "labels.txt",
            Self::Nnef => "model.nnef",
            Self::Model => "model.onnx",
            Self::Pipeline => "pipeline.json",
            Self::Reference => "reference.bin",
        }
    }

    /// Most bytes it may have.
    pub const fn max_bytes(self) -> u64 {
        match self {
            Self::Manifest => crate::manifest::MAX_MANIFEST_BYTES as u64,
            Self::Golden => crate::golden::MAX_GOLDEN_BYTES as u64,
            Self::Pipeline => crate::pipeline::MAX_PIPELINE_BYTES as u64,
            Self::Reference => crate::sketch::profile::MAX_PROFILE_BYTES as u64,
            // Prose, and one label a class.
            Self::Card | Self::Labels => 256 * 1024,
            Self::Nnef | Self::Model => crate::chunk::MAX_OBJECT_BYTES,
        }
    }
}

/// The canonical header of `file` with `size` bytes of contents.
pub fn header(file: BundleFile, size: u64) -> [u8; BLOCK] {
    let mut block = [0_u8; BLOCK];
    put(&mut block, 0, file.name().as_bytes());
    put(&mut block, 100, b"0000644\0");
    put(&mut block, 108, b"0000000\0");
    put(&mut block, 116, b"0000000\0");
    put(&mut block, 124, &octal(size));
    put(&mut block, 136, b"00000000000\0");
    put(&mut block, 148, b"        ");
    put(&mut block, 156, b"0");
    put(&mut block, 257, b"ustar\x0000");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    let digits = octal(sum);
    put(&mut block, 148, digits.get(5..11).unwrap_or_default());
    put(&mut block, 154, b"\0 ");
    block
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    for (to, from) in block.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

/// Eleven octal digits and a NUL; sizes are bounded far below 8 GiB.
fn octal(value: u64) -> [u8; 12] {
    let mut digits = [b'0'; 12];
    let mut rest = value;
    for digit in digits.iter_mut().take(11).rev() {
        *digit = b'0' + (rest % 8) as u8;
        rest /= 8;
    }
    digits[11] = 0;
    digits
}

/// Zero bytes that follow contents of `size` bytes.
pub const fn padding(size: u64) -> usize {
    ((BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64) as usize
}

/// A bundle's container was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// An entry that is not the plain file expected at this place.
    #[error("entry {0:?} does not belong into a bundle at this place")]
    UnexpectedEntry(heapless::String<104>),
    /// A header of the right name that is not in canonical form.
    #[error("the header of {0} is not in canonical form")]
    Header(&'static str),
    /// A file larger than it may be.
    #[error("{name} has {size} bytes, at most {limit} are allowed")]
    TooLarge {
        /// The file.
        name: &'static str,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// Padding or trailer is not zero.
    #[error("bytes other than zero in the padding after {0}")]
    Padding(&'static str),
    /// It ends too early.
    #[error("the bundle is cut off")]
    Truncated,
    /// The manifest does not list an entry, or the bundle lacks one that it lists.
    #[error("the manifest and the bundle do not agree about {0}: only one of them has it")]
    Unlisted(&'static str),
    /// Something follows.
    #[error("something follows the end of the bundle")]
    Trailing,
}

/// What the reader found.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A file of this size begins.
    Start(BundleFile, u64),
    /// Its next bytes.
    Data(&'a [u8]),
    /// It is complete.
    End(BundleFile),
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// Before the header of the file with this number; past the last one: in the trailer.
    Header(usize),
    /// Within the contents of a file of `size` bytes.
    Contents { number: usize, size: u64, left: u64 },
    /// Within the padding after a file: bytes to come.
    Padding(usize, usize),
    /// Within the trailer: bytes to come.
    Trailer(usize),
}

/// Reads a bundle's container from bytes in pieces of any size, holding one block at most.
#[derive(Debug)]
pub struct BundleReader {
    place: Place,
    block: heapless::Vec<u8, BLOCK>,
}

impl Default for BundleReader {
    fn default() -> Self {
        Self { place: Place::Header(0), block: heapless::Vec::new() }
    }
}

impl BundleReader {
    /// Takes from the front of `input` until something is found; `None` when all of `input` is used up
    /// and more is needed.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, BundleError> {
        loop {
            match self.place {
                Place::Header(number) => match BundleFile::ORDER.get(number) {
                    None => self.place = Place::Trailer(TRAILER),
                    Some(file) => {
                        let missing = BLOCK - self.block.len();
                        let taken = take(input, missing);
                        // At most what was missing.
                        let _ = self.block.extend_from_slice(taken);
                        if self.block.len() < BLOCK {
                            return Ok(None);
                        }
                        if *file == BundleFile::Nnef && !is_named(&self.block, *file) {
                            self.place = Place::Header(number + 1);
                            continue;
                        }
                        let size = parse_header(&self.block, *file)?;
                        self.block.clear();
                        self.place = Place::Contents { number, size, left: size };
                        return Ok(Some(Piece::Start(*file, size)));
                    }
                },
                Place::Contents { number, size, left: 0 } => {
                    self.place = Place::Padding(number, padding(size));
                    let file = BundleFile::ORDER.get(number).ok_or(BundleError::Trailing)?;
                    return Ok(Some(Piece::End(*file)));
                }
                Place::Contents { number, size, left } => {
                    let data = take(input, usize::try_from(left).unwrap_or(usize::MAX));
                    if data.is_empty() {
                        return Ok(None);
                    }
                    self.place = Place::Contents { number, size, left: left - data.len() as u64 };
                    return Ok(Some(Piece::Data(data)));
                }
                Place::Padding(number, left) => {
                    let zeros = take(input, left);
                    if zeros.iter().any(|byte| *byte != 0) {
                        return Err(BundleError::Padding(
                            BundleFile::ORDER.get(number).map_or("", |file| file.name()),
                        ));
                    }
                    if zeros.len() < left {
                        self.place = Place::Padding(number, left - zeros.len());
                        return Ok(None);
                    }
                    self.place = Place::Header(number + 1);
                }
                Place::Trailer(left) => {
                    let zeros = take(input, left);
                    if zeros.iter().any(|byte| *byte != 0) {
                        return Err(BundleError::Padding("the last file"));
                    }
                    self.place = Place::Trailer(left - zeros.len());
                    return if input.is_empty() { Ok(None) } else { Err(BundleError::Trailing) };
                }
            }
        }
    }

    /// Whether the bundle is complete; call it when there are no more bytes.
    pub fn finish(&self) -> Result<(), BundleError> {
        match self.place {
            Place::Trailer(0) => Ok(()),
            Place::Header(_) | Place::Contents { .. } | Place::Padding(..) | Place::Trailer(_) => {
                Err(BundleError::Truncated)
            }
        }
    }
}

fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    taken
}

fn name_of(block: &[u8]) -> impl Iterator<Item = &u8> + Clone {
    block.iter().take(100).take_while(|byte| **byte != 0)
}

fn is_named(block: &[u8], file: BundleFile) -> bool {
    name_of(block).copied().eq(file.name().bytes())
}

fn parse_header(block: &[u8], file: BundleFile) -> Result<u64, BundleError> {
    if !is_named(block, file) {
        let name = name_of(block);
        let printable = name.map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '?' });
        // 100 ASCII characters fit into 104 bytes.
        return Err(BundleError::UnexpectedEntry(printable.collect()));
    }
    let size = block
        .get(124..135)
        .and_then(|digits| core::str::from_utf8(digits).ok())
        .and_then(|digits| u64::from_str_radix(digits, 8).ok())
        .ok_or(BundleError::Header(file.name()))?;
    if header(file, size) != *block {
        return Err(BundleError::Header(file.name()));
    }
    if size > file.max_bytes() {
        return Err(BundleError::TooLarge { name: file.name(), size, limit: file.max_bytes() });
    }
    Ok(size)
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
