//! Which messages to send now. Events go in order and again until the server says that it has stored
//! them; reports go once per session and are gone when the broker has taken them.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serin_protocol::ids::{EventNumber, Millis};

use super::backoff::{Backoff, Jitter, after};

/// Events published and not yet acknowledged by the server: 16 KiB at most, and more than a device says
/// within one round trip.
pub const EVENTS_IN_FLIGHT: u64 = 16;
/// Reports published and not yet taken by the broker: up to 32 KiB each.
pub const REPORTS_IN_FLIGHT: usize = 4;

/// How long the server may take to acknowledge before everything is sent again. It acknowledges after a
/// durable write, and may be away for hours while the broker is there.
const RESEND: Backoff = Backoff { first: Millis::from_secs(30), cap: Millis::from_secs(1800) };

/// Furthest that an acknowledgement may lie above the last event known here: more events than a device says
/// between two copies of its disk, and so few that nobody with the fleet's key can use up the numbers.
pub const MAX_ACK_STEP: u64 = 1 << 24;

/// Names a stored report on this device; grows with each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReportKey(pub u64);

/// What is stored and not yet dropped, as found at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The first event that the server has not acknowledged, or the next number when there is none.
    pub first_event: EventNumber,
    /// The number of the next event.
    pub next_event: EventNumber,
    /// The oldest report, or the next key when there is none.
    pub oldest_report: ReportKey,
    /// The key of the next report.
    pub next_report: ReportKey,
}

/// What happens to the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The session with the broker is there.
    Connected,
    /// It is gone, with everything not yet confirmed.
    Disconnected,
    /// This event was stored; it follows all before it.
    EventStored(EventNumber),
    /// This event was to be published but there is none of this number: a number was skipped when the
    /// journal was older than the boot record.
    EventGone(EventNumber),
    /// The server has stored every event up to this number durably.
    Acknowledged(EventNumber),
    /// This report was stored, and every one below `oldest` was dropped to make room.
    ReportStored {
        /// The new report.
        key: ReportKey,
        /// The oldest that is still there.
        oldest: ReportKey,
    },
    /// The broker has taken this report.
    ReportTaken(ReportKey),
    /// This report was to be published but is no longer stored.
    ReportGone(ReportKey),
    /// A deadline has passed.
    Tick,
}

/// What is to be done, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Publish this event, to be delivered at least once.
    PublishEvent(EventNumber),
    /// Publish this report, to be delivered at least once; answer with [`Input::ReportTaken`] once the broker
    /// has confirmed it.
    PublishReport(ReportKey),
    /// Every event up to this number can be dropped.
    DropEventsUpTo(EventNumber),
    /// This report can be dropped.
    DropReport(ReportKey),
    /// The server has events above any that this device knows of: its journal and boot record are older
    /// than what it has said. The next event must be numbered above this one.
    NumberAbove(EventNumber),
    /// The acknowledgement lies further above than any honest one: it counts for nothing.
    RefuseAck(EventNumber),
}

/// Effects in order.
pub type Effects = Vec<Effect>;

/// What has been sent, and what to send next.
#[derive(Debug)]
pub struct Outbox {
    jitter: Jitter,
    connected: bool,
    /// Every event up to here is stored by the server.
    acknowledged: u64,
    /// Every event up to here was published in this session, since the last resend.
    sent: u64,
    /// The last event there is.
    last: u64,
    /// Resends without an acknowledgement in between.
    silences: u32,
    event_deadline: Option<Millis>,
    /// Reports to publish again before new ones, ascending; with `in_flight` at most
    /// [`REPORTS_IN_FLIGHT`].
    again: Vec<u64>,
    in_flight: Vec<u64>,
    /// The first report that was never published.
    fresh_report: u64,
    /// One above the last report.
    end_report: u64,
    report_deadline: Option<Millis>,
}

impl Outbox {
    /// An outbox over what is stored.
    pub fn new(stored: Stored, jitter: Jitter) -> Self {
        // Numbers begin at 1; a first number of 0 would otherwise wrap.
        let acknowledged = stored.first_event.0.saturating_sub(1);
        Self {
            jitter,
            connected: false,
            acknowledged,
            sent: acknowledged,
            last: stored.next_event.0.saturating_sub(1).max(acknowledged),
            silences: 0,
            event_deadline: None,
            again: Vec::new(),
            in_flight: Vec::new(),
            fresh_report: stored.oldest_report.0,
            end_report: stored.next_report.0.max(stored.oldest_report.0),
            report_deadline: None,
        }
    }

    /// Events that the server has not acknowledged.
    pub const fn pending(&self) -> u64 {
        self.last - self.acknowledged
    }

    /// Whether all there is was said and taken.
    pub const fn is_idle(&self) -> bool {
        self.pending() == 0
            && self.again.is_empty()
            && self.in_flight.is_empty()
            && self.fresh_report >= self.end_report
    }

    /// Takes in what happened at `now`, on a monotonic clock.
    #[must_use]
    pub fn handle(&mut self, now: Millis, input: Input) -> Effects {
        let mut effects = Effects::new();
        match input {
            Input::Connected => {
                self.restart();
                self.connected = true;
            }
            Input::Disconnected => self.restart(),
            Input::EventStored(number) => self.last = self.last.max(number.0),
            Input::EventGone(number) => self.skip(number),
            Input::Acknowledged(number) => self.acknowledged(number, &mut effects),
            Input::ReportStored { key, oldest } => self.report_stored(key, oldest),
            Input::ReportTaken(key) => {
                if self.forget(key) {
                    effects.push(Effect::DropReport(key));
                }
            }
            Input::ReportGone(key) => {
                self.forget(key);
            }
            Input::Tick => {}
        }
        if self.connected {
            self.expire(now);
            self.publish_events(now, &mut effects);
            self.publish_reports(now, &mut effects);
        }
        effects
    }

    /// When [`Input::Tick`] is due; none while there is nothing to wait for.
    pub fn next_deadline(&self) -> Option<Millis> {
        let deadlines = self.event_deadline.into_iter().chain(self.report_deadline);
        deadlines.min()
    }

    /// A session ends or begins: nothing of what was sent counts.
    fn restart(&mut self) {
        self.connected = false;
        self.sent = self.acknowledged;
        self.silences = 0;
        self.event_deadline = None;
        self.reports_again();
    }

    fn reports_again(&mut self) {
        self.again.append(&mut self.in_flight);
        self.again.sort_unstable();
        self.report_deadline = None;
    }

    fn acknowledged(&mut self, number: EventNumber, effects: &mut Effects) {
        if number.0 <= self.acknowledged {
            return;
        }
        if number.0.saturating_sub(self.last) > MAX_ACK_STEP {
            effects.push(Effect::RefuseAck(number));
            return;
        }
        effects.push(Effect::DropEventsUpTo(number));
        if number.0 > self.last {
            effects.push(Effect::NumberAbove(number));
            self.last = number.0;
        }
        self.acknowledged = number.0;
        self.sent = self.sent.max(number.0);
        self.silences = 0;
        self.event_deadline = None;
    }

    /// A number without an event needs no acknowledgement; one behind others waits for theirs.
    fn skip(&mut self, number: EventNumber) {
        if number.0 == self.acknowledged + 1 && number.0 <= self.last {
            self.acknowledged = number.0;
            self.sent = self.sent.max(number.0);
        }
        if self.sent == self.acknowledged {
            self.event_deadline = None;
        }
    }

    fn report_stored(&mut self, key: ReportKey, oldest: ReportKey) {
        self.end_report = self.end_report.max(key.0.saturating_add(1));
        self.fresh_report = self.fresh_report.max(oldest.0);
        self.again.retain(|key| *key >= oldest.0);
        self.in_flight.retain(|key| *key >= oldest.0);
    }

    /// Whether the report was in flight or to be published again.
    fn forget(&mut self, key: ReportKey) -> bool {
        let before = self.again.len() + self.in_flight.len();
        self.again.retain(|other| *other != key.0);
        self.in_flight.retain(|other| *other != key.0);
        if self.in_flight.is_empty() {
            self.report_deadline = None;
        }
        self.again.len() + self.in_flight.len() < before
    }

    fn expire(&mut self, now: Millis) {
        if self.event_deadline.is_some_and(|deadline| deadline <= now) {
            self.sent = self.acknowledged;
            self.silences = self.silences.saturating_add(1);
            self.event_deadline = None;
        }
        // The broker confirms within a session or the session ends; this is for a publish that the client
        // never took.
        if self.report_deadline.is_some_and(|deadline| deadline <= now) {
            self.reports_again();
        }
    }

    fn publish_events(&mut self, now: Millis, effects: &mut Effects) {
        while self.sent < self.last && self.sent - self.acknowledged < EVENTS_IN_FLIGHT {
            self.sent += 1;
            effects.push(Effect::PublishEvent(EventNumber(self.sent)));
        }
        if self.sent > self.acknowledged && self.event_deadline.is_none() {
            let wait = RESEND.wait(self.silences + 1, &mut self.jitter);
            self.event_deadline = Some(after(now, wait));
        }
    }

    fn publish_reports(&mut self, now: Millis, effects: &mut Effects) {
        while self.in_flight.len() < REPORTS_IN_FLIGHT {
            let key = if self.again.is_empty() {
                if self.fresh_report >= self.end_report {
                    break;
                }
                self.fresh_report += 1;
                self.fresh_report - 1
            } else {
                self.again.remove(0)
            };
            self.in_flight.push(key);
            effects.push(Effect::PublishReport(ReportKey(key)));
        }
        if !self.in_flight.is_empty() && self.report_deadline.is_none() {
            self.report_deadline = Some(after(now, RESEND.wait(1, &mut self.jitter)));
        }
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
