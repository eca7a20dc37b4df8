//! Whether local conditions let an update go on now: its bytes be fetched, the release be installed. The
//! answer is a verdict with its reason. Pure: time, time zone and conditions are arguments.
//!
//! What is not known holds nothing up: a board that does not say how hot it is goes on, and `doctor` tells.

pub mod budget;
pub mod window;

use jiff::tz::TimeZone;
use serin_protocol::ids::{ByteCount, UnixMillis};
use serin_protocol::message::Wait;

use self::window::{Opening, Windows, next_midnight};

/// A device that became too hot goes on only when it is this much below the limit, in °C, so that it does
/// not stop and go on all the time.
const COOLING: i16 = 5;
/// The same for a battery that was too low, in percent.
const CHARGING: u8 = 5;

/// What the operator allows, by step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Which links are paid by the byte: nothing is fetched over them.
    pub metered: Metered,
    /// Bytes of releases that may be fetched in one day of local time.
    pub daily: Option<ByteCount>,
    /// What must hold to fetch.
    pub fetch: Limits,
    /// What must hold to install: to start the new release's worker and switch to it.
    pub install: Limits,
}

/// Which links are paid by the byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Metered {
    /// None.
    #[default]
    None,
    /// Every link there is.
    All,
    /// Those over such interfaces: names, or beginnings of names followed by `*`.
    Over(Vec<String>),
}

/// What must hold for a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// When it may begin; always if there is none.
    pub windows: Windows,
    /// Only on mains.
    pub mains: bool,
    /// On battery: the least charge in percent.
    pub battery: Option<u8>,
    /// The highest temperature in °C.
    pub celsius: Option<i16>,
    /// Disk space that must be free.
    pub free: Option<ByteCount>,
}

/// How things are on the device. None is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Whether it is fed from outside. A device without a battery is.
    pub mains: Option<bool>,
    /// Charge of the lowest battery in percent.
    pub battery: Option<u8>,
    /// The hottest place, in °C.
    pub celsius: Option<i16>,
    /// Interfaces of the default routes.
    pub interfaces: Vec<String>,
    /// Disk space free.
    pub free: Option<ByteCount>,
    /// Bytes of releases fetched today.
    pub spent: ByteCount,
}

/// One of the two things that are decided separately, so that a device may fetch at any time and install in
/// its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Fetching bytes.
    Fetch,
    /// Proving the release and switching to it.
    Install,
}

/// Whether a step may be taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    #[default]
    Go,
    /// Not yet.
    Wait {
        /// Why.
        why: Wait,
        /// Until then, where it is known.
        until: Option<UnixMillis>,
    },
}

/// The verdicts on both steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// On fetching.
    pub fetch: Verdict,
    /// On installing.
    pub install: Verdict,
}

impl Verdict {
    /// What stands in the way.
    pub const fn why(&self) -> Option<&Wait> {
        match self {
            Self::Go => None,
            Self::Wait { why, .. } => Some(why),
        }
    }

    const fn wait(why: Wait) -> Self {
        Self::Wait { why, until: None }
    }
}

impl Policy {
    /// Whether it never holds anything up.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The verdicts at `now`. `before` are the last ones: what waits for a limit waits a little longer than
    /// what does not.
    pub fn decide(
        &self,
        now: UnixMillis,
        zone: &TimeZone,
        conditions: &Conditions,
        before: &Verdicts,
    ) -> Verdicts {
        let install = self.install.hold(now, zone, conditions, &before.install);
        let fetch = self.fetch.hold(now, zone, conditions, &before.fetch);
        let fetch = fetch.or_else(|| self.spent(now, zone, conditions)).or_else(|| self.metered(conditions));
        Verdicts { fetch: fetch.unwrap_or_default(), install: install.unwrap_or_default() }
    }

    /// Limits that cannot be watched because what they limit is not known, as their keys.
    pub fn unknown(&self, conditions: &Conditions) -> Vec<&'static str> {
        let limits = [&self.fetch, &self.install];
        let on_battery = conditions.mains == Some(false);
        let unknown = [
            ("mains", conditions.mains.is_none() && limits.iter().any(|limits| limits.mains)),
            (
                "min_battery",
                on_battery
                    && conditions.battery.is_none()
                    && limits.iter().any(|limits| limits.battery.is_some()),
            ),
            (
                "max_celsius",
                conditions.celsius.is_none() && limits.iter().any(|limits| limits.celsius.is_some()),
            ),
            ("min_free", conditions.free.is_none() && limits.iter().any(|limits| limits.free.is_some())),
        ];
        unknown.into_iter().filter_map(|(key, unknown)| unknown.then_some(key)).collect()
    }

    /// When the verdicts may change with nothing but time: a window opens or closes, a day begins.
    pub fn next_change(&self, now: UnixMillis, zone: &TimeZone) -> Option<UnixMillis> {
        let windows = [&self.fetch.windows, &self.install.windows].map(|windows| windows.changes(now, zone));
        let midnight = self.daily.map(|_| next_midnight(now, zone));
        windows.into_iter().flatten().chain(midnight).min()
    }

    fn spent(&self, now: UnixMillis, zone: &TimeZone, conditions: &Conditions) -> Option<Verdict> {
        let limit = self.daily.filter(|limit| conditions.spent >= *limit)?;
        Some(Verdict::Wait { why: Wait::BytesSpent { limit }, until: Some(next_midnight(now, zone)) })
    }

    fn metered(&self, conditions: &Conditions) -> Option<Verdict> {
        let metered = |name: &&String| match &self.metered {
            Metered::None => false,
            Metered::All => true,
            Metered::Over(patterns) => patterns.iter().any(|pattern| matches(pattern, name)),
        };
        let interface = match conditions.interfaces.iter().find(metered) {
            Some(name) => name.as_str(),
            None if self.metered == Metered::All => "any interface",
            None => return None,
        };
        // Interfaces have shorter names than the wire allows.
        Some(Verdict::wait(Wait::Metered { interface: interface.parse().unwrap_or_default() }))
    }
}

impl Limits {
    fn hold(
        &self,
        now: UnixMillis,
        zone: &TimeZone,
        conditions: &Conditions,
        before: &Verdict,
    ) -> Option<Verdict> {
        if let Opening::Closed { until } = self.windows.at(now, zone) {
            return Some(Verdict::Wait { why: Wait::OutsideWindow, until: Some(until) });
        }
        let why = self.power(conditions, before).or_else(|| self.heat(conditions, before));
        let why = why.or_else(|| {
            let (needed, free) = (self.free?, conditions.free?);
            (free < needed).then_some(Wait::FreeSpace { free, needed })
        });
        why.map(Verdict::wait)
    }

    fn power(&self, conditions: &Conditions, before: &Verdict) -> Option<Wait> {
        if conditions.mains == Some(true) {
            return None;
        }
        if self.mains && conditions.mains == Some(false) {
            return Some(Wait::NotOnMains);
        }
        let (least, percent) = (self.battery?, conditions.battery?);
        let waits = matches!(before.why(), Some(Wait::Battery { .. }));
        let needed = if waits { least.saturating_add(CHARGING).min(100) } else { least };
        (percent < needed).then_some(Wait::Battery { percent, needed })
    }

    fn heat(&self, conditions: &Conditions, before: &Verdict) -> Option<Wait> {
        let (most, celsius) = (self.celsius?, conditions.celsius?);
        let waits = matches!(before.why(), Some(Wait::TooHot { .. }));
        let limit = if waits { most.saturating_sub(COOLING) } else { most };
        (celsius > limit).then_some(Wait::TooHot { celsius, limit })
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or_else(|| pattern == name, |beginning| name.starts_with(beginning))
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
