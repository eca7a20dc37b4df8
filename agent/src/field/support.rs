//! What an engineer sends to the office: everything the agent says of itself, in one compressed file. It
//! holds no key, no token and no input of a model, because no reply, no log line and nothing shown of the
//! configuration does.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::cli::{CliError, Console, SupportArgs};
use super::client::{Client, ClientError};
use super::command::MAX_HISTORY;
use super::reply::FieldReply;
use crate::logs::MAX_LINES;

/// Small enough for a mail, at any speed.
const COMPRESSION: i32 = 19;

/// What is asked, and under which name the answer is kept.
fn questions() -> [(&'static str, String); 6] {
    [
        ("status", "status".into()),
        ("history", format!("history?limit={MAX_HISTORY}")),
        ("doctor", "doctor".into()),
        ("verify", "verify".into()),
        ("configuration", "configuration".into()),
        ("logs", format!("logs?last={MAX_LINES}")),
    ]
}

/// Gathers and writes the file.
pub(super) async fn run(
    client: &mut Client,
    args: &SupportArgs,
    console: &mut Console,
) -> Result<(), CliError> {
    let bundle = gather(client).await?;
    let bytes = write(&args.output, &bundle).map_err(|error| CliError::Usage {
        message: format!("{}: {error}", args.output.display()),
        next: "name a file that does not exist, where you may write".into(),
    })?;
    let path = args.output.display().to_string();
    let text = if args.json {
        json!({ "file": path, "bytes": bytes }).to_string() + "\n"
    } else {
        format!("{path}: {bytes} bytes; send it to whoever looks after the fleet\n")
    };
    console.print(&text)
}

/// Asks the agent everything. An answer that does not come is kept as the reason why.
async fn gather(client: &mut Client) -> Result<Value, ClientError> {
    let mut bundle = Map::new();
    bundle.insert("program".into(), json!(env!("CARGO_PKG_VERSION")));
    bundle.insert("kernel".into(), json!(kernel()));
    bundle.insert("memory".into(), json!(memory()));
    for (name, question) in questions() {
        let answer: Result<FieldReply, ClientError> = client.field(&question, None).await;
        let value = match answer {
            Ok(reply) => serde_json::to_value(&reply).unwrap_or(Value::Null),
            Err(error @ (ClientError::Unreachable { .. } | ClientError::Broken(_))) => return Err(error),
            Err(error) => json!({ "error": error.to_string() }),
        };
        bundle.insert(name.into(), value);
    }
    Ok(bundle.into())
}

/// Writes the file for its owner's eyes only; never over another.
fn write(path: &Path, bundle: &Value) -> io::Result<u64> {
    let text = serde_json::to_vec_pretty(bundle).map_err(io::Error::other)?;
    let packed = zstd::encode_all(text.as_slice(), COMPRESSION)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&packed)?;
    file.sync_all()?;
    Ok(packed.len() as u64)
}

fn kernel() -> String {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    format!("{} {} {}", read("ostype").trim(), read("osrelease").trim(), std::env::consts::ARCH)
}

/// What the kernel says of the device's memory, line by line.
fn memory() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}
