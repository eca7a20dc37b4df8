//! `serin-agent sideload`: the engineer's own process reads the stick, because the agent's user may not be
//! allowed to, and passes it on as it is.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use super::cli::{CliError, Console};
use super::client::Client;
use super::reply::FieldReply;

/// Sends the file at `path` to the agent.
pub(super) async fn run(
    client: &mut Client,
    path: &Path,
    console: &mut Console,
) -> Result<FieldReply, CliError> {
    let unreadable = |why: &dyn std::fmt::Display| CliError::Usage {
        message: format!("{}: {why}", path.display()),
        next: "name a file of `serin-fleet release export` that you may read".into(),
    };
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    let metadata = file.metadata().map_err(|error| unreadable(&error))?;
    if !metadata.is_file() {
        return Err(unreadable(&"it is not a file"));
    }
    let size = metadata.len();
    let shown = io::stderr().is_terminal();
    let mut before = None;
    let progress = move |sent: u64| {
        let percent = sent.saturating_mul(100) / size.max(1);
        if shown && before.replace(percent) != Some(percent) {
            // Nothing is lost with it.
            let _ = io::stderr().write_all(line(percent).as_bytes());
        }
    };
    let reply = client.sideload(file, size, progress).await;
    if shown {
        console.progress("\r\x1b[K")?;
    }
    Ok(reply?)
}

/// A bar, and what is being done when all is sent.
fn line(percent: u64) -> String {
    let then = if percent >= 100 { ", checking and starting it" } else { "" };
    bar(percent) + then
}

/// A bar of twenty that writes over the one before.
pub(crate) fn bar(percent: u64) -> String {
    let done = usize::try_from(percent / 5).unwrap_or(20).min(20);
    format!("\r\x1b[K[{}{}] {percent} %", "#".repeat(done), " ".repeat(20 - done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_grows_and_says_what_follows() {
        assert!(line(0).ends_with("[                    ] 0 %"));
        assert!(line(52).contains("[##########          ] 52 %"));
        assert!(line(100).contains("[####################] 100 %, checking"));
    }
}
