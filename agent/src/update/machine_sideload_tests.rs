//! A release that an engineer brings, on devices fresh, busy, pinned, or cut off in the middle.

use super::*;

#[test]
fn a_fresh_device_runs_what_is_brought_and_is_pinned() {
    let mut shell = Shell::new();
    shell.sideload(1);
    assert_eq!(shell.replies.last(), Some(&Ok(FieldOutcome::Sideloading)));
    assert!(shell.disk.kept_on_site() && shell.disk.pinned_by.is_none(), "pinned once it answers");
    shell.settle();
    assert_eq!((shell.pointer, shell.disk.pinned_by), (Some(statement(1)), Some(1000)));
    assert_eq!(shell.machine.phase(), Phase::Probation);
    shell.wait(3600);
    assert_eq!((shell.disk.brought(), shell.disk.attempt.clone()), (None, None));
    assert_eq!(shell.disk.active.as_ref().map(|slot| slot.standing), Some(Standing::Proven));
    assert!(shell.reports.contains(&EventKind::Sideloaded { uid: 1000, release: release_id(1) }));
    shell.run(1, 2);
    shell.settle();
    assert_eq!((shell.active(), shell.last_reason()), (Some(1), Some(Reason::Pinned)));
}

#[test]
fn a_device_that_can_write_nothing_any_more_serves_what_it_has() {
    let mut shell = Shell::installed(&[1]);
    shell.sideload(2);
    // Cut off in the middle of it; at the next start giving it up cannot be written.
    shell.restart_on_full_disk();
    shell.settle();
    assert_eq!(shell.pointer, Some(statement(1)));
}

#[test]
fn what_is_brought_takes_the_place_of_an_unfinished_update() {
    let mut shell = Shell::installed(&[1]);
    shell.run(2, 2);
    shell.pending.clear();
    shell.sideload(3);
    let ended = EventKind::Transition {
        release: release_id(2),
        from: Phase::Assigned,
        to: Phase::Rejected,
        reason: Some(Reason::Pinned),
    };
    assert!(shell.reports.contains(&ended), "{:?}", shell.reports);
    // The fleet tries again in the middle of it.
    shell.run(3, 2);
    assert_eq!(shell.last_reason(), Some(Reason::Pinned));
    shell.settle();
    assert_eq!((shell.active(), shell.pointer), (Some(3), Some(statement(3))));
    assert_eq!(shell.disk.previous.as_ref().map(|slot| slot.statement), Some(statement(1)));
}

#[test]
fn what_cannot_run_here_or_is_here_is_refused_and_nothing_changes() {
    let mut shell = Shell::installed(&[1, 2]);
    let before = shell.disk.clone();
    let large = release(3, ByteCount::from_mib(101));
    shell.feed(Event::Field(
        7,
        FieldOrder::Sideload { statement: statement(3), release: large, means: means() },
    ));
    let refused = shell.replies.pop().expect("answered").expect_err("too large").to_string();
    assert!(refused.contains(&ByteCount::from_mib(101).to_string()), "with the numbers: {refused}");
    shell.sideload(2);
    assert!(matches!(shell.replies.pop(), Some(Err(FieldRefusal::Already(_)))));
    shell.sideload(1);
    assert_eq!(shell.replies.pop(), Some(Err(FieldRefusal::IsPrevious(release_id(1)))));
    assert_eq!(shell.disk, before);
}

#[test]
fn what_is_cut_off_before_it_is_unpacked_is_rejected_and_the_fleet_is_followed_again() {
    let mut shell = Shell::installed(&[1]);
    shell.sideload(2);
    shell.restart();
    assert_eq!((shell.active(), shell.disk.attempt.clone()), (Some(1), None));
    assert!(matches!(shell.last_reason(), Some(Reason::BadBundle(_))), "{:?}", shell.last_reason());
    assert!(!shell.disk.kept_on_site());
    assert!(shell.pending.contains(&Effect::AskAssignment));
    shell.run(9, 3);
    shell.settle();
    assert_eq!(shell.active(), Some(3));
}

#[test]
fn what_is_unpacked_goes_on_after_a_power_cut_without_a_network() {
    let mut shell = Shell::installed(&[1]);
    shell.sideload(2);
    shell.feed(Event::Fetched(statement(2), Ok(())));
    shell.feed(Event::Staged(statement(2), Ok(())));
    shell.restart();
    assert!(!shell.pending.iter().any(|effect| matches!(effect, Effect::FetchStatement(_))));
    shell.settle();
    assert_eq!((shell.active(), shell.disk.pinned_by), (Some(2), Some(1000)));
    shell.restart();
    shell.settle();
    assert_eq!(shell.pointer, Some(statement(2)));
}

#[test]
fn a_sideload_that_does_not_end_is_given_up() {
    let mut shell = Shell::installed(&[1]);
    shell.sideload(2);
    shell.wait(3601);
    assert_eq!((shell.active(), shell.disk.attempt.clone()), (Some(1), None));
    let reason = shell.last_reason().expect("with a reason").to_string();
    assert!(reason.contains("60 minutes"), "{reason}");
}

#[test]
fn a_bad_one_is_taken_back_in_its_probation_and_the_device_stays_pinned() {
    let mut shell = Shell::installed(&[1]);
    shell.sideload(2);
    shell.settle();
    shell.kill(2, WorkerDeath::MemoryLimit);
    shell.settle();
    assert_eq!((shell.active(), shell.pointer), (Some(1), Some(statement(1))));
    assert_eq!(shell.disk.pinned_by, Some(1000));
}

#[test]
fn a_full_disk_refuses_it_and_nothing_changes() {
    let mut shell = Shell::installed(&[1]);
    let before = shell.disk.clone();
    shell.disk_fails = true;
    shell.sideload(2);
    assert!(matches!(shell.replies.last(), Some(Err(FieldRefusal::Storage(_)))));
    shell.disk_fails = false;
    shell.wait(10);
    shell.settle();
    assert_eq!(shell.disk, before);
}

#[test]
fn what_is_brought_long_after_the_last_order_has_its_hour() {
    let mut shell = Shell::installed(&[1]);
    shell.wait(60 * 24 * 3600);
    shell.sideload(2);
    shell.wait(60);
    shell.settle();
    assert_eq!((shell.active(), shell.machine.phase()), (Some(2), Phase::Probation));
}

#[test]
fn unpinned_on_probation_the_device_follows_its_fleet_at_once() {
    let mut shell = Shell::installed(&[1]);
    shell.sideload(2);
    shell.settle();
    assert_eq!(shell.machine.phase(), Phase::Probation);
    shell.feed(Event::Field(1000, FieldOrder::Unpin));
    assert!(shell.pending.contains(&Effect::AskAssignment));
    shell.run(5, 3);
    shell.settle();
    assert_eq!(shell.active(), Some(3), "not refused as pinned");
}

#[test]
fn a_release_on_probation_is_watched_on_when_what_took_its_place_comes_to_nothing() {
    let mut shell = Shell::installed(&[1]);
    shell.run(2, 2);
    shell.settle();
    assert_eq!(shell.machine.phase(), Phase::Probation);
    shell.sideload(3);
    assert_eq!((shell.active(), shell.last_reason()), (Some(2), Some(Reason::Pinned)));
    shell.reports.clear();
    shell.feed(Event::Fetched(statement(3), Err(bad())));
    shell.settle();
    assert_eq!((shell.active(), shell.machine.phase()), (Some(2), Phase::Probation));
    assert_eq!(shell.moves(), [(Phase::Fetching, Phase::Rejected), (Phase::Idle, Phase::Probation)]);
    let mut healthy = shell.clone();
    healthy.wait(Probation::default().duration.0 / 1000);
    assert_eq!(healthy.moves().last(), Some(&(Phase::Probation, Phase::Committed)));
    // And taken back at its first death, as on any probation.
    shell.restart();
    shell.settle();
    shell.kill(2, WorkerDeath::Signal(11));
    shell.settle();
    assert_eq!((shell.active(), shell.pointer), (Some(1), Some(statement(1))));
}
