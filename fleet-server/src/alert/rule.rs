//! A rule: what is looked at, where, for how long, and who is told. Read from TOML or JSON and checked as a whole.

use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serin_protocol::ids::{Millis, ModelName};

use super::condition::Condition;
use super::reading::{Group, Scope};
use crate::notify::receiver::ReceiverName;
use crate::rollout::notation::span;

/// Most rules: each is looked at for every release.
pub const MAX_RULES: usize = 100;
/// Longest window looked at: what is older is kept too coarsely to be about now.
pub const MAX_WINDOW: Millis = Millis::from_secs(24 * 3600);
/// Longest wait before an alert rings or clears.
pub const MAX_HOLD: Millis = Millis::from_secs(7 * 24 * 3600);
/// Most receivers, and most models, that a rule names.
const MAX_NAMED: usize = 16;
/// Longest link to what to do.
const MAX_RUNBOOK_BYTES: usize = 500;

/// A rule's name: 1 to 64 characters `A-Z a-z 0-9 . _ -`, starting with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleName(String);

impl RuleName {
    /// Parses `text`.
    pub fn new(text: &str) -> Result<Self, RuleError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let starts_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if starts_well && text.len() <= 64 && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(RuleError::Name(text.chars().take(80).collect()))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for RuleName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RuleName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// How bad it is when it rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Somebody should look today.
    #[default]
    Warning,
    /// Somebody should look now.
    Critical,
}

impl Severity {
    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Of what there is one alert each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grouping {
    /// Each release that devices run.
    #[default]
    Release,
    /// Each segment of each release, while it is asked about: what is seldom asked about is not missed.
    Segment,
    /// Each owner, over all releases of theirs.
    Owner,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name.
    pub name: RuleName,
    /// How bad it is.
    #[serde(default)]
    pub severity: Severity,
    /// What is looked at.
    pub when: Condition,
    /// Of what there is one alert each.
    #[serde(default)]
    pub by: Grouping,
    /// Of which models; of all if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ModelName>,
    /// How far back is looked. Drift looks back an hour whatever is said here.
    #[serde(default = "an_hour", with = "span")]
    pub window: Millis,
    /// How long it must be bad before it rings.
    #[serde(rename = "for", default = "no_time", with = "span")]
    pub hold: Millis,
    /// How long it must be good before that is over.
    #[serde(default = "no_time", with = "span")]
    pub clear_for: Millis,
    /// How long there may be nothing to judge before that is told as an alert of its own.
    #[serde(default = "a_while", with = "span")]
    pub no_data_for: Millis,
    /// Who is told, instead of the owner's receivers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub receivers: Vec<ReceiverName>,
    /// Where it says what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runbook: Option<String>,
}

const fn an_hour() -> Millis {
    Millis::from_secs(3600)
}

const fn a_while() -> Millis {
    Millis::from_secs(3600)
}

const fn no_time() -> Millis {
    Millis(0)
}

/// Why rules are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Not a name.
    #[error("`{0}` is no name: write 1 to 64 characters A-Z a-z 0-9 . _ -, beginning with a letter or digit")]
    Name(String),
    /// It makes no sense.
    #[error("rule {rule}: {why}")]
    Senseless {
        /// Which.
        rule: RuleName,
        /// Why.
        why: String,
    },
    /// Two have one name.
    #[error("rule {0} is there twice")]
    Twice(RuleName),
    /// Too many.
    #[error("there are more than {MAX_RULES} rules")]
    TooMany,
}

impl Rule {
    /// Checks what its parts say together.
    pub fn check(&self) -> Result<(), RuleError> {
        let senseless = |why: String| RuleError::Senseless { rule: self.name.clone(), why };
        self.when.check().map_err(senseless)?;
        if self.by == Grouping::Segment
            && matches!(self.when, Condition::Coverage(_) | Condition::Rollbacks(_))
        {
            let why =
                "coverage and rollbacks are of devices, not of what they are asked: by is release or owner";
            return Err(senseless(why.to_owned()));
        }
        let bounds = [
            ("window", self.window, Millis(1000), MAX_WINDOW),
            ("for", self.hold, Millis(0), MAX_HOLD),
            ("clear_for", self.clear_for, Millis(0), MAX_HOLD),
            ("no_data_for", self.no_data_for, Millis(1000), MAX_HOLD),
        ];
        for (name, value, least, most) in bounds {
            if value < least || value > most {
                let (least, most) = (span::text(least), span::text(most));
                return Err(senseless(format!("{name} is {least} to {most}, not {}", span::text(value))));
            }
        }
        if self.receivers.len() > MAX_NAMED || self.models.len() > MAX_NAMED {
            return Err(senseless(format!("{MAX_NAMED} receivers and {MAX_NAMED} models can be named")));
        }
        match &self.runbook {
            Some(link) if link.len() > MAX_RUNBOOK_BYTES || link.chars().any(char::is_control) => {
                Err(senseless(format!("runbook is a link of at most {MAX_RUNBOOK_BYTES} bytes")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether it looks at a group.
    pub fn looks_at(&self, group: &Group) -> bool {
        let kind = match group.scope {
            Scope::Release(_) => self.by == Grouping::Release,
            Scope::Segment(..) => self.by == Grouping::Segment,
            Scope::Owner => self.by == Grouping::Owner,
        };
        kind && self.is_about(&group.owner)
    }

    /// Whether it looks at releases of a model.
    pub fn is_about(&self, model: &ModelName) -> bool {
        self.models.is_empty() || self.models.contains(model)
    }
}

/// Checks rules that are to hold together.
pub fn check_all(rules: &[Rule]) -> Result<(), RuleError> {
    if rules.len() > MAX_RULES {
        return Err(RuleError::TooMany);
    }
    for (at, rule) in rules.iter().enumerate() {
        rule.check()?;
        if rules.iter().take(at).any(|other| other.name == rule.name) {
            return Err(RuleError::Twice(rule.name.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Result<Rule, String> {
        let rule: Rule = toml::from_str(text).map_err(|error| error.to_string())?;
        rule.check().map_err(|error| error.to_string())?;
        Ok(rule)
    }

    #[test]
    fn a_short_rule_has_sensible_defaults_and_survives_writing() {
        let short = rule("name = 'slow'\nwhen.latency = { above = '50ms' }").expect("sensible");
        assert_eq!((short.by, short.severity, short.hold), (Grouping::Release, Severity::Warning, Millis(0)));
        let json = serde_json::to_string(&short).expect("written");
        assert_eq!(serde_json::from_str::<Rule>(&json).expect("read"), short);
        let toml = toml::to_string(&short).expect("written");
        assert_eq!(rule(&toml), Ok(short));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            ("name = 'a b'\nwhen.rollbacks = {}", "no name"),
            ("name = 'a'\nwhen.rollback = {}", "unknown variant"),
            ("name = 'a'\nwhen.error_rate = { over = '5%' }", "unknown field"),
            ("name = 'a'\nwhen.error_rate = { above = '5' }", "is not a share"),
            ("name = 'a'\nwhen.error_rate = { above = '5%', clear_below = '6%' }", "clear_below"),
            ("name = 'a'\nwhen.latency = { above = '5ms', quantile = 99 }", "quantile lies between"),
            ("name = 'a'\nby = 'segment'\nwhen.rollbacks = {}", "are of devices"),
            ("name = 'a'\nwhen.rollbacks = {}\nwindow = '8d'", "window is 1s to 1d, not 8d"),
            ("name = 'a'\nfor = 'soon'\nwhen.rollbacks = {}", "span of time"),
        ] {
            let error = rule(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
        let one = rule("name = 'a'\nwhen.rollbacks = {}").expect("sensible");
        assert_eq!(check_all(&[one.clone(), one.clone()]), Err(RuleError::Twice(one.name.clone())));
        let many: Vec<Rule> = (0..=MAX_RULES)
            .map(|number| Rule { name: RuleName::new(&format!("r{number}")).expect("name"), ..one.clone() })
            .collect();
        assert_eq!(check_all(&many), Err(RuleError::TooMany));
    }
}
