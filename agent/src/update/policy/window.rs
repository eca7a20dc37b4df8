//! Windows of local time: on which days, from when to when, over midnight too. A day on which the clock is
//! changed has 23 or 25 hours; a time that does not exist on it is as much later as the gap is long, a time
//! that comes twice is the first of the two.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use serde::Deserialize;
use serin_protocol::ids::{Millis, UnixMillis};

/// Most windows of one step: two a day.
pub const MAX_WINDOWS: usize = 14;
/// How many days ahead the next opening is looked for. A week, and another one for a window that a change of
/// the clock has swallowed.
const HORIZON_DAYS: i64 = 15;
const DAY: Millis = Millis::from_secs(24 * 3600);
const DAY_MINUTES: u16 = 24 * 60;

/// When a step may be taken. None at all is always.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows(Vec<Window>);

/// A span of local time on some days of the week, as in `Mon-Fri 22:00-05:00`: days it begins on, then from
/// when to when. Without days it is every day; an end that is not after its beginning is on the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Window {
    days: Days,
    /// Minute of the day.
    from: u16,
    /// Minute of the day, up to the one after the last.
    to: u16,
}

/// Days of the week, one bit each from Monday.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Days(u8);

/// Whether a window is open, and until when it is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// It is; `None` for ever.
    Open {
        /// Until then at least.
        until: Option<UnixMillis>,
    },
    /// It is not.
    Closed {
        /// It opens then.
        until: UnixMillis,
    },
}

/// A text is not a window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a window like \"Mon-Fri 22:00-05:00\" or \"00:00-06:30\": {why}")]
pub struct WindowError {
    text: String,
    why: &'static str,
}

impl Windows {
    /// At most [`MAX_WINDOWS`] of them.
    pub fn new(windows: Vec<Window>) -> Option<Self> {
        (windows.len() <= MAX_WINDOWS).then_some(Self(windows))
    }

    /// Whether one is open at `now`.
    pub fn at(&self, now: UnixMillis, zone: &TimeZone) -> Opening {
        if self.0.is_empty() {
            return Opening::Open { until: None };
        }
        let Some(today) = local_date(now, zone) else {
            // No such date; looked at again when the clock is right.
            return Opening::Closed { until: now.plus(DAY) };
        };
        let mut open: Option<UnixMillis> = None;
        let mut next: Option<UnixMillis> = None;
        // Yesterday's may reach into today.
        let days = (-1..=HORIZON_DAYS).filter_map(|offset| today.checked_add(offset.days()).ok());
        for (from, to) in days.flat_map(|day| self.on(day, zone)) {
            if from <= now && now < to {
                open = open.max(Some(to));
            } else if now < from && from < to {
                next = Some(next.map_or(from, |earlier| earlier.min(from)));
            }
        }
        match (open, next) {
            (Some(until), _) => Opening::Open { until: Some(until) },
            (None, Some(until)) => Opening::Closed { until },
            (None, None) => Opening::Closed { until: now.plus(DAY) },
        }
    }

    /// When it opens or closes next; none if it never does.
    pub fn changes(&self, now: UnixMillis, zone: &TimeZone) -> Option<UnixMillis> {
        match self.at(now, zone) {
            Opening::Open { until } => until,
            Opening::Closed { until } => Some(until),
        }
    }

    /// From when to when they are open that begin on `day`.
    fn on(&self, day: Date, zone: &TimeZone) -> impl Iterator<Item = (UnixMillis, UnixMillis)> {
        let windows = self.0.iter().filter(move |window| window.days.contains(day.weekday()));
        windows.filter_map(move |window| {
            let ends = if window.to > window.from { day } else { day.tomorrow().ok()? };
            Some((instant(day, window.from, zone)?, instant(ends, window.to, zone)?))
        })
    }
}

/// The first moment of the next local day.
pub fn next_midnight(now: UnixMillis, zone: &TimeZone) -> UnixMillis {
    let tomorrow = local_date(now, zone).and_then(|today| today.tomorrow().ok());
    let midnight = tomorrow.and_then(|day| instant(day, 0, zone));
    // A clock that went back over midnight may have had this moment before.
    midnight.filter(|midnight| *midnight > now).unwrap_or_else(|| now.plus(DAY))
}

/// The local day, counted from 1970-01-01.
pub fn local_day(now: UnixMillis, zone: &TimeZone) -> i64 {
    let epoch = jiff::civil::date(1970, 1, 1);
    local_date(now, zone).map_or(0, |date| date.duration_since(epoch).as_hours() / 24)
}

fn local_date(now: UnixMillis, zone: &TimeZone) -> Option<Date> {
    let now = Timestamp::from_millisecond(i64::try_from(now.0).ok()?).ok()?;
    Some(zone.to_datetime(now).date())
}

/// The moment at which local clocks show `minute` of `day`.
fn instant(day: Date, minute: u16, zone: &TimeZone) -> Option<UnixMillis> {
    let (day, minute) = if minute == DAY_MINUTES { (day.tomorrow().ok()?, 0) } else { (day, minute) };
    let local = day.at((minute / 60) as i8, (minute % 60) as i8, 0, 0);
    let at = zone.to_timestamp(local).ok()?;
    u64::try_from(at.as_millisecond()).ok().map(UnixMillis)
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let wrong = |why| WindowError { text: text.into(), why };
        let (days, times) = match text.trim().split_once(' ') {
            Some((days, times)) => (Days::parse(days).map_err(wrong)?, times.trim()),
            None => (Days::ALL, text.trim()),
        };
        let (from, to) = times.split_once('-').ok_or_else(|| wrong("its times are not FROM-TO"))?;
        let times = minute(from).zip(minute(to));
        let (from, to) = times.ok_or_else(|| wrong("its times are not between 00:00 and 24:00"))?;
        if from == DAY_MINUTES {
            return Err(wrong("24:00 can only be an end"));
        }
        if from == to {
            return Err(wrong("it is empty; a whole day is 00:00-24:00"));
        }
        Ok(Self { days, from, to })
    }
}

impl fmt::Display for Window {
    /// As it could have been written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != Days::ALL {
            write!(f, "{} ", self.days)?;
        }
        let time = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        write!(f, "{}-{}", time(self.from), time(self.to))
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |day: usize| self.0 & (1 << day) != 0;
        let mut spans: Vec<(usize, usize)> = Vec::new();
        for day in (0..Self::NAMES.len()).filter(|day| has(*day)) {
            match spans.last_mut() {
                Some((_, last)) if *last + 1 == day => *last = day,
                Some(_) | None => spans.push((day, day)),
            }
        }
        let name = |day: usize| Self::NAMES.get(day).copied().unwrap_or_default();
        let span = |(first, last): &(usize, usize)| {
            if first == last { name(*first).to_owned() } else { format!("{}-{}", name(*first), name(*last)) }
        };
        f.write_str(&spans.iter().map(span).collect::<Vec<_>>().join(","))
    }
}

impl TryFrom<String> for Window {
    type Error = WindowError;

    fn try_from(text: String) -> Result<Self, WindowError> {
        text.parse()
    }
}

fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|digit| digit.is_ascii_digit());
    if !digits(hours) || !digits(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= DAY_MINUTES).then_some(minute)
}

impl Days {
    const ALL: Self = Self(0b111_1111);
    const NAMES: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

    /// Days and spans of days, as in `Mon-Wed,Sat`; a span may go over the end of the week.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let number = |name: &str| {
            let found = Self::NAMES.iter().position(|known| known.eq_ignore_ascii_case(name));
            found.ok_or("its days are not Mon, Tue, Wed, Thu, Fri, Sat or Sun")
        };
        let mut days = 0_u8;
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            let length = (last + 7 - first) % 7;
            days |= (first..=first + length).fold(0, |bits, day| bits | 1 << (day % 7));
        }
        Ok(Self(days))
    }

    fn contains(self, day: Weekday) -> bool {
        self.0 & (1 << day.to_monday_zero_offset()) != 0
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
