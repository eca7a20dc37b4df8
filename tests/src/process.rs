//! Child processes that end with their value, and keep what they said for the report of a failed test.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A running program.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts `command`; what it says goes to the end of the file `log`.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::options().append(true).create(true).open(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        Ok(Self { child, log: log.into() })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Pulls the plug.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end and waits; pulls the plug when it does not.
    pub fn stop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id())
            && let Some(pid) = Pid::from_raw(pid)
            && self.is_running()
        {
            let _ = kill_process(pid, Signal::TERM);
            let ended =
                crate::until("it ends", Duration::from_secs(10), || (!self.is_running()).then_some(()));
            if ended.is_ok() {
                return;
            }
        }
        self.kill();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let said = self.said();
            let from = said.len().saturating_sub(6000);
            let tail = said.get(from..).unwrap_or(&said);
            eprintln!("--- {} ended with:\n{tail}", self.log.display());
        }
    }
}

/// One of the workspace's programs, beside the one that runs now.
pub fn program(name: &str) -> Result<PathBuf> {
    let mut folder = std::env::current_exe()?;
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join(name);
    anyhow::ensure!(path.exists(), "{} is missing: run cargo build --workspace first", path.display());
    Ok(path)
}

/// The build folder, where also lies what tests fetch and what they leave to be looked at.
pub fn target() -> Result<PathBuf> {
    let built = program("serin-agent")?;
    Ok(built.parent().and_then(Path::parent).context("no build folder")?.to_owned())
}

/// Where ports are tried from, and how many: below those that outgoing connections get (from 32,768 on), one of which
/// could otherwise take a port before its server does, or while that is started again.
const PORTS: (u32, u32) = (10_000, 22_000);

/// Ports that one process tries before those of the next process.
const PORTS_PER_PROCESS: u32 = 16;

/// A port nobody listens on at this moment, and that nobody is likely to take.
pub fn free_port() -> Result<u16> {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let (first, count) = PORTS;
    let begin = std::process::id().wrapping_mul(PORTS_PER_PROCESS);
    for _ in 0..count {
        let at = begin.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed)) % count;
        let port = u16::try_from(first + at)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free from {first} on")
}
