//! Raw values behind the JSON of requests and answers, over real connections.

use serde_json::json;

use super::*;

const PATH: &str = "/v2/models/sums/infer";

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// JSON with `raw` behind it, and the length of the JSON.
fn body(json: &Value, raw: &[u8]) -> (Bytes, String) {
    let text = json.to_string();
    (Bytes::from([text.as_bytes(), raw].concat()), text.len().to_string())
}

fn input(rows: usize, size: usize) -> Value {
    json!({ "name": "x", "datatype": "FP32", "shape": [rows, 2], "parameters": { "binary_data_size": size } })
}

async fn send(stage: &Stage, json: &Value, raw: &[u8]) -> (Parts, Bytes) {
    let (body, length) = body(json, raw);
    exchange(stage.address, Method::POST, PATH, &[("Inference-Header-Content-Length", &length)], body).await
}

#[tokio::test]
async fn raw_values_in_and_out() {
    let (stage, served) = Stage::with(Mood::Answer).await;
    let request =
        json!({ "id": "7", "inputs": [input(2, 16)], "parameters": { "binary_data_output": true } });
    let (head, answer) = send(&stage, &request, &floats(&[1.0, 2.0, 3.0, f32::NAN])).await;
    assert_eq!(head.status, StatusCode::OK, "{answer:?}");
    assert_eq!(head.headers["content-type"], "application/octet-stream");
    let length: usize =
        head.headers["inference-header-content-length"].to_str().expect("text").parse().expect("number");
    let (text, raw) = answer.split_at(length);
    let said: Value = serde_json::from_slice(text).expect("json");
    let output = |name: &str, datatype: &str, size: usize| json!({ "name": name, "datatype": datatype, "shape": [2], "parameters": { "binary_data_size": size } });
    assert_eq!(said["outputs"], json!([output("sum", "FP32", 8), output("class", "INT64", 16)]));
    assert_eq!(said["id"], "7");
    assert_eq!(raw[..4], 3.0_f32.to_le_bytes());
    assert_eq!(raw[8..], [1_i64.to_le_bytes(), 1_i64.to_le_bytes()].concat());
    assert_eq!(counters(&served), counted(1, 0, 0));
}

#[tokio::test]
async fn one_output_raw_and_one_as_json() {
    let (stage, _served) = Stage::with(Mood::Answer).await;
    let outputs = json!([{ "name": "class" }, { "name": "sum", "parameters": { "binary_data": true } }]);
    let (head, answer) =
        send(&stage, &json!({ "inputs": [input(1, 8)], "outputs": outputs }), &floats(&[1.0, 2.0])).await;
    assert!(answer.ends_with(&3.0_f32.to_le_bytes()), "{answer:?}");
    let json = &answer[..answer.len() - 4];
    assert_eq!(head.headers["inference-header-content-length"], json.len().to_string());
    let said: Value = serde_json::from_slice(json).expect("json");
    assert_eq!(said["outputs"][0]["data"], json!([1]));
    // Raw in, JSON out.
    let (head, answer) = send(&stage, &json!({ "inputs": [input(1, 8)] }), &floats(&[1.0, 2.0])).await;
    assert!(!head.headers.contains_key("inference-header-content-length"));
    let said: Value = serde_json::from_slice(&answer).expect("json");
    assert_eq!(said["outputs"][0]["data"], json!([3.0]));
}

#[tokio::test]
async fn raw_values_that_do_not_fit_are_refused_and_counted() {
    let (stage, served) = Stage::with(Mood::Answer).await;
    let two = floats(&[1.0, 2.0]);
    let good = json!({ "inputs": [input(1, 8)] });
    let mut refused = 0;
    for (json, raw, named) in [
        (&good, &two[..7], "7 bytes are left"),
        (&good, &[&two[..], &[0]].concat()[..], "1 bytes follow"),
        (&json!({ "inputs": [input(2, 8)] }), &two, "do not hold [2, 2]"),
        (&json!({ "inputs": [input(1, 4)] }), &two[..4], "do not hold [1, 2]"),
        (&good, &floats(&[1.0, f32::INFINITY]), "value 1 is infinite"),
    ] {
        let (head, answer) = send(&stage, json, raw).await;
        let said: Value = serde_json::from_slice(&answer).expect("json");
        assert!(
            head.status == 400 && said["error"].as_str().is_some_and(|error| error.contains(named)),
            "{said}"
        );
        refused += 1;
        assert_eq!(counters(&served), counted(0, 0, refused));
    }
    for (length, named) in
        [("x", "a number"), ("-1", "a number"), ("9999", "the body has"), ("5", "malformed")]
    {
        let (bytes, _) = body(&good, &two);
        let headers = [("Inference-Header-Content-Length", length)];
        let (head, answer) = exchange(stage.address, Method::POST, PATH, &headers, bytes).await;
        let said: Value = serde_json::from_slice(&answer).expect("json");
        assert!(
            head.status == 400 && said["error"].as_str().is_some_and(|error| error.contains(named)),
            "{said}"
        );
    }
    let (bytes, length) = body(&good, &two);
    let headers = [("Inference-Header-Content-Length", length.as_str()), ("Content-Encoding", "gzip")];
    let (head, _) = exchange(stage.address, Method::POST, PATH, &headers, bytes).await;
    assert_eq!(head.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!((counters(&served).refused, served.worker().asked.load(Ordering::SeqCst)), (refused + 5, 0));
}

#[tokio::test]
async fn every_answer_to_an_inference_carries_its_name() {
    let (stage, _served) = Stage::with(Mood::Answer).await;
    let good = Bytes::from(rows(&[[1.0, 2.0]]));
    let named = |headers: &'static [(&str, &str)], body: Bytes| async move {
        let (head, _) = exchange(stage.address, Method::POST, PATH, headers, body).await;
        (head.status.as_u16(), head.headers["x-request-id"].to_str().expect("text").to_owned())
    };
    assert_eq!(named(&[("X-Request-Id", "app-7")], good.clone()).await, (200, "app-7".into()));
    assert_eq!(named(&[("X-Request-Id", "app-8")], Bytes::new()).await, (400, "app-8".into()));
    let (one, other) = (named(&[], good.clone()).await.1, named(&[("X-Request-Id", "a b")], good).await.1);
    assert!(one != other && one.ends_with("-1") && other.ends_with("-2"), "{one} {other}");
}
