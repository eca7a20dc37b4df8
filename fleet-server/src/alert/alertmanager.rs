//! Alerts as Alertmanager's API v2 takes them: labels say which alert it is, annotations what it is about. One that
//! rings is given an end, which later messages put off; so it ends by itself when this server is no more.

use serde_json::{Map, Value, json};
use serin_protocol::ids::{FleetId, Millis, UnixMillis};

use super::note::Alert;
use crate::rollout::notation::instant;

/// How often an alert that rings is said again.
pub const RESEND: Millis = Millis::from_secs(60);

/// How long one message keeps an alert ringing: four may be lost.
pub const LASTS: Millis = Millis::from_secs(5 * 60);

/// The body of `POST /api/v2/alerts`, as of `now`.
pub fn body(alerts: &[Alert], fleet: &FleetId, now: UnixMillis) -> Value {
    alerts.iter().map(|alert| one(alert, fleet, now)).collect()
}

fn one(alert: &Alert, fleet: &FleetId, now: UnixMillis) -> Value {
    let mut labels = Map::new();
    let mut label = |name: &str, value: &str| labels.insert(name.to_owned(), value.into());
    label("alertname", alert.rule.as_str());
    label("severity", alert.severity.as_str());
    label("kind", alert.kind.as_str());
    label("fleet", fleet.as_str());
    label("owner", alert.group.owner.as_str());
    if let Some(release) = alert.group.release() {
        label("release", &release.to_string());
    }
    if let Some(segment) = alert.group.segment() {
        label("segment", segment);
    }
    let mut annotations = Map::new();
    annotations.insert("summary".into(), alert.summary().into());
    if let Some(contact) = &alert.contact {
        annotations.insert("contact".into(), contact.as_str().into());
    }
    if let Some(runbook) = &alert.runbook {
        annotations.insert("runbook_url".into(), runbook.as_str().into());
    }
    let ends = alert.ended.unwrap_or_else(|| now.plus(LASTS));
    json!({
        "labels": labels,
        "annotations": annotations,
        "startsAt": instant::text(alert.since),
        "endsAt": instant::text(ends),
    })
}
