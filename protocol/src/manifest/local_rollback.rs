//! When a device takes the release back by itself, whatever the fleet can or cannot say: signed with the release, and
//! off unless it is written there.

use alloc::format;
use alloc::string::String;
use serde::{Deserialize, Serialize};

use super::PredictionSpec;
use crate::ids::{BasisPoints, Millis};

/// Longest time that a collapse may have to hold: a week shows every daily and weekly load.
pub const MAX_HOLD: Millis = Millis::from_secs(7 * 24 * 3600);

/// When a device takes the release back by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalRollback {
    /// Too many inferences fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<ErrorLimit>,
    /// It predicts hardly anything but one class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collapse: Option<CollapseLimit>,
}

/// How many inferences may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorLimit {
    /// A larger share is too large.
    pub share: BasisPoints,
    /// Inferences that are looked at together, at least.
    pub requests: u32,
}

/// How much of what is predicted may be one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollapseLimit {
    /// A larger share is too large.
    pub share: BasisPoints,
    /// Predictions that are looked at together, at least.
    pub predictions: u32,
    /// How long it must be so without a break, in milliseconds.
    pub hold: Millis,
}

impl LocalRollback {
    pub(super) fn check(&self, prediction: Option<&PredictionSpec>) -> Result<(), String> {
        let part = |share: BasisPoints| share.0 > 0 && share < BasisPoints::WHOLE;
        if self.errors.is_none() && self.collapse.is_none() {
            return Err("local_rollback: say errors or collapse, or leave it out".into());
        }
        if self.errors.is_some_and(|limit| !part(limit.share) || limit.requests == 0) {
            return Err(
                "local_rollback.errors: the share is above 0 and below 100 %, of at least 1 request".into()
            );
        }
        let Some(limit) = self.collapse else { return Ok(()) };
        if !part(limit.share) || limit.predictions == 0 || limit.hold > MAX_HOLD {
            return Err(format!(
                "local_rollback.collapse: the share is above 0 and below 100 %, of at least 1 prediction, for {} days at most",
                MAX_HOLD.0 / (24 * 3600 * 1000)
            ));
        }
        match prediction.and_then(PredictionSpec::class) {
            Some(class) if class.classes > 1 => Ok(()),
            Some(_) | None => {
                Err("local_rollback.collapse: the model predicts no class out of several".into())
            }
        }
    }
}
