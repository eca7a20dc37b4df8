//! An operator's word about a rollout.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::Deserialize;
use serin_protocol::ids::{ReleaseId, RolloutId};

use super::failure::Failure;
use super::rollouts::RolloutView;
use super::{Context, blocking};
use crate::rollout::event::{Command, OperatorOrder};
use crate::rollout::plan::Selector;
use crate::rollout::state::StateVersion;
use crate::rollout::verdict::GateName;
use crate::serve::now;

/// Devices of a drill where none are named.
const DRILL_DEVICES: u32 = 3;

/// What is ordered in particular. Everything in it may be left out.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Order {
    /// Why, for the record.
    reason: String,
    /// Who.
    by: String,
    /// The version of the rollout that this was decided on.
    version: Option<u64>,
    /// Of skip-gate: which.
    gate: Option<GateName>,
    /// Of drill: how many.
    devices: Option<u32>,
    /// Of rollback: from these devices only.
    who: Option<Selector>,
    /// Of rollback: to this release.
    to: Option<String>,
    /// Of rollback: whatever the plan's rate says.
    at_once: bool,
}

pub(super) async fn order(
    State(context): State<Context>,
    Path((id, command)): Path<(u64, String)>,
    body: Bytes,
) -> Result<Json<RolloutView>, Failure> {
    let order: Order = match body.as_ref() {
        [] => Order::default(),
        bytes => serde_json::from_slice(bytes).map_err(|error| Failure::bad_request(&error))?,
    };
    let reason = order.reason;
    let command = match command.as_str() {
        "pause" => Command::Pause,
        "resume" => Command::Resume,
        "abort" => Command::Abort { reason },
        "rollback" => {
            let to: Option<ReleaseId> =
                order.to.map(|to| to.parse()).transpose().map_err(|error| Failure::bad_request(&error))?;
            let to = to.map(|to| context.fleet.reference(&to)).transpose()?;
            Command::RollBack { reason, who: order.who.map(Box::new), to, at_once: order.at_once }
        }
        "promote" => Command::Promote { reason },
        "skip-gate" => {
            let gate = order.gate.ok_or_else(|| Failure::bad_request(&"say which `gate`"))?;
            Command::SkipGate { gate, reason }
        }
        "drill" => Command::Drill { devices: order.devices.unwrap_or(DRILL_DEVICES), reason },
        "emergency" => Command::Emergency { reason },
        _ => {
            let words = "an order is pause, resume, abort, rollback, promote, skip-gate, drill or emergency";
            return Err(Failure::not_found(words));
        }
    };
    let by = if order.by.is_empty() { "operator".to_owned() } else { order.by };
    let order = OperatorOrder { expected: order.version.map(StateVersion), by, command };
    let fleet = Arc::clone(&context.fleet);
    blocking(move || fleet.order(RolloutId(id), order, now())).await?;
    Ok(Json(context.fleet.rollout(RolloutId(id), |rollout| RolloutView::from(rollout))?))
}
