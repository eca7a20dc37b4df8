//! The agent's one loop: it takes what happens, asks the update machine what to do about it, and carries
//! that out in order. It never touches a model's bytes beyond hashing them.
//!
//! `effects` carries out, `uplink` speaks to the fleet, `reports` keeps what is reported, `answers` what waits for its truth,
//! `workers` starts and watches workers, `statement` waits for a release's,
//! `settling` gives back memory, `field` answers the engineer, `sideload` takes in what he brings, `download` fetches, `policy` looks at local
//! conditions, `guard` watches by the release's own policy, `trust` asks who may order what, `pause` holds back, `pulse` does what is due, `jobs` counts what blocks, `clock` reads clocks.

mod answers;
mod checkup;
mod clock;
pub mod download;
mod effects;
mod enrolment;
mod field;
mod guard;
mod jobs;
mod pause;
mod policy;
mod pulse;
mod refusals;
mod reports;
mod service;
mod settling;
mod sideload;
mod start;
mod statement;
mod trust;
mod uplink;
mod workers;

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use serin_protocol::ids::{BootId, Digest, Millis, UnixMillis};
use serin_protocol::message::{Detail, EventKind, Reason, RefusedKind};
use serin_protocol::target::Hardware;
use serin_protocol::topic::Topic;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::config::Config;
use crate::disk::boot_record::BootStore;
use crate::disk::journal::Journal;
use crate::disk::losses::Losses;
use crate::disk::partial::{Complete, PartialStore};
use crate::disk::releases::ReleaseStore;
use crate::disk::starts::StartLog;
use crate::field::FieldRequest;
use crate::gateway::Router;
use crate::gateway::remember::Remembered;
use crate::link::backoff::Jitter;
use crate::link::mqtt::{LinkEvent, Problem, Session};
use crate::link::outbox::{self, Outbox};
use crate::link::pause::Pausing;
use crate::link::tls::TimeFloor;
use crate::logs::Logs;
use crate::review::Tray;
use crate::telemetry::{Counters, Recording, Stamp};
use crate::update::effect::{Event, Now};
use crate::update::machine::Machine;
use crate::update::shell;
use crate::worker::group::Delegated;

use self::clock::Clock;
use self::download::Download;
use self::enrolment::Enrolling;
use self::field::Pending;
use self::guard::Watching;
use self::jobs::Jobs;
use self::policy::Watch;
use self::refusals::{Refusals, kind_of};
use self::service::Service;
use self::settling::Settling;
use self::sideload::Sideloading;
use self::statement::Awaited;
use self::trust::Trust;
use self::workers::Running;

pub use self::start::{StartError, run};

/// Results of background work on their way to the loop. Each piece of work sends one or two.
const INBOX: usize = 64;
/// Field engineers' orders waiting: there is one engineer.
const FIELD_QUEUE: usize = 8;

/// What background work has to say.
enum Inbox {
    /// To the update machine.
    Machine(Box<Event>),
    /// A worker is up.
    Started(Digest, Box<Running>),
    /// The bundle that an engineer brought is here whole, or is not.
    Brought(Digest, Box<Result<Complete, Reason>>),
}

/// The loop's state.
struct Supervisor {
    config: Config,
    clock: Clock,
    boot: BootId,
    key: SigningKey,
    trust: Trust,
    machine: Machine,
    record_store: BootStore,
    /// What TLS knows of the record's clock floor.
    time_floor: TimeFloor,
    starts: StartLog,
    /// Starts without a stop that were counted at this one.
    restarts: u32,
    /// What the device lacks of its class, in words.
    class_lacks: Vec<String>,
    hardware: Hardware,
    started: UnixMillis,
    /// Where memory groups for workers can be made, if anywhere.
    groups: Option<Arc<Delegated>>,
    releases: ReleaseStore,
    partials: PartialStore,
    journal: Journal,
    /// Why it is in memory, if it is.
    sheltered: Option<String>,
    losses: Losses,
    outbox: Outbox,
    router: Arc<Router>,
    session: Option<Session>,
    /// How many were made since that session began.
    hellos: Cell<u32>,
    /// The server's wish to hold back.
    pausing: Pausing,
    /// Tells the link until when it must not reconnect.
    hold_link: watch::Sender<Option<Instant>>,
    /// What the link had no room for: said and asked for at the next turn.
    hello_due: Cell<bool>,
    assignment_due: Cell<bool>,
    link_since: UnixMillis,
    link_problem: Option<Problem>,
    /// The statement that is waited for.
    awaited: Option<Awaited>,
    jitter: Jitter,
    download: Option<Download>,
    /// The bundle that is here whole, until it is unpacked.
    fetched: Option<(Digest, Complete)>,
    workers: HashMap<Digest, Running>,
    /// One per release with a worker since the agent started.
    recordings: HashMap<Digest, Recording>,
    stamp: Stamp,
    /// What was predicted lately, and when it is written down next.
    remembered: Arc<Remembered>,
    answers_at: Millis,
    tray: Tray,
    /// The release on probation or on trial, and what it had done before.
    probation: Option<(Digest, Counters)>,
    /// The active release, watched by its own policy.
    guard: Option<Watching>,
    /// The release that the gateway tries beside the one that answers.
    trial: Option<Digest>,
    inbox: mpsc::Sender<Inbox>,
    /// Whether the fleet has ever confirmed something that this device said under its key. What it tells a name may be
    /// meant for a device before it.
    taken_in: bool,
    /// The engineer who waits for the fleet to take the device in.
    enrolling: Option<Enrolling>,
    refusals: Refusals,
    service: Service,
    settling: Settling,
    /// The last pulse: what follows is counted from it, for whoever asks again and again must not put the next off.
    pulsed_at: Millis,
    /// What local conditions allow.
    watch: Watch,
    jobs: Jobs,
    /// The accept loops of the gateway.
    doors: Vec<AbortHandle>,
    /// The engineer whose order is being carried out.
    pending: Option<Pending>,
    logs: Logs,
    /// A bundle that was brought is being written.
    receiving: bool,
    /// What an engineer brings.
    sideloading: Option<Sideloading>,
}

impl Supervisor {
    /// Runs until told to stop.
    async fn run(
        mut self,
        mut link: mpsc::Receiver<LinkEvent>,
        mut inbox: mpsc::Receiver<Inbox>,
        mut field: mpsc::Receiver<FieldRequest>,
        mut stop: watch::Receiver<bool>,
    ) {
        self.say_again();
        self.feed(Event::Boot { restarts: self.restarts });
        self.attend_policy();
        self.begin_trust();
        self.service.ready();
        loop {
            let stands_still = self.stands_still();
            self.service.alive(self.now().elapsed, stands_still);
            let deadline = self.clock.instant(self.next_pulse());
            let ping = self.clock.instant(self.service.next_ping(self.now().elapsed));
            tokio::select! {
                Some(event) = link.recv() => self.on_link(event),
                Some(done) = inbox.recv() => self.on_inbox(done),
                Some(request) = field.recv() => self.on_field(request),
                () = tokio::time::sleep_until(deadline) => self.pulse(),
                // Said at the top: nothing else need be woken for it.
                () = tokio::time::sleep_until(ping) => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
            self.attend_trust();
            self.attend_sideload();
        }
        self.service.stopping();
        Box::pin(self.goodbye(link)).await;
    }

    /// What beside the loop does not get on.
    fn stands_still(&self) -> Option<&'static str> {
        if self.doors.iter().any(AbortHandle::is_finished) {
            return Some("the gateway");
        }
        self.jobs.overdue(self.now().elapsed)
    }

    fn now(&self) -> Now {
        self.clock.now(self.machine.record().clock_floor)
    }

    /// Hands `event` to the machine and carries out what it wants.
    fn feed(&mut self, event: Event) {
        shell::feed(self, event);
        self.router.say_safe_mode(self.machine.safe_mode());
        let previous = self.machine.record().previous.as_ref();
        let warm = previous.filter(|slot| self.workers.contains_key(&slot.statement));
        self.router.say_warm(warm.map(|slot| &slot.release));
    }

    fn on_inbox(&mut self, done: Inbox) {
        self.settling.worked(self.now().elapsed);
        match done {
            Inbox::Machine(event) => {
                match &*event {
                    Event::WorkerDied(statement, _) => {
                        self.workers.remove(statement);
                        if let Some(recording) = self.recordings.get(statement) {
                            recording.lock().worker_died();
                        }
                    }
                    Event::Warmed(_, Err(reason)) => self.rollback_failed(reason),
                    _ => {}
                }
                self.feed(*event);
            }
            Inbox::Started(statement, running) => {
                self.workers.insert(statement, *running);
                self.feed(Event::Warmed(statement, Ok(())));
            }
            Inbox::Brought(statement, taken) => {
                self.receiving = false;
                let outcome = (*taken).map(|bundle| self.fetched = Some((statement, bundle)));
                self.feed(Event::Fetched(statement, outcome));
            }
        }
    }

    fn on_link(&mut self, event: LinkEvent) {
        self.settling.worked(self.now().elapsed);
        match event {
            LinkEvent::Connected(session) => self.on_connected(session),
            LinkEvent::Disconnected(problem) => self.on_disconnected(problem),
            LinkEvent::Message(topic, payload) => self.on_message(topic, &payload),
            LinkEvent::Strange(topic, error) => {
                let detail = Detail::new(&format!("{topic}: {error}"));
                self.refuse(RefusedKind::Unknown, &detail);
            }
            LinkEvent::Delivered(token) => self.outbox(outbox::Input::ReportTaken(outbox::ReportKey(token))),
        }
    }

    fn on_message(&mut self, topic: Topic, payload: &Bytes) {
        if payload.len() > topic.max_payload() {
            let (size, limit) = (payload.len(), topic.max_payload());
            let detail = Detail::new(&format!("{size} bytes on {topic:?}, at most {limit} are allowed"));
            self.refuse(kind_of(&topic), &detail);
            return;
        }
        match topic {
            Topic::Assign(device) if device == self.config.device => self.on_assignment(payload),
            Topic::Ack(device) if device == self.config.device => self.on_ack(payload),
            Topic::Enrolled(device) if device == self.config.device => self.on_enrolled(payload),
            Topic::Pause(device) if device == self.config.device => self.on_pause(payload),
            Topic::Metadata(file) if self.awaits(&file) => self.on_statement(&file, payload),
            Topic::Metadata(file) => self.on_metadata(&file, payload),
            Topic::Chunk { object, index } => {
                let now = self.now().elapsed;
                if let Some(download) = &mut self.download {
                    let notices = download.chunk(now, object, index, payload);
                    self.on_notices(notices);
                }
                self.count_chunk(payload.len());
            }
            Topic::Assign(_)
            | Topic::Ack(_)
            | Topic::Event(_)
            | Topic::Report(_)
            | Topic::Sample(_)
            | Topic::Enrol(_)
            | Topic::Enrolled(_)
            | Topic::Pause(_)
            | Topic::Hello(_) => {
                let detail = Detail::new(&format!("{topic:?} is not for this device"));
                self.refuse(RefusedKind::Unknown, &detail);
            }
        }
    }

    /// Reports a refused message. The device goes on with what it has.
    fn refuse(&mut self, kind: RefusedKind, detail: &Detail) {
        tracing::warn!(?kind, %detail, "message refused");
        let Some(kept_back) = self.refusals.admit(self.now().elapsed) else { return };
        let detail = match kept_back {
            0 => detail.clone(),
            more => Detail::new(&format!("{more} more refusals were not reported; {detail}")),
        };
        self.report_now(EventKind::Refused { kind, detail });
    }
}
