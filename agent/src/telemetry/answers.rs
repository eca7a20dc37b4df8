//! What was predicted lately, by the names of the requests, so that the truth can be held against it when it becomes
//! known. `pages` is how it outlives the agent. Pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod pages;

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};
use serin_protocol::frame::Prediction;
use serin_protocol::ids::{Digest, Millis, SegmentNumber};

pub use self::pages::{MAX_PAGE_BYTES, Page, PageError, PageKey};

/// Requests remembered unless configured otherwise: an answer a second for two hours; with a row each, some 130 bytes,
/// about a megabyte.
pub const DEFAULT_REQUESTS: usize = 8192;

/// Most requests that can be configured, about ten megabytes: a device has little memory, and models need it.
pub const MAX_REQUESTS: usize = 65_536;

/// Rows remembered for each request on the average, over all: a batch of a few fits, and the memory of requests with
/// many rows is bounded.
const ROWS_PER_REQUEST: usize = 2;

/// How long an answer is remembered unless configured otherwise: what is checked by hand is checked the next morning.
pub const DEFAULT_LIFE: Millis = Millis::from_secs(24 * 3600);

/// Longest life that can be configured.
pub const MAX_LIFE: Millis = Millis::from_secs(14 * 24 * 3600);

/// The name of a request, shortened, so that the memory it takes is known however long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Name([u8; 16]);

impl Name {
    /// Of this text.
    pub fn of(text: &[u8]) -> Self {
        let Digest(digest) = Digest::of(text);
        Self(digest.first_chunk().copied().unwrap_or_default())
    }
}

/// What was predicted for one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// The prediction.
    pub prediction: Prediction,
    /// The segment in which it counts.
    pub segment: SegmentNumber,
}

/// Why there is no such answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forgotten {
    /// No request of this name is remembered.
    #[error(
        "no request of this name is remembered: it was never answered here, it predicted nothing, {0} came after it, or the power went before it was kept"
    )]
    Unknown(usize),
    /// It was too long ago.
    #[error("the request was answered {} hours ago, longer than answers are remembered", .0.0 / 3_600_000)]
    Expired(Millis),
    /// It had fewer rows.
    #[error("the request had {rows} rows, numbered from 0")]
    NoRow {
        /// How many.
        rows: usize,
    },
    /// Its truth was told before.
    #[error("the truth of this row is known already")]
    Known,
}

/// Answers of `O`, which says whose they are, the oldest forgotten first.
#[derive(Debug)]
pub struct Answers<O> {
    most: usize,
    life: Millis,
    kept: VecDeque<Answer<O>>,
    /// How many were forgotten; the oldest kept has this number.
    forgotten: u64,
    numbers: HashMap<Name, u64>,
    /// The rows of all that are kept, one answer's after the other's.
    rows: VecDeque<Kept>,
    /// How many rows were forgotten.
    rows_forgotten: u64,
    /// What is below this number is on pages.
    written: u64,
    /// Rows on pages, by answer and row, whose truth came since.
    settled: VecDeque<(u64, u32)>,
    /// The pages, each with the number behind its last answer.
    pages: VecDeque<(PageKey, u64)>,
}

#[derive(Debug)]
struct Answer<O> {
    names: [Option<Name>; 2],
    at: Millis,
    of: O,
    /// Number of its first row, counted from the first there ever was.
    first: u64,
    rows: u32,
}

/// A row in 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Kept {
    predicted: Predicted,
    segment: SegmentNumber,
    known: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Predicted {
    Class { class: i32, confidence: f32 },
    Value(f32),
}

impl From<Row> for Kept {
    fn from(row: Row) -> Self {
        let predicted = match row.prediction {
            Prediction::Class { class, confidence, .. } => {
                // No declared class is that large; −1 is none of them either.
                Predicted::Class { class: i32::try_from(class).unwrap_or(-1), confidence }
            }
            Prediction::Value(value) => Predicted::Value(value),
        };
        Self { predicted, segment: row.segment, known: false }
    }
}

impl From<Kept> for Row {
    fn from(kept: Kept) -> Self {
        let prediction = match kept.predicted {
            Predicted::Class { class, confidence } => Prediction::of_class(class.into(), confidence),
            Predicted::Value(value) => Prediction::Value(value),
        };
        Self { prediction, segment: kept.segment }
    }
}

impl<O: Clone> Answers<O> {
    /// Remembers `most` requests, each for `life`.
    pub fn new(most: usize, life: Millis) -> Self {
        Self {
            most,
            life,
            kept: VecDeque::new(),
            forgotten: 0,
            numbers: HashMap::new(),
            rows: VecDeque::new(),
            rows_forgotten: 0,
            written: 0,
            settled: VecDeque::new(),
            pages: VecDeque::new(),
        }
    }

    /// Remembers what was predicted for a request known under `names`; a later request of the same name takes its
    /// place. One with more rows than all may have is not remembered.
    pub fn remember(
        &mut self,
        now: Millis,
        names: [Option<Name>; 2],
        of: O,
        rows: impl ExactSizeIterator<Item = Row>,
    ) {
        let count = rows.len();
        if count == 0 || !self.has_room_for(count) {
            return;
        }
        // What is twice too old is not even told apart from what never was.
        let twice = self.life.0.saturating_mul(2);
        while self.kept.front().is_some_and(|answer| age(answer, now).0 > twice) {
            self.forget_oldest();
        }
        self.push(now, names, of, rows.map(Kept::from));
    }

    /// Whether an answer of so many rows fits, were it alone.
    fn has_room_for(&self, rows: usize) -> bool {
        self.most > 0 && rows <= self.most_rows() && u32::try_from(rows).is_ok()
    }

    const fn most_rows(&self) -> usize {
        self.most.saturating_mul(ROWS_PER_REQUEST)
    }

    /// The number of the next answer.
    fn next(&self) -> u64 {
        self.forgotten.saturating_add(self.kept.len() as u64)
    }

    /// Takes an answer that fits, in place of the oldest.
    fn push(
        &mut self,
        at: Millis,
        names: [Option<Name>; 2],
        of: O,
        rows: impl ExactSizeIterator<Item = Kept>,
    ) {
        let count = rows.len();
        while !self.kept.is_empty()
            && (self.kept.len() >= self.most || self.rows.len().saturating_add(count) > self.most_rows())
        {
            self.forget_oldest();
        }
        let number = self.next();
        for name in names.iter().flatten() {
            self.numbers.insert(*name, number);
        }
        let first = self.rows_forgotten.saturating_add(self.rows.len() as u64);
        self.rows.extend(rows);
        // It fits, so that its rows were counted.
        self.kept.push_back(Answer { names, at, of, first, rows: count as u32 });
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.kept.pop_front() else { return };
        for name in oldest.names.iter().flatten() {
            // Unless a later request has taken the name.
            if self.numbers.get(name) == Some(&self.forgotten) {
                self.numbers.remove(name);
            }
        }
        self.forgotten = self.forgotten.saturating_add(1);
        self.rows.drain(..(oldest.rows as usize).min(self.rows.len()));
        self.rows_forgotten = self.rows_forgotten.saturating_add(oldest.rows.into());
    }

    /// Whose answer `name` was, and what it was for row `row`.
    pub fn find(&self, now: Millis, name: Name, row: usize) -> Result<(O, Row), Forgotten> {
        let answer = self.answer(name).ok_or(Forgotten::Unknown(self.most))?;
        let age = age(answer, now);
        if age > self.life {
            return Err(Forgotten::Expired(age));
        }
        match self.place(answer, row).and_then(|place| self.rows.get(place)) {
            None => Err(Forgotten::NoRow { rows: answer.rows as usize }),
            Some(kept) if kept.known => Err(Forgotten::Known),
            Some(kept) => Ok((answer.of.clone(), Row::from(*kept))),
        }
    }

    /// Notes that the truth of a row found is known: another word about it counts no more.
    pub fn settle(&mut self, name: Name, row: usize) {
        let Some(number) = self.numbers.get(&name).copied() else { return };
        if self.know(number, row)
            && number < self.written
            && let Ok(row) = u32::try_from(row)
        {
            self.settled.push_back((number, row));
        }
    }

    /// Notes that the truth of a row of the answer `number` is known, if it is there and was not.
    fn know(&mut self, number: u64, row: usize) -> bool {
        let place = self.numbered(number).and_then(|answer| self.place(answer, row));
        let Some(kept) = place.and_then(|place| self.rows.get_mut(place)) else { return false };
        !std::mem::replace(&mut kept.known, true)
    }

    fn answer(&self, name: Name) -> Option<&Answer<O>> {
        self.numbered(*self.numbers.get(&name)?)
    }

    fn numbered(&self, number: u64) -> Option<&Answer<O>> {
        self.kept.get(usize::try_from(number.checked_sub(self.forgotten)?).ok()?)
    }

    fn place(&self, answer: &Answer<O>, row: usize) -> Option<usize> {
        let first = usize::try_from(answer.first.checked_sub(self.rows_forgotten)?).ok()?;
        (row < answer.rows as usize).then(|| first.checked_add(row))?
    }
}

const fn age<O>(answer: &Answer<O>, now: Millis) -> Millis {
    Millis(now.0.saturating_sub(answer.at.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(count: u32) -> impl ExactSizeIterator<Item = Row> {
        (0..count)
            .map(|at| Row { prediction: Prediction::of_class(at.into(), 0.5), segment: SegmentNumber(1) })
    }

    fn name(text: &str) -> Name {
        Name::of(text.as_bytes())
    }

    fn told(answers: &mut Answers<u8>, at: u64, text: &str, of: u8, count: u32) {
        answers.remember(Millis(at), [Some(name(text)), None], of, rows(count));
    }

    #[test]
    fn an_answer_is_found_by_either_name_until_it_is_settled() {
        let mut answers = Answers::new(4, Millis(1000));
        answers.remember(Millis(0), [Some(name("a")), Some(name("order-7"))], 3_u8, rows(2));
        let (of, row) = answers.find(Millis(900), name("order-7"), 1).expect("there");
        assert_eq!((of, row.prediction.class(), row.segment.0), (3, Some(1), 1));
        answers.settle(name("order-7"), 1);
        assert_eq!(answers.find(Millis(900), name("a"), 1), Err(Forgotten::Known));
        assert!(answers.find(Millis(900), name("a"), 0).is_ok());
        assert_eq!(answers.find(Millis(900), name("a"), 2), Err(Forgotten::NoRow { rows: 2 }));
        assert_eq!(answers.find(Millis(900), name("b"), 0), Err(Forgotten::Unknown(4)));
    }

    #[test]
    fn what_is_too_old_is_told_apart_from_what_never_was() {
        let mut answers = Answers::new(4, Millis(1000));
        told(&mut answers, 0, "a", 1, 1);
        assert_eq!(answers.find(Millis(1001), name("a"), 0), Err(Forgotten::Expired(Millis(1001))));
        told(&mut answers, 2001, "b", 1, 1);
        assert_eq!(answers.find(Millis(2001), name("a"), 0), Err(Forgotten::Unknown(4)));
    }

    #[test]
    fn what_is_remembered_of_a_request_is_as_small_as_it_is_said_to_be() {
        // 64 bytes in the queue, 16 of a row, and up to 50 in the table of names, which grows by doubling.
        assert!(size_of::<Answer<std::sync::Arc<u8>>>() <= 72 && size_of::<Kept>() == 16);
    }

    #[test]
    fn a_name_that_is_used_again_is_the_later_request() {
        let mut answers = Answers::new(2, Millis(1000));
        told(&mut answers, 0, "a", 1, 1);
        told(&mut answers, 1, "a", 2, 1);
        told(&mut answers, 2, "b", 3, 1);
        assert_eq!(
            answers.find(Millis(2), name("a"), 0).map(|(of, _)| of),
            Ok(2),
            "the first was pushed out"
        );
    }

    #[test]
    fn a_request_wider_than_all_may_be_is_not_remembered() {
        let mut answers = Answers::new(2, Millis(1000));
        told(&mut answers, 0, "wide", 1, 5);
        told(&mut answers, 0, "narrow", 2, 1);
        assert!(answers.find(Millis(0), name("wide"), 0).is_err());
        assert!(answers.find(Millis(0), name("narrow"), 0).is_ok());
    }

    proptest! {
        #[test]
        fn memory_is_bounded_and_the_latest_are_there(
            asked in prop::collection::vec((0_u8..30, 1_u32..7), 1..200), most in 1_usize..12
        ) {
            let mut answers = Answers::new(most, Millis(1_000_000));
            let mut last = None;
            for (at, (text, count)) in asked.into_iter().enumerate() {
                let text = text.to_string();
                told(&mut answers, at as u64, &text, 0, count);
                prop_assert!(answers.kept.len() <= most && answers.rows.len() <= most * ROWS_PER_REQUEST);
                prop_assert!(answers.numbers.len() <= answers.kept.len());
                let rows: u32 = answers.kept.iter().map(|answer| answer.rows).sum();
                prop_assert_eq!(answers.rows.len(), rows as usize);
                if count as usize <= most * ROWS_PER_REQUEST {
                    last = Some(text);
                }
                if let Some(last) = &last {
                    let found = answers.find(Millis(at as u64), name(last), 0);
                    prop_assert!(found.is_ok() || count as usize > most * ROWS_PER_REQUEST);
                }
            }
        }
    }
}
