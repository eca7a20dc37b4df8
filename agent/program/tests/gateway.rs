//! The gateway with real worker processes behind it, over real connections.
// Clippy takes only the test functions themselves for tests, not what they call.
#![allow(clippy::expect_used, clippy::panic)]

mod unpacked;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::header;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use serin_agent::gateway::{Gateway, Limits, Listener, Router, Served, serve};
use serin_agent::telemetry::{Recorder, Recording, Stamp};
use serin_agent::update::effect::Now;
use serin_agent::worker::{Worker, WorkerSpec};
use serin_protocol::golden::{Golden, GoldenCase};
use serin_protocol::ids::{BootId, ByteCount, Digest, Millis, UnixMillis};
use serin_protocol::manifest::Manifest;
use serin_protocol::raw::RawValues;
use serin_protocol::sketch::Bins;
use serin_protocol::sketch::profile::{FeatureProfile, Profile, SketchProfile};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use unpacked::unpack;

/// A release with a real worker, and its golden vectors.
async fn start(name: &str) -> (Arc<Served>, Golden) {
    let folder = unpack(name);
    let read = |file: &str| fs::read(folder.path().join(file)).expect("a release file");
    let manifest = Arc::new(Manifest::parse(&read("manifest.json")).expect("manifest"));
    let golden = Golden::parse(&read("golden.bin")).expect("golden");
    let spec = WorkerSpec {
        program: PathBuf::from(env!("CARGO_BIN_EXE_serin-agent")),
        dir: folder.path().to_owned(),
        release: manifest.id(),
        memory_limit: ByteCount::from_mib(16),
        groups: None,
        load_deadline: Duration::from_secs(30),
        request_deadline: Duration::from_secs(30),
        require_sandbox: false,
    };
    let worker = Worker::start(spec).await.expect("loads");
    let profile = profile(&manifest, &golden);
    let now = Now { wall: UnixMillis(0), elapsed: Millis(0) };
    let recorder = Recorder::new(&manifest, Arc::new(profile), Digest::of(b"p"), Millis(1000), now);
    let recording = Recording::new(recorder.expect("matching"));
    (Arc::new(Served::new(manifest, worker, recording)), golden)
}

/// The values of a case's only input.
fn singles(case: &GoldenCase) -> &[f32] {
    let RawValues::Singles(values) = &case.inputs[0].values else { panic!("floats") };
    values
}

/// A profile of the golden inputs.
fn profile(manifest: &Manifest, golden: &Golden) -> Profile {
    let column = |at: usize| golden.cases.iter().map(|case| singles(case)[at]).collect::<Vec<_>>();
    let features = manifest.features().into_iter().enumerate();
    Profile {
        features: features.map(|(at, feature)| FeatureProfile::of(feature.name, &column(at))).collect(),
        predictions: Some(SketchProfile::of(Bins::classes(10), &[])),
        confidence: Some(SketchProfile::of(Bins::unit(20), &[])),
        ..Profile::default()
    }
}

async fn listen(router: &Arc<Router>) -> (SocketAddr, watch::Sender<bool>) {
    let (field, _) = mpsc::channel(1);
    let gateway = Gateway::new(Arc::clone(router), field, Limits::default());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(serve(gateway, Listener::Tcp(listener), stopped));
    (address, stop)
}

async fn infer(address: SocketAddr, shape: &[usize], data: &[f32]) -> (StatusCode, Value) {
    let stream = TcpStream::connect(address).await.expect("listening");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("http");
    tokio::spawn(connection);
    let input = json!({ "name": "pixels", "datatype": "FP32", "shape": shape, "data": data });
    let body = Bytes::from(json!({ "inputs": [input] }).to_string());
    let request = Request::post("/v2/models/digits/infer").header(header::HOST, "localhost");
    let response =
        sender.send_request(request.body(Full::new(body)).expect("valid")).await.expect("answered");
    let status = response.status();
    let bytes = response.into_body().collect().await.expect("whole").to_bytes();
    (status, serde_json::from_slice(&bytes).expect("json"))
}

fn output<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let outputs = answer["outputs"].as_array().expect("outputs");
    outputs.iter().find(|output| output["name"] == name).expect("there")
}

#[tokio::test]
async fn golden_rows_over_http_are_answered_as_their_owner_signed() {
    let (served, golden) = start("digits/v2").await;
    let router = Arc::new(Router::default());
    router.flip(Some(Arc::clone(&served)));
    let (address, _stop) = listen(&router).await;

    let rows: Vec<f32> = golden.cases.iter().flat_map(|case| singles(case).to_vec()).collect();
    let count = golden.cases.len();
    let (status, answer) = infer(address, &[count, 64], &rows).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(
        (&answer["model_version"], &output(&answer, "label")["datatype"]),
        (&json!("2.0.0"), &json!("BYTES"))
    );
    let probabilities = output(&answer, "probabilities");
    assert_eq!(probabilities["shape"], json!([count, 10]));
    let numbers: Vec<f32> = serde_json::from_value(probabilities["data"].clone()).expect("numbers");
    let (rows_of_ten, _) = numbers.as_chunks::<10>();
    let mut compared = 0;
    for (number, (case, row)) in golden.cases.iter().zip(rows_of_ten).enumerate() {
        if let Some(expected) = case.outputs.iter().find(|tensor| tensor.name.as_str() == "probabilities") {
            golden.compare(number, expected, row).expect("as signed");
            compared += 1;
        }
    }
    assert!(compared > 0);

    let mut stamp = Stamp::new("d".parse().expect("id"), BootId(1));
    let now = Now { wall: UnixMillis(1000), elapsed: Millis(1000) };
    let report = served.recording().lock().roll(now, &mut stamp).remove(0);
    assert_eq!((report.requests, report.errors), (1, 0));
    assert_eq!(report.features.len(), 64);
    assert!(report.features.iter().all(|feature| feature.total() == count as u64));
    assert_eq!((report.predictions.total(), report.confidence.total()), (count as u64, count as u64));
}

#[tokio::test]
async fn what_only_the_worker_can_refuse_is_refused_as_the_callers_mistake() {
    let (served, _) = start("digits/v1").await;
    let router = Arc::new(Router::default());
    router.flip(Some(Arc::clone(&served)));
    let (address, _stop) = listen(&router).await;
    let too_many = 5000;
    let (status, answer) = infer(address, &[too_many, 64], &vec![0.0; too_many * 64]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    let counters = served.recording().lock().snapshot().counters;
    assert_eq!((counters.requests, counters.refused), (0, 1));
    // A missing value is none of these: the pipeline says what it becomes.
    let (status, answer) = infer(address, &[1, 64], &[f32::NAN; 64]).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

#[tokio::test]
async fn an_app_does_not_notice_that_a_worker_was_killed_and_another_release_took_over() {
    let (first, golden) = start("digits/v2").await;
    let (second, _) = start("digits/v1").await;
    let router = Arc::new(Router::default());
    router.flip(Some(Arc::clone(&first)));
    let (address, _stop) = listen(&router).await;
    // As the supervisor does it: what dies is followed by what was there before.
    let (death, takeover) = (first.worker().death(), Arc::clone(&router));
    tokio::spawn(async move {
        death.await.expect("killed");
        takeover.flip(Some(second));
    });
    let row = singles(&golden.cases[0]).to_vec();
    assert_eq!(infer(address, &[1, 64], &row).await.1["model_version"], "2.0.0");
    let pid = Pid::from_raw(first.worker().pid().cast_signed()).expect("a process");
    kill_process(pid, Signal::KILL).expect("alive");
    let (status, answer) = infer(address, &[1, 64], &row).await;
    assert_eq!((status, &answer["model_version"]), (StatusCode::OK, &json!("1.0.0")), "{answer}");
}

#[tokio::test]
async fn when_a_worker_dies_only_what_it_was_running_is_lost() {
    let (first, golden) = start("digits/v2").await;
    let (again, _) = start("digits/v2").await;
    let router = Arc::new(Router::default());
    router.flip(Some(Arc::clone(&first)));
    let (address, _stop) = listen(&router).await;
    let (death, takeover) = (first.worker().death(), Arc::clone(&router));
    tokio::spawn(async move {
        death.await.expect("killed");
        takeover.flip(Some(again));
    });
    let pid = Pid::from_raw(first.worker().pid().cast_signed()).expect("a process");
    // It gets one request, which it cannot answer; the others wait, or come when it is dead.
    kill_process(pid, Signal::STOP).expect("alive");
    let row = singles(&golden.cases[0]).to_vec();
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let row = row.clone();
        asked.spawn(async move { infer(address, &[1, 64], &row).await });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    kill_process(pid, Signal::KILL).expect("alive");
    let mut answered = 0;
    while let Some(reply) = asked.join_next().await {
        let (status, answer) = reply.expect("no panic");
        match status {
            StatusCode::OK => answered += 1,
            _ => assert!(status == 503 && answer.to_string().contains("the worker died: "), "{answer}"),
        }
    }
    assert_eq!(answered, 7);
    let counters = first.recording().lock().snapshot().counters;
    assert_eq!((counters.requests, counters.errors), (1, 1));
}
