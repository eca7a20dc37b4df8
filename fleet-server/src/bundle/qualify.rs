//! Asks the device program to load a model in its real worker, prove the golden vectors, measure, and
//! predict the reference rows: `serin-agent qualify --json`.

use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use serin_protocol::manifest::{Measured, NnefForm};

/// Name of the device program.
const PROGRAM: &str = "serin-agent";

/// Environment variable with its path.
pub const PROGRAM_VARIABLE: &str = "SERIN_AGENT";

/// Largest answer read: 200,000 predictions of up to 40 bytes, six numbers of up to 15 about a picture with each, and room
/// to spare.
const MAX_ANSWER_BYTES: u64 = 32 << 20;

/// What is predicted for one row, in the device program's words.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Predicted {
    /// Class number, its confidence, and the entropy of its probabilities, where there are finite ones.
    Class(i64, Option<f32>, Option<f32>),
    /// A value, where it is finite.
    Value([Option<f32>; 1]),
}

impl Predicted {
    /// The class, if one is predicted.
    pub const fn class(&self) -> Option<i64> {
        match self {
            Self::Class(class, _, _) => Some(*class),
            Self::Value(_) => None,
        }
    }

    /// The value, if one is predicted; NaN where it is not finite.
    pub fn value(&self) -> Option<f32> {
        match self {
            Self::Class(..) => None,
            Self::Value([value]) => Some(value.unwrap_or(f32::NAN)),
        }
    }

    /// The confidence, NaN where there is none.
    pub fn confidence(&self) -> f32 {
        match self {
            Self::Class(_, confidence, _) => confidence.unwrap_or(f32::NAN),
            Self::Value(_) => f32::NAN,
        }
    }

    /// The entropy, NaN where there is none.
    pub fn entropy(&self) -> f32 {
        match self {
            Self::Class(_, _, entropy) => entropy.unwrap_or(f32::NAN),
            Self::Value(_) => f32::NAN,
        }
    }
}

/// A model that qualified. Other things said about it are for people.
#[derive(Debug, Deserialize)]
pub struct Qualified {
    /// What the worker needs.
    pub measured: Measured,
    /// What loading rewrites; none from a program that does not tell.
    #[serde(default)]
    pub preparation: Option<Preparation>,
    /// One for each row.
    #[serde(default)]
    pub predictions: Option<Vec<Predicted>>,
    /// What is watched of each row's pictures; none where nothing is.
    #[serde(default)]
    pub pictures: Option<Vec<Vec<Option<f32>>>>,
}

/// What loading does to a model, and whether the second form pays, in the device program's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preparation {
    /// What is rewritten whenever it is loaded, a line each.
    pub rewrites: Vec<String>,
    /// What works and is slow, a sentence each.
    pub warnings: Vec<String>,
    /// The second form, which then lies in the folder as `model.nnef`.
    pub nnef: Option<NnefForm>,
    /// What was measured of it, or why there is none.
    pub nnef_because: String,
}

/// Why a model does not qualify, in the device program's words.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Fault {
    /// Such as `unsupported_operator` or `golden_mismatch`.
    pub kind: String,
    /// In words.
    pub message: String,
    /// The ONNX operator that is the problem.
    #[serde(default)]
    pub operator: Option<String>,
    /// What to do about it.
    #[serde(default)]
    pub hint: Option<String>,
}

#[derive(Deserialize)]
struct Refused {
    fault: Fault,
}

/// No measurements were made.
#[derive(Debug, thiserror::Error)]
pub enum QualifyError {
    /// There is no device program.
    #[error("the device program {PROGRAM} is not beside this program nor in PATH")]
    NoProgram,
    /// It cannot be run.
    #[error("{}: {source}", program.display())]
    Run {
        /// Its path.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It says something else than it should.
    #[error("{} qualify ended with {status} and no answer that this version understands: {answer}", program.display())]
    Answer {
        /// Its path.
        program: PathBuf,
        /// How it ended.
        status: String,
        /// The beginning of what it said, or what is wrong with it.
        answer: String,
    },
    /// The model does not qualify.
    #[error("{}", .0.message)]
    Fault(Fault),
}

impl QualifyError {
    /// What the operator can do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoProgram | Self::Run { .. } => {
                Some(format!("name it with --agent PATH or in the environment variable {PROGRAM_VARIABLE}"))
            }
            Self::Answer { .. } => Some(format!("use the {PROGRAM} of the same release as serin-fleet")),
            Self::Fault(fault) => fault.hint.clone(),
        }
    }
}

/// The device program: as named, else from the environment, else beside this program, else in `PATH`.
pub fn find_program(named: Option<&Path>) -> Result<PathBuf, QualifyError> {
    if let Some(path) = named {
        return Ok(path.into());
    }
    if let Some(path) = std::env::var_os(PROGRAM_VARIABLE).filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let beside = std::env::current_exe().ok().and_then(|own| own.parent().map(Path::to_path_buf));
    let search = std::env::var_os("PATH").unwrap_or_default();
    find_in(beside.into_iter().chain(std::env::split_paths(&search))).ok_or(QualifyError::NoProgram)
}

fn find_in(folders: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    folders.map(|folder| folder.join(PROGRAM)).find(|path| path.is_file())
}

/// Qualifies the unpacked release in `dir`, and predicts the rows of the file `rows`.
pub fn qualify(program: &Path, dir: &Path, rows: Option<&Path>) -> Result<Qualified, QualifyError> {
    let failed = |source| QualifyError::Run { program: program.into(), source };
    let mut arguments = vec![OsStr::new("qualify"), "--json".as_ref(), "--dir".as_ref(), dir.as_os_str()];
    if let Some(rows) = rows {
        arguments.extend(["--rows".as_ref(), rows.as_os_str()]);
    }
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let mut answer = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        // When the answer is too long, closing the pipe ends the program.
        stdout.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    if let Ok(Refused { fault }) = serde_json::from_slice(&answer) {
        return Err(QualifyError::Fault(fault));
    }
    let wrong = |answer| QualifyError::Answer { program: program.into(), status: status.to_string(), answer };
    if !status.success() {
        return Err(wrong(String::from_utf8_lossy(&answer).chars().take(400).collect()));
    }
    serde_json::from_slice(&answer).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// A program that says `says` and ends with `code`.
    fn program(folder: &Path, says: &str, code: u8) -> PathBuf {
        let path = folder.join(PROGRAM);
        let script = format!("#!/bin/sh\ncat <<'END'\n{says}\nEND\nexit {code}\n");
        std::fs::write(&path, script).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("owned");
        path
    }

    fn ask(says: &str, code: u8) -> Result<Qualified, QualifyError> {
        let folder = tempfile::tempdir().expect("folder");
        qualify(&program(folder.path(), says, code), folder.path(), None)
    }

    #[test]
    fn a_fault_keeps_operator_and_hint() {
        let says = r#"{"fault":{"kind":"unsupported_operator","message":"no Det","operator":"Det","hint":"use Gemm"}}"#;
        let error = ask(says, 1).expect_err("refused");
        assert_eq!((error.to_string().as_str(), error.hint().as_deref()), ("no Det", Some("use Gemm")));
    }

    #[test]
    fn an_answer_that_is_none_is_shown() {
        let error = ask("usage: something else", 2).expect_err("no answer").to_string();
        assert!(error.contains("exit status: 2") && error.contains("usage: something else"), "{error}");
        assert!(
            ask("{\"measured\":{}}", 0).expect_err("half an answer").to_string().contains("missing field")
        );
    }

    #[test]
    fn a_missing_program_says_how_to_name_it() {
        let folder = tempfile::tempdir().expect("folder");
        let absent = folder.path().join("absent");
        let error = qualify(&absent, folder.path(), None).expect_err("absent");
        assert!(
            error.to_string().contains("absent") && error.hint().is_some_and(|hint| hint.contains("--agent"))
        );
        assert_eq!(find_in([folder.path().to_path_buf()].into_iter()), None);
        let there = program(folder.path(), "", 0);
        assert_eq!(find_in([absent, folder.path().into()].into_iter()), Some(there));
    }
}
