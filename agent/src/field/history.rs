//! Events in words.

use serin_protocol::ids::ReleaseId;
use serin_protocol::message::{Event, EventKind, RefusedKind, Start};

use super::held_up::later;
use super::reply::HistoryEntry;

impl From<&Event> for HistoryEntry {
    fn from(event: &Event) -> Self {
        let (kind, release) = classify(&event.kind);
        Self {
            number: event.number,
            at: event.at,
            kind: kind.into(),
            release: release.cloned(),
            text: describe(&event.kind),
        }
    }
}

const fn classify(kind: &EventKind) -> (&'static str, Option<&ReleaseId>) {
    match kind {
        EventKind::Transition { release, .. } => ("transition", Some(release)),
        EventKind::Plan { release, .. } | EventKind::Planned { release, .. } => ("plan", Some(release)),
        EventKind::Waiting { release, .. } => ("waiting", Some(release)),
        EventKind::ChunksMissing { .. } => ("chunks_missing", None),
        EventKind::FieldRollback { to, .. } => ("field_rollback", Some(to)),
        EventKind::Pinned { release, .. } => ("pinned", Some(release)),
        EventKind::Unpinned { .. } => ("unpinned", None),
        EventKind::Held { .. } => ("held", None),
        EventKind::WorkerDied { release, .. } => ("worker_died", Some(release)),
        EventKind::Refused { .. } => ("refused", None),
        EventKind::JournalLost { .. } => ("journal_lost", None),
        EventKind::Sideloaded { release, .. } => ("sideloaded", Some(release)),
        EventKind::Enrolled { .. } => ("enrolled", None),
    }
}

/// One line that tells what happened.
pub fn describe(kind: &EventKind) -> String {
    match kind {
        EventKind::Transition { release, from, to, reason: Some(reason) } => {
            format!("{release}: {from} → {to}: {reason}")
        }
        EventKind::Transition { release, from, to, reason: None } => format!("{release}: {from} → {to}"),
        EventKind::Plan { release, fetch, here } => {
            format!("{release}: {fetch} bytes to fetch, {here} are here")
        }
        EventKind::Planned { release, transfer, fetch, here, start } => {
            let when = match start {
                Start::Now => "now".into(),
                Start::Later { why, until } => later(why, *until),
            };
            format!("{release}: {transfer}, {fetch} bytes to fetch, {here} are here; begins {when}")
        }
        EventKind::Waiting { release, why, until } => {
            format!("{release}: to be installed {}", later(why, *until))
        }
        EventKind::ChunksMissing { object, first, count } => {
            format!("the broker lacks {count} chunks from {first} of {object}")
        }
        EventKind::FieldRollback { uid, from, to } => format!("user {uid} went back from {from} to {to}"),
        EventKind::Pinned { uid, release } => format!("user {uid} pinned {release}"),
        EventKind::Unpinned { uid } => format!("user {uid} unpinned this device"),
        EventKind::Held { uid, until } => {
            format!("user {uid} lets nothing change until {}", super::print::date(*until))
        }
        EventKind::WorkerDied { release, death } => format!("{release}: the worker died: {death}"),
        EventKind::Refused { kind, detail } => {
            let what = match kind {
                RefusedKind::Assignment => "an assignment",
                RefusedKind::Metadata => "a release statement",
                RefusedKind::Chunk => "a chunk",
                RefusedKind::Ack => "an acknowledgement",
                RefusedKind::Unknown => "a message",
                RefusedKind::Sideload => "a release that was brought",
            };
            format!("{what} was refused: {detail}")
        }
        EventKind::Sideloaded { uid, release } => format!("user {uid} brought {release} and pins it"),
        EventKind::Enrolled { uid } => format!("user {uid} enrolled this device"),
        EventKind::JournalLost { detail } => format!("the journal was lost and begun anew: {detail}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_protocol::ids::{EventNumber, SequenceNumber, UnixMillis};
    use serin_protocol::message::{Phase, Reason};

    #[test]
    fn an_event_tells_what_happened_and_why() {
        let release: ReleaseId = "m@2".parse().expect("id");
        let kind = EventKind::Transition {
            release: release.clone(),
            from: Phase::Probation,
            to: Phase::RolledBack,
            reason: Some(Reason::ErrorRate { errors: 3, requests: 20 }),
        };
        let event = Event {
            device: "d".parse().expect("id"),
            number: EventNumber(4),
            at: UnixMillis(5),
            sequence: SequenceNumber(1),
            rollout: None,
            kind,
        };
        let entry = HistoryEntry::from(&event);
        assert_eq!((entry.kind.as_str(), entry.release), ("transition", Some(release)));
        assert_eq!(entry.text, "m@2: probation → rolled back: 3 of 20 inferences failed");
    }
}
