//! The worker process: `serin-agent worker`, started by the supervisor only. Limits itself, loads the
//! model, then answers frames one after another until its supervisor is gone.

use std::io::{self, BufReader, IoSlice, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serin_protocol::frame::{
    InferFault, LoadFault, PREFIX_BYTES, Prefix, Ready, Sandbox, WorkerRequest, WorkerResponse,
    decode_header, encode_head,
};
use serin_protocol::ids::ByteCount;

use super::answer::Answer;
use super::engine::{Engine, FILES};
use super::limits;
use super::{calls, group, sandbox};
use serin_model::{panics, tells_of_exhaustion};

/// The supervisor sent what is no frame, or the socket broke.
const EXIT_PROTOCOL: u8 = 3;
/// Not started by a supervisor, or it could not be tied to it.
const EXIT_NOT_SUPERVISED: u8 = 4;
/// The model did not load; the supervisor was told why.
const EXIT_LOAD: u8 = 5;
/// Read ahead: a request of a few rows arrives whole by one system call; of a larger one the body is read to its place.
const READ_AHEAD: usize = 16 << 10;
/// What Rust itself exits with after a panic.
const EXIT_PANIC: i32 = 101;

/// What tract reads, besides the model, to choose kernels that fit the processor.
const PROCESSOR: [&str; 2] = ["/proc/cpuinfo", "/sys/devices/system/cpu"];

/// Set once the first frame has been sent: a panic before it is reported as a failed load.
static ANSWERED: AtomicBool = AtomicBool::new(false);

/// Arguments of `serin-agent worker`.
#[derive(Clone, Debug, clap::Args)]
pub struct WorkerArgs {
    /// Directory with the unpacked release.
    #[arg(long)]
    pub dir: PathBuf,
    /// Private writable memory in bytes; 18446744073709551615 for no limit.
    #[arg(long)]
    pub memory_limit: u64,
    /// Milliseconds after which no more rows of a request are begun.
    #[arg(long)]
    pub patience: u64,
    /// Load nothing where any protection is not to be had.
    #[arg(long)]
    pub require_sandbox: bool,
    /// The memory group to join.
    #[arg(long)]
    pub group: Option<PathBuf>,
}

/// Runs the worker until the supervisor closes the socket on standard input.
pub fn run(args: &WorkerArgs) -> ExitCode {
    let memory = ByteCount(args.memory_limit);
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from) else {
        return complain(EXIT_NOT_SUPERVISED, "standard input is closed");
    };
    if socket.peer_addr().is_err() {
        return complain(
            EXIT_NOT_SUPERVISED,
            "this command is started by the agent itself, with a socket as standard input",
        );
    }
    // Where it cannot be joined, the limit on private memory is all there is, as without groups.
    let grouped = args.group.as_deref().is_some_and(|path| group::join(path).is_ok());
    let limits = match limits::apply(memory) {
        Ok(limits) => limits,
        Err(error) => {
            return complain(EXIT_NOT_SUPERVISED, &format!("cannot be tied to the supervisor: {error}"));
        }
    };
    if supervisor_is_gone(&socket) {
        return ExitCode::from(EXIT_NOT_SUPERVISED);
    }
    let filtered_early = calls::forbid_the_deadly().is_ok();
    report_panics();

    let release = FILES.iter().map(|file| args.dir.join(file.name()));
    let readable: Vec<PathBuf> = release.chain(PROCESSOR.iter().map(PathBuf::from)).collect();
    let confined_early = sandbox::allow_only(&readable).unwrap_or(false);
    let start = Instant::now();
    let sandbox = Sandbox {
        no_new_privileges: limits.no_new_privileges,
        files_closed: confined_early,
        memory_limited: limits.memory || grouped,
        calls_filtered: filtered_early,
    };
    let patience = Duration::from_millis(args.patience);
    // Before anything of the model is looked at.
    let loaded = match confined_as_required(args.require_sandbox, sandbox) {
        Ok(()) => Engine::load(&args.dir, memory, patience),
        Err(fault) => Err(fault),
    };
    let load_micros = micros_since(start);
    let confined = confined_early && sandbox::allow_only(&[]).unwrap_or(false);

    let filtered = filtered_early && calls::leave_only_what_answering_takes().is_ok();

    ANSWERED.store(true, Ordering::Relaxed);
    let mut engine = match loaded {
        Ok(engine) => engine,
        Err(fault) => {
            let text = fault.to_string();
            return match send(&socket, &WorkerResponse::LoadFailed(fault), &[]) {
                Ok(()) => complain(EXIT_LOAD, &text),
                Err(error) => complain(EXIT_PROTOCOL, &format!("{text}; telling it failed: {error}")),
            };
        }
    };
    let sandbox = Sandbox { files_closed: confined, calls_filtered: filtered, ..sandbox };
    let ready = WorkerResponse::Ready(Ready { load_micros, rows_at_once: engine.rows_at_once(), sandbox });
    let served = send(&socket, &ready, &[]).and_then(|()| serve(&socket, &mut engine));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(EXIT_PROTOCOL, &error.to_string()),
    }
}

fn confined_as_required(required: bool, sandbox: Sandbox) -> Result<(), LoadFault> {
    let lacks: Vec<&str> = sandbox.lacks().collect();
    if required && !lacks.is_empty() { Err(LoadFault::Unconfined(lacks.join(", "))) } else { Ok(()) }
}

fn complain(code: u8, text: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "{text}");
    ExitCode::from(code)
}

/// The death signal is not sent for a supervisor that died before it was asked for.
fn supervisor_is_gone(socket: &UnixStream) -> bool {
    use rustix::net::{RecvFlags, recv};
    let mut byte = [0_u8];
    matches!(recv(socket, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT), Ok((0, _)))
}

/// A panic that nobody catches ends the process in every build, with the message on standard error,
/// from which the supervisor tells exhaustion from a bug. While loading it is the answer as well. So does one that tells of
/// exhaustion, caught or not: what was being allocated is unknown.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let _ = writeln!(io::stderr(), "{panic}");
        if panics::are_caught() && !tells_of_exhaustion(&panic.to_string()) {
            return;
        }
        if !ANSWERED.swap(true, Ordering::Relaxed) {
            let text = panic.to_string();
            let fault = if tells_of_exhaustion(&text) {
                LoadFault::MemoryLimit
            } else {
                LoadFault::Invalid(format!(
                    "the runtime gave up: {}",
                    text.chars().take(500).collect::<String>()
                ))
            };
            if let Ok(socket) = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from) {
                let _ = send(&socket, &WorkerResponse::LoadFailed(fault), &[]);
            }
        }
        std::process::exit(EXIT_PANIC);
    }));
}

fn serve(socket: &UnixStream, engine: &mut Engine) -> io::Result<()> {
    let mut requests = BufReader::with_capacity(READ_AHEAD, socket);
    while let Some(prefix) = read_prefix(&mut requests)? {
        let mut header = vec![0; prefix.header as usize];
        requests.read_exact(&mut header)?;
        let asked: WorkerRequest = decode_header(&header).map_err(io::Error::other)?;
        let body = read_body(&mut requests, prefix.body as usize, engine.most_body_bytes())?;
        let start = Instant::now();
        let (request, outcome) = match asked {
            WorkerRequest::Infer { request, inputs } => {
                (request, body.and_then(|body| survived(|| engine.infer(&inputs, &body))))
            }
            WorkerRequest::Prepare { request, inputs } => {
                (request, body.and_then(|body| survived(|| engine.prepare(&inputs, &body))))
            }
        };
        let micros = micros_since(start);
        match outcome {
            Ok(answer) => {
                let Answer { outputs, parts, predictions, pictures } = answer;
                let response = WorkerResponse::Inferred { request, micros, outputs, predictions, pictures };
                send(socket, &response, &parts)?;
            }
            Err(fault) => send(socket, &WorkerResponse::InferFailed { request, fault }, &[])?,
        }
    }
    Ok(())
}

/// What `run` answers. Decoders of images and the runtime may panic where a request holds what nobody thought of; that is
/// no reason to leave all others without a worker. The model throws away what it was running itself.
fn survived(run: impl FnOnce() -> Result<Answer, InferFault>) -> Result<Answer, InferFault> {
    panics::caught(run).unwrap_or_else(|text| Err(InferFault::Model(text)))
}

/// `None` when the supervisor has closed its end between two frames.
fn read_prefix(socket: &mut impl io::Read) -> io::Result<Option<Prefix>> {
    let mut bytes = [0_u8; PREFIX_BYTES];
    loop {
        match socket.read(&mut bytes[..1]) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    socket.read_exact(&mut bytes[1..])?;
    Prefix::decode(bytes).map(Some).map_err(io::Error::other)
}

/// Reads a body. One that is too large for this worker is skipped and refused: the caller's mistake
/// must not cost the worker its life.
fn read_body(
    socket: &mut impl io::Read,
    bytes: usize,
    most: usize,
) -> io::Result<Result<Vec<u8>, InferFault>> {
    let mut body = Vec::new();
    if bytes > most || body.try_reserve_exact(bytes).is_err() {
        io::copy(&mut socket.by_ref().take(bytes as u64), &mut io::sink())?;
        let text =
            format!("a request of {bytes} bytes is too large for this model's worker, which takes {most}");
        return Ok(Err(InferFault::Input(text)));
    }
    socket.by_ref().take(bytes as u64).read_to_end(&mut body)?;
    if body.len() == bytes { Ok(Ok(body)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn send(mut socket: &UnixStream, response: &WorkerResponse, body: &[Vec<u8>]) -> io::Result<()> {
    let head = encode_head(response, body.iter().map(Vec::len).sum()).map_err(io::Error::other)?;
    let parts = std::iter::once(&head).chain(body).filter(|part| !part.is_empty());
    let mut slices: Vec<IoSlice<'_>> = parts.map(|part| IoSlice::new(part)).collect();
    let mut left = slices.as_mut_slice();
    // At once, so that the supervisor is woken once.
    while !left.is_empty() {
        match socket.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn micros_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}
