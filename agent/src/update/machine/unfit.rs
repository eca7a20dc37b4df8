//! A release that breaks the policy its owner signed for devices on their own.

use serin_protocol::ids::Digest;
use serin_protocol::message::Reason;

use super::Machine;
use crate::update::effect::Effects;

impl Machine {
    /// The active release is left for the previous one, as after a crash, and does not come back by itself. Not where
    /// an engineer has pinned it, and not without a release to go back to: a bad answer is better than none.
    pub(super) fn unfit(&mut self, statement: Digest, reason: Reason, effects: &mut Effects) {
        if self.may_take_back(statement) {
            self.take_back(reason, effects);
        }
    }

    /// Whether the device may leave the release of `statement` by itself.
    pub fn may_take_back(&self, statement: Digest) -> bool {
        let record = &self.state.record;
        let active = record.active.as_ref().is_some_and(|slot| slot.statement == statement);
        active && record.pinned_by.is_none() && !record.safe_mode && self.has_trusted_previous()
    }
}

#[cfg(test)]
#[path = "unfit_tests.rs"]
mod tests;
