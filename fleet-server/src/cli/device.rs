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
    /// Make a claim token, with which one device becomes one of the fleet: `serin-agent enroll --token T`.
    Invite {
        /// The only device that may use it [default: any].
        device: Option<String>,
        /// How long it is good, such as 90m, 24h or 7d.
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = seconds)]
        valid: u64,
    },
    /// All claim tokens, without their secrets.
    Tokens,
    /// Take a claim token back.
    Uninvite {
        /// Its id, as `device tokens` shows it.
        token: String,
    },
    /// Ask a device to hold transfers, repetitions and reconnections back for a while. What it runs is not
    /// touched.
    Pause {
        /// Its id.
        device: String,
        /// How long, such as 90m or 8h, at most 24h.
        #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
        span: u64,
    },
    /// Note something about a device, so that plans can mean it: `device tag kiosk-07 site=lisbon`; `site=` takes
    /// it away. `utc_offset=+01:00` says what its local time is, for windows of plans.
    Tag {
        /// Its id.
        device: String,
        /// What is noted.
        #[arg(required = true, value_name = "NAME=VALUE")]
        tags: Vec<String>,
    },
    /// End a pause before its time.
    Resume {
        /// Its id.
        device: String,
    },
    /// Cut a device off: the embedded broker lets it in no more, and nothing it says counts. Your own
    /// broker must be told by `ca revoke` and `broker acl --revoked`.
    Revoke {
        /// Its id.
        device: String,
    },
    /// Forget a device and its key, so that one with a new key may take its name.
    Forget {
        /// Its id.
        device: String,
    },
}

#[derive(Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "as JSON has it")]
struct Device {
    id: String,
    online: bool,
    target: String,
    agent: String,
    active: Option<String>,
    previous: Option<String>,
    candidate: Option<String>,
    pinned: bool,
    #[serde(default)]
    safe_mode: bool,
    #[serde(default)]
    paused_until: Option<u64>,
    #[serde(default)]
    revoked: bool,
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

#[derive(Deserialize)]
struct Token {
    id: String,
    #[serde(rename = "token")]
    text: Option<String>,
    device: Option<String>,
    expires: u64,
    used_by: Option<String>,
}

fn tag(client: &Client, device: &str, tags: &[String]) -> Result<Report, Failure> {
    let mut changes = serde_json::Map::new();
    for tag in tags {
        let (name, value) = tag
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("`{tag}` is no tag: write NAME=VALUE")))?;
        changes.insert(name.to_owned(), Some(value).filter(|value| !value.is_empty()).into());
    }
    let json: Value = client.post(&format!("/api/v1/devices/{device}/tags"), &Value::Object(changes))?;
    let text = format!("{} is tagged {}", device, plain(&json["tags"].to_string()));
    Ok(Report { text, json })
}

/// A time such as 90m, 24h or 7d, in seconds.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let refused = || format!("{text:?} is not a time like 90m, 24h or 7d");
    let unit = text.chars().next_back().ok_or_else(refused)?;
    let scale = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(refused()),
    };
    let number: u64 = text.trim_end_matches(unit).parse().map_err(|_| refused())?;
    number.checked_mul(scale).ok_or_else(refused)
}

fn list_tokens(tokens: &[Token]) -> String {
    if tokens.is_empty() {
        return "no claim token is out".into();
    }
    let row = |token: &Token| {
        let standing = match &token.used_by {
            Some(device) => format!("used by {device}"),
            None if token.expires <= crate::serve::now().0 => "expired".into(),
            None => "good".into(),
        };
        vec![token.id.clone(), token.device.clone().unwrap_or_else(|| "any".into()), standing]
    };
    table(&["TOKEN", "FOR", "STANDING"], &tokens.iter().map(row).collect::<Vec<_>>())
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
        DeviceCommand::Invite { device, valid } => {
            let json: Value =
                client.post("/api/v1/tokens", &json!({"device": device, "valid_seconds": valid}))?;
            let token: Token = serde_json::from_value(json.clone()).map_err(Failure::new)?;
            Ok(Report { text: token.text.unwrap_or_default(), json })
        }
        DeviceCommand::Tokens => {
            let json: Value = client.get("/api/v1/tokens")?;
            let tokens: Vec<Token> = part(&json, "tokens")?;
            Ok(Report { text: list_tokens(&tokens), json })
        }
        DeviceCommand::Uninvite { token } => {
            client.delete(&format!("/api/v1/tokens/{token}"))?;
            Ok(Report { text: format!("took {token} back"), json: json!({ "withdrawn": token }) })
        }
        DeviceCommand::Tag { device, tags } => tag(&client, device, tags),
        DeviceCommand::Pause { device, span } => {
            let json: Value =
                client.post(&format!("/api/v1/devices/{device}/pause"), &json!({ "seconds": span }))?;
            Ok(Report { text: format!("asked {device} to hold back"), json })
        }
        DeviceCommand::Resume { device } => {
            let json: Value = client.post(&format!("/api/v1/devices/{device}/resume"), &Value::Null)?;
            Ok(Report { text: format!("asked {device} to go on"), json })
        }
        DeviceCommand::Revoke { device } => {
            let _: Value = client.post(&format!("/api/v1/devices/{device}/revoke"), &Value::Null)?;
            let text = format!(
                "revoked {device}: nothing it says counts, and the embedded broker has thrown it out.\n\
                 A broker of your own must be told: `serin-fleet ca revoke {device}` writes crl.pem, and\n\
                 `serin-fleet broker acl --fleet FLEET --revoked {device}` an access list without it; give both to\n\
                 the broker and restart it."
            );
            Ok(Report { text, json: json!({ "revoked": device }) })
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
    let pin = match (device.safe_mode, device.pinned) {
        (true, _) => " (safe mode)",
        (false, true) => " (pinned)",
        (false, false) => "",
    };
    vec![
        device.id.clone(),
        here(device).into(),
        format!("{runs}{pin}"),
        device.last_move.as_ref().map(in_words).unwrap_or_default(),
        ago(device.last_seen),
    ]
}

const fn here(device: &Device) -> &'static str {
    match (device.revoked, device.online) {
        (true, _) => "revoked",
        (false, true) => "yes",
        (false, false) => "no",
    }
}

fn in_words(last: &Move) -> String {
    let why = last.reason.as_ref().map(|reason| format!(", {reason}")).unwrap_or_default();
    format!("{} {}{why}", last.release, last.phase)
}

/// How much longer, in words.
fn still(until: u64) -> String {
    format!("for {} s", until.saturating_sub(crate::serve::now().0).div_ceil(1000))
}

fn show(device: &Device) -> String {
    let slot = |release: &Option<String>| release.clone().unwrap_or_else(|| "–".into());
    let facts = [
        ("device", device.id.clone()),
        ("here", here(device).into()),
        ("target", device.target.clone()),
        ("agent", device.agent.clone()),
        ("active", slot(&device.active)),
        ("previous", slot(&device.previous)),
        ("candidate", slot(&device.candidate)),
        ("pinned", if device.pinned { "yes" } else { "no" }.into()),
        ("safe mode", if device.safe_mode { "yes: its agent kept crashing" } else { "no" }.into()),
        ("paused", device.paused_until.map_or_else(|| "no".into(), still)),
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
