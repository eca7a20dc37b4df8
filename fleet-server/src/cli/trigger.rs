//! `serin-fleet trigger`.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};
use serin_protocol::ids::{ModelName, ReleaseId};

use super::client::{Client, ClientArgs};
use super::table::{ago, table};
use super::{Failure, Report};

#[derive(Args)]
pub(super) struct TriggerArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: TriggerCommand,
}

#[derive(Subcommand)]
enum TriggerCommand {
    /// What asked for training, and how far that is.
    List,
    /// Ask for training by hand.
    Fire {
        /// Of which model.
        model: ModelName,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Say that you are at it.
    Ack {
        /// The trigger, such as shop-7.
        trigger: String,
        /// Who.
        #[arg(long, env = "USER", default_value = "")]
        by: String,
    },
    /// Say which release came of it, where its manifest does not (`answers` in serin.toml).
    Answer {
        /// The trigger, such as shop-7.
        trigger: String,
        /// The release, as MODEL@VERSION.
        release: ReleaseId,
    },
}

#[derive(Deserialize)]
struct Triggers {
    triggers: Vec<Trigger>,
}

#[derive(Deserialize)]
struct Trigger {
    id: String,
    cause: String,
    release: String,
    why: String,
    fired: u64,
    state: String,
    acknowledged_by: Option<String>,
    answered_by: Option<String>,
}

pub(super) fn run(arguments: &TriggerArgs) -> Result<Report, Failure> {
    let client = Client::new(&arguments.client)?;
    match &arguments.command {
        TriggerCommand::List => {
            let json: Value = client.get("/api/v1/triggers")?;
            let triggers = serde_json::from_value(json.clone()).map_err(Failure::new)?;
            Ok(Report { text: list(&triggers), json })
        }
        TriggerCommand::Fire { model, reason } => {
            client.send("/api/v1/triggers", &json!({ "model": model, "why": reason }))?;
            Ok(Report {
                text: "training is asked for; see `trigger list`".into(),
                json: json!({ "model": model }),
            })
        }
        TriggerCommand::Ack { trigger, by } => {
            client.send(&format!("/api/v1/triggers/{trigger}/ack"), &json!({ "by": by }))?;
            Ok(Report {
                text: format!("{trigger} is acknowledged"),
                json: json!({ "acknowledged": trigger }),
            })
        }
        TriggerCommand::Answer { trigger, release } => {
            let body = json!({ "release": release.to_string() });
            client.send(&format!("/api/v1/triggers/{trigger}/answer"), &body)?;
            Ok(Report { text: format!("{release} answers {trigger}"), json: json!({ "answered": trigger }) })
        }
    }
}

fn list(Triggers { triggers }: &Triggers) -> String {
    if triggers.is_empty() {
        return "nothing has asked for training yet".into();
    }
    let row = |trigger: &Trigger| {
        let more = trigger.answered_by.as_ref().or(trigger.acknowledged_by.as_ref());
        let state = more.map_or_else(|| trigger.state.clone(), |by| format!("{} by {by}", trigger.state));
        vec![
            trigger.id.clone(),
            ago(trigger.fired),
            trigger.release.clone(),
            trigger.cause.clone(),
            state,
            trigger.why.clone(),
        ]
    };
    let rows: Vec<_> = triggers.iter().rev().map(row).collect();
    table(&["TRIGGER", "FIRED", "RELEASE", "CAUSE", "STATE", "WHY"], &rows)
}
