//! The machine behind a pretended shell: a disk that persists or fails, workers that come up or not.

use super::orders::MAX_SEQUENCE_STEP;
use super::*;
use crate::update::admission::{Means, RUNTIME, Swap};
use crate::update::effect::{FieldOrder, FieldOutcome};
use crate::update::policy::Verdict;
use crate::update::record::RootFloor;
use proptest::prelude::*;
use serin_protocol::assignment::{Assignment, Order, Probation, ReleaseRef};
use serin_protocol::chunk::ObjectRef;
use serin_protocol::ids::{BasisPoints, UnixMillis};
use serin_protocol::message::{Detail, Wait, WorkerDeath};
use std::collections::BTreeSet;

/// Carries effects out at once, and checks on the way what must hold at every step.
#[derive(Clone)]
pub(super) struct Shell {
    pub(super) machine: Machine,
    now: Now,
    pub(super) disk: Record,
    disk_fails: bool,
    pub(super) ready: BTreeSet<Digest>,
    pub(super) pointer: Option<Digest>,
    pub(super) beside: Option<(Digest, TrialMode)>,
    pub(super) reports: Vec<EventKind>,
    replies: Vec<Result<FieldOutcome, FieldRefusal>>,
    pub(super) pending: Vec<Effect>,
    /// Orders are good for years.
    far_expiry: bool,
}

pub(super) fn statement(version: u8) -> Digest {
    Digest([version; 32])
}

pub(super) fn release_id(version: u8) -> ReleaseId {
    format!("m@{version}").parse().expect("id")
}

pub(super) fn reference(version: u8) -> ReleaseRef {
    ReleaseRef { id: release_id(version), statement: statement(version) }
}

fn identity() -> Identity {
    Identity {
        device: "d1".parse().expect("name"),
        fleet: "f".parse().expect("name"),
        memory_budget: ByteCount::from_mib(100),
        patience: Millis::from_secs(3600),
        crash_policy: CrashPolicy::default(),
        seed: 7,
    }
}

fn release(version: u8, memory: ByteCount) -> Box<Release> {
    let object = ObjectRef { digest: Digest([0; 32]), size: ByteCount(10) };
    Box::new(Release {
        id: release_id(version),
        bundle: object,
        chunk_list: object,
        unpacked: ByteCount(10),
        memory,
        runtime: RUNTIME.parse().expect("fits"),
        targets: [].into_iter().collect(),
        profile: Digest([0; 32]),
        decoders: serin_protocol::release::Decoders::new(),
    })
}

fn means() -> Means {
    Means {
        target: "linux-x86_64".parse().expect("name"),
        target_lacks: Vec::new(),
        hardware: serin_protocol::target::Hardware {
            architecture: "x86_64",
            memory: None,
            cpu_features: None,
            kernel: None,
            kernel_features: Vec::new(),
        },
        memory_budget: ByteCount::from_mib(100),
        memory_active: ByteCount(0),
        swap: Swap::Cold,
        decoders: serin_protocol::release::Decoders::new(),
        free_space: ByteCount(1000),
        installed: false,
    }
}

impl Shell {
    fn new() -> Self {
        let mut shell = Self {
            machine: Machine::new(identity(), Record::default()),
            now: Now { wall: UnixMillis(1_000_000), elapsed: Millis(0) },
            disk: Record::default(),
            disk_fails: false,
            ready: BTreeSet::new(),
            pointer: None,
            beside: None,
            reports: Vec::new(),
            replies: Vec::new(),
            pending: Vec::new(),
            far_expiry: false,
        };
        shell.feed(Event::Boot { restarts: 0 });
        shell
    }

    pub(super) fn restart(&mut self) {
        self.restart_after(0);
    }

    fn restart_after(&mut self, restarts: u32) {
        self.machine = Machine::new(identity(), self.disk.clone());
        (self.pointer, self.beside, self.disk_fails) = (None, None, false);
        self.ready.clear();
        self.pending.clear();
        self.feed(Event::Boot { restarts });
    }

    fn restart_on_full_disk(&mut self) {
        self.machine = Machine::new(identity(), self.disk.clone());
        (self.pointer, self.beside, self.disk_fails) = (None, None, true);
        self.ready.clear();
        self.pending.clear();
        self.feed(Event::Boot { restarts: 0 });
    }

    pub(super) fn feed(&mut self, event: Event) {
        let effects = self.machine.handle(self.now, event);
        let operation = |effect: &&Effect| match effect {
            Effect::FetchStatement(_) | Effect::Fetch(..) | Effect::Stage(..) => true,
            Effect::Warm { golden, .. } => *golden,
            _ => false,
        };
        assert!(effects.iter().filter(operation).count() <= 1, "two operations at once: {effects:?}");
        assert_writes_name_what_is_said(&effects);
        for effect in effects {
            match effect {
                Effect::Persist(_) if self.disk_fails => {
                    let reason = Reason::Storage(Detail::new("disk full"));
                    return self.feed(Event::PersistFailed(reason));
                }
                Effect::Persist(record) => self.disk = *record,
                Effect::Flip(slot) => {
                    assert!(self.ready.contains(&slot.statement), "flipped to a worker that is not ready");
                    let active = self.disk.active.as_ref().map(|slot| slot.statement);
                    assert_eq!(active, Some(slot.statement), "flipped to what is not on disk");
                    self.pointer = Some(slot.statement);
                }
                Effect::Unserve | Effect::Suspend => self.pointer = None,
                Effect::Beside(tried) => {
                    if let Some((slot, _)) = &tried {
                        assert!(self.ready.contains(&slot.statement), "tried without a worker");
                        assert!(
                            self.pointer.is_some_and(|active| active != slot.statement),
                            "beside nothing"
                        );
                    }
                    self.beside = tried.map(|(slot, mode)| (slot.statement, mode));
                }
                Effect::Stop(statement) => {
                    let alive = self.ready.remove(&statement);
                    assert!(!alive || self.pointer != Some(statement), "stopped the worker that answers");
                }
                Effect::Report { kind, .. } => self.reports.push(kind),
                Effect::Reply(reply) => self.replies.push(reply),
                Effect::Collect(keep) => {
                    assert!(self.disk.named().iter().all(|named| keep.contains(named)), "collected a slot");
                }
                pending => self.pending.push(pending),
            }
        }
    }

    pub(super) fn kill(&mut self, version: u8, death: WorkerDeath) {
        if self.ready.remove(&statement(version)) {
            if self.pointer == Some(statement(version)) {
                self.pointer = None;
            }
            self.feed(Event::WorkerDied(statement(version), death));
        }
    }

    pub(super) fn order(&mut self, sequence: u64, order: Order) {
        let assignment = Assignment {
            device: identity().device,
            fleet: identity().fleet,
            sequence: SequenceNumber(sequence),
            rollout: None,
            issued: self.now.wall,
            expires: self.now.wall.plus(Millis::from_secs(if self.far_expiry { 1 << 33 } else { 100 })),
            order,
        };
        self.feed(Event::Assigned(assignment));
    }

    pub(super) fn run(&mut self, sequence: u64, version: u8) {
        let probation = Probation {
            duration: Millis::from_secs(60),
            max_error_rate: BasisPoints(500),
            min_requests: 10,
            max_worker_deaths: 1,
        };
        self.order(sequence, Order::Run { release: reference(version), probation });
    }

    pub(super) fn try_beside(&mut self, sequence: u64, version: u8, mode: TrialMode) {
        let probation = Probation {
            duration: Millis::from_secs(60),
            max_error_rate: BasisPoints(500),
            min_requests: 10,
            max_worker_deaths: 1,
        };
        self.order(sequence, Order::Try { release: reference(version), mode, probation });
    }

    /// The statement of this version comes, which needs so much memory beside what answers now.
    pub(super) fn statement_of(&mut self, version: u8, mebibytes: u64) {
        self.pending.retain(|effect| !matches!(effect, Effect::FetchStatement(_)));
        let means = Means { memory_active: ByteCount::from_mib(10), ..means() };
        let outcome = Ok((release(version, ByteCount::from_mib(mebibytes)), means));
        self.feed(Event::Statement { statement: statement(version), outcome });
    }

    fn sideload(&mut self, version: u8) {
        let release = release(version, ByteCount::from_mib(10));
        let order = FieldOrder::Sideload { statement: statement(version), release, means: means() };
        self.feed(Event::Field(1000, order));
    }

    pub(super) fn wait(&mut self, seconds: u64) {
        self.now.wall = self.now.wall.plus(Millis::from_secs(seconds));
        self.now.elapsed = self.now.elapsed.plus(Millis::from_secs(seconds));
        self.feed(Event::Tick);
    }

    /// The statement of this version comes, which is asked for; perhaps the release is here already.
    pub(super) fn statement(&mut self, version: u8, installed: bool) {
        self.pending.retain(|effect| !matches!(effect, Effect::FetchStatement(_)));
        let means = Means { installed, ..means() };
        let outcome = Ok((release(version, ByteCount::from_mib(10)), means));
        self.feed(Event::Statement { statement: statement(version), outcome });
    }

    /// Answers every pending effect as a healthy device would.
    pub(super) fn settle(&mut self) {
        while !self.pending.is_empty() {
            match self.pending.remove(0) {
                Effect::FetchStatement(target) => {
                    let version = target.statement.0[0];
                    let outcome = Ok((release(version, ByteCount::from_mib(10)), means()));
                    self.feed(Event::Statement { statement: target.statement, outcome });
                }
                Effect::Fetch(statement, _) => {
                    self.feed(Event::FetchStarted(statement));
                    self.feed(Event::Fetched(statement, Ok(())));
                }
                Effect::Receive(statement, _) => self.feed(Event::Fetched(statement, Ok(()))),
                Effect::Stage(statement, _) => self.feed(Event::Staged(statement, Ok(()))),
                Effect::Warm { slot, .. } => {
                    self.ready.insert(slot.statement);
                    self.feed(Event::Warmed(slot.statement, Ok(())));
                }
                _ => {}
            }
        }
    }

    pub(super) fn installed(versions: &[u8]) -> Self {
        let mut shell = Self::new();
        for (sequence, version) in versions.iter().enumerate() {
            shell.run(sequence as u64 + 1, *version);
            shell.settle();
            shell.wait(60);
            shell.settle();
        }
        shell.reports.clear();
        shell
    }

    fn moves(&self) -> Vec<(Phase, Phase)> {
        let of = |kind: &EventKind| match kind {
            EventKind::Transition { from, to, .. } => Some((*from, *to)),
            _ => None,
        };
        self.reports.iter().filter_map(of).collect()
    }

    pub(super) fn last_reason(&self) -> Option<Reason> {
        self.reports.iter().rev().find_map(|kind| match kind {
            EventKind::Transition { reason, .. } => reason.clone(),
            _ => None,
        })
    }

    pub(super) fn active(&self) -> Option<u8> {
        self.disk.active.as_ref().map(|slot| slot.statement.0[0])
    }
}

/// A device that is cut off right after a write can say what was to be said about it.
fn assert_writes_name_what_is_said(effects: &Effects) {
    for (at, effect) in effects.iter().enumerate() {
        let Effect::Persist(record) = effect else { continue };
        let after = effects.iter().skip(at + 1).take_while(|effect| !matches!(effect, Effect::Persist(_)));
        let said: Vec<_> = after
            .filter_map(|effect| match effect {
                Effect::Report { sequence, rollout, kind } => Some((*sequence, *rollout, kind.clone())),
                _ => None,
            })
            .collect();
        let named: Vec<_> =
            record.tellings.iter().map(|said| (said.sequence, said.rollout, said.kind.clone())).collect();
        assert_eq!(named, said);
    }
}

#[test]
fn a_release_walks_through_every_phase_to_committed() {
    let mut shell = Shell::new();
    shell.run(1, 1);
    shell.settle();
    assert_eq!(shell.machine.phase(), Phase::Probation);
    shell.wait(60);
    let steps = [
        Phase::Idle,
        Phase::Assigned,
        Phase::Admitted,
        Phase::Fetching,
        Phase::Verified,
        Phase::Staged,
        Phase::Warming,
        Phase::Probation,
        Phase::Committed,
    ];
    let expected: Vec<_> = steps.windows(2).map(|pair| (pair[0], pair[1])).collect();
    assert_eq!(shell.moves(), expected);
    assert_eq!((shell.active(), shell.pointer), (Some(1), Some(statement(1))));
}

#[test]
fn the_previous_release_stays_warm_and_answers_at_once_after_a_field_rollback() {
    let mut shell = Shell::installed(&[1, 2]);
    assert!(shell.ready.contains(&statement(1)));
    shell.feed(Event::Field(1000, FieldOrder::Rollback { to: None }));
    assert_eq!(shell.pointer, Some(statement(1)));
    let reply = shell.replies.pop().expect("answered").expect("done");
    assert_eq!(reply, FieldOutcome::RolledBack { from: release_id(2), to: release_id(1), warm: true });
    // Pinned: the fleet's orders are refused until it is unpinned, each reported once.
    shell.run(3, 3);
    shell.run(3, 3);
    assert_eq!(shell.reports.iter().filter(|kind| matches!(kind, EventKind::Transition { .. })).count(), 2);
    assert_eq!(shell.last_reason(), Some(Reason::Pinned));
    shell.feed(Event::Field(1000, FieldOrder::Unpin));
    assert!(shell.pending.contains(&Effect::AskAssignment));
    shell.run(3, 3);
    shell.settle();
    assert_eq!(shell.active(), Some(3));
}

#[test]
fn one_failed_start_does_not_undo_an_engineers_rollback_while_another_answers() {
    let mut shell = Shell::installed(&[1, 2]);
    shell.machine.forget_worker(statement(1));
    shell.ready.remove(&statement(1));
    shell.feed(Event::Field(1000, FieldOrder::Rollback { to: None }));
    let fail = |shell: &mut Shell| shell.feed(Event::Warmed(statement(1), Err(bad())));
    fail(&mut shell);
    shell.wait(60);
    fail(&mut shell);
    assert_eq!((shell.active(), shell.pointer), (Some(1), Some(statement(2))), "it is tried again");
    shell.wait(60);
    fail(&mut shell);
    assert_eq!((shell.active(), shell.pointer), (Some(2), Some(statement(2))), "but not for ever");
}

/// A device that runs version 1 and is to run version 2, which needs almost all of its memory.
fn takes_turns() -> Shell {
    let mut shell = Shell::installed(&[1]);
    shell.run(5, 2);
    shell.pending.clear();
    let outcome = Ok((release(2, ByteCount::from_mib(95)), means()));
    shell.feed(Event::Statement { statement: statement(2), outcome });
    for event in [Event::Fetched(statement(2), Ok(())), Event::Staged(statement(2), Ok(()))] {
        shell.pending.clear();
        shell.feed(event);
    }
    shell
}

#[test]
fn releases_that_do_not_fit_side_by_side_take_turns() {
    let mut shell = takes_turns();
    assert_eq!((shell.active(), shell.pointer), (Some(1), None), "the first has made room");
    assert!(!shell.ready.contains(&statement(1)));
    shell.settle();
    assert_eq!((shell.active(), shell.pointer), (Some(2), Some(statement(2))));
    assert!(!shell.ready.contains(&statement(1)), "nor is it kept warm");
    shell.wait(60);
    shell.feed(Event::Field(1000, FieldOrder::Rollback { to: None }));
    assert_eq!((shell.pointer, shell.ready.len()), (None, 0));
    shell.settle();
    assert_eq!(shell.pointer, Some(statement(1)));
}

#[test]
fn a_release_that_made_room_comes_back_when_the_other_fails_and_after_a_power_cut() {
    let mut shell = takes_turns();
    let mut cut = shell.clone();
    shell.pending.clear();
    shell.feed(Event::Warmed(statement(2), Err(bad())));
    shell.settle();
    assert_eq!((shell.active(), shell.pointer), (Some(1), Some(statement(1))));
    cut.restart();
    assert!(
        cut.pending
            .iter()
            .any(|effect| matches!(effect, Effect::Warm { slot, .. } if slot.statement == statement(1)))
    );
}

#[test]
fn a_rollback_is_durable_first_then_served_and_only_then_spoken_of() {
    let order = |shell: &mut Shell| {
        let effects = shell.machine.handle(shell.now, Event::Field(1000, FieldOrder::Rollback { to: None }));
        let step = |effect: &Effect| match effect {
            Effect::Persist(_) => Some("persist"),
            Effect::Flip(_) => Some("flip"),
            Effect::Warm { .. } => Some("warm"),
            Effect::Report { .. } => Some("report"),
            Effect::Reply(_) => Some("reply"),
            _ => None,
        };
        effects.iter().filter_map(step).collect::<Vec<_>>()
    };
    let mut warm = Shell::installed(&[1, 2]);
    assert_eq!(order(&mut warm), ["persist", "flip", "report", "report", "reply"]);
    let mut cold = Shell::installed(&[1, 2]);
    cold.machine.forget_worker(statement(1));
    assert_eq!(order(&mut cold), ["persist", "warm", "report", "report", "reply"]);
}

#[test]
fn a_held_device_takes_no_order_until_the_hold_is_over() {
    let mut shell = Shell::installed(&[1]);
    shell.feed(Event::Field(1000, FieldOrder::Hold { span: Millis::from_secs(3600) }));
    assert!(matches!(shell.replies.pop(), Some(Ok(FieldOutcome::Held(_)))));
    shell.run(2, 2);
    assert_eq!((shell.active(), shell.last_reason()), (Some(1), Some(Reason::Held)));
    assert!(shell.disk.held.is_some(), "it survives a power cut");
    shell.pending.clear();
    shell.wait(3599);
    assert!(!shell.pending.contains(&Effect::AskAssignment));
    shell.wait(2);
    assert!(shell.pending.contains(&Effect::AskAssignment) && shell.disk.held.is_none());
    shell.run(2, 2);
    shell.settle();
    assert_eq!(shell.active(), Some(2));
    // Given back before its time.
    shell.feed(Event::Field(1000, FieldOrder::Hold { span: Millis(u64::MAX) }));
    let until = shell.disk.held.expect("held").until;
    assert!(until.since(shell.now.wall) <= MAX_HOLD, "no hold is for ever");
    shell.feed(Event::Field(1000, FieldOrder::Unpin));
    assert_eq!(shell.disk.held, None);
}

#[test]
fn a_worker_that_dies_in_probation_brings_the_previous_release_back() {
    let mut shell = Shell::installed(&[1]);
    shell.run(2, 2);
    shell.settle();
    shell.kill(2, WorkerDeath::Signal(9));
    assert_eq!((shell.active(), shell.pointer), (Some(1), Some(statement(1))));
    assert_eq!(shell.last_reason(), Some(Reason::WorkerDied(WorkerDeath::Signal(9))));
    // The condemned release does not come back by itself, nor by an engineer who does not say that he wants it.
    shell.feed(Event::Field(0, FieldOrder::Rollback { to: None }));
    assert_eq!(shell.replies.pop(), Some(Err(FieldRefusal::Condemned(release_id(2)))));
    assert_eq!((shell.active(), shell.disk.pinned_by), (Some(1), None));
    shell.feed(Event::Field(0, FieldOrder::Rollback { to: Some("2".parse().expect("version")) }));
    shell.settle();
    assert_eq!(shell.active(), Some(2));
}

#[test]
fn an_engineer_goes_back_and_forth_between_releases_that_nobody_condemned() {
    let mut shell = Shell::installed(&[1, 2]);
    for expected in [1, 2, 1] {
        shell.feed(Event::Field(1000, FieldOrder::Rollback { to: None }));
        shell.settle();
        assert_eq!(shell.active(), Some(expected));
    }
    // What he left in its probation never passed it.
    let mut shell = Shell::installed(&[1]);
    shell.run(2, 2);
    shell.settle();
    shell.feed(Event::Field(1000, FieldOrder::Rollback { to: None }));
    shell.feed(Event::Field(1000, FieldOrder::Rollback { to: None }));
    assert_eq!(shell.replies.pop(), Some(Err(FieldRefusal::Condemned(release_id(2)))));
}

#[test]
fn errors_above_the_limit_in_probation_roll_back_and_few_requests_say_nothing() {
    let mut shell = Shell::installed(&[1]);
    shell.run(2, 2);
    shell.settle();
    shell.feed(Event::Health { requests: 9, errors: 9 });
    shell.feed(Event::Health { requests: 100, errors: 5 });
    assert_eq!(shell.active(), Some(2));
    shell.feed(Event::Health { requests: 100, errors: 6 });
    assert_eq!(shell.active(), Some(1));
    assert_eq!(shell.last_reason(), Some(Reason::ErrorRate { errors: 6, requests: 100 }));
}

#[test]
fn what_fails_before_it_answers_is_rejected_and_the_old_release_goes_on() {
    type Break = fn(&mut Shell, Digest);
    let breaks: [Break; 4] = [
        |shell, s| shell.feed(Event::Statement { statement: s, outcome: Err(bad()) }),
        |shell, s| shell.feed(Event::Fetched(s, Err(bad()))),
        |shell, s| shell.feed(Event::Staged(s, Err(bad()))),
        |shell, s| shell.feed(Event::Warmed(s, Err(bad()))),
    ];
    for (steps, fail) in breaks.iter().enumerate() {
        let mut shell = Shell::installed(&[1]);
        shell.run(2, 2);
        shell.pending.retain(|effect| !matches!(effect, Effect::Announce));
        for _ in 0..steps {
            let first = shell.pending.remove(0);
            let rest = std::mem::replace(&mut shell.pending, vec![first]);
            // Only this one effect is answered.
            step_once(&mut shell);
            shell.pending.extend(rest);
            shell.pending.retain(|effect| !matches!(effect, Effect::Announce));
        }
        fail(&mut shell, statement(2));
        assert_eq!((shell.active(), shell.pointer), (Some(1), Some(statement(1))), "step {steps}");
        assert_eq!(shell.moves().last().map(|step| step.1), Some(Phase::Rejected), "step {steps}");
        assert_eq!(shell.last_reason(), Some(bad()));
        assert_eq!(shell.disk.attempt, None);
    }
}

fn bad() -> Reason {
    Reason::BadBundle(Detail::new("broken"))
}

fn step_once(shell: &mut Shell) {
    match shell.pending.remove(0) {
        Effect::FetchStatement(target) => {
            let outcome = Ok((release(2, ByteCount::from_mib(10)), means()));
            shell.feed(Event::Statement { statement: target.statement, outcome });
        }
        Effect::Fetch(statement, _) => shell.feed(Event::Fetched(statement, Ok(()))),
        Effect::Stage(statement, _) => shell.feed(Event::Staged(statement, Ok(()))),
        other => panic!("unexpected {other:?}"),
    }
}

#[test]
fn a_release_that_does_not_fit_is_refused_before_anything_is_fetched() {
    let mut shell = Shell::installed(&[1]);
    shell.run(2, 2);
    let outcome = Ok((release(2, ByteCount::from_mib(200)), means()));
    shell.feed(Event::Statement { statement: statement(2), outcome });
    assert!(matches!(shell.last_reason(), Some(Reason::OverMemoryBudget { .. })));
    assert!(!shell.pending.iter().any(|effect| matches!(effect, Effect::Fetch(..))));
}

#[test]
fn replays_and_foreign_assignments_are_refused_by_name() {
    let mut shell = Shell::installed(&[1, 2]);
    shell.run(1, 1);
    let refused = |shell: &Shell, what: &str| {
        let last = shell.reports.last().expect("reported");
        assert!(format!("{last:?}").contains(what), "{last:?}");
    };
    refused(&shell, "replay");
    let foreign = Assignment {
        device: "other".parse().expect("name"),
        fleet: identity().fleet,
        sequence: SequenceNumber(99),
        rollout: None,
        issued: shell.now.wall,
        expires: shell.now.wall,
        order: Order::Stay,
    };
    shell.feed(Event::Assigned(foreign.clone()));
    refused(&shell, "another device");
    shell.feed(Event::Assigned(Assignment {
        device: identity().device,
        fleet: "other".parse().expect("name"),
        ..foreign
    }));
    refused(&shell, "another fleet");
    assert_eq!(shell.disk.accepted, SequenceNumber(2));
}

fn late(shell: &Shell, sequence: u64, order: Order) -> Event {
    Event::Assigned(Assignment {
        device: identity().device,
        fleet: identity().fleet,
        sequence: SequenceNumber(sequence),
        rollout: None,
        issued: shell.now.wall,
        expires: shell.now.wall,
        order,
    })
}

#[test]
fn no_order_is_obeyed_once_it_has_expired() {
    let mut shell = Shell::installed(&[1, 2]);
    let back = Order::RollBack { from: release_id(2), to: reference(1) };
    shell.feed(late(&shell, 3, back.clone()));
    assert_eq!((shell.active(), shell.last_reason()), (Some(2), Some(Reason::Expired)));
    assert_eq!(shell.disk.accepted, SequenceNumber(3), "and it is not reported again");
    shell.run(4, 3);
    let under_way = shell.disk.attempt.clone();
    shell.feed(late(&shell, 5, Order::Stay));
    assert!(matches!(shell.reports.last(), Some(EventKind::Refused { .. })));
    shell.feed(late(&shell, 6, Order::Run { release: reference(1), probation: Probation::default() }));
    assert_eq!(shell.disk.attempt, under_way);
    // On probation, back to the release before.
    shell.settle();
    assert_eq!(shell.machine.phase(), Phase::Probation);
    shell.feed(late(&shell, 7, Order::Run { release: reference(2), probation: Probation::default() }));
    assert_eq!((shell.active(), shell.last_reason()), (Some(3), Some(Reason::Expired)));
    shell.order(8, Order::RollBack { from: release_id(3), to: reference(2) });
    assert_eq!(shell.active(), Some(2), "in time it is obeyed");
}

#[test]
fn the_fleet_cannot_bring_back_what_its_owner_put_below_the_floor() {
    let mut shell = Shell::installed(&[1, 2]);
    let order = Order::RollBack { from: release_id(2), to: reference(1) };
    let Event::Assigned(mut assignment) = late(&shell, 3, order) else { panic!("an assignment") };
    assignment.expires = shell.now.wall.plus(Millis::from_secs(100));
    let why = Detail::new("below the floor 2");
    shell.feed(Event::AssignedBelowFloor(Box::new(assignment), why.clone()));
    assert_eq!((shell.active(), shell.last_reason()), (Some(2), Some(Reason::Untrusted(why))));
    assert_eq!(shell.moves().last(), Some(&(Phase::Idle, Phase::Rejected)));
    // Whoever is on site may, and so may the device by itself.
    shell.feed(Event::Field(1000, FieldOrder::Rollback { to: None }));
    assert_eq!(shell.active(), Some(1));
}

#[test]
fn a_stolen_fleet_key_can_use_up_no_numbers() {
    let mut shell = Shell::installed(&[1]);
    shell.order(u64::MAX, Order::Stay);
    assert!(format!("{:?}", shell.reports.last()).contains("too far above"));
    assert_eq!(shell.disk.accepted, SequenceNumber(1));
    shell.order(1 + MAX_SEQUENCE_STEP, Order::Stay);
    assert_eq!(shell.disk.accepted, SequenceNumber(1 + MAX_SEQUENCE_STEP));
}

#[test]
fn a_root_that_takes_back_the_servers_keys_takes_back_the_time_they_told() {
    let mut shell = Shell::installed(&[1]);
    let told = shell.disk.clock_floor;
    assert!(told > UnixMillis(0));
    let version = serin_protocol::trust::MetadataVersion::FIRST;
    let floor = RootFloor { configured: statement(9), version };
    shell.feed(Event::RootTrusted { floor, recovered: false });
    assert_eq!((shell.disk.root_floor, shell.disk.clock_floor), (Some(floor), told));
    shell.feed(Event::RootTrusted { floor, recovered: true });
    assert_eq!(shell.disk.clock_floor, UnixMillis(0));
    assert!(
        !shell
            .machine
            .handle(shell.now, Event::RootTrusted { floor, recovered: false })
            .iter()
            .any(|effect| matches!(effect, Effect::Persist(_))),
        "known already"
    );
}

#[test]
fn an_unfinished_update_goes_on_after_a_restart_and_expires_in_the_end() {
    let mut shell = Shell::installed(&[1]);
    shell.run(2, 2);
    shell.restart();
    assert!(shell.pending.contains(&Effect::FetchStatement(reference(2))));
    shell.settle();
    assert_eq!(shell.active(), Some(2));
    shell.restart();
    assert_eq!(shell.machine.phase(), Phase::Probation);
    shell.settle();
    shell.wait(60);
    assert_eq!(shell.disk.active.as_ref().map(|slot| slot.standing), Some(Standing::Proven));

    shell.run(3, 3);
    shell.wait(101);
    assert_eq!(shell.last_reason(), Some(Reason::Expired));
    assert_eq!(shell.active(), Some(2));
}

#[test]
fn a_newer_order_replaces_an_unfinished_one_and_cancel_always_wins() {
    let mut shell = Shell::installed(&[1]);
    shell.run(2, 2);
    shell.run(3, 3);
    assert_eq!(shell.last_reason(), Some(Reason::Superseded));
    shell.order(4, Order::Stay);
    assert_eq!(shell.last_reason(), Some(Reason::Cancelled));
    assert_eq!(shell.disk.attempt, None);
    // A late answer to the cancelled work changes nothing.
    shell.settle();
    assert_eq!(shell.active(), Some(1));
}

#[test]
fn the_fleet_takes_a_release_back_in_any_phase() {
    let back = |shell: &mut Shell| shell.order(9, Order::RollBack { from: release_id(2), to: reference(1) });
    let mut fetching = Shell::installed(&[1]);
    fetching.run(2, 2);
    back(&mut fetching);
    fetching.settle();
    assert_eq!(fetching.active(), Some(1));

    let mut committed = Shell::installed(&[1, 2]);
    back(&mut committed);
    assert_eq!((committed.active(), committed.pointer), (Some(1), Some(statement(1))));
    assert_eq!(committed.last_reason(), Some(Reason::FleetRollback));

    // The previous slot holds something else: it is fetched like any release.
    let mut moved_on = Shell::installed(&[1, 3, 2]);
    back(&mut moved_on);
    moved_on.settle();
    assert_eq!(moved_on.active(), Some(1));

    let mut elsewhere = Shell::installed(&[3]);
    back(&mut elsewhere);
    elsewhere.settle();
    assert_eq!(elsewhere.active(), Some(3));
}

#[test]
fn a_committed_release_is_restarted_after_one_death_and_left_after_three() {
    let mut shell = Shell::installed(&[1, 2]);
    for _ in 0..2 {
        shell.kill(2, WorkerDeath::Exit(1));
        shell.settle();
        assert_eq!((shell.active(), shell.pointer), (Some(2), Some(statement(2))));
    }
    shell.kill(2, WorkerDeath::Exit(1));
    assert_eq!((shell.active(), shell.pointer), (Some(1), Some(statement(1))));
}

#[test]
fn a_full_disk_changes_nothing_and_the_update_goes_on_when_it_can() {
    let mut shell = Shell::installed(&[1]);
    shell.disk_fails = true;
    shell.run(2, 2);
    assert_eq!(shell.machine.record(), &shell.disk);
    shell.feed(Event::Field(0, FieldOrder::Pin));
    assert!(matches!(shell.replies.last(), Some(Err(FieldRefusal::Storage(_)))));
    shell.disk_fails = false;
    shell.run(2, 2);
    shell.settle();
    assert_eq!(shell.active(), Some(2));

    let mut shell = Shell::installed(&[1]);
    shell.run(2, 2);
    shell.disk_fails = true;
    shell.settle();
    assert_eq!(shell.pointer, Some(statement(1)));
    shell.disk_fails = false;
    shell.wait(10);
    shell.settle();
    assert_eq!((shell.active(), shell.pointer), (Some(2), Some(statement(2))));
}

#[test]
fn a_first_release_that_fails_leaves_an_empty_device_that_can_try_again() {
    let mut shell = Shell::new();
    shell.run(1, 1);
    shell.settle();
    shell.kill(1, WorkerDeath::MemoryLimit);
    assert_eq!((shell.active(), shell.pointer), (None, None));
    shell.run(2, 2);
    shell.settle();
    assert_eq!(shell.pointer, Some(statement(2)));
}

#[derive(Clone, Debug)]
enum Act {
    Run(u8),
    Try(u8, bool),
    Back(u8, u8),
    Stay,
    Settle,
    Wait(u8),
    Die(u8),
    Health(u32, u32),
    /// Whether what it leads to is named.
    Rollback(bool),
    Sideload(u8),
    Pin,
    Unpin,
    Restart,
    BreakDisk(bool),
    FailWarm(u8),
    /// Whether fetching and installing must wait.
    Policy(bool, bool),
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1..5_u8).prop_map(Act::Run),
        3 => (1..5_u8, any::<bool>()).prop_map(|(version, arm)| Act::Try(version, arm)),
        2 => (1..5_u8, 1..5_u8).prop_map(|(from, to)| Act::Back(from, to)),
        1 => Just(Act::Stay),
        6 => Just(Act::Settle),
        3 => (1..120_u8).prop_map(Act::Wait),
        2 => (1..5_u8).prop_map(Act::Die),
        1 => (0..50_u32, 0..50_u32).prop_map(|(requests, errors)| Act::Health(requests, errors)),
        1 => any::<bool>().prop_map(Act::Rollback),
        2 => (1..5_u8).prop_map(Act::Sideload),
        1 => Just(Act::Pin),
        2 => Just(Act::Unpin),
        1 => Just(Act::Restart),
        1 => any::<bool>().prop_map(Act::BreakDisk),
        1 => (1..5_u8).prop_map(Act::FailWarm),
        3 => (any::<bool>(), any::<bool>()).prop_map(|(fetch, install)| Act::Policy(fetch, install)),
    ]
}

fn verdict(waits: bool) -> Verdict {
    let until = None;
    if waits { Verdict::Wait { why: Wait::NotOnMains, until } } else { Verdict::Go }
}

impl Shell {
    fn act(&mut self, sequence: u64, act: &Act) {
        match *act {
            Act::Run(version) => self.run(sequence, version),
            Act::Try(version, arm) => {
                let share = BasisPoints(1000);
                let mode = if arm { TrialMode::Arm { share, salt: 1 } } else { TrialMode::Shadow { share } };
                self.try_beside(sequence, version, mode);
            }
            Act::Back(from, to) => {
                self.order(sequence, Order::RollBack { from: release_id(from), to: reference(to) });
            }
            Act::Stay => self.order(sequence, Order::Stay),
            Act::Settle => self.settle(),
            Act::Wait(seconds) => self.wait(u64::from(seconds)),
            Act::Die(version) => {
                self.kill(version, WorkerDeath::Exit(1));
            }
            Act::Health(requests, errors) => self.feed(Event::Health { requests, errors }),
            Act::Sideload(version) => self.sideload(version),
            Act::Policy(fetch, install) => {
                self.feed(Event::Policy(Verdicts { fetch: verdict(fetch), install: verdict(install) }));
            }
            Act::Rollback(named) => {
                let previous = self.disk.previous.as_ref().filter(|_| named);
                let to = previous.map(|previous| previous.release.version.clone());
                self.feed(Event::Field(0, FieldOrder::Rollback { to }));
            }
            Act::Pin => self.feed(Event::Field(0, FieldOrder::Pin)),
            Act::Unpin => self.feed(Event::Field(0, FieldOrder::Unpin)),
            Act::Restart => self.restart(),
            Act::BreakDisk(fails) => self.disk_fails = fails,
            Act::FailWarm(version) => {
                let warming = |effect: &Effect| matches!(effect, Effect::Warm { slot, .. } if slot.statement == statement(version));
                if let Some(at) = self.pending.iter().position(warming) {
                    self.pending.remove(at);
                    self.feed(Event::Warmed(statement(version), Err(bad())));
                }
            }
        }
    }
}

proptest! {
    // The shell's own assertions are the invariants at every step; here is what must hold at the end.
    #[test]
    fn whatever_happens_a_device_with_a_healthy_release_answers_in_the_end(
        acts in prop::collection::vec(any_act(), 1..60)
    ) {
        let mut shell = Shell::installed(&[1]);
        for (step, act) in acts.into_iter().enumerate() {
            let sequence = step as u64 + 10;
            let pinned = shell.disk.kept_on_site();
            let before = shell.active();
            let by_fleet = matches!(act, Act::Run(_) | Act::Try(..) | Act::Back(..) | Act::Stay);
            shell.act(sequence, &act);
            if pinned && by_fleet {
                prop_assert_eq!(shell.active(), before, "the fleet moved a pinned device");
            }
            if let Some(active) = shell.machine.serving() {
                prop_assert!(shell.ready.contains(&active));
            }
            if let Some((tried, _)) = shell.beside {
                prop_assert!(shell.ready.contains(&tried) && shell.pointer.is_some());
            }
        }
        // When everything heals, an active release answers and no update is left hanging.
        shell.disk_fails = false;
        shell.feed(Event::Policy(Verdicts::default()));
        for _ in 0..12 {
            shell.settle();
            shell.wait(60);
        }
        shell.settle();
        prop_assert_eq!(shell.disk.attempt.clone(), None);
        prop_assert_eq!(shell.pointer, shell.disk.active.as_ref().map(|slot| slot.statement));
    }
}

#[path = "machine_sideload_tests.rs"]
mod sideload;

#[path = "machine_stuck_tests.rs"]
mod stuck;
