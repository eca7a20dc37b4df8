//! What is answered to good and to bad requests, and what of it is counted.

use serde_json::json;
use serin_protocol::ids::{BootId, Millis, UnixMillis};

use super::*;
use crate::gateway::refusal::WORKER_DIED;
use crate::telemetry::Stamp;

#[tokio::test]
async fn rows_come_back_as_outputs_and_are_counted() {
    let (stage, served) = Stage::with(Mood::Answer).await;
    let reply = stage.infer(rows(&[[1.0, 2.0], [f32::NAN, 4.0]])).await;
    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    assert_eq!(reply.headers["content-type"], "application/json");
    let expected = json!({
        "model_name": "sums", "model_version": "1", "id": "42",
        "outputs": [
            { "name": "sum", "datatype": "FP32", "shape": [2], "data": [3.0, null] },
            { "name": "class", "datatype": "INT64", "shape": [2], "data": [1, 1] },
        ],
    });
    assert_eq!(reply.json, expected);

    let mut stamp = Stamp::new("d".parse().expect("id"), BootId(1));
    let now = Now { wall: UnixMillis(1000), elapsed: Millis(1000) };
    let report = served.recording().lock().roll(now, &mut stamp).remove(0);
    assert_eq!((report.requests, report.latency.total()), (1, 1));
    let seen: Vec<_> = report.features.iter().map(|one| (one.present(), one.missing)).collect();
    assert_eq!(seen, [(1, 1), (2, 0)]);
    assert_eq!(report.predictions.counts[1], 2);
}

#[tokio::test]
async fn flat_data_and_chosen_outputs_work_too() {
    let (stage, _served) = Stage::with(Mood::Answer).await;
    let input = json!({ "name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4] });
    let body = json!({ "inputs": [input], "outputs": [{ "name": "sum" }] }).to_string();
    let reply = stage.ask(Method::POST, "/v2/models/sums/versions/1/infer", body).await;
    let outputs = json!([{ "name": "sum", "datatype": "FP32", "shape": [2], "data": [3.0, 7.0] }]);
    assert_eq!(reply.json, json!({ "model_name": "sums", "model_version": "1", "outputs": outputs }));
}

#[tokio::test]
async fn server_and_model_describe_themselves() {
    let (stage, _served) = Stage::with(Mood::Answer).await;
    let server = stage.get("/v2").await.json;
    let extensions = json!(["binary_tensor_data", "statistics", "labels"]);
    assert_eq!((&server["name"], &server["extensions"]), (&json!("serin-agent"), &extensions));
    assert_eq!(stage.get("/v2/health/live").await.json, json!({ "live": true }));
    assert_eq!(stage.get("/v2/health/ready").await.json, json!({ "ready": true }));
    for path in ["/v2/models/sums", "/v2/models/sums/versions/1"] {
        let model = stage.get(path).await.json;
        assert_eq!((&model["versions"], &model["platform"]), (&json!(["1"]), &json!("tract_onnx")));
        let input = json!({ "name": "x", "datatype": "FP32", "shape": [-1, 2],
                            "parameters": { "features": ["a", "b"] } });
        assert_eq!(model["inputs"], json!([input]));
    }
    for path in ["/v2/models/sums/ready", "/v2/models/sums/versions/1/ready"] {
        assert_eq!(stage.get(path).await.json, json!({ "name": "sums", "ready": true }));
    }
}

#[tokio::test]
async fn a_device_without_a_release_is_alive_but_not_ready() {
    let stage = Stage::open(quick()).await;
    assert_eq!(stage.get("/v2/health/live").await.status, StatusCode::OK);
    let ready = stage.get("/v2/health/ready").await;
    assert_eq!((ready.status.as_u16(), ready.json), (503, json!({ "ready": false })));
    let reply = stage.infer(rows(&[[1.0, 2.0]])).await;
    reply.is_error(503, "no release is active");
    assert_eq!(reply.headers["retry-after"], "1");
    stage.get("/v2/models/sums").await.is_error(503, "no release is active");
}

#[tokio::test]
async fn bad_requests_are_refused_with_what_is_wrong_and_counted() {
    let (stage, served) = Stage::with(Mood::Answer).await;
    let input = |datatype: &str, shape: &str, data: &str| {
        format!(r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"data":{data}}}]}}"#)
    };
    for (body, named) in [
        (String::new(), "malformed request"),
        ("{".into(), "malformed request"),
        ("[]".into(), "malformed request"),
        (r#"{"inputs":[]}"#.into(), "input x is missing"),
        (input("FP32", "[1,2]", "[1]"), "does not hold the 1 values"),
        (input("FP32", "[1,3]", "[1,2,3]"), "wants the shape [-1, 2]"),
        (input("FP32", "[2]", "[1,2]"), "wants the shape [-1, 2]"),
        (input("INT64", "[1,2]", "[1,2]"), "FP32"),
        (input("BOOL", "[1,2]", "[1,2]"), "BOOL"),
        (input("FP32", "[1,2]", "[1,\"2\"]"), "malformed request"),
        (input("FP32", "[1,2]", "[1,NaN]"), "malformed request"),
        (input("FP32", "[1,2]", "[1,1e300]"), "too large for a 32-bit float"),
        (input("FP32", "[18446744073709551615,2]", "[1,2]"), "malformed request"),
        (input("FP32", "[0,2]", "[]"), "no row"),
    ] {
        stage.infer(body).await.is_error(400, named);
    }
    assert_eq!(counters(&served), counted(0, 0, 14));
    assert_eq!(served.worker().asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn unknown_models_versions_and_paths_are_not_found() {
    let (stage, served) = Stage::with(Mood::Answer).await;
    let one = rows(&[[1.0, 2.0]]);
    for path in ["/v2/models/other/infer", "/v2/models/sums/versions/2/infer", "/v2/models/%73ums/infer"] {
        let named = if path.contains("versions") { "not in the one asked for" } else { "only" };
        stage.ask(Method::POST, path, one.clone()).await.is_error(404, named);
    }
    assert_eq!(counters(&served), counted(0, 0, 3));
    for path in ["/v2/models/sums/versions/2", "/v2/models/sums/versions/2/ready"] {
        stage.get(path).await.is_error(404, "not in the one asked for");
    }
    stage.get("/v2/models/other").await.is_error(404, "only");
    for path in ["/", "/v1", "/v2/models", "/metrics"] {
        stage.get(path).await.is_error(404, path);
    }
}

#[tokio::test]
async fn a_version_that_is_kept_warm_is_named_and_does_not_answer() {
    let (stage, _served) = Stage::with(Mood::Answer).await;
    stage.router.say_warm(Some(&"sums@0".parse().expect("id")));
    for path in ["/v2/models/sums/versions/0", "/v2/models/sums/versions/0/ready"] {
        stage.get(path).await.is_error(404, "version 1; version 0 is only kept ready");
    }
    let reply = stage.ask(Method::POST, "/v2/models/sums/versions/0/infer", rows(&[[1.0, 2.0]])).await;
    reply.is_error(404, "rollback");
    stage.router.say_warm(None);
    let reply = stage.get("/v2/models/sums/versions/0").await;
    reply.is_error(404, "in version 1, not in");
    assert!(!reply.json.to_string().contains("rollback"));
}

#[tokio::test]
async fn statistics_are_what_was_counted() {
    let (stage, served) = Stage::with(Mood::Answer).await;
    stage.infer(rows(&[[1.0, 2.0], [3.0, 4.0]])).await;
    stage.infer(rows(&[[1.0, 2.0]])).await;
    stage.infer("{").await;
    for path in ["/v2/models/stats", "/v2/models/sums/stats", "/v2/models/sums/versions/1/stats"] {
        let said = stage.get(path).await.json;
        let stats = &said["model_stats"][0];
        let counts = ["inference_count", "execution_count"].map(|name| stats[name].as_u64());
        assert_eq!((counts, stats["version"].as_str()), ([Some(3), Some(2)], Some("1")));
        let inferences = &stats["inference_stats"];
        assert_eq!(inferences["queue"], json!({ "count": 2, "ns": 40_000 }));
        assert_eq!(inferences["compute_infer"], json!({ "count": 2, "ns": 200_000 }));
        assert_eq!((&inferences["success"]["count"], &inferences["fail"]["count"]), (&json!(2), &json!(0)));
        assert!(stats["last_inference"].as_u64().is_some_and(|millis| millis > 1_600_000_000_000));
    }
    assert_eq!(counters(&served), counted(2, 0, 1));
    stage.get("/v2/models/other/stats").await.is_error(404, "only");
    stage.router.flip(None);
    stage.get("/v2/models/stats").await.is_error(503, "no release");
}

#[tokio::test]
async fn the_repository_lists_what_answers() {
    let (stage, _served) = Stage::with(Mood::Answer).await;
    let index = stage.ask(Method::POST, "/v2/repository/index", "{}").await.json;
    assert_eq!(index, json!([{ "name": "sums", "version": "1", "state": "READY", "reason": "" }]));
    stage.router.flip(None);
    assert_eq!(stage.ask(Method::POST, "/v2/repository/index", "").await.json, json!([]));
    stage.get("/v2/repository/index").await.is_error(405, "POST");
}

#[tokio::test]
async fn extensions_that_are_not_here_say_so() {
    let (stage, _served) = Stage::with(Mood::Answer).await;
    for path in
        ["/v2/models/sums/config", "/v2/trace/setting", "/v2/systemsharedmemory/status", "/v2/logging"]
    {
        stage.get(path).await.is_error(501, "not supported");
    }
    stage.ask(Method::POST, "/v2/repository/models/sums/unload", "{}").await.is_error(501, "not supported");
}

#[tokio::test]
async fn the_wrong_method_is_told_the_right_one() {
    let (stage, _served) = Stage::with(Mood::Answer).await;
    let reply = stage.get("/v2/models/sums/infer").await;
    reply.is_error(405, "POST");
    assert_eq!(reply.headers["allow"], "POST");
    for path in ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/sums", "/v2/models/sums/ready"] {
        let reply = stage.ask(Method::DELETE, path, "").await;
        reply.is_error(405, "GET");
        assert_eq!(reply.headers["allow"], "GET, HEAD");
        let (head, body) = exchange(stage.address, Method::HEAD, path, &[], Bytes::new()).await;
        assert!(head.status == StatusCode::OK && body.is_empty(), "{path}: {head:?}");
    }
}

#[tokio::test]
async fn what_the_worker_says_becomes_a_status_and_a_count() {
    for (mood, status, text, retry, counted) in [
        (Mood::Fail, 500, "division by cucumber", false, counted(1, 1, 0)),
        (Mood::Refuse, 400, "too many rows", false, counted(0, 0, 1)),
        (Mood::Busy, 429, "waiting", true, counted(0, 0, 1)),
        (Mood::Die, 503, "memory limit", true, counted(1, 1, 0)),
        (Mood::Miss, 503, "before it came", true, counted(0, 0, 0)),
        (Mood::Stop, 503, "stopped", true, counted(0, 0, 0)),
    ] {
        let (stage, served) = Stage::with(mood).await;
        let reply = stage.infer(rows(&[[1.0, 2.0]])).await;
        reply.is_error(status, text);
        assert_eq!(reply.headers.contains_key("retry-after"), retry, "{mood:?}");
        assert_eq!(reply.headers.contains_key(WORKER_DIED), mood == Mood::Die, "{mood:?}");
        assert_eq!(counters(&served), counted, "{mood:?}");
    }
}

#[tokio::test]
async fn field_commands_are_not_taken_over_tcp() {
    let (stage, _served) = Stage::with(Mood::Answer).await;
    stage.get("/field/v1/status").await.is_error(404, "Unix socket");
    stage.ask(Method::POST, "/field/v1/rollback", "").await.is_error(404, "Unix socket");
}

#[tokio::test]
async fn a_web_page_from_elsewhere_gets_nothing() {
    let (stage, _served) = Stage::with(Mood::Answer).await;
    for (headers, status) in [
        ("Host: evil.example\r\n", "403"),
        ("Host: localhost\r\nOrigin: https://evil.example\r\n", "403"),
        ("", "400"),
        ("Host: localhost\r\n", "200"),
    ] {
        let request = format!("GET /v2 HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
        let answer = connections::exchange(stage.address, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{headers:?}: {answer}");
    }
}
