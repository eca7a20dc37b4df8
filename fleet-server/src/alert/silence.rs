//! Silences: for a while nobody is told about alerts that match. They are still watched and shown.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};
use serin_protocol::ids::{Millis, UnixMillis};

use super::note::Alert;

/// Most silences at a time: they are made by hand.
pub const MAX_SILENCES: usize = 200;
/// Longest silence: what is silent for longer is a rule that should go.
pub const MAX_SILENCE: Millis = Millis::from_secs(90 * 24 * 3600);
/// Most matchers of one.
const MAX_MATCHERS: usize = 8;
/// Longest text of an author, a reason or a value.
const MAX_TEXT_BYTES: usize = 300;

/// Its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SilenceId(pub u64);

impl fmt::Display for SilenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What of an alert is matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// Name of the rule.
    Rule,
    /// The owner.
    Owner,
    /// The release, as `model@version`.
    Release,
    /// The segment.
    Segment,
    /// How bad it is.
    Severity,
    /// `breach` or `no_data`.
    Kind,
}

/// One demand, written `rule=slow` or `release=digits@2.*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matcher {
    /// Of what.
    pub label: Label,
    /// The value; with a star at its end, how it begins.
    pub value: String,
}

impl FromStr for Matcher {
    type Err = SilenceError;

    fn from_str(text: &str) -> Result<Self, SilenceError> {
        let refused = || SilenceError::Matcher(text.chars().take(80).collect());
        let (label, value) = text.split_once('=').ok_or_else(refused)?;
        let label = match label.trim() {
            "rule" => Label::Rule,
            "owner" => Label::Owner,
            "release" => Label::Release,
            "segment" => Label::Segment,
            "severity" => Label::Severity,
            "kind" => Label::Kind,
            _ => return Err(refused()),
        };
        Ok(Self { label, value: value.trim().to_owned() })
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = match self.label {
            Label::Rule => "rule",
            Label::Owner => "owner",
            Label::Release => "release",
            Label::Segment => "segment",
            Label::Severity => "severity",
            Label::Kind => "kind",
        };
        write!(f, "{label}={}", self.value)
    }
}

impl Matcher {
    fn matches(&self, alert: &Alert) -> bool {
        let release = alert.group.release().map(ToString::to_string);
        let actual = match self.label {
            Label::Rule => alert.rule.as_str(),
            Label::Owner => alert.group.owner.as_str(),
            Label::Release => release.as_deref().unwrap_or_default(),
            Label::Segment => alert.group.segment().unwrap_or_default(),
            Label::Severity => alert.severity.as_str(),
            Label::Kind => alert.kind.as_str(),
        };
        match self.value.strip_suffix('*') {
            Some(begin) => actual.starts_with(begin),
            None => actual == self.value,
        }
    }
}

/// A silence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Its number.
    pub id: SilenceId,
    /// All must match.
    pub matchers: Vec<Matcher>,
    /// Who made it.
    pub author: String,
    /// Why.
    pub reason: String,
    /// When.
    pub made: UnixMillis,
    /// Over from then on.
    pub until: UnixMillis,
}

/// Why a silence is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SilenceError {
    /// Not a matcher.
    #[error(
        "`{0}` matches nothing: write rule=, owner=, release=, segment=, severity= or kind= and a value, such as release=digits@2.*"
    )]
    Matcher(String),
    /// None, or too many.
    #[error("a silence has 1 to {MAX_MATCHERS} matchers")]
    Matchers,
    /// Somebody answers for each.
    #[error("a silence needs an author and a reason, of at most {MAX_TEXT_BYTES} bytes each")]
    Unsaid,
    /// It must end.
    #[error("a silence ends within {} days", MAX_SILENCE.0 / 86_400_000)]
    Endless,
    /// Too many.
    #[error("there are {MAX_SILENCES} silences already; end some with `alert unsilence`")]
    TooMany,
}

impl Silence {
    /// Checks it.
    pub fn check(&self) -> Result<(), SilenceError> {
        if !(1..=MAX_MATCHERS).contains(&self.matchers.len())
            || self.matchers.iter().any(|matcher| matcher.value.len() > MAX_TEXT_BYTES)
        {
            return Err(SilenceError::Matchers);
        }
        let said = |text: &str| (1..=MAX_TEXT_BYTES).contains(&text.trim().len());
        if !said(&self.author) || !said(&self.reason) {
            return Err(SilenceError::Unsaid);
        }
        if self.until <= self.made || self.until.since(self.made) > MAX_SILENCE {
            return Err(SilenceError::Endless);
        }
        Ok(())
    }

    /// Whether it holds for an alert.
    pub fn covers(&self, alert: &Alert, now: UnixMillis) -> bool {
        now < self.until && self.matchers.iter().all(|matcher| matcher.matches(alert))
    }
}
