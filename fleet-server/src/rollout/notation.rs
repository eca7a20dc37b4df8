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
mod tests {
    use super::{decimal::Thousandths, share, span};
    use proptest::prelude::*;
    use serin_protocol::ids::{BasisPoints, Millis};

    #[test]
    fn shares_are_read_as_people_write_them() {
        assert_eq!(share::parse("25%"), Ok(BasisPoints(2500)));
        assert_eq!(share::parse(" 2.5 %"), Ok(BasisPoints(250)));
        assert_eq!(share::parse("0.01%"), Ok(BasisPoints(1)));
        for bad in ["", "%", "25", "-1%", "100.01%", "101%", "1.234%", "1.%", ".5%", "٣%", "70000%", "1e2%"]
        {
            assert!(share::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn spans_are_read_as_people_write_them() {
        assert_eq!(span::parse("10s"), Ok(Millis(10_000)));
        assert_eq!(span::parse("1h30m"), Ok(Millis(5_400_000)));
        assert_eq!(span::parse("250ms"), Ok(Millis(250)));
        for bad in ["", "s", "10", "10 s", "30m1h", "1s1s", "-1s", "1.5s", "1y", "999999999999999d", "é"] {
            assert!(span::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(points in 0_u16..=10_000, millis: u64, thousandths: u32) {
            prop_assert_eq!(share::parse(&share::text(BasisPoints(points))), Ok(BasisPoints(points)));
            prop_assert_eq!(span::parse(&span::text(Millis(millis))), Ok(Millis(millis)));
            let json = serde_json::to_string(&Thousandths(thousandths)).expect("a number");
            prop_assert_eq!(serde_json::from_str::<Thousandths>(&json).expect("a number"), Thousandths(thousandths));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,20}") {
            let _ = share::parse(&text);
            let _ = span::parse(&text);
        }
    }
}
