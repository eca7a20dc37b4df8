//! Windows of local time.

use super::*;
use proptest::prelude::*;

/// Monday 2026-11-30 00:00 UTC.
const MONDAY: u64 = 1_795_996_800_000;

fn at(day: u64, hours: u64, minutes: u64) -> UnixMillis {
    UnixMillis(MONDAY + ((day * 24 + hours) * 60 + minutes) * MINUTE)
}

fn schedule(windows: &[&str]) -> Schedule {
    let windows = windows.iter().map(|text| text.parse().expect("a window")).collect();
    Schedule { windows, ..Schedule::default() }
}

#[test]
fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
    let nights = schedule(&["Mon-Fri 22:00-05:00"]);
    let open = |at| nights.is_open(at, &Tags::new());
    assert!(!open(at(0, 4, 0)), "Sunday's night is not one of them");
    assert!(open(at(0, 22, 0)) && open(at(1, 4, 59)) && !open(at(1, 5, 0)));
    assert!(open(at(5, 4, 59)) && !open(at(5, 22, 0)), "Friday's night ends on Saturday");
    assert_eq!(nights.next_open(at(0, 12, 30), &Tags::new()), Some(at(0, 22, 0)));
    assert_eq!(nights.next_open(at(5, 12, 0), &Tags::new()), Some(at(7, 22, 0)));
}

#[test]
fn each_device_has_its_own_local_time() {
    let nights = schedule(&["22:00-05:00"]);
    let tokyo = Tags::from([(OFFSET_TAG.to_owned(), "+09:00".to_owned())]);
    assert!(nights.is_open(at(0, 13, 0), &tokyo) && !nights.is_open(at(0, 13, 0), &Tags::new()));
    assert_eq!(nights.next_open(at(0, 6, 0), &tokyo), Some(at(0, 13, 0)));
}

#[test]
fn nobody_is_told_before_the_beginning() {
    let plan: Schedule =
        toml::from_str("not_before = '2026-11-30T08:30Z'\nwindows = ['Sat,Sun 00:00-24:00']").expect("valid");
    assert_eq!(plan.not_before, Some(at(0, 8, 30)));
    assert_eq!(plan.next_open(at(0, 0, 0), &Tags::new()), Some(at(5, 0, 0)));
    assert!(plan.is_open(at(6, 23, 59), &Tags::new()));
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(days in 1_u8..128, from in 0_u16..1440, to in 1_u16..=1440) {
        prop_assume!(from != to);
        let window = Window { days, from, to };
        prop_assert_eq!(window.to_string().parse::<Window>(), Ok(window));
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,20}") {
        let _ = text.parse::<Window>();
        let _ = text.parse::<Offset>();
    }
}
