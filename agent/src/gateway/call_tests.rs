//! Requests for an inference: what is read, what is refused, and what any bytes become.

use super::*;
use proptest::prelude::*;
use serin_protocol::ids::Digest;

fn manifest() -> Manifest {
    let digest = Digest::of(b"");
    serde_json::from_value(serde_json::json!({
        "format": 1, "model": "m", "version": "1", "owner": "o", "description": "d",
        "lineage": { "git_commit": "0".repeat(40), "weights": digest, "data": digest, "schema_version": "1" },
        "runtime": "tract-0.23", "targets": [],
        "inputs": [
            { "name": "x", "datatype": "FP32", "shape": [-1, 2] },
            { "name": "y", "datatype": "FP32", "shape": [-1] },
        ],
        "outputs": [{ "name": "class", "datatype": "INT64", "shape": [-1] }],
        "prediction": null,
        "measured": { "minimum_memory": 1, "memory_limit": 1, "peak_resident": 1,
                      "latency_p50_micros": 1, "latency_p99_micros": 1, "load_micros": 1 },
        "files": [],
    }))
    .expect("a manifest")
}

const X: &str = r#"{"name":"x","datatype":"FP32","shape":[2,2],"data":[[1,2],[3,null]]}"#;
const Y: &str = r#"{"name":"y","datatype":"FP32","shape":[2],"data":[5,6]}"#;

fn parse(inputs: &str, rest: &str) -> Result<Call, String> {
    Call::parse(format!(r#"{{"inputs":[{inputs}]{rest}}}"#).as_bytes(), &manifest())
}

#[test]
fn a_request_becomes_headers_and_one_body() {
    let call = parse(&format!("{Y},{X}"), r#","id":"a","outputs":[{"name":"class"}],"parameters":{"any":1}"#)
        .expect("valid");
    let numbers: Vec<f32> = call.body.as_chunks().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect();
    assert_eq!(numbers[..5], [5.0, 6.0, 1.0, 2.0, 3.0]);
    assert!(numbers[5].is_nan());
    let names: Vec<_> = call.inputs.iter().map(|input| (input.name.as_str(), input.bytes)).collect();
    assert_eq!(names, [("y", 8), ("x", 16)]);
    assert_eq!((call.id.as_deref(), call.outputs.len()), (Some("a"), 1));
}

#[test]
fn what_does_not_fit_the_model_is_named() {
    let wrong = |inputs: &str, named: &str| {
        let message = parse(inputs, "").expect_err(inputs);
        assert!(message.contains(named), "{message}");
    };
    wrong(X, "y is missing");
    wrong(&format!("{X},{Y},{X}"), "x is given twice");
    wrong(&format!("{X},{Y},{}", Y.replace("\"y\"", "\"z\"")), "no input z");
    wrong(&format!("{X},{}", Y.replace("FP32", "INT64")), "only FP32");
    wrong(&format!("{X},{}", Y.replace("FP32", "FP64")), "FP64");
    wrong(&format!("{X},{}", Y.replace("[2]", "[3]")), "does not hold the 2 values");
    wrong(&format!("{X},{}", Y.replace("[2]", "[1,2]")), "wants the shape [-1]");
    wrong(&format!("{X},{}", Y.replace("[2]", "[-2]")), "malformed");
    wrong(&format!("{X},{}", Y.replace("[2]", "[1,1,1,1,1,1,1,1,2]")), "malformed");
    wrong(&format!("{Y},{}", X.replace("[2,2]", "[4,1]")), "nested as [2, 2]");
    wrong(
        &format!("{Y},{}", X.replace("[2,2]", "[4,1]").replace("[[1,2],[3,null]]", "[1,2,3,4]")),
        "[-1, 2]",
    );
    wrong(&format!("{X},{}", Y.replace("[5,6]", "[5]").replace("[2]", "[1]")), "different numbers of rows");
    wrong(&format!("{X},{}", Y.replace("[5,6]", "[]").replace("[2]", "[0]")), "no row");
    wrong(&format!("{X},{}", Y.replace("[5,6]", "[5,\"6\"]")), "numbers");
    wrong(&format!("{X},{}", Y.replace(",\"data\":[5,6]", "")), "data is missing");
    wrong(
        &format!("{X},{}", Y.replace("\"data\":[5,6]", "\"parameters\":{\"binary_data_size\":8}")),
        "binary",
    );
    wrong(&[Y; 33].join(","), "at most 32");
}

#[test]
fn outputs_that_cannot_be_made_are_refused() {
    let wrong = |rest: &str, named: &str| {
        let message = parse(&format!("{X},{Y}"), rest).expect_err(rest);
        assert!(message.contains(named), "{message}");
    };
    wrong(r#","outputs":[{"name":"other"}]"#, "no output other");
    wrong(r#","outputs":[{"name":"class","parameters":{"binary_data":true}}]"#, "binary");
    wrong(r#","outputs":[{"name":"class","parameters":{"classification":3}}]"#, "classification");
    wrong(&format!(r#","id":"{}""#, "x".repeat(257)), "id");
}

proptest! {
    #[test]
    fn any_bytes_are_a_call_or_an_error(bytes: Vec<u8>) {
        let _ = Call::parse(&bytes, &manifest());
    }
}
