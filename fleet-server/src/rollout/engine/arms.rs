//! Shares that follow a reward, and the end of a shadow.

use serin_protocol::assignment::Order;
use serin_protocol::ids::BasisPoints;

use super::{DeviceId, Effect, Effects, Purpose, Rollout, Standing};

impl Rollout {
    /// A window is over: the release gets the share it deserves for the next one. The answer says why no
    /// further window will decide it.
    pub(super) fn allocate(&mut self, share: Option<BasisPoints>, effects: &mut Effects) -> Option<String> {
        let Purpose::Allocate(bandit) = self.plan.purpose(self.stage.index) else { return None };
        let (windows, share) = (bandit.windows, share?);
        self.stage.windows = self.stage.windows.saturating_add(1);
        if self.stage.windows >= windows {
            return Some(format!("neither arm has won after {windows} windows"));
        }
        self.stage.allocation = Some(share);
        let exposed = usize::try_from(self.fleet.tally().exposed).unwrap_or(0);
        let surplus = exposed.saturating_sub(self.target());
        // The last in line give it back: whoever was early stays.
        let running = self
            .fleet
            .iter()
            .filter(|(_, record)| matches!(record.standing, Standing::Running { .. }) && !record.pinned);
        let mut running: Vec<_> = running.map(|(device, record)| (record.position, device.clone())).collect();
        running.sort_unstable();
        for (_, device) in running.into_iter().rev().take(surplus) {
            self.take_back(&device, effects);
        }
        None
    }

    /// Nothing runs in the shadow any more.
    pub(super) fn end_shadows(&mut self, effects: &mut Effects) {
        let shadowing =
            self.fleet.iter().filter(|(_, record)| matches!(record.standing, Standing::Shadowing { .. }));
        let devices: Vec<DeviceId> = shadowing.map(|(device, _)| device.clone()).collect();
        let expires = self.clock.plus(self.plan.deadline);
        for device in devices {
            self.stand(&device, Standing::Waiting);
            effects.push(Effect::Assign { device, order: Order::Stay, expires });
        }
    }
}
