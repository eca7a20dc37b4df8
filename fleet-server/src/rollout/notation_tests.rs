//! What people write in a plan, read and written.

use super::{decimal::Thousandths, instant, share, size::Size, span};
use proptest::prelude::*;
use serin_protocol::ids::{BasisPoints, Millis, UnixMillis};

#[test]
fn shares_are_read_as_people_write_them() {
    assert_eq!(share::parse("25%"), Ok(BasisPoints(2500)));
    assert_eq!(share::parse(" 2.5 %"), Ok(BasisPoints(250)));
    assert_eq!(share::parse("0.01%"), Ok(BasisPoints(1)));
    for bad in ["", "%", "25", "-1%", "100.01%", "101%", "1.234%", "1.%", ".5%", "٣%", "70000%", "1e2%"] {
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

#[test]
fn moments_are_read_as_people_write_them() {
    // date -u -d 2026-12-01T20:00Z +%s
    assert_eq!(instant::parse("2026-12-01T20:00Z"), Ok(UnixMillis(1_796_155_200_000)));
    assert_eq!(instant::parse("2024-02-29T00:00:01Z"), Ok(UnixMillis(1_709_164_801_000)));
    for bad in
        ["", "2026-12-01", "2026-12-01T20:00", "2025-02-29T00:00Z", "1969-12-31T00:00Z", "2026-13-01T00:00Z"]
    {
        assert!(instant::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn sizes_are_shares_or_counts() {
    for (text, size) in [("\"25%\"", Size::Share(BasisPoints(2500))), ("5", Size::Count(5))] {
        assert_eq!(serde_json::from_str::<Size>(text).expect(text), size);
        assert_eq!(serde_json::to_string(&size).expect("plain"), text);
        let bytes = postcard::to_allocvec(&size).expect("plain");
        assert_eq!(postcard::from_bytes::<Size>(&bytes).expect("own"), size);
    }
    assert_eq!((Size::Share(BasisPoints(2500)).of(10), Size::Count(12).of(10)), (3, 10));
}

proptest! {
    #[test]
    fn moments_survive_text(seconds in 0_u64..200_000_000_000) {
        let at = UnixMillis(seconds * 1000);
        prop_assert_eq!(instant::parse(&instant::text(at)), Ok(at));
    }

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
        let _ = instant::parse(&text);
    }
}
