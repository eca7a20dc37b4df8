//! What is counted, in Prometheus' format. Labels come from fixed sets, never from what devices send.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serin_protocol::message::{EventKind, Report};
use serin_protocol::topic::Topic;

use super::roster::Census;
use crate::alert::{Alert, Severity, SilenceId};
use crate::notify::outbox::Outcome;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Level {
    severity: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// Counters and gauges of one server.
pub struct Metrics {
    registry: Mutex<Registry>,
    messages: Family<Kind, Counter>,
    bytes: Counter,
    refused: Family<Reason, Counter>,
    events: Family<Kind, Counter>,
    inferences: Family<Kind, Counter>,
    repeated: Counter,
    assignments: Counter,
    verdicts: Family<Kind, Counter>,
    devices: Gauge<i64, AtomicI64>,
    online: Gauge<i64, AtomicI64>,
    pinned: Gauge<i64, AtomicI64>,
    broker: Gauge<i64, AtomicI64>,
    dropped: Counter,
    deliveries: Family<Kind, Counter>,
    firing: Family<Level, Gauge<i64, AtomicI64>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("serin");
        let messages = Family::default();
        let bytes = Counter::default();
        let refused = Family::default();
        let events = Family::default();
        let inferences = Family::default();
        let repeated = Counter::default();
        let assignments = Counter::default();
        let verdicts = Family::default();
        let dropped = Counter::default();
        let deliveries = Family::default();
        let firing = Family::default();
        let (devices, online, pinned, broker) =
            (Gauge::default(), Gauge::default(), Gauge::default(), Gauge::default());
        registry.register("messages", "Messages of devices, by topic", messages.clone());
        registry.register("message_bytes", "Bytes in messages of devices", bytes.clone());
        registry.register("messages_refused", "Messages refused, by reason", refused.clone());
        registry.register("events", "Events of devices, by kind", events.clone());
        registry.register("inferences", "Inferences that devices reported", inferences.clone());
        registry.register("reports_repeated", "Reports delivered again and not counted", repeated.clone());
        registry.register("assignments", "Assignments made", assignments.clone());
        registry.register("verdicts", "Verdicts about stages, by decision", verdicts.clone());
        registry.register(
            "outgoing_dropped",
            "Messages that found no room to wait for the broker",
            dropped.clone(),
        );
        registry.register(
            "deliveries",
            "Attempts to deliver alerts and triggers, by outcome",
            deliveries.clone(),
        );
        registry.register("alerts_firing", "Alerts that ring, by severity", firing.clone());
        registry.register("devices", "Devices known", devices.clone());
        registry.register("devices_online", "Devices that are there", online.clone());
        registry.register("devices_pinned", "Devices pinned by a field engineer", pinned.clone());
        registry.register("broker_connected", "Whether the server's MQTT session stands", broker.clone());
        Self {
            registry: Mutex::new(registry),
            messages,
            bytes,
            refused,
            events,
            inferences,
            repeated,
            assignments,
            verdicts,
            devices,
            online,
            pinned,
            broker,
            dropped,
            deliveries,
            firing,
        }
    }
}

impl Metrics {
    /// Everything as text.
    pub fn text(&self) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut out, &registry);
        out
    }

    pub(super) fn message(&self, topic: &Topic, bytes: usize) {
        let kind = match topic {
            Topic::Hello(_) => "hello",
            Topic::Event(_) => "event",
            Topic::Report(_) => "report",
            Topic::Sample(_) => "sample",
            Topic::Enrol(_) => "enrol",
            Topic::Metadata(_)
            | Topic::Chunk { .. }
            | Topic::Assign(_)
            | Topic::Ack(_)
            | Topic::Enrolled(_)
            | Topic::Pause(_) => "other",
        };
        self.messages.get_or_create(&Kind { kind }).inc();
        self.bytes.inc_by(bytes as u64);
    }

    /// Counts a refused message.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    pub(super) fn event(&self, kind: &EventKind) {
        let kind = match kind {
            EventKind::Transition { .. } => "transition",
            EventKind::Plan { .. } | EventKind::Planned { .. } => "plan",
            EventKind::Waiting { .. } => "waiting",
            EventKind::ChunksMissing { .. } => "chunks_missing",
            EventKind::FieldRollback { .. } => "field_rollback",
            EventKind::Pinned { .. } => "pinned",
            EventKind::Unpinned { .. } => "unpinned",
            EventKind::Held { .. } => "held",
            EventKind::WorkerDied { .. } => "worker_died",
            EventKind::Refused { .. } => "refused",
            EventKind::JournalLost { .. } => "journal_lost",
            EventKind::Sideloaded { .. } => "sideloaded",
            EventKind::Enrolled { .. } => "enrolled",
            EventKind::CrashLoop { .. } => "crash_loop",
            EventKind::EventsLost { .. } => "events_lost",
            EventKind::ReportsDropped { .. } => "reports_dropped",
        };
        self.events.get_or_create(&Kind { kind }).inc();
    }

    pub(super) fn report(&self, report: &Report) {
        let outcomes = [
            ("answered", report.requests.saturating_sub(report.errors)),
            ("failed", report.errors),
            ("refused", report.refused),
        ];
        for (kind, count) in outcomes {
            self.inferences.get_or_create(&Kind { kind }).inc_by(count);
        }
    }

    pub(super) fn repeated_report(&self) {
        self.repeated.inc();
    }

    pub(super) fn assigned(&self, count: usize) {
        self.assignments.inc_by(count as u64);
    }

    pub(super) fn verdict(&self, decision: crate::rollout::verdict::Decision) {
        use crate::rollout::verdict::Decision;
        let kind = match decision {
            Decision::Promote => "promote",
            Decision::Hold => "hold",
            Decision::RollBack => "roll_back",
            Decision::Inconclusive => "inconclusive",
            Decision::Abort => "abort",
            Decision::AwaitApproval => "await_approval",
            Decision::TakeBack => "take_back",
            Decision::RolledBack => "rolled_back",
            Decision::SkipGate => "skip_gate",
            Decision::Drill => "drill",
            Decision::Emergency => "emergency",
        };
        self.verdicts.get_or_create(&Kind { kind }).inc();
    }

    pub(super) fn delivery(&self, outcome: &Outcome) {
        let kind = match outcome {
            Outcome::Taken => "taken",
            Outcome::Later(_) => "later",
            Outcome::Refused(_) => "refused",
        };
        self.deliveries.get_or_create(&Kind { kind }).inc();
    }

    pub(super) fn alerts(&self, firing: &[(Alert, Option<SilenceId>)]) {
        for severity in [Severity::Info, Severity::Warning, Severity::Critical] {
            let count = firing.iter().filter(|(alert, _)| alert.severity == severity).count();
            let gauge = self.firing.get_or_create(&Level { severity: severity.as_str() });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn devices(&self, census: Census) {
        let count = |devices: usize| i64::try_from(devices).unwrap_or(i64::MAX);
        self.devices.set(count(census.known));
        self.online.set(count(census.online));
        self.pinned.set(count(census.pinned));
    }

    /// Notes whether the server's MQTT session stands.
    pub fn broker_connected(&self, connected: bool) {
        self.broker.set(i64::from(connected));
    }

    /// Counts a message that found no room.
    pub fn dropped(&self) {
        self.dropped.inc();
    }
}
