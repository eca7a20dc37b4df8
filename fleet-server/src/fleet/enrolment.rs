//! Who becomes one of the fleet.

use serin_protocol::enrolment::{ClaimToken, Enrolled, Enrolment, EnrolmentRefusal, TokenId};
use serin_protocol::envelope::seal_to_vec;
use serin_protocol::ids::{DeviceId, FleetId, Millis, UnixMillis};
use serin_protocol::topic::Topic;
use tracing::info;
use zeroize::Zeroizing;

use super::devices::MAX_DEVICES;
use super::{Delivery, Draft, Fleet, FleetError, State};
use crate::ingest::Refused;
use crate::store::{DeviceRecord, TokenRecord};

/// Most claim tokens at a time: a pallet of devices.
pub const MAX_TOKENS: usize = 10_000;

/// Longest time for which a token is good: 90 days.
pub const MAX_VALID: Millis = Millis::from_secs(90 * 24 * 3600);

/// Tokens are shown for this long after they were used or have expired.
const REMEMBERED: Millis = Millis::from_secs(30 * 24 * 3600);

/// Who is taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Whoever shows a claim token.
    #[default]
    Token,
    /// Whoever says hello first under a name: for trying things out, and behind other walls.
    Open,
}

impl std::str::FromStr for Policy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "token" => Ok(Self::Token),
            "open" => Ok(Self::Open),
            _ => Err("say `token` or `open`"),
        }
    }
}

impl Fleet {
    /// Makes a claim token, good once within `valid`, for `device` if it is said.
    pub fn invite(
        &self,
        device: Option<DeviceId>,
        valid: Millis,
        now: UnixMillis,
    ) -> Result<(ClaimToken, TokenRecord), FleetError> {
        let (mut id, mut secret) = ([0; 8], Zeroizing::new([0; 32]));
        getrandom::fill(&mut id).map_err(FleetError::Random)?;
        getrandom::fill(secret.as_mut_slice()).map_err(FleetError::Random)?;
        let token = ClaimToken::new(TokenId(u64::from_be_bytes(id)), *secret);
        let record = TokenRecord {
            id: token.id,
            token: token.text().as_str().to_owned(),
            device,
            made: now,
            expires: now.plus(Millis(valid.0.min(MAX_VALID.0))),
            used_by: None,
        };
        self.change(now, |state, _| {
            let old: Vec<TokenId> = state
                .tokens
                .values()
                .filter(|token| now.since(token.expires) > REMEMBERED)
                .map(|old| old.id)
                .collect();
            for id in old {
                self.store.forget_token(id)?;
                state.tokens.remove(&id);
            }
            if state.tokens.len() >= MAX_TOKENS {
                return Err(FleetError::Conflict(format!(
                    "{MAX_TOKENS} tokens are here, the most there can be; withdraw some"
                )));
            }
            self.store.put_token(&record)?;
            state.tokens.insert(record.id, record.clone());
            info!(token = %record.id, "claim token made");
            Ok((token, record))
        })
    }

    /// All claim tokens.
    pub fn tokens(&self) -> Vec<TokenRecord> {
        self.lock().tokens.values().cloned().collect()
    }

    /// Takes a claim token back. Whoever has used it stays.
    pub fn withdraw_token(&self, id: TokenId, now: UnixMillis) -> Result<(), FleetError> {
        self.change(now, |state, _| {
            state.tokens.remove(&id).ok_or_else(|| FleetError::NotFound(format!("token {id}")))?;
            Ok(self.store.forget_token(id)?)
        })
    }

    pub(super) fn enrol(
        &self,
        state: &mut State,
        draft: &mut Draft,
        enrolment: Enrolment,
        now: UnixMillis,
    ) -> Result<Result<(), Refused>, FleetError> {
        let (device, key) = (enrolment.hello.device.clone(), enrolment.hello.key);
        let token = state.tokens.get(&enrolment.token).cloned();
        let known = state.devices.get(&device);
        let full = known.is_none() && state.devices.len() >= MAX_DEVICES;
        let judged = judge(&self.id, token.as_ref(), &enrolment, known.as_ref(), now);
        let judged = judged.and_then(|token| match (state.is_revoked(&key), full) {
            (true, _) => Err(EnrolmentRefusal::Revoked),
            (false, true) => Err(EnrolmentRefusal::FleetFull),
            (false, false) => Ok(token),
        });
        let answer =
            Enrolled { device: device.clone(), key, token: enrolment.token, refused: judged.clone().err() };
        draft.say(Topic::Enrolled(device.clone()), seal_to_vec(&answer, self.signer()?)?, false);
        match judged {
            Ok(mut token) => {
                info!(%device, %key, token = %token.id, "device enrolled");
                token.used_by = Some((device, key));
                self.store.put_token(&token)?;
                state.tokens.insert(token.id, token);
                self.enrolled(state, draft, enrolment.hello, Delivery::Live, now)
            }
            Err(refusal) => Ok(Err(Refused::Enrolment(refusal))),
        }
    }
}

/// The token that enrols the device, or why none does. That a token is unknown and that its proof is
/// wrong look the same from outside.
fn judge(
    fleet: &FleetId,
    token: Option<&TokenRecord>,
    enrolment: &Enrolment,
    known: Option<&DeviceRecord>,
    now: UnixMillis,
) -> Result<TokenRecord, EnrolmentRefusal> {
    let (device, key) = (&enrolment.hello.device, &enrolment.hello.key);
    let record = token.ok_or(EnrolmentRefusal::Token)?;
    let whole: ClaimToken = record.token.parse().map_err(|_| EnrolmentRefusal::Token)?;
    if !whole.proves(fleet, device, key, &enrolment.proof) {
        return Err(EnrolmentRefusal::Token);
    }
    if known.is_some_and(|known| known.revoked.is_some()) {
        return Err(EnrolmentRefusal::Revoked);
    }
    match &record.used_by {
        // The answer was lost on the way: the device is one of the fleet with this key.
        Some((by, with)) if by == device && with == key && known.is_some_and(|known| known.key == *key) => {
            return Ok(record.clone());
        }
        Some(_) => return Err(EnrolmentRefusal::Used),
        None => {}
    }
    if record.expires <= now {
        return Err(EnrolmentRefusal::Expired);
    }
    if record.device.as_ref().is_some_and(|only| only != device) {
        return Err(EnrolmentRefusal::OtherDevice);
    }
    if known.is_some_and(|known| known.key != *key) {
        return Err(EnrolmentRefusal::NameTaken);
    }
    Ok(record.clone())
}
