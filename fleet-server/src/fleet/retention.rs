//! How long what devices reported stays as it came, and what is left of it afterwards.

use serin_protocol::ids::{Millis, ReleaseId, UnixMillis};

use super::{Fleet, FleetError};
use crate::store::Sum;

/// How long reports stay as they came, unless the configuration says otherwise.
pub const RAW: Millis = Millis::from_secs(7 * 24 * 3600);

/// Shortest: alerts look back a day, and so does a rollout from its start.
pub const RAW_SHORTEST: Millis = Millis::from_secs(2 * 24 * 3600);

/// Longest: each device keeps some 150 KB for each release that it ran.
pub const RAW_LONGEST: Millis = Millis::from_secs(90 * 24 * 3600);

impl Fleet {
    /// Makes old reports part of sums, never what a rollout under way may still ask for.
    pub fn fold_old_reports(&self, now: UnixMillis) -> Result<(), FleetError> {
        let mut before = UnixMillis(now.0.saturating_sub(self.raw_reports.0));
        let asked_for =
            self.rollouts(|rollout| (!rollout.state().is_finished()).then(|| rollout.looks_back_to()));
        for from in asked_for.into_iter().flatten() {
            before = before.min(from);
        }
        for facts in self.releases() {
            self.store.fold_reports(&facts.record.release.id, before, now)?;
        }
        self.store.bound_sums()?;
        Ok(self.store.commit()?)
    }

    /// What is left of older reports about a release, oldest first.
    pub fn history(&self, release: &ReleaseId) -> Result<Vec<Sum>, FleetError> {
        self.release(release)?;
        Ok(self.store.sums(release)?)
    }
}
