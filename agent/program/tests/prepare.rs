//! The second form of a model: it computes what the ONNX file computes, holds for one version of the runtime, and is
//! never needed.

// Clippy takes only the test functions themselves for tests, not what they call.
#![allow(clippy::expect_used, clippy::panic)]

mod unpacked;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use serin_agent::worker::golden::golden_pass;
use serin_agent::worker::verdict::Qualified;
use serin_agent::worker::{Worker, WorkerSpec};
use serin_protocol::golden::Golden;
use serin_protocol::ids::{ByteCount, Digest};
use serin_protocol::manifest::Manifest;
use unpacked::unpack;

const PROGRAM: &str = env!("CARGO_BIN_EXE_serin-agent");

/// What `prepare` says of the release in `dir`, and the second form.
fn prepare(dir: &Path) -> (Value, Vec<u8>) {
    let limit = (1_u64 << 30).to_string();
    let output = Command::new(PROGRAM)
        .args(["prepare", "--memory-limit", &limit, "--dir"])
        .arg(dir)
        .output()
        .expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line = output.stdout.iter().position(|byte| *byte == b'\n').expect("a line");
    let (head, form) = output.stdout.split_at(line + 1);
    (serde_json::from_slice(head).expect("JSON"), form.to_vec())
}

/// Puts `form` beside the model of the release in `dir`, for `runtime`.
fn add(dir: &Path, runtime: &str, form: &[u8]) {
    fs::write(dir.join("model.nnef"), form).expect("written");
    let path = dir.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
    manifest["nnef"] = serde_json::json!({"runtime": runtime, "rows_at_once": 16});
    let entry = serde_json::json!({"name": "model.nnef", "digest": Digest::of(form), "size": form.len()});
    let files = manifest["files"].as_array_mut().expect("files");
    files.retain(|file| file["name"] != "model.nnef");
    files.insert(3, entry);
    let bytes = serde_json::to_vec(&manifest).expect("JSON");
    Manifest::parse(&bytes).expect("sound");
    fs::write(&path, bytes).expect("written");
}

/// Whether the release in `dir` starts and computes its golden vectors.
async fn computes(dir: &Path) -> Result<(), String> {
    let spec = WorkerSpec {
        program: PathBuf::from(PROGRAM),
        dir: dir.to_owned(),
        release: "digits@test".parse().expect("release"),
        memory_limit: ByteCount::from_mib(64),
        groups: None,
        load_deadline: Duration::from_secs(30),
        request_deadline: Duration::from_secs(30),
        require_sandbox: false,
    };
    let worker = Worker::start(spec).await.map_err(|fault| fault.to_string())?;
    let read = |name: &str| fs::read(dir.join(name)).expect("read");
    let golden = Golden::parse(&read("golden.bin")).expect("golden");
    let manifest = Manifest::parse(&read("manifest.json")).expect("manifest");
    golden_pass(&worker, &golden, &manifest).await.map_err(|fault| fault.to_string())?;
    worker.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_second_form_is_used_by_the_version_that_wrote_it_and_no_other() {
    let dir = unpack("digits/v2");
    let (head, form) = prepare(dir.path());
    assert_eq!(head["nnef"]["Ok"], 16, "{head}");
    assert_eq!(prepare(dir.path()).1, form, "the same model gives the same bytes");

    add(dir.path(), "tract-0.23.9", &form);
    let onnx = fs::read(dir.path().join("model.onnx")).expect("read");
    // It alone is read.
    fs::write(dir.path().join("model.onnx"), b"no model").expect("written");
    computes(dir.path()).await.expect("by the second form");
    add(dir.path(), "tract-0.23.8", &form);
    computes(dir.path()).await.expect_err("of another version");
    fs::write(dir.path().join("model.onnx"), &onnx).expect("written");
    computes(dir.path()).await.expect("by the ONNX file");
}

#[tokio::test]
async fn a_broken_second_form_costs_nothing() {
    let dir = unpack("digits/v2");
    let (_, form) = prepare(dir.path());
    for broken in [&form[..form.len() / 2], b"PK", b""] {
        add(dir.path(), "tract-0.23.9", broken);
        computes(dir.path()).await.expect("by the ONNX file");
    }
}

#[test]
fn qualifying_tells_what_is_rewritten_and_whether_the_second_form_pays() {
    let dir = unpack("digits/v2");
    let output =
        Command::new(PROGRAM).args(["qualify", "--json", "--dir"]).arg(dir.path()).output().expect("runs");
    let qualified: Qualified = serde_json::from_slice(&output.stdout).expect("qualifies");
    let preparation = qualified.preparation.expect("told");
    assert!(preparation.rewrites.is_empty() && preparation.warnings.is_empty(), "{preparation:?}");
    assert!(preparation.nnef_because.contains("it loads in"), "{preparation:?}");
    // Whatever it came to on this machine, nothing else is left behind.
    assert_eq!(dir.path().join("model.nnef").exists(), preparation.nnef.is_some());
    assert!(!dir.path().join("second-form").exists());
}

#[test]
fn the_runtime_that_the_second_form_is_bound_to_is_the_one_that_is_linked() {
    let lock = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock")).expect("read");
    for package in ["tract-nnef", "tract-core"] {
        let version = lock.split(&format!("name = \"{package}\"\nversion = \"")).nth(1).expect("linked");
        let version = version.split('"').next().expect("a version");
        assert_eq!(format!("tract-{version}"), serin_agent::worker::SECOND_FORM_RUNTIME);
    }
}
