//! The part of the configuration about review samples.

use serde::Deserialize;
use serin_protocol::ids::{ByteCount, FieldName};
use serin_protocol::review::MAX_REDACTED;

/// What of its requests leaves the device for people to look at: nothing unless it is said here and by the owner of the
/// release.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Review {
    /// Whether anything does.
    pub enabled: bool,
    /// Most samples in a day of UTC.
    pub per_day: u32,
    /// Most bytes in a day of UTC.
    #[serde(deserialize_with = "super::size")]
    pub bytes_per_day: ByteCount,
    /// Inputs and features that are left out, besides those that the owner leaves out.
    pub redact: Vec<FieldName>,
}

impl Default for Review {
    fn default() -> Self {
        Self { enabled: false, per_day: 50, bytes_per_day: ByteCount::from_mib(1), redact: Vec::new() }
    }
}

impl Review {
    /// What is wrong with it, in words.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.redact.len() > MAX_REDACTED {
            return Err(format!("review.redact: at most {MAX_REDACTED} fields"));
        }
        Ok(())
    }
}
