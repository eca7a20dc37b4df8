//! Rows are counted in their segment, each exactly once; truths and categories find their place.

use super::*;
use crate::telemetry::{Truth, Untrue};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use serin_protocol::frame::Prediction;
use serin_protocol::ids::UnixMillis;
use serin_protocol::message::Coverage;
use serin_protocol::sketch::categories::Observed;
use serin_protocol::sketch::profile::{Division as Divided, FeatureProfile, SketchProfile};
use serin_protocol::sketch::{Bins, Histogram, Quality};
use serin_protocol::tensor::{DataType, TensorHeader};

const WINDOW: Millis = Millis(1000);

/// A model of a number, a city and a picture of two channels.
fn manifest(segments: &Value) -> Manifest {
    let digest = Digest::of(b"");
    let json = json!({
        "format": 1, "model": "m", "version": "1", "owner": "o", "description": "d",
        "lineage": { "git_commit": "0".repeat(40), "weights": digest, "data": digest, "schema_version": "1" },
        "runtime": "tract-0.23", "targets": [],
        "inputs": [
            { "name": "x", "datatype": "FP32", "shape": [-1, 2], "features": ["lux", "kind"] },
            { "name": "city", "datatype": "BYTES", "shape": [-1] },
            { "name": "image", "datatype": "UINT8", "shape": [-1, 1, 2, 2] },
        ],
        "outputs": [{ "name": "class", "datatype": "INT64", "shape": [-1] }],
        "prediction": { "class": "class", "classes": 3 },
        "watch": {
            "categorical": ["kind", "city"],
            "segments": segments,
            "summaries": [{ "input": "image", "layout": "hwc", "of": ["brightness", "channels"] }],
        },
        "measured": { "minimum_memory": 1, "memory_limit": 1, "peak_resident": 1,
                      "latency_p50_micros": 1, "latency_p99_micros": 1, "load_micros": 1 },
        "files": [],
    });
    serde_json::from_value(json).expect("a manifest")
}

fn by_light() -> Value {
    json!({ "feature": "lux", "named": [{ "name": "night", "below": 10 }, { "name": "day", "from": 10, "below": 1000 }] })
}

fn recorder(segments: &Value) -> Recorder {
    let manifest = manifest(segments);
    let named = manifest.watch.segments.as_ref().map_or(&[][..], |segments| &segments.named);
    let count = if named.is_empty() { 0 } else { named.len() + 1 };
    let division = Divided { rows: &[], count };
    let values: Vec<f32> = (0..64).map(|value| value as f32).collect();
    let numeric = |name: &str| FeatureProfile::numeric(name.parse().expect("name"), &values, division);
    let categorical = |name: &str, seen: &[Observed<'_>]| {
        FeatureProfile::categorical(name.parse().expect("name"), seen, division)
    };
    let profile = Profile {
        features: vec![
            numeric("lux"),
            categorical("kind", &[Observed::Number(1.0), Observed::Number(2.0)]),
            categorical("city", &[Observed::Text("Oslo"), Observed::Text("Rome")]),
            numeric("image.brightness"),
            numeric("image.channel0"),
            numeric("image.channel1"),
        ],
        predictions: Some(SketchProfile::divided(Bins::classes(3), &[], division)),
        segments: named.iter().map(|segment| segment.name.clone()).collect(),
        ..Profile::default()
    };
    let now = Now { wall: UnixMillis(5_000), elapsed: Millis(0) };
    Recorder::new(&manifest, Arc::new(profile), Digest::of(b"p"), WINDOW, now).expect("matching")
}

struct Request {
    inputs: Vec<TensorHeader>,
    body: Vec<u8>,
    parameters: Map<String, Value>,
    predictions: Vec<Prediction>,
}

/// Rows of light, kind, city and the four bytes of a picture.
fn request(rows: &[(f32, f32, &str, [u8; 4])], parameters: &Value) -> Request {
    let mut numbers = Vec::new();
    let (mut texts, mut pixels) = (Vec::new(), Vec::new());
    for (lux, kind, city, picture) in rows {
        numbers.extend([lux.to_le_bytes(), kind.to_le_bytes()].concat());
        texts.extend((city.len() as u32).to_le_bytes());
        texts.extend(city.as_bytes());
        pixels.extend(picture);
    }
    let count = rows.len() as u32;
    let header = |name: &str, datatype, shape: &[u32], bytes: usize| TensorHeader {
        name: name.parse().expect("name"),
        datatype,
        shape: shape.iter().copied().collect(),
        bytes: bytes as u64,
    };
    let inputs = vec![
        header("city", DataType::Bytes, &[count], texts.len()),
        header("x", DataType::Fp32, &[count, 2], numbers.len()),
        header("image", DataType::Uint8, &[count, 1, 2, 2], pixels.len()),
    ];
    Request {
        inputs,
        body: [texts, numbers, pixels].concat(),
        parameters: parameters.as_object().cloned().unwrap_or_default(),
        predictions: rows.iter().map(|(lux, ..)| Prediction::of_class((*lux > 10.0).into(), 0.8)).collect(),
    }
}

impl Request {
    fn asked(&self) -> Asked<'_> {
        Asked { inputs: &self.inputs, body: &self.body, parameters: &self.parameters }
    }

    fn answer(&self, recorder: &mut Recorder) -> Vec<u8> {
        let segments = recorder.answered(self.asked(), &self.predictions, 100);
        (0..self.predictions.len()).map(|row| segments.of(row).0).collect()
    }
}

fn close(recorder: &mut Recorder) -> Vec<Report> {
    let mut stamp = Stamp::new("d1".parse().expect("id"), BootId(7));
    recorder.roll(Now { wall: UnixMillis(6_000), elapsed: Millis(1_000) }, &mut stamp)
}

#[test]
fn every_row_is_in_one_segment_and_a_request_where_its_first_row_is() {
    let mut recorder = recorder(&by_light());
    recorder.enter();
    let mixed = [(5.0, 1.0, "Oslo", [0; 4]), (50.0, 1.0, "Oslo", [0; 4]), (f32::NAN, 1.0, "Oslo", [0; 4])];
    assert_eq!(request(&mixed, &Value::Null).answer(&mut recorder), [1, 2, 0]);
    let day = request(&mixed[1..2], &Value::Null);
    assert_eq!(day.answer(&mut recorder), [2]);
    recorder.failed(day.asked());
    let reports = close(&mut recorder);
    let shown: Vec<_> = reports
        .iter()
        .map(|report| (report.segment.0, report.requests, report.errors, report.predictions.total()))
        .collect();
    assert_eq!(shown, [(0, 0, 0, 1), (1, 1, 0, 1), (2, 2, 1, 2)]);
    assert_eq!(reports[0].features[0].missing, 1);
    assert!(reports.iter().all(|report| report.coverage == Coverage::Partial));
    assert_eq!(reports.iter().map(|report| report.sequence).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn a_window_without_a_request_is_empty_in_one_report() {
    let mut recorder = recorder(&by_light());
    recorder.enter();
    close(&mut recorder);
    let mut stamp = Stamp::new("d1".parse().expect("id"), BootId(7));
    let reports = recorder.roll(Now { wall: UnixMillis(7_000), elapsed: Millis(2_000) }, &mut stamp);
    let [report] = reports.as_slice() else { panic!("one report") };
    assert_eq!((report.segment.0, report.coverage), (0, Coverage::Empty));
}

#[test]
fn a_parameter_decides_for_all_rows() {
    let named = json!([{ "name": "north", "values": ["Oslo"] }, { "name": "seven", "values": [7] },
        { "name": "yes", "values": ["true"] }]);
    let mut recorder = recorder(&json!({ "parameter": "site", "named": named }));
    let rows = [(5.0, 1.0, "Rome", [0; 4]); 2];
    for (parameters, segment) in [
        (json!({ "site": "Oslo" }), 1),
        (json!({ "site": 7 }), 2),
        (json!({ "site": true }), 3),
        (json!({ "site": "oslo" }), 0),
        (json!({ "site": ["Oslo"] }), 0),
        (json!({}), 0),
    ] {
        assert_eq!(request(&rows, &parameters).answer(&mut recorder), [segment; 2], "{parameters}");
    }
}

#[test]
fn a_number_about_a_picture_tells_segments_apart() {
    let dark = json!({ "feature": "image.brightness", "named": [{ "name": "dark", "below": 50 }] });
    let mut recorder = recorder(&dark);
    let rows = [(0.0, 1.0, "Rome", [0, 20, 0, 20]), (0.0, 1.0, "Rome", [200, 100, 200, 100])];
    assert_eq!(request(&rows, &Value::Null).answer(&mut recorder), [1, 0]);
    let reports = close(&mut recorder);
    let means = |report: &Report| report.features.iter().skip(3).map(|one| one.mean).collect::<Vec<_>>();
    assert_eq!(means(&reports[1]), [10.0, 0.0, 20.0]);
    assert_eq!(means(&reports[0]), [150.0, 200.0, 100.0]);
}

#[test]
fn categories_never_seen_count_as_other_whatever_they_are() {
    let mut recorder = recorder(&Value::Null);
    let rows = [(1.0, 1.0, "Oslo", [0; 4]), (1.0, 9.0, "Lima", [0; 4]), (1.0, f32::NAN, "", [0; 4])];
    request(&rows, &Value::Null).answer(&mut recorder);
    let report = close(&mut recorder).remove(0);
    for feature in &report.features[1..3] {
        assert_eq!((feature.counts[0], feature.over, feature.missing), (1, 1, 1));
        assert_eq!((feature.mean, feature.m2), (0.0, 0.0), "names have no mean");
    }
}

#[test]
fn a_truth_counts_in_the_segment_of_its_row_and_in_the_window_it_comes_in() {
    let mut recorder = recorder(&by_light()).with_labels(["low", "high", "none"]);
    let row = (50.0, 1.0, "Oslo", [0; 4]);
    request(&[row], &Value::Null).answer(&mut recorder);
    close(&mut recorder);
    let predicted = Prediction::of_class(1, 0.8);
    let tell = |recorder: &mut Recorder, truth: &str| {
        recorder.truth_known(SegmentNumber(2), predicted, &Truth::Text(truth.into()))
    };
    assert_eq!(tell(&mut recorder, "high"), Ok(()));
    assert_eq!(tell(&mut recorder, "0"), Ok(()));
    assert!(matches!(tell(&mut recorder, "medium"), Err(Untrue::NoClass(..))));
    let mut stamp = Stamp::new("d1".parse().expect("id"), BootId(7));
    let reports = recorder.roll(Now { wall: UnixMillis(7_000), elapsed: Millis(2_000) }, &mut stamp);
    let told = reports.iter().find(|report| report.segment.0 == 2).expect("told");
    let Some(Quality::Classes(classes)) = &told.quality else { panic!("classes") };
    assert_eq!((told.requests, classes.labelled, classes.right), (0, 2, 1));
    recorder.close();
    assert_eq!(tell(&mut recorder, "high"), Err(Untrue::Gone));
    assert!(close(&mut recorder).is_empty());
}

proptest! {
    #[test]
    fn the_whole_is_the_merge_of_all_segments(
        batches in prop::collection::vec(
            prop::collection::vec((prop_oneof![0.0_f32..2000.0, Just(f32::NAN)], 0_u8..4), 1..6), 1..12
        )
    ) {
        let (mut divided, mut whole) = (recorder(&by_light()), recorder(&Value::Null));
        for batch in &batches {
            let rows: Vec<_> =
                batch.iter().map(|(lux, kind)| (*lux, f32::from(*kind), "Oslo", [*kind; 4])).collect();
            let request = request(&rows, &Value::Null);
            request.answer(&mut divided);
            request.answer(&mut whole);
        }
        let reports = close(&mut divided);
        let together = close(&mut whole).remove(0);
        let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
        prop_assert_eq!(sum(|report| report.requests), together.requests);
        prop_assert_eq!(sum(|report| report.latency.total()), together.latency.total());
        for (at, feature) in together.features.iter().enumerate() {
            let mut merged = Histogram { counts: feature.counts.iter().map(|_| 0).collect(), ..Histogram::default() };
            for report in &reports {
                merged.merge(&report.features[at]).expect("same bins");
            }
            prop_assert_eq!(merged.categories().collect::<Vec<_>>(), feature.categories().collect::<Vec<_>>());
        }
    }
}
