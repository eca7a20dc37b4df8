//! `[local_rollback]` of `serin.toml`: when a device takes the release back by itself, in the words of plans.

use serde::Deserialize;
use serin_protocol::ids::{BasisPoints, Millis};
use serin_protocol::manifest::{CollapseLimit, ErrorLimit, LocalRollback};

use crate::rollout::notation::{share, span};

/// When a device takes the release back by itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredRollback {
    errors: Option<DeclaredErrors>,
    collapse: Option<DeclaredCollapse>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredErrors {
    #[serde(deserialize_with = "share::deserialize")]
    share: BasisPoints,
    requests: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredCollapse {
    #[serde(deserialize_with = "share::deserialize")]
    share: BasisPoints,
    predictions: u32,
    #[serde(rename = "for", deserialize_with = "span::deserialize")]
    hold: Millis,
}

impl DeclaredRollback {
    /// The same as devices read it.
    pub fn policy(&self) -> LocalRollback {
        let Self { errors, collapse } = self;
        LocalRollback {
            errors: errors.as_ref().map(|limit| ErrorLimit { share: limit.share, requests: limit.requests }),
            collapse: collapse.as_ref().map(|limit| CollapseLimit {
                share: limit.share,
                predictions: limit.predictions,
                hold: limit.hold,
            }),
        }
    }
}
