//! Nothing hangs: crash loops are broken, silent steps end, and any state comes to rest by ticks alone.

use super::super::time::{MAX_ATTEMPT, MAX_PROBATION, PROBATION_GRACE};
use super::*;
use serin_protocol::message::CrashAction;

impl Shell {
    /// Starts anew after so many restarts without a stop.
    fn crash(&mut self, restarts: u32) {
        self.disk_fails = false;
        self.restart_after(restarts);
    }

    fn said_about_crashes(&self) -> Vec<CrashAction> {
        let action = |kind: &EventKind| match kind {
            EventKind::CrashLoop { action, .. } => Some(*action),
            _ => None,
        };
        self.reports.iter().filter_map(action).collect()
    }

    /// Lets time pass to the next deadline, and answers nothing.
    fn only_time(&mut self) {
        let at = self.machine.next_deadline(self.now).expect("something is due");
        let span = Millis(at.0.saturating_sub(self.now.elapsed.0));
        self.now.wall = self.now.wall.plus(span);
        self.now.elapsed = self.now.elapsed.plus(span);
        self.feed(Event::Tick);
        if let Some(next) = self.machine.next_deadline(self.now) {
            assert!(next > self.now.elapsed, "it would go round and round: {:?}", self.machine);
        }
    }

    /// Milliseconds until no update is unfinished, with nothing but time.
    fn rest(&mut self) -> Millis {
        let began = self.now.elapsed;
        let mut ticks = 0;
        while self.disk.attempt.is_some() {
            self.only_time();
            ticks += 1;
            assert!(ticks < 20_000, "it never comes to rest: {:?}", self.machine);
        }
        Millis(self.now.elapsed.0 - began.0)
    }
}

#[test]
fn a_crash_loop_costs_the_update_then_the_release_then_every_release() {
    let mut shell = Shell::installed(&[1, 2]);
    shell.run(3, 3);
    shell.crash(4);
    assert_eq!(shell.said_about_crashes(), [], "four restarts are none");
    shell.crash(5);
    assert_eq!((shell.disk.attempt.clone(), shell.active()), (None, Some(2)));
    shell.settle();
    shell.crash(5);
    shell.settle();
    assert_eq!((shell.active(), shell.pointer), (Some(1), Some(statement(1))));
    shell.crash(5);
    shell.settle();
    assert!(shell.machine.safe_mode() && shell.disk.safe_mode);
    assert_eq!((shell.active(), shell.pointer), (Some(1), None), "the slots are as they were");
    assert!(shell.ready.is_empty(), "no worker is started");
    // It stays so, also over restarts of either kind, and is said once.
    shell.crash(0);
    shell.crash(5);
    assert!(shell.machine.safe_mode());
    let steps = [CrashAction::GaveUp, CrashAction::RolledBack, CrashAction::SafeMode];
    assert_eq!(shell.said_about_crashes(), steps);
}

fn in_safe_mode() -> Shell {
    let mut shell = Shell::installed(&[1]);
    shell.crash(5);
    shell.settle();
    assert!(shell.machine.safe_mode());
    shell.reports.clear();
    shell
}

#[test]
fn another_release_of_the_fleet_leads_out_of_safe_mode_once_it_is_proven() {
    let mut shell = in_safe_mode();
    shell.run(5, 1);
    assert_eq!(shell.last_reason(), Some(Reason::CrashLoop { starts: 5 }), "the same again is refused");
    shell.run(6, 2);
    assert!(shell.machine.safe_mode(), "what crashed does not run meanwhile");
    shell.settle();
    assert_eq!((shell.active(), shell.pointer, shell.disk.safe_mode), (Some(2), Some(statement(2)), false));
    assert_eq!(shell.disk.previous, None, "and is nothing to return to");

    let mut fails = in_safe_mode();
    fails.run(6, 2);
    fails.feed(Event::Statement { statement: statement(2), outcome: Err(bad()) });
    assert!(fails.machine.safe_mode() && fails.pointer.is_none());
}

#[test]
fn an_engineer_leads_out_of_safe_mode() {
    let mut tries_again = in_safe_mode();
    tries_again.feed(Event::Field(0, FieldOrder::Unpin));
    tries_again.settle();
    assert_eq!((tries_again.pointer, tries_again.disk.safe_mode), (Some(statement(1)), false));

    let mut goes_back = Shell::installed(&[1, 2]);
    goes_back.crash(5);
    goes_back.crash(5);
    assert!(goes_back.machine.safe_mode());
    for order in [FieldOrder::Pin, FieldOrder::Hold { span: Millis(1) }] {
        goes_back.feed(Event::Field(0, order));
        assert!(matches!(goes_back.replies.pop(), Some(Ok(_))) && goes_back.machine.safe_mode());
    }
    let to = Some("2".parse().expect("version"));
    goes_back.feed(Event::Field(0, FieldOrder::Rollback { to }));
    goes_back.settle();
    assert_eq!((goes_back.pointer, goes_back.disk.safe_mode), (Some(statement(2)), false));
}

#[test]
fn a_crash_loop_on_a_full_disk_is_broken_when_the_disk_takes_it() {
    let mut shell = Shell::installed(&[1]);
    shell.disk_fails = true;
    shell.machine = Machine::new(identity(), shell.disk.clone());
    shell.ready.clear();
    shell.feed(Event::Boot { restarts: 5 });
    assert!(!shell.machine.safe_mode());
    shell.disk_fails = false;
    shell.wait(10);
    assert!(shell.machine.safe_mode() && shell.disk.safe_mode);
}

#[test]
fn a_healthy_run_forgets_earlier_starts_once() {
    let mut shell = Shell::installed(&[1]);
    shell.restart_after(3);
    shell.now.elapsed = Millis(0);
    let forgotten = |shell: &Shell| shell.pending.iter().filter(|e| **e == Effect::ForgetStarts).count();
    shell.wait(599);
    assert_eq!(forgotten(&shell), 0);
    shell.wait(2);
    shell.wait(2);
    assert_eq!(forgotten(&shell), 1);
}

#[test]
fn a_first_release_that_never_answers_is_taken_back_after_its_probation() {
    let mut shell = Shell::new();
    shell.run(1, 1);
    shell.settle();
    // Its worker does not come up again after a restart, and there is nothing to return to.
    shell.restart();
    let warm = |effect: &Effect| matches!(effect, Effect::Warm { .. });
    let end = Millis::from_secs(60).plus(PROBATION_GRACE);
    let began = shell.now.elapsed;
    while shell.disk.attempt.is_some() {
        if shell.pending.iter().any(warm) {
            shell.pending.clear();
            shell.feed(Event::Warmed(statement(1), Err(bad())));
        }
        shell.only_time();
        assert!(shell.now.elapsed.0 <= began.0 + end.0);
    }
    assert!(matches!(shell.last_reason(), Some(Reason::TooSlow(_))), "{:?}", shell.last_reason());
    assert_eq!((shell.active(), shell.pointer), (None, None));
}

#[test]
fn steps_that_never_answer_end() {
    // Unpacking that never returns.
    let mut staging = Shell::installed(&[1]);
    staging.far_expiry = true;
    staging.run(2, 2);
    let outcome = Ok((release(2, ByteCount::from_mib(10)), means()));
    staging.feed(Event::Statement { statement: statement(2), outcome });
    staging.feed(Event::Fetched(statement(2), Ok(())));
    assert!(staging.rest() <= identity().patience);
    assert!(matches!(staging.last_reason(), Some(Reason::TooSlow(_))));

    // A worker that neither comes up nor fails.
    let mut warming = Shell::installed(&[1]);
    warming.far_expiry = true;
    warming.run(2, 2);
    let outcome = Ok((release(2, ByteCount::from_mib(10)), means()));
    warming.feed(Event::Statement { statement: statement(2), outcome });
    warming.feed(Event::Fetched(statement(2), Ok(())));
    warming.feed(Event::Staged(statement(2), Ok(())));
    assert_eq!(warming.machine.phase(), Phase::Warming);
    assert!(warming.rest() <= identity().patience);
    assert!(matches!(warming.last_reason(), Some(Reason::TooSlow(_))));
    assert_eq!(warming.pointer, Some(statement(1)));

    // A bundle that nobody ever publishes.
    let mut fetching = Shell::installed(&[1]);
    fetching.far_expiry = true;
    fetching.run(2, 2);
    assert_eq!(fetching.rest(), MAX_ATTEMPT);
    assert_eq!(fetching.last_reason(), Some(Reason::Expired));
}

#[test]
fn after_running_out_of_memory_nothing_is_started_again_at_once() {
    let mut shell = Shell::installed(&[1]);
    shell.pending.clear();
    shell.kill(1, WorkerDeath::MemoryLimit);
    let starts = |shell: &Shell| shell.pending.iter().filter(|e| matches!(e, Effect::Warm { .. })).count();
    shell.wait(29);
    assert_eq!((starts(&shell), shell.pointer, shell.active()), (0, None, Some(1)));
    shell.wait(31);
    assert_eq!(starts(&shell), 1, "a minute later it is tried once");
    // Again and again: the tries become rare.
    let mut tries = 0;
    for _ in 0..24 * 60 {
        if shell.pending.iter().any(|effect| matches!(effect, Effect::Warm { .. })) {
            shell.settle();
            shell.kill(1, WorkerDeath::MemoryLimit);
            tries += 1;
        }
        shell.wait(60);
    }
    assert!((90..=200).contains(&tries), "{tries} tries in a day");
}

#[test]
fn a_worker_that_dies_at_each_start_is_started_ever_more_rarely() {
    let mut shell = Shell::installed(&[1]);
    let mut tries = 0;
    for _ in 0..3600 {
        if shell.pending.iter().any(|effect| matches!(effect, Effect::Warm { .. })) {
            shell.settle();
            tries += 1;
        }
        shell.kill(1, WorkerDeath::Exit(1));
        shell.wait(1);
    }
    assert!((60..=140).contains(&tries), "{tries} starts in an hour");
}

#[test]
fn a_release_whose_probation_was_cut_short_can_be_proven_later() {
    let mut shell = Shell::installed(&[1]);
    shell.run(2, 2);
    shell.settle();
    shell.run(3, 3);
    shell.order(4, Order::Stay);
    assert_eq!((shell.active(), shell.machine.phase()), (Some(2), Phase::Probation));
    shell.run(5, 2);
    assert_eq!(shell.machine.phase(), Phase::Probation);
    shell.settle();
    shell.wait(60);
    assert_eq!(shell.disk.active.as_ref().map(|slot| slot.standing), Some(Standing::Proven));
}

#[test]
fn the_previous_release_that_is_still_warm_is_switched_to_without_another_worker() {
    let mut shell = Shell::installed(&[1, 2]);
    assert!(shell.ready.contains(&statement(1)));
    shell.run(3, 1);
    shell.settle();
    assert_eq!((shell.machine.phase(), shell.pointer), (Phase::Probation, Some(statement(1))));
    shell.wait(60);
    assert_eq!((shell.active(), shell.disk.attempt.clone()), (Some(1), None));
    assert_eq!(shell.disk.previous.as_ref().map(|slot| slot.statement), Some(statement(2)));
}

#[test]
fn an_update_that_ends_with_the_release_beside_it_is_told_of() {
    let mut shell = Shell::installed(&[1, 2]);
    shell.run(5, 3);
    let fetching = shell.pending.clone();
    for _ in 0..3 {
        shell.pending.clear();
        shell.kill(2, WorkerDeath::Signal(11));
        shell.ready.insert(statement(2));
        shell.feed(Event::Warmed(statement(2), Ok(())));
    }
    assert!(!fetching.is_empty());
    assert_eq!((shell.active(), shell.disk.attempt.clone()), (Some(1), None));
    let told = |kind: &EventKind| matches!(kind, EventKind::Transition { release, to: Phase::Rejected, .. } if *release == release_id(3));
    assert!(shell.reports.iter().any(told), "{:?}", shell.reports);
}

#[test]
fn the_previous_release_that_runs_again_is_not_its_own_way_back() {
    let mut shell = Shell::installed(&[1, 2]);
    shell.disk.active.as_mut().expect("there").standing = Standing::Unproven;
    shell.restart();
    shell.settle();
    shell.run(5, 1);
    shell.settle();
    assert_eq!(shell.active(), Some(1));
    let previous = shell.disk.previous.as_ref().map(|slot| (slot.statement, slot.standing));
    assert_eq!(previous, Some((statement(2), Standing::Condemned)));
}

#[test]
fn conditions_hold_whether_or_not_what_follows_can_be_written() {
    let mut shell = Shell::installed(&[1, 2]);
    shell.far_expiry = true;
    shell.feed(Event::Policy(Verdicts { fetch: Verdict::Go, install: verdict(true) }));
    shell.run(5, 1);
    shell.settle();
    assert_eq!(shell.machine.phase(), Phase::Staged);
    // It is warm and would take over in this moment.
    shell.disk_fails = true;
    shell.feed(Event::Policy(Verdicts::default()));
    assert_eq!(shell.active(), Some(2));
    shell.disk_fails = false;
    shell.wait(600);
    shell.settle();
    assert_eq!((shell.active(), shell.machine.phase()), (Some(1), Phase::Probation));
}

#[test]
fn a_return_that_is_not_for_this_device_hurries_nothing() {
    let mut shell = Shell::installed(&[1]);
    shell.feed(Event::Policy(Verdicts { fetch: Verdict::Go, install: verdict(true) }));
    shell.run(5, 2);
    shell.settle();
    assert_eq!(shell.machine.phase(), Phase::Staged);
    shell.order(6, Order::RollBack { from: release_id(9), to: reference(8) });
    shell.feed(Event::Policy(Verdicts { fetch: Verdict::Go, install: verdict(true) }));
    assert_eq!(shell.machine.phase(), Phase::Staged, "it still waits for its window");
}

proptest! {
    // With MAX_PROBATION as the longest probation, this bound holds for every state.
    #[test]
    fn any_state_comes_to_rest_by_time_alone(
        acts in prop::collection::vec(any_act(), 1..40),
        far in any::<bool>(),
        restarts in 0..7_u32,
    ) {
        let mut shell = Shell::installed(&[1]);
        shell.far_expiry = far;
        for (step, act) in acts.into_iter().enumerate() {
            shell.act(step as u64 + 10, &act);
        }
        if restarts > 0 {
            shell.crash(restarts);
        }
        shell.disk_fails = false;
        let took = shell.rest();
        // And a while for a disk that did not take the last write.
        let slack = Millis::from_secs(600);
        prop_assert!(took <= MAX_ATTEMPT.plus(MAX_PROBATION).plus(PROBATION_GRACE).plus(slack), "{took:?}");
    }

    #[test]
    fn cancel_ends_any_update_before_its_probation_at_once(
        acts in prop::collection::vec(any_act(), 1..40),
    ) {
        let mut shell = Shell::installed(&[1]);
        for (step, act) in acts.into_iter().enumerate() {
            shell.act(step as u64 + 10, &act);
        }
        shell.disk_fails = false;
        // What an engineer brings is not the fleet's to cancel; it has an end of its own.
        prop_assume!(shell.disk.brought().is_none());
        shell.feed(Event::Field(0, FieldOrder::Unpin));
        let installing = shell.machine.candidate().is_some();
        shell.order(1000, Order::Stay);
        if installing {
            prop_assert_eq!(shell.machine.candidate(), None);
        }
        // A newer order takes the place of an unfinished one.
        let version = 5;
        shell.run(1001, version);
        let target = shell.disk.attempt.as_ref().map(|attempt| attempt.target.statement);
        prop_assert_eq!(target, Some(statement(version)));
    }
}
