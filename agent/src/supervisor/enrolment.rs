//! Becoming one of the fleet: the engineer brings a claim token, the device proves that it has it, and the
//! server's answer is the engineer's. The token is not kept.

use bytes::Bytes;
use serin_protocol::enrolment::{ClaimToken, Enrolled, Enrolment, EnrolmentRefusal, TokenId};
use serin_protocol::envelope::{PublicKey, open, seal_to_vec};
use serin_protocol::ids::Millis;
use serin_protocol::message::{Detail, EventKind, Presence, RefusedKind};
use serin_protocol::topic::Topic;
use tokio::sync::oneshot;

use super::Supervisor;
use crate::field::reply::{FieldCode, FieldError, FieldReply};
use crate::field::{self};

/// A server that is there answers at once; one that is not is told again at the next try.
const PATIENCE: Millis = Millis::from_secs(20);

/// An engineer who waits to hear from the fleet.
pub(super) struct Enrolling {
    by: u32,
    token: TokenId,
    until: Millis,
    reply: oneshot::Sender<field::FieldOutcome>,
}

impl Supervisor {
    /// Asks the fleet to take this device in.
    pub(super) fn enrol(
        &mut self,
        uid: u32,
        token: &ClaimToken,
        reply: oneshot::Sender<field::FieldOutcome>,
    ) {
        let refuse = |reply: oneshot::Sender<_>, code, message: &str, next: &str| {
            // He may have gone in the meantime; so below.
            let _ = reply.send(Err(FieldError::new(code, message, next)));
        };
        if self.enrolling.is_some() {
            return refuse(reply, FieldCode::Busy, "an enrolment is under way", "try again in a moment");
        }
        let Some(session) = self.session.clone() else {
            let next = "look at `serin-agent status`, then try again with the same token";
            return refuse(reply, FieldCode::NotConnected, "the broker cannot be reached now", next);
        };
        let key = PublicKey::of(&self.key);
        let proof = token.proof(&self.config.fleet, &self.config.device, &key);
        let enrolment = Enrolment { hello: self.hello(Presence::Online), token: token.id, proof };
        let topic = Topic::Enrol(self.config.device.clone());
        let sent = seal_to_vec(&enrolment, &self.key)
            .is_ok_and(|sealed| session.publish(&topic, sealed, false, None).is_ok());
        if !sent {
            return refuse(reply, FieldCode::Busy, "the link is busy", "try again in a moment");
        }
        let until = self.now().elapsed.plus(PATIENCE);
        self.enrolling = Some(Enrolling { by: uid, token: token.id, until, reply });
    }

    pub(super) fn on_enrolled(&mut self, payload: &Bytes) {
        let Some(keys) = self.trust.client.fleet_keys(self.now().wall) else {
            // Whoever is quick after a first start asks before the device knows who may answer.
            self.trust.enrolled = Some(payload.clone());
            return;
        };
        let enrolled = match open::<Enrolled, _>(payload, keys) {
            Ok(enrolled) => enrolled,
            Err(error) => return self.refuse(RefusedKind::Unknown, &Detail::new(&error.to_string())),
        };
        let ours = enrolled.device == self.config.device && enrolled.key == PublicKey::of(&self.key);
        let waited = |waiting: &mut Enrolling| ours && waiting.token == enrolled.token;
        let Some(Enrolling { by, reply, .. }) = self.enrolling.take_if(waited) else { return };
        let outcome = match enrolled.refused {
            None => Ok(FieldReply::Enrolled { device: enrolled.device, fleet: self.config.fleet.clone() }),
            Some(refusal) => {
                Err(FieldError::new(FieldCode::NotEnrolled, refusal.to_string(), advice(refusal)))
            }
        };
        tracing::info!(uid = by, ?outcome, "enrolment");
        if outcome.is_ok() {
            self.taken_in = true;
            self.report_now(EventKind::Enrolled { uid: by });
        }
        let _ = reply.send(outcome);
    }

    pub(super) fn enrolment_deadline(&self) -> Option<Millis> {
        self.enrolling.as_ref().map(|waiting| waiting.until)
    }

    pub(super) fn tick_enrolment(&mut self) {
        let now = self.now().elapsed;
        let Some(Enrolling { reply, .. }) = self.enrolling.take_if(|waiting| waiting.until <= now) else {
            return;
        };
        let (message, next) = match self.trust.client.problem() {
            Some(problem) => (
                format!("no answer that this device trusts: {problem}"),
                "check that the fleet's metadata is published and that trust.root is the publisher's",
            ),
            None => ("the fleet server does not answer".into(), "try again with the same token"),
        };
        let _ = reply.send(Err(FieldError::new(FieldCode::Timeout, message, next)));
    }
}

const fn advice(refusal: EnrolmentRefusal) -> &'static str {
    match refusal {
        EnrolmentRefusal::Token
        | EnrolmentRefusal::Expired
        | EnrolmentRefusal::Used
        | EnrolmentRefusal::OtherDevice => "have an operator make one with `serin-fleet device invite`",
        EnrolmentRefusal::NameTaken | EnrolmentRefusal::Revoked => {
            "have an operator look at `serin-fleet device show`; `device forget` frees the name"
        }
        EnrolmentRefusal::FleetFull => "have an operator forget devices that are gone",
    }
}
