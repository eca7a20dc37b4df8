//! What is not delivered yet: in order for each receiver, bounded, tried again ever more slowly, and given up after a
//! day. Pure: the shell asks what is due, tries, and says what came of it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serin_protocol::ids::{Millis, UnixMillis};

use super::receiver::ReceiverName;
use crate::alert::note::Alert;

/// Deliveries waiting per receiver; beyond it the oldest is given up. At 64 alerts each that is a busy day.
pub const MAX_WAITING: usize = 200;
/// Alerts in one message, about 1 KiB each.
pub const MAX_ALERTS: usize = 64;
/// How long a delivery is tried.
pub const GIVE_UP: Millis = Millis::from_secs(24 * 3600);
/// The first wait; each one is twice as long as the one before.
const FIRST_WAIT: Millis = Millis::from_secs(1);
/// The longest wait.
const LONGEST_WAIT: Millis = Millis::from_secs(5 * 60);

/// What is delivered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Alerts: to a webhook, or to Alertmanager, whose form is made when it is sent.
    Alerts(Vec<Alert>),
    /// Something else for a webhook.
    Call(Value),
}

/// One delivery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// Its number, by which a receiver knows a repetition.
    pub id: u64,
    /// To whom.
    pub to: ReceiverName,
    /// Since when it waits.
    pub made: UnixMillis,
    /// How often it was tried.
    pub attempts: u32,
    /// Not before.
    pub not_before: UnixMillis,
    /// What went wrong last.
    pub error: Option<String>,
    /// What.
    pub content: Content,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken.
    Taken,
    /// It may be taken later.
    Later(String),
    /// It will never be taken.
    Refused(String),
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outbox {
    waiting: BTreeMap<u64, Delivery>,
    last: u64,
    given_up: u64,
}

impl Outbox {
    /// One that goes on where another was.
    pub fn of(waiting: BTreeMap<u64, Delivery>, last: u64, given_up: u64) -> Self {
        let last = waiting.last_key_value().map_or(last, |(id, _)| last.max(*id));
        Self { waiting, last, given_up }
    }

    /// The number of the last delivery, and how many were given up.
    pub const fn numbers(&self) -> (u64, u64) {
        (self.last, self.given_up)
    }

    /// One that waits.
    pub fn get(&self, id: u64) -> Option<&Delivery> {
        self.waiting.get(&id)
    }

    /// All that waits, the oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = &Delivery> {
        self.waiting.values()
    }

    /// Adds alerts for a receiver, as few messages as hold them. With `latest`, the receiver wants to know how things
    /// are, not what happened: what waits about the same alerts is replaced.
    pub fn add_alerts(&mut self, to: &ReceiverName, mut alerts: Vec<Alert>, latest: bool, now: UnixMillis) {
        if latest {
            let older = self.waiting.values_mut().filter(|delivery| delivery.to == *to);
            for delivery in older {
                if let Content::Alerts(old) = &mut delivery.content {
                    old.retain(|old| !alerts.iter().any(|new| new.is_about_the_same(old)));
                }
            }
            let is_empty =
                |delivery: &Delivery| matches!(&delivery.content, Content::Alerts(old) if old.is_empty());
            self.waiting.retain(|_, delivery| !is_empty(delivery));
        }
        while !alerts.is_empty() {
            let rest = alerts.split_off(alerts.len().min(MAX_ALERTS));
            self.add(to, Content::Alerts(alerts), now);
            alerts = rest;
        }
    }

    /// Adds something for a receiver; its number.
    pub fn add(&mut self, to: &ReceiverName, content: Content, now: UnixMillis) -> u64 {
        let of_receiver: Vec<u64> =
            self.waiting.values().filter(|delivery| delivery.to == *to).map(|delivery| delivery.id).collect();
        for id in of_receiver.iter().take((of_receiver.len() + 1).saturating_sub(MAX_WAITING)) {
            self.waiting.remove(id);
            self.given_up = self.given_up.saturating_add(1);
        }
        self.last = self.last.saturating_add(1);
        let (id, to) = (self.last, to.clone());
        let delivery = Delivery { id, to, made: now, attempts: 0, not_before: now, error: None, content };
        self.waiting.insert(id, delivery);
        id
    }

    /// The first delivery of each receiver that is due and not among the `busy`: later ones wait for it, so that
    /// a receiver hears things in the order in which they happened.
    pub fn due(&self, now: UnixMillis, busy: &BTreeSet<ReceiverName>) -> Vec<Delivery> {
        let mut seen = busy.clone();
        let first = self.waiting.values().filter(|delivery| seen.insert(delivery.to.clone()));
        first.filter(|delivery| delivery.not_before <= now).cloned().collect()
    }

    /// Takes in what came of an attempt. `jitter` is 0 to 255 and spreads repetitions by a quarter of the wait. True if
    /// it was given up.
    pub fn tried(&mut self, id: u64, outcome: Outcome, now: UnixMillis, jitter: u8) -> bool {
        let Some(delivery) = self.waiting.get_mut(&id) else {
            return false;
        };
        match outcome {
            Outcome::Taken => {
                self.waiting.remove(&id);
                false
            }
            Outcome::Later(why) if now.since(delivery.made) < GIVE_UP => {
                let wait = FIRST_WAIT.0.checked_shl(delivery.attempts.min(16)).unwrap_or(LONGEST_WAIT.0);
                let wait = wait.min(LONGEST_WAIT.0);
                let wait = wait - wait / 4 * u64::from(jitter) / 255;
                delivery.attempts = delivery.attempts.saturating_add(1);
                delivery.not_before = now.plus(Millis(wait));
                delivery.error = Some(why);
                false
            }
            Outcome::Later(_) | Outcome::Refused(_) => {
                self.waiting.remove(&id);
                self.given_up = self.given_up.saturating_add(1);
                true
            }
        }
    }

    /// Gives up what waits for receivers that are not there any more.
    pub fn forget_others(&mut self, is_there: impl Fn(&ReceiverName) -> bool) {
        let before = self.waiting.len();
        self.waiting.retain(|_, delivery| is_there(&delivery.to));
        self.given_up = self.given_up.saturating_add((before - self.waiting.len()) as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn name(text: &str) -> ReceiverName {
        ReceiverName::new(text).expect("name")
    }

    fn nobody() -> BTreeSet<ReceiverName> {
        BTreeSet::new()
    }

    #[test]
    fn a_receiver_hears_in_order_and_holds_up_nobody_else() {
        let mut outbox = Outbox::default();
        let (a, b) = (name("a"), name("b"));
        let first = outbox.add(&a, Content::Call(json!(1)), UnixMillis(0));
        outbox.add(&a, Content::Call(json!(2)), UnixMillis(0));
        let of_b = outbox.add(&b, Content::Call(json!(3)), UnixMillis(0));
        let ids = |outbox: &Outbox, now| {
            outbox.due(UnixMillis(now), &nobody()).iter().map(|delivery| delivery.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(&outbox, 0), [first, of_b]);
        assert!(!outbox.tried(first, Outcome::Later("503".into()), UnixMillis(0), 0));
        assert_eq!(ids(&outbox, 999), [of_b], "the second waits for the first");
        assert_eq!(ids(&outbox, 1000), [first, of_b]);
        outbox.tried(first, Outcome::Taken, UnixMillis(1000), 0);
        assert_eq!(ids(&outbox, 1000), [first + 1, of_b]);
        assert_eq!(outbox.due(UnixMillis(1000), &BTreeSet::from([a, b])), []);
    }

    #[test]
    fn waits_double_up_to_a_bound_and_end_after_a_day() {
        let mut outbox = Outbox::default();
        let id = outbox.add(&name("a"), Content::Call(json!(1)), UnixMillis(0));
        let (mut now, mut waits) = (0, Vec::new());
        loop {
            if outbox.tried(id, Outcome::Later("refused".into()), UnixMillis(now), 0) {
                break;
            }
            let next = outbox.waiting().next().expect("waits").not_before.0;
            waits.push(next - now);
            now = next;
        }
        assert_eq!(waits.get(..10).expect("many"), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300].map(|s| s * 1000));
        assert!(waits.iter().skip(9).all(|wait| *wait == LONGEST_WAIT.0));
        assert!((GIVE_UP.0..GIVE_UP.0 + LONGEST_WAIT.0).contains(&now));
        assert_eq!((outbox.waiting().count(), outbox.numbers().1), (0, 1));
    }

    proptest! {
        #[test]
        fn it_stays_bounded_and_loses_only_the_oldest(counts in prop::collection::vec(0_u8..2, 0..600)) {
            let mut outbox = Outbox::default();
            for to in &counts {
                outbox.add(&name(&to.to_string()), Content::Call(json!(to)), UnixMillis(0));
            }
            for to in 0..2_u8 {
                let added: Vec<u64> =
                    (1..).zip(&counts).filter(|(_, other)| **other == to).map(|(id, _)| id).collect();
                let kept: Vec<u64> = outbox
                    .waiting()
                    .filter(|delivery| delivery.to == name(&to.to_string()))
                    .map(|delivery| delivery.id)
                    .collect();
                let expected = added.get(added.len().saturating_sub(MAX_WAITING)..).unwrap_or_default();
                prop_assert_eq!(kept, expected);
            }
            prop_assert_eq!(outbox.numbers().1 as usize + outbox.waiting().count(), counts.len());
        }
    }
}
