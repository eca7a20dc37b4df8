//! Trying a release beside the one that a device runs, by an operator's direct order, and what shadows were found to
//! do on the inputs that another release answered.

use std::collections::{BTreeMap, BTreeSet};

use serin_protocol::assignment::{Assignment, Order, Probation, TrialMode};
use serin_protocol::envelope::seal_to_vec;
use serin_protocol::ids::{DeviceId, Millis, ReleaseId, SequenceNumber, UnixMillis};
use serin_protocol::message::Comparison;
use serin_protocol::topic::Topic;
use tracing::info;

use super::assignments::last_sequence;
use super::drift::WINDOW;
use super::{Fleet, FleetError};
use crate::store::Assigned;

/// Time for a device to hear of a trial and to fetch the release, after which the order is void: one night.
const TIME_TO_BEGIN: Millis = Millis::from_secs(12 * 3600);

/// How a release did as a shadow, over all devices that tried it.
#[derive(Clone, Debug, PartialEq)]
pub struct Shadowed {
    /// Windows from here on are in it.
    pub since: UnixMillis,
    /// Who reported.
    pub devices: BTreeSet<DeviceId>,
    /// One for each release it was compared with.
    pub comparisons: Vec<Comparison>,
}

impl Fleet {
    /// Has a device try `release` beside the one that answers there, `mode` saying how and `probation` how long and
    /// within which limits. Answers the number of the order.
    pub fn try_release(
        &self,
        device: &DeviceId,
        release: &ReleaseId,
        mode: TrialMode,
        probation: Probation,
        now: UnixMillis,
    ) -> Result<SequenceNumber, FleetError> {
        self.change(now, |state, draft| {
            let record = state.devices.get(device);
            let record = record.ok_or_else(|| FleetError::NotFound(format!("device {device}")))?;
            if record.revoked.is_some() {
                return Err(FleetError::Conflict(format!("device {device} is revoked: it hears nothing")));
            }
            let busy = state.live().find(|rollout| rollout.fleet().get(device).is_some());
            if let Some(busy) = busy {
                let (id, of) = (busy.id(), &busy.release().id);
                return Err(FleetError::Conflict(format!(
                    "rollout {id} of {of} is {}; a trial beside it would disturb what it measures",
                    busy.state()
                )));
            }
            let order = Order::Try { release: self.publishable(state, release)?, mode, probation };
            let sequence = SequenceNumber(last_sequence(state, device).0.saturating_add(1));
            let assignment = Assignment {
                device: device.clone(),
                fleet: self.id.clone(),
                sequence,
                rollout: None,
                issued: now,
                expires: now.plus(TIME_TO_BEGIN),
                order,
            };
            let sealed = seal_to_vec(&assignment, self.signer()?)?;
            let assigned = Assigned { device: device.clone(), sequence, sealed };
            self.store.put_assignments(std::slice::from_ref(&assigned))?;
            info!(%device, %release, ?mode, "told to try");
            draft.say(Topic::Assign(device.clone()), assigned.sealed, true);
            state.assigned.insert(device.clone(), sequence);
            Ok(sequence)
        })
    }

    /// How `release` did as a shadow over the last [`WINDOW`].
    pub fn shadowed(&self, release: &ReleaseId, now: UnixMillis) -> Result<Shadowed, FleetError> {
        self.release(release)?;
        let since = UnixMillis(now.0.saturating_sub(WINDOW.0));
        let mut devices = BTreeSet::new();
        let mut comparisons: BTreeMap<ReleaseId, Comparison> = BTreeMap::new();
        self.store.visit_reports(release, since, &mut |report| {
            if let Some(comparison) = &report.comparison {
                let with = comparison.with.clone();
                let sum = comparisons.entry(with.clone()).or_insert_with(|| Comparison::new(with));
                // With the same release; its bins were checked when it came.
                sum.merge(comparison);
                devices.insert(report.device.clone());
            }
        })?;
        Ok(Shadowed { since, devices, comparisons: comparisons.into_values().collect() })
    }
}
