//! How a release is tried beside the one that answers, in words: for the engineer's `status`.

use core::fmt;

use serde::{Deserialize, Serialize};
use serin_protocol::assignment::TrialMode;
use serin_protocol::ids::BasisPoints;

/// How the candidate is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialStatus {
    /// As what.
    pub role: TrialRole,
    /// Of what it is given, in basis points.
    pub share: BasisPoints,
}

/// As what a release is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrialRole {
    /// It computes what another has answered, and answers nobody.
    Shadow,
    /// It answers a share of all request keys.
    Arm,
}

impl From<TrialMode> for TrialStatus {
    fn from(mode: TrialMode) -> Self {
        match mode {
            TrialMode::Shadow { share } => Self { role: TrialRole::Shadow, share },
            TrialMode::Arm { share, salt: _ } => Self { role: TrialRole::Arm, share },
        }
    }
}

impl fmt::Display for TrialStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = f64::from(self.share.0) / 100.0;
        match self.role {
            TrialRole::Shadow => write!(f, "a shadow of {share} % of requests, answering nobody"),
            TrialRole::Arm => write!(f, "an arm that answers {share} % of request keys"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arm_is_told_from_a_shadow_with_its_share() {
        let said = |mode: TrialMode| TrialStatus::from(mode).to_string();
        let arm = said(TrialMode::Arm { share: BasisPoints(3000), salt: 7 });
        assert_eq!(arm, "an arm that answers 30 % of request keys");
        let shadow = said(TrialMode::Shadow { share: BasisPoints(1250) });
        assert_eq!(shadow, "a shadow of 12.5 % of requests, answering nobody");
    }
}
