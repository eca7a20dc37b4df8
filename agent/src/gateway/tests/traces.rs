//! What traces tell of a request, and what they do not.

use tracing_subscriber::layer::SubscriberExt as _;

use super::*;
use crate::logs::{Logs, Wanted};

#[tokio::test]
async fn a_request_is_traced_by_its_names_and_release_and_without_its_values() {
    let logs = Logs::default();
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(logs.clone());
    // Of this thread, on which everything here runs.
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let (stage, _served) = Stage::with(Mood::Answer).await;
    let input = |data: &str| {
        let input = format!(r#"{{"name":"x","datatype":"FP32","shape":[1,2],"data":{data}}}"#);
        Bytes::from(format!(r#"{{"id":"order\n7","inputs":[{input}]}}"#))
    };
    let path = "/v2/models/sums/infer";
    for (name, data) in [("app-1", "[424242.5, 1]"), ("app-2", "[\"secret\", 1]")] {
        exchange(stage.address, Method::POST, path, &[("X-Request-Id", name)], input(data)).await;
    }
    drop(guard);
    let lines: Vec<String> = logs.lines(Wanted::Last(999)).into_iter().map(|line| line.text).collect();
    let line = |words: &[&str]| lines.iter().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(line(&["answered", "request=\"app-1\"", r"order\n7", "release=sums@1"]), "{lines:#?}");
    assert!(line(&["not answered", "request=\"app-2\"", "status=400", "release=sums@1"]), "{lines:#?}");
    assert!(!line(&["424242"]) && !line(&["secret"]), "{lines:#?}");
}
