//! What is said about an alert: to receivers while it rings and when it is over, and on the record for good.

use serde::{Deserialize, Serialize};
use serin_protocol::ids::UnixMillis;

use super::condition::Judged;
use super::reading::{Group, Reading};
use super::rule::{RuleName, Severity};

/// What of a rule and group rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// What was looked at is beyond its limit.
    Breach,
    /// There is nothing to look at.
    NoData,
}

impl Kind {
    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Breach => "breach",
            Self::NoData => "no_data",
        }
    }
}

/// The sums that a judgement rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// Devices that run it.
    pub devices: u64,
    /// Of these, those that reported.
    pub reporting: u64,
    /// Inferences.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// Devices that went back.
    pub rollbacks: u64,
}

impl From<&Reading> for Numbers {
    fn from(reading: &Reading) -> Self {
        let Reading { devices, reporting, requests, errors, rollbacks, .. } = reading;
        Self {
            devices: *devices,
            reporting: *reporting,
            requests: *requests,
            errors: *errors,
            rollbacks: *rollbacks,
        }
    }
}

/// An alert as it is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// By which rule.
    pub rule: RuleName,
    /// How bad it is.
    pub severity: Severity,
    /// What of it.
    pub kind: Kind,
    /// Of what.
    pub group: Group,
    /// It rings since then.
    pub since: UnixMillis,
    /// It is over since then; none while it rings.
    pub ended: Option<UnixMillis>,
    /// What was found last.
    pub found: Judged,
    /// The sums that rests on.
    pub numbers: Numbers,
    /// Whom to ask, as the configuration says of the owner.
    pub contact: Option<String>,
    /// Where it says what to do.
    pub runbook: Option<String>,
}

impl Alert {
    /// Whether `other` is about the same thing.
    pub fn is_about_the_same(&self, other: &Self) -> bool {
        self.rule == other.rule && self.kind == other.kind && self.group == other.group
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let what = match self.kind {
            Kind::Breach => self.found.text.clone(),
            Kind::NoData => format!("nothing to judge: {}", self.found.text),
        };
        format!("{} of {}: {what}", self.rule, self.group)
    }
}

/// What happened to an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It began to ring.
    Fired,
    /// It is good again.
    Resolved,
    /// Nobody runs it any more, or the rule is gone.
    Gone,
}

/// For the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// Counts them.
    pub number: u64,
    /// When.
    pub at: UnixMillis,
    /// What.
    pub change: Change,
    /// A silence kept it from being told at that moment.
    pub silenced: bool,
    /// The alert, with the numbers that made it.
    pub alert: Alert,
}
