//! What is typed to score in bulk.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serin_protocol::ids::ModelName;

use super::{batch, stream, topics};
use crate::field::cli::{Console, Exit, conclude};

/// Scoring in bulk with the model that runs on this device.
#[derive(Clone, Debug, Subcommand)]
pub enum ScoringCli {
    /// Score a file of rows; one that was interrupted goes on where it was.
    Batch(BatchArgs),
    /// Score rows as they come: lines of standard input, or messages on local MQTT topics.
    Stream(StreamArgs),
}

/// `batch`.
#[derive(Clone, Debug, Args)]
pub struct BatchArgs {
    /// CSV with or without a header, one JSON array or object a line, or a file named .parquet.
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// The file to write: CSV if it is named so, else one JSON object a line. It must not exist.
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    /// The model; the active one by default.
    #[arg(long, value_name = "MODEL")]
    pub model: Option<ModelName>,
    /// Answer a row that makes no sense with its error instead of stopping there.
    #[arg(long)]
    pub keep_going: bool,
    /// Begin anew, whatever was begun.
    #[arg(long)]
    pub restart: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `stream`.
#[derive(Clone, Debug, Args)]
pub struct StreamArgs {
    /// The model; the active one by default.
    #[arg(long, value_name = "MODEL")]
    pub model: Option<ModelName>,
    /// A broker on this device; without it lines of standard input are answered on standard output.
    #[arg(long, value_name = "HOST:PORT", requires_all = ["from", "to"])]
    pub mqtt: Option<String>,
    /// Topic whose messages are rows; it may have wildcards.
    #[arg(long, value_name = "TOPIC", requires = "mqtt")]
    pub from: Option<String>,
    /// Topic for the answers.
    #[arg(long, value_name = "TOPIC", requires = "mqtt")]
    pub to: Option<String>,
    /// Under which name the broker keeps messages while this is away; by default one for these topics.
    #[arg(long, value_name = "NAME", requires = "mqtt")]
    pub client_id: Option<String>,
}

/// Carries out `command` with the agent whose socket is at `socket`.
pub async fn run(command: ScoringCli, socket: &Path, console: &mut Console) -> Exit {
    let as_json = matches!(&command, ScoringCli::Batch(args) if args.json);
    let outcome = match &command {
        ScoringCli::Batch(args) => batch::run(args, socket, console).await,
        ScoringCli::Stream(args) => match (&args.mqtt, &args.from, &args.to) {
            (Some(broker), Some(from), Some(to)) => {
                let client_id = args.client_id.clone().unwrap_or_else(|| topics::name_for(from, to));
                let ends = topics::Ends { broker, from, to, client_id: &client_id };
                topics::run(&ends, args.model.as_ref(), socket, console).await
            }
            _ => stream::run(args.model.as_ref(), socket, std::io::stdin(), console).await,
        },
    };
    conclude(outcome.map(|()| Exit::Done), as_json, console)
}
