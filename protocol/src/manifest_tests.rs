//! A manifest that contradicts itself, and a pipeline that contradicts its manifest, are refused with
//! the place named.

use super::*;
use crate::pipeline::Pipeline;
use proptest::prelude::*;
use serde_json::{Value, json};

pub(super) fn manifest_json() -> Value {
    let weights = Digest([1; 32]);
    let files: Vec<Value> = BundleFile::ALL
        .iter()
        .skip(1)
        .map(|file| json!({"name": file.name(), "digest": weights, "size": 10}))
        .collect();
    json!({
        "format": 1, "model": "digits", "version": "1.0.0", "owner": "vision", "description": "",
        "lineage": {"git_commit": "0".repeat(40), "weights": weights, "data": weights, "schema_version": "1"},
        "runtime": "tract-0.23", "targets": ["linux-x86_64"],
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2], "features": ["a", "b"]}],
        "outputs": [{"name": "class", "datatype": "INT64", "shape": [-1]}],
        "prediction": {"class": "class", "confidence": null, "classes": 3},
        "measured": {"minimum_memory": 1, "memory_limit": 2, "peak_resident": 3,
            "latency_p50_micros": 4, "latency_p99_micros": 5, "load_micros": 6},
        "files": files
    })
}

fn parse(json: &Value) -> Result<Manifest, ManifestError> {
    Manifest::parse(&serde_json::to_vec(json).expect("json"))
}

fn refused(pointer: &str, value: Value) -> alloc::string::String {
    let mut json = manifest_json();
    *json.pointer_mut(pointer).expect("exists") = value;
    format!("{}", parse(&json).expect_err(pointer))
}

#[test]
fn a_sound_manifest_is_read() {
    let manifest = parse(&manifest_json()).expect("sound");
    assert_eq!(format!("{}", manifest.id()), "digits@1.0.0");
    assert_eq!(manifest.features().len(), 2);
    assert_eq!(manifest.unpacked(40), ByteCount(100));
}

#[test]
fn classes_are_names_or_say_what_is_needed_of_them() {
    let mut json = manifest_json();
    let needs =
        json!({"class": "linux-armv7", "kernel": "5.10", "cpu_features": ["neon", "kernel:landlock"]});
    *json.pointer_mut("/targets").expect("exists") = json!(["linux-x86_64", needs]);
    let manifest = parse(&json).expect("sound");
    assert_eq!(manifest.targets.len(), 2);
    assert_eq!(format!("{}", manifest.targets[1]), "linux-armv7 (kernel 5.10, neon, landlock)");
    assert_eq!(serde_json::to_value(&manifest).expect("json").pointer("/targets"), json.pointer("/targets"));
    assert!(refused("/targets", json!(["a", "a"])).contains("the target class a is named twice"));
    let malformed = json!([{"class": "a", "kernel": "new", "cpu_features": []}]);
    assert!(refused("/targets", malformed).contains("class, kernel and cpu_features"));
    let features = ["f"; 12];
    let many = json!([{"class": "a", "kernel": null, "cpu_features": features}]);
    assert!(refused("/targets", many).contains("class, kernel and cpu_features"));
}

#[test]
fn contradictions_are_named() {
    assert!(refused("/lineage/weights", json!(Digest([2; 32]))).contains("weights"));
    assert!(refused("/lineage/git_commit", json!("main")).contains("git_commit"));
    assert!(refused("/lineage/schema_version", json!("")).contains("schema_version"));
    assert!(refused("/format", json!(2)).contains("format 2"));
    assert!(refused("/files", json!([])).contains("files"));
    assert!(refused("/inputs/0/shape", json!([2, 2])).contains("-1"));
    assert!(refused("/inputs/0/features", json!(["a"])).contains("1 features"));
    assert!(refused("/inputs/0/datatype", json!("BYTES")).contains("texts cannot be watched"));
    assert!(refused("/outputs/0/datatype", json!("FP64")).contains("FP32, INT64 or BYTES"));
    assert!(refused("/prediction/class", json!("nope")).contains("prediction.class"));
    assert!(refused("/prediction/classes", json!(33)).contains("classes"));
    assert!(refused("/files/0/name", json!("../evil")).contains("evil"));
    let mut json = manifest_json();
    json.as_object_mut().expect("object").insert("surprise".into(), json!(1));
    assert!(format!("{}", parse(&json).expect_err("unknown key")).contains("surprise"));
}

fn pipeline(json: &Value) -> Result<Pipeline, alloc::string::String> {
    let manifest = parse(&manifest_json()).expect("sound");
    Pipeline::parse(&serde_json::to_vec(json).expect("json"), &manifest).map_err(|error| format!("{error}"))
}

#[test]
fn a_pipeline_is_checked_against_its_manifest() {
    let feed = json!({"op": "feed", "input": "x", "model_input": "X"});
    let take = json!({"op": "take", "model_output": "Y", "output": "y"});
    let argmax = json!({"op": "argmax", "from": "y", "output": "class"});
    assert!(pipeline(&json!({"pre": [feed], "post": [take, argmax]})).is_ok());
    for (json, complaint) in [
        (json!({"pre": [], "post": [take, argmax]}), "fed"),
        (json!({"pre": [feed, feed], "post": [take, argmax]}), "fed to the model already"),
        (json!({"pre": [feed], "post": [argmax]}), "no earlier step"),
        (json!({"pre": [feed], "post": [take]}), "declared output class"),
        (json!({"pre": [feed], "post": [take, take, argmax]}), "twice"),
        (
            json!({"pre": [{"op": "clip", "input": "x", "min": 2.0, "max": 1.0}, feed], "post": [take, argmax]}),
            "min",
        ),
        (
            json!({"pre": [{"op": "affine", "input": "x", "scale": [1, 2, 3], "offset": [0]}, feed], "post": []}),
            "scale",
        ),
        (json!({"pre": [feed, {"op": "missing", "input": "z", "replace": 0}], "post": []}), "no input z"),
        (json!({"pre": [{"op": "explode"}], "post": []}), "explode"),
    ] {
        let error = pipeline(&json).expect_err(complaint);
        assert!(error.contains(complaint), "{error}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_manifest_or_an_error(bytes: Vec<u8>) {
        let _ = Manifest::parse(&bytes);
    }
}

#[test]
fn the_second_form_of_the_model_is_listed_where_it_is_described() {
    let mut json = manifest_json();
    json["nnef"] = json!({"runtime": "tract-0.23.9", "rows_at_once": 16});
    assert!(format!("{}", parse(&json).expect_err("not listed")).contains("files"));
    let entry = json!({"name": "model.nnef", "digest": Digest([3; 32]), "size": 10});
    json["files"].as_array_mut().expect("files").insert(3, entry);
    let manifest = parse(&json).expect("sound");
    assert_eq!(manifest.lists(&BundleFile::ORDER), Ok(()));
    assert_eq!(manifest.lists(&BundleFile::ALL), Err(BundleError::Unlisted("model.nnef")));
    let plain = parse(&manifest_json()).expect("sound");
    assert_eq!(plain.lists(&BundleFile::ALL), Ok(()));
    assert_eq!(plain.lists(&BundleFile::ORDER), Err(BundleError::Unlisted("model.nnef")));
}

#[test]
fn a_prediction_is_a_class_or_a_value() {
    let with = |outputs: Value, prediction: Value| {
        let mut json = manifest_json();
        (json["outputs"], json["prediction"]) = (outputs, prediction);
        parse(&json).map_err(|error| format!("{error}"))
    };
    let scores = json!([
        {"name": "class", "datatype": "INT64", "shape": [-1]}, {"name": "p", "datatype": "FP32", "shape": [-1, 3]}
    ]);
    let price = json!([{"name": "price", "datatype": "FP32", "shape": [-1]}]);
    let spread = json!({"class": "class", "classes": 3, "probabilities": "p"});
    let manifest = with(scores.clone(), spread.clone()).expect("sound");
    let probabilities =
        manifest.prediction.as_ref().and_then(PredictionSpec::class).map(|class| &class.probabilities);
    assert!(probabilities.is_some_and(Option::is_some));
    let encoded = serde_json::to_value(&manifest.prediction).expect("json");
    assert_eq!(encoded, spread);
    assert!(with(price.clone(), json!({"value": "price"})).expect("sound").prediction.is_some());
    for (outputs, prediction, says) in [
        (&scores, json!({"class": "class"}), "number of classes"),
        (&scores, json!({"class": "class", "classes": 2, "probabilities": "p"}), "shape [-1, 2]"),
        (&price, json!({"value": "price", "classes": 2}), "a value and nothing else"),
        (&price, json!({"value": "cost"}), "prediction.value cost"),
    ] {
        let error = with(outputs.clone(), prediction).expect_err(says);
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_local_rollback_says_when() {
    let with = |policy: Value| {
        let mut json = manifest_json();
        json["local_rollback"] = policy;
        parse(&json).map_err(|error| format!("{error}"))
    };
    let collapse = |share: u16| json!({"collapse": {"share": share, "predictions": 100, "hold": 60_000}});
    assert!(with(collapse(9_800)).is_ok());
    assert!(with(json!({"errors": {"share": 500, "requests": 200}})).is_ok());
    assert!(with(json!({})).expect_err("nothing").contains("say errors or collapse"));
    assert!(with(collapse(10_000)).expect_err("never").contains("below 100 %"));
    assert!(with(json!({"errors": {"share": 0, "requests": 9}})).expect_err("always").contains("above 0"));
    let mut json = manifest_json();
    (json["prediction"], json["local_rollback"]) = (Value::Null, collapse(9_000));
    assert!(format!("{}", parse(&json).expect_err("no class")).contains("predicts no class"));
}
