//! What happens, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures::{Stream, StreamExt as _};
use serde::Serialize;
use serde_json::{Value, json};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use super::Context;
use super::devices::{DeviceView, EventView};
use super::failure::Failure;
use super::rollouts::VerdictView;
use crate::alert::webhook;
use crate::fleet::feed::Happening;
use crate::trigger::view;

/// Comments between events, so that proxies keep a quiet stream open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) async fn watch(
    State(context): State<Context>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    let Ok(permit) = context.watchers.clone().try_acquire_owned() else {
        return Err(Failure::new(StatusCode::TOO_MANY_REQUESTS, "busy", "too many are watching already"));
    };
    let happenings = BroadcastStream::new(context.fleet.watch());
    let mut stopped = context.stopped.clone();
    let events = happenings
        .map(move |happening| {
            // Held as long as the stream lives.
            let _held = &permit;
            Ok(match happening {
                Ok(happening) => event(&happening),
                Err(BroadcastStreamRecvError::Lagged(count)) => named("missed", &json!({ "count": count })),
            })
        })
        // An open stream must not keep a stopping server.
        .take_until(async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
        });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn event(happening: &Happening) -> Event {
    match happening {
        Happening::Device(record) => named("device", &DeviceView::from(&**record)),
        Happening::Event(event) => named("event", &EventView::from(&**event)),
        Happening::Release { release, published } => {
            named("release", &json!({ "release": release.to_string(), "published": published }))
        }
        Happening::Rollout { rollout, version, state, stage } => {
            let view = json!({
                "rollout": rollout.0, "version": version.0, "state": state.to_string(), "stage": stage,
            });
            named("rollout", &view)
        }
        Happening::Verdict { rollout, verdict } => {
            let view = VerdictView::from(&**verdict);
            named("verdict", &json!({ "rollout": rollout.0, "verdict": view }))
        }
        Happening::Alert(note) => named("alert", &webhook::note(note)),
        Happening::Trigger(trigger) => named("trigger", &view::trigger(trigger)),
        Happening::Refused { device, why } => {
            named("refused", &json!({ "device": device.to_string(), "why": why }))
        }
    }
}

fn named(name: &str, data: &impl Serialize) -> Event {
    let data = serde_json::to_value(data).unwrap_or(Value::Null);
    // A value made of names and numbers always fits on a line.
    Event::default().event(name).data(data.to_string())
}
