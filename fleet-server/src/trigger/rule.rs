//! What asks for training: drift, fewer right answers, a schedule, or age.

use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serin_protocol::ids::{FleetId, Millis, ModelName};

use crate::alert::condition::{FeatureDrift, PredictionDrift, Quality};
use crate::alert::rule::MAX_HOLD;
use crate::alert::{Condition, RuleName};
use crate::notify::receiver::ReceiverName;
use crate::rollout::notation::span;

/// Most rules.
pub const MAX_RULES: usize = 100;
/// Shortest schedule, age, cool-down and expiry: below it a pipeline would be asked while it still trains.
const SHORTEST: Millis = Millis::from_secs(1);
/// Longest of these.
const LONGEST: Millis = Millis::from_secs(5 * 366 * 24 * 3600);
/// Most receivers a rule names.
const MAX_RECEIVERS: usize = 16;

/// A trigger's name: its fleet and a number, `shop-7`. A release answers it by naming it in its manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TriggerId(String);

impl TriggerId {
    /// The trigger of this number.
    pub fn of(fleet: &FleetId, number: u64) -> Self {
        Self(format!("{fleet}-{number}"))
    }

    /// Reads one; any text of its length, for an unknown one answers nothing.
    pub fn new(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        ((1..=64).contains(&text.len()) && text.bytes().all(plain)).then(|| Self(text.to_owned()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TriggerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for TriggerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TriggerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).ok_or_else(|| D::Error::custom("not the name of a trigger, such as shop-7"))
    }
}

/// Why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Inputs are not what the model was trained on.
    FeatureDrift(FeatureDrift),
    /// Predictions are not distributed as on the reference data.
    PredictionDrift(PredictionDrift),
    /// Too few answers are right.
    Quality(Quality),
    /// It is time.
    Schedule(Schedule),
    /// What runs is old.
    Staleness(Staleness),
}

/// Again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// So long after the last trigger of the model, or after the release that runs was published.
    #[serde(with = "span")]
    pub every: Millis,
}

/// By age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Staleness {
    /// So long after the release that runs was published.
    #[serde(with = "span")]
    pub older_than: Millis,
}

impl Cause {
    /// The condition that is judged, where it is one.
    pub fn condition(&self) -> Option<Condition> {
        match self {
            Self::FeatureDrift(drift) => Some(Condition::FeatureDrift(drift.clone())),
            Self::PredictionDrift(drift) => Some(Condition::PredictionDrift(drift.clone())),
            Self::Quality(quality) => Some(Condition::Quality(quality.clone())),
            Self::Schedule(_) | Self::Staleness(_) => None,
        }
    }

    /// Its word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::FeatureDrift(_) => "feature_drift",
            Self::PredictionDrift(_) => "prediction_drift",
            Self::Quality(_) => "quality",
            Self::Schedule(_) => "schedule",
            Self::Staleness(_) => "staleness",
        }
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TriggerRule {
    /// Its name.
    pub name: RuleName,
    /// Which models.
    pub models: Vec<ModelName>,
    /// Why.
    pub when: Cause,
    /// How long it must hold.
    #[serde(rename = "for", default = "no_time", with = "span")]
    pub hold: Millis,
    /// How long after one trigger of a model there is no other.
    #[serde(default = "a_week", with = "span")]
    pub cooldown: Millis,
    /// How long an answer is awaited.
    #[serde(default = "a_month", with = "span")]
    pub expires: Millis,
    /// Webhooks that are called.
    pub receivers: Vec<ReceiverName>,
}

const fn no_time() -> Millis {
    Millis(0)
}

const fn a_week() -> Millis {
    Millis::from_secs(7 * 24 * 3600)
}

const fn a_month() -> Millis {
    Millis::from_secs(30 * 24 * 3600)
}

/// Checks rules that are to hold together; what is wrong, in words.
pub fn check_all(rules: &[TriggerRule]) -> Result<(), String> {
    if rules.len() > MAX_RULES {
        return Err(format!("there are more than {MAX_RULES} triggers"));
    }
    for (at, rule) in rules.iter().enumerate() {
        let wrong = |why: String| Err(format!("trigger {}: {why}", rule.name));
        if rules.iter().take(at).any(|other| other.name == rule.name) {
            return wrong("it is there twice".into());
        }
        if rule.models.is_empty() {
            return wrong("models names at least one".into());
        }
        if rule.receivers.is_empty() || rule.receivers.len() > MAX_RECEIVERS {
            return wrong(format!("receivers names 1 to {MAX_RECEIVERS} webhooks"));
        }
        if let Some(condition) = rule.when.condition() {
            condition.check().or_else(wrong)?;
        }
        let of_cause = match &rule.when {
            Cause::Schedule(schedule) => Some(("schedule.every", schedule.every)),
            Cause::Staleness(staleness) => Some(("staleness.older_than", staleness.older_than)),
            Cause::FeatureDrift(_) | Cause::PredictionDrift(_) | Cause::Quality(_) => None,
        };
        let spans = [("cooldown", rule.cooldown), ("expires", rule.expires)];
        let (shortest, longest) = (span::text(SHORTEST), span::text(LONGEST));
        for (name, value) in spans.into_iter().chain(of_cause) {
            if value < SHORTEST || value > LONGEST {
                return wrong(format!("{name} is {shortest} to {longest}"));
            }
        }
        if rule.hold > MAX_HOLD {
            return wrong(format!("for is at most {}", span::text(MAX_HOLD)));
        }
    }
    Ok(())
}
