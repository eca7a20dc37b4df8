//! What the broker keeps of a device that was cut off or forgotten is to go. That is owed, in the store, until the
//! broker has said that it is gone: otherwise a broker that was away, or a server that ended right after its answer,
//! would bring the device back by its own kept hello.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_protocol::envelope::PublicKey;
use serin_protocol::ids::{DeviceId, UnixMillis};
use serin_protocol::message::Hello;
use serin_protocol::topic::Topic;
use tracing::debug;

use super::{Delivery, Draft, Fleet, FleetError, Outgoing, State};
use crate::store::{DeviceRecord, DocumentChange, Shelf, Store, StoreError, documents};

/// What is owed, by device: at most one of each name that was ever known, and none for long while there is a broker.
pub(super) struct Clearings(BTreeMap<DeviceId, Clearing>);

/// One of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Clearing {
    device: DeviceId,
    /// Its key then. Another one that takes the name is another device.
    key: PublicKey,
    /// Since when; of two of one device the later is later by this.
    since: UnixMillis,
}

impl Clearings {
    pub(super) fn open(store: &dyn Store) -> Result<Self, StoreError> {
        let owed = store.documents(Shelf::Clearings)?.into_iter().map(|(name, document)| {
            let clearing: Clearing = documents::read(&name, &document)?;
            Ok((clearing.device.clone(), clearing))
        });
        owed.collect::<Result<_, StoreError>>().map(Self)
    }
}

impl Fleet {
    /// Has the broker drop what it keeps of a device that was cut off, and its hello when it is not known any more.
    pub(super) fn clear(
        &self,
        state: &mut State,
        draft: &mut Draft,
        record: &DeviceRecord,
        now: UnixMillis,
    ) -> Result<(), FleetError> {
        let device = record.hello.device.clone();
        let before = state.clearings.0.get(&device).map(|earlier| UnixMillis(earlier.since.0 + 1));
        let clearing =
            Clearing { device: device.clone(), key: record.key, since: now.max(before.unwrap_or(now)) };
        self.store.put_documents(&[DocumentChange::put(Shelf::Clearings, device.as_str(), &clearing)?])?;
        draft.outgoing.push(state.order(&clearing));
        state.clearings.0.insert(device, clearing);
        Ok(())
    }

    /// Says again what is owed.
    pub(super) fn clear_again(state: &State, draft: &mut Draft) {
        draft.outgoing.extend(state.clearings.0.values().map(|clearing| state.order(clearing)));
    }

    /// The broker has dropped what it was told to, with what is owed of `device` since `since`.
    pub fn cleared(&self, device: &DeviceId, since: UnixMillis, now: UnixMillis) -> Result<(), FleetError> {
        self.change(now, |state, _| {
            if state.clearings.0.get(device).is_some_and(|clearing| clearing.since == since) {
                self.store.put_documents(&[DocumentChange::remove(Shelf::Clearings, device.as_str())])?;
                state.clearings.0.remove(device);
                debug!(%device, "the broker keeps nothing of it any more");
            }
            Ok(())
        })
    }
}

impl State {
    fn order(&self, clearing: &Clearing) -> Outgoing {
        let Clearing { device, since, .. } = clearing;
        let mut topics = vec![Topic::Assign(device.clone()), Topic::Pause(device.clone())];
        if !self.devices.contains(device) {
            topics.push(Topic::Hello(device.clone()));
        }
        Outgoing::Clear { device: device.clone(), since: *since, topics }
    }

    /// Whether this hello is one that the broker was to drop: it tells of a device that was forgotten since.
    pub(super) fn is_cleared(&self, hello: &Hello, delivery: Delivery) -> bool {
        let kept = match delivery {
            Delivery::Live => false,
            Delivery::Kept | Delivery::Earlier => true,
        };
        let owed = self.clearings.0.get(&hello.device);
        kept && !self.devices.contains(&hello.device)
            && owed.is_some_and(|clearing| clearing.key == hello.key)
    }
}
