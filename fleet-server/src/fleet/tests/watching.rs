//! Alerts, samples and old reports through the fleet's door, over restarts.

use serin_protocol::frame::Prediction;
use serin_protocol::ids::{BasisPoints, SegmentNumber};
use serin_protocol::message::{Coverage, Report, Role};
use serin_protocol::review::{ReviewPolicy, Sample, SampleReason};
use serin_protocol::sketch::{ClassQuality, Histogram, LatencyHistogram, Quality};
use serin_protocol::tensor::{DataType, TensorHeader};

use super::*;
use crate::alert::{Group, Rule};
use crate::review::{Judgement, ReviewError, Verdict};
use crate::store::Shelf;

const HOUR: u64 = 3600 * 1000;
/// A moment that has some days before it.
const LATE: UnixMillis = UnixMillis(400 * 24 * HOUR);

/// A report of device `a` with `requests` answers, all of class `class`.
fn report(rig: &Rig, release: &ReleaseId, sequence: u64, start: u64, requests: u64, class: f32) -> Report {
    let profile = made::profile();
    let facts = rig.fleet.release(release).expect("there");
    let mut latency = LatencyHistogram::default();
    (0..requests).for_each(|_| latency.record_micros(100));
    let bins = |sketch: Option<&serin_protocol::sketch::profile::SketchProfile>| {
        sketch.expect("watched").bins.clone()
    };
    let predictions = bins(profile.predictions.as_ref());
    let mut classes = Histogram::over_bins(&predictions);
    classes.record_all(&predictions, vec![class; requests as usize]);
    let feature = &profile.features[0].sketch.bins;
    let mut values = Histogram::over_bins(feature);
    values.record_all(feature, (0..requests).map(|at| (at % 20) as f32));
    Report {
        device: id("a"),
        boot: BootId(1),
        sequence,
        start: UnixMillis(start),
        end: UnixMillis(start + 60_000),
        coverage: Coverage::Complete,
        release: release.clone(),
        role: Role::Answers,
        profile: facts.record.release.profile,
        requests,
        errors: 0,
        refused: 0,
        latency,
        first_feature: 0,
        features: [values].into_iter().collect(),
        predictions: classes,
        confidence: Histogram::over_bins(&bins(profile.confidence.as_ref())),
        worker_peak: ByteCount(1),
        worker_deaths: 0,
        dropped_reports: 0,
        comparison: None,
        segment: SegmentNumber(0),
        entropy: Histogram::default(),
        quality: None,
    }
}

fn say_report(rig: &Rig, report: &Report) {
    let sealed = seal_to_vec(report, &key(9)).expect("fits");
    let message =
        Message { topic: Topic::Report(id("a")), payload: Bytes::from(sealed), delivery: Delivery::Live };
    rig.fleet.take_in(&[message], LATE).expect("taken in");
}

fn with_device() -> (Rig, ReleaseId) {
    let rig = Rig::new();
    let release = rig.release("1");
    let active = release.clone();
    rig.hello("a", |hello| hello.active = Some(active));
    (rig, release)
}

#[test]
fn rules_see_who_runs_what_and_what_they_reported() {
    let (rig, release) = with_device();
    let labelled = ClassQuality { labelled: 20, right: 13, ..ClassQuality::default() };
    let told = report(&rig, &release, 1, LATE.0 - 2 * 60_000, 200, 1.0);
    say_report(&rig, &Report { quality: Some(Quality::Classes(labelled)), ..told });
    let rules: Vec<Rule> = [
        "name = 'a'\nwindow = '10m'\nwhen.coverage = { below = '100%' }",
        "name = 'b'\nwindow = '30s'\nwhen.coverage = { below = '100%' }",
        "name = 'c'\nby = 'owner'\nwindow = '10m'\nwhen.prediction_drift = {}",
    ]
    .iter()
    .map(|text| toml::from_str(text).expect("rule"))
    .collect();
    let readings = rig.fleet.readings(&rules, LATE).expect("read");
    let of = |group: Group, seconds: u64| readings[&(group, Millis::from_secs(seconds))].clone();
    let (whole, recent) = (of(Group::of_release(&release), 600), of(Group::of_release(&release), 30));
    assert_eq!((whole.devices, whole.reporting, whole.requests), (1, 1, 200));
    assert_eq!((recent.devices, recent.reporting, recent.requests), (1, 0, 0));
    assert_eq!((whole.quality, recent.quality), (Some((20, 13)), None));
    let owner = of(Group::of_owner(&release), 600);
    assert_eq!(owner.predictions.first().and_then(|shift| shift.moved), Some(true), "all of one class");
    assert_eq!(owner.features.first().and_then(|shift| shift.moved), Some(false));
}

#[test]
fn old_reports_become_sums_and_young_ones_are_read_as_before() {
    let (rig, release) = with_device();
    let old = LATE.0 - 10 * 24 * HOUR;
    for (sequence, start) in [(1, old), (2, old + 60_000), (3, old + HOUR), (4, LATE.0 - 60_000)] {
        say_report(&rig, &report(&rig, &release, sequence, start, 100, 1.0));
    }
    let before = rig.fleet.drift(&release, LATE).expect("read");
    rig.fleet.fold_old_reports(LATE).expect("folds");
    let after = rig.fleet.drift(&release, LATE).expect("read");
    assert_eq!(
        (after.arm.whole.requests, &after.whole.features),
        (before.arm.whole.requests, &before.whole.features)
    );
    assert_eq!(kept(&rig, &release), 1);
    let rig = rig.restart();
    let sums = rig.fleet.history(&release).expect("read");
    assert_eq!(sums.iter().map(|sum| (sum.requests, sum.devices)).collect::<Vec<_>>(), [(200, 1), (100, 1)]);
    // Said again, an old report is known.
    say_report(&rig, &report(&rig, &release, 1, old, 100, 1.0));
    assert_eq!(kept(&rig, &release), 1);
    rig.fleet.fold_old_reports(UnixMillis(LATE.0 + 40 * 24 * HOUR)).expect("folds");
    let sums = rig.fleet.history(&release).expect("read");
    assert_eq!(sums.iter().map(|sum| sum.requests).sum::<u64>(), 400, "by day, nothing is lost");
    assert!(sums.len() < 4, "{}", sums.len());
}

fn sample(release: &ReleaseId, number: u64) -> Sample {
    let text = b"a face of somebody";
    let body = [&(text.len() as u32).to_le_bytes()[..], text].concat();
    Sample {
        device: id("a"),
        boot: BootId(1),
        number,
        at: NOW,
        release: release.clone(),
        reason: SampleReason::Random,
        inputs: vec![TensorHeader {
            name: "note".parse().expect("name"),
            datatype: DataType::Bytes,
            shape: [1].into_iter().collect(),
            bytes: body.len() as u64,
        }],
        body,
        redacted: Vec::new(),
        prediction: Some(Prediction::of_class(2, 0.5)),
        shadow: None,
    }
}

/// Lets the owner of a release allow samples, as a manifest would.
fn allow(rig: &Rig, release: &ReleaseId) {
    let mut record = rig.fleet.release(release).expect("there").record.clone();
    record.review = Some(ReviewPolicy {
        random: BasisPoints(10_000),
        below_confidence: None,
        out_of_range: false,
        disagreeing: false,
        redact: Vec::new(),
        per_day: 2,
        bytes_per_day: ByteCount(1000),
    });
    let store = &rig.fleet.store;
    let statement = store.statement(&record.statement).expect("read").expect("there");
    let profile = store.profile(&record.release.profile).expect("read").expect("there");
    store.put_release(&record, &statement, &profile).expect("put");
    rig.fleet.release_published(release, NOW).expect("noted");
}

#[test]
fn samples_are_sealed_shown_to_those_who_say_who_they_are_and_deleted() {
    let (rig, release) = with_device();
    let say = |rig: &Rig, number: u64| {
        let sealed = seal_to_vec(&sample(&release, number), &key(9)).expect("fits");
        rig.say(Topic::Sample(id("a")), sealed);
    };
    say(&rig, 1);
    assert_eq!(rig.fleet.list_samples(), [], "its owner allows none");
    allow(&rig, &release);
    (1..=5).for_each(|number| say(&rig, number));
    let listed = rig.fleet.list_samples();
    assert_eq!(listed.len(), 2, "the day's budget");
    let kept = rig.fleet.store.documents(Shelf::SampleContents).expect("read");
    assert!(kept.iter().all(|(_, sealed)| !sealed.windows(4).any(|part| part == b"face")));

    let rig = rig.restart();
    let first = listed[0].id.clone();
    let unsaid = rig.fleet.show_sample(&first, " ", NOW).map(drop);
    assert!(matches!(unsaid, Err(FleetError::Review(ReviewError::Unsaid))), "{unsaid:?}");
    let (_, shown) = rig.fleet.show_sample(&first, "ann", NOW).expect("opens");
    assert!(shown.body.ends_with(b"a face of somebody"));
    let judgement =
        Judgement { by: "bob".into(), at: NOW, verdict: Verdict::Wrong, class: Some(1), note: String::new() };
    rig.fleet.judge_sample(&first, judgement, NOW).expect("judged");
    let rig = rig.restart();
    let views = rig.fleet.sample_views().expect("read");
    let acts: Vec<(&str, &str)> = views.iter().map(|view| (view.by.as_str(), view.act.as_str())).collect();
    assert_eq!(acts, [("ann", "show"), ("bob", "judge")]);
    rig.fleet.forget_old_samples(UnixMillis(NOW.0 + HOUR)).expect("deletes");
    assert_eq!(rig.fleet.list_samples(), []);
    for shelf in [Shelf::Samples, Shelf::SampleContents] {
        assert_eq!(rig.fleet.store.documents(shelf).expect("read"), []);
    }
}

/// How many reports about a release are kept.
fn kept(rig: &Rig, release: &ReleaseId) -> usize {
    let mut count = 0;
    rig.fleet.store.visit_reports(release, UnixMillis(0), &mut |_| count += 1).expect("read");
    count
}
