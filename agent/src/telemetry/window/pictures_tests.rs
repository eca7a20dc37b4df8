//! What the worker saw of pictures is counted with the rows that they came with.

use super::*;
use serin_protocol::ids::UnixMillis;
use serin_protocol::sketch::profile::FeatureProfile;
use serin_protocol::tensor::{DataType, TensorHeader};

/// Two inputs of pictures and a number between them; the release tells rows apart by how bright the second is.
fn manifest() -> Manifest {
    let digest = Digest::of(b"");
    let json = serde_json::json!({
        "format": 1, "model": "m", "version": "1", "owner": "o", "description": "d",
        "lineage": { "git_commit": "0".repeat(40), "weights": digest, "data": digest, "schema_version": "1" },
        "runtime": "tract-0.23", "targets": [],
        "inputs": [
            { "name": "front", "datatype": "BYTES", "shape": [-1] },
            { "name": "x", "datatype": "FP32", "shape": [-1, 1], "features": ["x"] },
            { "name": "back", "datatype": "BYTES", "shape": [-1] },
        ],
        "outputs": [{ "name": "class", "datatype": "INT64", "shape": [-1] }],
        "prediction": null,
        "watch": {
            "summaries": [
                { "input": "back", "image": "grey", "of": ["brightness"] },
                { "input": "front", "image": "rgb", "of": ["contrast", "energy"] },
            ],
            "segments": { "feature": "back.brightness", "named": [{ "name": "night", "below": 10 }] },
        },
        "measured": { "minimum_memory": 1, "memory_limit": 1, "peak_resident": 1,
                      "latency_p50_micros": 1, "latency_p99_micros": 1, "load_micros": 1 },
        "files": [],
    });
    serde_json::from_value(json).expect("a manifest")
}

fn now(at: u64) -> Now {
    Now { wall: UnixMillis(at), elapsed: Millis(at) }
}

fn header(name: &str, datatype: DataType, shape: &[u32], bytes: u64) -> TensorHeader {
    let shape = shape.iter().copied().collect();
    TensorHeader { name: name.parse().expect("name"), datatype, shape, bytes }
}

#[test]
fn each_number_about_a_picture_is_counted_in_its_feature_and_its_segment() {
    let values: Vec<f32> = (0..64).map(|value| value as f32).collect();
    let manifest = manifest();
    let names = ["front.contrast", "front.energy", "x", "back.brightness"];
    assert!(manifest.features().iter().map(|feature| feature.name.as_str()).eq(names));
    let features = names.map(|name| FeatureProfile::of(name.parse().expect("name"), &values));
    let segments = vec!["night".parse().expect("name")];
    let profile = Arc::new(Profile { features: features.to_vec(), segments, ..Profile::default() });
    let mut recorder = Recorder::new(&manifest, Arc::clone(&profile), Digest::of(b"p"), Millis(1000), now(0))
        .expect("matching");
    // Two rows: a file of one byte each, a number, and no file at all.
    let body = [&[1, 0, 0, 0, 7][..], &[1, 0, 0, 0, 7], &[0; 8], &[0; 8]].concat();
    let inputs = [
        header("front", DataType::Bytes, &[2], 10),
        header("x", DataType::Fp32, &[2, 1], 8),
        header("back", DataType::Bytes, &[2], 8),
    ];
    let parameters = serde_json::Map::new();
    let asked = Asked { inputs: &inputs, body: &body, parameters: &parameters };
    let seen: Vec<u8> = [40.0_f32, 60.0, 5.0, 41.0, f32::NAN, 30.0].map(f32::to_le_bytes).concat();
    let each = [SegmentNumber(1), SegmentNumber(0)];
    assert_eq!(recorder.answered_seeing(asked, &seen, &[], 10), Segments::Each(&each));
    // A worker that says less than it should costs nothing but the numbers.
    recorder.answered_seeing(asked, &seen[..seen.len() - 7], &[], 10);
    let mut stamp = Stamp::new("d1".parse().expect("id"), BootId(7));
    let reports = recorder.cut(now(500), &mut stamp);
    let of =
        |segment: u8| reports.iter().find(|report| report.segment == SegmentNumber(segment)).expect("one");
    let (night, rest) = (of(1), of(0));
    let place = |feature: usize, value: f32| {
        let mut histogram =
            serin_protocol::sketch::Histogram::over_bins(&profile.features[feature].sketch.bins);
        histogram.record(&profile.features[feature].sketch.bins, value);
        histogram.record(&profile.features[feature].sketch.bins, value);
        histogram
    };
    assert_eq!((&night.features[0], &night.features[1]), (&place(0, 40.0), &place(1, 60.0)));
    assert_eq!((&night.features[3], &rest.features[0]), (&place(3, 5.0), &place(0, 41.0)));
    assert_eq!((rest.features[1].missing, rest.features[1].present()), (2, 0));
    assert_eq!((rest.features[3].missing, rest.features[3].present()), (1, 1));
}
