//! Carrying out what the update machine wants.

use serin_protocol::assignment::ReleaseRef;
use serin_protocol::ids::Digest;
use serin_protocol::message::{Detail, EventKind, Reason};
use serin_protocol::release::Release;

use super::download::{Download, Notice};
use super::jobs::TooMany;
use super::{Awaited, Inbox, Supervisor};
use crate::disk::partial::Complete;
use crate::link::transfer::Pace;
use crate::update::effect::{Effect, Event};

impl Supervisor {
    /// Carries out one effect. Returns an event that follows at once, or the reason why the boot record
    /// could not be written.
    pub(super) fn carry_out(&mut self, effect: Effect) -> Result<Option<Event>, Reason> {
        match effect {
            Effect::Persist(mut record) => {
                record.event_floor = self.journal.next_event();
                let saved = self.record_store.save(&record.encode());
                saved.map_err(|error| Reason::Storage(Detail::new(&error.to_string())))?;
            }
            Effect::FetchStatement(target) => self.fetch_statement(target),
            Effect::Fetch(statement, release) => return Ok(self.fetch(statement, release)),
            Effect::Stage(statement, release) => return Ok(self.stage(statement, release)),
            Effect::Warm { slot, golden } => return Ok(self.warm(&slot, golden)),
            Effect::Flip(slot) => self.flip(&slot),
            Effect::Unserve => {
                self.router.flip(None);
            }
            Effect::Stop(statement) => {
                // Dropping the last handle lets what it has begun be answered.
                self.workers.remove(&statement);
            }
            Effect::CancelFetch(statement) => self.cancel_fetch(statement),
            Effect::Collect(keep) => self.collect(keep),
            Effect::Report { sequence, rollout, kind } => self.report(sequence, rollout, kind),
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

    fn fetch_statement(&mut self, target: ReleaseRef) {
        self.cancel_download();
        self.awaited = None;
        self.search(target);
    }

    /// An owner lists it: now its statement is wanted.
    pub(super) fn await_statement(&mut self, target: ReleaseRef) {
        self.awaited = Some(Awaited { target, asked: 0, ask_at: self.now().elapsed });
        self.ask_statement_again();
    }

    fn fetch(&mut self, statement: Digest, release: Box<Release>) -> Option<Event> {
        if matches!(self.releases.open_release(statement), Ok(Some(_))) {
            return Some(Event::Fetched(statement, Ok(())));
        }
        let kept = [release.chunk_list.digest, release.bundle.digest];
        if let Err(error) = self.partials.keep_only(&kept) {
            tracing::warn!(%error, "old partial downloads could not be removed");
        }
        let pace = Pace { patience: self.config.patience(), ..Pace::default() };
        let seed = self.boot.0 ^ self.machine.record().accepted.0;
        match Download::new(statement, release, self.partials.clone(), pace, seed) {
            Ok(mut download) => {
                let now = self.now().elapsed;
                let notices = match self.open_session() {
                    Some(session) => download.connected(now, session),
                    None => Vec::new(),
                };
                self.download = Some(download);
                // The chunk list may be here whole already.
                self.notice_later(notices)
            }
            Err(reason) => Some(Event::Fetched(statement, Err(reason))),
        }
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

    fn take_notices(&mut self, notices: Vec<Notice>) -> Vec<Event> {
        let Some(statement) = self.download.as_ref().map(Download::statement) else { return Vec::new() };
        let mut events = Vec::new();
        for notice in notices {
            match notice {
                Notice::Started { fetch, here } => {
                    if let Some(release) = self.machine.candidate().cloned() {
                        tracing::info!(%release, fetch = fetch.0, here = here.0, "fetching");
                        self.report_now(EventKind::Plan { release, fetch, here });
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
            // Without a file it must be here already; staging then only looks.
            let path = fetched.as_ref().map(|bundle| bundle.path().to_owned()).unwrap_or_default();
            let outcome = store.stage(&path, &release, statement).map(drop);
            let outcome = outcome.map_err(|error| error.reason());
            if let Some(Err(error)) = fetched.map(Complete::remove) {
                tracing::warn!(%error, "the unpacked bundle could not be removed");
            }
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
        if self.download.as_ref().is_some_and(|download| download.statement() == statement) {
            self.cancel_download();
        }
    }

    fn cancel_download(&mut self) {
        if let Some(download) = self.download.take() {
            download.stop();
        }
    }

    fn collect(&self, keep: Vec<Digest>) {
        let (store, partials) = (self.releases.clone(), self.partials.clone());
        let idle = self.download.is_none();
        let started = self.jobs.spawn(self.now().elapsed, "removing old releases", move || {
            match store.remove_except(&keep) {
                Ok(removed) => tracing::debug!(?removed, "collected"),
                Err(error) => tracing::warn!(%error, "old releases could not be removed"),
            }
            if idle && let Err(error) = partials.keep_only(&[]) {
                tracing::warn!(%error, "old partial downloads could not be removed");
            }
        });
        if let Err(error) = started {
            tracing::warn!(%error, "old releases stay until the next update");
        }
    }
}
