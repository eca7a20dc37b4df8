//! Updates that wait for a window or a link behind the pretended shell of the machine's tests.

use serin_protocol::assignment::Order;
use serin_protocol::ids::UnixMillis;
use serin_protocol::message::{EventKind, Phase, Reason, Wait};

use super::super::tests::{Shell, reference, release_id, statement};
use crate::update::effect::{Effect, Event, FieldOrder};
use crate::update::policy::{Step, Verdict, Verdicts};

fn wait() -> Verdict {
    Verdict::Wait { why: Wait::OutsideWindow, until: Some(UnixMillis(9_000_000)) }
}

fn no_fetching() -> Verdicts {
    Verdicts { fetch: wait(), install: Verdict::Go }
}

fn no_installing() -> Verdicts {
    Verdicts { fetch: Verdict::Go, install: wait() }
}

/// Takes what was asked of the shell that `of` likes.
fn asked(shell: &mut Shell, of: fn(&Effect) -> bool) -> usize {
    let before = shell.pending.len();
    shell.pending.retain(|effect| !of(effect));
    before - shell.pending.len()
}

fn plans(shell: &mut Shell) -> usize {
    asked(shell, |effect| matches!(effect, Effect::PlanLater(..)))
}

fn fetches(shell: &mut Shell) -> usize {
    asked(shell, |effect| matches!(effect, Effect::Fetch(..)))
}

fn waits_to_install(shell: &Shell) -> usize {
    shell.reports.iter().filter(|kind| matches!(kind, EventKind::Waiting { .. })).count()
}

/// A device with version 1 whose update to version 2 is admitted and waits.
fn waiting_to_fetch() -> Shell {
    let mut shell = Shell::installed(&[1]);
    shell.pending.clear();
    shell.feed(Event::Policy(no_fetching()));
    shell.run(2, 2);
    shell.statement(2, false);
    assert_eq!((fetches(&mut shell), shell.machine.phase()), (0, Phase::Admitted));
    shell
}

fn waiting_to_install() -> Shell {
    let mut shell = Shell::installed(&[1]);
    shell.feed(Event::Policy(no_installing()));
    shell.run(2, 2);
    shell.settle();
    assert_eq!((shell.machine.phase(), shell.active()), (Phase::Staged, Some(1)));
    shell
}

#[test]
fn nothing_is_fetched_before_its_time_and_the_reason_is_told_once() {
    let mut shell = waiting_to_fetch();
    assert_eq!(plans(&mut shell), 1);
    let step = shell.machine.waiting().map(|(step, _)| step);
    assert_eq!(step, Some(Step::Fetch));
    // The same reason again is no news, even with other numbers; another one is.
    shell.feed(Event::Policy(no_fetching()));
    assert_eq!(plans(&mut shell), 0);
    for (percent, news) in [(10, 1), (9, 0)] {
        let fetch = Verdict::Wait { why: Wait::Battery { percent, needed: 40 }, until: None };
        shell.feed(Event::Policy(Verdicts { fetch, install: Verdict::Go }));
        assert_eq!(plans(&mut shell), news);
    }
    shell.feed(Event::Policy(Verdicts::default()));
    assert_eq!(shell.machine.waiting(), None);
    shell.settle();
    assert_eq!(shell.active(), Some(2));
}

#[test]
fn a_transfer_pauses_and_goes_on() {
    let mut shell = Shell::installed(&[1]);
    shell.run(2, 2);
    shell.statement(2, false);
    assert_eq!(fetches(&mut shell), 1);
    shell.feed(Event::FetchStarted(statement(2)));
    shell.feed(Event::Policy(no_fetching()));
    assert!(shell.pending.contains(&Effect::CancelFetch(statement(2))));
    assert_eq!((plans(&mut shell), shell.machine.phase()), (1, Phase::Fetching));
    shell.pending.clear();
    shell.feed(Event::Policy(Verdicts::default()));
    assert_eq!(fetches(&mut shell), 1);
    shell.feed(Event::FetchStarted(statement(2)));
    shell.feed(Event::Policy(no_fetching()));
    assert_eq!(plans(&mut shell), 1, "it waits anew, which is news");
    // The last chunk was already here.
    shell.feed(Event::Fetched(statement(2), Ok(())));
    shell.settle();
    assert_eq!(shell.active(), Some(2));
}

#[test]
fn a_release_is_fetched_and_installed_in_the_window() {
    let mut shell = waiting_to_install();
    assert!(!shell.ready.contains(&statement(2)), "no worker takes memory meanwhile");
    shell.feed(Event::Policy(no_installing()));
    assert_eq!(waits_to_install(&shell), 1);
    shell.feed(Event::Policy(Verdicts::default()));
    shell.settle();
    assert_eq!((shell.active(), shell.machine.phase()), (Some(2), Phase::Probation));
    // Once it answers, a window that closes changes nothing.
    shell.feed(Event::Policy(no_installing()));
    shell.wait(60);
    assert_eq!(shell.machine.phase(), Phase::Idle);
}

#[test]
fn a_cancelled_or_superseded_update_waits_no_more() {
    for begin in [waiting_to_fetch, waiting_to_install] {
        let mut shell = begin();
        shell.order(3, Order::Stay);
        assert_eq!((shell.last_reason(), shell.machine.waiting()), (Some(Reason::Cancelled), None));
        shell.feed(Event::Policy(Verdicts::default()));
        shell.settle();
        assert_eq!(shell.active(), Some(1));

        let mut shell = begin();
        shell.run(3, 3);
        assert_eq!(shell.last_reason(), Some(Reason::Superseded));
        shell.feed(Event::Policy(Verdicts::default()));
        shell.settle();
        assert_eq!(shell.active(), Some(3));
    }
}

#[test]
fn an_update_that_waits_too_long_expires() {
    for begin in [waiting_to_fetch, waiting_to_install] {
        let mut shell = begin();
        shell.wait(101);
        assert_eq!((shell.last_reason(), shell.machine.waiting()), (Some(Reason::Expired), None));
        assert_eq!((shell.active(), &shell.disk.attempt), (Some(1), &None));
    }
}

#[test]
fn after_a_power_cut_it_waits_on() {
    let mut shell = waiting_to_fetch();
    shell.restart();
    shell.feed(Event::Policy(no_fetching()));
    shell.statement(2, false);
    assert_eq!((fetches(&mut shell), plans(&mut shell)), (0, 1));

    // What is unpacked needs no bytes: a metered link does not keep it from its window.
    let mut shell = waiting_to_install();
    shell.restart();
    shell.feed(Event::Policy(Verdicts { fetch: wait(), install: wait() }));
    shell.statement(2, true);
    shell.settle();
    assert_eq!(shell.machine.phase(), Phase::Staged);
    shell.feed(Event::Policy(no_fetching()));
    shell.settle();
    assert_eq!(shell.active(), Some(2));
}

#[test]
fn a_rollback_never_waits() {
    let nothing = || Event::Policy(Verdicts { fetch: wait(), install: wait() });
    let mut shell = Shell::installed(&[1, 2]);
    shell.feed(nothing());
    shell.order(3, Order::RollBack { from: release_id(2), to: reference(1) });
    assert_eq!((shell.active(), shell.pointer), (Some(1), Some(statement(1))));

    let mut shell = Shell::installed(&[1, 2]);
    shell.feed(nothing());
    shell.feed(Event::Field(1000, FieldOrder::Rollback { to: None }));
    assert_eq!(shell.pointer, Some(statement(1)));

    // To one that is neither of the slots, but on disk, with a power cut on the way.
    let mut shell = Shell::installed(&[1, 2]);
    shell.feed(nothing());
    shell.order(3, Order::RollBack { from: release_id(2), to: reference(7) });
    shell.restart();
    shell.feed(nothing());
    shell.statement(7, true);
    shell.settle();
    assert_eq!(shell.active(), Some(7));

    // What has to be fetched costs bytes: that waits, the switch does not.
    let mut shell = Shell::installed(&[1, 2]);
    shell.feed(nothing());
    shell.order(3, Order::RollBack { from: release_id(2), to: reference(7) });
    shell.statement(7, false);
    assert_eq!(fetches(&mut shell), 0);
    shell.feed(Event::Policy(no_installing()));
    shell.settle();
    assert_eq!(shell.active(), Some(7));
    // The next ordinary update waits again.
    shell.wait(60);
    shell.run(4, 3);
    shell.settle();
    assert_eq!((shell.active(), shell.machine.phase()), (Some(7), Phase::Staged));
}
