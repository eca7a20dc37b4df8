//! `serin-fleet device`.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, ClientArgs};
use super::table::{ago, bytes, plain, table};
use super::{Failure, Report};

#[derive(Args)]
pub(super) struct DeviceArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: DeviceCommand,
}

#[derive(Subcommand)]
enum DeviceCommand {
    /// All devices.
    List,
    /// One device with what happened on it.
    Show {
        /// Its id.
        device: String,
    },
    /// Forget a device and its key, so that it may come back with a new one.
    Forget {
        /// Its id.
        device: String,
    },
}

#[derive(Deserialize)]
struct Device {
    id: String,
    online: bool,
    target: String,
    agent: String,
    active: Option<String>,
    previous: Option<String>,
    candidate: Option<String>,
    pinned: bool,
    last_move: Option<Move>,
    last_seen: u64,
    memory_budget: u64,
    free_space: u64,
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Move {
    release: String,
    phase: String,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Event {
    number: u64,
    at: u64,
    text: String,
}

pub(super) fn run(arguments: &DeviceArgs) -> Result<Report, Failure> {
    let client = Client::new(&arguments.client)?;
    match &arguments.command {
        DeviceCommand::List => {
            let json: Value = client.get("/api/v1/devices")?;
            let devices: Vec<Device> = part(&json, "devices")?;
            Ok(Report { text: list(&devices), json })
        }
        DeviceCommand::Show { device } => {
            let json: Value = client.get(&format!("/api/v1/devices/{device}"))?;
            let device = serde_json::from_value(json.clone()).map_err(Failure::new)?;
            Ok(Report { text: show(&device), json })
        }
        DeviceCommand::Forget { device } => {
            client.delete(&format!("/api/v1/devices/{device}"))?;
            Ok(Report { text: format!("forgot {device}"), json: json!({ "forgotten": device }) })
        }
    }
}

/// A list inside an answer.
pub(super) fn part<T: serde::de::DeserializeOwned>(json: &Value, name: &str) -> Result<Vec<T>, Failure> {
    let list = json.get(name).cloned().unwrap_or(Value::Null);
    serde_json::from_value(list)
        .map_err(|error| Failure::new(format!("the server's answer makes no sense: {error}")))
}

fn list(devices: &[Device]) -> String {
    if devices.is_empty() {
        return "no device has said hello yet".into();
    }
    let rows: Vec<_> = devices.iter().map(row).collect();
    table(&["DEVICE", "HERE", "RUNS", "LAST MOVE", "SEEN"], &rows)
}

fn row(device: &Device) -> Vec<String> {
    let runs = device.active.clone().unwrap_or_else(|| "–".into());
    let pin = if device.pinned { " (pinned)" } else { "" };
    vec![
        device.id.clone(),
        if device.online { "yes" } else { "no" }.into(),
        format!("{runs}{pin}"),
        device.last_move.as_ref().map(in_words).unwrap_or_default(),
        ago(device.last_seen),
    ]
}

fn in_words(last: &Move) -> String {
    let why = last.reason.as_ref().map(|reason| format!(", {reason}")).unwrap_or_default();
    format!("{} {}{why}", last.release, last.phase)
}

fn show(device: &Device) -> String {
    let slot = |release: &Option<String>| release.clone().unwrap_or_else(|| "–".into());
    let facts = [
        ("device", device.id.clone()),
        ("here", if device.online { "yes" } else { "no" }.into()),
        ("target", device.target.clone()),
        ("agent", device.agent.clone()),
        ("active", slot(&device.active)),
        ("previous", slot(&device.previous)),
        ("candidate", slot(&device.candidate)),
        ("pinned", if device.pinned { "yes" } else { "no" }.into()),
        ("memory", bytes(device.memory_budget)),
        ("free disk", bytes(device.free_space)),
        ("seen", ago(device.last_seen)),
    ];
    let mut lines: Vec<String> =
        facts.iter().map(|(name, value)| format!("{name:<10}  {}", plain(value))).collect();
    let events = device
        .events
        .iter()
        .map(|event| format!("{:>6}  {:<12}  {}", event.number, ago(event.at), plain(&event.text)));
    lines.extend(events);
    lines.join("\n")
}
