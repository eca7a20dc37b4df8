//! Real worker processes on real models: what they answer, what they survive, and how they die.
// Clippy takes only the test functions themselves for tests, not what they call.
#![allow(clippy::expect_used, clippy::panic)]

#[path = "worker/groups.rs"]
mod groups;
#[path = "worker/queue.rs"]
mod queue;
mod unpacked;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use landlock::{ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serin_agent::worker::golden::{GoldenFault, golden_pass};
use serin_agent::worker::{InferError, Inferred, StartFault, Worker, WorkerSpec};
use serin_protocol::frame::{LoadFault, Prefix, WorkerResponse, decode_header};
use serin_protocol::golden::{Compared, Golden};
use serin_protocol::ids::ByteCount;
use serin_protocol::manifest::Manifest;
use serin_protocol::message::WorkerDeath;
use serin_protocol::tensor::{DataType, TensorHeader, split_body};
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;
use unpacked::{unpack, unpack_with};

const PROGRAM: &str = env!("CARGO_BIN_EXE_serin-agent");
const ROW: usize = 64;

fn spec(dir: &Path) -> WorkerSpec {
    WorkerSpec {
        program: PathBuf::from(PROGRAM),
        dir: dir.to_owned(),
        release: "digits@test".parse().expect("release"),
        memory_limit: ByteCount::from_mib(16),
        groups: None,
        load_deadline: Duration::from_secs(30),
        request_deadline: Duration::from_secs(30),
        require_sandbox: false,
    }
}

fn parts(dir: &Path) -> (Manifest, Golden) {
    let read = |name: &str| fs::read(dir.join(name)).expect("a release file");
    (
        Manifest::parse(&read("manifest.json")).expect("manifest"),
        Golden::parse(&read("golden.bin")).expect("golden"),
    )
}

fn header(name: &str, datatype: DataType, shape: &[u32], bytes: usize) -> TensorHeader {
    let shape = shape.iter().copied().collect();
    TensorHeader { name: name.parse().expect("name"), datatype, shape, bytes: bytes as u64 }
}

/// A request of `rows` rows taken from the golden cases in turn.
fn request(golden: &Golden, rows: usize) -> (Vec<TensorHeader>, Bytes) {
    let mut body = Vec::new();
    let cases = golden.cases.iter().cycle().take(rows);
    cases.for_each(|case| case.inputs[0].values.write(DataType::Fp32, &mut body));
    let shape = [u32::try_from(rows).expect("few"), 64];
    (vec![header("pixels", DataType::Fp32, &shape, body.len())], Bytes::from(body))
}

fn floats(inferred: &Inferred, name: &str) -> Vec<f32> {
    let parts = split_body(&inferred.outputs, &inferred.body).expect("consistent");
    let mut named = inferred.outputs.iter().zip(parts).filter(|(output, _)| output.name.as_str() == name);
    let (_, part) = named.next().expect("there");
    part.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// Waits for the end of a process that is not our child.
async fn wait_for_exit(pid: Pid) {
    let Ok(process) = pidfd_open(pid, PidfdFlags::NONBLOCK) else { return };
    // Deprecated because of types that close their descriptor early; this one owns it.
    #[allow(deprecated)]
    let process = AsyncFd::new(process).expect("can be polled");
    let gone = timeout(Duration::from_secs(20), process.readable()).await;
    assert!(gone.is_ok(), "process {pid:?} is still there");
}

#[tokio::test]
async fn every_digits_model_answers_as_onnxruntime_did() {
    for name in ["digits/v1", "digits/v2", "digits/v3"] {
        let dir = unpack(name);
        let (manifest, golden) = parts(dir.path());
        let worker = Worker::start(spec(dir.path())).await.expect("starts");
        let report = golden_pass(&worker, &golden, &manifest).await.expect("passes");
        assert_eq!((report.cases, report.micros.len()), (24, 24));
        assert!(report.worst < 1.0, "{report:?}");
        assert!(worker.load_micros() > 0 && worker.peak_resident().expect("alive").0 > 1 << 20);
        worker.stop().await;
        assert_eq!(worker.death().await, None);
        assert_eq!(worker.peak_resident(), None);
    }
}

#[tokio::test]
async fn a_callers_mistake_is_named_and_costs_the_worker_nothing() {
    let dir = unpack("digits/v1");
    let (_, golden) = parts(dir.path());
    let worker = Worker::start(spec(dir.path())).await.expect("starts");
    let pixels = |shape: &[u32]| {
        let bytes = shape.iter().product::<u32>() as usize * 4;
        (vec![header("pixels", DataType::Fp32, shape, bytes)], Bytes::from(vec![0; bytes]))
    };
    let twice = {
        let (mut inputs, _) = pixels(&[1, 64]);
        inputs.extend(inputs.clone());
        (inputs, Bytes::from(vec![0; ROW * 8]))
    };
    let cases = [
        (pixels(&[1, 63]), "its shape must be [rows, 64], not [1, 63]"),
        (pixels(&[64]), "its shape must be [rows, 64], not [64]"),
        (pixels(&[0, 64]), "1 to 4096 rows, not 0"),
        (pixels(&[4097, 64]), "rows, not 4097"),
        (
            (vec![header("pixels", DataType::Int64, &[1, 64], ROW * 8)], Bytes::from(vec![0; ROW * 8])),
            "must be FP32",
        ),
        ((vec![], Bytes::new()), "pixels: it is missing"),
        (
            (vec![header("colour", DataType::Fp32, &[1, 1], 4)], Bytes::from(vec![0; 4])),
            "colour: the model has no such",
        ),
        (twice, "given twice"),
        (
            (vec![header("pixels", DataType::Fp32, &[1, 64], 8)], Bytes::from(vec![0; 8])),
            "do not fit its shape",
        ),
        (
            (vec![header("pixels", DataType::Fp32, &[1, 64], ROW * 4)], Bytes::from(vec![0; 8])),
            "use up the body",
        ),
        (pixels(&[200_000, 64]), "too large for this model's worker"),
    ];
    for ((inputs, body), expected) in cases {
        match worker.infer(inputs, body).await {
            Err(InferError::Input(text)) => assert!(text.contains(expected), "{text} / {expected}"),
            other => panic!("{expected}: {other:?}"),
        }
        let (inputs, body) = request(&golden, 1);
        worker.infer(inputs, body).await.expect("still answers");
    }
}

#[tokio::test]
async fn a_model_that_outgrows_its_limit_dies_alone() {
    let dir = unpack("broken/memory_hungry");
    let (_, golden) = parts(dir.path());
    let worker = Worker::start(spec(dir.path())).await.expect("loads in little memory");
    assert!(worker.sandbox().memory_limited);
    let death = worker.death();
    let (inputs, body) = request(&golden, 1);
    assert_eq!(
        worker.infer(inputs.clone(), body.clone()).await,
        Err(InferError::Died(WorkerDeath::MemoryLimit))
    );
    assert_eq!(death.await, Some(WorkerDeath::MemoryLimit));
    assert_eq!(worker.infer(inputs, body).await, Err(InferError::Unasked(WorkerDeath::MemoryLimit)));
}

#[tokio::test]
async fn a_limit_too_small_to_load_is_told_as_such() {
    let dir = unpack("digits/v2");
    for kibibytes in [4, 64, 128, 256] {
        let small = WorkerSpec { memory_limit: ByteCount(kibibytes << 10), ..spec(dir.path()) };
        match Worker::start(small).await {
            Err(StartFault::Load(LoadFault::MemoryLimit)) => {}
            other => panic!("{kibibytes} KiB: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_loading_that_takes_too_long_is_ended() {
    let dir = unpack("digits/v1");
    let hurried = WorkerSpec { load_deadline: Duration::ZERO, ..spec(dir.path()) };
    assert!(matches!(Worker::start(hurried).await, Err(StartFault::Died(WorkerDeath::Hung))));
}

#[tokio::test]
async fn an_unsupported_operator_is_named() {
    let dir = unpack("broken/unsupported_operator");
    match Worker::start(spec(dir.path())).await {
        Err(StartFault::Load(LoadFault::UnsupportedOperators(found))) => {
            assert_eq!((found[0].operator.as_str(), found[0].node.as_str()), ("Det", "determinant"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_output_that_is_not_golden_is_located() {
    let dir = unpack("broken/wrong_golden");
    let (manifest, golden) = parts(dir.path());
    let worker = Worker::start(spec(dir.path())).await.expect("starts");
    match golden_pass(&worker, &golden, &manifest).await {
        Err(GoldenFault::Mismatch(mismatch)) => {
            assert_eq!((mismatch.case, mismatch.output.as_str(), mismatch.element), (1, "probabilities", 3));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn labels_in_another_order_are_found_by_golden_texts() {
    let dir = unpack_with("digits/v1", |dir| {
        let path = dir.join("labels.txt");
        let labels = fs::read_to_string(&path).expect("read");
        let reversed: Vec<&str> = labels.lines().rev().collect();
        fs::write(path, reversed.join("\n") + "\n").expect("written");
    });
    let (manifest, golden) = parts(dir.path());
    let worker = Worker::start(spec(dir.path())).await.expect("starts");
    match golden_pass(&worker, &golden, &manifest).await {
        Err(GoldenFault::Mismatch(mismatch)) => {
            assert_eq!((mismatch.case, mismatch.output.as_str(), mismatch.element), (0, "label", 0));
            let (right, wrong) = (Compared::Text("zero".into()), Compared::Text("nine".into()));
            assert_eq!((mismatch.expected, mismatch.actual), (right, wrong));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn garbage_for_a_model_is_a_failed_load_not_a_crash() {
    let whole = fs::read(unpacked::fixture("digits/v1").join("model.onnx")).expect("model");
    let mut flipped = whole.clone();
    flipped.iter_mut().skip(40).step_by(97).for_each(|byte| *byte ^= 0x5A);
    let noise: Vec<u8> = (0..5000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let garbage =
        [Vec::new(), noise, whole[..whole.len() / 2].to_vec(), whole[..40].to_vec(), flipped, b"{}".to_vec()];
    for (number, bytes) in garbage.into_iter().enumerate() {
        let dir = unpack_with("digits/v1", |dir| fs::write(dir.join("model.onnx"), &bytes).expect("written"));
        match Worker::start(spec(dir.path())).await {
            Err(StartFault::Load(LoadFault::Invalid(_) | LoadFault::UnsupportedOperators(_))) => {}
            other => panic!("garbage {number}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_release_file_that_is_missing_or_broken_is_named() {
    let dir = unpack("digits/v1");
    fs::remove_file(dir.path().join("labels.txt")).expect("removed");
    match Worker::start(spec(dir.path())).await {
        Err(StartFault::Load(LoadFault::File(text))) => assert!(text.contains("labels.txt"), "{text}"),
        other => panic!("{other:?}"),
    }
    fs::write(dir.path().join("manifest.json"), b"{}").expect("written");
    assert!(matches!(Worker::start(spec(dir.path())).await, Err(StartFault::Load(LoadFault::File(_)))));
}

#[tokio::test]
async fn links_into_a_blob_store_are_followed() {
    let store = unpack("digits/v1");
    let links = tempfile::tempdir().expect("folder");
    for entry in fs::read_dir(store.path()).expect("listed") {
        let entry = entry.expect("entry");
        std::os::unix::fs::symlink(entry.path(), links.path().join(entry.file_name())).expect("linked");
    }
    Worker::start(spec(links.path())).await.expect("starts");
}

#[tokio::test]
async fn a_worker_is_confined() {
    let dir = unpack("digits/v1");
    let worker = Worker::start(spec(dir.path())).await.expect("starts");
    let sandbox = worker.sandbox();
    assert!(sandbox.no_new_privileges && sandbox.memory_limited, "{sandbox:?}");
    let files = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create);
    match files {
        Ok(_) => assert!(sandbox.files_closed, "{sandbox:?}"),
        Err(error) => println!("skipped: files cannot be closed on this kernel: {error}"),
    }
    let read = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", worker.pid())).expect("readable");
    let line = |text: &str, start: &str| text.lines().find(|line| line.starts_with(start)).map(str::to_owned);
    let limits = read("limits");
    let memory = line(&limits, "Max data size").expect("listed");
    assert_eq!(memory.split_whitespace().filter(|word| *word == "16777216").count(), 2, "{memory}");
    assert!(line(&limits, "Max core file size").is_some_and(|line| line.contains(" 0 ")), "{limits}");
    assert!(line(&limits, "Max file size").is_some_and(|line| line.contains(" 0 ")), "{limits}");
    assert!(line(&limits, "Max open files").is_some_and(|line| line.contains(" 16 ")), "{limits}");
    // proc_pid_stat(5): field 19, the 17th behind the name.
    let nice =
        read("stat").rsplit(')').next().and_then(|fields| fields.split_whitespace().nth(16)?.parse().ok());
    assert!(nice > Some(0_i32), "{nice:?}");
    assert!(sandbox.calls_filtered, "{sandbox:?}");
    // The program's own filter, twice; the environment's come on top.
    let filters = line(&read("status"), "Seccomp_filters").expect("listed");
    let count = filters.split_whitespace().last().and_then(|count| count.parse::<u32>().ok());
    assert!(count >= Some(2), "{filters}");
    assert_eq!(line(&read("status"), "NoNewPrivs").expect("listed").split_whitespace().last(), Some("1"));
    assert_eq!(read("oom_score_adj").trim(), "1000");
    assert_eq!(read("environ"), "");
    assert_eq!(read("comm").trim(), "serin-worker");
}

#[tokio::test]
async fn weights_in_a_file_beside_the_model_are_not_reached() {
    let model = fs::read(unpacked::fixture("digits/v1").join("model.onnx")).expect("model");
    let dir = unpack_with("digits/v1", |dir| {
        fs::write(dir.join("model.onnx"), with_outside_weights(&model)).expect("written");
        fs::write(dir.join("weights"), vec![0; 1 << 16]).expect("written");
    });
    match Worker::start(spec(dir.path())).await {
        Err(StartFault::Load(LoadFault::Invalid(text))) => {
            assert!(text.contains("a file of their own"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

/// The model with one more initializer, whose values are said to be in the file "weights".
fn with_outside_weights(model: &[u8]) -> Vec<u8> {
    // TensorProto { dims: 1, data_type: FLOAT, name: "b0", external_data: {location, weights}, EXTERNAL }
    let field = |tag: u8, bytes: &[u8]| [&[tag, u8::try_from(bytes.len()).expect("short")], bytes].concat();
    let entry = [field(0x0A, b"location"), field(0x12, b"weights")].concat();
    let tensor = [&[0x08, 1, 0x10, 1][..], &field(0x42, b"w0"), &field(0x6A, &entry), &[0x70, 1]].concat();
    // A message may be split: parsers merge a second ModelProto.graph into the first.
    [model, &field(0x3A, &field(0x2A, &tensor))].concat()
}

#[tokio::test]
async fn a_model_deep_enough_to_overflow_a_stack_or_wide_enough_to_keep_it_busy_costs_its_worker_only() {
    for nodes in [2_000, 200_000] {
        let dir = unpack_with("digits/v1", |dir| {
            fs::write(dir.join("model.onnx"), chain(nodes)).expect("written");
        });
        let limit = ByteCount::from_mib(512);
        let hurried =
            WorkerSpec { memory_limit: limit, load_deadline: Duration::from_secs(5), ..spec(dir.path()) };
        // Which end it comes to is the runtime's affair: it loads and has the wrong shape, hangs, or dies.
        let started = timeout(Duration::from_mins(1), Worker::start(hurried)).await.expect("it ends");
        let Ok(worker) = started else { continue };
        let (_, golden) = parts(dir.path());
        let (inputs, body) = request(&golden, 1);
        let asked = timeout(Duration::from_mins(1), worker.infer(inputs, body)).await.expect("it ends");
        assert!(asked.is_err(), "{nodes} nodes: {asked:?}");
    }
}

/// An ONNX file with so many nodes one after another, from the input of the digits to their output.
fn chain(nodes: usize) -> Vec<u8> {
    fn varint(mut number: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push((number & 0x7F) as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    }
    let field =
        |number: usize, bytes: &[u8]| [varint(number << 3 | 2), varint(bytes.len()), bytes.to_vec()].concat();
    let number = |number: usize, value: usize| [varint(number << 3), varint(value)].concat();
    let value = |name: &str| {
        let shape = [field(1, &field(2, b"rows")), field(1, &number(1, ROW))].concat();
        let tensor = [number(1, 1), field(2, &shape)].concat();
        [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
    };
    let mut graph = [field(2, b"chain"), field(11, &value("x")), field(12, &value("logits"))].concat();
    let name = |at: usize| match at {
        0 => "x".to_owned(),
        at if at == nodes => "logits".to_owned(),
        at => at.to_string(),
    };
    for at in 0..nodes {
        let ends = [field(1, name(at).as_bytes()), field(2, name(at + 1).as_bytes())].concat();
        graph.extend(field(1, &[ends, field(4, b"Sigmoid")].concat()));
    }
    [number(1, 8), field(7, &graph), field(8, &number(2, 13))].concat()
}

#[tokio::test]
async fn a_worker_that_is_killed_is_reported_with_the_signal() {
    let dir = unpack("digits/v1");
    let worker = Worker::start(spec(dir.path())).await.expect("starts");
    let death = worker.death();
    let pid = Pid::from_raw(i32::try_from(worker.pid()).expect("small")).expect("not 0");
    kill_process(pid, Signal::KILL).expect("killed");
    assert_eq!(death.await, Some(WorkerDeath::Signal(9)));
    // Stopping what is dead is no error, and does not change the verdict.
    worker.stop().await;
    assert_eq!(worker.death().await, Some(WorkerDeath::Signal(9)));
}

#[tokio::test]
async fn a_worker_ends_with_its_last_handle() {
    let dir = unpack("digits/v1");
    let worker = Worker::start(spec(dir.path())).await.expect("starts");
    let death = worker.death();
    let pid = Pid::from_raw(i32::try_from(worker.pid()).expect("small")).expect("not 0");
    let other = worker.clone();
    drop(worker);
    assert!(other.peak_resident().is_some());
    drop(other);
    assert_eq!(death.await, None);
    wait_for_exit(pid).await;
}

#[tokio::test]
async fn a_program_that_is_not_the_agent_is_reported_not_trusted() {
    let dir = unpack("digits/v1");
    let missing = WorkerSpec { program: PathBuf::from("/nonexistent/serin-agent"), ..spec(dir.path()) };
    assert!(matches!(Worker::start(missing).await, Err(StartFault::Spawn(_))));
    let silent = WorkerSpec { program: PathBuf::from("/bin/false"), ..spec(dir.path()) };
    assert!(matches!(Worker::start(silent).await, Err(StartFault::Died(WorkerDeath::Exit(1)))));
    let babbler = dir.path().join("babbler");
    fs::write(&babbler, "#!/bin/sh\nprintf 'this is no frame at all' >&0\nexec sleep 60\n").expect("written");
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    fs::set_permissions(&babbler, mode).expect("executable");
    let babbler = WorkerSpec { program: babbler, ..spec(dir.path()) };
    match Worker::start(babbler).await {
        Err(StartFault::Died(WorkerDeath::Signal(9))) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_worker_does_not_outlive_its_supervisor() {
    let dir = unpack("broken/hangs");
    let mut supervisor = Command::new(PROGRAM)
        .args(["qualify", "--json", "--request-deadline", "600000", "--dir"])
        .arg(dir.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("runs");
    let children = format!("/proc/{0}/task/{0}/children", supervisor.id());
    let worker = loop {
        let list = fs::read_to_string(&children).expect("readable");
        if let Some(pid) = list.split_whitespace().next() {
            break Pid::from_raw(pid.parse().expect("a number")).expect("not 0");
        }
        assert_eq!(supervisor.try_wait().expect("waits"), None, "it ended before it had a worker");
        std::thread::yield_now();
    };
    supervisor.kill().expect("killed");
    supervisor.wait().expect("reaped");
    wait_for_exit(worker).await;
}

#[test]
fn a_malformed_frame_ends_the_worker_with_a_word() {
    let dir = unpack("digits/v1");
    let half_a_frame = [&[3, 0, 0, 0, 0, 0, 0, 0][..], b"a"].concat();
    let unknown_request = [&[2, 0, 0, 0, 0, 0, 0, 0][..], &[77, 77]].concat();
    let cases = [(vec![0xFF; 8], 3), (unknown_request, 3), (half_a_frame, 3), (vec![1, 0], 3), (vec![], 0)];
    for (bytes, code) in cases {
        let (mut ours, theirs) = UnixStream::pair().expect("pair");
        let child = Command::new(PROGRAM)
            .args(["worker", "--memory-limit", "16777216", "--patience", "5000", "--dir"])
            .arg(dir.path())
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("runs");
        let mut prefix = [0; 8];
        ours.read_exact(&mut prefix).expect("a frame");
        let prefix = Prefix::decode(prefix).expect("a prefix");
        let mut header = vec![0; prefix.header as usize];
        ours.read_exact(&mut header).expect("a header");
        assert!(matches!(decode_header(&header), Ok(WorkerResponse::Ready(_))));
        ours.write_all(&bytes).expect("written");
        drop(ours);
        let output = child.wait_with_output().expect("ends");
        assert_eq!(output.status.code(), Some(code), "{bytes:?}");
        assert_eq!(output.stderr.is_empty(), code == 0, "{bytes:?}");
    }
}
