//! A release that breaks its own policy, behind the pretended shell of the machine's tests.

use serin_protocol::message::{EventKind, Phase, Reason};

use super::super::tests::{Shell, release_id, statement};
use crate::update::effect::{Event, FieldOrder};
use crate::update::record::Standing;

fn broken() -> Reason {
    Reason::TooManyErrors { errors: 60, requests: 100 }
}

fn unfit(shell: &mut Shell, version: u8) {
    shell.feed(Event::Unfit(statement(version), broken()));
    shell.settle();
}

#[test]
fn it_is_left_for_the_previous_one_and_does_not_come_back_by_itself() {
    let mut shell = Shell::installed(&[1, 2]);
    unfit(&mut shell, 2);
    assert_eq!(shell.active(), Some(1));
    let moved = |kind: &EventKind| match kind {
        EventKind::Transition { release, from, to, reason } if *release == release_id(2) => {
            Some((*from, *to, reason.clone()))
        }
        _ => None,
    };
    let moves: Vec<_> = shell.reports.iter().filter_map(moved).collect();
    assert_eq!(moves, [(Phase::Committed, Phase::RolledBack, Some(broken()))]);
    assert_eq!(shell.disk.previous.as_ref().map(|slot| slot.standing), Some(Standing::Condemned));
    // There is nothing left to go back to, and a start of the agent changes nothing.
    unfit(&mut shell, 1);
    shell.restart();
    shell.settle();
    assert_eq!(shell.active(), Some(1));
    // Told twice of the one that was left, nothing happens.
    shell.reports.clear();
    unfit(&mut shell, 2);
    assert!(shell.active() == Some(1) && shell.reports.is_empty());
}

#[test]
fn it_stays_where_an_engineer_has_pinned_it() {
    let mut shell = Shell::installed(&[1, 2]);
    shell.feed(Event::Field(1000, FieldOrder::Pin));
    unfit(&mut shell, 2);
    assert_eq!(shell.active(), Some(2));
    shell.feed(Event::Field(1000, FieldOrder::Unpin));
    unfit(&mut shell, 2);
    assert_eq!(shell.active(), Some(1));
}

#[test]
fn it_stays_where_there_is_no_other() {
    let mut shell = Shell::installed(&[1]);
    unfit(&mut shell, 1);
    assert_eq!(shell.active(), Some(1));
}
