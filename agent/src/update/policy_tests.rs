//! Each condition by itself, and what holds whatever they are.

use super::*;
use proptest::prelude::*;

/// Monday 2026-03-02, 12:00 UTC.
const NOON: UnixMillis = UnixMillis(1_772_452_800_000);

fn decide(policy: &Policy, conditions: &Conditions) -> Verdicts {
    policy.decide(NOON, &TimeZone::UTC, conditions, &Verdicts::default())
}

fn windows(texts: &[&str]) -> Windows {
    Windows::new(texts.iter().map(|text| text.parse().expect("a window")).collect()).expect("few")
}

fn limits(limits: Limits) -> Policy {
    Policy { fetch: limits, ..Policy::default() }
}

#[test]
fn each_condition_holds_its_step_up_by_itself() {
    let open = Conditions { mains: Some(true), ..Conditions::default() };
    let battery =
        |percent| Conditions { mains: Some(false), battery: Some(percent), ..Conditions::default() };
    let hot = |celsius| Conditions { celsius: Some(celsius), ..open.clone() };
    let over = |name: &str| Conditions { interfaces: vec!["lo".into(), name.into()], ..open.clone() };
    let spent = |bytes| Conditions { spent: ByteCount(bytes), ..open.clone() };
    let free = |bytes| Conditions { free: Some(ByteCount(bytes)), ..open.clone() };
    let on_mains = limits(Limits { mains: true, ..Limits::default() });
    let charged = limits(Limits { battery: Some(40), ..Limits::default() });
    let cool = limits(Limits { celsius: Some(70), ..Limits::default() });
    let roomy = limits(Limits { free: Some(ByteCount(100)), ..Limits::default() });
    let unpaid = |metered| Policy { metered, ..Policy::default() };
    let wwan = unpaid(Metered::Over(vec!["wwan*".into(), "ppp0".into()]));
    let daily = Policy { daily: Some(ByteCount(100)), ..Policy::default() };
    let interface = |name: &str| Wait::Metered { interface: name.parse().expect("fits") };
    let midnight = Some(NOON.plus(serin_protocol::ids::Millis::from_secs(12 * 3600)));
    let limit = ByteCount(100);
    let table: Vec<(&Policy, Conditions, Option<Wait>)> = vec![
        (&on_mains, open.clone(), None),
        (&on_mains, battery(99), Some(Wait::NotOnMains)),
        (&on_mains, Conditions::default(), None),
        (&charged, battery(40), None),
        (&charged, battery(39), Some(Wait::Battery { percent: 39, needed: 40 })),
        (&charged, Conditions { mains: Some(true), ..battery(3) }, None),
        (&charged, Conditions::default(), None),
        (&cool, hot(70), None),
        (&cool, hot(71), Some(Wait::TooHot { celsius: 71, limit: 70 })),
        (&cool, open.clone(), None),
        (&roomy, free(100), None),
        (&roomy, free(99), Some(Wait::FreeSpace { free: ByteCount(99), needed: ByteCount(100) })),
        (&wwan, over("eth0"), None),
        (&wwan, over("ppp01"), None),
        (&wwan, over("wwan0"), Some(interface("wwan0"))),
        (&wwan, over("ppp0"), Some(interface("ppp0"))),
        (&wwan, open.clone(), None),
        (&daily, spent(99), None),
        (&daily, spent(100), Some(Wait::BytesSpent { limit })),
    ];
    for (policy, conditions, expected) in table {
        let Verdicts { fetch, install } = decide(policy, &conditions);
        assert_eq!(fetch.why(), expected.as_ref(), "{policy:?} {conditions:?}");
        assert_eq!(install, Verdict::Go, "what is said of fetching is not said of installing");
    }
    let everything = decide(&unpaid(Metered::All), &open).fetch;
    assert_eq!(everything.why(), Some(&interface("any interface")));
    let until_midnight = Verdict::Wait { why: Wait::BytesSpent { limit }, until: midnight };
    assert_eq!(decide(&daily, &spent(100)).fetch, until_midnight);
}

#[test]
fn a_device_may_fetch_at_any_time_and_install_in_its_window() {
    let install = Limits { windows: windows(&["02:00-04:00"]), ..Limits::default() };
    let policy = Policy { install, ..Policy::default() };
    let verdicts = decide(&policy, &Conditions::default());
    assert_eq!(verdicts.fetch, Verdict::Go);
    let until = Some(NOON.plus(serin_protocol::ids::Millis::from_secs(14 * 3600)));
    assert_eq!(verdicts.install, Verdict::Wait { why: Wait::OutsideWindow, until });
    assert_eq!(policy.next_change(NOON, &TimeZone::UTC), until);
}

#[test]
fn what_has_waited_goes_on_only_well_within_its_limit() {
    let limits = Limits { celsius: Some(70), battery: Some(40), ..Limits::default() };
    let policy = Policy { install: limits, ..Policy::default() };
    let hot = |celsius| Conditions { celsius: Some(celsius), mains: Some(true), ..Conditions::default() };
    let zone = TimeZone::UTC;
    let waits = policy.decide(NOON, &zone, &hot(71), &Verdicts::default());
    let still = policy.decide(NOON, &zone, &hot(66), &waits);
    assert_eq!(still.install.why(), Some(&Wait::TooHot { celsius: 66, limit: 65 }));
    assert_eq!(policy.decide(NOON, &zone, &hot(65), &still).install, Verdict::Go);
    let low = |percent| Conditions { battery: Some(percent), mains: Some(false), ..Conditions::default() };
    let waits = policy.decide(NOON, &zone, &low(39), &Verdicts::default());
    let still = policy.decide(NOON, &zone, &low(44), &waits);
    assert_eq!(still.install.why(), Some(&Wait::Battery { percent: 44, needed: 45 }));
    assert_eq!(policy.decide(NOON, &zone, &low(45), &still).install, Verdict::Go);
}

#[test]
fn limits_that_cannot_be_watched_are_named() {
    let limits = Limits {
        mains: true,
        battery: Some(1),
        celsius: Some(1),
        free: Some(ByteCount(1)),
        ..Limits::default()
    };
    let policy = limits_of_install(limits);
    assert_eq!(policy.unknown(&Conditions::default()), ["mains", "max_celsius", "min_free"]);
    let on_battery = Conditions { mains: Some(false), ..Conditions::default() };
    assert_eq!(policy.unknown(&on_battery), ["min_battery", "max_celsius", "min_free"]);
    assert!(Policy::default().unknown(&Conditions::default()).is_empty());
}

fn limits_of_install(install: Limits) -> Policy {
    Policy { install, ..Policy::default() }
}

proptest! {
    #[test]
    fn a_wait_never_ends_in_the_past_and_better_conditions_never_hold_up(
        celsius in prop::option::of(-40_i16..120),
        percent in prop::option::of(0_u8..=100),
        mains in prop::option::of(any::<bool>()),
        spent in 0_u64..200,
        hours in 0_u64..400,
    ) {
        let install = Limits {
            windows: windows(&["Mon-Fri 22:00-05:00"]),
            mains: false,
            battery: Some(50),
            celsius: Some(60),
            free: None,
        };
        let policy = Policy { daily: Some(ByteCount(100)), install, ..Policy::default() };
        let now = NOON.plus(serin_protocol::ids::Millis::from_secs(hours * 3600));
        let conditions =
            Conditions { celsius, battery: percent, mains, spent: ByteCount(spent), ..Conditions::default() };
        let before = Verdicts::default();
        let verdicts = policy.decide(now, &TimeZone::UTC, &conditions, &before);
        for verdict in [&verdicts.fetch, &verdicts.install] {
            if let Verdict::Wait { until: Some(until), .. } = verdict {
                prop_assert!(*until > now);
            }
        }
        let better = Conditions {
            celsius: celsius.map(|celsius| celsius - 1),
            battery: percent.map(|percent| percent.saturating_add(1).min(100)),
            spent: ByteCount(spent.saturating_sub(1)),
            ..conditions
        };
        let after = policy.decide(now, &TimeZone::UTC, &better, &before);
        prop_assert!(verdicts.fetch != Verdict::Go || after.fetch == Verdict::Go);
        prop_assert!(verdicts.install != Verdict::Go || after.install == Verdict::Go);
    }
}
