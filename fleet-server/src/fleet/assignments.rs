//! What devices are told: numbered, signed, and said again until they have it.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use serin_protocol::assignment::{Assignment, Order, Probation, TrialMode};
use serin_protocol::envelope::{KeyRing, PublicKey, open, seal_to_vec};
use serin_protocol::ids::{BasisPoints, DeviceId, RolloutId, SequenceNumber, UnixMillis};
use serin_protocol::topic::Topic;
use tracing::{info, warn};

use super::secrets::MAX_KEYS;
use super::{Draft, Fleet, FleetError, State};
use crate::rollout::event::{Effect, Effects};
use crate::store::{Assigned, DeviceRecord};

impl Fleet {
    /// Numbers and signs what effects tell devices.
    pub(super) fn assignments(
        &self,
        state: &State,
        id: RolloutId,
        effects: &Effects,
        now: UnixMillis,
    ) -> Result<Vec<Assigned>, FleetError> {
        let signer = self.signer()?;
        let mut made: BTreeMap<&DeviceId, SequenceNumber> = BTreeMap::new();
        let mut assigned = Vec::new();
        for effect in effects {
            if let Some((device, order, expires)) = told(effect, now) {
                let last = made.get(device).copied().unwrap_or_else(|| last_sequence(state, device));
                let sequence = SequenceNumber(last.0.saturating_add(1));
                made.insert(device, sequence);
                log_order(id, device, &order);
                let assignment = Assignment {
                    device: device.clone(),
                    fleet: self.id.clone(),
                    sequence,
                    rollout: Some(id),
                    issued: now,
                    expires,
                    order,
                };
                let sealed = seal_to_vec(&assignment, signer)?;
                assigned.push(Assigned { device: device.clone(), sequence, sealed });
            }
        }
        Ok(assigned)
    }

    /// Signs anew, by the key that signs now, what another key signed: devices believe that one no longer.
    pub fn sign_anew(&self, now: UnixMillis) -> Result<(), FleetError> {
        if self.signers.len() == 1 {
            // Nothing else of ours has signed.
            return Ok(());
        }
        self.change(now, |state, draft| {
            let signer = self.signer()?;
            let current = ring([signer]);
            let mut anew = Vec::new();
            for assigned in self.store.assignments()? {
                if !state.assigned.contains_key(&assigned.device) {
                    // It was cut off: nobody is told.
                    continue;
                }
                if open::<Assignment, MAX_KEYS>(&assigned.sealed, &current).is_ok() {
                    continue;
                }
                // What none of our keys signed was signed with one that has been deleted since.
                let Ok(assignment) = open::<Assignment, MAX_KEYS>(&assigned.sealed, &ring(&self.signers))
                else {
                    warn!(device = %assigned.device, "its assignment is signed by a key that is gone");
                    continue;
                };
                anew.push(Assigned { sealed: seal_to_vec(&assignment, signer)?, ..assigned });
            }
            self.store.put_assignments(&anew)?;
            for assigned in anew {
                draft.say(Topic::Assign(assigned.device), assigned.sealed, true);
            }
            Ok(())
        })
    }

    /// The device has not shown that it has its last assignment: it is said again.
    pub(super) fn say_again(
        &self,
        state: &State,
        draft: &mut Draft,
        record: &DeviceRecord,
    ) -> Result<(), FleetError> {
        let device = &record.hello.device;
        if state.assigned.get(device).is_some_and(|made| *made > record.hello.sequence)
            && let Some(assigned) = self.store.assignment(device)?
        {
            draft.say(Topic::Assign(assigned.device), assigned.sealed, true);
        }
        Ok(())
    }
}

/// What an effect tells which device, and until when.
fn told(effect: &Effect, now: UnixMillis) -> Option<(&DeviceId, Order, UnixMillis)> {
    match effect {
        Effect::Assign { device, order, expires } => Some((device, order.clone(), *expires)),
        Effect::Shadow { device, release, expires } => {
            let probation = Probation { duration: expires.since(now), ..Probation::default() };
            // Of everything: what a device cannot compute besides answering it leaves out by itself.
            let mode = TrialMode::Shadow { share: BasisPoints::WHOLE };
            Some((device, Order::Try { release: release.clone(), mode, probation }, *expires))
        }
        Effect::Gather(_) | Effect::Record(_) | Effect::StateChanged { .. } | Effect::Reply(_) => None,
    }
}

/// As many of `keys` as there may be of one kind.
fn ring<'a>(keys: impl IntoIterator<Item = &'a SigningKey>) -> KeyRing<MAX_KEYS> {
    KeyRing::new(keys.into_iter().take(MAX_KEYS).map(PublicKey::of)).unwrap_or_default()
}

/// The highest number made for a device, or, where this server was restored from an older copy, accepted
/// by it.
pub(super) fn last_sequence(state: &State, device: &DeviceId) -> SequenceNumber {
    let made = state.assigned.get(device).copied().unwrap_or(SequenceNumber(0));
    let accepted = state.devices.get(device).map_or(SequenceNumber(0), |record| record.hello.sequence);
    made.max(accepted)
}

fn log_order(rollout: RolloutId, device: &DeviceId, order: &Order) {
    match order {
        Order::Run { release, .. } => info!(%rollout, %device, release = %release.id, "told to run"),
        Order::RollBack { from, to } => info!(%rollout, %device, %from, to = %to.id, "told to return"),
        Order::Stay => info!(%rollout, %device, "told to stay"),
        Order::Try { release, mode, .. } => {
            info!(%rollout, %device, release = %release.id, ?mode, "told to try");
        }
    }
}
