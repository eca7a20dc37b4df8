//! When devices may be told: not before a moment, and within windows of each device's own local time.

use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serin_protocol::ids::{Millis, UnixMillis};

use super::super::notation::instant;
use super::selector::Tags;

/// The tag that says how far a device's clock is ahead of UTC, such as `+01:00`.
pub const OFFSET_TAG: &str = "utc_offset";

const MINUTE: u64 = 60_000;
const DAY_MINUTES: u32 = 24 * 60;
const WEEK_MINUTES: u32 = 7 * DAY_MINUTES;

/// Without any of it: always.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// Nobody is told before, such as `"2026-12-01T20:00Z"`.
    #[serde(with = "instant::optional")]
    pub not_before: Option<UnixMillis>,
    /// Devices are told within these only, such as `"Mon-Fri 22:00-05:00"`. A rollback never waits for them.
    pub windows: Vec<Window>,
    /// How far local time is ahead of UTC where a device has no tag `utc_offset`.
    pub utc_offset: Offset,
}

/// Local time ahead of UTC, in minutes. There are no rules of summer time here: a device that has one writes
/// the windows into its own policy, where its time zone is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offset(pub i16);

/// Days and a span of local time; one that ends before it begins goes over midnight and belongs to the day on
/// which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Bit 0 is Monday.
    days: u8,
    from: u16,
    to: u16,
}

impl Schedule {
    /// Whether a device with these tags may be told now.
    pub fn is_open(&self, now: UnixMillis, tags: &Tags) -> bool {
        let begun = self.not_before.is_none_or(|begin| now >= begin);
        let minute = self.local(now, tags);
        begun && (self.windows.is_empty() || self.windows.iter().any(|window| window.holds(minute)))
    }

    /// When a device with these tags may be told next, from `now` on; none when no window ever opens.
    pub fn next_open(&self, now: UnixMillis, tags: &Tags) -> Option<UnixMillis> {
        let from = self.not_before.map_or(now, |begin| begin.max(now));
        if self.is_open(from, tags) {
            return Some(from);
        }
        let whole = UnixMillis(from.0 - from.0 % MINUTE);
        let minute = |ahead: u32| whole.plus(Millis(u64::from(ahead) * MINUTE));
        (1..=WEEK_MINUTES).map(minute).find(|at| self.is_open(*at, tags))
    }

    /// Minutes of the week, local, from Monday 00:00.
    fn local(&self, now: UnixMillis, tags: &Tags) -> u32 {
        let own = tags.get(OFFSET_TAG).and_then(|text| text.parse().ok());
        let Offset(ahead) = own.unwrap_or(self.utc_offset);
        // 1970-01-01 was a Thursday.
        let minutes = i128::from(now.0 / MINUTE) + i128::from(ahead) + i128::from(3 * DAY_MINUTES);
        u32::try_from(minutes.rem_euclid(i128::from(WEEK_MINUTES))).unwrap_or(0)
    }
}

impl Window {
    fn holds(self, minute: u32) -> bool {
        let (day, of_day) = (minute / DAY_MINUTES, minute % DAY_MINUTES);
        let on = |day: u32| self.days >> (day % 7) & 1 == 1;
        let (from, to) = (u32::from(self.from), u32::from(self.to));
        if from < to {
            on(day) && (from..to).contains(&of_day)
        } else {
            (on(day) && of_day >= from) || (on(day + 6) && of_day < to)
        }
    }
}

/// Why a window or an offset is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not {1}")]
pub struct NotATime(String, &'static str);

const WINDOW: &str = "a window of local time: write \"Mon-Fri 22:00-05:00\" or \"Sat,Sun 00:00-24:00\"";
const OFFSET: &str = "an offset from UTC: write \"+01:00\"";
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

impl core::str::FromStr for Window {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        let read = || {
            let (days, times) = match text.trim().split_once(' ') {
                Some((days, times)) => (read_days(days)?, times),
                None => (0b111_1111, text.trim()),
            };
            let (from, to) = times.trim().split_once('-')?;
            let (from, to) = (clock(from)?, clock(to)?);
            (from != to && from < 1440).then_some(Self { days, from, to })
        };
        read().ok_or_else(|| NotATime(text.to_owned(), WINDOW))
    }
}

fn read_days(text: &str) -> Option<u8> {
    let day = |name: &str| DAYS.iter().position(|day| *day == name);
    text.split(',').try_fold(0, |days, part| match part.split_once('-') {
        None => Some(days | 1 << day(part)?),
        Some((first, last)) => {
            let (first, last) = (day(first)?, day(last)?);
            let count = (last + 7 - first) % 7;
            Some((0..=count).fold(days, |days, step| days | 1 << ((first + step) % 7)))
        }
    })
}

/// Minutes of the day, up to 24:00.
fn clock(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(hours) || !digits(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let all = hours * 60 + minutes;
    (minutes < 60 && all <= 1440).then_some(all)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = DAYS.iter().enumerate().filter(|(at, _)| self.days >> at & 1 == 1);
        let days: Vec<&str> = days.map(|(_, day)| *day).collect();
        let time = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        write!(f, "{} {}-{}", days.join(","), time(self.from), time(self.to))
    }
}

impl core::str::FromStr for Offset {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        let read = || {
            let (sign, rest) = match text.trim() {
                "Z" => return Some(Self(0)),
                text => text.split_at_checked(1)?,
            };
            let minutes = i16::try_from(clock(rest)?).ok()?;
            match sign {
                "+" => Some(Self(minutes)),
                "-" => Some(Self(-minutes)),
                _ => None,
            }
        };
        read().ok_or_else(|| NotATime(text.to_owned(), OFFSET))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { '-' } else { '+' };
        write!(f, "{sign}{:02}:{:02}", self.0.unsigned_abs() / 60, self.0.unsigned_abs() % 60)
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

as_text!(Window);
as_text!(Offset);

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
