//! Reports taken in: what devices say most by far, so that nothing is done for each that can be done once for all that
//! arrived together.

use serin_protocol::envelope::PublicKey;
use serin_protocol::ids::{Millis, UnixMillis};
use serin_protocol::message::Report;
use serin_protocol::topic::Topic;
use serin_protocol::trust::Key;

use super::roster::Member;
use super::{Fleet, FleetError, State};
use crate::ingest::{Refused, Sender, Signer};

/// Reports that come closer together than this do not each say anew when their device was last seen: a record is written
/// for it.
const SEEN_STEP: Millis = Millis::from_secs(10);

/// What messages that arrived together share.
pub(super) struct Batch<'a> {
    signers: Vec<Signer<'a>>,
    /// Times that sums of reports must not reach over; none before a report asks for them.
    fences: Option<Vec<UnixMillis>>,
    /// Where the next report is read.
    spare: Option<Box<Report>>,
}

impl<'a> Batch<'a> {
    /// Of messages that may be tagged for `signers`.
    pub(super) const fn new(signers: Vec<Signer<'a>>) -> Self {
        Self { signers, fences: None, spare: None }
    }

    /// Another message comes: all but a report may move a rollout, and with it a fence.
    pub(super) fn next(&mut self, topic: &Topic) {
        if !matches!(topic, Topic::Report(_)) {
            self.fences = None;
        }
    }

    /// A device that is known, as whoever looks at its message needs it.
    pub(super) fn sender<'b>(&'b mut self, member: &'b mut Member) -> Sender<'b> {
        let (key, tag) = member.keys();
        Sender { key, signers: &self.signers, tag, spare: &mut self.spare }
    }

    /// A report is over.
    pub(super) fn take_back(&mut self, report: Box<Report>) {
        self.spare = Some(report);
    }
}

impl Fleet {
    /// Our keys for which devices may tag reports: those that the published metadata names; before there is any, the
    /// newest. One that was taken out of it may be a thief's by now.
    pub(super) fn tag_signers(&self) -> Vec<Signer<'_>> {
        let named = (self.named)();
        if named.is_empty() {
            return self.signers.last().map(Signer::new).into_iter().collect();
        }
        let ours = self.signers.iter();
        let ours = ours.filter(|key| named.contains(&Key::ed25519(&PublicKey::of(key)).name()));
        ours.map(Signer::new).collect()
    }

    pub(super) fn report(
        &self,
        state: &mut State,
        batch: &mut Batch<'_>,
        (report, wire): (&Report, &[u8]),
        now: UnixMillis,
    ) -> Result<Result<(), Refused>, FleetError> {
        let facts = state.releases.get(&report.release).cloned();
        let (Some(facts), Some(member)) = (facts, state.devices.member(&report.device)) else {
            return Ok(Err(Refused::NotOurs));
        };
        if !facts.fits(report) {
            return Ok(Err(Refused::NotOurs));
        }
        if now.since(member.last_seen()) >= SEEN_STEP
            && let Some(record) = member.seen(now)
        {
            self.store.put_device(&record)?;
        }
        let fences = batch.fences.get_or_insert_with(|| state.fences());
        if self.store.add_report(report, wire, fences)? {
            self.metrics.report(report);
        } else {
            self.metrics.repeated_report();
        }
        Ok(Ok(()))
    }
}
