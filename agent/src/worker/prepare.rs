//! `serin-agent prepare`: what loading does to a model, told to `qualify`, which starts it, and the second form of
//! the model for it to try. As confined as a worker: this parses the model, too.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serin_model::nnef;
use serin_protocol::ids::ByteCount;
use serin_protocol::manifest::NnefForm;

use super::engine::{FILES, examine};
use super::verdict::{Fault, FaultKind};
use super::{limits, sandbox};

/// Longest first line: 2,000 rewrites or so.
const MAX_HEAD_BYTES: usize = 256 << 10;
/// Most rewrites that are told, each a line.
const MAX_LINES: usize = 1000;
/// Longest of those lines.
const MAX_LINE_CHARS: usize = 250;

/// Arguments of `serin-agent prepare`.
#[derive(Clone, Debug, clap::Args)]
pub struct PrepareArgs {
    /// Directory with the unpacked release.
    #[arg(long)]
    dir: PathBuf,
    /// Private writable memory in bytes.
    #[arg(long)]
    memory_limit: u64,
}

/// What is said first, on one line; the second form follows.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    rewrites: Vec<String>,
    warnings: Vec<String>,
    /// Rows that the second form runs at once, or why there is none.
    nnef: Result<u32, String>,
}

/// A model as loading rewrites it.
#[derive(Debug)]
pub(super) struct Prepared {
    /// What was rewritten, a line each.
    pub(super) rewrites: Vec<String>,
    /// What works and is slow, a sentence each.
    pub(super) warnings: Vec<String>,
    /// The second form, or why there is none.
    pub(super) nnef: Result<(NnefForm, Vec<u8>), String>,
}

/// Runs the command: a line of JSON and the second form on standard output.
pub fn run(args: &PrepareArgs) -> ExitCode {
    match write(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn write(args: &PrepareArgs) -> io::Result<()> {
    limits::apply(ByteCount(args.memory_limit))?;
    let mut readable: Vec<PathBuf> = FILES.iter().map(|file| args.dir.join(file.name())).collect();
    readable.push("/proc/cpuinfo".into());
    // As with a worker: where the kernel cannot, the release's owner is trusted with it.
    let _ = sandbox::allow_only(&readable);
    let (record, rows) = examine(&args.dir).map_err(io::Error::other)?;
    let form = nnef::write(record.graph);
    let line = |line: &String| line.chars().take(MAX_LINE_CHARS).collect();
    let head = Head {
        rewrites: record.rewrites.iter().take(MAX_LINES).map(line).collect(),
        warnings: record.warnings.iter().map(line).collect(),
        nnef: form.as_ref().map(|_| rows).map_err(|error| line(&format!("{error:#}"))),
    };
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &head)?;
    out.write_all(b"\n")?;
    out.write_all(&form.unwrap_or_default())?;
    out.flush()
}

/// Has `program` prepare the release in `dir`, within `memory` and `deadline`.
pub(super) async fn prepare(
    program: &Path,
    dir: &Path,
    memory: ByteCount,
    deadline: Duration,
) -> Result<Prepared, Fault> {
    let fault = |kind, what: String| Fault::new(kind, format!("the model cannot be prepared: {what}"));
    let mut command = tokio::process::Command::new(program);
    command.arg("prepare").arg("--dir").arg(dir).args(["--memory-limit", &memory.to_string()]);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(deadline, command.output()).await {
        Ok(output) => output.map_err(|error| fault(FaultKind::Died, error.to_string()))?,
        Err(_) => return Err(fault(FaultKind::Hung, format!("not done after {deadline:?}"))),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said: String = said.trim().chars().take(500).collect();
        return Err(fault(FaultKind::Died, format!("{}: {said}", output.status)));
    }
    let mut parts = output.stdout.splitn(2, |byte| *byte == b'\n');
    let head = parts.next().filter(|head| head.len() <= MAX_HEAD_BYTES).unwrap_or_default();
    let head: Head =
        serde_json::from_slice(head).map_err(|error| fault(FaultKind::Died, error.to_string()))?;
    let bytes = parts.next().unwrap_or_default().to_vec();
    // A constant that fits.
    let runtime = nnef::RUNTIME.parse().unwrap_or_default();
    let form = |rows_at_once| (NnefForm { runtime, rows_at_once }, bytes);
    Ok(Prepared { rewrites: head.rewrites, warnings: head.warnings, nnef: head.nnef.map(form) })
}
