//! Alerts as webhooks, the API and the stream show them.

use serde_json::{Value, json};
use serin_protocol::ids::UnixMillis;

use super::note::{Alert, Note};
use super::silence::Silence;

/// One alert.
pub fn alert(alert: &Alert) -> Value {
    json!({
        "rule": alert.rule,
        "severity": alert.severity,
        "kind": alert.kind,
        "state": if alert.ended.is_some() { "resolved" } else { "firing" },
        "owner": alert.group.owner,
        "release": alert.group.release().map(ToString::to_string),
        "segment": alert.group.segment(),
        "since": alert.since.0,
        "ended": alert.ended.map(|at| at.0),
        "summary": alert.summary(),
        "value": alert.found.value,
        "limit": alert.found.limit,
        "moved": moved(&alert.found.moved),
        "numbers": alert.numbers,
        "contact": alert.contact,
        "runbook": alert.runbook,
    })
}

/// What moved, with its distance.
pub fn moved(moved: &[(String, f64)]) -> Value {
    moved.iter().map(|(name, psi)| json!({ "name": name, "psi": psi })).collect()
}

/// One note.
pub fn note(note: &Note) -> Value {
    json!({
        "number": note.number,
        "at": note.at.0,
        "change": note.change,
        "silenced": note.silenced,
        "alert": alert(&note.alert),
    })
}

/// One silence.
pub fn silence(silence: &Silence) -> Value {
    let UnixMillis(made) = silence.made;
    json!({
        "id": silence.id.0,
        "matchers": silence.matchers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "author": silence.author,
        "reason": silence.reason,
        "made": made,
        "until": silence.until.0,
    })
}
