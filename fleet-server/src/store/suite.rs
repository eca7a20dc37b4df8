//! What every store must do. `open` opens the same store again and again, as after restarts.

use super::*;
use serin_protocol::chunk::ObjectRef;
use serin_protocol::ids::ByteCount;
use serin_protocol::message::{Coverage, EventKind, Presence, Role, Turn};
use serin_protocol::sketch::{Histogram, LatencyHistogram};

use crate::rollout::cohort::Salt;
use crate::rollout::plan::Plan;

pub(crate) fn check(open: &dyn Fn() -> Box<dyn Store>) {
    let store = open();
    devices_are_kept_by_name(&*store);
    events_are_kept_in_order_and_bounded(&*store);
    reports_are_kept_once_and_by_window(&*store);
    old_reports_are_merged_but_not_over_a_fence(&*store);
    releases_are_kept_with_their_parts(&*store);
    rollouts_and_assignments_change_together(&*store);
    tokens_are_kept_until_forgotten(&*store);
    revoked_keys_are_kept_for_good(&*store);
    documents_change_together_and_come_in_order(&*store);
    store.commit().expect("commits");
    drop(store);

    let store = open();
    assert_eq!(store.devices().expect("read").len(), 2);
    assert_eq!(store.events(&id("a")).expect("read").len(), EVENTS_PER_DEVICE);
    assert_eq!(store.rollouts().expect("read").len(), 1);
    assert_eq!(store.verdicts(RolloutId(1)).expect("read").len(), VERDICTS_PER_ROLLOUT);
    assert!(!add(&*store, &report("m@1", "a", 10, 1), &[]).expect("again"), "known after a restart");
    assert_eq!(store.assignments().expect("read").len(), 1);
    assert_eq!(store.tokens().expect("read").len(), 1);
    assert_eq!(store.revoked_keys().expect("read").len(), 1);
}

fn documents_change_together_and_come_in_order(store: &dyn Store) {
    let name = documents::numbered;
    let put = |number: u64| DocumentChange::put(Shelf::Notes, name(number), &number).expect("writes");
    let other = DocumentChange::put(Shelf::Alerts, name(2), &"other").expect("writes");
    store.put_documents(&[put(10), put(9), other]).expect("put");
    store.put_documents(&[put(2), DocumentChange::remove(Shelf::Notes, name(9))]).expect("put");
    let found = store.documents(Shelf::Notes).expect("read");
    assert_eq!(found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), [name(2), name(10)]);
    let one = store.document(Shelf::Alerts, &name(2)).expect("read").expect("there");
    assert_eq!(documents::read::<String>("2", &one).expect("JSON"), "other");
    assert_eq!(store.document(Shelf::Notes, &name(9)).expect("read"), None);
}

fn revoked_keys_are_kept_for_good(store: &dyn Store) {
    let revoked = RevokedKey { key: device("a").key, device: id("gone"), at: UnixMillis(1) };
    for _ in 0..2 {
        store.add_revoked_key(&revoked).expect("add");
    }
    assert_eq!(store.revoked_keys().expect("read"), [revoked]);
}

fn tokens_are_kept_until_forgotten(store: &dyn Store) {
    let record = |id: u64| TokenRecord {
        id: TokenId(id),
        token: "serin-".into(),
        device: None,
        made: UnixMillis(1),
        expires: UnixMillis(2),
        used_by: None,
    };
    for id in [1, 2, 2] {
        store.put_token(&record(id)).expect("put");
    }
    store.forget_token(TokenId(1)).expect("forgets");
    assert_eq!(store.tokens().expect("read"), [record(2)]);
}

fn id(name: &str) -> DeviceId {
    name.parse().expect("name")
}

pub(crate) fn device(name: &str) -> DeviceRecord {
    let key: PublicKey =
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a".parse().expect("key");
    DeviceRecord {
        hello: Hello {
            device: id(name),
            fleet: "f".parse().expect("name"),
            key,
            boot: BootId(1),
            turn: Turn { connection: 3, number: 2 },
            presence: Presence::Online,
            agent: "1".parse().expect("fits"),
            target: "t".parse().expect("name"),
            memory_budget: ByteCount(1),
            free_space: ByteCount(1),
            sequence: SequenceNumber(0),
            active: None,
            previous: None,
            candidate: None,
            pinned: false,
            decoders: serin_protocol::release::Decoders::new(),
        },
        key,
        first_seen: UnixMillis(1),
        last_seen: UnixMillis(1),
        last_event: EventNumber(0),
        last_move: None,
        revoked: None,
        safe_mode: false,
        presumed_gone: false,
        paused_until: None,
        past_boots: Vec::new(),
        tags: crate::rollout::plan::selector::Tags::new(),
    }
}

fn devices_are_kept_by_name(store: &dyn Store) {
    store.put_device(&device("a")).expect("put");
    store.put_device(&device("ab")).expect("put");
    let mut changed = device("a");
    changed.last_seen = UnixMillis(9);
    store.put_device(&changed).expect("put");
    assert_eq!(store.device(&id("a")).expect("read"), Some(changed));
    assert_eq!(store.device(&id("b")).expect("read"), None);
    assert_eq!(store.devices().expect("read").len(), 2);

    let event = Event {
        device: id("gone"),
        number: EventNumber(1),
        at: UnixMillis(1),
        sequence: SequenceNumber(1),
        rollout: None,
        kind: EventKind::Unpinned { uid: 0 },
    };
    store.put_device(&device("gone")).expect("put");
    store.add_event(&event).expect("add");
    store.forget_device(&id("gone")).expect("forget");
    assert_eq!(store.device(&id("gone")).expect("read"), None);
    assert!(store.events(&id("gone")).expect("read").is_empty());
}

fn events_are_kept_in_order_and_bounded(store: &dyn Store) {
    let event = |device: &str, number: u64| Event {
        device: id(device),
        number: EventNumber(number),
        at: UnixMillis(number),
        sequence: SequenceNumber(1),
        rollout: None,
        kind: EventKind::Unpinned { uid: 0 },
    };
    for number in 1..=EVENTS_PER_DEVICE as u64 + 5 {
        store.add_event(&event("a", number)).expect("add");
    }
    store.add_event(&event("a", 100)).expect("again");
    store.add_event(&event("ab", 1)).expect("another's");
    let numbers: Vec<u64> =
        store.events(&id("a")).expect("read").iter().map(|event| event.number.0).collect();
    let expected: Vec<u64> = (6..=EVENTS_PER_DEVICE as u64 + 5).collect();
    assert_eq!(numbers, expected);
}

pub(super) fn report(release: &str, device: &str, start: u64, sequence: u64) -> Report {
    Report {
        device: id(device),
        boot: BootId(1),
        sequence,
        start: UnixMillis(start),
        end: UnixMillis(start + 10),
        coverage: Coverage::Complete,
        release: release.parse().expect("id"),
        profile: Digest([0; 32]),
        segment: serin_protocol::ids::SegmentNumber(0),
        requests: start,
        errors: 0,
        refused: 0,
        latency: LatencyHistogram::default(),
        first_feature: 0,
        features: heapless::Vec::new(),
        predictions: Histogram::default(),
        confidence: Histogram::default(),
        entropy: serin_protocol::sketch::Histogram::default(),
        quality: None,
        worker_peak: ByteCount(0),
        worker_deaths: 0,
        role: Role::Answers,
        comparison: None,
        dropped_reports: 0,
    }
}

fn add(store: &dyn Store, report: &Report, fences: &[UnixMillis]) -> Result<bool, StoreError> {
    store.add_report(report, &values::wire("report", report)?, fences)
}

fn reports(store: &dyn Store, release: &ReleaseId, since: u64) -> Vec<Report> {
    let mut reports = Vec::new();
    let collect = &mut |report: &Report| reports.push(report.clone());
    store.visit_reports(release, UnixMillis(since), collect).expect("read");
    reports
}

fn reports_are_kept_once_and_by_window(store: &dyn Store) {
    assert!(add(store, &report("m@1", "a", 10, 1), &[]).expect("add"));
    assert!(!add(store, &report("m@1", "a", 10, 1), &[]).expect("again"));
    assert!(add(store, &report("m@1", "b", 20, 1), &[]).expect("add"));
    assert!(add(store, &report("m@10", "a", 20, 2), &[]).expect("add"));
    let release: ReleaseId = "m@1".parse().expect("id");
    let starts = |since: u64| {
        let reports = reports(store, &release, since);
        reports.iter().map(|report| report.start.0).collect::<Vec<_>>()
    };
    assert_eq!(starts(0), [10, 20]);
    assert_eq!(starts(11), [20]);
    let hour = 3_600_000;
    assert!(add(store, &report("m@1", "b", hour + 10, 2), &[]).expect("add"));
    store.fold_reports(&release, UnixMillis(hour - 1), UnixMillis(hour)).expect("folds");
    assert_eq!(starts(0), [10, 20, hour + 10], "an hour is folded whole");
    store.fold_reports(&release, UnixMillis(hour + 5), UnixMillis(hour + 5)).expect("folds");
    assert_eq!(starts(0), [hour + 10]);
    let sums = store.sums(&release).expect("read");
    let counts: Vec<_> = sums.iter().map(|sum| (sum.requests, sum.devices, sum.reports)).collect();
    assert_eq!(counts, [(30, 2, 2)]);
    store.bound_sums().expect("bounds");
    assert!(!add(store, &report("m@1", "a", 10, 1), &[]).expect("again"), "folded, not forgotten");
}

fn old_reports_are_merged_but_not_over_a_fence(store: &dyn Store) {
    let release: ReleaseId = "wide@1".parse().expect("id");
    let fence = UnixMillis(1000);
    let many = history::MAX_REPORTS as u64 * 3;
    for sequence in 1..=many {
        let mut report = report("wide@1", "c", sequence * 10, sequence);
        report.requests = 1;
        assert!(add(store, &report, &[fence]).expect("add"));
    }
    let all = reports(store, &release, 0);
    assert!(all.len() <= history::MAX_REPORTS + 1, "{}", all.len());
    assert_eq!(all.iter().map(|report| report.requests).sum::<u64>(), many);
    let after = reports(store, &release, fence.0);
    assert_eq!(after.iter().map(|report| report.requests).sum::<u64>(), many - 99);
    assert!(!add(store, &report("wide@1", "c", many * 10, many), &[]).expect("again"));
}

fn releases_are_kept_with_their_parts(store: &dyn Store) {
    let object = ObjectRef { digest: Digest([1; 32]), size: ByteCount(1) };
    let record = ReleaseRecord {
        release: Release {
            id: "m@1".parse().expect("id"),
            bundle: object,
            chunk_list: object,
            unpacked: ByteCount(1),
            memory: ByteCount(1),
            runtime: "r".parse().expect("fits"),
            targets: heapless::Vec::new(),
            profile: Digest([2; 32]),
            decoders: serin_protocol::release::Decoders::new(),
        },
        statement: Digest([3; 32]),
        added: UnixMillis(1),
        published: false,
        owner: "team".into(),
        description: String::new(),
        features: vec!["x".into()],
        lineage: None,
        answers: None,
        review: None,
    };
    store.put_release(&record, b"statement", b"profile").expect("put");
    store.set_published(&record.release.id).expect("set");
    let read = store.release(&record.release.id).expect("read").expect("there");
    assert!(read.published);
    assert_eq!(store.statement(&Digest([3; 32])).expect("read").as_deref(), Some(&b"statement"[..]));
    assert_eq!(store.profile(&Digest([2; 32])).expect("read").as_deref(), Some(&b"profile"[..]));
    assert_eq!(store.releases().expect("read").len(), 1);
}

fn rollouts_and_assignments_change_together(store: &dyn Store) {
    let rollout = store.next_rollout().expect("next");
    let start = Start {
        id: rollout,
        plan: Plan::default(),
        release: serin_protocol::assignment::ReleaseRef {
            id: "m@1".parse().expect("id"),
            statement: Digest([3; 32]),
        },
        baselines: Vec::new(),
        salt: Salt(7),
        at: UnixMillis(1),
        devices: Vec::new(),
    };
    let assigned = |sequence: u64| Assigned {
        device: id("a"),
        sequence: SequenceNumber(sequence),
        sealed: vec![sequence as u8],
    };
    store.add_rollout(&start, &[assigned(1)]).expect("add");
    for at in 2..=3 {
        store.add_rollout_event(rollout, UnixMillis(at), &RolloutEvent::Tick, &[assigned(at)]).expect("add");
    }
    assert_eq!(store.next_rollout().expect("next"), RolloutId(rollout.0 + 1));
    let stored = store.rollouts().expect("read").remove(0);
    assert_eq!(stored.start, start);
    let times: Vec<u64> = stored.events.iter().map(|(at, _)| at.0).collect();
    assert_eq!(times, [2, 3]);
    assert_eq!(store.assignments().expect("read"), [assigned(3)]);

    let anew = Assigned { sealed: vec![9], ..assigned(3) };
    store.put_assignments(std::slice::from_ref(&anew)).expect("put");
    assert_eq!(store.assignments().expect("read"), std::slice::from_ref(&anew));
    assert_eq!(store.assignment(&anew.device).expect("read"), Some(anew));
    assert_eq!(store.assignment(&id("nobody")).expect("read"), None);

    store.fold_rollout(rollout, b"state").expect("fold");
    store.add_rollout_event(rollout, UnixMillis(4), &RolloutEvent::Tick, &[]).expect("add");
    let stored = store.rollouts().expect("read").remove(0);
    assert_eq!(stored.snapshot.as_deref(), Some(&b"state"[..]));
    assert_eq!(stored.events, [(UnixMillis(4), RolloutEvent::Tick)]);

    let verdict = |at: u64| Verdict {
        at: UnixMillis(at),
        stage: 0,
        decision: crate::rollout::verdict::Decision::Hold,
        sentence: String::new(),
        judgement: None,
    };
    for at in 0..VERDICTS_PER_ROLLOUT as u64 + 3 {
        store.add_verdict(rollout, &verdict(at)).expect("add");
    }
    let verdicts = store.verdicts(rollout).expect("read");
    assert_eq!((verdicts.len(), verdicts[0].at), (VERDICTS_PER_ROLLOUT, UnixMillis(3)));
}
