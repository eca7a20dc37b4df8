//! Reports on their way out: put under a tag where it is known which server takes it, else signed; and kept until sent.

use ed25519_dalek::SigningKey;
use serin_protocol::envelope::{KeyId, KeyRing, PublicKey, SealError, seal_to_vec};
use serin_protocol::message::Report;
use serin_protocol::tag::{TagKey, seal_tagged_to_vec, sign_instead, tagged_for};

use super::Supervisor;
use crate::disk::journal::JournalError;
use crate::disk::losses::Lost;
use crate::link::outbox::Input;

/// For which of the server's keys reports are tagged.
#[derive(Debug, Default)]
pub(super) struct Tagging {
    /// With which the server last spoke.
    spoken: Option<KeyId>,
    /// What was drawn last, and for whom.
    drawn: Option<(PublicKey, TagKey)>,
}

impl Tagging {
    /// The server has spoken with this key, and it was believed.
    pub(super) fn heard_from(&mut self, key: Option<KeyId>) {
        self.spoken = key.or(self.spoken);
    }

    /// What `own` has in common with the key that the server has: of the trusted ones, that with which it spoke last, or
    /// the only one. Of several the metadata does not say which of them this server has, and only it can check the tag.
    fn key<const N: usize>(&mut self, own: &SigningKey, trusted: &KeyRing<N>) -> Option<&TagKey> {
        let server = self.spoken.and_then(|id| trusted.find(&id)).or_else(|| trusted.only())?;
        if self.drawn.as_ref().is_none_or(|(of, _)| of != server) {
            match TagKey::of_device(own, server) {
                Ok(key) => self.drawn = Some((*server, key)),
                Err(error) => {
                    tracing::warn!(%server, %error, "reports cannot be tagged for the server's key; they are signed");
                    self.drawn = None;
                }
            }
        }
        self.drawn.as_ref().map(|(_, key)| key)
    }
}

impl Supervisor {
    pub(super) fn store_report(&mut self, report: &Report) {
        let sealed = match self.proven(report) {
            Ok(sealed) => sealed,
            Err(error) => {
                tracing::error!(%error, "a report could not be put into its envelope");
                return;
            }
        };
        let dropped = self.journal.dropped_reports();
        match self.journal.append_report(&sealed) {
            Ok(stored) => {
                let dropped = self.journal.dropped_reports().saturating_sub(dropped);
                self.reports_dropped(dropped);
                self.outbox(Input::ReportStored { key: stored.key, oldest: stored.oldest });
            }
            Err(error) => {
                tracing::warn!(%error, "a report could not be stored");
                if matches!(error, JournalError::Io(_) | JournalError::File(_)) {
                    // The next one can.
                    self.take_shelter(&error);
                }
                self.reports_dropped(1);
            }
        }
    }

    fn reports_dropped(&mut self, count: u32) {
        if count > 0 {
            self.stamp.note_dropped(count);
            // The report that says so may be dropped itself.
            self.note_losses(|losses| losses.add(Lost { events: 0, reports: count }));
        }
    }

    fn proven(&mut self, report: &Report) -> Result<Vec<u8>, SealError> {
        let wall = self.now().wall;
        let trusted = self.trust.client.fleet_keys(wall);
        match trusted.and_then(|trusted| self.trust.tagging.key(&self.key, trusted)) {
            Some(key) => seal_tagged_to_vec(report, key),
            None => seal_to_vec(report, &self.key),
        }
    }

    /// A report that is about to be sent. Has it waited until the key it is tagged for is trusted no longer, or is it not
    /// known whether it is, then it is signed: the server may not take the tag, and it is sent once.
    pub(super) fn still_proven(&self, sealed: Vec<u8>) -> Vec<u8> {
        let Some(server) = tagged_for::<Report>(&sealed) else { return sealed };
        let trusted = self.trust.client.fleet_keys(self.now().wall);
        if trusted.is_some_and(|trusted| trusted.find(&server).is_some()) {
            return sealed;
        }
        sign_instead::<Report>(&sealed, &self.key).unwrap_or_else(|error| {
            tracing::error!(%error, "a kept report could not be signed");
            sealed
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn public(seed: u8) -> PublicKey {
        PublicKey::of(&key(seed))
    }

    fn ring(seeds: &[u8]) -> KeyRing<4> {
        KeyRing::new(seeds.iter().copied().map(public)).expect("fits")
    }

    #[test]
    fn reports_are_tagged_for_the_key_that_the_server_is_known_to_have() {
        let mut tagging = Tagging::default();
        let server = |tagging: &mut Tagging, seeds: &[u8]| {
            tagging.key(&key(1), &ring(seeds)).map(|key| (key.device(), key.server()))
        };
        let of = |seed: u8| Some((public(1).id(), public(seed).id()));
        assert_eq!(server(&mut tagging, &[]), None);
        assert_eq!(server(&mut tagging, &[5]), of(5));
        // Which of two it has it must have shown.
        assert_eq!(server(&mut tagging, &[5, 6]), None);
        tagging.heard_from(Some(public(6).id()));
        tagging.heard_from(None);
        assert_eq!(server(&mut tagging, &[5, 6]), of(6));
        // Taken out of the metadata.
        assert_eq!(server(&mut tagging, &[5]), of(5));
        assert_eq!(server(&mut tagging, &[5, 7]), None);
    }
}
