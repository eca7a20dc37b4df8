//! What operators order about a rollout.

use clap::Args;
use serde_json::{Map, Value, json};

use super::client::Client;
use super::rollout::parse;
use super::table::plain;
use super::{Failure, Report};

#[derive(Args)]
pub(super) struct OrderArgs {
    /// The rollout's number.
    rollout: u64,
    /// Why, for the record.
    #[arg(long, default_value = "")]
    reason: String,
    /// The version of the rollout that this was decided on; refused if it has changed since.
    #[arg(long)]
    expect_version: Option<u64>,
}

/// An order that must say why.
#[derive(Args)]
pub(super) struct ReasonArgs {
    /// The rollout's number.
    rollout: u64,
    /// Why, for the record.
    #[arg(long)]
    reason: String,
    /// The version of the rollout that this was decided on; refused if it has changed since.
    #[arg(long)]
    expect_version: Option<u64>,
}

#[derive(Args)]
pub(super) struct GateArgs {
    #[command(flatten)]
    order: ReasonArgs,
    /// Which: `error_rate`, latency, predictions, confidence, inputs, crashes, reporting, shadow, metric or reward.
    #[arg(long)]
    gate: String,
}

#[derive(Args)]
pub(super) struct DrillArgs {
    #[command(flatten)]
    order: OrderArgs,
    /// How many devices, at most 100.
    #[arg(long, default_value_t = 3)]
    devices: u32,
}

#[derive(Args)]
pub(super) struct RollBackArgs {
    #[command(flatten)]
    order: OrderArgs,
    /// To this release, as MODEL@VERSION [default: to what each device ran before].
    #[arg(long, value_name = "RELEASE", conflicts_with_all = ["device", "tag", "target"])]
    to: Option<String>,
    /// Whatever the plan's rate for rollbacks says.
    #[arg(long)]
    at_once: bool,
    /// From this device only; may be said several times. The rollout goes on without it.
    #[arg(long)]
    device: Vec<String>,
    /// From devices with this tag only.
    #[arg(long, value_name = "NAME=VALUE")]
    tag: Vec<String>,
    /// From devices of this target class only; may be said several times.
    #[arg(long)]
    target: Vec<String>,
}

pub(super) fn roll_back(client: &Client, arguments: &RollBackArgs) -> Result<Report, Failure> {
    let RollBackArgs { order, to, at_once, device, tag, target } = arguments;
    let mut tags = Map::new();
    for tag in tag {
        let (name, value) = tag
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("`{tag}` is no tag: write NAME=VALUE")))?;
        tags.insert(name.to_owned(), json!(value));
    }
    let some = !(device.is_empty() && tags.is_empty() && target.is_empty());
    let who = some.then(|| json!({ "devices": device, "tags": tags, "targets": target }));
    send(client, "rollback", order, json!({ "to": to, "at_once": at_once, "who": who }))
}

pub(super) fn skip_gate(client: &Client, arguments: &GateArgs) -> Result<Report, Failure> {
    send(client, "skip-gate", &arguments.order.plain(), json!({ "gate": arguments.gate }))
}

pub(super) fn drill(client: &Client, arguments: &DrillArgs) -> Result<Report, Failure> {
    send(client, "drill", &arguments.order, json!({ "devices": arguments.devices }))
}

pub(super) fn emergency(client: &Client, arguments: &ReasonArgs) -> Result<Report, Failure> {
    send(client, "emergency", &arguments.plain(), json!({}))
}

impl ReasonArgs {
    fn plain(&self) -> OrderArgs {
        OrderArgs { rollout: self.rollout, reason: self.reason.clone(), expect_version: self.expect_version }
    }
}

/// Sends an order with what is particular to it.
pub(super) fn send(
    client: &Client,
    command: &str,
    order: &OrderArgs,
    mut body: Value,
) -> Result<Report, Failure> {
    if let Some(body) = body.as_object_mut() {
        body.insert("reason".into(), json!(order.reason));
        body.insert("by".into(), json!(std::env::var("USER").unwrap_or_default()));
        body.insert("version".into(), json!(order.expect_version));
    }
    let json: Value = client.post(&format!("/api/v1/rollouts/{}/{command}", order.rollout), &body)?;
    let rollout = parse(&json)?;
    Ok(Report { text: format!("rollout {} is {}", rollout.id, plain(&rollout.state)), json })
}
