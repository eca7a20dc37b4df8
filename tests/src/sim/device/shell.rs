//! Carrying out what the machine wants, as the agent's supervisor does.

use serin_agent::disk::install;
use serin_agent::disk::intake::take_in;
use serin_agent::link::transfer::Pace;
use serin_agent::supervisor::download::Download;
use serin_agent::update::effect::{Effect, Event, Now};
use serin_agent::update::machine::Machine;
use serin_agent::update::shell::Shell;
use serin_protocol::ids::{Digest, EventNumber};
use serin_protocol::message::{Detail, Reason};
use serin_protocol::release::Release;

use super::Device;

impl Shell for Device {
    fn now(&self) -> Now {
        self.now
    }

    fn machine(&mut self) -> &mut Machine {
        &mut self.machine
    }

    fn carry_out(&mut self, effect: Effect) -> Result<Option<Event>, Reason> {
        match effect {
            Effect::Persist(record) => install::save(&mut self.boot, *record, EventNumber(0))?,
            Effect::FetchStatement(target) => {
                let effects = self.trust.search(self.now, target);
                self.trust_effects.extend(effects);
            }
            Effect::Fetch(statement, release) => return Ok(self.fetch(statement, release)),
            Effect::Receive(statement, release) => return Ok(Some(self.receive(statement, &release))),
            Effect::Stage(statement, release) => {
                let fetched =
                    self.fetched.take().filter(|(of, _)| *of == statement).map(|(_, bundle)| bundle);
                let outcome = install::stage(&self.releases, fetched, &release, statement);
                return Ok(Some(Event::Staged(statement, outcome)));
            }
            Effect::Warm { slot, .. } => return Ok(Some(self.warm(slot.statement))),
            Effect::Flip(slot) => {
                if self.workers.contains(&slot.statement) {
                    self.serving = Some(slot.statement);
                }
            }
            Effect::Unserve | Effect::Suspend => self.serving = None,
            Effect::Stop(statement) => {
                self.workers.remove(&statement);
                if self.serving == Some(statement) {
                    self.serving = None;
                }
            }
            Effect::CancelFetch(statement) => {
                self.trust.cancel_search(statement);
                if self.download.as_ref().is_some_and(|download| download.statement() == statement) {
                    self.download = None;
                }
            }
            Effect::Collect(keep) => {
                let idle = self.download.is_none();
                install::collect(&self.releases, &self.partials, &keep, idle);
            }
            Effect::Report { kind, .. } => self.said.push(kind),
            Effect::PlanLater(..) | Effect::Beside(_) | Effect::ForgetStarts | Effect::Announce => {}
            Effect::AskAssignment => self.hear_assignment(),
            Effect::Reply(reply) => self.replies.push(reply),
        }
        Ok(None)
    }
}

impl Device {
    fn fetch(&mut self, statement: Digest, release: Box<Release>) -> Option<Event> {
        if matches!(self.releases.open_release(statement), Ok(Some(_))) {
            return Some(Event::Fetched(statement, Ok(())));
        }
        match Download::new(statement, release, self.partials.clone(), Pace::default(), 1) {
            Ok(mut download) => {
                let notices = if self.connected { download.connected(self.now.elapsed) } else { Vec::new() };
                self.download = Some(download);
                self.take(notices);
                None
            }
            Err(reason) => Some(Event::Fetched(statement, Err(reason))),
        }
    }

    fn receive(&mut self, statement: Digest, release: &Release) -> Event {
        let pieces = self.brought.take().into_iter().map(|bundle| Ok(bundle.into()));
        let taken = take_in(&self.partials, release.bundle, pieces).map_err(|error| error.reason());
        let outcome = taken.map(|bundle| self.fetched = Some((statement, bundle)));
        Event::Fetched(statement, outcome)
    }

    /// A worker starts if everything it reads is what was signed.
    fn warm(&mut self, statement: Digest) -> Event {
        match self.verify(statement) {
            Ok(()) => {
                self.workers.insert(statement);
                Event::Warmed(statement, Ok(()))
            }
            Err(error) => Event::Warmed(statement, Err(Reason::LoadFailed(Detail::new(&error.to_string())))),
        }
    }
}
