//! What local conditions hold up, in words: for the engineer's `status`, `history` and `doctor`.

use serde::{Deserialize, Serialize};
use serin_protocol::ids::{ByteCount, UnixMillis};
use serin_protocol::message::Wait;

use super::checkup::CheckLine;
use super::print::{date, size};
use crate::update::policy::{Conditions, Step, Verdict, Verdicts};

/// What an unfinished update waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingStatus {
    /// The step that waits.
    pub step: StepName,
    /// What stands in the way.
    pub why: Wait,
    /// The same for people.
    pub text: String,
    /// When that is over, where it is known.
    pub until: Option<UnixMillis>,
}

/// A step of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepName {
    /// Fetching bytes.
    Fetch,
    /// Proving the release and switching to it.
    Install,
}

impl From<Step> for StepName {
    fn from(step: Step) -> Self {
        match step {
            Step::Fetch => Self::Fetch,
            Step::Install => Self::Install,
        }
    }
}

impl std::fmt::Display for WaitingStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let step = match self.step {
            StepName::Fetch => "to be fetched",
            StepName::Install => "to be installed",
        };
        write!(f, "{step} {}", later(&self.why, self.until))
    }
}

/// When something begins that waits.
pub(super) fn later(why: &Wait, until: Option<UnixMillis>) -> String {
    match until {
        Some(until) => format!("not before {}: {why}", date(until)),
        None => format!("later: {why}"),
    }
}

/// How it is with the policy.
#[derive(Clone, Debug, Default)]
pub struct Outlook {
    /// Whether there is one.
    pub is_set: bool,
    /// What the unfinished update waits for.
    pub waiting: Option<WaitingStatus>,
    /// Limits that cannot be watched, as their keys.
    pub unknown: Vec<&'static str>,
    /// How things are.
    pub conditions: Conditions,
    /// Bytes that may be fetched a day.
    pub daily: Option<ByteCount>,
    /// What would wait if there were an update.
    pub verdicts: Verdicts,
}

/// The line of `doctor`.
pub(super) fn check(outlook: &Outlook) -> CheckLine {
    if !outlook.is_set {
        return CheckLine::ok("policy", "none is set: nothing is held up");
    }
    let seen = seen(&outlook.conditions, outlook.daily);
    if let Some(waiting) = &outlook.waiting {
        let finding = format!("the update is {waiting} ({seen})");
        return CheckLine::warn("policy", finding, remedy(&waiting.why));
    }
    if !outlook.unknown.is_empty() {
        let finding = format!("not watched, because it is not known here: {}", outlook.unknown.join(", "));
        let remedy =
            "check /sys/class/power_supply and /sys/class/thermal, or take the limit out of [policy]";
        return CheckLine::warn("policy", finding, remedy);
    }
    let steps = [("fetched", &outlook.verdicts.fetch), ("installed", &outlook.verdicts.install)];
    let held = steps.into_iter().filter_map(|(step, verdict)| match verdict {
        Verdict::Go => None,
        Verdict::Wait { why, until } => Some(format!("; an update would be {step} {}", later(why, *until))),
    });
    CheckLine::ok("policy", seen + &held.collect::<String>())
}

fn seen(conditions: &Conditions, daily: Option<ByteCount>) -> String {
    let power = match (conditions.mains, conditions.battery) {
        (Some(true), _) => "on mains".into(),
        (Some(false) | None, Some(percent)) => format!("battery at {percent} %"),
        (Some(false), None) => "on battery".into(),
        (None, None) => "power not known".into(),
    };
    let heat = conditions.celsius.map(|celsius| format!(", {celsius} °C")).unwrap_or_default();
    let link = match conditions.interfaces.as_slice() {
        [] => String::new(),
        names => format!(", link over {}", names.join(" and ")),
    };
    let spent = daily.map(|daily| format!(", {} of {} fetched today", size(conditions.spent), size(daily)));
    power + &heat + &link + &spent.unwrap_or_default()
}

const fn remedy(why: &Wait) -> &'static str {
    match why {
        Wait::OutsideWindow => "wait for its window, or change the windows in [policy]",
        Wait::Metered { .. } => {
            "connect it to another network, or change policy.metered and metered_interfaces"
        }
        Wait::BytesSpent { .. } => "wait for the next day, or raise policy.daily_bytes",
        Wait::NotOnMains => "connect it to mains",
        Wait::Battery { .. } => "charge it",
        Wait::TooHot { .. } => "let it cool down: look for closed vents and the sun",
        Wait::FreeSpace { .. } => "make room on the disk, or lower min_free in [policy]",
    }
}

#[cfg(test)]
mod tests {
    use super::super::checkup::Level;
    use super::*;

    #[test]
    fn an_engineer_is_told_what_is_waited_for_and_what_to_do() {
        let why = Wait::Battery { percent: 12, needed: 40 };
        let waiting = WaitingStatus { step: StepName::Install, text: why.to_string(), why, until: None };
        assert_eq!(waiting.to_string(), "to be installed later: the battery is at 12 %, waiting for 40 %");
        let conditions = Conditions {
            mains: Some(false),
            battery: Some(12),
            celsius: Some(40),
            interfaces: vec!["eth0".into()],
            spent: ByteCount::from_mib(3),
            ..Conditions::default()
        };
        let daily = Some(ByteCount::from_mib(50));
        let mut outlook =
            Outlook { is_set: true, waiting: Some(waiting), conditions, daily, ..Outlook::default() };
        let line = check(&outlook);
        assert_eq!((line.level, line.remedy.as_deref()), (Level::Warn, Some("charge it")));
        outlook.waiting = None;
        assert_eq!(
            check(&outlook).finding,
            "battery at 12 %, 40 °C, link over eth0, 3.0 MiB of 50.0 MiB fetched today"
        );
        outlook.verdicts.fetch =
            Verdict::Wait { why: Wait::OutsideWindow, until: Some(UnixMillis(1_778_311_773_000)) };
        let line = check(&outlook);
        assert_eq!(line.level, Level::Ok);
        let would = "; an update would be fetched not before 2026-05-09 07:29:33Z: its window is closed";
        assert!(line.finding.ends_with(would), "{line:?}");
        outlook.unknown = vec!["max_celsius"];
        assert!(check(&outlook).level == Level::Warn && check(&outlook).finding.contains("max_celsius"));
        assert_eq!(check(&Outlook::default()).level, Level::Ok);
    }
}
