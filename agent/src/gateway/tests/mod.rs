//! A real listener and a real client; only the worker is a double.

mod connections;
mod counting;
mod labels;
mod protocol;
mod raw;
mod switching;
mod traces;
mod trials;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap};
use hyper::http::response::Parts;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use serin_protocol::frame::Prediction;
use serin_protocol::ids::{Digest, Millis, UnixMillis};
use serin_protocol::manifest::Manifest;
use serin_protocol::message::WorkerDeath;
use serin_protocol::sketch::Bins;
use serin_protocol::sketch::profile::{FeatureProfile, Profile, SketchProfile};
use serin_protocol::tensor::{DataType, TensorHeader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use super::{Gateway, Infer, Limits, Listener, LocalSocket, Router, Served, serve};
use crate::field::FieldRequest;
use crate::telemetry::{Counters, Recorder, Recording};
use crate::update::effect::Now;
use crate::worker::{Company, InferError, Inferred};

/// What a double does with a request once it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Answers the sum of each row, and its version as the class.
    Answer,
    /// Says that the model failed.
    Fail,
    /// Refuses the input.
    Refuse,
    /// Has no room.
    Busy,
    /// Dies.
    Die,
    /// Died before it came to the request.
    Miss,
    /// Has been stopped.
    Stop,
}

/// A worker's double: it computes sums, and waits at a gate where told to.
#[derive(Debug)]
pub(crate) struct Double {
    class: i64,
    mood: Mood,
    /// One request passes for each permit; all of them when there is no gate.
    gate: Option<Arc<Semaphore>>,
    pub(crate) asked: Arc<AtomicUsize>,
}

impl Infer for Double {
    async fn infer(&self, inputs: Vec<TensorHeader>, body: Bytes) -> Result<Inferred, InferError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if let Some(gate) = &self.gate {
            gate.acquire().await.expect("never closed").forget();
        }
        match self.mood {
            Mood::Answer => Ok(self.answer(&inputs, &body)),
            Mood::Fail => Err(InferError::Model("division by cucumber".into())),
            Mood::Refuse => Err(InferError::Input("input x: too many rows".into())),
            Mood::Busy => Err(InferError::Busy),
            Mood::Die => Err(InferError::Died(WorkerDeath::MemoryLimit)),
            Mood::Miss => Err(InferError::Unasked(WorkerDeath::MemoryLimit)),
            Mood::Stop => Err(InferError::Stopped),
        }
    }

    async fn room(&self) {
        if self.mood == Mood::Busy {
            std::future::pending::<()>().await;
        }
    }
}

impl Double {
    fn answer(&self, inputs: &[TensorHeader], body: &[u8]) -> Inferred {
        let [input] = inputs else { panic!("one input") };
        let rows = input.shape[0];
        let values: Vec<f32> = body.as_chunks().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect();
        let sums = values.chunks(values.len() / rows as usize).map(|row| row.iter().sum::<f32>());
        let classes = std::iter::repeat_n(self.class, rows as usize);
        let mut body: Vec<u8> = sums.flat_map(f32::to_le_bytes).collect();
        body.extend(classes.clone().flat_map(i64::to_le_bytes));
        let header = |name: &str, datatype, width: u64| TensorHeader {
            name: name.parse().expect("name"),
            datatype,
            shape: [rows].into_iter().collect(),
            bytes: width * u64::from(rows),
        };
        let predictions = classes.map(|class| Prediction::of_class(class, f32::NAN)).collect();
        let outputs = vec![header("sum", DataType::Fp32, 4), header("class", DataType::Int64, 8)];
        let (body, pictures) = (body.into(), Bytes::new());
        Inferred {
            micros: 100,
            waited_micros: 20,
            company: Company::Alone,
            outputs,
            body,
            predictions,
            pictures,
        }
    }
}

/// The release `sums@version`, computed by a double.
pub(crate) fn served(version: u8, mood: Mood, gate: Option<Arc<Semaphore>>) -> Arc<Served<Double>> {
    let manifest = Arc::new(manifest(version));
    let values = [0.0, 1.0, 2.0, 3.0];
    let features = ["a", "b"].map(|name| FeatureProfile::of(name.parse().expect("name"), &values));
    let predictions = Some(SketchProfile::of(Bins::classes(9), &[]));
    let profile = Profile { features: features.into(), predictions, ..Profile::default() };
    let now = Now { wall: UnixMillis(0), elapsed: Millis(0) };
    let recorder = Recorder::new(&manifest, Arc::new(profile), Digest::of(b"p"), Millis(1000), now);
    let double = Double { class: version.into(), mood, gate, asked: Arc::default() };
    Arc::new(Served::new(manifest, double, Recording::new(recorder.expect("matching"))))
}

fn manifest(version: u8) -> Manifest {
    let digest = Digest::of(b"");
    serde_json::from_value(json!({
        "format": 1, "model": "sums", "version": version.to_string(), "owner": "o", "description": "d",
        "lineage": { "git_commit": "0".repeat(40), "weights": digest, "data": digest, "schema_version": "1" },
        "runtime": "tract-0.23", "targets": [],
        "inputs": [{ "name": "x", "datatype": "FP32", "shape": [-1, 2], "features": ["a", "b"] }],
        "outputs": [
            { "name": "sum", "datatype": "FP32", "shape": [-1] },
            { "name": "class", "datatype": "INT64", "shape": [-1] },
        ],
        "prediction": { "class": "class", "confidence": null, "classes": 9 },
        "measured": { "minimum_memory": 1, "memory_limit": 1, "peak_resident": 1,
                      "latency_p50_micros": 1, "latency_p99_micros": 1, "load_micros": 1 },
        "files": [],
    }))
    .expect("a manifest")
}

/// A gateway that listens on a free port.
pub(crate) struct Stage {
    pub(crate) router: Arc<Router<Double>>,
    pub(crate) address: SocketAddr,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) serving: JoinHandle<()>,
    gateway: Arc<Gateway<Double>>,
    pub(crate) field: mpsc::Receiver<FieldRequest>,
}

/// Short times, so that tests of slow callers are not slow.
pub(crate) fn quick() -> Limits {
    let short = Duration::from_millis(300);
    Limits { header: short, receive: short, send: short, takeover: short, ..Limits::default() }
}

impl Stage {
    pub(crate) async fn open(limits: Limits) -> Self {
        let router = Arc::new(Router::default());
        let (field_sender, field) = mpsc::channel(8);
        let gateway = Gateway::new(Arc::clone(&router), field_sender, limits);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(serve(Arc::clone(&gateway), Listener::Tcp(listener), stopped));
        Self { router, address, stop, serving, gateway, field }
    }

    /// The same on a Unix socket.
    /// Ends with the stage.
    pub(crate) fn listen_at(&self, path: &Path) -> JoinHandle<()> {
        let socket = LocalSocket::bind(path).expect("bound");
        tokio::spawn(serve(Arc::clone(&self.gateway), Listener::Local(socket), self.stop.subscribe()))
    }

    /// A gateway with `sums@1` answering.
    pub(crate) async fn with(mood: Mood) -> (Self, Arc<Served<Double>>) {
        let stage = Self::open(quick()).await;
        let served = served(1, mood, None);
        stage.router.flip(Some(Arc::clone(&served)));
        (stage, served)
    }

    pub(crate) async fn ask(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Reply {
        ask(self.address, method, path, body.into()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    pub(crate) async fn infer(&self, body: impl Into<Bytes>) -> Reply {
        self.ask(Method::POST, "/v2/models/sums/infer", body).await
    }
}

/// Status, headers and JSON of an answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) json: Value,
}

impl Reply {
    /// Whether it is an error as the protocol writes it, with `text` in it.
    pub(crate) fn is_error(&self, status: u16, text: &str) {
        let message = self.json["error"].as_str();
        assert!(self.status == status && message.is_some_and(|message| message.contains(text)), "{self:?}");
    }
}

/// Far beyond anything that works; a test that would hang fails instead.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits, letting everything else go on, until `holds`.
pub(crate) async fn eventually(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it never held");
}

pub(crate) async fn ask(address: SocketAddr, method: Method, path: &str, body: Bytes) -> Reply {
    tokio::time::timeout(PATIENCE, ask_patiently(address, method, path, body)).await.expect("no answer")
}

async fn ask_patiently(address: SocketAddr, method: Method, path: &str, body: Bytes) -> Reply {
    let (head, body) = exchange(address, method, path, &[], body).await;
    let json = serde_json::from_slice(&body).expect("json");
    Reply { status: head.status, headers: head.headers, json }
}

/// The same with further headers and an answer that need not be JSON.
pub(crate) async fn exchange(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> (Parts, Bytes) {
    let stream = TcpStream::connect(address).await.expect("listening");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("http");
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response =
        sender.send_request(request.body(Full::new(body)).expect("valid")).await.expect("answered");
    let (head, body) = response.into_parts();
    (head, body.collect().await.expect("whole").to_bytes())
}

/// A request with these rows.
pub(crate) fn rows(rows: &[[f32; 2]]) -> String {
    let input = json!({ "name": "x", "datatype": "FP32", "shape": [rows.len(), 2], "data": rows });
    json!({ "id": "42", "inputs": [input] }).to_string()
}

pub(crate) fn counters(served: &Served<Double>) -> Counters {
    served.recording().lock().snapshot().counters
}

pub(crate) const fn counted(requests: u64, errors: u64, refused: u64) -> Counters {
    Counters { requests, errors, refused }
}
