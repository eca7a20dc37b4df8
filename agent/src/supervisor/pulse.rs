//! What the loop does by the clock, and when it is woken for that. A device at rest is left alone: each turn costs its battery, and
//! brings back memory that it gave away.

use serin_protocol::ids::Millis;
use serin_protocol::message::Phase;

use super::Supervisor;
use crate::link::outbox;
use crate::resident;
use crate::update::effect::Event;

/// Between two pulses while something is under way that tells nobody how it gets on.
const RESTLESS: Millis = Millis(500);

/// Between two pulses otherwise. What is due has its own time, but nobody tells when somebody sets the clock that windows are
/// cut by.
const AT_REST: Millis = Millis::from_secs(60);

impl Supervisor {
    /// When the next pulse is. What could not be done when it was due is tried again with a restless pulse at the earliest.
    pub(super) fn next_pulse(&self) -> Millis {
        let now = self.now();
        let soon = self.pulsed_at.plus(RESTLESS);
        let rest = if self.is_restless() { soon } else { self.pulsed_at.plus(AT_REST) };
        let download = self.download.as_ref().and_then(|download| download.next_deadline(now.elapsed));
        let deadlines = [
            self.machine.next_deadline(now),
            download,
            self.outbox.next_deadline(),
            self.trust.client.next_deadline(),
            self.enrolment_deadline(),
            self.pausing.deadline(),
        ];
        let leisurely = [self.settling.deadline(), self.policy_deadline(), Some(self.answers_at)];
        let leisurely = leisurely.into_iter().flatten().map(|at| at.max(soon));
        let windows = self.recordings.values().map(|recording| now.elapsed.plus(recording.lock().due(now)));
        deadlines.into_iter().flatten().chain(leisurely).chain(windows).fold(rest, Millis::min)
    }

    /// Whether something is under way that has no time of its own.
    fn is_restless(&self) -> bool {
        matches!(self.machine.phase(), Phase::Probation | Phase::Shadowing)
            || self.guards()
            || self.download.is_some()
            || self.awaited.is_some()
            || !self.jobs.is_empty()
            || !self.trust.postponed.is_empty()
            || (self.session.is_some() && !self.tray.is_empty())
            || self.hello_due.get()
            || self.assignment_due.get()
    }

    /// Does all that is due.
    pub(super) fn pulse(&mut self) {
        let now = self.now();
        self.pulsed_at = now.elapsed;
        if let Some(download) = &mut self.download {
            let notices = download.tick(now.elapsed);
            self.on_notices(notices);
        }
        if let Some((requests, errors)) = self.health() {
            self.feed(Event::Health { requests, errors });
        }
        self.attend_guard();
        self.feed(Event::Tick);
        self.attend_policy();
        self.tick_pause();
        self.say_what_is_due();
        self.tick_trust();
        self.tick_enrolment();
        self.roll_windows();
        self.tick_answers();
        self.ask_statement_again();
        self.outbox(outbox::Input::Tick);
        self.send_sample();
        if self.settling.due(now.elapsed) {
            // Last: what ran just now is not needed soon.
            resident::give_back();
        }
    }
}
