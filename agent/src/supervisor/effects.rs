//! Carrying out what the update machine wants.

use serin_protocol::assignment::ReleaseRef;
use serin_protocol::ids::Digest;
use serin_protocol::message::{Detail, EventKind, Reason, Start, TransferKind};
use serin_protocol::release::Release;

use super::download::{Download, Notice, Request};
use super::jobs::TooMany;
use super::{Inbox, Supervisor};
use crate::disk::install;
use crate::update::effect::{Effect, Event, Now};
use crate::update::machine::Machine;
use crate::update::shell::Shell;

impl Shell for Supervisor {
    fn now(&self) -> Now {
        Self::now(self)
    }

    fn machine(&mut self) -> &mut Machine {
        &mut self.machine
    }

    fn carry_out(&mut self, effect: Effect) -> Result<Option<Event>, Reason> {
        match effect {
            Effect::Persist(record) => {
                let clock_floor = record.clock_floor;
                install::save(&mut self.record_store, *record, self.journal.next_event())?;
                self.time_floor.set(clock_floor);
            }
            Effect::FetchStatement(target) => self.fetch_statement(target),
            Effect::PlanLater(statement, release, verdict) => self.plan_later(statement, release, verdict),
            Effect::Fetch(statement, release) => return Ok(self.fetch(statement, release)),
            Effect::Receive(statement, release) => self.receive(statement, &release),
            Effect::Stage(statement, release) => return Ok(self.stage(statement, release)),
            Effect::Warm { slot, golden } => return Ok(self.warm(&slot, golden)),
            Effect::Flip(slot) => self.flip(&slot),
            Effect::Unserve => {
                self.router.flip(None);
            }
            Effect::Suspend => self.router.suspend(),
            Effect::Beside(tried) => self.try_beside(tried),
            Effect::Stop(statement) => {
                // Dropping the last handle lets what it has begun be answered.
                self.workers.remove(&statement);
            }
            Effect::CancelFetch(statement) => self.cancel_fetch(statement),
            Effect::Collect(keep) => self.collect(keep),
            Effect::Report { sequence, rollout, kind } => {
                self.note_sideload(&kind);
                self.report(sequence, rollout, kind);
            }
            Effect::ForgetStarts => {
                if let Err(error) = self.starts.write(&[self.started]) {
                    tracing::warn!(%error, "earlier starts could not be forgotten");
                }
            }
            Effect::Announce => self.announce(),
            Effect::AskAssignment => self.ask_assignment(),
            Effect::Reply(reply) => self.reply(reply),
        }
        Ok(None)
    }
}

impl Supervisor {
    fn fetch_statement(&mut self, target: ReleaseRef) {
        self.cancel_download();
        self.awaited = None;
        self.search(target);
    }

    fn fetch(&mut self, statement: Digest, release: Box<Release>) -> Option<Event> {
        if matches!(self.releases.open_release(statement), Ok(Some(_))) {
            return Some(Event::Fetched(statement, Ok(())));
        }
        match self.new_download(statement, release) {
            Ok(mut download) => {
                let now = self.now().elapsed;
                let open = self.open_session().is_some();
                let notices = if open { download.connected(now) } else { Vec::new() };
                self.download = Some(download);
                // The chunk list may be here whole already.
                self.notice_later(notices)
            }
            Err(reason) => Some(Event::Fetched(statement, Err(reason))),
        }
    }

    pub(super) fn new_download(&self, statement: Digest, release: Box<Release>) -> Result<Download, Reason> {
        let pace = self.config.pace();
        let seed = self.boot.0 ^ self.machine.record().accepted.0;
        Download::new(statement, release, self.partials.clone(), pace, seed)
    }

    /// Within `carry_out` the machine cannot be fed: the notices' events are queued.
    fn notice_later(&mut self, notices: Vec<Notice>) -> Option<Event> {
        let mut events = self.take_notices(notices);
        let first = (!events.is_empty()).then(|| events.remove(0));
        for event in events {
            if self.inbox.try_send(Inbox::Machine(Box::new(event))).is_err() {
                tracing::error!("the supervisor's inbox is full");
            }
        }
        first
    }

    pub(super) fn on_notices(&mut self, notices: Vec<Notice>) {
        for event in self.take_notices(notices) {
            self.feed(event);
        }
    }

    /// Hands what the download asks for to the session, for as long as that has a place.
    pub(super) fn request_chunks(&mut self) {
        let (Some(download), Some(session)) = (&mut self.download, &self.session) else { return };
        download.ask(|request, topic| {
            let sent = match request {
                Request::Subscribe => session.subscribe(topic),
                Request::Unsubscribe => session.unsubscribe(topic),
            };
            sent.is_ok()
        });
    }

    fn take_notices(&mut self, notices: Vec<Notice>) -> Vec<Event> {
        self.request_chunks();
        let Some(statement) = self.download.as_ref().map(Download::statement) else { return Vec::new() };
        let mut events = Vec::new();
        for notice in notices {
            match notice {
                Notice::Started { fetch, here } => {
                    if let Some(release) = self.machine.candidate().cloned() {
                        tracing::info!(%release, fetch = fetch.0, here = here.0, "fetching");
                        let (transfer, start) = (TransferKind::Full, Start::Now);
                        self.report_now(EventKind::Planned { release, transfer, fetch, here, start });
                    }
                    events.push(Event::FetchStarted(statement));
                }
                Notice::Report(kind) => self.report_now(kind),
                Notice::Done(bundle) => {
                    self.download = None;
                    self.fetched = Some((statement, bundle));
                    events.push(Event::Fetched(statement, Ok(())));
                }
                Notice::Failed(reason) => {
                    self.cancel_download();
                    events.push(Event::Fetched(statement, Err(reason)));
                }
            }
        }
        events
    }

    fn stage(&mut self, statement: Digest, release: Box<Release>) -> Option<Event> {
        let fetched = self.fetched.take().filter(|(of, _)| *of == statement).map(|(_, bundle)| bundle);
        let (store, inbox) = (self.releases.clone(), self.inbox.clone());
        let started = self.jobs.spawn(self.now().elapsed, "unpacking a release", move || {
            let outcome = install::stage(&store, fetched, &release, statement);
            // The loop ends only with the process.
            let _ = inbox.blocking_send(Inbox::Machine(Box::new(Event::Staged(statement, outcome))));
        });
        let refused = |error: TooMany| Err(Reason::Storage(Detail::new(&error.to_string())));
        started.err().map(|error| Event::Staged(statement, refused(error)))
    }

    fn cancel_fetch(&mut self, statement: Digest) {
        if self.awaited.as_ref().is_some_and(|awaited| awaited.target.statement == statement) {
            self.awaited = None;
        }
        self.trust.client.cancel_search(statement);
        if let Some(download) = self.download.as_ref().filter(|download| download.statement() == statement) {
            let here = download.progress().bytes_here;
            self.left_at(statement, here);
            self.cancel_download();
        }
    }

    pub(super) fn cancel_download(&mut self) {
        if let Some(download) = &mut self.download {
            download.stop();
        }
        self.request_chunks();
        self.download = None;
    }

    fn collect(&self, keep: Vec<Digest>) {
        let (store, partials) = (self.releases.clone(), self.partials.clone());
        let idle = self.download.is_none() && !self.receiving;
        let started = self.jobs.spawn(self.now().elapsed, "removing old releases", move || {
            install::collect(&store, &partials, &keep, idle);
        });
        if let Err(error) = started {
            tracing::warn!(%error, "old releases stay until the next update");
        }
    }
}
