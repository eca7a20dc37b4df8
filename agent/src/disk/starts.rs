//! When the agent was started without having been stopped since: one small text file, replaced whole, so that
//! a power cut leaves the old or the new one. Losing it costs a few restarts more until a crash loop is seen.

use std::path::PathBuf;

use serin_protocol::ids::UnixMillis;

use super::seam::{FileError, Files, if_there};
use crate::update::crash_loop::CrashPolicy;

/// A line for each start: a number of at most 20 digits and a line feed.
const MAX_BYTES: usize = (CrashPolicy::MAX_RESTARTS as usize + 1) * 21;

const NAME: &str = "starts";

/// The file.
#[derive(Debug)]
pub struct StartLog {
    files: Files,
    dir: PathBuf,
}

impl StartLog {
    /// The file in the state directory `dir`, which exists.
    pub const fn new(files: Files, dir: PathBuf) -> Self {
        Self { files, dir }
    }

    /// The starts noted. What is no list of starts says nothing.
    pub fn read(&self) -> Result<Vec<UnixMillis>, FileError> {
        let bytes = if_there(self.files.read_at_most(&self.dir.join(NAME), MAX_BYTES))?.unwrap_or_default();
        let text = std::str::from_utf8(&bytes).ok().filter(|text| text.len() <= MAX_BYTES);
        let numbers = text.unwrap_or_default().lines().map(|line| line.parse().map(UnixMillis));
        Ok(numbers.collect::<Result<_, _>>().unwrap_or_default())
    }

    /// Notes `starts` durably, in place of those before.
    pub fn write(&self, starts: &[UnixMillis]) -> Result<(), FileError> {
        let mut text = String::new();
        for start in starts {
            text.push_str(&start.0.to_string());
            text.push('\n');
        }
        self.files.replace(&self.dir, NAME, text.as_bytes())
    }

    /// Forgets all starts; nothing is written when there are none.
    pub fn forget(&self) -> Result<(), FileError> {
        if_there(self.files.remove(&self.dir.join(NAME)))?.map_or(Ok(()), |()| self.files.sync_dir(&self.dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_kept_until_they_are_forgotten() {
        let dir = tempfile::tempdir().expect("tempdir");
        let log = StartLog::new(Files::real(), dir.path().into());
        assert_eq!(log.read().expect("read"), []);
        let starts = [UnixMillis(7), UnixMillis(u64::MAX)];
        log.write(&starts).expect("written");
        assert_eq!(log.read().expect("read"), starts);
        log.forget().expect("forgotten");
        log.forget().expect("still forgotten");
        assert_eq!(log.read().expect("read"), []);
    }

    #[test]
    fn a_file_that_is_no_list_says_nothing() {
        let dir = tempfile::tempdir().expect("tempdir");
        let log = StartLog::new(Files::real(), dir.path().into());
        for contents in [&b"12\n\xff"[..], b"1\nx\n", &[b'1'; MAX_BYTES + 1]] {
            std::fs::write(dir.path().join(NAME), contents).expect("written");
            assert_eq!(log.read().expect("read"), [], "{contents:?}");
        }
    }
}
