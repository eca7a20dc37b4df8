//! The agent's configuration file: parsed and checked once, before anything runs. An unknown key is an
//! error that names it, because a misspelt limit that is silently ignored is no limit.

mod policy;
mod review;
mod telemetry;

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::link::tls::TlsFiles;
use crate::link::transfer::Pace;
use crate::update::admission::Swap;
use crate::update::crash_loop::CrashPolicy;
use serde::{Deserialize, Deserializer};
use serin_protocol::ids::{ByteCount, DeviceId, FleetId, Millis, TargetClass};
use serin_protocol::target::{BUILT_IN, Hardware, MAX_TARGET_BYTES, TargetSpec};

pub use self::policy::{PolicyConfig, PolicyError};
pub use self::review::Review;
pub use self::telemetry::Telemetry;

/// Largest configuration file in bytes.
const MAX_CONFIG_BYTES: u64 = 64 * 1024;

/// Everything an agent needs to know before it starts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This device.
    pub device: DeviceId,
    /// Its fleet.
    pub fleet: FleetId,
    /// Its class; this machine's by default.
    #[serde(default = "this_machine")]
    pub target: TargetClass,
    /// The file that describes its class, where that is not one of those that everybody knows.
    #[serde(default)]
    target_file: Option<PathBuf>,
    /// Folder for everything that must survive.
    pub data: PathBuf,
    /// Unix socket for local apps and the field engineer; `agent.sock` in `data` by default.
    #[serde(default)]
    socket: Option<PathBuf>,
    /// Where the broker is.
    pub broker: Broker,
    /// Whose signatures count.
    pub trust: Trust,
    /// What models may use.
    #[serde(default)]
    pub models: Models,
    /// Where local apps ask.
    #[serde(default)]
    pub gateway: Gateway,
    /// How often the device reports.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// What of its requests leaves the device for people to look at.
    #[serde(default)]
    pub review: Review,
    /// When updates may go on.
    #[serde(default)]
    pub policy: PolicyConfig,
    /// When restarts of the agent are a crash loop.
    #[serde(default)]
    crash_loop: CrashLoop,
}

/// When restarts of the agent are a crash loop.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CrashLoop {
    /// Starts without a stop before them: 2 to 100.
    restarts: u32,
    /// Within this time: 1 second to 1 day.
    #[serde(deserialize_with = "span")]
    window: Duration,
}

impl Default for CrashLoop {
    fn default() -> Self {
        let CrashPolicy { restarts, window } = CrashPolicy::default();
        Self { restarts, window: Duration::from_millis(window.0) }
    }
}

/// Where the broker is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The connected time over which the rate of a transfer is averaged: at least 1 second.
    #[serde(default = "patience", deserialize_with = "span")]
    patience: Duration,
    /// A transfer that brings fewer bytes per second is given up.
    #[serde(default = "slowest", deserialize_with = "size")]
    slowest: ByteCount,
    /// How it is encrypted; without it, it is not.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
}

const fn patience() -> Duration {
    Duration::from_millis(Pace::PATIENCE.0)
}

const fn slowest() -> ByteCount {
    Pace::SLOWEST
}

/// Whose signatures count.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// The first `root.json` of the publisher, from which all else is learnt and verified.
    pub root: PathBuf,
}

/// What models may use.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Models {
    /// Memory of all workers together.
    #[serde(deserialize_with = "size")]
    pub memory: ByteCount,
    /// Disk space that is never used.
    #[serde(deserialize_with = "size")]
    pub reserve: ByteCount,
    /// A worker that has not loaded its model by then is ended.
    #[serde(deserialize_with = "span")]
    pub load_deadline: Duration,
    /// A worker that has not answered by then is ended.
    #[serde(deserialize_with = "span")]
    pub request_deadline: Duration,
    /// Whether a release may take the place of another with nothing answering in between.
    pub swap: Swap,
    /// Whether a worker may run that this kernel cannot confine.
    pub sandbox: Confinement,
    /// Unpacking, proving or removing a release that takes longer is given up; a service manager hears
    /// nothing from the agent any more while it does not end. At least 1 second.
    #[serde(deserialize_with = "span")]
    job_deadline: Duration,
}

/// What is done with a worker whose sandbox is not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confinement {
    /// It runs, and the doctor says what is missing.
    Prefer,
    /// It does not run: its release is rejected with what is missing.
    Require,
}

impl Default for Models {
    fn default() -> Self {
        Self {
            memory: ByteCount::from_mib(256),
            reserve: ByteCount::from_mib(64),
            load_deadline: Duration::from_mins(1),
            request_deadline: Duration::from_secs(5),
            sandbox: Confinement::Prefer,
            swap: Swap::Cold,
            // The largest bundle, written and read at 1 MB/s.
            job_deadline: Duration::from_hours(1),
        }
    }
}

/// Where local apps ask.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// Loopback address for the Open Inference Protocol.
    pub listen: SocketAddr,
}

impl Default for Gateway {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8500)) }
    }
}

/// A configuration file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what it should be; the message names line and key.
    #[error("{path}: {message}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

impl ConfigError {
    /// What to do about it.
    pub fn next(&self) -> String {
        match self {
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                "name the file: `serin-agent run --config FILE`; what is in it says README.md, \"For devices\"".into()
            }
            Self::Read { path, .. } => {
                format!("run the agent as a user who may read {}", path.display())
            }
            Self::Invalid { path, .. } => format!("correct {}, then start the agent again", path.display()),
        }
    }
}

impl Config {
    /// Reads and checks the file at `path`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.into(), source };
        let size = std::fs::metadata(path).map_err(read)?.len();
        if size > MAX_CONFIG_BYTES {
            let message = format!("{size} bytes, at most {MAX_CONFIG_BYTES} are allowed");
            return Err(ConfigError::Invalid { path: path.into(), message });
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        Self::parse(&text).map_err(|message| ConfigError::Invalid { path: path.into(), message })
    }

    /// What `device` lacks of its class, in words. Of a class that nobody described nothing can be said.
    pub fn class_lacks(&self, device: &Hardware) -> Vec<String> {
        let built_in = || BUILT_IN.iter().filter_map(|text| toml::from_str::<TargetSpec>(text).ok());
        let spec = match &self.target_file {
            Some(path) => match read_class(path) {
                Ok(spec) => Some(spec),
                Err(problem) => return vec![problem],
            },
            None => built_in().find(|spec| spec.class == self.target),
        };
        match spec {
            Some(spec) if spec.class != self.target => {
                vec![format!("its class's file describes {}", spec.class)]
            }
            Some(spec) => spec.lacks(device),
            None => Vec::new(),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        if !self.gateway.listen.ip().is_loopback() {
            let listen = self.gateway.listen;
            return Err(format!(
                "gateway.listen: {listen} is not a loopback address; put a proxy with authentication in front \
                 to serve other machines"
            ));
        }
        if self.broker.patience < Duration::from_secs(1) {
            return Err("broker.patience: must be at least 1s".into());
        }
        self.policy.check().map_err(|error| error.to_string())?;
        self.telemetry.check()?;
        self.review.check()?;
        if self.models.job_deadline < Duration::from_secs(1) {
            return Err("models.job_deadline: must be at least 1s".into());
        }
        if !(2..=CrashPolicy::MAX_RESTARTS).contains(&self.crash_loop.restarts) {
            return Err(format!("crash_loop.restarts: must be 2 to {}", CrashPolicy::MAX_RESTARTS));
        }
        if !(Duration::from_secs(1)..=Duration::from_hours(24)).contains(&self.crash_loop.window) {
            return Err("crash_loop.window: must be between 1s and 24h".into());
        }
        Ok(())
    }

    /// When restarts of the agent are a crash loop.
    pub const fn crash_loop(&self) -> CrashPolicy {
        let CrashLoop { restarts, window } = self.crash_loop;
        CrashPolicy { restarts, window: Millis(window.as_millis() as u64) }
    }

    /// Longest that unpacking, proving or removing a release may take.
    pub const fn job_deadline(&self) -> Millis {
        Millis(self.models.job_deadline.as_millis() as u64)
    }

    /// The Unix socket for local apps and the field engineer.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.data.join("agent.sock"))
    }

    /// How fast transfers must be.
    pub fn pace(&self) -> Pace {
        let patience = Millis(self.broker.patience.as_millis() as u64);
        Pace { patience, slowest: self.broker.slowest, ..Pace::default() }
    }

    /// Length of a telemetry window.
    pub fn window(&self) -> Millis {
        Millis(self.telemetry.window.as_millis() as u64)
    }
}

fn read_class(path: &Path) -> Result<TargetSpec, String> {
    let mut text = String::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(MAX_TARGET_BYTES as u64).read_to_string(&mut text))
        .map_err(|error| error.to_string());
    let parsed = read.and_then(|_| toml::from_str(&text).map_err(|error| error.to_string()));
    parsed.map_err(|error| format!("its class's file {} cannot be read: {error}", path.display()))
}

fn this_machine() -> TargetClass {
    let text = match std::env::consts::ARCH {
        "arm" => "linux-armv7",
        "aarch64" => "linux-aarch64",
        "riscv64" => "linux-riscv64",
        _ => "linux-x86_64",
    };
    #[expect(clippy::expect_used, reason = "the texts above are names")]
    TargetClass::new(text).expect("a name")
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteCount, D::Error> {
    let text = String::deserialize(deserializer)?;
    ByteCount::parse(&text)
        .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not a size like \"64MiB\"")))
}

fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_scaled(&text, &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)])
        .map(Duration::from_millis)
        .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not a time like \"30s\"")))
}

/// A whole number directly followed by one of the units, tried in order.
fn parse_scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = text.get(digits.len()..)?;
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    digits.parse::<u64>().ok()?.checked_mul(*scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(extra: &str) -> Result<Config, String> {
        Config::parse(&format!(
            "device = 'd1'\nfleet = 'f'\ndata = '/tmp/x'\n{extra}\n[broker]\nhost = 'h'\nport = 1883\n\
             [trust]\nroot = 'root.json'\n"
        ))
    }

    #[test]
    fn a_short_file_is_enough() {
        let config = with("").expect("complete");
        assert_eq!(config.models.memory, ByteCount::from_mib(256));
        assert_eq!(config.socket(), Path::new("/tmp/x/agent.sock"));
        assert_eq!(config.window(), Millis(60_000));
        assert_eq!(config.pace(), Pace::default());
    }

    #[test]
    fn sizes_and_times_carry_units() {
        let config = with("models.memory = '32MiB'\nmodels.request_deadline = '250ms'").expect("complete");
        assert_eq!(config.models.memory, ByteCount(32 << 20));
        assert_eq!(config.models.request_deadline, Duration::from_millis(250));
        assert_eq!(config.models.sandbox, Confinement::Prefer);
        let strict = with("models.sandbox = 'require'").expect("complete");
        assert_eq!(strict.models.sandbox, Confinement::Require);
        for bad in ["models.memory = '32'", "models.memory = '-1MiB'", "models.load_deadline = '5 days'"] {
            assert!(with(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            ("surprise = 1", "surprise"),
            ("models.memroy = '1MiB'", "memroy"),
            ("gateway.listen = '0.0.0.0:80'", "loopback"),
            ("telemetry.window = '0s'", "telemetry.window"),
            ("telemetry.answers = 70000", "telemetry.answers"),
            ("telemetry.answers_for = '15d'", "telemetry.answers_for"),
            ("crash_loop.restarts = 1", "crash_loop.restarts"),
            ("models.job_deadline = '0s'", "models.job_deadline"),
            ("target = '../x'", "target"),
        ] {
            let message = with(text).expect_err(text);
            assert!(message.contains(named), "{message}");
        }
        let message = Config::parse("device = 'a/b'").expect_err("bad id");
        assert!(message.contains("device"), "{message}");
    }
}
