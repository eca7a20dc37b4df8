//! Asking a device to hold back for a while, and saying so again until it is over.

use serin_protocol::envelope::seal_to_vec;
use serin_protocol::ids::{DeviceId, Millis, UnixMillis};
use serin_protocol::pause::{MAX_PAUSE, Pause};
use serin_protocol::topic::Topic;
use tracing::info;

use super::feed::Happening;
use super::{Draft, Fleet, FleetError};
use crate::store::DeviceRecord;

impl Fleet {
    /// Asks a device to hold transfers, repetitions and reconnections back for `span`, [`MAX_PAUSE`] at most;
    /// for no time, to go on at once. The last word counts.
    pub fn pause_device(
        &self,
        id: &DeviceId,
        span: Millis,
        now: UnixMillis,
    ) -> Result<DeviceRecord, FleetError> {
        self.change(now, |state, draft| {
            let known = state.devices.get(id);
            let mut record = known.ok_or_else(|| FleetError::NotFound(format!("device {id}")))?;
            if record.revoked.is_some() {
                return Err(FleetError::Conflict(format!("device {id} is revoked: it hears nothing")));
            }
            let until = now.plus(Millis(span.0.min(MAX_PAUSE.0)));
            record.paused_until = Some(until).filter(|until| now < *until);
            self.store.put_device(&record)?;
            info!(device = %id, seconds = until.since(now).0 / 1000, "asked to hold back");
            self.say_pause(draft, id, now, until)?;
            draft.happenings.push(Happening::Device(Box::new(record.clone())));
            state.devices.put(&record)?;
            Ok(record)
        })
    }

    /// The broker may have lost it.
    pub(super) fn say_pause_again(
        &self,
        draft: &mut Draft,
        record: &DeviceRecord,
        now: UnixMillis,
    ) -> Result<(), FleetError> {
        match record.paused_until.filter(|until| now < *until) {
            Some(until) => self.say_pause(draft, &record.hello.device, now, until),
            None => Ok(()),
        }
    }

    fn say_pause(
        &self,
        draft: &mut Draft,
        device: &DeviceId,
        now: UnixMillis,
        until: UnixMillis,
    ) -> Result<(), FleetError> {
        let pause = Pause { device: device.clone(), fleet: self.id.clone(), issued: now, until };
        draft.say(Topic::Pause(device.clone()), seal_to_vec(&pause, self.signer()?)?, true);
        Ok(())
    }
}
