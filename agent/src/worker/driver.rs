//! The supervisor's task for one worker: hands over one run at a time, of one request or of several that
//! waited, kills what does not answer in time or talks nonsense, and reaps.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as BlockingStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serin_protocol::frame::{InferFault, LoadFault, Ready, WorkerResponse};
use serin_protocol::ids::ReleaseId;
use serin_protocol::message::WorkerDeath;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::awake::Waiting;
use super::group::Group;
use super::process::{Company, InferError, Inferred, StartFault, WorkerSpec};
use super::queue::{Job, Queue, Run};
use super::{death, stderr, wire};

/// Time a process that has closed its socket gets to end by itself, so that its own exit code is seen.
const LAST_GASP: Duration = Duration::from_secs(2);

/// Read ahead: the answer for a few rows arrives whole by one system call.
const READ_AHEAD: usize = 8 << 10;

/// Whether the worker lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Running,
    /// It was told to end.
    Stopped,
    Died(WorkerDeath),
}

/// A worker that is ready, its task not yet running.
pub(super) struct Started {
    pub(super) ready: Ready,
    pub(super) pid: u32,
    pub(super) driver: Driver,
}

pub(super) struct Driver {
    process: Process,
    socket: BufReader<UnixStream>,
    request_deadline: Duration,
    queue: Queue,
    /// Processors that this process and the worker have.
    processors: usize,
}

/// The process and what it says; killed when dropped.
struct Process {
    child: Child,
    /// Removed after the child.
    group: Option<Group>,
    stderr: Option<JoinHandle<String>>,
    release: ReleaseId,
}

/// Why the task ends.
enum End {
    /// It was told to.
    Asked,
    /// No answer in time.
    Hung,
    /// It said that its memory ran out.
    Exhausted,
    /// The process is gone or going; its status tells why.
    Gone,
    /// It broke the protocol.
    Nonsense(io::Error),
}

/// Starts the process and waits until the model is loaded.
pub(super) async fn start(spec: WorkerSpec) -> Result<Started, StartFault> {
    let (mut process, socket) = spawn(&spec).map_err(StartFault::Spawn)?;
    let mut socket = BufReader::with_capacity(READ_AHEAD, socket);
    let pid = process.child.id().unwrap_or_default();
    debug!(release = %spec.release, pid, limit = %spec.memory_limit, "worker started");
    let end = match timeout(spec.load_deadline, wire::receive(&mut socket)).await {
        Ok(Ok((WorkerResponse::Ready(ready), _))) => {
            info!(release = %spec.release, pid, micros = ready.load_micros, "model loaded");
            let queue = Queue::new(ready.rows_at_once);
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            let driver =
                Driver { process, socket, request_deadline: spec.request_deadline, queue, processors };
            return Ok(Started { ready, pid, driver });
        }
        Ok(Ok((WorkerResponse::LoadFailed(fault), _))) => {
            process.kill().await;
            return Err(StartFault::Load(fault));
        }
        Ok(Ok((WorkerResponse::Inferred { .. } | WorkerResponse::InferFailed { .. }, _))) => {
            End::Nonsense(io::Error::other("an answer without a question"))
        }
        Ok(Err(error)) => broken(error),
        Err(_) => End::Hung,
    };
    Err(match process.end(end).await {
        Life::Died(WorkerDeath::MemoryLimit) => StartFault::Load(LoadFault::MemoryLimit),
        Life::Died(death) => StartFault::Died(death),
        // Nobody could ask.
        Life::Running | Life::Stopped => StartFault::Died(WorkerDeath::Hung),
    })
}

fn spawn(spec: &WorkerSpec) -> io::Result<(Process, UnixStream)> {
    let (ours, theirs) = BlockingStream::pair()?;
    ours.set_nonblocking(true)?;
    let socket = UnixStream::from_std(ours)?;
    let group = spec.groups.as_ref().and_then(|groups| {
        let made = groups.group(spec.memory_limit);
        made.inspect_err(|error| warn!(release = %spec.release, %error, "no memory group for it")).ok()
    });
    let mut command = Command::new(&spec.program);
    command
        .arg0("serin-agent")
        .arg("worker")
        .arg("--dir")
        .arg(std::path::absolute(&spec.dir)?)
        .args(["--memory-limit", &spec.memory_limit.to_string()])
        .args(["--patience", &spec.request_deadline.as_millis().to_string()])
        // It needs nothing of the environment, which may hold secrets.
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        // The socket is both ways on standard input: what a library prints must not get into frames.
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // Ctrl-C at the agent's terminal is for the agent.
        .process_group(0)
        .kill_on_drop(true);
    if spec.require_sandbox {
        command.arg("--require-sandbox");
    }
    if let Some(group) = &group {
        command.arg("--group").arg(group.path());
    }
    let mut child = command.spawn()?;
    let release = spec.release.clone();
    let stderr = child.stderr.take().map(|stderr| tokio::spawn(stderr::follow(stderr, release.clone())));
    Ok((Process { child, group, stderr, release }, socket))
}

/// A socket that ends tells of the process; anything else that is wrong, of what it says.
fn broken(error: io::Error) -> End {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            End::Gone
        }
        _ => End::Nonsense(error),
    }
}

impl Driver {
    /// Serves `jobs` until the worker ends one way or another, then tells `life`.
    pub(super) async fn drive(
        mut self,
        mut jobs: mpsc::Receiver<Job>,
        mut stop: watch::Receiver<bool>,
        life: watch::Sender<Life>,
    ) {
        let end = self.serve(&mut jobs, &mut stop).await;
        let outcome = self.process.end(end).await;
        life.send_replace(outcome.clone());
        // Only what was running can be what it died of.
        self.queue.fail(&match outcome {
            Life::Died(death) => InferError::Died(death),
            Life::Running | Life::Stopped => InferError::Stopped,
        });
        // Whoever waits now sees his place gone and asks `life`.
    }

    async fn serve(&mut self, jobs: &mut mpsc::Receiver<Job>, stop: &mut watch::Receiver<bool>) -> End {
        loop {
            if self.queue.is_empty() {
                let job = tokio::select! {
                    biased;
                    // An error means that the last handle is gone.
                    _ = stop.changed() => return End::Asked,
                    _ = self.process.child.wait() => return End::Gone,
                    job = jobs.recv() => job,
                };
                let Some(job) = job else { return End::Asked };
                self.queue.push(job);
            }
            while self.queue.has_room()
                && let Ok(job) = jobs.try_recv()
            {
                self.queue.push(job);
            }
            // It may have died between two runs, which the next one must not be blamed for.
            if matches!(self.process.child.try_wait(), Ok(Some(_))) {
                return End::Gone;
            }
            let Some(run) = self.queue.next() else { continue };
            let start = Instant::now();
            // Who waits behind it has work for everybody; nobody needs to be kept awake.
            let company = !self.queue.is_empty() || !jobs.is_empty();
            let waiting = Waiting::for_run(run.expected.filter(|_| !company), self.processors);
            // With more rows than it runs at once the worker looks at the time itself, between two runs of its model: it is
            // hung only if the last of these takes as long again.
            let deadline = self.request_deadline.saturating_mul(if run.in_steps { 2 } else { 1 });
            let answer = tokio::select! {
                biased;
                _ = stop.changed() => return End::Asked,
                answer = timeout(deadline, exchange(&mut self.socket, &run, waiting)) => answer,
            };
            match answer {
                Ok(Ok(outcome)) => self.queue.hand_out(outcome, start, start.elapsed()),
                Ok(Err(end)) => return end,
                Err(_) => return End::Hung,
            }
        }
    }
}

async fn exchange(
    socket: &mut BufReader<UnixStream>,
    run: &Run,
    waiting: Waiting,
) -> Result<Result<Inferred, InferError>, End> {
    wire::send(socket, &run.head, &run.parts).await.map_err(broken)?;
    let (response, body) = waiting.until(wire::receive(socket)).await.map_err(broken)?;
    match response {
        WorkerResponse::Inferred { request, micros, outputs, predictions, pictures }
            if request == run.number =>
        {
            // It was checked when it was received.
            let end = wire::outputs_end(body.len(), pictures).unwrap_or(body.len());
            let (body, pictures) = (body.slice(..end), body.slice(end..));
            let company = Company::Alone;
            Ok(Ok(Inferred { micros, waited_micros: 0, company, outputs, body, predictions, pictures }))
        }
        WorkerResponse::InferFailed { request, fault } if request == run.number => match fault {
            InferFault::Input(text) => Ok(Err(InferError::Input(text))),
            InferFault::Model(text) => Ok(Err(InferError::Model(text))),
            InferFault::MemoryLimit => Err(End::Exhausted),
        },
        WorkerResponse::Inferred { .. }
        | WorkerResponse::InferFailed { .. }
        | WorkerResponse::Ready(_)
        | WorkerResponse::LoadFailed(_) => {
            Err(End::Nonsense(io::Error::other("an answer to another question")))
        }
    }
}

impl Process {
    /// Brings the process to its end and tells which it was.
    async fn end(&mut self, end: End) -> Life {
        let release = self.release.clone();
        let death = match end {
            End::Asked => {
                self.kill().await;
                debug!(%release, "worker stopped");
                return Life::Stopped;
            }
            End::Hung => {
                self.kill().await;
                WorkerDeath::Hung
            }
            End::Exhausted => {
                self.kill().await;
                WorkerDeath::MemoryLimit
            }
            End::Gone => self.autopsy().await,
            End::Nonsense(error) => {
                warn!(%release, %error, "worker breaks the protocol and is killed");
                self.kill().await;
                self.autopsy().await
            }
        };
        warn!(%release, %death, "worker died");
        Life::Died(death)
    }

    async fn kill(&mut self) {
        if let Err(error) = self.child.kill().await {
            warn!(release = %self.release, %error, "worker cannot be killed");
        }
    }

    async fn autopsy(&mut self) -> WorkerDeath {
        if timeout(LAST_GASP, self.child.wait()).await.is_err() {
            self.kill().await;
        }
        let last_words = match self.stderr.take() {
            // The pipe closes with the process; should something else hold it open, do without.
            Some(stderr) => timeout(LAST_GASP, stderr).await.ok().and_then(Result::ok).unwrap_or_default(),
            None => String::new(),
        };
        match self.child.wait().await {
            Ok(_) if self.group.as_ref().is_some_and(Group::ran_out) => WorkerDeath::MemoryLimit,
            Ok(status) => death::classify(status, &last_words),
            Err(error) => {
                warn!(release = %self.release, %error, "worker cannot be waited for");
                WorkerDeath::Hung
            }
        }
    }
}
