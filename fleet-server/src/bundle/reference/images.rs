//! Files of images in reference data: in a cell of text as base64, in Parquet as bytes, or beside the data under the name
//! that a cell has.

use std::path::Path;

use serin_protocol::base64;
use serin_protocol::golden::MAX_GOLDEN_BYTES;
#[cfg(feature = "parquet")]
use serin_protocol::release::Decoder;

use super::MAX_REFERENCE_BYTES;
use crate::bundle::golden_lines::read_file;

/// How their base64 begins, as far as no other bytes have a part in it. The first cannot be a file within a folder, the
/// second is nobody's name for one.
const BASE64_BEGINNINGS: [&str; 2] = ["/9j/", "iVBORw0KGg"];

/// Longest name of a file, in bytes, as systems have it.
const MAX_NAME_BYTES: usize = 4096;

/// What keeps a cell from being an image.
const NEITHER: &str = "it is neither base64 of a JPEG or PNG file nor the name of a file";

/// `bytes` as a cell of text, if they are a file of an image.
#[cfg(feature = "parquet")]
pub(super) fn to_text(bytes: &[u8]) -> Option<String> {
    Decoder::of(bytes).map(|_| base64::encode(bytes))
}

/// Reads the files that cells hold or name, and no more bytes of them than [`MAX_REFERENCE_BYTES`].
#[derive(Debug)]
pub struct Images<'a> {
    folder: &'a Path,
    left: u64,
}

impl<'a> Images<'a> {
    /// Those named lie in `folder`.
    pub const fn of(folder: &'a Path) -> Self {
        Self { folder, left: MAX_REFERENCE_BYTES }
    }

    /// The file that `cell` holds as base64, or names.
    ///
    /// # Errors
    /// It is neither; the file cannot be read; it is larger than [`MAX_GOLDEN_BYTES`], or all together are too large.
    pub fn read(&mut self, cell: &str) -> Result<Vec<u8>, String> {
        let file = if BASE64_BEGINNINGS.iter().any(|beginning| cell.starts_with(beginning)) {
            // Four characters are three bytes.
            if cell.len() / 4 > MAX_GOLDEN_BYTES / 3 {
                return Err(format!("the image has more than {MAX_GOLDEN_BYTES} bytes"));
            }
            base64::decode(cell).map_err(|error| error.to_string())?
        } else if cell.len() > MAX_NAME_BYTES {
            return Err(NEITHER.into());
        } else {
            read_file(self.folder, cell).map_err(|what| format!("{NEITHER}: {what}"))?
        };
        self.left = self.left.checked_sub(file.len() as u64).ok_or_else(|| {
            format!("this image and those before it have more than {MAX_REFERENCE_BYTES} bytes")
        })?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_holds_an_image_or_names_one() {
        let folder = tempfile::tempdir().expect("folder");
        let png = b"\x89PNG\r\n\x1A\nand so on";
        let jpeg = b"\xFF\xD8\xFF\xE0and so on";
        std::fs::write(folder.path().join("a.png"), png).expect("written");
        let mut images = Images::of(folder.path());
        assert_eq!(images.read("a.png").as_deref(), Ok(&png[..]));
        for file in [&png[..], jpeg] {
            assert_eq!(images.read(&base64::encode(file)).as_deref(), Ok(file));
        }
        let mut says = |cell: &str| images.read(cell).expect_err("refused");
        assert!(says("b.png").contains("neither base64 of a JPEG or PNG file nor the name of a file: "));
        assert!(says("../a.png").contains("no file within the model folder"));
        assert!(says("/9j/4").contains("groups of 4"));
        assert!(says("/9j/4-==").contains("character 5"));
        assert_eq!(says(&"QUJD".repeat(2000)), NEITHER);
        assert!(says(&"/9j/".repeat(MAX_GOLDEN_BYTES / 3 + 2)).contains("more than"));
        images.left = 10;
        assert!(images.read("a.png").expect_err("too much").contains("those before it"));
    }
}
