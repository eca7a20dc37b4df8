//! `[review]` in `serin.toml`: which requests people may look at, as an owner writes it.

use serde::Deserialize;
use serin_protocol::ids::{BasisPoints, ByteCount, FieldName};
use serin_protocol::review::ReviewPolicy;

use super::model_folder::ModelFolderError;
use crate::rollout::notation::share;

/// With shares as `"1%"` and sizes as `"1MiB"`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeclaredReview {
    #[serde(default = "none", with = "share")]
    random: BasisPoints,
    #[serde(default, with = "share::optional")]
    below_confidence: Option<BasisPoints>,
    #[serde(default)]
    out_of_range: bool,
    #[serde(default)]
    disagreeing: bool,
    #[serde(default)]
    redact: Vec<FieldName>,
    per_day: u32,
    bytes_per_day: String,
}

const fn none() -> BasisPoints {
    BasisPoints(0)
}

impl DeclaredReview {
    /// As it is signed.
    pub(super) fn policy(&self) -> Result<ReviewPolicy, ModelFolderError> {
        let bytes_per_day = ByteCount::parse(&self.bytes_per_day).ok_or_else(|| {
            let words = format!("review.bytes_per_day: `{}` is no size: write \"1MiB\"", self.bytes_per_day);
            ModelFolderError::Invalid(words)
        })?;
        Ok(ReviewPolicy {
            random: self.random,
            below_confidence: self.below_confidence,
            out_of_range: self.out_of_range,
            disagreeing: self.disagreeing,
            redact: self.redact.clone(),
            per_day: self.per_day,
            bytes_per_day,
        })
    }
}
