//! What was remembered is remembered again, whenever it was written and wherever the power went.

use super::*;
use crate::telemetry::answers::{Forgotten, Row};
use proptest::prelude::*;
use serin_protocol::frame::Prediction;
use serin_protocol::ids::SegmentNumber;

const LIFE: Millis = Millis(1_000_000);
const START: Millis = Millis(10_000_000);

type Mine = Answers<Option<ReleaseId>>;

fn release(version: &str) -> ReleaseId {
    format!("m@{version}").parse().expect("an id")
}

fn name(at: usize) -> Name {
    Name::of(at.to_string().as_bytes())
}

fn rows(count: u32) -> impl ExactSizeIterator<Item = Row> {
    (0..count).map(|at| Row { prediction: Prediction::of_class(at.into(), 0.5), segment: SegmentNumber(2) })
}

fn remember(answers: &mut Mine, now: Millis, at: usize, version: &str, count: u32) {
    answers.remember(now, [Some(name(at)), None], Some(release(version)), rows(count));
}

fn whose(release: Option<&ReleaseId>) -> Option<ReleaseId> {
    release.cloned()
}

fn take(answers: &mut Mine, now: Millis) -> Option<Page> {
    answers.take_page(now, UnixMillis(now.0), Clone::clone)
}

/// What is found, but for what is no number.
fn found(answers: &Mine, now: Millis, at: usize, row: usize) -> Result<(Option<i64>, u8), Forgotten> {
    answers.find(now, name(at), row).map(|(_, row)| (row.prediction.class(), row.segment.0))
}

/// The pages, as whoever keeps them has them; the next key; how many answers were forgotten at the last writing.
#[derive(Default)]
struct Kept(Vec<(PageKey, Vec<u8>)>, u64, u64);

impl Kept {
    fn write(&mut self, answers: &mut Mine, now: Millis) {
        while let Some(page) = take(answers, now) {
            let bytes = page.encode();
            assert!(bytes.len() <= MAX_PAGE_BYTES, "{} bytes", bytes.len());
            let key = PageKey(self.1);
            self.1 += 1;
            self.0.push((key, bytes));
            if let Some(useless) = answers.wrote(&page, key) {
                self.0.retain(|(key, _)| *key > useless);
            }
            self.2 = answers.forgotten;
        }
    }

    fn read(&self, most: usize, now: Millis) -> Mine {
        let mut answers = Answers::new(most, LIFE);
        for (key, bytes) in &self.0 {
            let page = Page::decode(bytes).expect("a page");
            answers.recall(&page, *key, now, UnixMillis(now.0), whose);
        }
        answers
    }
}

#[test]
fn an_answer_is_found_after_a_restart_and_a_settled_one_stays_so() {
    let mut answers = Answers::new(8, LIFE);
    let mut kept = Kept::default();
    remember(&mut answers, START, 1, "1", 2);
    answers.settle(name(1), 0);
    kept.write(&mut answers, START);
    remember(&mut answers, START.plus(Millis(5)), 2, "2", 1);
    answers.settle(name(1), 1);
    kept.write(&mut answers, START.plus(Millis(10)));
    assert_eq!(take(&mut answers, START), None, "all of it is written");
    let later = START.plus(Millis(500));
    let mut again = kept.read(8, later);
    assert_eq!(again.find(later, name(1), 0), Err(Forgotten::Known), "known when it was written");
    assert_eq!(again.find(later, name(1), 1), Err(Forgotten::Known), "known later");
    let (of, row) = again.find(later, name(2), 0).expect("there");
    assert_eq!((of, row.segment, row.prediction.class()), (Some(release("2")), SegmentNumber(2), Some(0)));
    assert_eq!(take(&mut again, later), None, "it is written already");
    // The time that the device was off counts.
    let old = START.plus(LIFE).plus(Millis(1));
    assert_eq!(kept.read(8, old).find(old, name(1), 0), Err(Forgotten::Expired(Millis(LIFE.0 + 1))));
}

#[test]
fn what_could_not_be_written_is_taken_again() {
    let mut answers = Answers::new(8, LIFE);
    let mut kept = Kept::default();
    remember(&mut answers, START, 1, "1", 1);
    kept.write(&mut answers, START);
    remember(&mut answers, START, 2, "1", 1);
    answers.settle(name(1), 0);
    let page = take(&mut answers, START).expect("something new");
    // Meanwhile the truth of an answer on that page comes.
    answers.settle(name(2), 0);
    answers.not_written(page);
    kept.write(&mut answers, START);
    let again = kept.read(8, START);
    assert_eq!(again.find(START, name(1), 0), Err(Forgotten::Known));
    assert_eq!(again.find(START, name(2), 0), Err(Forgotten::Known));
}

#[test]
fn a_page_that_is_lost_takes_what_was_before_it_and_nothing_after() {
    let mut answers = Answers::new(8, LIFE);
    let mut kept = Kept::default();
    for at in 1..=3 {
        remember(&mut answers, START, at, "1", 1);
        kept.write(&mut answers, START);
    }
    answers.settle(name(3), 0);
    kept.write(&mut answers, START);
    kept.0.remove(1);
    let again = kept.read(8, START);
    assert_eq!(again.find(START, name(1), 0), Err(Forgotten::Unknown(8)));
    assert_eq!(again.find(START, name(2), 0), Err(Forgotten::Unknown(8)));
    assert_eq!(again.find(START, name(3), 0), Err(Forgotten::Known), "the right one is settled");
}

#[test]
fn of_a_request_with_very_many_rows_only_the_running_agent_knows() {
    let mut answers = Answers::new(2000, LIFE);
    let mut kept = Kept::default();
    remember(&mut answers, START, 1, "1", PAGE_ROWS as u32 + 1);
    remember(&mut answers, START, 2, "1", PAGE_ROWS as u32);
    kept.write(&mut answers, START);
    assert!(answers.find(START, name(1), 0).is_ok());
    let again = kept.read(2000, START);
    assert_eq!(again.find(START, name(1), 0), Err(Forgotten::Unknown(2000)));
    assert!(again.find(START, name(2), PAGE_ROWS - 1).is_ok());
}

#[test]
fn with_nothing_to_be_remembered_no_page_is_of_use() {
    let mut answers = Answers::new(8, LIFE);
    let mut kept = Kept::default();
    remember(&mut answers, START, 1, "1", 1);
    kept.write(&mut answers, START);
    let mut again = kept.read(0, START);
    assert_eq!(again.find(START, name(1), 0), Err(Forgotten::Unknown(0)));
    assert_eq!(again.useless(), Some(PageKey(0)));
}

#[test]
fn a_page_of_another_version_is_named() {
    assert_eq!(Page::decode(&[FORMAT + 1, 0]), Err(PageError::Format(2)));
    assert_eq!(Page::decode(&[]), Err(PageError::Damaged));
    assert_eq!(Page::decode(&vec![1; MAX_PAGE_BYTES + 1]), Err(PageError::TooLarge(MAX_PAGE_BYTES + 1)));
}

/// What happens to answers.
#[derive(Clone, Copy, Debug)]
enum Step {
    Remember(usize, u32),
    Settle(usize, usize),
    Write,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_usize..12, 1_u32..4).prop_map(|(at, rows)| Step::Remember(at, rows)),
        4 => (0_usize..12, 0_usize..3).prop_map(|(at, row)| Step::Settle(at, row)),
        2 => Just(Step::Write),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #[test]
    fn orderly_restarts_change_nothing(steps in steps(), most in 1_usize..10) {
        let mut all_along = Answers::new(most, LIFE);
        let mut restarted = Answers::new(most, LIFE);
        let mut kept = Kept::default();
        for (at, step) in steps.into_iter().enumerate() {
            let now = START.plus(Millis(at as u64));
            match step {
                Step::Remember(at, rows) => {
                    remember(&mut all_along, now, at, "1", rows);
                    remember(&mut restarted, now, at, "1", rows);
                }
                Step::Settle(at, row) => {
                    all_along.settle(name(at), row);
                    restarted.settle(name(at), row);
                }
                Step::Write => kept.write(&mut restarted, now),
                Step::Restart => {
                    kept.write(&mut restarted, now);
                    restarted = kept.read(most, now);
                }
            }
            for (at, row) in (0..12).flat_map(|at| (0..3).map(move |row| (at, row))) {
                prop_assert_eq!(found(&all_along, now, at, row), found(&restarted, now, at, row));
            }
            // Nothing that is forgotten is kept at the front.
            let first = kept.0.first().map(|(_, bytes)| Page::decode(bytes).expect("a page").end());
            prop_assert!(first.is_none_or(|end| end > kept.2));
        }
    }

    #[test]
    fn a_cut_costs_what_was_not_written_and_no_more(steps in steps(), most in 1_usize..10) {
        let mut answers = Answers::new(most, LIFE);
        let mut kept = Kept::default();
        // As they were when they were last written.
        let mut then = kept.read(most, START);
        for step in steps {
            match step {
                Step::Remember(at, rows) => remember(&mut answers, START, at, "1", rows),
                Step::Settle(at, row) => answers.settle(name(at), row),
                Step::Write => {
                    kept.write(&mut answers, START);
                    then = kept.read(most, START);
                }
                Step::Restart => {
                    answers = kept.read(most, START);
                    for (at, row) in (0..12).flat_map(|at| (0..3).map(move |row| (at, row))) {
                        prop_assert_eq!(found(&answers, START, at, row), found(&then, START, at, row));
                    }
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_a_page_or_refused_and_any_page_can_be_recalled(
        bytes: Vec<u8>, first in 0_u64..=MAX_NUMBER, at: u64, age: u64, rows in 0_usize..5, settled: (u64, u32)
    ) {
        let _ = Page::decode(&bytes);
        let row = super::super::Kept::from(Row {
            prediction: Prediction::Value(1.0),
            segment: SegmentNumber(0),
        });
        let written = Written {
            names: [Some(name(1)), Some(name(1))], age: Millis(age), release: 3, rows: vec![row; rows],
        };
        let page = Page {
            first, at: UnixMillis(at), releases: Vec::new(), answers: vec![written], settled: vec![settled],
        };
        let page = Page::decode(&page.encode()).expect("a page");
        let mut answers: Mine = Answers::new(2, LIFE);
        remember(&mut answers, START, 9, "1", 1);
        answers.recall(&page, PageKey(0), START, UnixMillis(START.0), whose);
        let _ = answers.find(START, name(1), 0);
        remember(&mut answers, START, 2, "1", 1);
        prop_assert!(answers.find(START, name(2), 0).is_ok());
    }
}
