//! What a rule looks at, and how a reading is judged.

use serde::{Deserialize, Serialize};
use serin_protocol::ids::{BasisPoints, Millis};

use super::reading::{Reading, Shift};
use super::standing::Signal;
use crate::rollout::notation::decimal::Thousandths;
use crate::rollout::notation::{share, span};

/// Features named in a judgement, the most moved first.
pub const MAX_NAMED: usize = 5;

/// What is bad. Each limit may have a second one at which an alert clears; without it there is one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Inferences take too long.
    Latency(Latency),
    /// Too many inferences fail.
    ErrorRate(ErrorRate),
    /// Inputs are not what the model was trained on.
    FeatureDrift(FeatureDrift),
    /// Predictions are not distributed as on the reference data.
    PredictionDrift(PredictionDrift),
    /// Too few answers are right, where the truth is known.
    Quality(Quality),
    /// Too few of the devices that run it report.
    Coverage(Coverage),
    /// Devices went back.
    Rollbacks(Rollbacks),
}

/// More than a share of inferences takes longer than this.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Which quantile, 0.5 to 0.999.
    #[serde(default = "p99")]
    pub quantile: Thousandths,
    /// Bad above.
    #[serde(with = "span")]
    pub above: Millis,
    /// Clears only below.
    #[serde(default, with = "span::optional", skip_serializing_if = "Option::is_none")]
    pub clear_below: Option<Millis>,
    /// With fewer inferences nothing is known.
    #[serde(default = "few")]
    pub min_requests: u64,
}

/// Share of inferences that fail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorRate {
    /// Bad above.
    #[serde(with = "share")]
    pub above: BasisPoints,
    /// Clears only below.
    #[serde(default, with = "share::optional", skip_serializing_if = "Option::is_none")]
    pub clear_below: Option<BasisPoints>,
    /// With fewer inferences nothing is known.
    #[serde(default = "few")]
    pub min_requests: u64,
}

/// Distance of a feature from the reference; of one that did not move beyond chance it is 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureDrift {
    /// Which; any if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature: Option<String>,
    /// Bad above this PSI.
    #[serde(default = "a_little")]
    pub above: Thousandths,
    /// Clears only below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear_below: Option<Thousandths>,
}

/// Distance of the predicted classes from the reference; 0 if they did not move beyond chance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictionDrift {
    /// Bad above this PSI.
    #[serde(default = "a_little")]
    pub above: Thousandths,
    /// Clears only below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear_below: Option<Thousandths>,
}

/// Share of right answers among those whose truth is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    /// Bad below.
    #[serde(with = "share")]
    pub below: BasisPoints,
    /// Clears only above.
    #[serde(default, with = "share::optional", skip_serializing_if = "Option::is_none")]
    pub clear_above: Option<BasisPoints>,
    /// With fewer labels nothing is known.
    #[serde(default = "few")]
    pub min_labels: u64,
}

/// Share of devices that reported, of those that run it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coverage {
    /// Bad below.
    #[serde(with = "share")]
    pub below: BasisPoints,
    /// Clears only above.
    #[serde(default, with = "share::optional", skip_serializing_if = "Option::is_none")]
    pub clear_above: Option<BasisPoints>,
}

/// Devices that went back within the window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollbacks {
    /// Bad above.
    #[serde(default)]
    pub above: u32,
}

const fn p99() -> Thousandths {
    Thousandths(990)
}

/// By custom a PSI of 0.1 is a little and one of 0.25 a lot.
const fn a_little() -> Thousandths {
    Thousandths(100)
}

/// One failure among fewer would be more than 5 %.
const fn few() -> u64 {
    20
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The verdict.
    pub signal: Signal,
    /// The number looked at, in the unit of `limit`.
    pub value: Option<f64>,
    /// The limit.
    pub limit: f64,
    /// What moved, with its PSI.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<(String, f64)>,
    /// In words.
    pub text: String,
}

impl Condition {
    /// What must hold for it to make sense, in words where it does not.
    pub fn check(&self) -> Result<(), String> {
        let ordered = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        match self {
            Self::Latency(Latency { quantile, above, clear_below, min_requests }) => {
                ordered((500..=999).contains(&quantile.0), "latency.quantile lies between 0.5 and 0.999")?;
                ordered(*above > Millis(0), "latency.above is 1ms at least")?;
                ordered(*min_requests > 0, "latency.min_requests is 1 at least")?;
                ordered(clear_below.is_none_or(|clear| clear <= *above), CLEAR_BELOW)
            }
            Self::ErrorRate(ErrorRate { above, clear_below, min_requests }) => {
                ordered(*min_requests > 0, "error_rate.min_requests is 1 at least")?;
                ordered(clear_below.is_none_or(|clear| clear <= *above), CLEAR_BELOW)
            }
            Self::FeatureDrift(FeatureDrift { above, clear_below, .. })
            | Self::PredictionDrift(PredictionDrift { above, clear_below }) => {
                ordered(clear_below.is_none_or(|clear| clear <= *above), CLEAR_BELOW)
            }
            Self::Quality(Quality { below, clear_above, min_labels }) => {
                ordered(*min_labels > 0, "quality.min_labels is 1 at least")?;
                ordered(clear_above.is_none_or(|clear| clear >= *below), CLEAR_ABOVE)
            }
            Self::Coverage(Coverage { below, clear_above }) => {
                ordered(clear_above.is_none_or(|clear| clear >= *below), CLEAR_ABOVE)
            }
            Self::Rollbacks(Rollbacks { .. }) => Ok(()),
        }
    }

    /// Judges a reading.
    pub fn judge(&self, reading: &Reading) -> Judged {
        match self {
            Self::Latency(latency) => latency.judge(reading),
            Self::ErrorRate(ErrorRate { above, clear_below, min_requests }) => {
                let rate =
                    part(reading.errors, reading.requests).filter(|_| reading.requests >= *min_requests);
                let text = match rate {
                    Some(rate) => format!(
                        "{} of {} inferences failed, {}",
                        reading.errors,
                        reading.requests,
                        percent(rate)
                    ),
                    None => few_requests(reading.requests, *min_requests),
                };
                above_limit(rate, fraction(*above), clear_below.map(fraction), Vec::new(), text)
            }
            Self::FeatureDrift(FeatureDrift { feature, above, clear_below }) => {
                let wanted = reading
                    .features
                    .iter()
                    .filter(|shift| feature.as_ref().is_none_or(|it| *it == shift.name));
                shifted(wanted, "feature", *above, *clear_below)
            }
            Self::PredictionDrift(PredictionDrift { above, clear_below }) => {
                shifted(reading.predictions.iter(), "prediction", *above, *clear_below)
            }
            Self::Quality(Quality { below, clear_above, min_labels }) => {
                let known = reading.quality.filter(|(known, _)| known >= min_labels);
                let rate = known.and_then(|(known, right)| part(right, known));
                let text = match (known, rate) {
                    (Some((known, right)), Some(rate)) => {
                        format!("{right} of {known} labelled answers are right, {}", percent(rate))
                    }
                    _ => format!("fewer than {min_labels} answers have a label"),
                };
                below_limit(rate, fraction(*below), clear_above.map(fraction), text)
            }
            Self::Coverage(Coverage { below, clear_above }) => {
                let rate = part(reading.reporting, reading.devices);
                let text = match rate {
                    Some(rate) => format!(
                        "{} of {} devices report, {}",
                        reading.reporting,
                        reading.devices,
                        percent(rate)
                    ),
                    None => "no device runs it".to_owned(),
                };
                below_limit(rate, fraction(*below), clear_above.map(fraction), text)
            }
            Self::Rollbacks(Rollbacks { above }) => {
                let text = format!("{} devices went back", reading.rollbacks);
                above_limit(Some(reading.rollbacks as f64), f64::from(*above), None, Vec::new(), text)
            }
        }
    }
}

const CLEAR_BELOW: &str = "clear_below is not above `above`";
const CLEAR_ABOVE: &str = "clear_above is not below `below`";

impl Latency {
    /// Bins are coarse. It is bad only if more inferences than allowed lie in bins wholly above the limit, and good only
    /// if the upper edge of the quantile's bin is at or below the limit at which it clears, where there is one.
    fn judge(&self, reading: &Reading) -> Judged {
        let (total, quantile) = (reading.latency.total(), self.quantile.value());
        let limit = self.above.0 as f64;
        let known = total >= self.min_requests;
        let value =
            reading.latency.quantile_micros(quantile).filter(|_| known).map(|micros| micros as f64 / 1000.0);
        let slow = reading.latency.count_from(self.above.0.saturating_mul(1000));
        // In whole numbers: a tenth of a hundred is ten.
        let allowed = u128::from(total) * u128::from(1000 - self.quantile.0.min(1000));
        let is_bad = u128::from(slow) * 1000 > allowed;
        let signal = match (value, self.clear_below) {
            (None, _) => Signal::Unknown,
            (Some(_), _) if is_bad => Signal::Bad,
            (Some(value), Some(clear)) if value > clear.0 as f64 => Signal::Between,
            (Some(_), _) => Signal::Good,
        };
        let text = match value {
            Some(value) => {
                format!("{} of {total} inferences within {value:.1} ms", percent(quantile))
            }
            None => few_requests(total, self.min_requests),
        };
        Judged { signal, value, limit, moved: Vec::new(), text }
    }
}

fn shifted<'a>(
    shifts: impl Iterator<Item = &'a Shift>,
    what: &str,
    above: Thousandths,
    clear: Option<Thousandths>,
) -> Judged {
    let mut moved = Vec::new();
    let (mut known, mut looked_at) = (false, 0_usize);
    for shift in shifts {
        looked_at += 1;
        known |= shift.moved.is_some();
        if shift.moved == Some(true) {
            moved.push((shift.name.clone(), shift.psi));
        }
    }
    moved.sort_by(|a, b| b.1.total_cmp(&a.1));
    moved.truncate(MAX_NAMED);
    let value = known.then(|| moved.first().map_or(0.0, |(_, psi)| *psi));
    let named: Vec<String> = moved.iter().map(|(name, psi)| format!("{name} {psi:.3}")).collect();
    let text = match (known, looked_at, named.is_empty()) {
        (_, 0, _) => format!("no {what} of this name is watched"),
        (false, ..) => "too few values were seen to tell drift from chance".to_owned(),
        (true, _, true) => format!("no {what} moved beyond chance"),
        (true, _, false) => format!("moved (PSI): {}", named.join(", ")),
    };
    above_limit(value, above.value(), clear.map(Thousandths::value), moved, text)
}

fn above_limit(
    value: Option<f64>,
    limit: f64,
    clear: Option<f64>,
    moved: Vec<(String, f64)>,
    text: String,
) -> Judged {
    let signal = match value {
        None => Signal::Unknown,
        Some(value) if value > limit => Signal::Bad,
        Some(value) if clear.is_some_and(|clear| value > clear) => Signal::Between,
        Some(_) => Signal::Good,
    };
    Judged { signal, value, limit, moved, text }
}

fn below_limit(value: Option<f64>, limit: f64, clear: Option<f64>, text: String) -> Judged {
    let signal = match value {
        None => Signal::Unknown,
        Some(value) if value < limit => Signal::Bad,
        Some(value) if clear.is_some_and(|clear| value < clear) => Signal::Between,
        Some(_) => Signal::Good,
    };
    Judged { signal, value, limit, moved: Vec::new(), text }
}

fn part(some: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| some as f64 / all as f64)
}

fn fraction(share: BasisPoints) -> f64 {
    f64::from(share.0) / 10_000.0
}

fn percent(value: f64) -> String {
    format!("{:.1} %", value * 100.0)
}

fn few_requests(seen: u64, wanted: u64) -> String {
    format!("only {seen} inferences, {wanted} are needed to say something")
}

#[cfg(test)]
#[path = "condition_tests.rs"]
mod tests;
