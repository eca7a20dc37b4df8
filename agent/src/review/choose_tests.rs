//! Rows that are taken, and what is left out of them.

use super::*;
use proptest::prelude::*;
use serde_json::json;
use serin_protocol::ids::Digest;
use serin_protocol::sketch::profile::FeatureProfile;

fn manifest(review: &serde_json::Value) -> Arc<Manifest> {
    let digest = Digest::of(b"");
    let json = json!({
        "format": 1, "model": "m", "version": "1", "owner": "o", "description": "d",
        "lineage": { "git_commit": "0".repeat(40), "weights": digest, "data": digest, "schema_version": "1" },
        "runtime": "tract-0.23", "targets": [],
        "inputs": [
            { "name": "note", "datatype": "BYTES", "shape": [-1] },
            { "name": "x", "datatype": "FP32", "shape": [-1, 2], "features": ["age", "height"] },
        ],
        "outputs": [{ "name": "class", "datatype": "INT64", "shape": [-1] }],
        "prediction": { "class": "class", "confidence": null, "classes": 3 },
        "review": review,
        "measured": { "minimum_memory": 1, "memory_limit": 1, "peak_resident": 1,
                      "latency_p50_micros": 1, "latency_p99_micros": 1, "load_micros": 1 },
        "files": [],
    });
    Arc::new(serde_json::from_value(json).expect("a manifest"))
}

fn profile() -> Arc<Profile> {
    let values: Vec<f32> = (0..64).map(|value| value as f32).collect();
    let feature = |name: &str| FeatureProfile::of(name.parse().expect("name"), &values);
    Arc::new(Profile { features: vec![feature("age"), feature("height")], ..Profile::default() })
}

fn chooser(review: &serde_json::Value, redact: &[&str]) -> Chooser {
    let redact: Vec<FieldName> = redact.iter().map(|name| name.parse().expect("name")).collect();
    Chooser::new(&manifest(review), &profile(), &redact).expect("opted in")
}

/// A request of `rows`, each with a text, age and height.
fn request(rows: &[(&str, f32, f32)]) -> (Vec<TensorHeader>, Vec<u8>) {
    let header = |name: &str, datatype, shape: &[u32], bytes: usize| TensorHeader {
        name: name.parse().expect("name"),
        datatype,
        shape: shape.iter().copied().collect(),
        bytes: bytes as u64,
    };
    let count = rows.len() as u32;
    let texts: Vec<u8> = rows
        .iter()
        .flat_map(|(text, ..)| [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat())
        .collect();
    let numbers: Vec<u8> =
        rows.iter().flat_map(|(_, age, height)| [age.to_le_bytes(), height.to_le_bytes()].concat()).collect();
    let headers = vec![
        header("note", DataType::Bytes, &[count], texts.len()),
        header("x", DataType::Fp32, &[count, 2], numbers.len()),
    ];
    (headers, [texts, numbers].concat())
}

fn classes(classes: &[(i64, f32)]) -> Vec<Prediction> {
    classes.iter().map(|(class, confidence)| Prediction::of_class(*class, *confidence)).collect()
}

fn choose(
    chooser: &Chooser,
    rows: &[(&str, f32, f32)],
    live: &[Prediction],
    shadow: Option<&[Prediction]>,
    chance: u16,
) -> Option<Chosen> {
    let (inputs, body) = request(rows);
    chooser.choose(Answered { inputs: &inputs, body: &body, predictions: live, shadow }, chance)
}

const BUDGET: &str = r#""per_day": 10, "bytes_per_day": 1000"#;

fn review(text: &str) -> serde_json::Value {
    serde_json::from_str(&format!("{{ {text}, {BUDGET} }}")).expect("JSON")
}

#[test]
fn the_least_sure_row_is_taken_alone() {
    let chooser = chooser(&review(r#""below_confidence": 6000"#), &[]);
    let rows = [("a", 1.0, 2.0), ("bcd", 3.0, 4.0)];
    let chosen = choose(&chooser, &rows, &classes(&[(0, 0.9), (1, 0.5)]), None, 0).expect("unsure");
    assert_eq!(chosen.reason, SampleReason::LowConfidence);
    assert_eq!(chosen.prediction.and_then(|prediction| prediction.class()), Some(1));
    let (headers, body) = request(&rows[1..]);
    assert_eq!((chosen.inputs, chosen.body), (headers, body));
    assert_eq!(choose(&chooser, &rows, &classes(&[(0, 0.9), (1, 0.7)]), None, 0), None);
    assert_eq!(choose(&chooser, &rows, &[], None, 0), None, "without a prediction nothing is known");
}

#[test]
fn what_lies_beyond_the_reference_is_taken_and_what_is_hidden_tells_nothing() {
    let open = chooser(&review(r#""out_of_range": true"#), &[]);
    assert_eq!(choose(&open, &[("a", 5.0, 5.0)], &[], None, 0), None);
    let chosen = choose(&open, &[("a", 5.0, 5.0), ("b", 5.0, 500.0)], &[], None, 0).expect("beyond");
    assert_eq!((chosen.reason, chosen.inputs[1].shape[0]), (SampleReason::OutOfRange, 1));
    assert_eq!(choose(&open, &[("a", f32::NAN, 5.0)], &[], None, 0), None, "missing is not beyond");
    let hidden = chooser(&review(r#""out_of_range": true, "redact": ["height"]"#), &[]);
    assert_eq!(choose(&hidden, &[("b", 5.0, 500.0)], &[], None, 0), None);
}

#[test]
fn fields_are_left_out_by_owner_and_device() {
    let chooser = chooser(&review(r#""random": 10000, "redact": ["age"]"#), &["note"]);
    let chosen = choose(&chooser, &[("secret", 33.0, 180.0)], &[], None, 0).expect("taken");
    assert_eq!(chosen.redacted.iter().map(FieldName::as_str).collect::<Vec<_>>(), ["note", "age"]);
    assert_eq!(chosen.inputs.len(), 1);
    assert!(!chosen.body.windows(6).any(|part| part == b"secret"));
    let value = |at| DataType::Fp32.number(&chosen.body, at).expect("there");
    assert!(value(0).is_nan(), "age");
    assert!((value(1) - 180.0).abs() < 1e-6);
}

#[test]
fn only_a_shadow_that_disagrees_is_taken_from_a_comparison() {
    let chooser = chooser(&review(r#""disagreeing": true, "random": 10000"#), &[]);
    let (live, same, other) = (classes(&[(1, 0.5)]), classes(&[(1, 0.9)]), classes(&[(2, 0.9)]));
    assert_eq!(choose(&chooser, &[("a", 1.0, 1.0)], &live, Some(&same), 0), None);
    let chosen = choose(&chooser, &[("a", 1.0, 1.0)], &live, Some(&other), 0).expect("differs");
    assert_eq!(
        (chosen.reason, chosen.shadow.and_then(|shadow| shadow.class())),
        (SampleReason::Disagreeing, Some(2))
    );
}

#[test]
fn a_model_whose_owner_says_nothing_is_never_sampled() {
    let silent = manifest(&serde_json::Value::Null);
    assert!(Chooser::new(&silent, &profile(), &[]).is_none());
}

proptest! {
    #[test]
    fn the_share_taken_by_lot_is_the_one_allowed(share in 0_u16..=10_000) {
        let chooser = chooser(&review(&format!(r#""random": {share}"#)), &[]);
        let hits = (0..=u16::MAX).filter(|chance| {
            u32::from(*chance) * 10_000 < u32::from(share) * 65_536
        }).count();
        let expected = f64::from(share) / 10_000.0 * 65_536.0;
        prop_assert!((hits as f64 - expected).abs() <= 1.0);
        let taken = |chance| choose(&chooser, &[("a", 1.0, 1.0)], &[], None, chance).is_some();
        prop_assert_eq!(taken(u16::MAX), share == 10_000);
        prop_assert_eq!(taken(0), share > 0);
    }

    #[test]
    fn any_body_is_taken_or_not_without_a_crash(body in prop::collection::vec(any::<u8>(), 0..64), rows in 0_u32..4) {
        let chooser = chooser(&review(r#""random": 10000, "out_of_range": true"#), &[]);
        let (mut inputs, _) = request(&[("a", 1.0, 1.0)]);
        let half = body.len() as u64 / 2;
        for (input, bytes) in inputs.iter_mut().zip([half, body.len() as u64 - half]) {
            input.shape[0] = rows;
            input.bytes = bytes;
        }
        let _ = chooser.choose(Answered { inputs: &inputs, body: &body, predictions: &[], shadow: None }, 0);
    }
}
