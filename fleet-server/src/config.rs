//! How `serin-fleet serve` is set up: a file, flags, or both, flags winning. Checked once, before anything
//! runs; an unknown key is an error that names it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use serin_protocol::envelope::{KeyRing, PublicKey};
use serin_protocol::ids::FleetId;
use tracing::level_filters::LevelFilter;

use crate::bundle::key_file::read_public;
use crate::fleet::MAX_OWNERS;

/// Flags of `serve`; every one but `--config` and `--log` may stand in the file instead.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Configuration file (TOML).
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Least severe messages shown: error, warn, info, debug or trace.
    #[arg(long, default_value = "info", env = "SERIN_LOG")]
    pub log: LevelFilter,
    #[command(flatten)]
    settings: Settings,
}

/// What can be set.
#[derive(Clone, Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Folder for everything that must survive [default: ./serin-data].
    #[arg(long)]
    data: Option<PathBuf>,
    /// Name of the fleet [default: fleet].
    #[arg(long)]
    fleet: Option<FleetId>,
    /// Where API and page listen [default: 127.0.0.1:8080].
    #[arg(long)]
    http: Option<SocketAddr>,
    /// Where the embedded broker listens [default: 127.0.0.1:1883].
    #[arg(long, conflicts_with = "broker")]
    mqtt: Option<SocketAddr>,
    /// Use this broker, HOST:PORT, instead of the embedded one.
    #[arg(long)]
    broker: Option<String>,
    /// User name at that broker.
    #[arg(long, requires = "broker")]
    broker_user: Option<String>,
    /// File with the password at that broker.
    #[arg(long, requires = "broker")]
    broker_password_file: Option<PathBuf>,
    /// Public key of a model owner, as a file or 64 digits; may be given several times.
    #[arg(long = "owner-key")]
    #[serde(default)]
    owner_keys: Vec<String>,
}

/// Everything a server needs to know before it starts.
pub struct Config {
    /// Folder for everything that must survive.
    pub data: PathBuf,
    /// Name of the fleet.
    pub fleet: FleetId,
    /// Where API and page listen.
    pub http: SocketAddr,
    /// Which broker.
    pub broker: BrokerConfig,
    /// Whose releases are accepted.
    pub owners: KeyRing<MAX_OWNERS>,
    /// How many those are.
    pub owner_count: usize,
}

/// Which broker.
pub enum BrokerConfig {
    /// The one inside this process.
    Embedded {
        /// Where it listens.
        listen: SocketAddr,
    },
    /// Any other.
    External {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
        /// User name and password.
        credentials: Option<(String, String)>,
    },
}

/// A configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A setting is not what it should be.
    #[error("{setting}: {message}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// What is wrong.
        message: String,
    },
}

impl Config {
    /// Flags and file together.
    pub fn from_args(args: &ServeArgs) -> Result<Self, ConfigError> {
        let file = args.config.as_deref().map_or_else(|| Ok(Settings::default()), Settings::read)?;
        let flags = args.settings.clone();
        let listen = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let broker = match flags.broker.or(file.broker) {
            None => BrokerConfig::Embedded { listen: flags.mqtt.or(file.mqtt).unwrap_or_else(|| listen(1883)) },
            Some(address) => external(
                &address,
                flags.broker_user.or(file.broker_user),
                flags.broker_password_file.or(file.broker_password_file),
            )?,
        };
        let fleet = match flags.fleet.or(file.fleet) {
            Some(fleet) => fleet,
            None => setting("fleet", FleetId::new("fleet"))?,
        };
        let keys: Vec<PublicKey> = [flags.owner_keys, file.owner_keys]
            .concat()
            .iter()
            .map(|key| setting("owner-key", read_public(key)))
            .collect::<Result<_, _>>()?;
        let too_many = || ConfigError::Setting {
            setting: "owner-key",
            message: format!("at most {MAX_OWNERS} owners are possible"),
        };
        Ok(Self {
            data: flags.data.or(file.data).unwrap_or_else(|| "serin-data".into()),
            fleet,
            http: flags.http.or(file.http).unwrap_or_else(|| listen(8080)),
            broker,
            owner_count: keys.len(),
            owners: KeyRing::new(keys).ok_or_else(too_many)?,
        })
    }
}

impl Settings {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        toml::from_str(&text)
            .map_err(|error| ConfigError::File { path: path.into(), message: error.to_string() })
    }
}

fn external(address: &str, user: Option<String>, password: Option<PathBuf>) -> Result<BrokerConfig, ConfigError> {
    let (host, port) = address.rsplit_once(':').ok_or_else(|| ConfigError::Setting {
        setting: "broker",
        message: format!("{address:?} is not HOST:PORT"),
    })?;
    let port = setting("broker", port.parse())?;
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path);
        text.map(|text| text.trim_end().to_owned()).map_err(|source| ConfigError::Read { path, source })
    };
    let password = password.map(read).transpose()?.unwrap_or_default();
    let credentials = user.map(|user| (user, password));
    Ok(BrokerConfig::External { host: host.into(), port, credentials })
}

fn setting<T, E: std::fmt::Display>(setting: &'static str, parsed: Result<T, E>) -> Result<T, ConfigError> {
    parsed.map_err(|error| ConfigError::Setting { setting, message: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: ServeArgs,
    }

    fn config(file: &str, flags: &[&str]) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("server.toml");
        std::fs::write(&path, file).expect("writable");
        let words = ["serve", "--config", path.to_str().expect("text")];
        let line = Line::try_parse_from(words.iter().chain(flags)).expect("flags");
        Config::from_args(&line.args)
    }

    #[test]
    fn flags_win_over_the_file() {
        let config = config("fleet = 'a'\nhttp = '127.0.0.1:1'", &["--fleet", "b"]).expect("sound");
        assert_eq!(config.fleet.as_str(), "b");
        assert_eq!(config.http.port(), 1);
        assert!(matches!(config.broker, BrokerConfig::Embedded { .. }));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (file, named) in [
            ("surprise = 1", "surprise"),
            ("broker = 'nowhere'", "broker"),
            ("owner_keys = ['xyz']", "owner-key"),
            ("fleet = 'a/b'", "fleet"),
        ] {
            let Err(error) = config(file, &[]) else { panic!("{file} was accepted") };
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}
