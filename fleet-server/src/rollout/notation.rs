//! How people write shares, spans and decimals in a plan: `"25%"`, `"90s"`, `1.2`. In formats that
//! people do not read (postcard) the same values are plain numbers.

/// Why a text is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotationError {
    /// Not a share.
    #[error("`{0}` is not a share: write \"25%\" or \"2.5%\", from 0% to 100%, at most two decimals")]
    Share(String),
    /// Not a span of time.
    #[error("`{0}` is not a span of time: write \"500ms\", \"10s\", \"5m\", \"2h\", \"7d\" or \"1h30m\"")]
    Span(String),
    /// Not a moment.
    #[error("`{0}` is not a moment in UTC: write \"2026-12-01T20:00Z\"")]
    Instant(String),
}

/// Shares as `"25%"`.
pub mod share {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use serin_protocol::ids::BasisPoints;

    use super::NotationError;

    /// Reads `"25%"`, `"2.5 %"`, `"0.01%"`.
    pub fn parse(text: &str) -> Result<BasisPoints, NotationError> {
        let refused = || NotationError::Share(text.to_owned());
        let number = text.trim().strip_suffix('%').ok_or_else(refused)?.trim_end();
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !(1..=2).contains(&decimals.len()) || !digits(whole) || !digits(decimals) {
            return Err(refused());
        }
        let percent: u16 = whole.parse().map_err(|_| refused())?;
        let hundredths: u16 = format!("{decimals:0<2}").parse().map_err(|_| refused())?;
        let points = u32::from(percent) * 100 + u32::from(hundredths);
        let points = u16::try_from(points).map_err(|_| refused())?;
        if points > BasisPoints::WHOLE.0 { Err(refused()) } else { Ok(BasisPoints(points)) }
    }

    /// The shortest text that [`parse`] reads back.
    pub fn text(share: BasisPoints) -> String {
        let (percent, hundredths) = (share.0 / 100, share.0 % 100);
        if hundredths == 0 {
            format!("{percent}%")
        } else {
            format!("{percent}.{}%", format!("{hundredths:02}").trim_end_matches('0'))
        }
    }

    /// For `#[serde(with)]`.
    pub fn serialize<S: Serializer>(share: &BasisPoints, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&text(*share))
        } else {
            serializer.serialize_u16(share.0)
        }
    }

    /// For `#[serde(with)]`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BasisPoints, D::Error> {
        if deserializer.is_human_readable() {
            parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
        } else {
            u16::deserialize(deserializer).map(BasisPoints)
        }
    }

    /// For `#[serde(with)]`.
    pub mod optional {
        use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};
        use serin_protocol::ids::BasisPoints;

        /// For `#[serde(with)]`.
        pub fn serialize<S: Serializer>(
            value: &Option<BasisPoints>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            value.map(super::text).serialize(serializer)
        }

        /// For `#[serde(with)]`.
        pub fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<BasisPoints>, D::Error> {
            let text = Option::<String>::deserialize(deserializer)?;
            text.map(|text| super::parse(&text).map_err(D::Error::custom)).transpose()
        }
    }
}

/// Spans of time as `"1h30m"`.
pub mod span {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use serin_protocol::ids::Millis;

    use super::NotationError;

    // Longest first, so that a text is written with the fewest parts.
    const UNITS: [(&str, u64); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

    /// Reads `"500ms"`, `"10s"`, `"5m"`, `"2h"`, `"7d"` and sums such as `"1h30m"`, units falling.
    pub fn parse(text: &str) -> Result<Millis, NotationError> {
        let refused = || NotationError::Span(text.to_owned());
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(refused());
        }
        let mut total = 0_u64;
        let mut last = u64::MAX;
        while !rest.is_empty() {
            let (number, tail) = rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count());
            let (unit, tail) = tail.split_at(tail.bytes().take_while(u8::is_ascii_alphabetic).count());
            let number: u64 = number.parse().map_err(|_| refused())?;
            let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(refused)?;
            if factor >= last {
                return Err(refused());
            }
            last = factor;
            total =
                number.checked_mul(factor).and_then(|part| total.checked_add(part)).ok_or_else(refused)?;
            rest = tail;
        }
        Ok(Millis(total))
    }

    /// A text that [`parse`] reads back.
    pub fn text(span: Millis) -> String {
        let mut left = span.0;
        let parts = UNITS.map(|(name, factor)| {
            let count = left / factor;
            left %= factor;
            if count > 0 { format!("{count}{name}") } else { String::new() }
        });
        let text = parts.concat();
        if text.is_empty() { "0s".to_owned() } else { text }
    }

    /// For `#[serde(with)]`.
    pub fn serialize<S: Serializer>(span: &Millis, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&text(*span))
        } else {
            serializer.serialize_u64(span.0)
        }
    }

    /// For `#[serde(with)]`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Millis, D::Error> {
        if deserializer.is_human_readable() {
            parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
        } else {
            u64::deserialize(deserializer).map(Millis)
        }
    }

    /// For `#[serde(with)]`.
    pub mod optional {
        use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};
        use serin_protocol::ids::Millis;

        /// For `#[serde(with)]`.
        pub fn serialize<S: Serializer>(value: &Option<Millis>, serializer: S) -> Result<S::Ok, S::Error> {
            value.map(super::text).serialize(serializer)
        }

        /// For `#[serde(with)]`.
        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Millis>, D::Error> {
            let text = Option::<String>::deserialize(deserializer)?;
            text.map(|text| super::parse(&text).map_err(D::Error::custom)).transpose()
        }
    }
}

/// How many devices, as `"25%"` or `5`.
pub mod size {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
    use serin_protocol::ids::BasisPoints;

    use super::share;

    /// A share of the fleet, or so many devices.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Size {
        /// A share, rounded up to whole devices.
        Share(BasisPoints),
        /// So many.
        Count(u32),
    }

    impl Size {
        /// Everybody.
        pub const WHOLE: Self = Self::Share(BasisPoints::WHOLE);

        /// How many of `n` devices that is.
        pub fn of(self, n: usize) -> usize {
            match self {
                Self::Share(share) => super::super::cohort::places(share, n),
                Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX).min(n),
            }
        }
    }

    impl core::fmt::Display for Size {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            match self {
                Self::Share(share) => f.pad(&share::text(*share)),
                Self::Count(1) => f.pad("1 device"),
                Self::Count(count) => f.pad(&format!("{count} devices")),
            }
        }
    }

    // Where people do not read, shares are counted from above.
    const SHARES: u32 = u32::MAX - 10_000;

    impl Serialize for Size {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match (self, serializer.is_human_readable()) {
                (Self::Share(points), true) => serializer.serialize_str(&share::text(*points)),
                (Self::Share(points), false) => serializer.serialize_u32(SHARES + u32::from(points.0)),
                (Self::Count(count), _) => serializer.serialize_u32(*count),
            }
        }
    }

    impl<'de> Deserialize<'de> for Size {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            if deserializer.is_human_readable() {
                return deserializer.deserialize_any(Reader);
            }
            let number = u32::deserialize(deserializer)?;
            let points = number.checked_sub(SHARES).and_then(|points| u16::try_from(points).ok());
            Ok(points.map_or(Self::Count(number), |points| Self::Share(BasisPoints(points))))
        }
    }

    struct Reader;

    impl de::Visitor<'_> for Reader {
        type Value = Size;

        fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            f.write_str("a share such as \"25%\", or a number of devices")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
            share::parse(text).map(Size::Share).map_err(E::custom)
        }

        fn visit_u64<E: de::Error>(self, count: u64) -> Result<Size, E> {
            let few = u32::try_from(count).ok().filter(|count| *count < SHARES);
            few.map(Size::Count).ok_or_else(|| E::custom("more devices than there can be"))
        }

        fn visit_i64<E: de::Error>(self, count: i64) -> Result<Size, E> {
            u64::try_from(count)
                .map_err(|_| E::custom("less than no devices"))
                .and_then(|n| self.visit_u64(n))
        }
    }
}

/// Moments as `"2026-12-01T20:00Z"`.
pub mod instant {
    use serin_protocol::ids::UnixMillis;

    use super::NotationError;

    const DAY: u64 = 86_400_000;

    /// Reads `"2026-12-01T20:00Z"` and `"2026-12-01T20:00:30Z"`.
    pub fn parse(text: &str) -> Result<UnixMillis, NotationError> {
        let read = || {
            let (date, time) = text.trim().strip_suffix('Z')?.split_once('T')?;
            let [year, month, day] = numbers(date, '-')?[..] else { return None };
            let (hour, minute, second) = match numbers(time, ':')?[..] {
                [hour, minute] => (hour, minute, 0),
                [hour, minute, second] => (hour, minute, second),
                _ => return None,
            };
            let real = (1970..10_000).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
            if !real || hour > 23 || minute > 59 || second > 59 {
                return None;
            }
            let at = days(year, month, day) * DAY + ((hour * 60 + minute) * 60 + second) * 1000;
            // The 31st of a short month is another day's name.
            (date_of(UnixMillis(at)) == (year, month, day)).then_some(UnixMillis(at))
        };
        read().ok_or_else(|| NotationError::Instant(text.to_owned()))
    }

    fn numbers(text: &str, separator: char) -> Option<Vec<u64>> {
        let digits =
            |part: &str| !part.is_empty() && part.len() <= 4 && part.bytes().all(|b| b.is_ascii_digit());
        text.split(separator).map(|part| if digits(part) { part.parse().ok() } else { None }).collect()
    }

    /// A text that [`parse`] reads back, to the second.
    pub fn text(at: UnixMillis) -> String {
        let (year, month, day) = date_of(at);
        let seconds = at.0 / 1000 % 86_400;
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }

    // Days from and to civil dates, from the first of March of the year 0 (Hinnant 2013).
    fn days(year: u64, month: u64, day: u64) -> u64 {
        let year = if month <= 2 { year - 1 } else { year };
        let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        year * 365 + year / 4 - year / 100 + year / 400 + of_year - 719_468
    }

    fn date_of(at: UnixMillis) -> (u64, u64, u64) {
        let days = at.0 / DAY + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let shifted = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        (era * 400 + year + u64::from(month <= 2), month, day)
    }

    /// For `#[serde(with)]`.
    pub mod optional {
        use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};
        use serin_protocol::ids::UnixMillis;

        /// For `#[serde(with)]`.
        pub fn serialize<S: Serializer>(at: &Option<UnixMillis>, serializer: S) -> Result<S::Ok, S::Error> {
            at.map(super::text).serialize(serializer)
        }

        /// For `#[serde(with)]`.
        pub fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<UnixMillis>, D::Error> {
            let text = Option::<String>::deserialize(deserializer)?;
            text.map(|text| super::parse(&text).map_err(D::Error::custom)).transpose()
        }
    }
}

/// Decimals with three places as numbers, `1.2`.
pub mod decimal {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    /// A non-negative decimal in thousandths: exact, comparable, and no float in a plan.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub struct Thousandths(pub u32);

    impl Thousandths {
        /// The value, for statistics.
        pub fn value(self) -> f64 {
            f64::from(self.0) / 1000.0
        }
    }

    impl Serialize for Thousandths {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            if serializer.is_human_readable() {
                serializer.serialize_f64(self.value())
            } else {
                serializer.serialize_u32(self.0)
            }
        }
    }

    impl<'de> Deserialize<'de> for Thousandths {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            if !deserializer.is_human_readable() {
                return u32::deserialize(deserializer).map(Self);
            }
            let value = f64::deserialize(deserializer)?;
            let scaled = (value * 1000.0).round();
            if (0.0..=f64::from(u32::MAX)).contains(&scaled) {
                Ok(Self(scaled as u32))
            } else {
                Err(D::Error::custom("a decimal here lies between 0 and 4294967"))
            }
        }
    }
}

#[cfg(test)]
#[path = "notation_tests.rs"]
mod tests;
