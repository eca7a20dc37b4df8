//! Looks one after the other, at one release mostly, and what is noted and said.

use super::*;
use crate::alert::silence::Matcher;
use crate::notify::receiver::{Endpoint, Ownership, Receiver, Speaks};
use proptest::prelude::*;

const WINDOW: Millis = Millis::from_secs(3600);

fn name(text: &str) -> ReceiverName {
    ReceiverName::new(text).expect("name")
}

fn routes() -> Routes {
    let receiver = |seconds| Receiver {
        endpoint: Endpoint::new("http://127.0.0.1:1/").expect("here"),
        speaks: Speaks::Webhook { secret: None },
        authorities: None,
        repeat: Millis::from_secs(seconds),
    };
    let owner = Ownership { receivers: vec![name("pager")], contact: Some("digits@example.com".into()) };
    Routes {
        receivers: [(name("pager"), receiver(1000)), (name("all"), receiver(60))].into(),
        owners: [("digits".parse().expect("name"), owner)].into(),
        default: vec![name("all")],
    }
}

fn rule(text: &str) -> Rule {
    toml::from_str(text).expect("rule")
}

fn failing() -> Rule {
    rule(
        "name = 'failing'\nseverity = 'critical'\nfor = '10s'\nclear_for = '20s'\nno_data_for = '30s'\nwhen.error_rate = { above = '5%' }",
    )
}

fn group(release: &str) -> Group {
    Group::of_release(&release.parse().expect("release"))
}

fn errors(errors: u64) -> Reading {
    Reading { devices: 3, reporting: 3, requests: 100, errors, ..Reading::default() }
}

/// One who looks at one rule, and remembers nothing but through what is stored.
struct Watcher {
    stored: String,
    rules: Vec<Rule>,
    routes: Routes,
}

impl Watcher {
    fn new(rules: Vec<Rule>) -> Self {
        Self { stored: serde_json::to_string(&Book::default()).expect("written"), rules, routes: routes() }
    }

    fn book(&self) -> Book {
        serde_json::from_str(&self.stored).expect("read")
    }

    fn keep(&mut self, book: &Book) {
        self.stored = serde_json::to_string(book).expect("written");
    }

    /// A look at `seconds`, over a restart before and after it.
    fn look(&mut self, seconds: u64, seen: &[(&str, Reading)]) -> Said {
        let readings = seen.iter().map(|(release, reading)| ((group(release), WINDOW), reading.clone()));
        let readings = readings.collect();
        let mut book = self.book();
        let look = Look { rules: &self.rules, routes: &self.routes, readings: &readings };
        let said = book.look(UnixMillis(seconds * 1000), look);
        self.keep(&book);
        said
    }

    fn word(&self, release: &str) -> &'static str {
        let book = self.book();
        let mut watched = book.watched().filter(|(key, _)| key.group == group(release));
        watched.next().map_or("absent", |(_, watched)| watched.word())
    }
}

fn told(said: &Said) -> Vec<(String, bool)> {
    said.notices.iter().map(|(to, alert)| (to.to_string(), alert.ended.is_some())).collect()
}

#[test]
fn an_owner_hears_once_that_it_rings_and_once_that_it_is_over() {
    let mut watcher = Watcher::new(vec![failing()]);
    assert_eq!(watcher.look(0, &[("digits@1", errors(9))]).notices, []);
    assert_eq!(watcher.word("digits@1"), "pending");
    let said = watcher.look(10, &[("digits@1", errors(9))]);
    assert_eq!(told(&said), [("pager".to_owned(), false)]);
    let (_, alert) = said.notices.first().expect("one");
    assert_eq!(alert.contact.as_deref(), Some("digits@example.com"));
    assert_eq!((alert.numbers.errors, alert.found.value), (9, Some(0.09)));
    assert_eq!(
        said.notes.first().map(|note| (note.change, note.alert.numbers.requests)),
        Some((Change::Fired, 100))
    );
    assert_eq!(watcher.look(20, &[("digits@1", errors(9))]).notices, [], "once is enough");
    assert_eq!(watcher.look(30, &[("digits@1", errors(0))]).notices, [], "not good for long enough");
    assert_eq!(watcher.word("digits@1"), "clearing");
    let said = watcher.look(50, &[("digits@1", errors(0))]);
    assert_eq!(told(&said), [("pager".to_owned(), true)]);
    assert_eq!(said.notices[0].1.since, UnixMillis(10_000));
    assert_eq!(watcher.word("digits@1"), "fine");
}

#[test]
fn what_goes_on_is_said_again_to_each_in_its_own_time() {
    let mut watcher = Watcher::new(vec![Rule {
        hold: Millis(0),
        receivers: vec![name("pager"), name("all")],
        ..failing()
    }]);
    let mut times: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for seconds in (0..=2000).step_by(20) {
        for (to, _) in told(&watcher.look(seconds, &[("digits@1", errors(9))])) {
            times.entry(to).or_default().push(seconds);
        }
    }
    assert_eq!(times["pager"], [0, 1000, 2000]);
    assert_eq!(times["all"].len(), 34);
}

#[test]
fn no_data_is_never_fine_and_ends_no_alert() {
    let mut watcher = Watcher::new(vec![failing()]);
    watcher.look(0, &[("digits@1", errors(9))]);
    watcher.look(10, &[("digits@1", errors(9))]);
    let silent = Reading { devices: 3, ..Reading::default() };
    assert_eq!(watcher.look(20, &[("digits@1", silent.clone())]).notices, []);
    assert_eq!(watcher.word("digits@1"), "firing");
    let said = watcher.look(50, &[("digits@1", silent.clone())]);
    assert_eq!(
        said.notices.iter().map(|(_, alert)| (alert.kind, alert.ended)).collect::<Vec<_>>(),
        [(Kind::NoData, None)]
    );
    assert!(said.notices[0].1.summary().contains("nothing to judge"), "{}", said.notices[0].1.summary());
    // Data again, and good ones: no data is over at once, the breach after its time.
    let said = watcher.look(60, &[("digits@1", errors(0))]);
    assert_eq!(said.notices.iter().map(|(_, alert)| alert.kind).collect::<Vec<_>>(), [Kind::NoData]);
    let said = watcher.look(80, &[("digits@1", errors(0))]);
    assert_eq!(said.notices.iter().map(|(_, alert)| alert.kind).collect::<Vec<_>>(), [Kind::Breach]);

    let mut watcher = Watcher::new(vec![failing()]);
    watcher.look(0, &[("digits@1", silent)]);
    assert_eq!(watcher.word("digits@1"), "no_data");
}

#[test]
fn a_silence_keeps_it_from_being_told_and_its_end_tells_it() {
    let mut watcher = Watcher::new(vec![Rule { hold: Millis(0), clear_for: Millis(0), ..failing() }]);
    let mut book = watcher.book();
    let silence = |value: &str, until: u64| Silence {
        id: SilenceId(0),
        matchers: vec![value.parse::<Matcher>().expect("matcher")],
        author: "ann".into(),
        reason: "new camera".into(),
        made: UnixMillis(0),
        until: UnixMillis(until * 1000),
    };
    let id = book.silence(silence("release=digits@*", 100), UnixMillis(0)).expect("taken");
    assert_eq!(book.silence(silence("owner=digits", 0), UnixMillis(0)), Err(SilenceError::Endless));
    watcher.keep(&book);
    let seen = [("digits@1", errors(9)), ("other@1", errors(9))];
    let said = watcher.look(10, &seen);
    assert_eq!(told(&said), [("all".to_owned(), false)]);
    assert_eq!(said.notes.iter().map(|note| note.silenced).collect::<Vec<_>>(), [true, false]);
    assert_eq!(watcher.word("digits@1"), "firing", "it is still shown");
    assert_eq!(told(&watcher.look(99, &seen[..1])), [("all".to_owned(), true)], "the other is gone");
    assert_eq!(told(&watcher.look(100, &seen[..1])), [("pager".to_owned(), false)]);
    // Whoever was told hears that it is over, silence or not.
    let mut book = watcher.book();
    book.silence(silence("rule=failing", 500), UnixMillis(0)).expect("taken");
    assert!(book.unsilence(id, UnixMillis(101_000)).is_none(), "it is over already");
    watcher.keep(&book);
    assert_eq!(told(&watcher.look(110, &[("digits@1", errors(0))])), [("pager".to_owned(), true)]);
}

#[test]
fn what_nobody_runs_any_more_is_over_and_a_rule_that_is_gone_too() {
    let mut watcher = Watcher::new(vec![Rule { hold: Millis(0), ..failing() }]);
    watcher.look(0, &[("digits@1", errors(9))]);
    let said = watcher.look(1, &[("digits@2", errors(9))]);
    assert_eq!(told(&said), [("pager".to_owned(), true), ("pager".to_owned(), false)]);
    assert_eq!(said.notes.first().map(|note| note.change), Some(Change::Gone));
    // Receivers know an alert by its labels: with another severity it is another one, and the old one ends as it began.
    watcher.rules[0].severity = Severity::Info;
    let said = watcher.look(2, &[("digits@2", errors(9))]);
    let severities: Vec<_> =
        said.notices.iter().map(|(_, alert)| (alert.severity, alert.ended.is_some())).collect();
    assert_eq!(severities, [(Severity::Critical, true), (Severity::Info, false)]);
    watcher.rules.clear();
    let said = watcher.look(3, &[("digits@2", errors(9))]);
    assert_eq!(told(&said), [("pager".to_owned(), true)]);
    assert_eq!(said.notices[0].1.severity, Severity::Info);
    assert_eq!(watcher.book().watched().count(), 0);
}

#[test]
fn all_of_an_owner_is_one_group_and_rules_look_at_their_own_models_only() {
    let by_owner = rule("name = 'a'\nby = 'owner'\nmodels = ['digits']\nwhen.error_rate = { above = '5%' }");
    let readings: BTreeMap<_, _> = ["digits@1", "other@1"]
        .into_iter()
        .flat_map(|release| {
            let release = release.parse().expect("release");
            [Group::of_release(&release), Group::of_owner(&release)]
        })
        .map(|group| ((group, WINDOW), errors(9)))
        .collect();
    let (rules, routes) = (vec![by_owner], routes());
    let mut book = Book::default();
    let said = book.look(UnixMillis(0), Look { rules: &rules, routes: &routes, readings: &readings });
    let groups: Vec<String> = said.notices.iter().map(|(_, alert)| alert.group.to_string()).collect();
    assert_eq!(groups, ["all of digits"]);
}

proptest! {
    /// Whatever is seen, and however often the server is restarted: a receiver that was told of a beginning is told of
    /// its end, in turns.
    #[test]
    fn beginnings_and_ends_take_turns(looks in prop::collection::vec((1_u64..40, 0_u8..4), 1..100)) {
        let mut watcher = Watcher::new(vec![failing()]);
        let (mut now, mut open) = (0, BTreeMap::new());
        for (step, kind) in looks {
            now += step;
            let seen = match kind {
                0 => vec![("digits@1", errors(9))],
                1 => vec![("digits@1", errors(0))],
                2 => vec![("digits@1", Reading { devices: 1, ..Reading::default() })],
                _ => vec![],
            };
            for (to, alert) in watcher.look(now, &seen).notices {
                let is_open = open.entry((to, alert.kind)).or_insert(false);
                prop_assert!(alert.ended.is_none() || *is_open, "an end without a beginning");
                *is_open = alert.ended.is_none();
            }
        }
        watcher.look(now + 1, &[]).notices.iter().for_each(|(to, alert)| {
            open.insert((to.clone(), alert.kind), alert.ended.is_none());
        });
        prop_assert!(open.values().all(|is_open| !is_open), "an end was never told");
    }
}
