//! A device: the real agent with its workers.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::bundles::text;
use crate::process::{Running, free_port, program};
use crate::server::FLEET;

/// Whom a device trusts and where it finds the broker.
#[derive(Clone)]
pub struct Provision {
    pub mqtt: u16,
    /// The first root of the publisher.
    pub root: PathBuf,
    /// Further lines of its configuration, before the first table.
    pub extra: String,
    /// What its clock says when it starts, as libfaketime reads it: `@1970-01-02 00:00:00`.
    pub clock: Option<String>,
    /// Further variables of its environment.
    pub environment: Vec<(String, String)>,
}

/// One device.
pub struct Device {
    pub name: String,
    pub folder: PathBuf,
    pub gateway: u16,
    /// See [`Provision::clock`]; counts from the next start on.
    pub clock: Option<String>,
    environment: Vec<(String, String)>,
    running: Option<Running>,
}

impl Device {
    /// A new device that keeps everything under `lab/NAME`.
    pub fn start(lab: &Path, name: &str, provision: &Provision) -> Result<Self> {
        let folder = lab.join(name);
        std::fs::create_dir_all(&folder)?;
        let gateway = free_port()?;
        let Provision { mqtt, root, extra, clock, environment } = provision;
        let config = format!(
            "device = '{name}'\nfleet = '{FLEET}'\ndata = '{}'\n{extra}\n\
             broker.host = '127.0.0.1'\nbroker.port = {mqtt}\n\
             trust.root = '{}'\n\
             gateway.listen = '127.0.0.1:{gateway}'\ntelemetry.window = '2s'\n",
            text(&folder),
            text(root),
        );
        std::fs::write(folder.join("agent.toml"), config)?;
        let mut device = Self {
            name: name.into(),
            folder,
            gateway,
            clock: clock.clone(),
            environment: environment.clone(),
            running: None,
        };
        device.power_on()?;
        Ok(device)
    }

    pub fn power_on(&mut self) -> Result<()> {
        self.start_with(Command::new(program("serin-agent")?))
    }

    /// As [`Self::power_on`], with a disk that takes no writes. Only the agent sees it so.
    pub fn power_on_with_a_read_only_disk(&mut self) -> Result<()> {
        let mut command = own_mounts();
        command.args(["sh", "-c", READ_ONLY, "sh", text(&self.folder)]).arg(program("serin-agent")?);
        self.start_with(command)
    }

    fn start_with(&mut self, mut command: Command) -> Result<()> {
        command.arg("run").arg("--config").arg(self.folder.join("agent.toml"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(clock) = &self.clock {
            // Time that has passed stays as it is: only the date is wrong.
            command.env("LD_PRELOAD", faketime()?).env("FAKETIME", clock).env("DONT_FAKE_MONOTONIC", "1");
        }
        self.running = Some(Running::start(&mut command, &self.folder.join("agent.log"))?);
        crate::until("the agent answers", Duration::from_secs(20), || self.status().ok()).map(drop)
    }

    /// Pulls the plug.
    pub fn power_off(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
    }

    /// Tells the agent to stop, and waits.
    pub fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.stop();
        }
    }

    /// Has it report as often as devices do once it is started anew; in tests they report every two seconds.
    pub fn report_seldom(&self) -> Result<()> {
        let config = self.folder.join("agent.toml");
        let text = std::fs::read_to_string(&config)?;
        let lines = text.lines().filter(|line| !line.starts_with("telemetry.window"));
        Ok(std::fs::write(&config, lines.collect::<Vec<_>>().join("\n"))?)
    }

    pub fn id(&self) -> Option<u32> {
        self.running.as_ref().map(Running::id)
    }

    /// Runs a field engineer's command on the device, whatever comes of it.
    pub fn try_engineer(&self, arguments: &[&str]) -> Result<Output> {
        let (command, rest) = arguments.split_first().context("no command")?;
        let socket = self.folder.join("agent.sock");
        Ok(Command::new(program("serin-agent")?)
            .args([command, "--socket", text(&socket)])
            .args(rest)
            .output()?)
    }

    /// Begins a field engineer's command and does not wait for it.
    pub fn begin_engineer(&self, arguments: &[&str]) -> Result<Child> {
        let (command, rest) = arguments.split_first().context("no command")?;
        let mut begun = Command::new(program("serin-agent")?);
        begun.args([command, "--socket", text(&self.folder.join("agent.sock"))]).args(rest);
        Ok(begun.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    }

    /// Runs a field engineer's command, which must succeed, and returns what it printed as JSON.
    pub fn engineer(&self, arguments: &[&str]) -> Result<Value> {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        let output = self.try_engineer(&arguments)?;
        let error = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "serin-agent {arguments:?} on {}: {error}", self.name);
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    pub fn status(&self) -> Result<Value> {
        self.engineer(&["status"])
    }

    /// Version of the active release.
    pub fn active(&self) -> Option<String> {
        let status = self.status().ok()?;
        status["active"]["release"]["version"].as_str().map(ToOwned::to_owned)
    }

    pub fn runs(&self, version: &str) -> bool {
        self.active().as_deref() == Some(version)
    }

    /// Asks the active model about rows of 64 pixels, as an app on the device would.
    pub fn infer(&self, rows: &[Vec<f32>]) -> Result<Value> {
        let body = json!({"inputs": [{
            "name": "pixels", "datatype": "FP32", "shape": [rows.len(), 64],
            "data": rows.concat(),
        }]});
        let url = format!("http://127.0.0.1:{}/v2/models/digits/infer", self.gateway);
        Ok(ureq::post(url).send_json(body)?.body_mut().read_json()?)
    }

    /// Everything the agent said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.folder.join("agent.log")).unwrap_or_default()
    }
}

/// Makes the folder that is the first argument read-only, and runs the rest.
const READ_ONLY: &str =
    r#"mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && cd / && shift && exec "$@""#;

/// Runs a command with mounts of its own: as root, or as its like in a user namespace.
fn own_mounts() -> Command {
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
}

/// Whether this machine lets us have mounts of our own; containers often do not.
pub fn may_mount() -> bool {
    own_mounts().arg("true").status().is_ok_and(|status| status.success())
}

/// The library that fakes a clock.
fn faketime() -> Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib")?.flatten().map(|entry| entry.path());
    let mut found =
        folders.map(|folder| folder.join("faketime/libfaketime.so.1")).filter(|path| path.exists());
    found.next().context("libfaketime is needed for this test: apt-get install faketime")
}
