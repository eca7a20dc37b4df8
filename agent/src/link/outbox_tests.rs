//! Single rules, then a server that is away, a link that loses and repeats, and a device that restarts.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn outbox(events: u64, reports: u64) -> Outbox {
    let stored = Stored {
        first_event: EventNumber(1),
        next_event: EventNumber(events + 1),
        oldest_report: ReportKey(0),
        next_report: ReportKey(reports),
    };
    Outbox::new(stored, Jitter::new(1))
}

fn events(numbers: impl IntoIterator<Item = u64>) -> Effects {
    let publish = |number| Effect::PublishEvent(EventNumber(number));
    numbers.into_iter().map(publish).collect()
}

fn reports(keys: impl IntoIterator<Item = u64>) -> Effects {
    let publish = |key| Effect::PublishReport(ReportKey(key));
    keys.into_iter().map(publish).collect()
}

const NOW: Millis = Millis(0);

#[test]
fn events_go_out_in_order_within_the_window() {
    let mut outbox = outbox(20, 0);
    assert_eq!(outbox.handle(NOW, Input::Tick), []);
    assert_eq!(outbox.handle(NOW, Input::Connected), events(1..=16));
    let mut expected = vec![Effect::DropEventsUpTo(EventNumber(3))];
    expected.extend(events(17..=19));
    assert_eq!(outbox.handle(NOW, Input::Acknowledged(EventNumber(3))), expected);
    assert_eq!(outbox.pending(), 17);
}

#[test]
fn a_new_session_sends_everything_unacknowledged_again() {
    let mut outbox = outbox(3, 0);
    let _ = outbox.handle(NOW, Input::Connected);
    let _ = outbox.handle(NOW, Input::Acknowledged(EventNumber(1)));
    assert_eq!(outbox.handle(NOW, Input::Disconnected), []);
    assert_eq!(outbox.next_deadline(), None);
    assert_eq!(outbox.handle(NOW, Input::EventStored(EventNumber(4))), []);
    assert_eq!(outbox.handle(NOW, Input::Connected), events(2..=4));
}

#[test]
fn a_silent_server_is_sent_everything_again_less_and_less_often() {
    let mut outbox = outbox(2, 0);
    let mut waits = Vec::new();
    let mut now = NOW;
    assert_eq!(outbox.handle(now, Input::Connected), events(1..=2));
    for _ in 0..10 {
        let deadline = outbox.next_deadline().expect("waiting");
        waits.push(deadline.0 - now.0);
        assert_eq!(outbox.handle(Millis(deadline.0 - 1), Input::Tick), []);
        now = deadline;
        assert_eq!(outbox.handle(now, Input::Tick), events(1..=2));
    }
    assert!((15_000..=30_000).contains(&waits[0]), "{waits:?}");
    assert!((900_000..=1_800_000).contains(&waits[9]), "{waits:?}");
    let dropped = outbox.handle(now, Input::Acknowledged(EventNumber(2)));
    assert_eq!(dropped, [Effect::DropEventsUpTo(EventNumber(2))]);
    assert_eq!(outbox.next_deadline(), None);
}

#[test]
fn an_old_acknowledgement_changes_nothing() {
    let mut outbox = outbox(3, 0);
    let _ = outbox.handle(NOW, Input::Connected);
    let _ = outbox.handle(NOW, Input::Acknowledged(EventNumber(2)));
    assert_eq!(outbox.handle(NOW, Input::Acknowledged(EventNumber(2))), []);
    assert_eq!(outbox.handle(NOW, Input::Acknowledged(EventNumber(1))), []);
    assert_eq!(outbox.pending(), 1);
}

#[test]
fn a_server_that_knows_more_than_the_device_moves_the_numbering() {
    let mut outbox = outbox(3, 0);
    let _ = outbox.handle(NOW, Input::Connected);
    let nine = EventNumber(9);
    let effects = outbox.handle(NOW, Input::Acknowledged(nine));
    assert_eq!(effects, [Effect::DropEventsUpTo(nine), Effect::NumberAbove(nine)]);
    let stored = outbox.handle(NOW, Input::EventStored(EventNumber(10)));
    assert_eq!(stored, events([10]));
}

#[test]
fn numbers_without_an_event_are_skipped_once_those_before_are_acknowledged() {
    let mut outbox = outbox(100, 0);
    let exists = |number: u64| number <= 2 || number == 100;
    let mut now = NOW;
    let mut effects = outbox.handle(now, Input::Connected);
    let mut sent = Vec::new();
    for _ in 0..300 {
        let Some(effect) = effects.first().copied() else {
            if outbox.pending() == 0 {
                break;
            }
            if let Some(last) = sent.last().copied() {
                effects = outbox.handle(now, Input::Acknowledged(EventNumber(last)));
            }
            if effects.is_empty() {
                now = outbox.next_deadline().expect("something is pending");
                effects = outbox.handle(now, Input::Tick);
            }
            continue;
        };
        effects.remove(0);
        match effect {
            Effect::PublishEvent(number) if exists(number.0) => sent.push(number.0),
            Effect::PublishEvent(number) => effects.extend(outbox.handle(now, Input::EventGone(number))),
            _ => {}
        }
    }
    sent.dedup();
    assert_eq!((sent, outbox.pending()), (vec![1, 2, 100], 0));
}

#[test]
fn a_report_goes_once_per_session_until_the_broker_has_it() {
    let mut outbox = outbox(0, 6);
    assert_eq!(outbox.handle(NOW, Input::Connected), reports(0..4));
    let mut expected = vec![Effect::DropReport(ReportKey(1))];
    expected.extend(reports([4]));
    assert_eq!(outbox.handle(NOW, Input::ReportTaken(ReportKey(1))), expected);
    assert_eq!(outbox.handle(NOW, Input::ReportTaken(ReportKey(1))), []);
    let _ = outbox.handle(NOW, Input::Disconnected);
    assert_eq!(outbox.handle(NOW, Input::Connected), reports([0, 2, 3, 4]));
    let taken = outbox.handle(NOW, Input::ReportGone(ReportKey(0)));
    assert_eq!(taken, reports([5]));
}

#[test]
fn reports_dropped_for_space_are_not_sent() {
    let mut outbox = outbox(0, 6);
    let _ = outbox.handle(NOW, Input::Connected);
    let stored = Input::ReportStored { key: ReportKey(6), oldest: ReportKey(5) };
    assert_eq!(outbox.handle(NOW, stored), reports([5, 6]));
    // Confirmed after all, but no longer here.
    assert_eq!(outbox.handle(NOW, Input::ReportTaken(ReportKey(0))), []);
}

/// A device with its journal, a link, and a server that stores in order.
struct World {
    now: Millis,
    outbox: Outbox,
    dice: Jitter,
    journal: BTreeSet<u64>,
    appended: u64,
    /// Sent to the server in this session and not arrived.
    up: Vec<u64>,
    /// Sent by the server in this session.
    down: Vec<u64>,
    online: bool,
    /// Published in this session since the last restart of the pass.
    last_published: Option<u64>,
    acknowledged: u64,
    server: BTreeMap<u64, u32>,
}

impl World {
    fn input(&mut self, input: Input) {
        for effect in self.outbox.handle(self.now, input) {
            match effect {
                Effect::PublishEvent(EventNumber(number)) => {
                    assert!(self.online && self.journal.contains(&number));
                    let in_order = self.last_published.is_some_and(|last| number == last + 1);
                    assert!(in_order || number == self.acknowledged + 1, "{number} out of order");
                    assert!(number <= self.acknowledged + EVENTS_IN_FLIGHT, "{number} beyond the window");
                    self.last_published = Some(number);
                    self.up.push(number);
                }
                Effect::DropEventsUpTo(EventNumber(number)) => {
                    assert!((1..=number).all(|stored| self.server.contains_key(&stored)));
                    self.acknowledged = number;
                    self.journal.retain(|event| *event > number);
                    self.last_published = self.last_published.map(|last| last.max(number));
                }
                Effect::PublishReport(_)
                | Effect::DropReport(_)
                | Effect::NumberAbove(_)
                | Effect::RefuseAck(_) => {
                    panic!("{effect:?}")
                }
            }
        }
    }

    fn append(&mut self) {
        self.appended += 1;
        self.journal.insert(self.appended);
        self.input(Input::EventStored(EventNumber(self.appended)));
    }

    fn connect(&mut self) {
        self.online = true;
        self.last_published = None;
        self.input(Input::Connected);
    }

    fn disconnect(&mut self) {
        self.online = false;
        self.up.clear();
        self.down.clear();
        self.input(Input::Disconnected);
    }

    /// The device starts again from its journal.
    fn restart(&mut self) {
        let next = EventNumber(self.appended + 1);
        let first = self.journal.first().map_or(next, |first| EventNumber(*first));
        let stored = Stored {
            first_event: first,
            next_event: next,
            oldest_report: ReportKey(0),
            next_report: ReportKey(0),
        };
        self.outbox = Outbox::new(stored, Jitter::new(self.now.0));
        self.online = false;
        self.up.clear();
        self.down.clear();
    }

    /// One message up arrives, is stored or lost; the server acknowledges or forgets to.
    fn arrive(&mut self, lossy: bool) {
        if self.up.is_empty() {
            return;
        }
        let number = self.up.remove(0);
        if lossy && self.dice.below(3) == 0 {
            return;
        }
        *self.server.entry(number).or_default() += 1;
        let stored = (1..=self.appended).take_while(|number| self.server.contains_key(number)).last();
        if !(lossy && self.dice.below(3) == 0) {
            self.down.extend(stored);
        }
    }

    fn acknowledge(&mut self) {
        if !self.down.is_empty() {
            let number = self.down.remove(0);
            self.input(Input::Acknowledged(EventNumber(number)));
        }
    }

    fn pass(&mut self, span: u64) {
        self.now.0 += span;
        self.input(Input::Tick);
    }
}

proptest! {
    #[test]
    fn every_event_arrives_at_least_once_in_order_and_bounded(
        steps in prop::collection::vec((0..12_u8, 0..60_000_u64), 0..400), seed: u64
    ) {
        let mut world = World {
            now: Millis(0),
            outbox: outbox(0, 0),
            dice: Jitter::new(seed),
            journal: BTreeSet::new(),
            appended: 0,
            up: Vec::new(),
            down: Vec::new(),
            online: false,
            last_published: None,
            acknowledged: 0,
            server: BTreeMap::new(),
        };
        for (step, span) in steps {
            match step {
                0..=3 => world.append(),
                4 if !world.online => world.connect(),
                5 if world.online => world.disconnect(),
                6 => world.restart(),
                7 | 8 => world.arrive(true),
                9 | 10 => world.acknowledge(),
                _ => world.pass(span),
            }
        }
        // Then the link is good.
        if !world.online {
            world.connect();
        }
        for _ in 0..2000 {
            if world.outbox.pending() == 0 {
                break;
            }
            if world.up.is_empty() && world.down.is_empty() {
                let deadline = world.outbox.next_deadline().expect("something is pending");
                world.now = world.now.max(deadline);
                world.input(Input::Tick);
            }
            world.arrive(false);
            world.acknowledge();
        }
        prop_assert_eq!(world.outbox.pending(), 0);
        prop_assert!(world.journal.is_empty());
        prop_assert!((1..=world.appended).all(|number| world.server.contains_key(&number)));
        prop_assert_eq!(world.server.len() as u64, world.appended);
    }

    /// Reports: each is dropped only once taken or for space; in flight is bounded; none is lost.
    #[test]
    fn every_report_is_taken_or_dropped_for_space(
        steps in prop::collection::vec((0..6_u8, any::<prop::sample::Index>()), 0..300)
    ) {
        let mut outbox = outbox(0, 0);
        let (mut stored, mut next, mut online) = (BTreeSet::new(), 0_u64, false);
        let mut in_flight = BTreeSet::new();
        let mut taken = BTreeSet::new();
        let budget = 10;
        let mut apply = |effects: Effects, stored: &mut BTreeSet<u64>, in_flight: &mut BTreeSet<u64>| {
            for effect in effects {
                match effect {
                    Effect::PublishReport(ReportKey(key)) => {
                        assert!(stored.contains(&key) && in_flight.insert(key), "{key}");
                    }
                    Effect::DropReport(ReportKey(key)) => assert!(stored.remove(&key) && taken.insert(key)),
                    Effect::PublishEvent(_)
                    | Effect::DropEventsUpTo(_)
                    | Effect::NumberAbove(_)
                    | Effect::RefuseAck(_) => {
                        panic!("{effect:?}")
                    }
                }
            }
        };
        for (step, pick) in steps {
            let effects = match step {
                0 | 1 => {
                    stored.insert(next);
                    next += 1;
                    while stored.len() > budget {
                        stored.pop_first();
                    }
                    let oldest = *stored.first().expect("just stored");
                    in_flight.retain(|key| *key >= oldest);
                    outbox.handle(NOW, Input::ReportStored { key: ReportKey(next - 1), oldest: ReportKey(oldest) })
                }
                2 | 3 if !in_flight.is_empty() => {
                    let key = *in_flight.iter().nth(pick.index(in_flight.len())).expect("in range");
                    in_flight.remove(&key);
                    outbox.handle(NOW, Input::ReportTaken(ReportKey(key)))
                }
                4 if !online => {
                    online = true;
                    outbox.handle(NOW, Input::Connected)
                }
                5 if online => {
                    online = false;
                    in_flight.clear();
                    outbox.handle(NOW, Input::Disconnected)
                }
                _ => outbox.handle(NOW, Input::Tick),
            };
            apply(effects, &mut stored, &mut in_flight);
            prop_assert!(in_flight.len() <= REPORTS_IN_FLIGHT);
        }
        if !online {
            let effects = outbox.handle(NOW, Input::Connected);
            apply(effects, &mut stored, &mut in_flight);
        }
        while let Some(key) = in_flight.pop_first() {
            let effects = outbox.handle(NOW, Input::ReportTaken(ReportKey(key)));
            apply(effects, &mut stored, &mut in_flight);
        }
        prop_assert!(stored.is_empty(), "{stored:?} never sent");
    }
}

#[test]
fn an_acknowledgement_from_nowhere_uses_up_no_numbers() {
    let mut outbox = outbox(2, 0);
    for beyond in [u64::MAX, 3 + MAX_ACK_STEP] {
        let effects = outbox.handle(Millis(0), Input::Acknowledged(EventNumber(beyond)));
        assert_eq!(effects, [Effect::RefuseAck(EventNumber(beyond))]);
    }
    assert_eq!(outbox.pending(), 2);
    let far = EventNumber(2 + MAX_ACK_STEP);
    let effects = outbox.handle(Millis(0), Input::Acknowledged(far));
    assert_eq!(effects, [Effect::DropEventsUpTo(far), Effect::NumberAbove(far)]);
}
