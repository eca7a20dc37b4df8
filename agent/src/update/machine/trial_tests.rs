//! Trials behind the pretended shell of the machine's tests.

use serin_protocol::assignment::{Order, Probation, TrialMode};
use serin_protocol::ids::{BasisPoints, Millis};
use serin_protocol::message::{EventKind, Phase, Reason, WorkerDeath};

use super::super::tests::{Shell, reference, release_id, statement};
use crate::update::effect::{Effect, Event};

const SHADOW: TrialMode = TrialMode::Shadow { share: BasisPoints::WHOLE };
const ARM: TrialMode = TrialMode::Arm { share: BasisPoints(1000), salt: 7 };

/// A device with version 1 that tries version 2.
fn trying(mode: TrialMode) -> Shell {
    let mut shell = Shell::installed(&[1]);
    shell.try_beside(2, 2, mode);
    shell.settle();
    assert_eq!((shell.machine.phase(), shell.active()), (Phase::Shadowing, Some(1)));
    assert_eq!((shell.beside, shell.pointer), (Some((statement(2), mode)), Some(statement(1))));
    shell.reports.clear();
    shell
}

fn last_move(shell: &Shell) -> Option<(Phase, Phase, Option<Reason>)> {
    shell.reports.iter().rev().find_map(|kind| match kind {
        EventKind::Transition { from, to, reason, release } if *release == release_id(2) => {
            Some((*from, *to, reason.clone()))
        }
        _ => None,
    })
}

#[test]
fn a_trial_ends_and_all_is_as_before() {
    for mode in [SHADOW, ARM] {
        let mut shell = trying(mode);
        shell.wait(59);
        assert_eq!(shell.machine.phase(), Phase::Shadowing);
        shell.wait(1);
        assert_eq!(last_move(&shell), Some((Phase::Shadowing, Phase::Idle, None)));
        assert_eq!((shell.beside, shell.active(), shell.machine.phase()), (None, Some(1), Phase::Idle));
        assert!(!shell.ready.contains(&statement(2)), "its worker is stopped");
        assert_eq!((&shell.disk.attempt, shell.disk.trial()), (&None, None));
    }
}

#[test]
fn a_trial_that_goes_well_becomes_the_active_release_at_once() {
    let mut shell = trying(SHADOW);
    shell.run(3, 2);
    assert_eq!(shell.pending, [Effect::Announce], "nothing is fetched, staged or started");
    assert_eq!((shell.active(), shell.pointer, shell.beside), (Some(2), Some(statement(2)), None));
    assert_eq!(last_move(&shell), Some((Phase::Shadowing, Phase::Probation, None)));
    shell.wait(60);
    assert_eq!((shell.machine.phase(), shell.disk.trial()), (Phase::Idle, None));
    assert_eq!(shell.disk.previous.as_ref().map(|slot| slot.statement), Some(statement(1)));
}

#[test]
fn a_trial_goes_on_after_a_restart() {
    let mut shell = trying(ARM);
    shell.restart();
    shell.settle();
    assert_eq!((shell.beside, shell.pointer), (Some((statement(2), ARM)), Some(statement(1))));
}

#[test]
fn a_trial_that_goes_badly_is_given_up_and_touches_nothing() {
    let mut shell = trying(ARM);
    shell.feed(Event::Health { requests: 10, errors: 9 });
    let reason = Reason::ErrorRate { errors: 9, requests: 10 };
    assert_eq!(last_move(&shell), Some((Phase::Shadowing, Phase::Rejected, Some(reason))));
    assert_eq!((shell.beside, shell.pointer, shell.active()), (None, Some(statement(1)), Some(1)));

    let mut shell = trying(SHADOW);
    shell.kill(2, WorkerDeath::Exit(1));
    let reason = Reason::WorkerDied(WorkerDeath::Exit(1));
    assert_eq!(last_move(&shell), Some((Phase::Shadowing, Phase::Rejected, Some(reason))));
    assert_eq!((shell.beside, shell.pointer), (None, Some(statement(1))));
}

#[test]
fn a_rollback_of_the_active_release_ends_the_trial_beside_it() {
    let mut shell = Shell::installed(&[1, 2]);
    shell.try_beside(3, 3, SHADOW);
    shell.settle();
    assert_eq!(shell.beside, Some((statement(3), SHADOW)));
    shell.order(4, Order::RollBack { from: release_id(2), to: reference(1) });
    shell.settle();
    assert_eq!((shell.active(), shell.beside, shell.machine.phase()), (Some(1), None, Phase::Idle));
}

#[test]
fn the_previous_release_can_be_tried_too() {
    let mut shell = Shell::installed(&[1, 2]);
    shell.try_beside(3, 1, SHADOW);
    shell.settle();
    assert_eq!((shell.beside, shell.active()), (Some((statement(1), SHADOW)), Some(2)));
    shell.wait(60);
    assert!(shell.ready.contains(&statement(1)), "it is kept for a rollback again");
    assert_eq!(shell.disk.previous.as_ref().map(|slot| slot.statement), Some(statement(1)));
}

#[test]
fn there_must_be_something_to_compare_with_and_room_for_both() {
    let refused = |shell: &Shell| matches!(shell.last_reason(), Some(Reason::NoTrial(_)));
    let mut shell = Shell::installed(&[]);
    shell.try_beside(1, 1, SHADOW);
    assert!(refused(&shell));

    let mut shell = Shell::installed(&[1]);
    shell.try_beside(2, 1, SHADOW);
    assert!(refused(&shell));

    let mut shell = Shell::installed(&[1]);
    shell.run(2, 2);
    shell.settle();
    shell.try_beside(3, 3, SHADOW);
    assert!(refused(&shell), "version 2 is on probation");
    assert_eq!(shell.machine.phase(), Phase::Probation);

    // A device that would swap one for the other to run both does not do so for a trial.
    let mut shell = Shell::installed(&[1]);
    shell.try_beside(2, 2, SHADOW);
    shell.statement_of(2, 95);
    assert!(matches!(shell.last_reason(), Some(Reason::OverMemoryBudget { .. })));
    assert_eq!(shell.pointer, Some(statement(1)));
}

#[test]
fn another_mode_takes_effect_without_another_start() {
    let mut shell = trying(SHADOW);
    shell.wait(30);
    shell.try_beside(3, 2, ARM);
    assert_eq!(shell.beside, Some((statement(2), ARM)));
    shell.wait(59);
    assert_eq!(shell.machine.phase(), Phase::Shadowing, "its time begins anew");
    let probation = Probation { duration: Millis::from_secs(1), ..Probation::default() };
    shell.order(4, Order::Try { release: reference(3), mode: SHADOW, probation });
    shell.settle();
    assert_eq!(shell.beside, Some((statement(3), SHADOW)), "another release takes its place");
    shell.order(5, Order::Stay);
    assert_eq!((shell.beside, shell.machine.phase()), (None, Phase::Idle));
}
