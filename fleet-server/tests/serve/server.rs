//! A real server process, and its operator.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use serin_protocol::envelope::PublicKey;

use super::publisher::Publisher;
use super::release::Packed;

/// Longest that anything awaited here may take; what is awaited normally comes within seconds.
pub const PATIENCE: Duration = Duration::from_mins(1);

pub const FLEET: &str = "test";

/// Looks again and again until there is something to see.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port nobody listens on, of those below 32,768: outgoing connections get others, so that none takes it before its
/// server does, or while that is started again. Each process has 16 to begin with.
pub fn free_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(16);
    let ports =
        (0..22_000).map(|_| 10_000 + begin.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed)) % 22_000);
    let mut free = ports
        .filter_map(|port| u16::try_from(port).ok())
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().expect("a port")
}

pub struct Server {
    pub url: String,
    pub mqtt: u16,
    pub folder: PathBuf,
    arguments: Vec<String>,
    child: Child,
}

impl Server {
    /// Starts a server with its own broker, or with the one at `external`.
    pub fn start(folder: &Path, external: Option<u16>) -> Self {
        let http = format!("127.0.0.1:{}", free_port());
        let mqtt = external.unwrap_or_else(free_port);
        let config = folder.join("server.toml");
        let broker = match external {
            Some(port) => format!("url = 'mqtt://127.0.0.1:{port}'"),
            None => format!("listen = '127.0.0.1:{mqtt}'"),
        };
        let text = format!("fleet = '{FLEET}'\nhttp = '{http}'\nenrolment = 'open'\n[broker]\n{broker}\n");
        std::fs::write(&config, text).expect("written");
        let words = |path: &Path| path.to_str().expect("plain").to_owned();
        let arguments = vec![
            "serve".into(),
            "--config".into(),
            words(&config),
            "--data".into(),
            words(&folder.join("data")),
        ];
        let child = launch(folder, &arguments);
        let mut server =
            Self { url: format!("http://{http}"), mqtt, folder: folder.into(), arguments, child };
        server.ready();
        server
    }

    /// Pulls the plug and starts it again.
    pub fn crash_and_restart(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
        self.child = launch(&self.folder, &self.arguments);
        self.ready();
    }

    fn ready(&mut self) {
        let started = Instant::now();
        while self.try_get("/healthz").is_none() {
            let ended = self.child.try_wait().expect("waited for");
            assert!(ended.is_none(), "the server ended with {ended:?} before it answered:\n{}", self.said());
            assert!(started.elapsed() < PATIENCE, "the server does not answer:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn token_file(&self) -> PathBuf {
        self.folder.join("data/keys/operator.token")
    }

    fn try_get(&self, path: &str) -> Option<String> {
        ureq::get(format!("{}{path}", self.url)).call().ok()?.body_mut().read_to_string().ok()
    }

    pub fn get(&self, path: &str) -> Value {
        let text = self.try_get(path).unwrap_or_else(|| panic!("no answer to {path}\n{}", self.said()));
        serde_json::from_str(&text).expect("JSON")
    }

    pub fn text(&self, path: &str) -> String {
        self.try_get(path).expect("an answer")
    }

    pub fn fleet_key(&self) -> PublicKey {
        self.get("/api/v1/keys")["fleet"].as_str().expect("a key").parse().expect("a key")
    }

    /// The command line with the operator's token.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_serin-fleet"));
        command.args(arguments).env("SERIN_SERVER", &self.url).env("SERIN_TOKEN_FILE", self.token_file());
        command
    }

    pub fn try_operator(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("runs")
    }

    pub fn operator(&self, arguments: &[&str]) -> Value {
        let output = self.try_operator(&[arguments, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{arguments:?}: {said}\n{}", self.said());
        serde_json::from_str(&said).expect("JSON")
    }

    /// Publishes metadata that lists a release.
    pub fn list(&self, packed: &Packed) {
        let trust = self.folder.join("trust");
        let online = serde_json::from_value(self.get("/api/v1/trust/online")).expect("keys");
        Publisher::at(&trust, &online).list(packed);
        self.operator(&["trust", "publish", "--trust", trust.to_str().expect("plain")]);
    }

    /// Publishes a release as its owner would.
    pub fn publish(&self, packed: &Packed) {
        let path = self.folder.join(format!("{}.serin", packed.release.id));
        std::fs::write(&path, &packed.bundle).expect("written");
        std::fs::write(path.with_added_extension("release"), &packed.statement).expect("written");
        self.list(packed);
        let published = self.operator(&["release", "publish", path.to_str().expect("plain")]);
        assert_eq!(published["published"], true);
    }

    /// Starts a rollout by `plan` and returns its number.
    pub fn roll_out(&self, release: &str, plan: &str) -> u64 {
        let path = self.folder.join("plan.toml");
        std::fs::write(&path, plan).expect("written");
        let plan = path.to_str().expect("plain");
        let started = self.operator(&["rollout", "start", "--release", release, "--plan", plan]);
        started["id"].as_u64().expect("a number")
    }

    pub fn rollout(&self, id: u64) -> Value {
        self.get(&format!("/api/v1/rollouts/{id}"))
    }

    pub fn until_rollout_is(&self, id: u64, state: &str) -> Value {
        let mut last = Value::Null;
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            last = self.rollout(id);
            if last["state"] == state {
                return last;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("rollout {id} does not become {state}: {last:#}\n{}", self.said());
    }

    pub fn said(&self) -> String {
        std::fs::read_to_string(self.folder.join("server.log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(folder: &Path, arguments: &[String]) -> Child {
    let log = File::options().append(true).create(true).open(folder.join("server.log")).expect("a log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_serin-fleet"));
    command.args(arguments).env("NO_COLOR", "1").stdin(Stdio::null());
    command.stdout(log.try_clone().expect("a log")).stderr(log);
    command.spawn().expect("starts")
}

/// Mosquitto without a memory.
pub struct Mosquitto {
    pub port: u16,
    config: PathBuf,
    child: Child,
}

impl Mosquitto {
    pub fn start(folder: &Path) -> Self {
        let port = free_port();
        let config = folder.join("mosquitto.conf");
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\nlog_type error\n"
        );
        std::fs::write(&config, text).expect("written");
        let child = Self::launch(&config);
        let broker = Self { port, config, child };
        broker.ready();
        broker
    }

    pub fn crash_and_restart(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
        self.child = Self::launch(&self.config);
        self.ready();
    }

    fn ready(&self) {
        until("mosquitto listens", || std::net::TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    fn launch(config: &Path) -> Child {
        // Debian keeps it where only root's path leads.
        let places = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"];
        let program = places.into_iter().find(|place| Path::new(place).exists()).unwrap_or("mosquitto");
        let mut command = Command::new(program);
        command.arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("mosquitto is needed for this test: apt-get install mosquitto")
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
