//! A fleet server, and its operator.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::bundles::text;
use crate::process::{Running, free_port, program};

/// The fleet of every lab.
pub const FLEET: &str = "lab";

/// The configuration file of a server, in its folder, if it has one.
pub const CONFIG: &str = "server.toml";

/// A fleet server with the embedded broker or an external one.
pub struct Server {
    pub url: String,
    /// Port of the broker that devices are to use.
    pub mqtt: u16,
    folder: PathBuf,
    arguments: Vec<String>,
    running: Running,
}

impl Server {
    /// Starts a server that keeps its state in `folder`. With `external`, the port of a broker, it uses
    /// that instead of its own.
    pub fn start(folder: &Path, external: Option<u16>) -> Result<Self> {
        Self::start_with(folder, external, None)
    }

    /// The same with the TLS files in a folder.
    pub fn start_with(folder: &Path, external: Option<u16>, tls: Option<&Path>) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let http = format!("127.0.0.1:{}", free_port()?);
        let mqtt = external.map_or_else(free_port, Ok)?;
        let mut arguments: Vec<String> = ["serve", "--fleet", FLEET, "--http", &http, "--data"]
            .iter()
            .map(ToString::to_string)
            .chain([text(folder).to_owned()])
            .collect();
        match external {
            Some(port) => arguments.extend(["--broker".into(), format!("127.0.0.1:{port}")]),
            None => arguments.extend(["--mqtt".into(), format!("127.0.0.1:{mqtt}")]),
        }
        let config = folder.join(CONFIG);
        if config.exists() {
            arguments.extend(["--config".into(), text(&config).to_owned()]);
        }
        if let Some(tls) = tls {
            arguments.extend(["--tls".into(), text(tls).to_owned()]);
        }
        let running = launch(folder, &arguments)?;
        let server = Self { url: format!("http://{http}"), mqtt, folder: folder.into(), arguments, running };
        server.ready()?;
        Ok(server)
    }

    /// Pulls the plug and starts it again.
    pub fn crash_and_restart(&mut self) -> Result<()> {
        self.running.kill();
        self.running = launch(&self.folder, &self.arguments)?;
        self.ready()
    }

    /// Pulls the plug.
    pub fn kill(&mut self) {
        self.running.kill();
    }

    fn ready(&self) -> Result<()> {
        crate::until("the server is ready", Duration::from_secs(30), || self.get("/healthz").ok().map(drop))
    }

    pub fn get(&self, path: &str) -> Result<String> {
        Ok(ureq::get(format!("{}{path}", self.url)).call()?.body_mut().read_to_string()?)
    }

    pub fn json(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.get(path)?)?)
    }

    /// Runs an operator's command, whatever comes of it.
    pub fn try_operator(&self, arguments: &[&str]) -> Result<Output> {
        Ok(Command::new(program("serin-fleet")?)
            .args(arguments)
            .env("SERIN_SERVER", &self.url)
            .env("SERIN_TOKEN_FILE", self.folder.join("keys/operator.token"))
            .output()?)
    }

    /// Runs an operator's command, which must succeed, and returns what it printed as JSON.
    pub fn operator(&self, arguments: &[&str]) -> Result<Value> {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        let output = self.try_operator(&arguments)?;
        // With --json errors are on standard output too.
        let said = [output.stdout.as_slice(), &output.stderr].map(String::from_utf8_lossy);
        anyhow::ensure!(output.status.success(), "serin-fleet {arguments:?}: {}", said.concat());
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Starts a rollout of `release` by `plan` (TOML) and returns its number.
    pub fn roll_out(&self, release: &str, plan: &str) -> Result<u64> {
        let path = self.folder.join("plan.toml");
        std::fs::write(&path, plan)?;
        let rollout = self.operator(&["rollout", "start", "--release", release, "--plan", text(&path)])?;
        rollout["id"].as_u64().context("no number")
    }

    pub fn rollout(&self, id: u64) -> Result<Value> {
        self.json(&format!("/api/v1/rollouts/{id}"))
    }

    /// Waits until the rollout is in this state.
    pub fn until_rollout_is(&self, id: u64, state: &str, limit: Duration) -> Result<Value> {
        let look = || self.rollout(id).ok().filter(|rollout| rollout["state"] == state);
        crate::until(&format!("rollout {id} is {state}"), limit, look)
            .with_context(|| format!("it is {:#}", self.rollout(id).unwrap_or_default()))
    }

    /// Everything a device has reported, in words.
    pub fn events(&self, device: &str) -> Result<Vec<String>> {
        let detail = self.json(&format!("/api/v1/devices/{device}"))?;
        let events = detail["events"].as_array().cloned().unwrap_or_default();
        Ok(events.iter().filter_map(|event| Some(event["text"].as_str()?.to_owned())).collect())
    }

    /// Publishes a release with the metadata that lists it.
    pub fn publish(&self, bundle: &Path, trust: &Path) -> Result<()> {
        self.operator(&["release", "publish", text(bundle), "--trust", text(trust)]).map(drop)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.running.id()
    }

    /// Everything it said so far.
    pub fn said(&self) -> String {
        self.running.said()
    }
}

fn launch(folder: &Path, arguments: &[String]) -> Result<Running> {
    let mut command = Command::new(program("serin-fleet")?);
    command.args(arguments);
    Running::start(&mut command, &folder.join("server.log"))
}
