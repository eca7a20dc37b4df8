//! Files of images in rows: base64 where a row is text, bytes in Parquet. What makes pixels of them is the model's
//! pipeline, in its worker; here only the beginning of a file is looked at.

use serde_json::{Value, json};
use serin_protocol::raw::RawValues;
#[cfg(any(feature = "jpeg", feature = "png"))]
use serin_protocol::release::Decoder;

/// Most bytes of all images of one row: half of what the gateway takes as a request, which also has the row's other
/// values.
pub(super) const MAX_ROW_BYTES: usize = 4 << 20;

/// Bytes that the images of a row may take as text: two hexadecimal digits each, which is more than base64 takes.
pub(super) const MAX_ROW_TEXT: u64 = 2 * MAX_ROW_BYTES as u64;

/// The value of a cell of text.
pub(super) fn of_text(text: &str) -> Value {
    json!({ "base64": text })
}

/// Whether `files`, the images of one cell, can be such, and no more than `left` bytes, which they are taken off.
#[cfg(any(feature = "jpeg", feature = "png"))]
pub(super) fn check(files: &RawValues, left: &mut usize) -> Result<(), String> {
    let RawValues::Texts(files) = files else { return Ok(()) };
    for file in files {
        if file.is_empty() {
            return Err("the image is missing".into());
        }
        if Decoder::of(file).is_none() {
            return Err("it is neither a JPEG nor a PNG file".into());
        }
        *left = left.checked_sub(file.len()).ok_or_else(|| {
            format!("with {} bytes the images of the row have more than {MAX_ROW_BYTES}", file.len())
        })?;
    }
    Ok(())
}

#[cfg(not(any(feature = "jpeg", feature = "png")))]
pub(super) fn check(_: &RawValues, _: &mut usize) -> Result<(), String> {
    Err("this agent was built without decoders of images".into())
}
