//! No count is lost or doubled, whatever comes in whatever order, and wherever the server is stopped.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::store::suite::report;

/// Of a report or two, so that files are given back all the time.
const SMALL: u32 = 600;

const HOUR: u64 = 3_600_000;

struct Rig {
    folder: tempfile::TempDir,
    db: Option<Db>,
    reports: Option<Reports>,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self { folder: tempfile::tempdir().expect("a folder"), db: None, reports: None };
        rig.reopen();
        rig
    }

    fn reopen(&mut self) {
        self.reports = None;
        self.db = None;
        let db = sled::open(self.folder.path().join("db")).expect("opens");
        let log = self.folder.path().join("reports");
        self.reports = Some(Reports::of_files(&db, &log, SMALL).expect("opens"));
        self.db = Some(db);
    }

    fn reports(&self) -> &Reports {
        self.reports.as_ref().expect("open")
    }

    fn add(&self, report: &Report) -> bool {
        self.reports().add(report, &wire("report", report).expect("writes"), &[]).expect("adds")
    }

    /// Requests in reports, and in sums.
    fn requests(&self, release: &ReleaseId) -> (u64, u64) {
        let mut requests = 0;
        let add = &mut |report: &Report| requests += report.requests;
        self.reports().visit(release, UnixMillis(0), add).expect("reads");
        (requests, self.reports().sums(release).expect("reads").iter().map(|sum| sum.requests).sum())
    }
}

fn one(device: u8, start: u64, sequence: u64) -> Report {
    Report { requests: 1, ..report("m@1", &format!("d{device}"), start, sequence) }
}

fn release() -> ReleaseId {
    "m@1".parse().expect("id")
}

#[derive(Clone, Debug)]
enum Step {
    /// The number two after the device's last one, the next, the last one again, or the one before.
    Add {
        device: u8,
        start: u64,
        back: u64,
    },
    Commit,
    Fold {
        before: u64,
    },
    Reopen,
}

/// Few devices, so that older reports of each are merged several times while those that came last stay where they are.
fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => (0_u8..3, 0..5 * HOUR, 0_u64..4)
            .prop_map(|(device, start, back)| Step::Add { device, start, back }),
        8 => Just(Step::Commit),
        2 => (0..5 * HOUR).prop_map(|before| Step::Fold { before }),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn no_count_is_lost_or_doubled(steps in prop::collection::vec(step(), 1..600)) {
        let mut rig = Rig::new();
        let (mut came, mut last) = (BTreeSet::new(), [1_u64; 3]);
        for step in steps {
            match step {
                Step::Add { device, start, back } => {
                    let last = &mut last[usize::from(device)];
                    let sequence = (*last + 2).saturating_sub(back).max(1);
                    *last = sequence.max(*last);
                    prop_assert_eq!(rig.add(&one(device, start, sequence)), came.insert((device, sequence)));
                }
                Step::Commit => rig.reports().commit().expect("commits"),
                Step::Fold { before } => {
                    rig.reports().fold(&release(), UnixMillis(before), UnixMillis(before)).expect("folds");
                }
                Step::Reopen => {
                    rig.reports().commit().expect("commits");
                    rig.reopen();
                }
            }
            let (in_reports, in_sums) = rig.requests(&release());
            prop_assert_eq!(in_reports + in_sums, came.len() as u64);
        }
    }
}

#[test]
fn a_folding_that_was_cut_off_is_finished_and_counts_once() {
    let mut rig = Rig::new();
    for sequence in 1..=10 {
        assert!(rig.add(&one(1, sequence * 10, sequence)));
        assert!(rig.add(&one(2, HOUR + sequence * 10, sequence)));
    }
    // Sums and note are there, the log is as it was.
    let reports = rig.reports();
    reports.commit().expect("commits");
    let folding = Folding {
        release: release(),
        devices: vec!["d1".parse().expect("name"), "d2".parse().expect("name")],
        before: UnixMillis(HOUR),
    };
    let mut note = Batch::default();
    note.insert(NOTE, wire("folding", &folding).expect("writes"));
    let sums = sums::by_hour((1..=10).map(|sequence| one(1, sequence * 10, sequence)).collect());
    let adding = sum_tree::adding(&reports.sums, sums).expect("adds");
    together(&reports.sums, &adding, &reports.folding, &note).expect("changes");
    assert_eq!(rig.requests(&release()), (20, 10));
    rig.reopen();
    assert_eq!(rig.requests(&release()), (10, 10));
    assert!(!rig.add(&one(1, 10, 1)), "folded, not forgotten");
    // One of that hour that comes later is not taken for one that was folded.
    assert!(rig.add(&one(1, 500, 11)));
    rig.reports().commit().expect("commits");
    rig.reopen();
    assert_eq!(rig.requests(&release()), (11, 10));
}

#[test]
fn what_a_power_cut_took_may_come_again() {
    let mut rig = Rig::new();
    assert!(rig.add(&one(1, 10, 1)));
    rig.reports().commit().expect("commits");
    assert!(rig.add(&one(1, 20, 2)));
    // Nothing of the second has reached the disk.
    rig.reopen();
    assert_eq!(rig.requests(&release()), (1, 0));
    assert!(!rig.add(&one(1, 10, 1)));
    assert!(rig.add(&one(1, 20, 2)));
}

#[test]
fn files_are_given_back_and_what_was_in_them_stays_known() {
    let mut rig = Rig::new();
    let files = |rig: &Rig| std::fs::read_dir(rig.folder.path().join("reports")).expect("reads").count();
    for sequence in 1..=400 {
        assert!(rig.add(&one(1, sequence * 1000, sequence)));
        rig.reports().commit().expect("commits");
        assert!(files(&rig) < 60, "{}", files(&rig));
    }
    rig.reports().fold(&release(), UnixMillis(HOUR), UnixMillis(HOUR)).expect("folds");
    rig.reports().commit().expect("commits");
    assert!(files(&rig) < 10, "{}", files(&rig));
    assert_eq!(rig.requests(&release()), (0, 400));
    rig.reopen();
    assert_eq!(rig.requests(&release()), (0, 400));
    assert!(!rig.add(&one(1, 400_000, 400)));
}
