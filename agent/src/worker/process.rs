//! The supervisor's handle on one worker process.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serin_protocol::frame::{LoadFault, Prediction, Ready, Sandbox};
use serin_protocol::ids::{ByteCount, ReleaseId};
use serin_protocol::message::{Detail, Reason, WorkerDeath};
use serin_protocol::tensor::TensorHeader;
use tokio::sync::{mpsc, oneshot, watch};

use super::driver::{self, Life, Started};
use super::group::Delegated;
use super::queue::{Job, Wanted};
use super::wire;

/// Requests that may wait, besides those that can be in the next run. At a few milliseconds each the last one waits well under a second; who
/// comes then is better told at once that the device is too slow for him.
pub const QUEUE: usize = 64;

/// What to start.
#[derive(Clone, Debug)]
pub struct WorkerSpec {
    /// The agent's own binary, as an absolute path; see [`WorkerSpec::own_program`].
    pub program: PathBuf,
    /// Directory with the unpacked release, files under their bundle names (links are followed).
    pub dir: PathBuf,
    /// Model and version, for the log.
    pub release: ReleaseId,
    /// Private writable memory it may have; [`u64::MAX`] for no limit.
    pub memory_limit: ByteCount,
    /// Where groups for workers can be made, besides their limits on themselves.
    pub groups: Option<Arc<Delegated>>,
    /// Time from start to ready.
    pub load_deadline: Duration,
    /// Time for one inference, from the moment the worker gets it.
    pub request_deadline: Duration,
    /// Load nothing where any protection is not to be had.
    pub require_sandbox: bool,
}

impl WorkerSpec {
    /// The program this process runs, even when its file has been replaced or removed since.
    pub fn own_program() -> PathBuf {
        PathBuf::from("/proc/self/exe")
    }
}

/// A worker that is ready. Clones share it; it is killed when the last one is dropped.
///
/// The task behind it needs the tokio runtime that [`Worker::start`] was called on. Start workers on a
/// thread that lives as long as they shall: the kernel kills them when that thread ends.
#[derive(Clone, Debug)]
pub struct Worker(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    jobs: mpsc::Sender<Job>,
    /// Dropped with the last handle, which stops the worker too.
    stop: watch::Sender<bool>,
    life: watch::Receiver<Life>,
    pid: u32,
    ready: Ready,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Inferred {
    /// Time in pipeline and model, in microseconds; of the whole run for requests that were run together.
    pub micros: u64,
    /// Time from the request to the begin of its run, in microseconds.
    pub waited_micros: u64,
    /// Who was in its run.
    pub company: Company,
    /// The declared outputs. Types, shapes and sizes agree with the body.
    pub outputs: Vec<TensorHeader>,
    /// Their raw values.
    pub body: Bytes,
    /// Class and confidence (NaN: none) per row, where the manifest declares a prediction.
    pub predictions: Vec<Prediction>,
    /// Numbers about the pictures of each row, where the manifest has them watched: little-endian `FP32`, in the order
    /// of [`serin_protocol::manifest::watch::Pictured`].
    pub pictures: Bytes,
}

/// Who was run together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// Nobody else: the time is its own.
    Alone,
    /// It was the first of several.
    First,
    /// It was another one of several.
    Another,
}

impl Company {
    /// Whether it is the first, or only, request of its run: counting these counts runs.
    pub const fn leads(self) -> bool {
        matches!(self, Self::Alone | Self::First)
    }
}

/// Why a worker is not ready.
#[derive(Debug, thiserror::Error)]
pub enum StartFault {
    /// The model does not load.
    #[error(transparent)]
    Load(LoadFault),
    /// It died while loading; [`WorkerDeath::Hung`] when it was killed at the deadline.
    #[error("the worker died while loading: {0}")]
    Died(WorkerDeath),
    /// The process could not be started.
    #[error("the worker could not be started: {0}")]
    Spawn(#[source] io::Error),
}

impl StartFault {
    /// The same as a reason to reject a release.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Load(LoadFault::MemoryLimit) => Reason::WorkerDied(WorkerDeath::MemoryLimit),
            Self::Load(fault) => Reason::LoadFailed(Detail::new(&fault.to_string())),
            Self::Died(death) => Reason::WorkerDied(death.clone()),
            Self::Spawn(_) => Reason::LoadFailed(Detail::new(&self.to_string())),
        }
    }
}

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InferError {
    /// The caller's mistake: an input is missing, unknown, of the wrong type or shape.
    #[error("{0}")]
    Input(String),
    /// The model failed; the worker goes on.
    #[error("inference failed: {0}")]
    Model(String),
    /// [`QUEUE`] requests are waiting.
    #[error("{QUEUE} requests are waiting already")]
    Busy,
    /// The worker died of it, or of one that was run together with it.
    #[error("the worker died: {0}")]
    Died(WorkerDeath),
    /// The worker died before it was given the request, which therefore may be asked of any other.
    #[error("the worker died before it came to this request: {0}")]
    Unasked(WorkerDeath),
    /// The worker was stopped before it answered.
    #[error("the worker was stopped")]
    Stopped,
}

impl Worker {
    /// Starts a worker and waits until its model is loaded.
    pub async fn start(spec: WorkerSpec) -> Result<Self, StartFault> {
        let Started { ready, pid, driver } = driver::start(spec).await?;
        let (jobs, waiting) = mpsc::channel(QUEUE);
        let (stop, stopped) = watch::channel(false);
        let (alive, life) = watch::channel(Life::Running);
        tokio::spawn(driver.drive(waiting, stopped, alive));
        Ok(Self(Arc::new(Handle { jobs, stop, life, pid, ready })))
    }

    /// Runs the release's pipeline and model over `inputs`, whose raw values lie in `body` one after
    /// another. Requests are answered in the order they came; those that wait may be run together.
    pub async fn infer(&self, inputs: Vec<TensorHeader>, body: Bytes) -> Result<Inferred, InferError> {
        self.ask(inputs, body, Wanted::Inference).await
    }

    /// Runs only the steps before the model over `inputs`, and gives what they hand to it as `FP32`, under the
    /// names of the pipeline.
    pub async fn prepare(&self, inputs: Vec<TensorHeader>, body: Bytes) -> Result<Inferred, InferError> {
        self.ask(inputs, body, Wanted::Preparation).await
    }

    async fn ask(
        &self,
        inputs: Vec<TensorHeader>,
        body: Bytes,
        wanted: Wanted,
    ) -> Result<Inferred, InferError> {
        wire::check_request(&inputs, &body).map_err(InferError::Input)?;
        let (reply, answer) = oneshot::channel();
        match self.0.jobs.try_send(Job {
            inputs,
            body,
            reply,
            since: Instant::now(),
            alone: wanted == Wanted::Preparation,
            wanted,
        }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(InferError::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(self.ended().await),
        }
        match answer.await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.ended().await),
        }
    }

    /// Resolves when another request would find a place in the queue, or the worker is gone.
    pub async fn room(&self) {
        // An error is an end, which the next request is told of.
        let _ = self.0.jobs.reserve().await;
    }

    /// What a request that was never given to the process learns.
    async fn ended(&self) -> InferError {
        let mut life = self.0.life.clone();
        match ended(&mut life).await {
            Some(death) => InferError::Unasked(death),
            None => InferError::Stopped,
        }
    }

    /// Resolves when the worker is gone: with its death if nobody asked for it, with `None` if it was
    /// stopped. The future does not keep the worker alive.
    pub fn death(&self) -> impl Future<Output = Option<WorkerDeath>> + Send + 'static {
        let mut life = self.0.life.clone();
        async move { ended(&mut life).await }
    }

    /// Kills the worker, whatever it is doing, and waits until the system has taken it back. To let
    /// waiting requests be answered first, drop the handles instead.
    pub async fn stop(&self) {
        self.0.stop.send_replace(true);
        let mut life = self.0.life.clone();
        ended(&mut life).await;
    }

    /// Largest resident memory so far (`VmHWM`); `None` once it is gone.
    pub fn peak_resident(&self) -> Option<ByteCount> {
        self.memory("VmHWM:")
    }

    /// Private writable memory now (`VmData`), which is what the limit is about; `None` once it is gone.
    pub fn data_in_use(&self) -> Option<ByteCount> {
        self.memory("VmData:")
    }

    fn memory(&self, field: &str) -> Option<ByteCount> {
        // Once it has been reaped, its number may be another's.
        if *self.0.life.borrow() != Life::Running {
            return None;
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(ByteCount(kibibytes.saturating_mul(1024)))
    }

    /// Its process id, for the log and the doctor.
    pub fn pid(&self) -> u32 {
        self.0.pid
    }

    /// Rows that its model runs at once.
    pub fn rows_at_once(&self) -> usize {
        self.0.ready.rows_at_once as usize
    }

    /// The protections it has around itself.
    pub fn sandbox(&self) -> Sandbox {
        self.0.ready.sandbox
    }

    /// Time it took to load the model, in microseconds.
    pub fn load_micros(&self) -> u64 {
        self.0.ready.load_micros
    }
}

/// Waits for the end of a life; `None` when it was asked for.
async fn ended(life: &mut watch::Receiver<Life>) -> Option<WorkerDeath> {
    match life.wait_for(|life| *life != Life::Running).await.as_deref() {
        Ok(Life::Died(death)) => Some(death.clone()),
        // The runtime is shutting down, and the worker with it.
        Ok(Life::Running | Life::Stopped) | Err(_) => None,
    }
}
