//! What turned out to be true is taken once, and what is not taken is told why.

use super::*;
use serin_protocol::sketch::Quality;

fn told(reply: &Reply) -> (u64, Vec<&str>) {
    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    let refused = reply.json["refused"].as_array().expect("a list");
    let codes = refused.iter().map(|one| one["code"].as_str().expect("a code")).collect();
    (reply.json["taken"].as_u64().expect("a number"), codes)
}

async fn label(stage: &Stage, labels: Value) -> Reply {
    stage.ask(Method::POST, "/v2/labels", json!({ "labels": labels }).to_string()).await
}

#[tokio::test]
async fn a_label_finds_its_row_by_the_id_of_the_request_or_of_its_answer() {
    let (stage, served) = Stage::with(Mood::Answer).await;
    let answer = stage.infer(rows(&[[1.0, 2.0], [3.0, 4.0]])).await;
    let name = answer.headers["x-request-id"].to_str().expect("text").to_owned();
    // The double says class 1 of everything.
    let labels = json!([{ "id": "42", "value": 1 }, { "id": name, "row": 1, "value": "3" }]);
    assert_eq!(told(&label(&stage, labels).await), (2, vec![]));
    let labels = json!([
        { "id": "42", "row": 1, "value": 1 },
        { "id": "42", "row": 2, "value": 1 },
        { "id": "43", "value": 1 },
    ]);
    assert_eq!(told(&label(&stage, labels).await), (0, vec!["known", "no_row", "unknown"]));
    let mut stamp = crate::telemetry::Stamp::new("d1".parse().expect("id"), serin_protocol::ids::BootId(1));
    let now = Now { wall: UnixMillis(500), elapsed: Millis(500) };
    let reports = served.recording().lock().cut(now, &mut stamp);
    let Some(Quality::Classes(classes)) = &reports[0].quality else { panic!("classes") };
    assert_eq!((classes.labelled, classes.right), (2, 1));
}

#[tokio::test]
async fn an_empty_id_names_no_request() {
    let (stage, _) = Stage::with(Mood::Answer).await;
    let mut request: Value = serde_json::from_str(&rows(&[[1.0, 2.0]])).expect("json");
    request["id"] = "".into();
    let name =
        stage.infer(request.to_string()).await.headers["x-request-id"].to_str().expect("text").to_owned();
    assert_eq!(told(&label(&stage, json!([{ "id": "", "value": 1 }])).await), (0, vec!["unknown"]));
    assert_eq!(told(&label(&stage, json!([{ "id": name, "value": 1 }])).await), (1, vec![]));
}

#[tokio::test]
async fn what_is_not_to_be_remembered_is_not() {
    let (stage, _) = Stage::with(Mood::Answer).await;
    let mut request: Value = serde_json::from_str(&rows(&[[1.0, 2.0]])).expect("json");
    request["parameters"] = json!({ "remember": false });
    assert_eq!(stage.infer(request.to_string()).await.status, StatusCode::OK);
    assert_eq!(told(&label(&stage, json!([{ "id": "42", "value": 1 }])).await), (0, vec!["unknown"]));
}

#[tokio::test]
async fn a_wrong_label_may_be_told_again() {
    let (stage, _) = Stage::with(Mood::Answer).await;
    stage.infer(rows(&[[1.0, 2.0]])).await;
    assert_eq!(
        told(&label(&stage, json!([{ "id": "42", "value": "cucumber" }])).await),
        (0, vec!["no_class"])
    );
    assert_eq!(told(&label(&stage, json!([{ "id": "42", "value": 2 }])).await), (1, vec![]));
}

#[tokio::test]
async fn an_odd_value_keeps_no_other_label_from_counting() {
    let (stage, _) = Stage::with(Mood::Answer).await;
    stage.infer(rows(&[[1.0, 2.0], [3.0, 4.0]])).await;
    for odd in [json!(true), json!(null), json!([1]), json!({ "class": 1 })] {
        let labels = json!([{ "id": "42", "row": 1, "value": odd }, { "id": "7", "value": 1 }]);
        assert_eq!(told(&label(&stage, labels).await), (0, vec!["no_class", "unknown"]));
    }
    let labels = json!([{ "id": "42", "value": 1 }, { "id": "42", "row": 1, "value": true }]);
    assert_eq!(told(&label(&stage, labels).await), (1, vec!["no_class"]));
}

#[tokio::test]
async fn labels_of_a_release_that_is_gone_do_not_count() {
    let (stage, served) = Stage::with(Mood::Answer).await;
    stage.infer(rows(&[[1.0, 2.0]])).await;
    served.recording().lock().close();
    assert_eq!(told(&label(&stage, json!([{ "id": "42", "value": 1 }])).await), (0, vec!["gone"]));
}

#[tokio::test]
async fn what_is_no_list_of_labels_is_refused() {
    let (stage, _) = Stage::with(Mood::Answer).await;
    stage.get("/v2/labels").await.is_error(405, "POST");
    stage.ask(Method::POST, "/v2/labels", "{}").await.is_error(400, "labels");
    let many: Vec<Value> = (0..1001).map(|at| json!({ "id": at.to_string(), "value": 1 })).collect();
    label(&stage, many.into()).await.is_error(400, "more than 1000");
    label(&stage, json!([{ "id": "42", "value": 1, "why": "" }])).await.is_error(400, "malformed labels");
}
