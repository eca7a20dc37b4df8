//! Windows: nothing counted is lost, none overlaps another, whatever the clocks do.

use super::*;
use proptest::prelude::*;
use serin_protocol::envelope::Signed as _;
use serin_protocol::ids::UnixMillis;
use serin_protocol::message::{Coverage, MAX_REPORT_FEATURES};
use serin_protocol::sketch::Bins;
use serin_protocol::sketch::Histogram;
use serin_protocol::sketch::profile::{FeatureProfile, SketchProfile};
use serin_protocol::tensor::DataType;
use serin_protocol::tensor::TensorHeader;
use std::collections::BTreeSet;
use std::sync::LazyLock;

const WINDOW: Millis = Millis(1000);

static NO_PARAMETERS: LazyLock<Parameters> = LazyLock::new(Parameters::new);

type Parameters = serde_json::Map<String, serde_json::Value>;

fn asked<'a>(inputs: &'a [TensorHeader], body: &'a [u8]) -> Asked<'a> {
    Asked { inputs, body, parameters: &NO_PARAMETERS }
}

fn manifest(features: usize) -> Manifest {
    let names: Vec<String> = (0..features).map(|at| format!("f{at}")).collect();
    let digest = Digest::of(b"");
    let json = serde_json::json!({
        "format": 1, "model": "m", "version": "1", "owner": "o", "description": "d",
        "lineage": { "git_commit": "0".repeat(40), "weights": digest, "data": digest, "schema_version": "1" },
        "runtime": "tract-0.23", "targets": [],
        "inputs": [
            { "name": "unwatched", "datatype": "FP32", "shape": [-1, 2] },
            { "name": "x", "datatype": "FP32", "shape": [-1, features], "features": names },
        ],
        "outputs": [{ "name": "class", "datatype": "INT64", "shape": [-1] }],
        "prediction": { "class": "class", "confidence": null, "classes": 3 },
        "measured": { "minimum_memory": 1, "memory_limit": 1, "peak_resident": 1,
                      "latency_p50_micros": 1, "latency_p99_micros": 1, "load_micros": 1 },
        "files": [],
    });
    serde_json::from_value(json).expect("a manifest")
}

fn profile(features: usize) -> Arc<Profile> {
    let values: Vec<f32> = (0..64).map(|value| value as f32).collect();
    let features = (0..features)
        .map(|at| FeatureProfile::of(format!("f{at}").parse().expect("name"), &values))
        .collect();
    let predictions = Some(SketchProfile::of(Bins::classes(3), &[]));
    Arc::new(Profile { features, predictions, ..Profile::default() })
}

fn recorder(features: usize, now: Now) -> Recorder {
    Recorder::new(&manifest(features), profile(features), Digest::of(b"p"), WINDOW, now).expect("matching")
}

fn stamp() -> Stamp {
    Stamp::new("d1".parse().expect("id"), BootId(7))
}

fn at(wall: u64, elapsed: u64) -> Now {
    Now { wall: UnixMillis(wall), elapsed: Millis(elapsed) }
}

/// One row of `features` values, all `value`, behind an input that is not watched.
fn row(features: usize, value: f32) -> (Vec<TensorHeader>, Vec<u8>) {
    let header = |name: &str, elements: usize| TensorHeader {
        name: name.parse().expect("name"),
        datatype: DataType::Fp32,
        shape: [1, elements as u32].into_iter().collect(),
        bytes: elements as u64 * 4,
    };
    let values = [-1.0, -1.0].into_iter().chain(std::iter::repeat_n(value, features));
    (vec![header("unwatched", 2), header("x", features)], values.flat_map(f32::to_le_bytes).collect())
}

fn answer(recorder: &mut Recorder, features: usize, value: f32) {
    let (headers, body) = row(features, value);
    recorder.answered(asked(&headers, &body), &[Prediction::of_class(1, f32::NAN)], 100);
}

#[test]
fn a_window_holds_what_happened_in_it() {
    let mut recorder = recorder(2, at(5_000, 0));
    let mut stamp = stamp();
    recorder.enter();
    answer(&mut recorder, 2, 3.0);
    answer(&mut recorder, 2, f32::NAN);
    recorder.failed(asked(&[], &[]));
    recorder.refused();
    recorder.worker_died();
    recorder.saw_peak(ByteCount(9));
    stamp.note_dropped(4);
    assert!(recorder.roll(at(5_999, 999), &mut stamp).is_empty());
    let reports = recorder.roll(at(6_000, 1_000), &mut stamp);
    let [report] = reports.as_slice() else { panic!("one report") };
    assert_eq!((report.start, report.end), (UnixMillis(5_000), UnixMillis(6_000)));
    assert_eq!((report.requests, report.errors, report.refused), (3, 1, 1));
    assert_eq!(report.latency.total(), 2);
    assert_eq!(report.features.len(), 2);
    for feature in &report.features {
        assert_eq!((feature.present(), feature.missing, feature.mean), (1, 1, 3.0));
    }
    assert_eq!(report.predictions.counts.as_slice(), [0, 2, 0]);
    assert_eq!(report.confidence.total(), 0);
    assert_eq!((report.worker_peak, report.worker_deaths, report.dropped_reports), (ByteCount(9), 1, 4));
    // The release came within this window.
    assert_eq!(report.coverage, Coverage::Partial);
}

#[test]
fn a_quiet_window_is_reported_while_serving_and_only_then() {
    let mut recorder = recorder(1, at(5_000, 0));
    let mut stamp = stamp();
    assert!(recorder.roll(at(6_000, 1_000), &mut stamp).is_empty());
    recorder.enter();
    assert_eq!(recorder.roll(at(7_000, 2_000), &mut stamp).len(), 1);
    let reports = recorder.roll(at(8_000, 3_000), &mut stamp);
    assert_eq!((reports[0].requests, reports[0].coverage), (0, Coverage::Empty));
    assert_eq!(reports[0].features[0].total(), 0);
    recorder.leave();
    assert_eq!(recorder.roll(at(9_000, 4_000), &mut stamp)[0].coverage, Coverage::Partial);
    assert!(recorder.roll(at(10_000, 5_000), &mut stamp).is_empty());
}

#[test]
fn an_answer_after_the_release_has_left_is_still_reported() {
    let mut recorder = recorder(1, at(5_000, 0));
    let mut stamp = stamp();
    recorder.enter();
    recorder.leave();
    recorder.roll(at(6_000, 1_000), &mut stamp);
    answer(&mut recorder, 1, 1.0);
    let reports = recorder.roll(at(7_000, 2_000), &mut stamp);
    assert_eq!((reports.len(), reports[0].requests), (1, 1));
}

#[test]
fn a_wide_model_sends_several_reports_whose_sum_is_the_window() {
    let features = 2 * MAX_REPORT_FEATURES + 5;
    let mut recorder = recorder(features, at(5_000, 0));
    let mut stamp = stamp();
    answer(&mut recorder, features, 1.0);
    let reports = recorder.roll(at(6_000, 1_000), &mut stamp);
    let firsts: Vec<_> = reports.iter().map(|report| report.first_feature).collect();
    assert_eq!(firsts, [0, 64, 128]);
    assert_eq!(reports.iter().map(|report| report.features.len()).sum::<usize>(), features);
    assert_eq!(reports.iter().map(|report| report.requests).sum::<u64>(), 1);
    let sequences: Vec<_> = reports.iter().map(|report| report.sequence).collect();
    assert_eq!(sequences, [0, 1, 2]);
    assert!(reports.iter().flat_map(|report| &report.features).all(|feature| feature.total() == 1));
}

#[test]
fn the_fullest_report_fits_into_a_message() {
    let mut recorder = recorder(MAX_REPORT_FEATURES, at(5_000, 0));
    recorder.refused();
    let mut report = recorder.roll(at(6_000, 1_000), &mut stamp()).remove(0);
    for histogram in &mut report.features {
        histogram.counts.iter_mut().for_each(|count| *count = u64::MAX);
        (histogram.under, histogram.over, histogram.missing) = (u64::MAX, u64::MAX, u64::MAX);
    }
    let bytes = postcard::to_allocvec(&report).expect("encodes").len();
    assert!(bytes < Report::MAX_BYTES, "{bytes}");
}

#[test]
fn an_input_cut_short_counts_as_missing() {
    let mut recorder = recorder(3, at(5_000, 0));
    let (headers, body) = row(3, 1.0);
    recorder.answered(asked(&headers, &body[..body.len() - 6]), &[], 10);
    recorder.answered(asked(&headers, &[]), &[], 10);
    let report = recorder.roll(at(6_000, 1_000), &mut stamp()).remove(0);
    let seen: Vec<_> = report.features.iter().map(|one| (one.present(), one.missing)).collect();
    assert_eq!(seen, [(1, 0), (0, 1), (0, 1)]);
}

#[test]
fn a_profile_of_other_features_is_refused() {
    let made = Recorder::new(&manifest(2), profile(3), Digest::of(b""), WINDOW, at(0, 0));
    assert_eq!(made.err(), Some(ProfileMismatch::Count { profile: 3, manifest: 2 }));
    let mut renamed = Profile::clone(&profile(2));
    renamed.features.swap(0, 1);
    let made = Recorder::new(&manifest(2), Arc::new(renamed), Digest::of(b""), WINDOW, at(0, 0));
    assert!(matches!(made.err(), Some(ProfileMismatch::Name { at: 0, .. })));
}

#[test]
fn a_snapshot_tells_what_came_since_an_earlier_one() {
    let mut recorder = recorder(1, at(5_000, 0));
    answer(&mut recorder, 1, 1.0);
    let before = recorder.snapshot().counters;
    recorder.roll(at(6_000, 1_000), &mut stamp());
    recorder.failed(asked(&[], &[]));
    let since = recorder.snapshot().counters.since(before);
    assert_eq!(since, Counters { requests: 1, errors: 1, refused: 0 });
    // The closed window still counts for the latency people see.
    assert_eq!(recorder.snapshot().latency.total(), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Answer(f32),
    Fail,
    Refuse,
    Die,
    Enter,
    Leave,
    Pass(u64),
    Set(i64),
    Roll,
    Cut,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (-10.0_f32..80.0).prop_map(Step::Answer),
        1 => Just(Step::Fail),
        1 => Just(Step::Refuse),
        1 => Just(Step::Die),
        1 => Just(Step::Enter),
        1 => Just(Step::Leave),
        4 => (0_u64..1_500).prop_map(Step::Pass),
        1 => (-5_000_i64..5_000).prop_map(Step::Set),
        4 => Just(Step::Roll),
        1 => Just(Step::Cut),
    ]
}

proptest! {
    #[test]
    fn the_sum_of_all_windows_is_what_was_recorded(steps in prop::collection::vec(step(), 0..120)) {
        let (mut wall, mut elapsed) = (10_000_u64, 0_u64);
        let mut recorder = recorder(2, at(wall, elapsed));
        let mut stamp = stamp();
        let mut reports = Vec::new();
        let (mut answers, mut failures, mut refusals, mut deaths) = (0, 0, 0, 0);
        for step in steps {
            match step {
                Step::Answer(value) => { answer(&mut recorder, 2, value); answers += 1; }
                Step::Fail => { recorder.failed(asked(&[], &[])); failures += 1; }
                Step::Refuse => { recorder.refused(); refusals += 1; }
                Step::Die => { recorder.worker_died(); deaths += 1; }
                Step::Enter => recorder.enter(),
                Step::Leave => recorder.leave(),
                Step::Pass(span) => { wall += span; elapsed += span; }
                Step::Set(by) => wall = wall.saturating_add_signed(by),
                Step::Roll => reports.extend(recorder.roll(at(wall, elapsed), &mut stamp)),
                Step::Cut => reports.extend(recorder.cut(at(wall, elapsed), &mut stamp)),
            }
        }
        reports.extend(recorder.cut(at(wall, elapsed), &mut stamp));

        let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
        prop_assert_eq!(sum(|report| report.requests), answers + failures);
        prop_assert_eq!(sum(|report| report.errors), failures);
        prop_assert_eq!(sum(|report| report.refused), refusals);
        prop_assert_eq!(sum(|report| u64::from(report.worker_deaths)), deaths);
        prop_assert_eq!(sum(|report| report.latency.total()), answers);
        prop_assert_eq!(sum(|report| report.predictions.total()), answers);
        prop_assert_eq!(sum(|report| report.features.iter().map(Histogram::total).sum()), 2 * answers);
        let counters = Counters { requests: answers + failures, errors: failures, refused: refusals };
        prop_assert_eq!(recorder.snapshot().counters, counters);

        let starts: BTreeSet<_> = reports.iter().map(|report| report.start).collect();
        prop_assert_eq!(starts.len(), reports.len(), "a window was reported twice");
        prop_assert!(reports.iter().all(|report| report.start.0 % WINDOW.0 == 0));
        prop_assert!(reports.iter().enumerate().all(|(at, report)| report.sequence == at as u64));
    }
}
