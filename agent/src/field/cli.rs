//! The field engineer's commands. Every error says what to do next; exit codes are stable.

use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use clap::{Args, Subcommand};
use serde_json::json;
use serin_protocol::ids::{ModelName, Version};

use super::checkup::Level;
pub(crate) use super::cli_error::CliError;
use super::client::{Client, ClientError};
use super::command::MAX_HISTORY;
use super::infer;
use super::label::{self, LabelArgs};
use super::print::{self, Paint};
use super::reply::FieldReply;
use super::support;
use super::{carry, logs};
use crate::logs::MAX_LINES;

/// Commands to the agent that runs on this device.
#[derive(Clone, Debug, Subcommand)]
pub enum FieldCli {
    /// Show what runs here and how it is.
    Status(PlainArgs),
    /// Show what is installed: what answers, and what a rollback would bring back.
    Slots(PlainArgs),
    /// Show what happened, the newest first.
    History(HistoryArgs),
    /// Go back to the previous release, with or without a network, and stay there until `unpin`.
    Rollback(RollbackArgs),
    /// Keep what runs, whatever the fleet says, until `unpin`.
    Pin(PlainArgs),
    /// Follow the fleet again.
    Unpin(PlainArgs),
    /// Take no order of the fleet for a while; what has begun goes on to its end.
    Hold(HoldArgs),
    /// Look at everything this device needs: each line ok, warn or fail with its remedy.
    Doctor(PlainArgs),
    /// Read every installed file again and compare it with what was signed.
    Verify(PlainArgs),
    /// Write everything the agent says of itself into one file for the office: no key and no data in it.
    SupportBundle(SupportArgs),
    /// Install a release from a file, such as one on a USB stick, with or without a network, and stay there until
    /// `unpin`. It is checked exactly as one that comes from the fleet.
    Sideload(SideloadArgs),
    /// Show what the agent logged, the newest last.
    Logs(LogsArgs),
    /// Become one of the fleet, with a claim token from an operator. The device must reach its broker.
    Enroll(EnrollArgs),
    /// Tell what turned out to be true of what was predicted, so that the fleet learns how right the model is.
    Label(LabelArgs),
    /// Ask the active model about rows of numbers, or a whole Open Inference Protocol request.
    Infer(InferArgs),
}

/// How to answer.
#[derive(Clone, Copy, Debug, Args)]
pub struct PlainArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `history`.
#[derive(Clone, Copy, Debug, Args)]
pub struct HistoryArgs {
    /// Entries to show.
    #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=MAX_HISTORY as i64))]
    pub limit: u16,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `rollback`.
#[derive(Clone, Debug, Args)]
pub struct RollbackArgs {
    /// Go back only if this is the previous version; one that was taken back here comes back only so.
    #[arg(long, value_name = "VERSION")]
    pub to: Option<Version>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `support-bundle`.
#[derive(Clone, Debug, Args)]
pub struct SupportArgs {
    /// The file to write, JSON compressed with zstd; it must not exist.
    #[arg(short, long, value_name = "FILE.json.zst")]
    pub output: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `sideload`.
#[derive(Clone, Debug, Args)]
pub struct SideloadArgs {
    /// What `serin-fleet release export` wrote.
    #[arg(value_name = "FILE.parcel")]
    pub file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `logs`.
#[derive(Clone, Copy, Debug, Args)]
pub struct LogsArgs {
    /// Lines to show.
    #[arg(short = 'n', long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(0..=MAX_LINES as i64))]
    pub lines: u16,
    /// Go on with each line that is logged, also by an agent that is started anew, until Ctrl-C.
    #[arg(short, long)]
    pub follow: bool,
    /// Print one JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// `hold`.
#[derive(Clone, Copy, Debug, Args)]
pub struct HoldArgs {
    /// How long, such as 90m, 8h or 2d; at most 30 days.
    #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
    pub seconds: u64,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// A time such as 90m, 8h or 2d, in seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let refused = || format!("{text:?} is not a time like 90m, 8h or 2d");
    let unit = text.chars().next_back().ok_or_else(refused)?;
    let scale = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(refused()),
    };
    let number: u64 = text.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or_else(refused)?;
    number.checked_mul(scale).ok_or_else(refused)
}

/// `enroll`.
#[derive(Clone, Debug, Args)]
pub struct EnrollArgs {
    /// The token; without it, the first line of standard input, where no other user sees it.
    #[arg(long, value_name = "TOKEN", env = "SERIN_CLAIM_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `infer`.
#[derive(Clone, Debug, Args)]
pub struct InferArgs {
    /// The model to ask; the active one by default.
    #[arg(long, value_name = "MODEL")]
    pub model: Option<ModelName>,
    /// CSV, one JSON array a line, or one JSON request; `-` or nothing for standard input.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Print one JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// How a command ended, as an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// The agent refused, or it failed.
    Refused = 1,
    /// The command or its input makes no sense.
    Usage = 2,
    /// No agent answers.
    Unreachable = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Where a command writes.
pub struct Console {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    paint: Paint,
}

impl Console {
    /// Standard output and error; in colour on a terminal unless `NO_COLOR` is set.
    pub fn standard() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let colour = wanted && io::stdout().is_terminal() && io::stderr().is_terminal();
        Self { out: Box::new(io::stdout()), err: Box::new(io::stderr()), paint: Paint(colour) }
    }

    /// Anywhere else.
    pub fn new(out: Box<dyn Write + Send>, err: Box<dyn Write + Send>, colour: bool) -> Self {
        Self { out, err, paint: Paint(colour) }
    }

    pub(crate) fn print(&mut self, text: &str) -> Result<(), CliError> {
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).map_err(CliError::Output)
    }

    /// Writes over what shows how far something is.
    pub(crate) fn progress(&mut self, text: &str) -> Result<(), CliError> {
        self.err.write_all(text.as_bytes()).and_then(|()| self.err.flush()).map_err(CliError::Output)
    }

    pub(crate) fn note(&mut self, text: &str) -> Result<(), CliError> {
        writeln!(self.err, "note: {text}").map_err(CliError::Output)
    }
}

impl FieldCli {
    const fn json(&self) -> bool {
        match self {
            Self::Status(args)
            | Self::Slots(args)
            | Self::Pin(args)
            | Self::Unpin(args)
            | Self::Doctor(args)
            | Self::Verify(args) => args.json,
            Self::History(args) => args.json,
            Self::Rollback(args) => args.json,
            Self::Hold(args) => args.json,
            Self::SupportBundle(args) => args.json,
            Self::Sideload(args) => args.json,
            Self::Logs(args) => args.json,
            Self::Enroll(args) => args.json,
            Self::Label(args) => args.json,
            Self::Infer(args) => args.json,
        }
    }
}

/// Carries out `command` with the agent whose socket is at `socket`. With `--json` an error is one JSON
/// object on standard error.
pub async fn run(command: FieldCli, socket: &Path, console: &mut Console) -> Exit {
    let as_json = command.json();
    let outcome = attempt(command, socket, console).await;
    conclude(outcome, as_json, console)
}

/// The exit code of `outcome`, whose error is written to standard error.
pub(crate) fn conclude(outcome: Result<Exit, CliError>, as_json: bool, console: &mut Console) -> Exit {
    let error = match outcome {
        Ok(exit) => return exit,
        Err(error) => error,
    };
    let exit = error.exit();
    if exit != Exit::Done {
        let (message, next) = (error.to_string(), error.next());
        let text = if as_json {
            let code = match &error {
                CliError::Client(ClientError::Refused(refusal)) => json!(refusal.code),
                CliError::Client(_)
                | CliError::Usage { .. }
                | CliError::Stopped { .. }
                | CliError::Output(_) => json!(null),
            };
            json!({ "code": code, "message": message, "next": next }).to_string()
        } else {
            format!("{}: {message}\nnext: {next}", console.paint.bad("error"))
        };
        // There is nowhere left to complain to.
        let _ = writeln!(console.err, "{text}");
    }
    exit
}

async fn attempt(command: FieldCli, socket: &Path, console: &mut Console) -> Result<Exit, CliError> {
    let mut client = Client::connect(socket).await?;
    let reply = match &command {
        FieldCli::Status(_) | FieldCli::Slots(_) => client.field("status", None).await?,
        FieldCli::History(args) => client.field(&format!("history?limit={}", args.limit), None).await?,
        FieldCli::Rollback(args) => {
            let body = json!({ "to": args.to }).to_string();
            client.field("rollback", Some(body.into())).await?
        }
        FieldCli::Pin(_) => client.field("pin", Some(Bytes::new())).await?,
        FieldCli::Unpin(_) => client.field("unpin", Some(Bytes::new())).await?,
        FieldCli::SupportBundle(args) => {
            return support::run(&mut client, args, console).await.map(|()| Exit::Done);
        }
        FieldCli::Logs(args) => {
            return logs::run(&mut client, socket, *args, console).await.map(|()| Exit::Done);
        }
        FieldCli::Sideload(args) => carry::run(&mut client, &args.file, console).await?,
        FieldCli::Hold(args) => {
            let body = json!({ "seconds": args.seconds }).to_string();
            client.field("hold", Some(body.into())).await?
        }
        FieldCli::Doctor(_) => client.field("doctor", None).await?,
        FieldCli::Verify(_) => client.field("verify", None).await?,
        FieldCli::Enroll(args) => {
            let token = claim_token(args.token.as_deref())?;
            client.field("enroll", Some(json!({ "token": token }).to_string().into())).await?
        }
        FieldCli::Label(args) => return label::run(&mut client, args, console).await,
        FieldCli::Infer(args) => {
            return infer::command(&mut client, args, console).await.map(|()| Exit::Done);
        }
    };
    if let (FieldCli::Slots(args), FieldReply::Status(status)) = (&command, &reply) {
        let slots = print::slots(status, args.json, console.paint);
        return console.print(&slots).map(|()| Exit::Done);
    }
    let text = if command.json() {
        let text =
            serde_json::to_string(&reply).map_err(|error| ClientError::Malformed(error.to_string()))?;
        text + "\n"
    } else {
        print::reply(&reply, console.paint)
    };
    console.print(&text)?;
    // For scripts: something does not work.
    let failed = matches!(&reply, FieldReply::Checkup(checkup) if checkup.worst() == Level::Fail);
    Ok(if failed { Exit::Refused } else { Exit::Done })
}

fn claim_token(given: Option<&str>) -> Result<String, CliError> {
    if let Some(token) = given {
        return Ok(token.trim().to_owned());
    }
    let mut line = String::new();
    let mut input = io::Read::take(io::stdin().lock(), 1024);
    io::BufRead::read_line(&mut input, &mut line).map_err(|error| CliError::input(&error))?;
    Ok(line.trim().to_owned())
}

#[cfg(test)]
#[path = "cli_tests.rs"]
pub(crate) mod tests;
