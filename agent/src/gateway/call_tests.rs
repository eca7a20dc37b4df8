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
    Call::parse(&format!(r#"{{"inputs":[{inputs}]{rest}}}"#).into(), None, &manifest())
}

/// The same with raw values behind the JSON.
fn parse_raw(inputs: &str, rest: &str, raw: &[f32]) -> Result<(Call, Bytes), String> {
    let json = format!(r#"{{"inputs":[{inputs}]{rest}}}"#);
    let mut body = json.clone().into_bytes();
    body.extend(raw.iter().flat_map(|value| value.to_le_bytes()));
    let body = Bytes::from(body);
    Call::parse(&body, Some(json.len() as u64), &manifest()).map(|call| (call, body))
}

fn binary(name: &str, shape: &str, size: &str) -> String {
    let parameters = format!(r#"{{"binary_data_size":{size},"unknown":[1]}}"#);
    format!(r#"{{"name":"{name}","datatype":"FP32","shape":{shape},"parameters":{parameters}}}"#)
}

#[test]
fn raw_values_are_taken_in_the_order_of_the_inputs_and_not_copied() {
    let inputs = format!("{},{}", binary("y", "[2]", "8"), binary("x", "[2,2]", "16"));
    let numbers = [5.0, 6.0, 1.0, 2.0, 3.0, f32::NAN];
    let (call, body) =
        parse_raw(&inputs, r#","parameters":{"binary_data_output":true,"priority":1}"#, &numbers)
            .expect("valid");
    assert_eq!(call.body, body.slice(body.len() - 24..));
    assert_eq!(call.body.as_ptr(), body.slice(body.len() - 24..).as_ptr());
    assert_eq!(call.inputs.iter().map(|input| input.bytes).collect::<Vec<_>>(), [8, 16]);
    assert_eq!(call.wanted, Wanted { outputs: vec![], binary: true });
}

#[test]
fn a_field_that_is_null_is_as_good_as_none_and_a_request_is_an_object() {
    let x = X.replace('}', r#","parameters":null}"#);
    let rest = r#","id":null,"parameters":null,"outputs":null"#;
    assert_eq!(parse(&format!("{x},{Y}"), rest), parse(&format!("{X},{Y}"), ""));
    let output = r#","outputs":[{"name":"class","parameters":null}]"#;
    assert_eq!(parse(&format!("{X},{Y}"), output).expect("valid").wanted.outputs.len(), 1);
    for text in ["[]", " [null,[]]", "7", "\"x\""] {
        let error = Call::parse(&text.into(), None, &manifest()).expect_err(text);
        assert!(error.contains("no JSON object"), "{error}");
    }
}

#[test]
fn json_and_raw_inputs_may_be_mixed() {
    for (inputs, order) in [
        (format!("{X},{}", binary("y", "[2]", "8")), [1.0, 2.0, 3.0, f32::NAN, 5.0, 6.0]),
        (format!("{},{X}", binary("y", "[2]", "8")), [5.0, 6.0, 1.0, 2.0, 3.0, f32::NAN]),
    ] {
        let (call, _) = parse_raw(&inputs, "", &[5.0, 6.0]).expect("valid");
        let expected: Vec<u8> = order.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(call.body, expected);
    }
}

#[test]
fn raw_values_that_do_not_fit_are_named() {
    let wrong = |inputs: &str, raw: usize, named: &str| {
        let message = parse_raw(inputs, "", &vec![1.0; raw]).expect_err(inputs);
        assert!(message.contains(named), "{message}");
    };
    let y = |size: &str| format!("{X},{}", binary("y", "[2]", size));
    wrong(&y("8"), 1, "4 bytes are left");
    wrong(&y("8"), 3, "4 bytes follow");
    wrong(&y("4"), 1, "do not hold [2]");
    wrong(&y("-8"), 2, "malformed");
    wrong(&y("\"8\""), 2, "malformed");
    wrong(&y("18446744073709551615"), 2, "bytes are left");
    wrong(&format!("{X},{Y}"), 1, "4 bytes follow");
    wrong(&format!("{X},{}", binary("y", "[2]", "8").replace("FP32", "INT64")), 2, "do not hold");
    wrong(&format!("{X},{}", binary("y", "[1]", "8").replace("FP32", "INT64")), 2, "wants FP32");
    wrong(&format!("{X},{}", binary("y", "[1,2]", "8")), 2, "wants the shape [-1]");
    wrong(
        &format!("{X},{}", binary("y", "[2]", "8").replace("{\"b", "{\"shared_memory_region\":\"r\",\"b")),
        2,
        "shared",
    );
    wrong(&format!("{X},{}", Y.replace('}', ",\"parameters\":{\"binary_data_size\":8}}")), 2, "both");
    let text = format!(r#"{{"inputs":[{X},{Y}]}}"#);
    for (json, named) in [(text.len() as u64 + 1, "the body has"), (3, "malformed")] {
        let message = Call::parse(&text.clone().into(), Some(json), &manifest()).expect_err("refused");
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn an_output_says_for_itself_whether_it_is_raw() {
    let wanted = |rest: &str| {
        let call = parse(&format!("{X},{Y}"), rest).expect("valid");
        call.wanted.outputs.into_iter().map(|output| output.binary).collect::<Vec<_>>()
    };
    let all = r#","parameters":{"binary_data_output":true}"#;
    assert_eq!(wanted(r#","outputs":[{"name":"class","parameters":{"binary_data":true}}]"#), [true]);
    assert_eq!(wanted(r#","outputs":[{"name":"class"}]"#), [false]);
    assert_eq!(wanted(&format!(r#","outputs":[{{"name":"class"}}]{all}"#)), [true]);
    let own = r#","outputs":[{"name":"class","parameters":{"binary_data":false}}]"#;
    assert_eq!(wanted(&format!("{own}{all}")), [false]);
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
    assert_eq!((call.id.as_deref(), call.wanted.outputs.len()), (Some("a"), 1));
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
    wrong(&format!("{X},{}", Y.replace("FP32", "INT64")), "wants FP32, not INT64");
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
        "0 bytes are left",
    );
    wrong(&[Y; 129].join(","), "at most 128");
}

#[test]
fn outputs_that_cannot_be_made_are_refused() {
    let wrong = |rest: &str, named: &str| {
        let message = parse(&format!("{X},{Y}"), rest).expect_err(rest);
        assert!(message.contains(named), "{message}");
    };
    wrong(r#","outputs":[{"name":"other"}]"#, "no output other");
    wrong(r#","outputs":[{"name":"class"},{"name":"class"}]"#, "twice");
    wrong(r#","outputs":[{"name":"class","parameters":{"shared_memory_region":"r"}}]"#, "shared");
    wrong(r#","outputs":[{"name":"class","parameters":{"classification":3}}]"#, "classification");
    wrong(&format!(r#","id":"{}""#, "x".repeat(257)), "id");
}

proptest! {
    #[test]
    fn any_bytes_are_a_call_or_an_error(bytes: Vec<u8>, json: u64) {
        let body = Bytes::from(bytes);
        for json in [None, Some(json), Some(json % 64)] {
            let _ = Call::parse(&body, json, &manifest());
        }
    }

    #[test]
    fn sizes_that_agree_are_a_call_whose_body_is_the_raw_part(rows in 1_u32..9, off in -1_i64..2) {
        let (x, y) = (i64::from(rows) * 8, i64::from(rows) * 4 + off);
        let inputs = format!(
            "{},{}", binary("x", &format!("[{rows},2]"), &x.to_string()), binary("y", &format!("[{rows}]"), &y.to_string())
        );
        let raw = vec![0.5; rows as usize * 3];
        let parsed = parse_raw(&inputs, "", &raw);
        prop_assert_eq!(parsed.is_ok(), off == 0);
        if let Ok((call, _)) = parsed {
            prop_assert_eq!(call.body.len(), raw.len() * 4);
        }
    }
}
