//! What was appended is there after a restart, the budget holds, and a damaged journal is set aside
//! without the numbering going back.

use super::*;
use proptest::prelude::*;
use serin_protocol::ids::UnixMillis;
use std::collections::BTreeMap;
use std::fs;

const BUDGET: ByteCount = ByteCount(1000);

fn open(dir: &Path) -> (Journal, Option<Loss>) {
    open_at(dir, 0)
}

fn open_at(dir: &Path, floor: u64) -> (Journal, Option<Loss>) {
    Journal::open(&Files::real(), dir, EventNumber(floor), BUDGET).expect("opens")
}

fn append(journal: &mut Journal, sealed: &[u8]) -> EventNumber {
    let number = journal.next_event();
    journal.append_event(number, sealed).expect("stored");
    number
}

fn note(number: u64) -> HistoryEntry {
    HistoryEntry { at: UnixMillis(number), what: HistoryItem::Note(Detail::new("note")) }
}

#[test]
fn events_survive_a_restart_until_they_are_dropped() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (mut journal, loss) = open(dir.path());
    assert_eq!(loss, None);
    assert_eq!(append(&mut journal, b"one"), EventNumber(1));
    append(&mut journal, b"two");
    append(&mut journal, b"three");
    drop(journal);
    let (mut journal, _) = open(dir.path());
    assert_eq!(journal.event(EventNumber(2)).expect("read"), Some(b"two".to_vec()));
    journal.drop_events_up_to(EventNumber(2)).expect("dropped");
    assert_eq!(journal.event(EventNumber(2)).expect("read"), None);
    let stored = journal.stored().expect("known");
    assert_eq!((stored.first_event, stored.next_event), (EventNumber(3), EventNumber(4)));
    // With no event left, the numbering still goes on.
    journal.drop_events_up_to(EventNumber(3)).expect("dropped");
    drop(journal);
    let stored = open(dir.path()).0.stored().expect("known");
    assert_eq!((stored.first_event, stored.next_event), (EventNumber(4), EventNumber(4)));
}

#[test]
fn an_event_of_another_number_or_size_is_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (mut journal, _) = open(dir.path());
    let refused = journal.append_event(EventNumber(2), b"x").expect_err("not next");
    assert_eq!(refused.to_string(), "event 2 is not the next one, 1");
    let large = vec![0; MAX_EVENT_BYTES + 1];
    let refused = journal.append_event(EventNumber(1), &large);
    assert!(matches!(refused, Err(JournalError::TooLarge { limit: MAX_EVENT_BYTES, .. })));
    assert_eq!(journal.next_event(), EventNumber(1));
}

#[test]
fn the_numbering_never_goes_below_the_floor_nor_below_what_the_server_has() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (mut journal, _) = open_at(dir.path(), 40);
    assert_eq!(append(&mut journal, b"x"), EventNumber(40));
    journal.number_above(EventNumber(90)).expect("stored");
    drop(journal);
    let (mut journal, _) = open_at(dir.path(), 7);
    assert_eq!(journal.next_event(), EventNumber(91));
    journal.number_above(EventNumber(3)).expect("stored");
    assert_eq!(journal.next_event(), EventNumber(91));
}

#[test]
fn the_oldest_reports_make_room_and_are_counted_while_events_stay() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (mut journal, _) = open(dir.path());
    append(&mut journal, &[1; 900]);
    for key in 0..5 {
        let stored = journal.append_report(&[key as u8; 300]).expect("stored");
        assert_eq!(stored.key, ReportKey(key));
        assert_eq!(stored.oldest, ReportKey(key.saturating_sub(2)));
    }
    assert_eq!(journal.dropped_reports(), 2);
    assert_eq!(journal.report(ReportKey(1)).expect("read"), None);
    // One is taken: there is room for another.
    journal.drop_report(ReportKey(3)).expect("dropped");
    journal.drop_report(ReportKey(3)).expect("no matter");
    assert_eq!(journal.append_report(&[5; 300]).expect("stored").oldest, ReportKey(2));
    drop(journal);
    let (mut journal, _) = open(dir.path());
    assert_eq!(journal.dropped_reports(), 2);
    assert!(journal.event(EventNumber(1)).expect("read").is_some());
    let stored = journal.stored().expect("known");
    assert_eq!((stored.oldest_report, stored.next_report), (ReportKey(2), ReportKey(6)));
    // The budget counts what was there before.
    assert_eq!(journal.append_report(&[6; 300]).expect("stored").oldest, ReportKey(4));
    let refused = journal.append_report(&[0; 1001]);
    assert!(matches!(refused, Err(JournalError::TooLarge { limit: 1000, .. })));
}

#[test]
fn the_history_keeps_its_newest_entries() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (mut journal, _) = open(dir.path());
    let surplus = 20;
    for number in 0..HISTORY_ENTRIES as u64 + surplus {
        journal.append_history(&note(number)).expect("stored");
    }
    let all = journal.history(usize::MAX).expect("read");
    assert_eq!(all.len(), HISTORY_ENTRIES);
    assert_eq!(all.first(), Some(&note(surplus)));
    journal.flush().expect("flushed");
    drop(journal);
    let (journal, _) = open(dir.path());
    let last = HISTORY_ENTRIES as u64 + surplus - 1;
    assert_eq!(journal.history(2).expect("read"), [note(last - 1), note(last)]);
}

#[test]
fn a_journal_in_use_is_not_taken_for_a_corrupt_one() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (mut journal, _) = open(dir.path());
    append(&mut journal, b"kept");
    for _ in 0..=MAX_OPENINGS {
        let second = Journal::open(&Files::real(), dir.path(), EventNumber(0), BUDGET);
        assert!(matches!(second, Err(JournalError::Io(_))), "{second:?}");
    }
    drop(journal);
    let (journal, loss) = open(dir.path());
    assert_eq!((journal.next_event(), loss), (EventNumber(2), None));
}

#[test]
fn garbage_is_set_aside_reported_and_only_the_last_one_is_kept() {
    let dir = tempfile::tempdir().expect("tempdir");
    for round in 1..=3 {
        let (mut journal, _) = open(dir.path());
        append(&mut journal, b"x");
        drop(journal);
        fs::write(dir.path().join("journal/conf"), "segment_size: many\nuse_compression: no\n")
            .expect("written");
        let (mut journal, loss) = open_at(dir.path(), 50);
        let loss = loss.expect("reported");
        let aside = loss.set_aside.expect("set aside");
        assert_eq!(aside, dir.path().join(format!("journal.corrupt-{round}")));
        assert!(aside.exists());
        assert!(append(&mut journal, b"y") >= EventNumber(50));
        drop(journal);
        let names = fs::read_dir(dir.path()).expect("listed").map(|entry| entry.expect("entry").file_name());
        let corrupt = names.filter(|name| name.to_string_lossy().contains("corrupt")).count();
        assert_eq!(corrupt, 1);
        assert_eq!(open(dir.path()).1, None, "the new one is sound");
    }
}

#[test]
fn a_journal_that_ends_the_process_again_and_again_is_set_aside() {
    let dir = tempfile::tempdir().expect("tempdir");
    drop(open(dir.path()));
    for openings in 0..=4 {
        mark(&Files::real(), dir.path(), openings).expect("written");
        let (_, loss) = open(dir.path());
        assert_eq!(loss.is_some(), openings >= MAX_OPENINGS, "after {openings}");
        assert!(!dir.path().join("journal.opening").exists());
    }
    fs::write(dir.path().join("journal.opening"), b"\0\0").expect("written");
    assert_eq!(open(dir.path()).1, None, "a torn marker says nothing");
}

#[test]
fn corruption_found_in_use_leads_to_a_new_journal_at_the_next_opening() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (journal, _) = open(dir.path());
    journal.db.insert(b"rshort", b"").expect("inserted");
    assert!(matches!(journal.stored(), Err(JournalError::Corrupt(_))));
    drop(journal);
    assert!(open(dir.path()).1.is_some());
}

#[test]
fn a_state_directory_that_takes_no_writes_is_an_error_and_not_a_loss() {
    let dir = tempfile::tempdir().expect("tempdir");
    drop(open(dir.path()));
    fs::create_dir(dir.path().join("journal.opening")).expect("in the way");
    let refused = Journal::open(&Files::real(), dir.path(), EventNumber(0), BUDGET);
    assert!(matches!(refused, Err(JournalError::File(_))));
    assert!(dir.path().join(JOURNAL).exists());
}

/// Damages every part of sled's files in turn, with zeros, ones and cuts. Sled itself reports hardly any of
/// it.
#[test]
fn whatever_is_damaged_the_loss_is_reported_and_no_number_is_used_twice() {
    let source = tempfile::tempdir().expect("tempdir");
    let (mut journal, _) = open(source.path());
    for number in 0..60_u8 {
        append(&mut journal, &[number; 200]);
        journal.append_report(&[number; 10]).expect("stored");
        journal.append_history(&note(u64::from(number))).expect("stored");
    }
    journal.drop_events_up_to(EventNumber(20)).expect("dropped");
    drop(journal);
    let read = |name: &str| fs::read(source.path().join(name)).expect("read");
    let names = ["journal/conf", "journal/db", "journal.next_event"];
    let whole = names.map(|name| (name, read(name)));
    for (damaged, bytes) in &whole {
        for (part, damage) in (0..8).flat_map(|part| [(part, Some(0)), (part, Some(0xff)), (part, None)]) {
            let dir = tempfile::tempdir().expect("tempdir");
            fs::create_dir_all(dir.path().join("journal/blobs")).expect("created");
            for (name, bytes) in &whole {
                fs::write(dir.path().join(name), bytes).expect("written");
            }
            let (from, to) = (bytes.len() * part / 8, bytes.len() * (part + 1) / 8);
            let mut bytes = bytes.clone();
            match damage {
                Some(byte) => bytes[from..to].fill(byte),
                None => bytes.truncate(from),
            }
            fs::write(dir.path().join(damaged), &bytes).expect("written");

            let (mut journal, loss) = open(dir.path());
            let what = format!("{damaged} part {part} {damage:?}: {loss:?}");
            assert!(journal.next_event() >= EventNumber(61), "{what}");
            let kept = (21..=60).filter(|number| {
                journal.event(EventNumber(*number)).expect("read") == Some(vec![*number as u8 - 1; 200])
            });
            assert!(kept.count() == 40 || loss.is_some(), "{what}");
            append(&mut journal, b"next");
            journal.append_report(b"next").expect("stored");
        }
    }
}

#[test]
fn an_event_lost_from_the_end_is_reported_once_and_its_number_not_used_again() {
    let dir = tempfile::tempdir().expect("tempdir");
    drop(open(dir.path()));
    let before = fs::read(dir.path().join("journal/db")).expect("read");
    let (mut journal, _) = open(dir.path());
    append(&mut journal, b"gone");
    drop(journal);
    fs::write(dir.path().join("journal/db"), before).expect("written");
    let (mut journal, loss) = open(dir.path());
    let loss = loss.expect("reported");
    assert_eq!(
        (loss.set_aside, loss.detail.as_str()),
        (None, "events from 1 up to 2 were used and are gone")
    );
    assert_eq!(append(&mut journal, b"next"), EventNumber(2));
    drop(journal);
    assert_eq!(open(dir.path()).1, None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The journal against a map, with restarts in between.
    #[test]
    fn it_holds_what_a_map_would_hold(steps in prop::collection::vec((0..6_u8, 0..400_usize), 0..60)) {
        let dir = tempfile::tempdir().expect("tempdir");
        let (mut journal, _) = open(dir.path());
        let (mut events, mut reports) = (BTreeMap::new(), BTreeMap::new());
        let (mut next, mut key, mut dropped) = (1_u64, 0_u64, 0);
        for (step, size) in steps {
            match step {
                0 | 1 => {
                    events.insert(next, vec![next as u8; size]);
                    prop_assert_eq!(append(&mut journal, &vec![next as u8; size]), EventNumber(next));
                    next += 1;
                }
                2 => {
                    let up_to = next.saturating_sub(size as u64 % 8);
                    events.retain(|number, _| *number > up_to);
                    journal.drop_events_up_to(EventNumber(up_to)).expect("dropped");
                }
                3 | 4 => {
                    reports.insert(key, vec![key as u8; size]);
                    while reports.values().map(Vec::len).sum::<usize>() as u64 > BUDGET.0 {
                        reports.pop_first();
                        dropped += 1;
                    }
                    let stored = journal.append_report(&vec![key as u8; size]).expect("stored");
                    prop_assert_eq!(Some(&stored.oldest.0), reports.keys().next());
                    key += 1;
                }
                _ => {
                    drop(journal);
                    let (reopened, loss) = open(dir.path());
                    prop_assert_eq!(loss, None);
                    journal = reopened;
                }
            }
            prop_assert_eq!(journal.dropped_reports(), dropped);
            for number in 0..=next {
                let found = journal.event(EventNumber(number)).expect("read");
                prop_assert_eq!(found.as_ref(), events.get(&number));
            }
            for number in 0..=key {
                let found = journal.report(ReportKey(number)).expect("read");
                prop_assert_eq!(found.as_ref(), reports.get(&number));
            }
        }
    }
}
