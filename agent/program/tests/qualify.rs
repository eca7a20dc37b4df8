//! `serin-agent qualify`, the command that the packer calls: what it measures, predicts and refuses.

// Clippy takes only the test functions themselves for tests, not what they call.
#![allow(clippy::expect_used, clippy::panic)]

mod unpacked;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use serin_agent::worker::verdict::{FaultKind, Predicted, Qualified, Refused};
use serin_agent::worker::{InferError, Worker, WorkerSpec};
use serin_protocol::ids::ByteCount;
use serin_protocol::tensor::{DataType, TensorHeader};
use unpacked::unpack;

/// A row of 64 floats.
const ROW_BYTES: usize = 256;
const PROGRAM: &str = env!("CARGO_BIN_EXE_serin-agent");

fn qualify(dir: &Path, more: &[&str]) -> Result<Qualified, Refused> {
    let output = Command::new(PROGRAM)
        .args(["qualify", "--json", "--dir"])
        .arg(dir)
        .args(more)
        .output()
        .expect("runs");
    match output.status.code() {
        Some(0) => Ok(serde_json::from_slice(&output.stdout).expect("a result")),
        Some(1) => Err(serde_json::from_slice(&output.stdout).expect("a fault")),
        other => panic!("{other:?} {}", String::from_utf8_lossy(&output.stderr)),
    }
}

fn spec(dir: &Path, memory_limit: ByteCount) -> WorkerSpec {
    WorkerSpec {
        program: PathBuf::from(PROGRAM),
        dir: dir.to_owned(),
        release: "digits@test".parse().expect("release"),
        memory_limit,
        groups: None,
        load_deadline: Duration::from_secs(30),
        request_deadline: Duration::from_secs(30),
        require_sandbox: false,
    }
}

fn request(rows: usize) -> (Vec<TensorHeader>, Bytes) {
    let shape = [u32::try_from(rows).expect("few"), 64].into_iter().collect();
    let bytes = rows * ROW_BYTES;
    let name = "pixels".parse().expect("name");
    let header = TensorHeader { name, datatype: DataType::Fp32, shape, bytes: bytes as u64 };
    (vec![header], Bytes::from(vec![0; bytes]))
}

#[test]
fn qualifying_measures_what_the_worker_needs_and_predicts_rows() {
    let dir = unpack("digits/v2");
    let rows = dir.path().join("rows.ndjson");
    let lines = fs::read_to_string(unpacked::fixture("digits/v2").join("golden.ndjson")).expect("golden");
    let lines =
        lines.lines().map(|line| format!("{}}}\n", line.split_once(",\"outputs\"").expect("outputs").0));
    fs::write(&rows, lines.collect::<String>()).expect("written");
    let qualified = qualify(dir.path(), &["--rows", rows.to_str().expect("utf-8")]).expect("qualifies");
    let measured = qualified.measured;
    assert!(qualified.golden.worst < 1.0);
    assert!(measured.minimum_memory.0 * 13 / 10 <= measured.memory_limit.0, "{measured:?}");
    assert_eq!(measured.memory_limit.0 % (64 << 10), 0);
    assert!(measured.peak_resident.0 > 1 << 20 && measured.load_micros > 0);
    assert!((1..=measured.latency_p99_micros).contains(&measured.latency_p50_micros), "{measured:?}");
    let predictions = qualified.predictions.expect("asked for");
    assert_eq!(predictions.len(), 24);
    assert!(predictions.iter().all(|predicted| matches!(predicted, Predicted::Class(0..10, Some(_), None))));

    let again = qualify(dir.path(), &["--memory-limit", &measured.memory_limit.to_string()]).expect("passes");
    assert_eq!(again.measured.memory_limit, measured.memory_limit);
    let too_little = qualify(dir.path(), &["--memory-limit", "200000"]).expect_err("too little");
    assert_eq!(too_little.fault.kind, FaultKind::MemoryLimit);
}

#[test]
fn a_release_that_does_not_qualify_is_told_why_and_what_to_do() {
    let refused = qualify(unpack("broken/unsupported_operator").path(), &[]).expect_err("refused").fault;
    assert_eq!((refused.kind, refused.operator.as_deref()), (FaultKind::UnsupportedOperator, Some("Det")));
    assert!(refused.hint.expect("a hint").contains("re-export"));

    let refused = qualify(unpack("broken/wrong_golden").path(), &[]).expect_err("refused").fault;
    assert_eq!(refused.kind, FaultKind::GoldenMismatch);
    assert!(refused.message.contains("case 1, output probabilities[3]"), "{}", refused.message);

    let limit = ["--memory-limit", "33554432"];
    let refused = qualify(unpack("broken/memory_hungry").path(), &limit).expect_err("refused").fault;
    assert_eq!(refused.kind, FaultKind::MemoryLimit);

    let deadline = ["--request-deadline", "300"];
    let refused = qualify(unpack("broken/hangs").path(), &deadline).expect_err("refused").fault;
    assert_eq!(refused.kind, FaultKind::Hung);

    let refused = qualify(Path::new("/nonexistent"), &[]).expect_err("refused").fault;
    assert_eq!(refused.kind, FaultKind::Load);
}

/// The digits with so many more outputs that what is answered for a row is several times what is asked.
fn talkative() -> tempfile::TempDir {
    let dir = unpack("digits/v1");
    let edit = |file: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let path = dir.path().join(file);
        let mut json = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
        change(&mut json);
        fs::write(&path, json.to_string()).expect("written");
    };
    let more = |list: &mut serde_json::Value, item: &dyn Fn(usize) -> serde_json::Value| {
        list.as_array_mut().expect("a list").extend((0..30).map(item));
    };
    edit("manifest.json", &|manifest| {
        more(
            &mut manifest["outputs"],
            &|number| serde_json::json!({"name": format!("more{number}"), "datatype": "FP32", "shape": [-1, 10]}),
        );
    });
    edit("pipeline.json", &|pipeline| {
        more(
            &mut pipeline["post"],
            &|number| serde_json::json!({"op": "take", "model_output": "logits", "output": format!("more{number}")}),
        );
    });
    dir
}

#[tokio::test]
async fn a_request_of_many_rows_is_answered_or_refused_and_never_the_end_of_the_worker() {
    let dir = talkative();
    let limit = qualify(dir.path(), &[]).expect("qualifies").measured.memory_limit;
    let worker = Worker::start(spec(dir.path(), limit)).await.expect("starts");
    for rows in (0..20).flat_map(|_| [16, 48, 100, 300, 700, 1400, 4096]) {
        let (inputs, body) = request(rows);
        match worker.infer(inputs, body).await {
            Ok(answer) => assert_eq!(answer.outputs[0].shape[0] as usize, rows),
            Err(InferError::Input(_)) => assert!(rows > 48),
            Err(error) => panic!("{rows} rows: {error}"),
        }
    }
}

#[tokio::test]
async fn the_largest_request_fits_into_the_limit_that_qualifying_gives() {
    let dir = unpack("digits/v1");
    let limit = qualify(dir.path(), &[]).expect("qualifies").measured.memory_limit;
    let worker = Worker::start(spec(dir.path(), limit)).await.expect("starts");
    let most = usize::try_from(limit.0 / 8).expect("small") / ROW_BYTES;
    for _ in 0..20 {
        let (inputs, body) = request(most);
        let answer = worker.infer(inputs, body).await.expect("answers");
        assert_eq!(answer.predictions.len(), most);
    }
    let (inputs, body) = request(most + 1);
    assert!(matches!(worker.infer(inputs, body).await, Err(InferError::Input(_))));
}
