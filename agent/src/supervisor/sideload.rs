//! A release that an engineer brings: its papers are checked at once, its bundle is written where writing may
//! wait, and he hears what became of it when it answers or is given up.

use serin_protocol::ids::{Digest, Millis, ReleaseId};
use serin_protocol::message::{Detail, EventKind, Phase, Reason, RefusedKind};
use serin_protocol::release::Release;
use tokio::sync::{mpsc, oneshot};

use super::{Inbox, Supervisor};
use crate::disk::intake::{self, take_in};
use crate::field::command::Sideload;
use crate::field::reply::{FieldCode, FieldError, FieldReply};
use crate::field::{self};
use crate::trust::offline::refresh;
use crate::update::effect::FieldOrder;

/// A sideload under way.
pub(super) struct Sideloading {
    release: ReleaseId,
    statement: Digest,
    since: Millis,
    /// Until the machine wants it.
    bundle: Option<mpsc::Receiver<intake::Piece>>,
    /// Once the machine has taken the order.
    reply: Option<oneshot::Sender<field::FieldOutcome>>,
    /// Why it was given up.
    why: Option<Reason>,
}

impl Supervisor {
    pub(super) fn sideload(
        &mut self,
        uid: u32,
        sideload: Sideload,
        reply: oneshot::Sender<field::FieldOutcome>,
    ) {
        let Sideload { papers, bundle } = sideload;
        // What is left of the last one must be put away first: both would write the same file.
        if self.sideloading.is_some() || self.receiving {
            let next = "`serin-agent status` shows how far it is";
            let busy = FieldError::new(FieldCode::Busy, "another release is being sideloaded", next);
            // He may have gone in the meantime; so below.
            let _ = reply.send(Err(busy));
            return;
        }
        let now = self.now();
        let (checked, effects) = self.trust.client.lend(now, |store| refresh(store, now.wall, &papers));
        self.trust_wants(effects);
        let release = match checked {
            Ok(release) => Box::new(release),
            Err(error) => {
                let detail = Detail::new(&format!("user {uid} brought {}: {error}", papers.release));
                self.refuse(RefusedKind::Sideload, &detail);
                let message = format!("{} is not trusted: {error}", papers.release);
                let _ = reply.send(Err(FieldError::new(FieldCode::NotTrusted, message, error.remedy())));
                return;
            }
        };
        let means = match self.means(Digest::of(&papers.statement)) {
            Ok(means) => means,
            Err(reason) => {
                let next = "check the disk that holds the agent's data, then try again";
                let _ = reply.send(Err(FieldError::new(FieldCode::Storage, reason.to_string(), next)));
                return;
            }
        };
        let statement = Digest::of(&papers.statement);
        self.sideloading = Some(Sideloading {
            release: release.id.clone(),
            statement,
            since: now.elapsed,
            bundle: Some(bundle),
            reply: None,
            why: None,
        });
        tracing::info!(uid, release = %release.id, "field engineer brings a release");
        self.order(uid, FieldOrder::Sideload { statement, release, means }, reply);
        // Refused: the engineer was told.
        self.sideloading.take_if(|sideloading| sideloading.reply.is_none());
    }

    /// The machine has taken the order.
    pub(super) fn sideload_begun(&mut self, reply: oneshot::Sender<field::FieldOutcome>) {
        if let Some(sideloading) = &mut self.sideloading {
            sideloading.reply = Some(reply);
        }
    }

    /// Takes the bundle in, in the background.
    pub(super) fn receive(&mut self, statement: Digest, release: &Release) {
        self.cancel_download();
        let Some(mut bundle) = self.sideloading.as_mut().and_then(|sideloading| sideloading.bundle.take())
        else {
            return;
        };
        let (partials, inbox, object) = (self.partials.clone(), self.inbox.clone(), release.bundle);
        // Not one of the jobs, which the watchdog expects to end soon: a stick may be slow, and the attempt has an
        // end of its own.
        self.receiving = true;
        tokio::task::spawn_blocking(move || {
            let taken = take_in(&partials, object, std::iter::from_fn(|| bundle.blocking_recv()));
            let taken = taken.map_err(|error| error.reason());
            // The loop ends only with the process.
            let _ = inbox.blocking_send(Inbox::Brought(statement, Box::new(taken)));
        });
    }

    /// A transition is reported: perhaps the end of what was brought.
    pub(super) fn note_sideload(&mut self, kind: &EventKind) {
        if let EventKind::Transition { release, to: Phase::Rejected | Phase::RolledBack, reason, .. } = kind
            && let Some(sideloading) = &mut self.sideloading
            && sideloading.release == *release
        {
            sideloading.why.clone_from(reason);
        }
    }

    /// Tells the engineer what became of what he brought, once it is known.
    pub(super) fn attend_sideload(&mut self) {
        let Some(sideloading) = &self.sideloading else { return };
        let statement = sideloading.statement;
        let answers = self.machine.serving() == Some(statement);
        let attempt = self.machine.record().attempt.as_ref();
        let unfinished = attempt.is_some_and(|attempt| attempt.target.statement == statement);
        if !answers && unfinished {
            return;
        }
        let now = self.now().elapsed;
        let Some(Sideloading { release, since, reply: Some(reply), why, .. }) = self.sideloading.take()
        else {
            return;
        };
        let outcome = if answers {
            let millis = Millis(now.0.saturating_sub(since.0));
            Ok(FieldReply::Sideloaded { release, millis })
        } else {
            let why = why.map_or_else(|| "another order took its place".into(), |why| why.to_string());
            let message = format!("{release} was not installed: {why}");
            let next = "what ran before goes on running; see `serin-agent history`";
            Err(FieldError::new(FieldCode::NotInstalled, message, next))
        };
        let _ = reply.send(outcome);
    }
}
