//! The output of a batch while it grows: a file beside the final one, and how far it is good. After a crash or a
//! power cut the same command goes on behind the last checkpoint; what was written later is written again.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What an output is made of. One that is begun is gone on with only if all of it is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    /// Bytes of the input.
    pub(super) input_bytes: u64,
    /// When the input was last written, in nanoseconds since 1970.
    pub(super) input_modified: u64,
    /// Model and version.
    pub(super) release: String,
    /// Whether rows that make no sense are left standing with their error.
    pub(super) keep_going: bool,
}

/// How far an output is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Checkpoint {
    origin: Origin,
    /// Rows of the input that are answered.
    rows: u64,
    /// Bytes of the output that hold them.
    bytes: u64,
    /// Columns of a CSV output and the values in each, once they are known.
    columns: Vec<(String, usize)>,
    /// Those of the rows that stand with their error. Versions of the agent that did not count them wrote nothing.
    #[serde(default)]
    wrong: Option<u64>,
}

impl Checkpoint {
    /// Nothing is answered yet.
    const fn fresh(origin: Origin) -> Self {
        Self { origin, rows: 0, bytes: 0, columns: Vec::new(), wrong: Some(0) }
    }

    /// The same with its count of wrong rows; none if nobody can know it.
    fn counted(mut self) -> Option<Self> {
        if self.rows == 0 || !self.origin.keep_going {
            self.wrong.get_or_insert(0);
        }
        self.wrong.is_some().then_some(self)
    }
}

/// Why an output cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutputError {
    /// It is there.
    #[error("{0} exists")]
    Exists(PathBuf),
    /// Somebody writes it.
    #[error("another batch is writing {0}")]
    Busy(PathBuf),
    /// One was begun for something else.
    #[error("{path} was begun for {begun}, not for {wanted}")]
    Other {
        /// The unfinished output.
        path: PathBuf,
        /// What it is made of.
        begun: String,
        /// What it would be made of now.
        wanted: String,
    },
    /// One was begun before wrong rows were counted.
    #[error("{0} was begun by an older version of the agent, which did not keep how many rows have an error")]
    Uncounted(PathBuf),
    /// The system refuses.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// An output that grows.
#[derive(Debug)]
pub(super) struct Output {
    path: PathBuf,
    file: BufWriter<File>,
    state: Checkpoint,
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(extension);
    name.into()
}

impl Output {
    /// Begins the output `path`, or goes on with one that was begun; with `restart` from the beginning.
    pub(super) fn open(path: &Path, origin: Origin, restart: bool) -> Result<Self, OutputError> {
        let (part, mark) = (beside(path, ".part"), beside(path, ".checkpoint"));
        let failed = |path: &Path, source| OutputError::Io { path: path.into(), source };
        let absent = || if path.exists() { Err(OutputError::Exists(path.into())) } else { Ok(()) };
        absent()?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&part)
            .map_err(|source| failed(&part, source))?;
        // As long as the file is open. Before anything else is read: it may be somebody's who is about to change it.
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OutputError::Busy(path.into())),
            Err(TryLockError::Error(source)) => return Err(failed(&part, source)),
        }
        // Whoever had it may just have given it its name.
        absent()?;
        let begun = match fs::read(&mark) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(failed(&mark, source)),
            // One that was not written whole says nothing.
            Ok(bytes) => serde_json::from_slice::<Checkpoint>(&bytes).ok(),
        };
        let mut state = match begun.filter(|_| !restart) {
            Some(begun) if begun.origin != origin => {
                let (begun, wanted) = difference(&begun.origin, &origin);
                return Err(OutputError::Other { path: part, begun, wanted });
            }
            Some(begun) => begun.counted().ok_or_else(|| OutputError::Uncounted(part.clone()))?,
            None => Checkpoint::fresh(origin),
        };
        let there = file.metadata().map_err(|source| failed(&part, source))?.len();
        if there < state.bytes {
            // Somebody has cut or removed it.
            state = Checkpoint::fresh(state.origin);
        }
        let set = file.set_len(state.bytes).and_then(|()| file.seek(SeekFrom::Start(state.bytes)).map(drop));
        set.map_err(|source| failed(&part, source))?;
        Ok(Self { path: path.into(), file: BufWriter::new(file), state })
    }

    /// Rows that are answered.
    pub(super) const fn rows(&self) -> u64 {
        self.state.rows
    }

    /// Those of them that stand with their error.
    pub(super) fn wrong(&self) -> u64 {
        self.state.wrong.unwrap_or(0)
    }

    /// Columns of a CSV output; none before the first answer.
    pub(super) fn columns(&self) -> &[(String, usize)] {
        &self.state.columns
    }

    /// Decides the columns.
    pub(super) fn set_columns(&mut self, columns: Vec<(String, usize)>) {
        self.state.columns = columns;
    }

    /// Appends `text`, which answers `rows` more rows, `wrong` of them with an error.
    pub(super) fn append(&mut self, text: &str, rows: u64, wrong: u64) -> Result<(), OutputError> {
        let written = self.file.write_all(text.as_bytes());
        written.map_err(|source| OutputError::Io { path: beside(&self.path, ".part"), source })?;
        self.state.bytes += text.len() as u64;
        self.state.rows += rows;
        self.state.wrong = Some(self.wrong() + wrong);
        Ok(())
    }

    /// Makes all that was appended durable, and says so beside it.
    pub(super) fn checkpoint(&mut self) -> Result<(), OutputError> {
        let (part, mark) = (beside(&self.path, ".part"), beside(&self.path, ".checkpoint"));
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_data());
        synced.map_err(|source| OutputError::Io { path: part, source })?;
        let fresh = beside(&mark, ".new");
        let write = || {
            let mut file = File::create(&fresh)?;
            // Plain data with text keys: nothing to fail on.
            file.write_all(&serde_json::to_vec(&self.state).unwrap_or_default())?;
            file.sync_data()?;
            fs::rename(&fresh, &mark)
        };
        write().map_err(|source| {
            // Best effort: a full disk is why it is useless, and what it takes may be missing elsewhere.
            let _ = fs::remove_file(&fresh);
            OutputError::Io { path: mark.clone(), source }
        })
    }

    /// Gives the output its name.
    pub(super) fn finish(mut self) -> Result<u64, OutputError> {
        let failed = |path: &Path, source| OutputError::Io { path: path.into(), source };
        let (part, mark) = (beside(&self.path, ".part"), beside(&self.path, ".checkpoint"));
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        synced.and_then(|()| fs::rename(&part, &self.path)).map_err(|source| failed(&self.path, source))?;
        match fs::remove_file(&mark) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed(&mark, source)),
            Ok(()) | Err(_) => Ok(self.state.rows),
        }
    }
}

/// In words, what is different.
fn difference(begun: &Origin, wanted: &Origin) -> (String, String) {
    if begun.release != wanted.release {
        return (begun.release.clone(), wanted.release.clone());
    }
    if begun.keep_going != wanted.keep_going {
        let words = |keep_going| if keep_going { "with --keep-going" } else { "without --keep-going" };
        return (words(begun.keep_going).into(), words(wanted.keep_going).into());
    }
    ("another input".into(), "this one, or as it is now".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(release: &str) -> Origin {
        Origin { input_bytes: 10, input_modified: 1, release: release.into(), keep_going: false }
    }

    #[test]
    fn what_was_begun_goes_on_behind_its_last_checkpoint() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("out.ndjson");
        let open = || Output::open(&path, origin("m@1"), false).expect("opens");
        let mut output = open();
        output.append("one\n", 1, 0).expect("written");
        output.checkpoint().expect("durable");
        output.append("two\n", 1, 0).expect("written");
        drop(output);
        let mut output = open();
        assert_eq!(output.rows(), 1);
        output.append("2\n", 1, 0).expect("written");
        assert!(!path.exists());
        assert_eq!(output.finish().expect("done"), 2);
        assert_eq!(fs::read_to_string(&path).expect("there"), "one\n2\n");
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1);
        assert!(matches!(Output::open(&path, origin("m@1"), true), Err(OutputError::Exists(_))));
    }

    #[test]
    fn two_do_not_write_one_output() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("out.ndjson");
        let open = |restart| Output::open(&path, origin("m@1"), restart);
        let mut first = open(false).expect("opens");
        first.append("one\n", 1, 0).expect("written");
        for restart in [false, true] {
            let refused = open(restart).expect_err("it is being written");
            assert!(matches!(refused, OutputError::Busy(_)), "{refused}");
        }
        first.append("two\n", 1, 0).expect("written");
        first.finish().expect("done");
        assert_eq!(fs::read_to_string(&path).expect("there"), "one\ntwo\n");
        assert!(matches!(open(false), Err(OutputError::Exists(_))));
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1);
    }

    #[test]
    fn wrong_rows_are_counted_over_an_interruption_and_no_number_is_made_up() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("out.ndjson");
        let open = |keep_going, restart| Output::open(&path, Origin { keep_going, ..origin("m@1") }, restart);
        let mut output = open(true, false).expect("opens");
        output.append("{}\n{}\n", 2, 1).expect("written");
        output.checkpoint().expect("durable");
        output.append("{}\n", 1, 1).expect("written");
        drop(output);
        let output = open(true, false).expect("opens");
        assert_eq!((output.rows(), output.wrong()), (2, 1));
        drop(output);
        // As versions wrote it that did not count.
        let older = |keep_going| {
            let origin = Origin { keep_going, ..origin("m@1") };
            let old = serde_json::json!({ "origin": origin, "rows": 2, "bytes": 6, "columns": [] });
            fs::write(folder.path().join("out.ndjson.checkpoint"), old.to_string()).expect("written");
        };
        older(true);
        assert!(matches!(open(true, false), Err(OutputError::Uncounted(_))));
        assert_eq!(open(true, true).expect("anew").rows(), 0);
        fs::write(folder.path().join("out.ndjson.part"), "{}\n{}\n").expect("written");
        older(false);
        assert_eq!(open(false, false).expect("none can be wrong").rows(), 2);
    }

    #[test]
    fn nothing_is_mixed_with_what_was_begun_for_something_else() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("out.csv");
        let mut output = Output::open(&path, origin("m@1"), false).expect("opens");
        output.append("one\n", 1, 0).expect("written");
        output.checkpoint().expect("durable");
        drop(output);
        let refused = Output::open(&path, origin("m@2"), false).expect_err("another release");
        assert!(refused.to_string().ends_with("was begun for m@1, not for m@2"), "{refused}");
        assert_eq!(Output::open(&path, origin("m@2"), true).expect("anew").rows(), 0);
    }

    #[test]
    fn an_output_that_was_cut_begins_anew() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("out.csv");
        let mut output = Output::open(&path, origin("m@1"), false).expect("opens");
        output.append("one\n", 1, 0).expect("written");
        output.checkpoint().expect("durable");
        drop(output);
        fs::write(folder.path().join("out.csv.part"), "o").expect("cut");
        assert_eq!(Output::open(&path, origin("m@1"), false).expect("opens").rows(), 0);
        fs::write(folder.path().join("out.csv.checkpoint"), "{").expect("torn");
        assert_eq!(Output::open(&path, origin("m@1"), false).expect("opens").rows(), 0);
    }
}
