//! Who is cut off, for good: what a key has said once must not bring it back.
//!
//! A device that is cut off stays known, so that its name is refused. When it is forgotten its name is free
//! again, and its key goes on a list that nothing takes it from.

use serin_protocol::enrolment::TokenId;
use serin_protocol::envelope::PublicKey;
use serin_protocol::ids::{DeviceId, UnixMillis};
use serin_protocol::message::Presence;
use tracing::{info, warn};

use super::feed::Happening;
use super::{Fleet, FleetError, State};
use crate::rollout::event::{RolloutEvent, Sighting};
use crate::store::{DeviceRecord, RevokedKey};

/// Most keys of revoked devices, listed or forgotten: as many as a full fleet has devices, 40 bytes of memory
/// each. None is dropped to make room, as it would be let in again.
const MAX_REVOKED_KEYS: usize = 250_000;

impl Fleet {
    /// Cuts a device off: the embedded broker lets it in no more, and nothing it says counts. Its key is good
    /// for nothing from now on, under no name.
    pub fn revoke_device(&self, id: &DeviceId, now: UnixMillis) -> Result<(), FleetError> {
        self.change(now, |state, draft| {
            let known = state.devices.get(id);
            let mut record = known.ok_or_else(|| FleetError::NotFound(format!("device {id}")))?;
            record.revoked = Some(record.revoked.unwrap_or(now));
            record.hello.presence = Presence::Offline;
            self.store.put_device(&record)?;
            warn!(device = %id, "device revoked");
            let gone = Sighting::from(&record);
            draft.happenings.push(Happening::Device(Box::new(record.clone())));
            state.revoked_keys.insert(record.key);
            state.devices.put(&record)?;
            state.assigned.remove(id);
            self.clear(state, draft, &record, now)?;
            self.revoked.insert(id.clone());
            self.tell_rollouts(state, draft, now, &RolloutEvent::DeviceSeen(gone))
        })
    }

    /// Forgets a device with its key, its events, its assignment and the tokens it used, so that one with a
    /// new key may take its name. What the broker keeps of it goes as soon as that can be reached. Where whoever comes first is believed, it is known again at its next hello;
    /// unless it was revoked, as a revoked key stays out.
    pub fn forget_device(&self, id: &DeviceId, now: UnixMillis) -> Result<(), FleetError> {
        self.change(now, |state, draft| {
            let record = state.devices.get(id);
            let record = record.ok_or_else(|| FleetError::NotFound(format!("device {id}")))?;
            self.keep_out(&record, state.revoked_keys.len())?;
            info!(device = %id, key = %record.key, "device forgotten");
            self.forget_tokens_of(state, id)?;
            state.devices.remove(id);
            // First: a cut in between leaves a known device, which is told again what it needs.
            self.clear(state, draft, &record, now)?;
            self.store.forget_device(id)?;
            self.revoked.remove(id);
            state.assigned.remove(id);
            state.gaps.remove(id);
            let mut gone = Sighting::from(&record);
            gone.presence = Presence::Offline;
            self.tell_rollouts(state, draft, now, &RolloutEvent::DeviceSeen(gone))
        })
    }

    /// Before its record goes: a cut between the two leaves a key that is out twice, never one that is in.
    fn keep_out(&self, record: &DeviceRecord, known: usize) -> Result<(), FleetError> {
        let Some(at) = record.revoked else { return Ok(()) };
        if known > MAX_REVOKED_KEYS {
            return Err(FleetError::Conflict(format!(
                "{MAX_REVOKED_KEYS} keys are revoked, the most there can be; leave this device as it is, revoked"
            )));
        }
        let device = record.hello.device.clone();
        Ok(self.store.add_revoked_key(&RevokedKey { key: record.key, device, at })?)
    }

    /// What proved once that this device was given a token proves it no longer.
    fn forget_tokens_of(&self, state: &mut State, id: &DeviceId) -> Result<(), FleetError> {
        let used =
            state.tokens.values().filter(|token| token.used_by.as_ref().is_some_and(|(by, _)| by == id));
        let used: Vec<TokenId> = used.map(|token| token.id).collect();
        for token in used {
            self.store.forget_token(token)?;
            state.tokens.remove(&token);
        }
        Ok(())
    }
}

impl State {
    /// Whether a key was cut off, under whatever name.
    pub(super) fn is_revoked(&self, key: &PublicKey) -> bool {
        self.revoked_keys.contains(key)
    }
}
