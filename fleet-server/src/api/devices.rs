//! Devices.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serin_protocol::ids::{DeviceId, Millis, UnixMillis};
use serin_protocol::message::{Event, EventKind, Presence, Start, Wait};
use serin_protocol::pause::MAX_PAUSE;
use serin_protocol::trust::UtcSeconds;

use super::failure::Failure;
use super::{Context, blocking};
use crate::rollout::plan::selector::Tags;
use crate::serve::now;
use crate::store::DeviceRecord;

#[derive(Serialize)]
pub(super) struct Devices {
    devices: Vec<DeviceView>,
}

/// A device, as others see it.
#[derive(Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "as JSON has it")]
pub(super) struct DeviceView {
    id: String,
    online: bool,
    target: String,
    agent: String,
    active: Option<String>,
    previous: Option<String>,
    candidate: Option<String>,
    pinned: bool,
    /// No release runs there, after a crash loop.
    safe_mode: bool,
    /// It was asked to hold back until then.
    paused_until: Option<u64>,
    revoked: bool,
    /// What operators noted about it.
    tags: Tags,
    /// The last movement of its update machine.
    last_move: Option<MoveView>,
    first_seen: u64,
    last_seen: u64,
    last_event: u64,
    memory_budget: u64,
    free_space: u64,
    key: String,
}

#[derive(Serialize)]
struct MoveView {
    at: u64,
    release: String,
    phase: String,
    reason: Option<String>,
}

#[derive(Serialize)]
pub(super) struct DeviceDetail {
    #[serde(flatten)]
    device: DeviceView,
    events: Vec<EventView>,
}

/// Something that happened on a device.
#[derive(Serialize)]
pub(super) struct EventView {
    device: String,
    number: u64,
    at: u64,
    rollout: Option<u64>,
    /// Which kind.
    kind: &'static str,
    /// The release in question.
    release: Option<String>,
    /// The phase entered, of a transition.
    phase: Option<String>,
    /// For people.
    text: String,
}

impl From<&DeviceRecord> for DeviceView {
    fn from(record: &DeviceRecord) -> Self {
        let hello = &record.hello;
        let name = |release: &Option<_>| release.as_ref().map(ToString::to_string);
        Self {
            id: hello.device.to_string(),
            online: hello.presence == Presence::Online,
            target: hello.target.to_string(),
            agent: hello.agent.to_string(),
            active: name(&hello.active),
            previous: name(&hello.previous),
            candidate: name(&hello.candidate),
            pinned: hello.pinned,
            safe_mode: record.safe_mode,
            tags: record.tags.clone(),
            paused_until: record.paused_until.filter(|until| now() < *until).map(|until| until.0),
            revoked: record.revoked.is_some(),
            last_move: record.last_move.as_ref().map(|last| MoveView {
                at: last.at.0,
                release: last.release.to_string(),
                phase: last.to.to_string(),
                reason: last.reason.as_ref().map(ToString::to_string),
            }),
            first_seen: record.first_seen.0,
            last_seen: record.last_seen.0,
            last_event: record.last_event.0,
            memory_budget: hello.memory_budget.0,
            free_space: hello.free_space.0,
            key: record.key.to_string(),
        }
    }
}

impl From<&Event> for EventView {
    fn from(event: &Event) -> Self {
        let (kind, release, phase, text) = in_words(&event.kind);
        Self {
            device: event.device.to_string(),
            number: event.number.0,
            at: event.at.0,
            rollout: event.rollout.map(|rollout| rollout.0),
            kind,
            release,
            phase,
            text,
        }
    }
}

type Words = (&'static str, Option<String>, Option<String>, String);

fn in_words(kind: &EventKind) -> Words {
    match kind {
        EventKind::Transition { release, from, to, reason } => {
            let why = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let text = format!("{release}: {from} → {to}{why}");
            ("transition", Some(release.to_string()), Some(to.to_string()), text)
        }
        EventKind::Plan { release, fetch, here } => {
            let text = format!("{release}: {fetch} bytes to fetch, {here} are here");
            ("plan", Some(release.to_string()), None, text)
        }
        EventKind::Planned { release, transfer, fetch, here, start } => {
            let when = match start {
                Start::Now => "now".into(),
                Start::Later { why, until } => later(why, *until),
            };
            let text =
                format!("{release}: {transfer}, {fetch} bytes to fetch, {here} are here; begins {when}");
            ("plan", Some(release.to_string()), None, text)
        }
        EventKind::Waiting { release, why, until } => {
            let text = format!("{release}: to be installed {}", later(why, *until));
            ("waiting", Some(release.to_string()), None, text)
        }
        EventKind::ChunksMissing { object, first, count } => {
            let text = format!("{count} chunks of {object} from {first} on are not at the broker");
            ("chunks_missing", None, None, text)
        }
        EventKind::FieldRollback { uid, from, to } => {
            let text = format!("a field engineer (user {uid}) went back from {from} to {to}");
            ("field_rollback", Some(to.to_string()), None, text)
        }
        EventKind::Pinned { uid, release } => {
            let text = format!("a field engineer (user {uid}) pinned {release}");
            ("pinned", Some(release.to_string()), None, text)
        }
        EventKind::Unpinned { uid } => {
            ("unpinned", None, None, format!("a field engineer (user {uid}) gave it back to the fleet"))
        }
        EventKind::Held { uid, until } => {
            let until = utc(*until);
            let text = format!("a field engineer (user {uid}) lets nothing change until {until}");
            ("held", None, None, text)
        }
        EventKind::WorkerDied { release, death } => {
            ("worker_died", Some(release.to_string()), None, format!("a worker of {release} died: {death}"))
        }
        EventKind::Refused { kind, detail } => {
            ("refused", None, None, format!("refused a message ({kind:?}): {detail}"))
        }
        EventKind::Sideloaded { uid, release } => {
            let text = format!("a field engineer (user {uid}) brought {release} and pins it");
            ("sideloaded", Some(release.to_string()), None, text)
        }
        EventKind::Enrolled { uid } => {
            ("enrolled", None, None, format!("a field engineer (user {uid}) enrolled it"))
        }
        EventKind::JournalLost { detail } => {
            ("journal_lost", None, None, format!("its journal was unreadable and begun anew: {detail}"))
        }
        EventKind::CrashLoop { starts, action } => {
            let text = format!("its agent was started {starts} times in a short time: {action}");
            ("crash_loop", None, None, text)
        }
        EventKind::EventsLost { count } => {
            ("events_lost", None, None, format!("{count} of its events could not be kept"))
        }
        EventKind::ReportsDropped { count } => {
            ("reports_dropped", None, None, format!("it dropped {count} reports for space, the oldest first"))
        }
    }
}

fn later(why: &Wait, until: Option<UnixMillis>) -> String {
    match until {
        Some(until) => format!("not before {}: {why}", utc(until)),
        None => format!("later: {why}"),
    }
}

fn utc(at: UnixMillis) -> UtcSeconds {
    UtcSeconds(i64::try_from(at.0 / 1000).unwrap_or(i64::MAX))
}

pub(super) async fn list(State(context): State<Context>) -> Json<Devices> {
    Json(Devices { devices: context.fleet.devices().iter().map(DeviceView::from).collect() })
}

pub(super) async fn one(
    State(context): State<Context>,
    Path(id): Path<String>,
) -> Result<Json<DeviceDetail>, Failure> {
    let id: DeviceId = id.parse().map_err(|error| Failure::bad_request(&error))?;
    let (record, events) = blocking(move || context.fleet.device(&id)).await?;
    Ok(Json(DeviceDetail {
        device: DeviceView::from(&record),
        events: events.iter().map(EventView::from).collect(),
    }))
}

pub(super) async fn revoke(
    State(context): State<Context>,
    Path(id): Path<String>,
) -> Result<Json<DeviceView>, Failure> {
    let id: DeviceId = id.parse().map_err(|error| Failure::bad_request(&error))?;
    let revoked = blocking(move || {
        context.fleet.revoke_device(&id, now())?;
        context.fleet.device(&id)
    });
    Ok(Json(DeviceView::from(&revoked.await?.0)))
}

pub(super) async fn tag(
    State(context): State<Context>,
    Path(id): Path<String>,
    Json(changes): Json<BTreeMap<String, Option<String>>>,
) -> Result<Json<DeviceView>, Failure> {
    let id: DeviceId = id.parse().map_err(|error| Failure::bad_request(&error))?;
    let changes: Vec<_> = changes.into_iter().collect();
    let record = blocking(move || context.fleet.tag_device(&id, &changes, now())).await?;
    Ok(Json(DeviceView::from(&record)))
}

/// For how long a device is to hold back.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PauseOrder {
    /// At most 24 hours.
    seconds: u64,
}

pub(super) async fn pause(
    State(context): State<Context>,
    Path(id): Path<String>,
    Json(order): Json<PauseOrder>,
) -> Result<Json<DeviceView>, Failure> {
    let id: DeviceId = id.parse().map_err(|error| Failure::bad_request(&error))?;
    let span = Millis::from_secs(order.seconds);
    if span > MAX_PAUSE {
        return Err(Failure::bad_request(&"a pause is at most 24 hours; pause again when it is over"));
    }
    let record = blocking(move || context.fleet.pause_device(&id, span, now())).await?;
    Ok(Json(DeviceView::from(&record)))
}

pub(super) async fn resume(
    State(context): State<Context>,
    Path(id): Path<String>,
) -> Result<Json<DeviceView>, Failure> {
    let id: DeviceId = id.parse().map_err(|error| Failure::bad_request(&error))?;
    let record = blocking(move || context.fleet.pause_device(&id, Millis(0), now())).await?;
    Ok(Json(DeviceView::from(&record)))
}

pub(super) async fn forget(
    State(context): State<Context>,
    Path(id): Path<String>,
) -> Result<StatusCode, Failure> {
    let id: DeviceId = id.parse().map_err(|error| Failure::bad_request(&error))?;
    blocking(move || context.fleet.forget_device(&id, now())).await?;
    Ok(StatusCode::NO_CONTENT)
}
