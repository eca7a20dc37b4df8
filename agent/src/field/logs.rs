//! `serin-agent logs`: the last lines, and with `--follow` each one that comes, also of an agent that is started anew.

use std::io;
use std::path::Path;
use std::time::Duration;

use serin_protocol::ids::BootId;

use super::cli::{CliError, Console, LogsArgs};
use super::client::{Client, ClientError};
use super::reply::{FieldCode, FieldReply};
use crate::logs::LogLine;

/// Between two questions for new lines: soon enough for whoever reads along.
const LOOK: Duration = Duration::from_millis(500);
/// Longest time between two looks whether an agent is there again.
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// What an agent has logged.
struct Said {
    lines: Vec<LogLine>,
    /// In which run: lines are numbered anew in each.
    run: Option<BootId>,
}

/// Prints the lines.
pub(super) async fn run(
    client: &mut Client,
    socket: &Path,
    args: LogsArgs,
    console: &mut Console,
) -> Result<(), CliError> {
    let mut said = ask(client, &format!("logs?last={}", args.lines)).await?;
    let (mut last, mut run) = (0, said.run);
    loop {
        for line in &said.lines {
            if last > 0 && line.number > last + 1 {
                console.note(&format!("{} lines came too fast and are lost", line.number - last - 1))?;
            }
            last = line.number;
            let text = if args.json {
                serde_json::to_string(line).map_err(|error| ClientError::Malformed(error.to_string()))?
            } else {
                line.text.clone()
            };
            console.print(&(text + "\n"))?;
        }
        if !args.follow {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
        said = match ask(client, &format!("logs?after={last}")).await {
            Err(error) if is_gone(&error) => {
                // Perhaps only the connection is.
                (*client, said) = match resume(socket, last, run).await {
                    Err(error) if is_gone(&error) => {
                        console
                            .note("the agent has ended; waiting for it to be started again, until Ctrl-C")?;
                        again(socket, last, run).await?
                    }
                    resumed => resumed?,
                };
                if said.run != run {
                    console.note("the agent was started anew")?;
                }
                said
            }
            answered => answered?,
        };
        if said.run != run {
            // All that this one has logged is new.
            (last, run) = (0, said.run);
        }
    }
}

/// The agent that answers next, and what it logged after the line `last` of that `run`, or ever in another one.
async fn again(socket: &Path, last: u64, run: Option<BootId>) -> Result<(Client, Said), ClientError> {
    let mut wait = LOOK;
    loop {
        match resume(socket, last, run).await {
            Err(error) if is_gone(&error) => {
                tokio::time::sleep(wait).await;
                wait = wait.saturating_mul(2).min(LONGEST_LOOK);
            }
            answered => return answered,
        }
    }
}

async fn resume(socket: &Path, last: u64, run: Option<BootId>) -> Result<(Client, Said), ClientError> {
    let mut client = Client::connect(socket).await?;
    let mut said = ask(&mut client, &format!("logs?after={last}")).await?;
    if said.run != run {
        said = ask(&mut client, "logs?after=0").await?;
    }
    Ok((client, said))
}

/// Whether no agent answers, or one that is stopping.
fn is_gone(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { source, .. } => source.kind() != io::ErrorKind::PermissionDenied,
        ClientError::Broken(_) => true,
        ClientError::Refused(refusal) => refusal.code == FieldCode::Stopping,
        ClientError::Failed { .. } | ClientError::Deadly { .. } | ClientError::Malformed(_) => false,
    }
}

async fn ask(client: &mut Client, question: &str) -> Result<Said, ClientError> {
    match client.field(question, None).await? {
        FieldReply::Logs { lines, run } => Ok(Said { lines, run }),
        other => Err(ClientError::Malformed(format!("{other:?} is no answer to that"))),
    }
}
