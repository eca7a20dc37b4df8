//! What operators note about devices, so that plans can mean some of them.

use serin_protocol::ids::{DeviceId, UnixMillis};
use tracing::info;

use super::feed::Happening;
use super::{Fleet, FleetError};
use crate::rollout::event::{RolloutEvent, Sighting};
use crate::rollout::plan::selector::{MAX_TAG_BYTES, MAX_TAGS, Tags};
use crate::store::DeviceRecord;

impl Fleet {
    /// Changes tags of a device: those with a value are set, those without are taken away.
    pub fn tag_device(
        &self,
        id: &DeviceId,
        changes: &[(String, Option<String>)],
        now: UnixMillis,
    ) -> Result<DeviceRecord, FleetError> {
        self.change(now, |state, draft| {
            let known = state.devices.get(id);
            let mut record = known.ok_or_else(|| FleetError::NotFound(format!("device {id}")))?;
            for (name, value) in changes {
                match value {
                    Some(value) => record.tags.insert(name.clone(), value.clone()),
                    None => record.tags.remove(name),
                };
            }
            check(&record.tags)?;
            self.store.put_device(&record)?;
            info!(device = %id, tags = ?record.tags, "tagged");
            draft.happenings.push(Happening::Device(Box::new(record.clone())));
            let seen = Sighting::from(&record);
            state.devices.put(&record)?;
            self.tell_rollouts(state, draft, now, &RolloutEvent::DeviceSeen(seen))?;
            Ok(record)
        })
    }
}

fn check(tags: &Tags) -> Result<(), FleetError> {
    if tags.len() > MAX_TAGS {
        return Err(FleetError::Conflict(format!("a device has {MAX_TAGS} tags at most")));
    }
    let fits = |text: &String| (1..=MAX_TAG_BYTES).contains(&text.len()) && !text.contains('=');
    if tags.iter().all(|(name, value)| fits(name) && fits(value)) {
        return Ok(());
    }
    let words = format!("names and values of tags have 1 to {MAX_TAG_BYTES} bytes and no `=`");
    Err(FleetError::Conflict(words))
}
