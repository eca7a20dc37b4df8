//! From a model folder to a bundle with its statement, and back to checked contents. The device program measures;
//! nothing here runs a model.

pub mod container;
mod golden_doubts;
pub mod golden_lines;
pub mod key_file;
mod labels;
pub mod local_rollback;
pub mod measurements;
pub mod model_folder;
pub mod open;
pub mod pack;
pub mod qualify;
pub mod reference;
mod review;
pub mod statement;
pub mod target_class;

use std::io::{self, Read};

use serin_protocol::ids::{ByteCount, Digest};

/// Inference engine and series that bundles are packed for; the device program refuses any other.
pub const RUNTIME: &str = "tract-0.23";

/// Bytes read at a time.
const BUFFER_BYTES: usize = 64 * 1024;

/// Largest zstd window accepted, as a power of two: 128 MiB, what devices accept.
const WINDOW_LOG_MAX: u32 = 27;

/// Digest and size of everything `reader` yields.
fn digest_of(mut reader: impl Read) -> io::Result<(Digest, ByteCount)> {
    let mut hasher = Digest::hasher();
    let mut size = 0_u64;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if count == 0 {
            return Ok((hasher.finish(), ByteCount(size)));
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
        size += count as u64;
    }
}
