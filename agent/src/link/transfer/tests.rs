//! Single rules one by one, then whole downloads over a simulated broker that loses, repeats, reorders,
//! spoils, disconnects and forgets.

use super::tracker::MAX_TRACKED;
use super::*;
use proptest::prelude::*;
use serin_protocol::chunk::CHUNK_BYTES;
use serin_protocol::ids::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The chunks of an object, all different, the last one short.
fn contents(chunks: u32) -> Vec<Vec<u8>> {
    let byte = |index: u32| (index % 251 + 1) as u8;
    (0..chunks)
        .map(|index| {
            let length = if index + 1 == chunks { 777 } else { CHUNK_BYTES };
            let mut bytes = vec![byte(index); length];
            bytes[..4].copy_from_slice(&index.to_le_bytes());
            bytes
        })
        .collect()
}

fn object(contents: &[Vec<u8>]) -> (ObjectRef, ChunkHashes) {
    let mut whole = Digest::hasher();
    contents.iter().for_each(|chunk| whole.update(chunk));
    let size = contents.iter().map(|chunk| chunk.len() as u64).sum();
    let list: Vec<u8> = contents.iter().flat_map(|chunk| Digest::of(chunk).0).collect();
    let object = ObjectRef { digest: whole.finish(), size: ByteCount(size) };
    let map = ChunkMap::new(object.size).expect("in bounds");
    (object, ChunkHashes::parse(&list, map).expect("fits"))
}

fn transfer(contents: &[Vec<u8>], window: u8) -> Transfer {
    let (object, hashes) = object(contents);
    let have = ChunkSet::empty(ChunkMap::new(object.size).expect("in bounds"));
    let window = Window::new(window).expect("in bounds");
    Transfer::new(object, Some(hashes), have, Pace { window, ..Pace::default() }, Jitter::new(1))
        .expect("sound")
}

fn chunk(contents: &[Vec<u8>], index: u32) -> Input<'_> {
    Input::Chunk { index, bytes: &contents[index as usize] }
}

const NOW: Millis = Millis(1000);

#[test]
fn the_window_slides_only_after_the_write() {
    let contents = contents(5);
    let mut transfer = transfer(&contents, 2);
    assert_eq!(transfer.handle(NOW, Input::Tick), []);
    let effects = transfer.handle(NOW, Input::Connected);
    assert_eq!(effects, [Effect::Subscribe(0), Effect::Subscribe(1)]);
    assert_eq!(transfer.handle(NOW, Input::Subscribed(0)), []);
    assert_eq!(transfer.handle(NOW, chunk(&contents, 0)), [Effect::Write { index: 0 }]);
    assert_eq!(transfer.handle(NOW, chunk(&contents, 1)), [Effect::Write { index: 1 }]);
    let effects = transfer.handle(NOW, Input::Written(0));
    assert_eq!(effects, [Effect::Unsubscribe(0), Effect::Subscribe(2)]);
    assert_eq!(transfer.bytes_here(), ByteCount(CHUNK_BYTES as u64));
}

#[test]
fn duplicates_change_nothing() {
    let contents = contents(2);
    let mut transfer = transfer(&contents, 2);
    let _ = transfer.handle(NOW, Input::Connected);
    let _ = transfer.handle(NOW, chunk(&contents, 0));
    assert_eq!(transfer.handle(NOW, chunk(&contents, 0)), []);
    assert_eq!(transfer.handle(NOW, Input::Written(0)), [Effect::Unsubscribe(0)]);
    assert_eq!(transfer.handle(NOW, chunk(&contents, 0)), []);
    assert_eq!(transfer.handle(NOW, Input::Written(0)), []);
}

#[test]
fn the_last_write_completes_the_transfer_once() {
    let contents = contents(1);
    let mut transfer = transfer(&contents, 2);
    let _ = transfer.handle(NOW, Input::Connected);
    let _ = transfer.handle(NOW, chunk(&contents, 0));
    let effects = transfer.handle(NOW, Input::Written(0));
    assert_eq!(effects, [Effect::Unsubscribe(0), Effect::Complete]);
    assert_eq!(transfer.handle(NOW, Input::Tick), []);
    assert_eq!(transfer.next_deadline(), None);
}

#[test]
fn an_object_that_is_here_is_complete_without_a_connection() {
    let contents = contents(2);
    let (object, hashes) = object(&contents);
    let mut have = ChunkSet::empty(ChunkMap::new(object.size).expect("in bounds"));
    assert!(have.insert(0) && have.insert(1));
    let mut transfer =
        Transfer::new(object, Some(hashes), have, Pace::default(), Jitter::new(1)).expect("sound");
    assert_eq!(transfer.handle(NOW, Input::Tick), [Effect::Complete]);
}

#[test]
fn a_truncated_chunk_a_wrong_one_and_one_beyond_the_end_are_refused_by_name() {
    let contents = contents(3);
    let mut transfer = transfer(&contents, 2);
    let _ = transfer.handle(NOW, Input::Connected);
    let cut = Input::Chunk { index: 0, bytes: &contents[0][..100] };
    let swapped = Input::Chunk { index: 1, bytes: &contents[0] };
    let beyond = Input::Chunk { index: 3, bytes: &[1] };
    for (input, complaint) in [(cut, "100 bytes, not 61440"), (swapped, "hash"), (beyond, "not asked for")] {
        let effects = transfer.handle(NOW, input);
        let refused = effects
            .iter()
            .any(|effect| matches!(effect, Effect::Refuse { detail, .. } if detail.contains(complaint)));
        assert!(refused, "{effects:?}, expected {complaint}");
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Write { .. })));
    }
}

#[test]
fn a_wrong_chunk_is_asked_for_again_after_a_wait_and_given_up_in_the_end() {
    let contents = contents(1);
    let mut transfer = transfer(&contents, 2);
    let mut now = NOW;
    let mut effects = transfer.handle(now, Input::Connected);
    let mut asked = 0;
    for round in 1..=MAX_REFUSALS {
        assert_eq!(effects, [Effect::Subscribe(0)], "round {round}");
        let wrong = Input::Chunk { index: 0, bytes: &[0; 777] };
        effects = transfer.handle(now, wrong);
        assert!(matches!(effects[0], Effect::Refuse { index: 0, .. }));
        assert_eq!(effects[1], Effect::Unsubscribe(0));
        if round == MAX_REFUSALS {
            assert_eq!(effects[2], Effect::Stalled(Stall::Refused { index: 0 }));
            break;
        }
        loop {
            asked += effects.iter().filter(|effect| matches!(effect, Effect::AskRepublish { .. })).count();
            let deadline = transfer.next_deadline().expect("waiting");
            assert!(deadline > now);
            now = deadline;
            effects = transfer.handle(now, Input::Tick);
            if effects.contains(&Effect::Subscribe(0)) {
                effects.retain(|effect| !matches!(effect, Effect::AskRepublish { .. }));
                break;
            }
        }
    }
    assert!(asked > 0, "the server should know");
    assert_eq!(transfer.handle(now, Input::Connected), []);
}

#[test]
fn a_silent_subscription_is_renewed_and_then_the_server_is_asked() {
    let contents = contents(1);
    let mut transfer = transfer(&contents, 2);
    let mut now = NOW;
    let mut seen = transfer.handle(now, Input::Connected);
    let _ = transfer.handle(now, Input::Subscribed(0));
    let hour = Millis::from_secs(3600);
    while let Some(deadline) = transfer.next_deadline().filter(|deadline| *deadline < hour) {
        assert!(deadline > now, "time moves on");
        now = deadline;
        seen.extend(transfer.handle(now, Input::Tick));
    }
    let expected = [
        Effect::Subscribe(0),
        Effect::Unsubscribe(0),
        Effect::Subscribe(0),
        Effect::Unsubscribe(0),
        Effect::AskRepublish { first: 0, count: 1 },
    ];
    assert_eq!(seen[..5], expected);
    let asked = seen.iter().filter(|effect| matches!(effect, Effect::AskRepublish { .. })).count();
    assert!((3..=12).contains(&asked), "asked {asked} times in an hour");
    // However long it takes.
    let _ = transfer.handle(now, Input::Connected);
    assert_eq!(transfer.handle(now, chunk(&contents, 0)), [Effect::Write { index: 0 }]);
}

#[test]
fn a_lost_object_is_asked_for_whole() {
    let contents = contents(200);
    let mut transfer = transfer(&contents, 8);
    let mut now = NOW;
    let mut seen = transfer.handle(now, Input::Connected);
    while now < Millis::from_secs(3600) {
        now = transfer.next_deadline().expect("waiting");
        seen.extend(transfer.handle(now, Input::Tick));
    }
    let asked = seen.iter().find(|effect| matches!(effect, Effect::AskRepublish { .. }));
    assert_eq!(asked, Some(&Effect::AskRepublish { first: 0, count: 200 }));
    // The others are tried as well, up to the bound.
    let last = MAX_TRACKED as u32 - 1;
    assert!(seen.contains(&Effect::Subscribe(last)) && !seen.contains(&Effect::Subscribe(last + 1)));
}

#[test]
fn a_few_silent_chunks_do_not_hold_up_the_others() {
    let contents = contents(40);
    let lost = [0, 1, 7];
    let mut transfer = transfer(&contents, 4);
    let mut now = NOW;
    let mut effects: std::collections::VecDeque<Effect> = transfer.handle(now, Input::Connected).into();
    let mut asked = BTreeSet::new();
    while transfer.have().len() < 37 || asked.len() < lost.len() {
        match effects.pop_front() {
            Some(Effect::Subscribe(index)) if !lost.contains(&index) => {
                effects.extend(transfer.handle(now, chunk(&contents, index)));
            }
            Some(Effect::Write { index }) => effects.extend(transfer.handle(now, Input::Written(index))),
            Some(Effect::AskRepublish { first, count }) => asked.extend(first..first + count),
            Some(Effect::Subscribe(_) | Effect::Unsubscribe(_)) => {}
            Some(other) => panic!("{other:?}"),
            None => {
                now = transfer.next_deadline().expect("waiting");
                effects.extend(transfer.handle(now, Input::Tick));
            }
        }
        assert!(now < Millis::from_secs(600), "stuck with {} chunks", transfer.have().len());
    }
    assert!(asked.iter().all(|index| lost.contains(index) || *index > 1), "{asked:?}");
}

/// Runs until the first request to publish again, every chunk but the lost ones arriving `pause` after its
/// subscription and being written at once.
fn first_ask(lost: &[u32], pause: Millis) -> (u32, u32) {
    let contents = contents(200);
    let mut transfer = transfer(&contents, 4);
    let mut now = NOW;
    let mut arrivals = BTreeMap::new();
    let mut effects: std::collections::VecDeque<Effect> = transfer.handle(now, Input::Connected).into();
    loop {
        match effects.pop_front() {
            Some(Effect::AskRepublish { first, count }) => return (first, count),
            Some(Effect::Subscribe(index)) if !lost.contains(&index) => {
                arrivals.insert((now.0 + pause.0, index), index);
            }
            Some(Effect::Write { index }) => {
                effects.extend(transfer.handle(now, Input::Written(index)));
            }
            Some(_) => {}
            None => {
                let deadline = transfer.next_deadline().map_or(u64::MAX, |deadline| deadline.0);
                let arrival = arrivals.first_key_value().map(|((at, _), index)| (*at, *index));
                let input = if let Some((at, index)) = arrival.filter(|(at, _)| *at <= deadline) {
                    arrivals.pop_first();
                    now = Millis(at);
                    chunk(&contents, index)
                } else {
                    now = Millis(deadline);
                    Input::Tick
                };
                assert!(now < Millis::from_secs(3600), "never asked");
                effects.extend(transfer.handle(now, input));
            }
        }
    }
}

#[test]
fn only_silent_chunks_are_asked_for_while_others_arrive() {
    assert_eq!(first_ask(&[0, 1, 2, 3], Millis(5_000)), (0, 4));
}

#[test]
fn what_follows_a_silent_chunk_is_asked_for_too_when_nothing_arrives() {
    let lost: Vec<u32> = (40..200).collect();
    assert_eq!(first_ask(&lost, Millis(5)), (40, 160));
}

#[test]
fn arriving_chunks_renew_the_patience_with_the_others() {
    let contents = contents(3);
    let mut transfer = transfer(&contents, 2);
    let _ = transfer.handle(Millis(0), Input::Connected);
    let _ = transfer.handle(Millis(9_000), chunk(&contents, 0));
    assert_eq!(transfer.handle(Millis(12_000), Input::Tick), []);
    assert_eq!(transfer.next_deadline(), Some(Millis(19_000)));
}

#[test]
fn a_new_session_subscribes_to_what_is_missing_and_not_to_what_is_being_written() {
    let contents = contents(4);
    let mut transfer = transfer(&contents, 2);
    let _ = transfer.handle(NOW, Input::Connected);
    let _ = transfer.handle(NOW, chunk(&contents, 0));
    assert_eq!(transfer.handle(NOW, Input::Disconnected), []);
    assert_eq!(transfer.next_deadline(), None);
    assert_eq!(transfer.handle(NOW, Input::Connected), [Effect::Subscribe(1)]);
    // The subscription to chunk 0 went with the old session.
    assert_eq!(transfer.handle(NOW, Input::Written(0)), [Effect::Subscribe(2)]);
}

#[test]
fn a_disk_that_takes_nothing_ends_the_transfer() {
    let contents = contents(2);
    let mut transfer = transfer(&contents, 2);
    let mut now = NOW;
    let _ = transfer.handle(now, Input::Connected);
    for _ in 1..MAX_WRITE_FAILURES {
        let _ = transfer.handle(now, chunk(&contents, 0));
        assert_eq!(transfer.handle(now, Input::WriteFailed(0)), [Effect::Unsubscribe(0)]);
        now = transfer.next_deadline().expect("waiting");
        assert_eq!(transfer.handle(now, Input::Tick), [Effect::Subscribe(0)]);
    }
    let _ = transfer.handle(now, chunk(&contents, 0));
    let effects = transfer.handle(now, Input::WriteFailed(0));
    assert_eq!(effects.last(), Some(&Effect::Stalled(Stall::WriteFailed { index: 0 })));
    assert!(effects.contains(&Effect::Unsubscribe(0)) && effects.contains(&Effect::Unsubscribe(1)));
}

#[test]
fn a_stopped_transfer_lets_go_and_does_nothing_more() {
    let contents = contents(2);
    let mut transfer = transfer(&contents, 2);
    let _ = transfer.handle(NOW, Input::Connected);
    assert_eq!(transfer.stop(), [Effect::Unsubscribe(0), Effect::Unsubscribe(1)]);
    assert_eq!(transfer.handle(NOW, chunk(&contents, 0)), []);
}

#[test]
fn refusals_are_reported_a_bounded_number_of_times() {
    let contents = contents(1);
    let mut transfer = transfer(&contents, 2);
    let beyond = Input::Chunk { index: 9, bytes: &[] };
    let reported: usize = (0..100).map(|_| transfer.handle(NOW, beyond).len()).sum();
    assert_eq!(reported, MAX_REPORTED as usize);
}

#[test]
fn a_chunk_list_is_parsed_only_at_its_exact_length() {
    let map = ChunkMap::new(ByteCount(CHUNK_BYTES as u64 + 1)).expect("in bounds");
    assert!(ChunkHashes::parse(&[7; 64], map).is_ok());
    for length in [0, 32, 63, 65, 96] {
        let error = ChunkHashes::parse(&vec![7; length], map).expect_err("wrong length");
        assert_eq!((error.expected, error.actual), (64, length));
    }
}

#[test]
fn without_hashes_only_the_length_is_checked() {
    let contents = contents(1);
    let (object, _) = object(&contents);
    let have = ChunkSet::empty(ChunkMap::new(object.size).expect("in bounds"));
    let mut transfer = Transfer::new(object, None, have, Pace::default(), Jitter::new(1)).expect("sound");
    let _ = transfer.handle(NOW, Input::Connected);
    let other = Input::Chunk { index: 0, bytes: &[9; 777] };
    assert_eq!(transfer.handle(NOW, other), [Effect::Write { index: 0 }]);
}

/// What will happen to the device, at its time.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Coming {
    Connect,
    Disconnect,
    /// In this session only.
    SubAck(u32, u32),
    /// In this session only; the payload, right or not.
    Message(u32, u32, bool),
    DiskDone(u32, bool),
    /// The server has published again.
    Republished(u32, u32),
}

/// How bad the world is, in percent, until `calm`.
#[derive(Clone, Copy, Debug)]
struct Weather {
    loss: u64,
    repeat: u64,
    cut: u64,
    calm: Millis,
    longest_delay: u64,
}

/// A broker, a link and a disk around one transfer.
struct World {
    now: Millis,
    contents: Rc<Vec<Vec<u8>>>,
    transfer: Transfer,
    window: usize,
    weather: Weather,
    dice: Jitter,
    coming: BTreeMap<(Millis, u64), Coming>,
    counter: u64,
    session: u32,
    online: bool,
    /// What the broker has.
    retained: BTreeSet<u32>,
    /// Wrong copies it will deliver before a right one, per chunk.
    spoiled: BTreeMap<u32, u32>,
    /// Writes that will fail, per chunk.
    failing: BTreeMap<u32, u32>,
    subscribed: BTreeSet<u32>,
    writing: BTreeSet<u32>,
    written: BTreeSet<u32>,
    completed: bool,
}

impl World {
    fn later(&mut self, what: Coming) {
        let delay = 1 + self.dice.below(self.weather.longest_delay);
        self.counter += 1;
        self.coming.insert((Millis(self.now.0 + delay), self.counter), what);
    }

    fn happens(&mut self, percent: u64) -> bool {
        self.now < self.weather.calm && self.dice.below(100) < percent
    }

    /// The broker sends a retained chunk to its subscriber, perhaps not, perhaps twice.
    fn deliver(&mut self, index: u32) {
        if !self.retained.contains(&index) || self.happens(self.weather.loss) {
            return;
        }
        let copies = if self.happens(self.weather.repeat) { 2 } else { 1 };
        for _ in 0..copies {
            let spoiled = self.spoiled.entry(index).or_default();
            let right = *spoiled == 0;
            *spoiled = spoiled.saturating_sub(1);
            self.later(Coming::Message(self.session, index, right));
        }
    }

    fn carry_out(&mut self, effects: Effects) {
        for effect in effects {
            assert!(!self.completed, "nothing follows completion: {effect:?}");
            match effect {
                Effect::Subscribe(index) => {
                    assert!(self.online && self.subscribed.insert(index), "{index} twice or offline");
                    assert!(!self.written.contains(&index), "{index} is here");
                    if !self.happens(self.weather.loss) {
                        self.later(Coming::SubAck(self.session, index));
                    }
                    self.deliver(index);
                }
                Effect::Unsubscribe(index) => {
                    assert!(self.online && self.subscribed.remove(&index), "{index} was not subscribed");
                }
                Effect::Write { index } => {
                    assert!(self.writing.insert(index), "{index} is being written");
                    assert!(!self.written.contains(&index), "{index} is written");
                    let fails = self.failing.entry(index).or_default();
                    let fine = *fails == 0;
                    *fails = fails.saturating_sub(1);
                    self.later(Coming::DiskDone(index, fine));
                }
                Effect::AskRepublish { first, count } => {
                    assert!(count > 0 && first + count <= self.contents.len() as u32);
                    self.later(Coming::Republished(first, count));
                }
                Effect::Refuse { .. } => {}
                Effect::Complete => self.completed = true,
                Effect::Stalled(stall) => panic!("given up: {stall}"),
            }
            let outstanding = self.subscribed.union(&self.writing).count();
            assert!(outstanding <= self.window, "{outstanding} outstanding");
        }
        if self.online && self.happens(self.weather.cut) {
            self.later(Coming::Disconnect);
        }
    }

    fn happen(&mut self, coming: &Coming) {
        let contents = Rc::clone(&self.contents);
        let current = |session: u32| session == self.session && self.online;
        let input = match *coming {
            Coming::Connect if !self.online => {
                self.online = true;
                self.session += 1;
                Input::Connected
            }
            Coming::Disconnect if self.online => {
                self.online = false;
                self.subscribed.clear();
                self.later(Coming::Connect);
                Input::Disconnected
            }
            Coming::SubAck(session, index) if current(session) => Input::Subscribed(index),
            Coming::Message(session, index, right) if current(session) => {
                let wrong = &contents[(index as usize + 1) % contents.len()];
                let cut = &contents[index as usize][1..];
                let bytes = match right {
                    true => &contents[index as usize],
                    false if wrong != &contents[index as usize] => wrong,
                    false => cut,
                };
                Input::Chunk { index, bytes }
            }
            // Already so, or lost with its session.
            Coming::Connect | Coming::Disconnect | Coming::SubAck(..) | Coming::Message(..) => return,
            Coming::DiskDone(index, fine) => {
                assert!(self.writing.remove(&index));
                if fine {
                    assert!(self.written.insert(index), "{index} written twice");
                    Input::Written(index)
                } else {
                    Input::WriteFailed(index)
                }
            }
            Coming::Republished(first, count) => {
                for index in first..first + count {
                    if self.retained.insert(index) && self.subscribed.contains(&index) {
                        self.deliver(index);
                    }
                }
                return;
            }
        };
        let effects = self.transfer.handle(self.now, input);
        self.carry_out(effects);
    }

    fn run(&mut self) {
        self.later(Coming::Connect);
        for _ in 0..200_000 {
            if self.completed {
                return;
            }
            let next = self.coming.keys().next().copied();
            let deadline = self.transfer.next_deadline();
            match (next, deadline) {
                (Some(key), deadline) if deadline.is_none_or(|deadline| key.0 <= deadline) => {
                    self.now = key.0;
                    let coming = self.coming.remove(&key).expect("it was there");
                    self.happen(&coming);
                }
                (_, Some(deadline)) => {
                    self.now = deadline.max(self.now);
                    let effects = self.transfer.handle(self.now, Input::Tick);
                    self.carry_out(effects);
                }
                (_, None) => panic!("nothing will ever happen again"),
            }
        }
        panic!("not complete after 200,000 events, at {} ms", self.now);
    }
}

fn any_weather() -> impl Strategy<Value = Weather> {
    (0..40_u64, 0..40_u64, 0..8_u64, 0..1_200_000_u64, 1..30_000_u64).prop_map(
        |(loss, repeat, cut, calm, longest_delay)| Weather {
            loss,
            repeat,
            cut,
            calm: Millis(calm),
            longest_delay,
        },
    )
}

#[test]
fn slow_retrieval_is_given_up_and_time_offline_does_not_count() {
    let contents = contents(3);
    let (object, hashes) = object(&contents);
    let have = ChunkSet::empty(ChunkMap::new(object.size).expect("in bounds"));
    let pace = Pace { patience: Millis(5000), ..Pace::default() };
    let mut transfer = Transfer::new(object, Some(hashes), have, pace, Jitter::new(1)).expect("sound");
    let _ = transfer.handle(Millis(0), Input::Connected);
    let _ = transfer.handle(Millis(4999), chunk(&contents, 0));
    let _ = transfer.handle(Millis(4999), Input::Written(0));
    let _ = transfer.handle(Millis(6000), Input::Disconnected);
    assert_eq!(transfer.next_deadline(), None);
    let _ = transfer.handle(Millis(60_000), Input::Connected);
    // A second of the new five had passed before the cut.
    assert_eq!(stalled(&transfer.handle(Millis(63_998), Input::Tick)), None);
    // A wrong chunk is none.
    let _ = transfer.handle(Millis(63_998), Input::Chunk { index: 1, bytes: b"wrong" });
    let effects = transfer.handle(Millis(63_999), Input::Tick);
    assert_eq!(stalled(&effects), Some(Stall::Slow { bytes: ByteCount(0), pace }));
}

fn stalled(effects: &[Effect]) -> Option<Stall> {
    effects.iter().find_map(|effect| match effect {
        Effect::Stalled(stall) => Some(*stall),
        _ => None,
    })
}

#[test]
fn a_drip_is_slow_however_often_the_broker_cuts_the_connection() {
    let contents = contents(1000);
    let (object, hashes) = object(&contents);
    let have = ChunkSet::empty(ChunkMap::new(object.size).expect("in bounds"));
    // A chunk is a minute of 1 KiB/s.
    for (seconds, expected) in [(59, None), (61, Some(ByteCount(59 * CHUNK_BYTES as u64)))] {
        let pace = Pace::default();
        let hashes = Some(hashes.clone());
        let mut transfer = Transfer::new(object, hashes, have.clone(), pace, Jitter::new(1)).expect("sound");
        let mut now = Millis(0);
        let mut end = None;
        for index in 0..130 {
            let _ = transfer.handle(now, Input::Connected);
            now = now.plus(Millis::from_secs(seconds));
            let effects = transfer.handle(now, chunk(&contents, index));
            end = end.or_else(|| stalled(&effects));
            let effects = transfer.handle(now, Input::Written(index));
            end = end.or_else(|| stalled(&effects));
            let _ = transfer.handle(now, Input::Disconnected);
        }
        let expected = expected.map(|bytes| Stall::Slow { bytes, pace });
        assert_eq!(end, expected, "a chunk in {seconds} s");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_object_arrives_whole_whatever_the_weather(
        chunks in 1..90_u32,
        window in 2..=16_u8,
        weather in any_weather(),
        seed: u64,
        here in prop::collection::vec(any::<u32>(), 0..40),
        lost in prop::collection::vec(any::<u32>(), 0..60),
        spoiled in prop::collection::vec((any::<u32>(), 1..=2_u32), 0..20),
        failing in prop::collection::vec(any::<u32>(), 0..6),
    ) {
        let contents = contents(chunks);
        let (object, hashes) = object(&contents);
        let mut have = ChunkSet::empty(ChunkMap::new(object.size).expect("in bounds"));
        let written: BTreeSet<u32> = here.into_iter().map(|index| index % chunks).collect();
        written.iter().for_each(|index| assert!(have.insert(*index)));
        let size = Window::new(window).expect("in bounds");
        let transfer =
            Transfer::new(object, Some(hashes), have, Pace { window: size, ..Pace::default() }, Jitter::new(seed)).expect("sound");
        let lost: BTreeSet<u32> = lost.into_iter().map(|index| index % chunks).collect();
        let mut world = World {
            now: Millis(0),
            transfer,
            window: size.chunks(),
            weather,
            dice: Jitter::new(!seed),
            coming: BTreeMap::new(),
            counter: 0,
            session: 0,
            online: false,
            retained: (0..chunks).filter(|index| !lost.contains(index)).collect(),
            spoiled: spoiled.into_iter().map(|(index, copies)| (index % chunks, copies)).collect(),
            failing: failing.into_iter().map(|index| (index % chunks, 1)).collect(),
            subscribed: BTreeSet::new(),
            writing: BTreeSet::new(),
            written,
            completed: false,
            contents: Rc::new(contents),
        };
        world.run();
        prop_assert_eq!(world.written.len(), chunks as usize);
        prop_assert!(world.transfer.have().is_complete());
        prop_assert_eq!(world.transfer.bytes_here(), object.size);
    }

    /// Whatever is said to it, in any order, it neither crashes nor exceeds its bounds.
    #[test]
    fn nonsense_is_survived(inputs in prop::collection::vec((0..7_u8, 0..12_u32, 0..5000_u64), 0..200)) {
        let contents = contents(10);
        let mut transfer = transfer(&contents, 3);
        let mut now = Millis(0);
        for (kind, index, pause) in inputs {
            now.0 += pause;
            let input = match kind {
                0 => Input::Connected,
                1 => Input::Disconnected,
                2 => Input::Subscribed(index),
                3 => Input::Written(index),
                4 => Input::WriteFailed(index),
                5 => Input::Tick,
                _ => Input::Chunk { index, bytes: contents.get(index as usize).map_or(&[], Vec::as_slice) },
            };
            let effects = transfer.handle(now, input);
            prop_assert!(effects.len() <= 64);
            let (active, parked) = transfer.tracker.sizes();
            prop_assert!(active <= 3 && active + parked <= MAX_TRACKED);
        }
    }
}
