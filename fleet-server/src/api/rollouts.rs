//! Rollouts, and an operator's word about them.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serin_protocol::ids::{ReleaseId, RolloutId};

use super::failure::Failure;
use super::{Context, blocking};
use crate::rollout::Rollout;
use crate::rollout::cohort::Salt;
use crate::rollout::notation::span;
use crate::rollout::plan::{OnBreach, Plan, Preset};
use crate::rollout::state::{DeviceRecord, Failure as DeviceFailure, Standing, State as RolloutState};
use crate::rollout::verdict::{GateResult, GateVerdict, Verdict};
use crate::serve::now;

#[derive(Serialize)]
pub(super) struct Rollouts {
    rollouts: Vec<RolloutView>,
}

/// A rollout, as others see it.
#[derive(Serialize)]
pub(super) struct RolloutView {
    id: u64,
    release: String,
    baselines: Vec<String>,
    /// In a word or two.
    state: String,
    /// Why it is in that state, where that needs saying.
    why: Option<String>,
    finished: bool,
    /// To be sent back with orders.
    version: u64,
    /// Index of the stage, from 0.
    stage: usize,
    stages: Vec<StageView>,
    /// Decides who is early.
    salt: String,
    /// It goes to everybody at once, by an operator's word.
    emergency: bool,
    started: u64,
    /// When the stage began.
    entered: u64,
    /// When its time is over.
    timeout_at: u64,
    /// What the last look missed for the next stage.
    missing: Option<String>,
    devices: Counts,
    last_verdict: Option<VerdictView>,
}

#[derive(Serialize)]
struct StageView {
    share: String,
    bake: String,
    approval: bool,
}

/// How many devices stand where.
#[derive(Serialize)]
struct Counts {
    known: u32,
    waiting: u32,
    pinned: u32,
    exposed: u32,
    installing: u32,
    running: u32,
    left: u32,
    failed: u32,
    unreachable: u32,
    skipped: u32,
    returning: u32,
    returned: u32,
    not_returned: u32,
    shadowing: u32,
    drilling: u32,
}

#[derive(Serialize)]
pub(super) struct RolloutDetail {
    #[serde(flatten)]
    rollout: RolloutView,
    plan: Plan,
    arms: Vec<ArmView>,
    verdicts: Vec<VerdictView>,
}

/// A device within a rollout.
#[derive(Serialize)]
struct ArmView {
    device: String,
    control: bool,
    online: bool,
    standing: &'static str,
    /// More about it, for people.
    detail: Option<String>,
}

/// What was decided, with the numbers that decided it.
#[derive(Serialize)]
pub(super) struct VerdictView {
    at: u64,
    stage: usize,
    decision: String,
    sentence: String,
    canary_devices: Option<u32>,
    control_devices: Option<u32>,
    /// What is to be said of arms that are too small for any test.
    small: Option<String>,
    gates: Vec<GateView>,
}

#[derive(Serialize)]
struct GateView {
    name: String,
    verdict: &'static str,
    on_breach: &'static str,
    canary: Option<f64>,
    control: Option<f64>,
    threshold: f64,
    p_value: Option<f64>,
    sentence: String,
}

impl From<&Rollout> for RolloutView {
    fn from(rollout: &Rollout) -> Self {
        let tally = rollout.fleet().tally();
        let why = match rollout.state() {
            RolloutState::Running | RolloutState::Finished { .. } => None,
            RolloutState::Paused { by, .. } => Some(format!("by {by}")),
            RolloutState::Holding { why, .. }
            | RolloutState::AwaitingOperator { why, .. }
            | RolloutState::RollingBack { why, .. } => Some(why.clone()),
        };
        let stage = |stage: &crate::rollout::plan::Stage| StageView {
            share: stage.share.to_string(),
            bake: span::text(stage.bake),
            approval: stage.approval,
        };
        Self {
            id: rollout.id().0,
            release: rollout.release().id.to_string(),
            baselines: rollout.baselines().iter().map(|baseline| baseline.id.to_string()).collect(),
            state: rollout.state().to_string(),
            why,
            finished: rollout.state().is_finished(),
            version: rollout.version().0,
            stage: rollout.stage().index,
            stages: rollout.stages().iter().map(stage).collect(),
            salt: format!("{:016x}", rollout.salt().0),
            emergency: rollout.is_emergency(),
            started: rollout.started().0,
            entered: rollout.stage().entered.0,
            timeout_at: rollout.stage().timeout_at.0,
            missing: rollout.stage().missing.clone(),
            devices: Counts {
                known: tally.known,
                waiting: tally.waiting,
                pinned: tally.pinned,
                exposed: tally.exposed,
                installing: tally.installing,
                running: tally.running,
                left: tally.left,
                failed: tally.failed,
                unreachable: tally.unreachable,
                skipped: tally.skipped,
                returning: tally.returning,
                returned: tally.returned,
                not_returned: tally.not_returned,
                shadowing: tally.shadowing,
                drilling: tally.drilling,
            },
            last_verdict: rollout.latest_verdict().map(VerdictView::from),
        }
    }
}

impl ArmView {
    fn of(device: &impl ToString, record: &DeviceRecord) -> Self {
        let (standing, detail) = match &record.standing {
            Standing::Waiting if record.pinned => ("pinned", None),
            Standing::Waiting => ("waiting", None),
            Standing::Shadowing { .. } => ("in the shadow", None),
            Standing::Drilling { .. } => ("practising the way back", None),
            Standing::Installing { phase, .. } => ("installing", Some(phase.to_string())),
            Standing::Running { .. } => ("running", None),
            Standing::Left { .. } => ("left", None),
            Standing::Failed { failure, .. } => ("failed", Some(in_words(failure))),
            Standing::Unreachable { .. } => ("unreachable", None),
            Standing::Skipped { reason } => ("skipped", Some(reason.to_string())),
            Standing::Returning { .. } => ("returning", None),
            Standing::Returned { took, .. } => {
                ("returned", took.map(|took| format!("{} after it was told", span::text(took))))
            }
            Standing::NotReturned { .. } => ("not returned", None),
        };
        let online = record.presence == serin_protocol::message::Presence::Online;
        Self { device: device.to_string(), control: record.control, online, standing, detail }
    }
}

fn in_words(failure: &DeviceFailure) -> String {
    let because = |reason: &Option<serin_protocol::message::Reason>| {
        reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
    };
    match failure {
        DeviceFailure::Rejected(reason) => format!("rejected it{}", because(reason)),
        DeviceFailure::RolledBack(reason) => format!("took it back{}", because(reason)),
        DeviceFailure::TimedOut { phase } => format!("not done in time, last seen {phase}"),
        DeviceFailure::GaveUp { attempts } => format!("lost it again after {attempts} attempts"),
    }
}

impl From<&Verdict> for VerdictView {
    fn from(verdict: &Verdict) -> Self {
        let judgement = verdict.judgement.as_ref();
        Self {
            at: verdict.at.0,
            stage: verdict.stage,
            decision: verdict.decision.to_string(),
            sentence: verdict.sentence.clone(),
            canary_devices: judgement.map(|judgement| judgement.canary_devices),
            control_devices: judgement.map(|judgement| judgement.control_devices),
            small: judgement.and_then(|judgement| judgement.small.clone()),
            gates: judgement.iter().flat_map(|judgement| &judgement.gates).map(GateView::from).collect(),
        }
    }
}

impl From<&GateResult> for GateView {
    fn from(gate: &GateResult) -> Self {
        Self {
            name: gate.name.to_string(),
            verdict: match gate.verdict {
                GateVerdict::Pass => "pass",
                GateVerdict::Breach => "breach",
                GateVerdict::Insufficient => "insufficient",
                GateVerdict::NotCompared => "not compared",
            },
            on_breach: match gate.on_breach {
                OnBreach::RollBack => "roll back",
                OnBreach::Hold => "hold",
            },
            canary: gate.canary,
            control: gate.control,
            threshold: gate.threshold,
            p_value: gate.p_value,
            sentence: gate.sentence.clone(),
        }
    }
}

pub(super) async fn list(State(context): State<Context>) -> Json<Rollouts> {
    Json(Rollouts { rollouts: context.fleet.rollouts(|rollout| RolloutView::from(rollout)) })
}

pub(super) async fn one(
    State(context): State<Context>,
    Path(id): Path<u64>,
) -> Result<Json<RolloutDetail>, Failure> {
    let detail = blocking(move || {
        context.fleet.rollout_with_verdicts(RolloutId(id), |rollout, verdicts| RolloutDetail {
            rollout: RolloutView::from(rollout),
            plan: rollout.plan().clone(),
            arms: rollout.fleet().iter().map(|(device, record)| ArmView::of(device, record)).collect(),
            verdicts: verdicts.iter().map(VerdictView::from).collect(),
        })
    });
    Ok(Json(detail.await?))
}

/// What to roll out, and how.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewRollout {
    release: String,
    #[serde(default)]
    plan: Option<Plan>,
    /// Instead of a plan: small, medium or large.
    #[serde(default)]
    preset: Option<String>,
    /// As a preview showed it, so that the same devices are early.
    #[serde(default)]
    salt: Option<String>,
}

/// The same, parsed.
pub(super) struct Wanted {
    pub(super) release: ReleaseId,
    pub(super) plan: Option<Plan>,
    pub(super) salt: Option<Salt>,
}

impl Wanted {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Failure> {
        let wanted: NewRollout =
            serde_json::from_slice(body).map_err(|error| Failure::bad_request(&error))?;
        let release = wanted.release.parse().map_err(|error| Failure::bad_request(&error))?;
        let preset = wanted.preset.map(|preset| preset.parse::<Preset>()).transpose();
        let preset = preset.map_err(|error| Failure::bad_request(&error))?;
        let salt = wanted.salt.map(|salt| u64::from_str_radix(&salt, 16)).transpose();
        let salt = salt.map_err(|_| Failure::bad_request(&"a salt is 16 hexadecimal digits"))?;
        let plan = wanted.plan.or(preset.map(Preset::plan));
        Ok(Self { release, plan, salt: salt.map(Salt) })
    }
}

pub(super) async fn start(
    State(context): State<Context>,
    body: Bytes,
) -> Result<(StatusCode, Json<RolloutView>), Failure> {
    let Wanted { release, plan, salt } = Wanted::parse(&body)?;
    let fleet = Arc::clone(&context.fleet);
    let id = blocking(move || fleet.start_rollout(&release, plan, salt, now())).await?;
    let view = context.fleet.rollout(id, |rollout| RolloutView::from(rollout))?;
    Ok((StatusCode::CREATED, Json(view)))
}
