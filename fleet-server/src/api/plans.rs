//! What a plan would do, before anything moves.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde::Serialize;

use super::failure::Failure;
use super::rollouts::Wanted;
use super::{Context, blocking};
use crate::rollout::plan::Plan;
use crate::serve::now;

#[derive(Serialize)]
pub(super) struct PreviewView {
    release: String,
    /// Send it along when starting, so that the same devices are early.
    salt: String,
    plan: Plan,
    stages: Vec<StagePreviewView>,
    /// Compared with until the last stage, at least.
    control: Vec<String>,
    pinned: u32,
    /// Devices that the plan does not mean.
    not_meant: usize,
}

#[derive(Serialize)]
struct StagePreviewView {
    share: String,
    purpose: &'static str,
    approval: bool,
    devices: Vec<ToldView>,
    /// When it can be over at the earliest.
    over: u64,
    /// Not all of its devices can be told before its time is over.
    too_slow: bool,
}

#[derive(Serialize)]
struct ToldView {
    device: String,
    /// When it is told at the earliest.
    at: u64,
}

pub(super) async fn preview(
    State(context): State<Context>,
    body: Bytes,
) -> Result<Json<PreviewView>, Failure> {
    let Wanted { release, plan, salt } = Wanted::parse(&body)?;
    let (fleet, id) = (Arc::clone(&context.fleet), release.clone());
    let (plan, salt, preview) = blocking(move || fleet.preview_rollout(&id, plan, salt, now())).await?;
    let stages = preview.stages.into_iter().map(|stage| StagePreviewView {
        share: stage.share.to_string(),
        purpose: stage.purpose,
        approval: stage.approval,
        devices: stage
            .told
            .into_iter()
            .map(|(device, at)| ToldView { device: device.to_string(), at: at.0 })
            .collect(),
        over: stage.over.0,
        too_slow: stage.too_slow,
    });
    Ok(Json(PreviewView {
        release: release.to_string(),
        salt: format!("{:016x}", salt.0),
        plan,
        stages: stages.collect(),
        control: preview.control.iter().map(ToString::to_string).collect(),
        pinned: preview.pinned,
        not_meant: preview.not_meant,
    }))
}
