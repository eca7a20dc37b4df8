//! `serin-fleet rollout`.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, ClientArgs};
use super::device::part;
use super::orders::{self, DrillArgs, GateArgs, OrderArgs, ReasonArgs, RollBackArgs};
use super::plans;
use super::table::{ago, plain, table};
use super::{Failure, Report, failure};
use crate::rollout::plan::{Plan, Preset};

#[derive(Args)]
pub(super) struct RolloutArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: RolloutCommand,
}

#[derive(Subcommand)]
enum RolloutCommand {
    /// Roll a release out.
    Start {
        /// The release, as MODEL@VERSION.
        #[arg(long)]
        release: String,
        #[command(flatten)]
        plan: PlanArgs,
    },
    /// A plan with everything it leaves to defaults; with --dry-run, which devices it would give the release
    /// when.
    Plan {
        /// The release, as MODEL@VERSION. Only looked at with --dry-run.
        #[arg(long, required_if_eq("dry_run", "true"))]
        release: Option<String>,
        #[command(flatten)]
        plan: PlanArgs,
        /// Ask the server what it would do. Nothing moves.
        #[arg(long)]
        dry_run: bool,
    },
    /// Where rollouts stand; one with its verdicts and devices.
    Status {
        /// Its number; all without.
        rollout: Option<u64>,
        /// Go on saying what happens until it is finished.
        #[arg(long, requires = "rollout")]
        watch: bool,
    },
    /// Give the release to no further device.
    Pause(OrderArgs),
    /// Go on.
    Resume(OrderArgs),
    /// Stop: unfinished installations are given up, finished ones are kept.
    Abort(OrderArgs),
    /// Take the release back from every device, or from some.
    Rollback(RollBackArgs),
    /// Enter the next stage now, whatever the gates say.
    #[command(visible_alias = "approve")]
    Promote(OrderArgs),
    /// Look at a gate no more in this stage.
    SkipGate(GateArgs),
    /// Have some devices go back and come again, to know that the way back works.
    Drill(DrillArgs),
    /// Give the release to everybody now, whatever the plan says. Hard guards stay.
    Emergency(ReasonArgs),
}

/// How it goes out.
#[derive(Args)]
pub(super) struct PlanArgs {
    /// The plan (TOML). Without one: the preset that fits the fleet, or at once for a first release.
    #[arg(long, value_name = "FILE", conflicts_with = "preset")]
    pub(super) plan: Option<PathBuf>,
    /// A plan that comes with the program: small, medium or large, for fleets of that size.
    #[arg(long)]
    pub(super) preset: Option<Preset>,
    /// Who is early, as `plan --dry-run` said it [default: drawn at random].
    #[arg(long, value_name = "HEX")]
    pub(super) salt: Option<String>,
}

impl PlanArgs {
    /// The plan that was named. Read here, so that a mistake is shown with its line.
    pub(super) fn read(&self) -> Result<Option<Plan>, Failure> {
        let Some(path) = &self.plan else {
            return Ok(self.preset.map(Preset::plan));
        };
        let text = crate::config::read(path).map_err(Failure::new)?;
        toml::from_str(&text).map(Some).map_err(|error| Failure::about(path.display(), error))
    }

    /// What the server is asked for.
    pub(super) fn wanted(&self, release: &str) -> Result<Value, Failure> {
        let plan = self.read()?.map(serde_json::to_value).transpose().map_err(Failure::new)?;
        Ok(json!({ "release": release, "plan": plan, "salt": self.salt }))
    }
}

#[derive(Deserialize)]
pub(super) struct Rollout {
    pub(super) id: u64,
    release: String,
    pub(super) state: String,
    why: Option<String>,
    finished: bool,
    stage: usize,
    stages: Vec<Stage>,
    started: u64,
    missing: Option<String>,
    devices: Counts,
    #[serde(default)]
    verdicts: Vec<Verdict>,
    #[serde(default)]
    arms: Vec<Arm>,
}

#[derive(Deserialize)]
struct Stage {
    share: String,
}

#[derive(Deserialize)]
struct Counts {
    known: u32,
    running: u32,
    failed: u32,
}

#[derive(Deserialize)]
struct Verdict {
    at: u64,
    stage: usize,
    decision: String,
    sentence: String,
}

#[derive(Deserialize)]
struct Arm {
    device: String,
    control: bool,
    standing: String,
    detail: Option<String>,
}

pub(super) fn run(arguments: &RolloutArgs, as_json: bool) -> Result<Report, Failure> {
    let client = Client::new(&arguments.client)?;
    match &arguments.command {
        RolloutCommand::Start { release, plan } => start(&client, release, plan),
        RolloutCommand::Plan { release: Some(release), plan, dry_run: true } => {
            plans::dry_run(&client, release, plan)
        }
        RolloutCommand::Plan { plan, .. } => plans::show(plan),
        RolloutCommand::Status { rollout: Some(id), watch } => {
            if *watch {
                follow(&client, *id, as_json)?;
            }
            let json: Value = client.get(&format!("/api/v1/rollouts/{id}"))?;
            Ok(Report { text: show(&parse(&json)?), json })
        }
        RolloutCommand::Status { rollout: None, .. } => {
            let json: Value = client.get("/api/v1/rollouts")?;
            let rollouts: Vec<Rollout> = part(&json, "rollouts")?;
            Ok(Report { text: list(&rollouts), json })
        }
        RolloutCommand::Pause(order) => orders::send(&client, "pause", order, json!({})),
        RolloutCommand::Resume(order) => orders::send(&client, "resume", order, json!({})),
        RolloutCommand::Abort(order) => orders::send(&client, "abort", order, json!({})),
        RolloutCommand::Promote(order) => orders::send(&client, "promote", order, json!({})),
        RolloutCommand::Rollback(order) => orders::roll_back(&client, order),
        RolloutCommand::SkipGate(order) => orders::skip_gate(&client, order),
        RolloutCommand::Drill(order) => orders::drill(&client, order),
        RolloutCommand::Emergency(order) => orders::emergency(&client, order),
    }
}

fn start(client: &Client, release: &str, plan: &PlanArgs) -> Result<Report, Failure> {
    let json: Value = client.post("/api/v1/rollouts", &plan.wanted(release)?)?;
    let rollout = parse(&json)?;
    let shares: Vec<_> = rollout.stages.iter().map(|stage| stage.share.as_str()).collect();
    let text = format!(
        "rollout {} of {} to {} devices has started: {}",
        rollout.id,
        rollout.release,
        rollout.devices.known,
        shares.join(" → ")
    );
    Ok(Report { text, json })
}

/// Prints what happens in a rollout until it is finished.
fn follow(client: &Client, id: u64, as_json: bool) -> Result<(), Failure> {
    // The stream first: what happens between the two is in it.
    let stream = BufReader::new(client.stream()?);
    let is_finished = || -> Result<bool, Failure> {
        let json: Value = client.get(&format!("/api/v1/rollouts/{id}"))?;
        Ok(parse(&json)?.finished)
    };
    if is_finished()? {
        return Ok(());
    }
    let mut name = String::new();
    for line in stream.lines() {
        let line = line.map_err(|error| Failure::new(format!("the server ended the stream: {error}")))?;
        if let Some(event) = line.strip_prefix("event:") {
            event.trim().clone_into(&mut name);
        } else if let Some(data) = line.strip_prefix("data:") {
            let data: Value = serde_json::from_str(data).map_err(Failure::new)?;
            if data.get("rollout").and_then(Value::as_u64) == Some(id) {
                say(&name, &data, as_json);
            }
            // "missed" too: what was missed may have been the end.
            if matches!(name.as_str(), "rollout" | "missed") && is_finished()? {
                return Ok(());
            }
        }
    }
    Err(Failure::new("the server ended the stream"))
}

fn say(name: &str, data: &Value, as_json: bool) {
    if as_json {
        return failure::print(&json!({ "event": name, "data": data }).to_string());
    }
    let word = |pointer: &str| plain(data.pointer(pointer).and_then(Value::as_str).unwrap_or_default());
    let line = match name {
        "event" => format!("{}  {}", word("/device"), word("/text")),
        "rollout" => {
            let stage = data.get("stage").and_then(Value::as_u64).unwrap_or(0) + 1;
            format!("rollout is {} (stage {stage})", word("/state"))
        }
        "verdict" => format!("{}: {}", word("/verdict/decision"), word("/verdict/sentence")),
        _ => return,
    };
    failure::print(&line);
}

pub(super) fn parse(json: &Value) -> Result<Rollout, Failure> {
    serde_json::from_value(json.clone())
        .map_err(|error| Failure::new(format!("the server's answer makes no sense: {error}")))
}

fn list(rollouts: &[Rollout]) -> String {
    if rollouts.is_empty() {
        return "no rollout yet: start one with `serin-fleet rollout start --release MODEL@VERSION`".into();
    }
    let row = |rollout: &Rollout| {
        vec![
            rollout.id.to_string(),
            rollout.release.clone(),
            rollout.state.clone(),
            format!("{}/{}", rollout.stage + 1, rollout.stages.len()),
            format!("{}/{}", rollout.devices.running, rollout.devices.known),
            rollout.devices.failed.to_string(),
            ago(rollout.started),
        ]
    };
    let rows: Vec<_> = rollouts.iter().map(row).collect();
    table(&["ROLLOUT", "RELEASE", "STATE", "STAGE", "RUNNING", "FAILED", "STARTED"], &rows)
}

fn show(rollout: &Rollout) -> String {
    let why = rollout.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let share = rollout.stages.get(rollout.stage).map_or("", |stage| stage.share.as_str());
    let heading = format!("rollout {} of {} is {}{why}", rollout.id, rollout.release, rollout.state);
    let standing = format!(
        "stage {} of {} ({share}), {} of {} devices run it, {} failed, started {}",
        rollout.stage + 1,
        rollout.stages.len(),
        rollout.devices.running,
        rollout.devices.known,
        rollout.devices.failed,
        ago(rollout.started)
    );
    let mut parts = vec![format!("{}\n{}", plain(&heading), plain(&standing))];
    if let Some(missing) = rollout.missing.as_ref().filter(|_| !rollout.finished) {
        parts.push(format!("waiting for: {}", plain(missing)));
    }
    let verdicts: Vec<_> = rollout
        .verdicts
        .iter()
        .map(|verdict| {
            format!(
                "{:<11}  stage {}  {}: {}",
                ago(verdict.at),
                verdict.stage + 1,
                verdict.decision,
                plain(&verdict.sentence)
            )
        })
        .collect();
    if !verdicts.is_empty() {
        parts.push(verdicts.join("\n"));
    }
    if !rollout.arms.is_empty() {
        let row = |arm: &Arm| {
            let control = if arm.control { "control" } else { "" };
            vec![
                arm.device.clone(),
                control.into(),
                arm.standing.clone(),
                arm.detail.clone().unwrap_or_default(),
            ]
        };
        let rows: Vec<_> = rollout.arms.iter().map(row).collect();
        parts.push(table(&["DEVICE", "", "STANDING", ""], &rows));
    }
    parts.join("\n\n")
}
