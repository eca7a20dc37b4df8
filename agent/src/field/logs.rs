//! `serin-agent logs`: the last lines, and with `--follow` each one that comes.

use std::time::Duration;

use super::cli::{CliError, Console, LogsArgs};
use super::client::{Client, ClientError};
use super::reply::FieldReply;
use crate::logs::LogLine;

/// Between two questions for new lines: soon enough for whoever reads along.
const LOOK: Duration = Duration::from_millis(500);

/// Prints the lines.
pub(super) async fn run(client: &mut Client, args: LogsArgs, console: &mut Console) -> Result<(), CliError> {
    let mut lines = ask(client, &format!("logs?last={}", args.lines)).await?;
    let mut last = 0;
    loop {
        for line in &lines {
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
        lines = ask(client, &format!("logs?after={last}")).await?;
    }
}

async fn ask(client: &mut Client, question: &str) -> Result<Vec<LogLine>, ClientError> {
    match client.field(question, None).await? {
        FieldReply::Logs { lines } => Ok(lines),
        other => Err(ClientError::Malformed(format!("{other:?} is no answer to that"))),
    }
}
