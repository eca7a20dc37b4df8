//! `serin-fleet review`.

use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, ClientArgs};
use super::table::{ago, bytes, plain, table};
use super::{Failure, Report};

#[derive(Args)]
pub(super) struct ReviewArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Who looks or judges, for the record.
    #[arg(long, global = true, env = "USER", default_value = "")]
    by: String,
    #[command(subcommand)]
    command: ReviewCommand,
}

#[derive(Subcommand)]
enum ReviewCommand {
    /// Samples that wait for a word, then those that have it.
    List,
    /// One sample with its inputs. That you looked is on record.
    Show {
        /// The sample.
        sample: String,
    },
    /// Say whether the answer was right.
    Judge {
        /// The sample.
        sample: String,
        /// Was it?
        verdict: Verdict,
        /// The class that would be right.
        #[arg(long)]
        class: Option<i64>,
        /// More, for people.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Delete a sample for good.
    Drop {
        /// The sample.
        sample: String,
    },
    /// Who looked at, judged or deleted what.
    Views,
}

#[derive(Clone, Copy, ValueEnum)]
enum Verdict {
    /// The answer is right.
    Right,
    /// It is not.
    Wrong,
    /// It cannot be told.
    Unclear,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Wrong => "wrong",
            Self::Unclear => "unclear",
        }
    }
}

#[derive(Deserialize)]
struct Samples {
    samples: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    id: String,
    device: String,
    release: String,
    reason: String,
    received: u64,
    bytes: u64,
    class: Option<i64>,
    confidence: Option<f64>,
    judgement: Option<Judged>,
}

#[derive(Deserialize)]
struct Judged {
    by: String,
    verdict: String,
}

pub(super) fn run(arguments: &ReviewArgs) -> Result<Report, Failure> {
    let client = Client::new(&arguments.client)?;
    let by = &arguments.by;
    match &arguments.command {
        ReviewCommand::List => {
            let json: Value = client.get("/api/v1/review")?;
            let samples = serde_json::from_value(json.clone()).map_err(Failure::new)?;
            Ok(Report { text: list(&samples), json })
        }
        ReviewCommand::Show { sample } => {
            let json: Value = client.post(&format!("/api/v1/review/{sample}/show"), &json!({ "by": by }))?;
            Ok(Report { text: show(&json), json })
        }
        ReviewCommand::Judge { sample, verdict, class, note } => {
            let body = json!({ "by": by, "verdict": verdict.as_str(), "class": class, "note": note });
            let json: Value = client.post(&format!("/api/v1/review/{sample}/judge"), &body)?;
            Ok(Report { text: format!("{sample} is judged {}", verdict.as_str()), json })
        }
        ReviewCommand::Drop { sample } => {
            client.send(&format!("/api/v1/review/{sample}/drop"), &json!({ "by": by }))?;
            Ok(Report { text: format!("{sample} is deleted"), json: json!({ "deleted": sample }) })
        }
        ReviewCommand::Views => {
            let json: Value = client.get("/api/v1/review/views")?;
            Ok(Report { text: views(&json), json })
        }
    }
}

fn list(Samples { samples }: &Samples) -> String {
    if samples.is_empty() {
        return "no sample is here: an owner allows them by [review] in serin.toml, a device by [review] in its \
                configuration"
            .into();
    }
    let row = |sample: &Sample| {
        let class = sample.class.map_or_else(|| "-".into(), |class| class.to_string());
        let judged = sample.judgement.as_ref();
        vec![
            sample.id.clone(),
            ago(sample.received),
            sample.device.clone(),
            sample.release.clone(),
            sample.reason.clone(),
            class,
            sample.confidence.map_or_else(|| "-".into(), |confidence| format!("{confidence:.2}")),
            bytes(sample.bytes),
            judged.map_or_else(|| "waits".into(), |judged| format!("{} by {}", judged.verdict, judged.by)),
        ]
    };
    let rows: Vec<_> = samples.iter().map(row).collect();
    let heads = ["SAMPLE", "CAME", "DEVICE", "RELEASE", "REASON", "CLASS", "CONFIDENCE", "SIZE", "WORD"];
    table(&heads, &rows)
}

fn show(json: &Value) -> String {
    let mut lines = Vec::new();
    for name in ["id", "device", "release", "reason", "class", "confidence", "redacted", "shadow"] {
        lines.push(format!("{name:<11}{}", plain(&json[name].to_string())));
    }
    for input in json["inputs"].as_array().into_iter().flatten() {
        let name = input["name"].as_str().unwrap_or_default();
        lines.push(format!("{} {} {}", plain(name), input["datatype"], plain(&input["data"].to_string())));
    }
    lines.join("\n")
}

fn views(json: &Value) -> String {
    let views = json["views"].as_array().cloned().unwrap_or_default();
    let word = |view: &Value, name: &str| view[name].as_str().unwrap_or_default().to_owned();
    let row = |view: &Value| {
        let at = view["at"].as_u64().unwrap_or_default();
        vec![ago(at), word(view, "by"), word(view, "act"), word(view, "sample")]
    };
    let rows: Vec<_> = views.iter().rev().map(row).collect();
    table(&["WHEN", "WHO", "DID", "SAMPLE"], &rows)
}
