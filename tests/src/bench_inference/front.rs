//! The real gateway before a real worker, in a process of its own, so that what it adds is known for models of any
//! size: the time from request to answer, beside the time that the worker says the same requests took.

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use serde_json::json;
use serin_agent::gateway::{Gateway, Infer, Limits, Listener, Router, Served, serve};
use serin_agent::telemetry::{Recorder, Recording};
use serin_agent::update::effect::Now;
use serin_agent::worker::{InferError, Inferred, Worker};
use serin_protocol::ids::{ByteCount, Digest, Millis, UnixMillis};
use serin_protocol::manifest::Manifest;
use serin_protocol::sketch::profile::Profile;
use serin_protocol::tensor::TensorHeader;
use serin_tests::samples::Samples;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::http::{Connection, Question};
use crate::models::{row, spec};
use crate::passing::Passing;

/// First argument of the process.
pub(crate) const FRONT: &str = "gateway";
/// Requests before those whose time is taken.
const WARM_UP: usize = 5;

/// Times of the same requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    /// From request to answer.
    pub(crate) whole: Samples,
    /// In pipeline and model.
    pub(crate) inside: Samples,
    /// For passing the bytes on, which two processes cannot do without.
    pub(crate) passing: Duration,
}

impl Times {
    pub(crate) fn added(&self) -> Duration {
        self.whole.quantile(50).saturating_sub(self.inside.quantile(50))
    }
}

/// Asks the release in `folder` for its row so many times, raw both ways, one request after the other.
pub(crate) fn measure(folder: &Path, limit: ByteCount, runs: usize) -> Result<Times> {
    let manifest = Manifest::parse(&std::fs::read(folder.join("manifest.json"))?)?;
    let (mut process, mut said) = start(folder, limit)?;
    let times = ask(&manifest, folder, &mut said, runs);
    // It ends with its input.
    drop(process.stdin.take());
    let mut inside = Samples::default();
    for line in said.lines().skip(WARM_UP) {
        inside.push(Duration::from_micros(line?.parse()?));
    }
    process.wait()?;
    let (whole, question, answer) = times?;
    let passing = Passing::start(&question, answer, inside.quantile(50))?.median(WARM_UP, runs)?;
    Ok(Times { whole, inside, passing })
}

fn start(folder: &Path, limit: ByteCount) -> Result<(Child, BufReader<ChildStdout>)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(FRONT).arg(folder).arg(limit.0.to_string());
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let said = BufReader::new(process.stdout.take().context("no output")?);
    Ok((process, said))
}

fn ask(
    manifest: &Manifest,
    folder: &Path,
    said: &mut BufReader<ChildStdout>,
    runs: usize,
) -> Result<(Samples, Question, usize)> {
    let mut port = String::new();
    said.read_line(&mut port)?;
    let (headers, raw) = row(folder, manifest)?;
    let inputs = headers.iter().map(|TensorHeader { name, datatype, shape, bytes }| {
        json!({ "name": name, "datatype": datatype, "shape": shape.as_slice(), "parameters": { "binary_data_size": bytes } })
    });
    let inputs: Vec<_> = inputs.collect();
    let mut body =
        json!({ "inputs": inputs, "parameters": { "binary_data_output": true } }).to_string().into_bytes();
    let headers = format!("Inference-Header-Content-Length: {}\r\n", body.len());
    body.extend_from_slice(&raw);
    let address = format!("127.0.0.1:{}", port.trim());
    let question = Question { address, model: manifest.model.to_string(), headers, body };
    let mut connection = Connection::open(&question)?;
    let mut whole = Samples::default();
    for at in 0..WARM_UP + runs {
        let took = connection.ask()?;
        if at >= WARM_UP {
            whole.push(took);
        }
    }
    Ok((whole, question, connection.answer_bytes()))
}

/// A worker whose own times are kept.
struct Watched {
    worker: Worker,
    micros: Arc<Mutex<Vec<u64>>>,
}

impl Infer for Watched {
    async fn infer(&self, inputs: Vec<TensorHeader>, body: Bytes) -> Result<Inferred, InferError> {
        let inferred = self.worker.infer(inputs, body).await?;
        self.micros.lock().expect("sound").push(inferred.micros);
        Ok(inferred)
    }

    async fn room(&self) {
        self.worker.room().await;
    }
}

/// Says its port, then answers until its input ends, then says how long each request took in pipeline and model.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let [_, _, folder, limit] = arguments else { anyhow::bail!("folder and limit") };
    // On one thread, as the agent's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(answer(Path::new(folder), ByteCount(limit.parse()?)))
}

async fn answer(folder: &Path, limit: ByteCount) -> Result<()> {
    let spec = spec(folder, limit)?;
    let manifest = Arc::new(Manifest::parse(&std::fs::read(folder.join("manifest.json"))?)?);
    let worker = Worker::start(spec).await.map_err(|fault| anyhow!("{fault}"))?;
    let micros = Arc::new(Mutex::new(Vec::new()));
    let now = Now { wall: UnixMillis(0), elapsed: Millis(0) };
    let profile = Arc::new(Profile::default());
    let recorder = Recorder::new(&manifest, profile, Digest::of(b""), Millis(60_000), now)?;
    let watched = Watched { worker, micros: Arc::clone(&micros) };
    let router = Arc::new(Router::default());
    router.flip(Some(Arc::new(Served::new(manifest, watched, Recording::new(recorder)))));
    let (field, _commands) = mpsc::channel(1);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?.port());
    let (stop, stopped) = watch::channel(false);
    std::thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        stop.send_replace(true);
    });
    serve(Gateway::new(router, field, Limits::default()), Listener::Tcp(listener), stopped).await;
    for micros in micros.lock().expect("sound").iter() {
        println!("{micros}");
    }
    Ok(())
}
