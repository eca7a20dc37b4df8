//! `serin-fleet alert`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, ClientArgs};
use super::device::seconds;
use super::table::{ago, plain, table};
use super::{Failure, Report};
use crate::alert::Rule;
use crate::alert::rule::check_all;

/// Largest file of rules.
const MAX_FILE_BYTES: u64 = 256 * 1024;

#[derive(Args)]
pub(super) struct AlertArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: AlertCommand,
}

#[derive(Subcommand)]
enum AlertCommand {
    /// What rings, and with --all everything that is watched.
    List {
        /// Also what is fine.
        #[arg(long)]
        all: bool,
    },
    /// What began to ring and what ended, the last first.
    History,
    /// The rules, and with --add or --remove others.
    Rules {
        /// Add the rules in this TOML file, or replace those of the same names.
        #[arg(long, value_name = "FILE", conflicts_with = "remove")]
        add: Option<PathBuf>,
        /// Take the rule of this name away.
        #[arg(long, value_name = "NAME")]
        remove: Option<String>,
    },
    /// Have nobody told about some alerts for a while.
    Silence {
        /// Which: rule=, owner=, release=, segment=, severity= or kind=, and a value or how it begins, such as `release=digits@2.*`.
        #[arg(long = "match", value_name = "LABEL=VALUE", required = true)]
        matchers: Vec<String>,
        /// How long, such as 90m, 24h or 7d.
        #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
        span: u64,
        /// Why, for the record.
        #[arg(long)]
        reason: String,
        /// Who says so.
        #[arg(long, env = "USER", default_value = "")]
        author: String,
    },
    /// End a silence.
    Unsilence {
        /// Its number.
        silence: u64,
    },
    /// Whom one can tell, and what waits for them.
    Receivers,
    /// Send a receiver a message that is no alert.
    Test {
        /// Its name in the server's configuration.
        receiver: String,
    },
}

#[derive(Deserialize)]
struct Standings {
    firing: Vec<Firing>,
    watched: Vec<Watched>,
    silences: Vec<Silence>,
}

#[derive(Deserialize)]
struct Firing {
    kind: String,
    severity: String,
    since: u64,
    summary: String,
    silenced_by: Option<u64>,
}

#[derive(Deserialize)]
struct Watched {
    rule: String,
    owner: String,
    release: Option<String>,
    segment: Option<String>,
    state: String,
    at: u64,
    text: String,
}

#[derive(Deserialize)]
struct Silence {
    id: u64,
    matchers: Vec<String>,
    author: String,
    reason: String,
    until: u64,
}

#[derive(Deserialize)]
struct RulesFile {
    #[serde(default)]
    rules: Vec<Rule>,
}

pub(super) fn run(arguments: &AlertArgs) -> Result<Report, Failure> {
    let client = Client::new(&arguments.client)?;
    match &arguments.command {
        AlertCommand::List { all } => {
            let json: Value = client.get("/api/v1/alerts")?;
            let standings = serde_json::from_value(json.clone()).map_err(Failure::new)?;
            Ok(Report { text: list(&standings, *all), json })
        }
        AlertCommand::History => {
            let json: Value = client.get("/api/v1/alerts/history")?;
            Ok(Report { text: history(&json), json })
        }
        AlertCommand::Rules { add: Some(file), .. } => {
            let rules = read_rules(file)?;
            client.send("/api/v1/alerts/rules", &json!({ "rules": rules }))?;
            let names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
            Ok(Report { text: format!("added {}", names.join(", ")), json: json!({ "added": names }) })
        }
        AlertCommand::Rules { remove: Some(name), .. } => {
            client.delete(&format!("/api/v1/alerts/rules/{name}"))?;
            Ok(Report { text: format!("{name} is gone"), json: json!({ "removed": name }) })
        }
        AlertCommand::Rules { add: None, remove: None } => {
            let json: Value = client.get("/api/v1/alerts/rules")?;
            Ok(Report { text: rules(&json), json })
        }
        AlertCommand::Silence { matchers, span, reason, author } => {
            let order = json!({ "matchers": matchers, "author": author, "reason": reason, "seconds": span });
            let json: Value = client.post("/api/v1/alerts/silences", &order)?;
            let text =
                format!("silence {}; end it with `serin-fleet alert unsilence {}`", json["id"], json["id"]);
            Ok(Report { text, json })
        }
        AlertCommand::Unsilence { silence } => {
            client.delete(&format!("/api/v1/alerts/silences/{silence}"))?;
            Ok(Report { text: format!("silence {silence} is over"), json: json!({ "ended": silence }) })
        }
        AlertCommand::Receivers => {
            let json: Value = client.get("/api/v1/alerts/receivers")?;
            Ok(Report { text: receivers(&json), json })
        }
        AlertCommand::Test { receiver } => {
            let json: Value = client.post("/api/v1/alerts/test", &json!({ "receiver": receiver }))?;
            Ok(Report { text: format!("{receiver} has taken it"), json })
        }
    }
}

/// Checked here first, so that what is wrong is said with its place in the file.
fn read_rules(path: &Path) -> Result<Vec<Rule>, Failure> {
    let about = |error: &dyn std::fmt::Display| Failure::about(path.display(), error);
    let size = std::fs::metadata(path).map_err(|error| about(&error))?.len();
    if size > MAX_FILE_BYTES {
        return Err(about(&format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| about(&error))?;
    let RulesFile { rules } = toml::from_str(&text).map_err(|error| about(&error))?;
    check_all(&rules).map_err(|error| about(&error))?;
    if rules.is_empty() {
        return Err(about(&"no rule in it: write [[rules]], name = \"…\" and what it looks at"));
    }
    Ok(rules)
}

fn list(standings: &Standings, all: bool) -> String {
    let mut parts = Vec::new();
    if standings.firing.is_empty() {
        parts.push("nothing rings".to_owned());
    } else {
        let row = |firing: &Firing| {
            let silenced = firing.silenced_by.map_or_else(String::new, |id| format!(" (silence {id})"));
            vec![
                firing.severity.clone(),
                firing.kind.clone(),
                ago(firing.since),
                format!("{}{silenced}", firing.summary),
            ]
        };
        let rows: Vec<_> = standings.firing.iter().map(row).collect();
        parts.push(table(&["SEVERITY", "KIND", "SINCE", "WHAT"], &rows));
    }
    let shown =
        |watched: &&Watched| all || matches!(watched.state.as_str(), "pending" | "clearing" | "no_data");
    let row = |watched: &Watched| {
        let group = match (&watched.release, &watched.segment) {
            (Some(release), Some(segment)) => format!("{release}, segment {segment}"),
            (Some(release), None) => release.clone(),
            (None, _) => format!("all of {}", watched.owner),
        };
        vec![watched.rule.clone(), group, watched.state.clone(), ago(watched.at), watched.text.clone()]
    };
    let rows: Vec<_> = standings.watched.iter().filter(shown).map(row).collect();
    if !rows.is_empty() {
        parts.push(table(&["RULE", "OF", "STATE", "LOOKED", "FOUND"], &rows));
    }
    if !standings.silences.is_empty() {
        let row = |silence: &Silence| {
            let minutes = silence.until.saturating_sub(crate::serve::now().0) / 60_000;
            vec![
                silence.id.to_string(),
                silence.matchers.join(" "),
                format!("{minutes} min"),
                silence.author.clone(),
                silence.reason.clone(),
            ]
        };
        let rows: Vec<_> = standings.silences.iter().map(row).collect();
        parts.push(table(&["SILENCE", "OF", "LEFT", "BY", "WHY"], &rows));
    }
    parts.join("\n\n")
}

fn word(value: &Value, name: &str) -> String {
    match value.get(name) {
        Some(Value::String(text)) => plain(text),
        Some(Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    }
}

fn rows(json: &Value, list: &str, row: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    json[list].as_array().map(|all| all.iter().map(row).collect()).unwrap_or_default()
}

fn history(json: &Value) -> String {
    let mut rows = rows(json, "notes", |note| {
        let at = note["at"].as_u64().unwrap_or_default();
        vec![ago(at), word(note, "change"), word(&note["alert"], "severity"), word(&note["alert"], "summary")]
    });
    rows.reverse();
    table(&["WHEN", "CHANGE", "SEVERITY", "WHAT"], &rows)
}

fn rules(json: &Value) -> String {
    let rows = rows(json, "rules", |held| {
        let from = if held["fixed"] == true { "configuration" } else { "operators" };
        let rule = &held["rule"];
        vec![word(rule, "name"), word(rule, "severity"), word(rule, "by"), word(rule, "when"), from.into()]
    });
    table(&["RULE", "SEVERITY", "BY", "WHEN", "FROM"], &rows)
}

fn receivers(json: &Value) -> String {
    let rows = rows(json, "receivers", |receiver| {
        ["name", "kind", "host", "waiting", "attempts", "error"].map(|name| word(receiver, name)).to_vec()
    });
    table(&["RECEIVER", "KIND", "HOST", "WAITING", "ATTEMPTS", "LAST ERROR"], &rows)
}
