//! What the device says about its releases, how often, and what it remembers for it.

use std::time::Duration;

use serde::Deserialize;
use serin_protocol::ids::ByteCount;

use super::{size, span};
use crate::telemetry::answers::{DEFAULT_LIFE, DEFAULT_REQUESTS, MAX_LIFE, MAX_REQUESTS};

/// How often the device reports.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Length of a window: 1 second to 1 day. Windows start at its multiples since 1970.
    #[serde(deserialize_with = "span")]
    pub window: Duration,
    /// Reports kept while offline, in bytes; beyond that the oldest are dropped and counted.
    #[serde(deserialize_with = "size")]
    pub backlog: ByteCount,
    /// Requests whose predictions are remembered, over restarts too, until the truth becomes known; 0 for none.
    pub answers: usize,
    /// How long each is: 14 days at most.
    #[serde(deserialize_with = "span")]
    pub answers_for: Duration,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            window: Duration::from_mins(1),
            backlog: ByteCount::from_mib(8),
            answers: DEFAULT_REQUESTS,
            answers_for: Duration::from_millis(DEFAULT_LIFE.0),
        }
    }
}

impl Telemetry {
    pub(super) fn check(&self) -> Result<(), String> {
        if !(Duration::from_secs(1)..=Duration::from_hours(24)).contains(&self.window) {
            return Err("telemetry.window: must be between 1s and 24h".into());
        }
        if self.answers > MAX_REQUESTS {
            return Err(format!("telemetry.answers: must be at most {MAX_REQUESTS}"));
        }
        if self.answers_for > Duration::from_millis(MAX_LIFE.0) {
            return Err("telemetry.answers_for: must be at most 14d".into());
        }
        Ok(())
    }
}
