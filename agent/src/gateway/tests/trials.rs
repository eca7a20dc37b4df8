//! A release on trial beside the one that answers.

use serin_protocol::assignment::TrialMode;
use serin_protocol::ids::{BasisPoints, BootId};
use serin_protocol::message::{Comparison, Role};

use super::*;
use crate::gateway::Beside;
use crate::telemetry::Stamp;

const LATER: Now = Now { wall: UnixMillis(10_000), elapsed: Millis(10_000) };

fn shadow(share: u16) -> TrialMode {
    TrialMode::Shadow { share: BasisPoints(share) }
}

/// Tries `served` as its supervisor would.
fn begin(stage: &Stage, served: &Arc<Served<Double>>, mode: TrialMode) {
    let role = if matches!(mode, TrialMode::Arm { .. }) { Role::Arm } else { Role::Shadow };
    served.recording().lock().enter_trial(role, "sums@1".parse().expect("id"));
    stage.router.set_beside(Some(Beside::new(Arc::clone(served), mode)));
}

fn comparison(served: &Served<Double>) -> Option<Comparison> {
    let mut stamp = Stamp::new("d".parse().expect("name"), BootId(1));
    let reports = served.recording().lock().cut(LATER, &mut stamp);
    reports.into_iter().find_map(|report| report.comparison)
}

fn asked(served: &Served<Double>) -> usize {
    served.worker().asked.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_shadow_computes_what_was_answered_and_answers_nobody() {
    let (stage, _live) = Stage::with(Mood::Answer).await;
    let tried = served(2, Mood::Answer, None);
    begin(&stage, &tried, shadow(10_000));
    for _ in 0..3 {
        assert_eq!(stage.infer(rows(&[[1.0, 2.0], [3.0, 4.0]])).await.json["model_version"], "1");
        let before = asked(&tried);
        eventually(|| counters(&tried).requests == before.max(1) as u64).await;
    }
    let comparison = comparison(&tried).expect("compared");
    assert_eq!((comparison.requests, comparison.rows), (3, 6));
    assert_eq!(comparison.agreed, 0, "it predicts another class");
    assert_eq!(comparison.distance.under, 6, "with the same sum");
}

#[tokio::test]
async fn a_slow_shadow_delays_nobody_and_is_not_waited_for() {
    let (stage, live) = Stage::with(Mood::Answer).await;
    let gate = Arc::new(Semaphore::new(0));
    let tried = served(2, Mood::Answer, Some(Arc::clone(&gate)));
    begin(&stage, &tried, shadow(10_000));
    for _ in 0..5 {
        assert_eq!(stage.infer(rows(&[[1.0, 2.0]])).await.status, StatusCode::OK);
    }
    eventually(|| asked(&tried) == 1).await;
    gate.add_permits(1);
    eventually(|| counters(&tried).requests == 1).await;
    let comparison = comparison(&tried).expect("compared");
    assert_eq!((comparison.requests, comparison.dropped), (1, 4));
    assert_eq!(counters(&live), counted(5, 0, 0));
}

#[tokio::test]
async fn a_shadow_that_fails_harms_nobody_and_is_counted() {
    let (stage, live) = Stage::with(Mood::Answer).await;
    let tried = served(2, Mood::Die, None);
    begin(&stage, &tried, shadow(10_000));
    assert_eq!(stage.infer(rows(&[[1.0, 2.0]])).await.status, StatusCode::OK);
    eventually(|| counters(&tried).errors == 1).await;
    assert_eq!(comparison(&tried).expect("failed").failed, 1);
    assert_eq!(counters(&live), counted(1, 0, 0));
}

#[tokio::test]
async fn a_shadow_gets_its_share() {
    let (stage, _live) = Stage::with(Mood::Answer).await;
    let tried = served(2, Mood::Answer, None);
    begin(&stage, &tried, shadow(2500));
    for _ in 0..8 {
        stage.infer(rows(&[[1.0, 2.0]])).await;
    }
    eventually(|| asked(&tried) == 2).await;
    // Nor is it given anything that another trial's end or a version in the path excludes.
    stage.router.set_beside(None);
    for _ in 0..4 {
        stage.infer(rows(&[[1.0, 2.0]])).await;
    }
    assert_eq!(asked(&tried), 2);
}

async fn version_for(stage: &Stage, headers: &[(&str, &str)], path: &str) -> String {
    let body = Bytes::from(rows(&[[1.0, 2.0]]).replace(r#""id":"42","#, ""));
    let (_, body) = exchange(stage.address, Method::POST, path, headers, body).await;
    let json: Value = serde_json::from_slice(&body).expect("json");
    json["model_version"].as_str().unwrap_or_else(|| panic!("{json}")).to_owned()
}

#[tokio::test]
async fn an_arm_answers_its_keys_always_and_who_has_none_gets_the_active_release() {
    let (stage, _live) = Stage::with(Mood::Answer).await;
    let arm = served(2, Mood::Answer, None);
    begin(&stage, &arm, TrialMode::Arm { share: BasisPoints(5000), salt: 3 });
    let infer = "/v2/models/sums/infer";
    let mut second = 0;
    for key in 0..40 {
        let key = format!("user-{key}");
        let headers = [("Serin-Request-Key", key.as_str())];
        let first = version_for(&stage, &headers, infer).await;
        assert_eq!(version_for(&stage, &headers, infer).await, first, "{key} stays where it is");
        second += usize::from(first == "2");
    }
    assert!((10..=30).contains(&second), "{second}");
    assert_eq!(version_for(&stage, &[], infer).await, "1");
    // Whoever names a version gets it.
    assert_eq!(version_for(&stage, &[], "/v2/models/sums/versions/2/infer").await, "2");
    assert_eq!(version_for(&stage, &[], "/v2/models/sums/versions/1/infer").await, "1");
    stage
        .ask(Method::POST, "/v2/models/other/infer", rows(&[[1.0, 2.0]]))
        .await
        .is_error(404, "no such model");
}

#[tokio::test]
async fn an_empty_key_is_nobodys() {
    let (stage, _live) = Stage::with(Mood::Answer).await;
    let arm = served(2, Mood::Answer, None);
    begin(&stage, &arm, TrialMode::Arm { share: BasisPoints(10_000), salt: 3 });
    let infer = "/v2/models/sums/infer";
    for (key, version) in [("", "1"), ("somebody", "2")] {
        assert_eq!(version_for(&stage, &[("Serin-Request-Key", key)], infer).await, version, "{key:?}");
    }
}

#[tokio::test]
async fn an_arm_is_described_where_it_answers() {
    let (stage, _live) = Stage::with(Mood::Answer).await;
    let arm = served(2, Mood::Answer, None);
    begin(&stage, &arm, shadow(10_000));
    stage.get("/v2/models/sums/versions/2/ready").await.is_error(404, "in version 1, not in");
    begin(&stage, &arm, TrialMode::Arm { share: BasisPoints(5000), salt: 3 });
    assert_eq!(stage.get("/v2/models/sums").await.json["versions"], json!(["1", "2"]));
    assert_eq!(stage.get("/v2/models/sums/versions/2").await.json["versions"], json!(["1", "2"]));
    assert_eq!(stage.get("/v2/models/sums/versions/2/ready").await.json["ready"], true);
    for (path, versions) in [
        ("/v2/models/sums/versions/2/stats", &["2"][..]),
        ("/v2/models/sums/versions/1/stats", &["1"]),
        ("/v2/models/sums/stats", &["1", "2"]),
        ("/v2/models/stats", &["1", "2"]),
    ] {
        let statistics = stage.get(path).await.json;
        let counted: Vec<_> =
            statistics["model_stats"].as_array().expect("a list").iter().map(|one| &one["version"]).collect();
        assert_eq!(counted, versions, "{path}");
    }
    stage.get("/v2/models/sums/versions/9/ready").await.is_error(404, "/v2/models/sums names all");
    stage.get("/v2/models/other/versions/2/ready").await.is_error(404, "no such model");
    let index = ask(stage.address, Method::POST, "/v2/repository/index", Bytes::new()).await;
    let versions = [&index.json[0]["version"], &index.json[1]["version"]];
    assert_eq!(versions, ["1", "2"]);
}

#[tokio::test]
async fn an_app_does_not_see_that_an_arm_dies() {
    let (stage, live) = Stage::with(Mood::Answer).await;
    let arm = served(2, Mood::Die, None);
    begin(&stage, &arm, TrialMode::Arm { share: BasisPoints::WHOLE, salt: 3 });
    let reply = stage.infer(rows(&[[1.0, 2.0]])).await;
    assert_eq!((reply.status, &reply.json["model_version"]), (StatusCode::OK, &json!("1")));
    assert_eq!((counters(&arm), counters(&live)), (counted(1, 1, 0), counted(1, 0, 0)));
}
