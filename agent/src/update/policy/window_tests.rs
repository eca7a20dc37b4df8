//! Windows on ordinary days, over midnight, and on the days on which clocks are changed.

use super::*;
use proptest::prelude::*;

/// Central European time, whose clocks change on 2026-03-29 and 2026-10-25.
fn berlin() -> TimeZone {
    TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a rule")
}

fn windows(texts: &[&str]) -> Windows {
    Windows::new(texts.iter().map(|text| text.parse().expect("a window")).collect()).expect("few")
}

/// A moment as in `2026-03-29T01:30:00Z`.
fn utc(text: &str) -> UnixMillis {
    let at: Timestamp = text.parse().expect("a moment");
    UnixMillis(at.as_millisecond() as u64)
}

fn open(text: &str) -> Opening {
    Opening::Open { until: Some(utc(text)) }
}

fn closed(text: &str) -> Opening {
    Opening::Closed { until: utc(text) }
}

#[test]
fn windows_are_in_local_time_and_go_over_midnight() {
    let nights = windows(&["Mon-Fri 22:00-05:00"]);
    let zone = berlin();
    // Friday 2026-03-06: 20:59 UTC is 21:59 in Berlin.
    assert_eq!(nights.at(utc("2026-03-06T20:59:59.999Z"), &zone), closed("2026-03-06T21:00:00Z"));
    assert_eq!(nights.at(utc("2026-03-06T21:00:00Z"), &zone), open("2026-03-07T04:00:00Z"));
    assert_eq!(nights.at(utc("2026-03-07T03:59:59.999Z"), &zone), open("2026-03-07T04:00:00Z"));
    // Saturday's night is none of them.
    assert_eq!(nights.at(utc("2026-03-07T04:00:00Z"), &zone), closed("2026-03-09T21:00:00Z"));
    assert_eq!(nights.changes(utc("2026-03-07T04:00:00Z"), &zone), Some(utc("2026-03-09T21:00:00Z")));
}

#[test]
fn without_a_window_it_is_always_open() {
    assert_eq!(Windows::default().at(UnixMillis(0), &berlin()), Opening::Open { until: None });
    assert_eq!(Windows::default().changes(UnixMillis(0), &berlin()), None);
}

#[test]
fn a_window_that_the_spring_swallows_opens_the_next_week() {
    // On Sunday 2026-03-29 the clock goes from 02:00 to 03:00, which is 01:00 UTC.
    let zone = berlin();
    let swallowed = windows(&["Sun 02:00-03:00"]);
    assert_eq!(swallowed.at(utc("2026-03-29T00:59:00Z"), &zone), closed("2026-04-05T00:00:00Z"));
    let around = windows(&["Sun 01:30-03:30"]);
    assert_eq!(around.at(utc("2026-03-29T00:30:00Z"), &zone), open("2026-03-29T01:30:00Z"));
    let within = windows(&["Sun 02:30-04:00"]);
    assert_eq!(within.at(utc("2026-03-29T01:29:59Z"), &zone), closed("2026-03-29T01:30:00Z"));
    assert_eq!(within.at(utc("2026-03-29T01:30:00Z"), &zone), open("2026-03-29T02:00:00Z"));
}

#[test]
fn a_window_around_the_hour_that_comes_twice_is_an_hour_longer() {
    // On Sunday 2026-10-25 the clock goes from 03:00 to 02:00, which is 01:00 UTC.
    let zone = berlin();
    let around = windows(&["Sun 01:00-03:00"]);
    assert_eq!(around.at(utc("2026-10-24T23:00:00Z"), &zone), open("2026-10-25T02:00:00Z"));
    // Midnight to midnight has 25 hours.
    let day = windows(&["Sun 00:00-24:00"]);
    assert_eq!(day.at(utc("2026-10-24T22:00:00Z"), &zone), open("2026-10-25T23:00:00Z"));
    assert_eq!(next_midnight(utc("2026-10-24T22:00:00Z"), &zone), utc("2026-10-25T23:00:00Z"));
    assert_eq!(next_midnight(utc("2026-03-28T23:00:00Z"), &zone), utc("2026-03-29T22:00:00Z"));
}

#[test]
fn days_count_in_local_time() {
    let zone = berlin();
    let day = local_day(utc("2026-03-06T22:59:59Z"), &zone);
    assert_eq!(local_day(utc("2026-03-06T23:00:00Z"), &zone), day + 1);
    assert_eq!(local_day(UnixMillis(0), &TimeZone::UTC), 0);
    // A clock that is nonsense is no reason to stop.
    assert!(next_midnight(UnixMillis(u64::MAX - 1), &zone) >= UnixMillis(u64::MAX - 1));
    assert!(matches!(windows(&["00:00-01:00"]).at(UnixMillis(u64::MAX / 2), &zone), Opening::Closed { .. }));
}

#[test]
fn days_are_names_and_spans_of_names() {
    let days = |text: &str| Days::parse(text).map(|days| days.0);
    assert_eq!(days("Mon"), Ok(1));
    assert_eq!(days("mon-wed,SAT"), Ok(0b010_0111));
    assert_eq!(days("Sat-Mon"), Ok(0b110_0001));
    assert_eq!(days("Mon-Sun"), Ok(0b111_1111));
    for wrong in ["", "Mo", "Mon-", "Mon,,Tue", "Mon Tue"] {
        assert!(days(wrong).is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn any_text_is_a_window_or_an_error(text in ".{0,30}") {
        let _ = text.parse::<Window>();
    }

    #[test]
    fn the_next_opening_is_ahead_and_inside_a_window(
        days in 1_u8..128,
        (from, to) in (0_u16..1440, 1_u16..=1440).prop_filter("not empty", |(from, to)| from != to),
        // Two years of seconds, with all changes of the clock.
        seconds in 0_u64..63_072_000,
    ) {
        let zone = berlin();
        let windows = Windows(vec![Window { days: Days(days), from, to }]);
        let now = UnixMillis((1_767_225_600 + seconds) * 1000);
        let is_open = |at| matches!(windows.at(at, &zone), Opening::Open { .. });
        match windows.at(now, &zone) {
            Opening::Closed { until } => {
                prop_assert!(until > now);
                prop_assert!(is_open(until));
                let just_before = UnixMillis(until.0 - 1);
                prop_assert!(!is_open(just_before));
            }
            Opening::Open { until } => {
                let until = until.expect("it ends");
                prop_assert!(until > now);
                let just_before = UnixMillis(until.0 - 1);
                prop_assert!(is_open(just_before));
            }
        }
        prop_assert!(next_midnight(now, &zone) > now);
        prop_assert_eq!(local_day(next_midnight(now, &zone), &zone), local_day(now, &zone) + 1);
    }
}

#[test]
fn a_window_is_shown_as_it_could_have_been_written() {
    for (written, shown) in [
        ("Mon-Fri 22:00-05:00", "Mon-Fri 22:00-05:00"),
        ("00:00-24:00", "00:00-24:00"),
        ("Sat-Mon,Wed 01:05-02:30", "Mon,Wed,Sat-Sun 01:05-02:30"),
        ("Mon-Sun 03:00-04:00", "03:00-04:00"),
    ] {
        let window: Window = written.parse().expect(written);
        assert_eq!(window.to_string(), shown);
        assert_eq!(shown.parse(), Ok(window));
    }
}
