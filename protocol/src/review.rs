//! Review samples: single rows that a model was asked about, with what it answered, for people to look at. Only what an
//! owner's signed manifest allows is ever taken, and only on devices whose own configuration allows it too.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::envelope::Signed;
use crate::frame::Prediction;
use crate::ids::{BasisPoints, BootId, ByteCount, DeviceId, FieldName, ReleaseId, UnixMillis};
use crate::tensor::{TensorHeader, split_body};

/// Largest sealed sample in bytes: what its topic may carry.
pub const MAX_SAMPLE_BYTES: usize = 32 * 1024;
/// Most samples that one device may send of one release in a day: what a team can look at.
pub const MAX_PER_DAY: u32 = 1000;
/// Most bytes that one device may send of one release in a day.
pub const MAX_BYTES_PER_DAY: ByteCount = ByteCount::from_mib(16);
/// Most fields that are left out by name.
pub const MAX_REDACTED: usize = 256;

/// What of a release's requests may be taken, as its owner signed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReviewPolicy {
    /// Share of requests that is taken whatever they are, in hundredths of a percent.
    #[serde(default)]
    pub random: BasisPoints,
    /// Those answered with less confidence, in hundredths of a percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below_confidence: Option<BasisPoints>,
    /// Those with a watched feature beyond all of the reference data.
    #[serde(default)]
    pub out_of_range: bool,
    /// Those that a release in the shadow answers otherwise.
    #[serde(default)]
    pub disagreeing: bool,
    /// Inputs and features that never leave a device.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redact: Vec<FieldName>,
    /// Most samples of one device in a day of UTC.
    pub per_day: u32,
    /// Most bytes of one device in a day of UTC.
    pub bytes_per_day: ByteCount,
}

/// Why a row was taken; the first that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SampleReason {
    /// A release in the shadow answered otherwise.
    Disagreeing,
    /// Little confidence.
    LowConfidence,
    /// A feature lies beyond all of the reference data.
    OutOfRange,
    /// By lot.
    Random,
}

/// One row with its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Where it was asked.
    pub device: DeviceId,
    /// Together with `number` makes a sample unique.
    pub boot: BootId,
    /// Counts samples within one start of the agent.
    pub number: u64,
    /// Device time.
    pub at: UnixMillis,
    /// The release that answered.
    pub release: ReleaseId,
    /// Why it was taken.
    pub reason: SampleReason,
    /// Inputs that were not left out, of one row each.
    pub inputs: Vec<TensorHeader>,
    /// Their raw values, one after another.
    pub body: Vec<u8>,
    /// Inputs and features that were left out.
    pub redacted: Vec<FieldName>,
    /// What was predicted, where the release says.
    pub prediction: Option<Prediction>,
    /// What a release in the shadow made of it.
    pub shadow: Option<(ReleaseId, Prediction)>,
}

impl Signed for Sample {
    const PURPOSE: u8 = 10;
    const MAX_BYTES: usize = MAX_SAMPLE_BYTES;
}

impl ReviewPolicy {
    /// Checks it for a model that has these inputs and features.
    pub fn check<'a>(&self, mut names: impl Iterator<Item = &'a FieldName> + Clone) -> Result<(), String> {
        let whole = BasisPoints::WHOLE;
        if self.random > whole || self.below_confidence.is_some_and(|least| least > whole) {
            return Err("review: shares are 0 to 10000 hundredths of a percent".into());
        }
        if !(1..=MAX_PER_DAY).contains(&self.per_day) {
            return Err(format!("review: per_day is 1 to {MAX_PER_DAY}"));
        }
        if self.bytes_per_day == ByteCount(0) || self.bytes_per_day > MAX_BYTES_PER_DAY {
            return Err(format!("review: bytes_per_day is 1 to {MAX_BYTES_PER_DAY}"));
        }
        if self.redact.len() > MAX_REDACTED {
            return Err(format!("review: at most {MAX_REDACTED} fields are left out by name"));
        }
        // A misspelt name would leave nothing out.
        let known = names.clone();
        match self.redact.iter().find(|field| !known.clone().any(|name| name == *field)) {
            Some(field) => Err(format!("review: {field} is neither an input nor a feature")),
            None if names.next().is_none() => Err("review: the model has no input".into()),
            None => Ok(()),
        }
    }

    /// Whether a sample may be taken for this reason.
    pub fn allows(&self, reason: SampleReason) -> bool {
        match reason {
            SampleReason::Disagreeing => self.disagreeing,
            SampleReason::LowConfidence => self.below_confidence.is_some(),
            SampleReason::OutOfRange => self.out_of_range,
            SampleReason::Random => self.random > BasisPoints(0),
        }
    }
}

impl Sample {
    /// Whether headers and body belong together, and each input is one row.
    pub fn is_sane(&self) -> bool {
        let one_row = |header: &TensorHeader| header.shape.first() == Some(&1);
        self.inputs.iter().all(one_row)
            && self.redacted.len() <= MAX_REDACTED * 2
            && split_body(&self.inputs, &self.body).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString as _;
    use std::vec;

    fn policy() -> ReviewPolicy {
        ReviewPolicy {
            random: BasisPoints(100),
            below_confidence: None,
            out_of_range: true,
            disagreeing: false,
            redact: vec!["name".parse().expect("name")],
            per_day: 10,
            bytes_per_day: ByteCount(1000),
        }
    }

    #[test]
    fn what_is_left_out_must_exist_and_budgets_are_bounded() {
        let names: Vec<FieldName> = ["name", "age"].iter().map(|name| name.parse().expect("name")).collect();
        let check = |policy: ReviewPolicy| policy.check(names.iter());
        assert_eq!(check(policy()), Ok(()));
        let misspelt = ReviewPolicy { redact: vec!["nam".parse().expect("name")], ..policy() };
        assert!(check(misspelt).expect_err("unknown").contains("nam is neither"));
        assert!(check(ReviewPolicy { per_day: 0, ..policy() }).is_err());
        assert!(check(ReviewPolicy { bytes_per_day: ByteCount(u64::MAX), ..policy() }).is_err());
        assert!(check(ReviewPolicy { random: BasisPoints(10_001), ..policy() }).is_err());
    }

    #[test]
    fn reasons_are_allowed_one_by_one() {
        let allowed = |reason| policy().allows(reason);
        assert!(allowed(SampleReason::Random) && allowed(SampleReason::OutOfRange));
        assert!(!allowed(SampleReason::LowConfidence) && !allowed(SampleReason::Disagreeing));
        assert_eq!(MAX_BYTES_PER_DAY.to_string(), "16777216");
    }
}
