//! Triggers as webhooks, API and stream show them.

use serde_json::{Value, json};

use super::book::{Progress, Trigger};
use crate::alert::webhook;

/// One trigger.
pub fn trigger(trigger: &Trigger) -> Value {
    let (state, by, release) = match &trigger.progress {
        Progress::Fired => ("fired", None, None),
        Progress::Acknowledged { by, .. } => ("acknowledged", Some(by), None),
        Progress::Answered { release, .. } => ("answered", None, Some(release.to_string())),
        Progress::Expired { .. } => ("expired", None, None),
    };
    json!({
        "id": trigger.id,
        "rule": trigger.rule,
        "cause": trigger.cause,
        "model": trigger.release.model,
        "release": trigger.release.to_string(),
        "lineage": trigger.lineage,
        "why": trigger.why,
        "evidence": trigger.found.as_ref().map(|found| json!({
            "value": found.value,
            "limit": found.limit,
            "moved": webhook::moved(&found.moved),
        })),
        "numbers": trigger.numbers,
        "fired": trigger.fired.0,
        "expires": trigger.expires.0,
        "state": state,
        "acknowledged_by": by,
        "answered_by": release,
    })
}
