//! Looks one after the other, over a restart each.

use super::*;
use crate::alert::reading::Shift;
use crate::trigger::rule::check_all;
use proptest::prelude::*;

const DAY: u64 = 24 * 3600 * 1000;

fn fleet() -> FleetId {
    "shop".parse().expect("name")
}

fn rule(text: &str) -> TriggerRule {
    let rule: TriggerRule = toml::from_str(text).expect(text);
    check_all(std::slice::from_ref(&rule)).expect("sensible");
    rule
}

fn drifting() -> TriggerRule {
    rule(
        "name = 'drift'\nmodels = ['digits']\nfor = '1h'\ncooldown = '7d'\nexpires = '14d'\nreceivers = ['ci']
         when.feature_drift = { above = 0.2 }",
    )
}

fn subject(psi: f64) -> BTreeMap<ModelName, Subject> {
    let features = vec![Shift { name: "p00".into(), psi, moved: Some(psi > 0.1) }];
    let release: ReleaseId = "digits@1".parse().expect("release");
    let reading = Reading { features, devices: 7, ..Reading::default() };
    [(release.model.clone(), Subject { release, published: UnixMillis(0), lineage: None, reading })].into()
}

struct Desk {
    stored: String,
    rules: Vec<TriggerRule>,
}

impl Desk {
    fn new(rule: TriggerRule) -> Self {
        let stored = serde_json::to_string(&TriggerBook::default()).expect("written");
        Self { stored, rules: vec![rule] }
    }

    fn change<T>(&mut self, change: impl FnOnce(&mut TriggerBook) -> T) -> T {
        let mut book: TriggerBook = serde_json::from_str(&self.stored).expect("read");
        let answer = change(&mut book);
        self.stored = serde_json::to_string(&book).expect("written");
        answer
    }

    fn look(&mut self, now: u64, subjects: &BTreeMap<ModelName, Subject>) -> Vec<Trigger> {
        let rules = self.rules.clone();
        self.change(|book| book.look(&fleet(), &rules, subjects, UnixMillis(now)).0)
    }

    fn progress(&mut self) -> Vec<Progress> {
        self.change(|book| book.triggers().iter().map(|trigger| trigger.progress.clone()).collect())
    }
}

#[test]
fn drift_that_lasts_asks_once_and_is_answered_by_a_later_release_of_the_model() {
    let mut desk = Desk::new(drifting());
    assert_eq!(desk.look(0, &subject(0.5)), []);
    let made = desk.look(3_600_000, &subject(0.5));
    let [trigger] = made.as_slice() else { panic!("one: {made:?}") };
    assert_eq!((trigger.id.as_str(), trigger.cause.as_str()), ("shop-1", "feature_drift"));
    assert!(trigger.why.contains("p00 0.500"), "{}", trigger.why);
    assert_eq!(trigger.numbers.devices, 7);
    assert_eq!(desk.look(4_000_000, &subject(0.5)), [], "one at a time");

    let id = trigger.id.clone();
    let now = UnixMillis(5_000_000);
    desk.change(|book| book.acknowledge(&id, "ci", now)).expect("open");
    let release = |text: &str| text.parse::<ReleaseId>().expect("release");
    let answer = |book: &mut TriggerBook, of: &str, published: u64| {
        book.answer(&id, &release(of), UnixMillis(published), now)
    };
    assert!(matches!(
        desk.change(|book| answer(book, "other@2", 5_000_000)),
        Err(TriggerError::OtherModel { .. })
    ));
    assert!(matches!(desk.change(|book| answer(book, "digits@0", 1)), Err(TriggerError::Earlier(_))));
    desk.change(|book| answer(book, "digits@2", 5_000_000)).expect("answers");
    assert_eq!(desk.change(|book| answer(book, "digits@3", 5_000_000)), Err(TriggerError::Over(id.clone())));

    // The cool-down counts from when it fired.
    assert_eq!(desk.look(3_600_000 + 7 * DAY - 1, &subject(0.5)), []);
    assert_eq!(desk.look(3_600_000 + 7 * DAY, &subject(0.5)).len(), 1);
}

#[test]
fn what_nobody_answers_expires_and_may_be_asked_again() {
    let mut desk = Desk::new(TriggerRule { hold: Millis(0), ..drifting() });
    assert_eq!(desk.look(0, &subject(0.5)).len(), 1);
    assert_eq!(desk.look(14 * DAY - 1, &subject(0.5)), []);
    assert_eq!(desk.look(14 * DAY, &subject(0.5)).len(), 1);
    assert_eq!(desk.progress(), [Progress::Expired { at: UnixMillis(14 * DAY) }, Progress::Fired]);
}

#[test]
fn age_and_schedule_count_from_the_release_and_the_last_trigger() {
    let old =
        "name = 'old'\nmodels = ['digits']\nreceivers = ['ci']\nwhen.staleness = { older_than = '90d' }";
    let mut desk = Desk::new(rule(old));
    assert_eq!(desk.look(90 * DAY - 1, &subject(0.0)), []);
    let made = desk.look(90 * DAY, &subject(0.0));
    assert_eq!(made.first().map(|trigger| trigger.why.as_str()), Some("digits@1 was published 90d ago"));

    let monthly = "name = 'monthly'\nmodels = ['digits']\nexpires = '1d'\nreceivers = ['ci']\nwhen.schedule = { every = '30d' }";
    let mut desk = Desk::new(rule(monthly));
    let fired: Vec<u64> = (0..100).filter(|day| !desk.look(day * DAY, &subject(0.0)).is_empty()).collect();
    assert_eq!(fired, [30, 60, 90]);
}

#[test]
fn by_hand_it_is_asked_once_too() {
    let mut desk = Desk::new(drifting());
    let subject = subject(0.0).into_values().next().expect("one");
    let mut fire = |why: &str| {
        let subject = subject.clone();
        desk.change(|book| book.fire(&fleet(), subject, why, Vec::new(), UnixMillis(1)))
    };
    assert_eq!(fire(" ").map(drop), Err(TriggerError::Unsaid));
    let made = fire("new labels").expect("made");
    assert_eq!(fire("again").map(drop), Err(TriggerError::Open(made.id)));
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    for (text, why) in [
        ("models = []\nreceivers = ['ci']\nwhen.schedule = { every = '1d' }", "models"),
        ("models = ['a']\nreceivers = []\nwhen.schedule = { every = '1d' }", "receivers"),
        ("models = ['a']\nreceivers = ['ci']\nwhen.schedule = { every = '0s' }", "schedule.every is"),
        ("models = ['a']\nreceivers = ['ci']\nwhen.quality = { below = '9%', min_labels = 0 }", "min_labels"),
    ] {
        let rule: TriggerRule = toml::from_str(&format!("name = 'x'\n{text}")).expect(text);
        let error = check_all(&[rule]).expect_err(text);
        assert!(error.contains(why), "{text}: {error}");
    }
}

proptest! {
    /// Whatever is seen, a model is never asked twice within its cool-down, nor while one trigger of it is open.
    #[test]
    fn nobody_is_asked_too_often(steps in prop::collection::vec((0_u64..3 * DAY, 0.0_f64..0.4, any::<bool>()), 1..80)) {
        let mut desk = Desk::new(drifting());
        let (mut now, mut last) = (0, None);
        for (step, psi, answers) in steps {
            now += step;
            for trigger in desk.look(now, &subject(psi)) {
                prop_assert!(last.is_none_or(|last| trigger.fired.0 - last >= 7 * DAY));
                last = Some(trigger.fired.0);
                if answers {
                    let release = "digits@2".parse().expect("release");
                    desk.change(|book| book.answer(&trigger.id, &release, UnixMillis(now), UnixMillis(now))).expect("open");
                }
            }
            let open = desk.progress().iter().filter(|progress| progress.is_open()).count();
            prop_assert!(open <= 1);
        }
    }
}
