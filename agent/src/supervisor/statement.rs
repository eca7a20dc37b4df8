//! The statement of a release to come: asked for until it is here, checked, and held against what the device has to offer.

use bytes::Bytes;
use serin_protocol::assignment::ReleaseRef;
use serin_protocol::ids::{ByteCount, Digest, Millis};
use serin_protocol::message::{Detail, Reason};
use serin_protocol::release::Release;
use serin_protocol::topic::{FileName, Topic};

use super::Supervisor;
use crate::link::backoff::Backoff;
use crate::update::admission::Means;
use crate::update::effect::Event;
use crate::worker;

/// A statement that has not come by then is asked for again: the server may be publishing it just now.
const RETRY: Backoff = Backoff { first: Millis::from_secs(15), cap: Millis::from_secs(1800) };

/// A release's statement that is waited for.
pub(super) struct Awaited {
    pub(super) target: ReleaseRef,
    /// Asked for so often.
    pub(super) asked: u32,
    /// To be asked for again then.
    pub(super) ask_at: Millis,
}

impl Supervisor {
    /// An owner lists it: now its statement is wanted.
    pub(super) fn await_statement(&mut self, target: ReleaseRef) {
        self.awaited = Some(Awaited { target, asked: 0, ask_at: self.now().elapsed });
        self.ask_statement_again();
    }

    /// Subscribes to the statement that is waited for, when it is time to.
    pub(super) fn ask_statement_again(&mut self) {
        let now = self.now().elapsed;
        let Some(session) = self.open_session() else { return };
        let Some(awaited) = self.awaited.as_mut().filter(|awaited| awaited.ask_at <= now) else { return };
        let topic = Topic::Metadata(FileName::of_release(&awaited.target.statement));
        // A subscription anew brings the retained message anew. If the link is busy, the next turn is due.
        if session.unsubscribe(&topic).and_then(|()| session.subscribe(&topic)).is_ok() {
            awaited.asked = awaited.asked.saturating_add(1);
            awaited.ask_at = now.plus(RETRY.wait(awaited.asked, &mut self.jitter));
        }
    }

    pub(super) fn awaits(&self, file: &FileName) -> bool {
        self.awaited.as_ref().is_some_and(|awaited| *file == FileName::of_release(&awaited.target.statement))
    }

    pub(super) fn on_statement(&mut self, file: &FileName, payload: &Bytes) {
        let awaited = self.awaited.as_ref().filter(|_| !payload.is_empty());
        let Some(target) = awaited.map(|awaited| awaited.target.clone()) else { return };
        let outcome = self.check_statement(&target, payload);
        self.awaited = None;
        if let Some(session) = &self.session {
            // At worst the same file comes once more and finds nobody waiting.
            let _ = session.unsubscribe(&Topic::Metadata(file.clone()));
        }
        self.feed(Event::Statement { statement: target.statement, outcome });
    }

    /// The digest that its owner lists, then what the device has to offer.
    fn check_statement(&self, target: &ReleaseRef, payload: &[u8]) -> Result<(Box<Release>, Means), Reason> {
        let bad = |text: &str| Reason::BadStatement(Detail::new(text));
        if Digest::of(payload) != target.statement {
            return Err(bad("its digest is not the assigned one"));
        }
        let release = Release::parse(payload).map_err(|error| bad(&error.to_string()))?;
        Ok((Box::new(release), self.means(target.statement)?))
    }

    /// What the device has to offer a release now.
    pub(super) fn means(&self, statement: Digest) -> Result<Means, Reason> {
        let free =
            self.releases.free_space().map_err(|error| Reason::Storage(Detail::new(&error.to_string())))?;
        let record = self.machine.record();
        Ok(Means {
            target: self.config.target.clone(),
            target_lacks: self.class_lacks.clone(),
            hardware: self.hardware.clone(),
            memory_budget: self.config.models.memory,
            // In safe mode it has no worker.
            memory_active: record
                .active
                .as_ref()
                .filter(|_| !record.safe_mode)
                .map_or(ByteCount(0), |slot| slot.memory),
            swap: self.config.models.swap,
            decoders: worker::decoders(),
            free_space: ByteCount(free.0.saturating_sub(self.config.models.reserve.0)),
            installed: matches!(self.releases.open_release(statement), Ok(Some(_))),
        })
    }
}
