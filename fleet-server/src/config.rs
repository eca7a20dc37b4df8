//! The server's configuration: file and command line, parsed and checked once, before anything runs. An
//! unknown key is an error that names it, because a misspelt limit that is silently ignored is no limit.

mod alerts;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serin_protocol::ids::{FleetId, Millis};

pub use self::alerts::AlertConfig;
use crate::broker::embedded::DEFAULT_MAX_SESSIONS;
use crate::broker::identity::SERVER_USER;
use crate::broker::tls::TlsFiles;
use crate::fleet::enrolment::Policy;
use crate::fleet::retention::{RAW, RAW_LONGEST, RAW_SHORTEST};
use crate::rollout::notation::span;
use crate::trigger::TriggerRule;

/// Largest configuration or key file in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// How long review samples are kept if the file does not say.
const KEEP_SAMPLES: Millis = Millis::from_secs(30 * 24 * 3600);
/// Longest that they can be kept: they may hold what people did.
const KEEP_LONGEST: Millis = Millis::from_secs(366 * 24 * 3600);

/// Everything a server needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The fleet it serves.
    pub fleet: FleetId,
    /// Folder for everything that must survive.
    pub data: PathBuf,
    /// Where the API and the page are.
    pub http: SocketAddr,
    /// Who is taken in.
    pub enrolment: Policy,
    /// The broker.
    pub broker: BrokerChoice,
    /// Who is alerted of what.
    pub alerts: AlertConfig,
    /// How long review samples are kept.
    pub keep_samples: Millis,
    /// How long reports stay as they came.
    pub raw_reports: Millis,
}

/// Which broker.
#[derive(Clone, Debug)]
pub enum BrokerChoice {
    /// One inside this process.
    Embedded {
        /// Where it listens.
        listen: SocketAddr,
        /// Most devices connected at a time.
        max_sessions: u32,
        /// With it devices prove themselves by certificates.
        tls: Option<TlsFiles>,
    },
    /// One that runs elsewhere.
    External(ExternalBroker),
}

/// Where an external broker is and who the server is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalBroker {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User name. Keep it stable: some brokers keep retained messages only as long as their writer exists.
    pub user: String,
    /// File with the password, if it wants one.
    pub password_file: Option<PathBuf>,
    /// With it the connection is encrypted.
    pub tls: Option<TlsFiles>,
}

/// What the command line says; it goes before the file.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// The fleet.
    pub fleet: Option<FleetId>,
    /// The data folder.
    pub data: Option<PathBuf>,
    /// Who is taken in.
    pub enrolment: Option<Policy>,
    /// The address of the API.
    pub http: Option<SocketAddr>,
    /// The address of the embedded broker.
    pub mqtt: Option<SocketAddr>,
    /// An external broker, `host:port` or `mqtt://host:port`.
    pub broker: Option<String>,
    /// User name at that broker.
    pub broker_user: Option<String>,
    /// File with the password at that broker.
    pub broker_password_file: Option<PathBuf>,
    /// TLS with devices, or with that broker.
    pub tls: Option<TlsFiles>,
    /// The embedded broker may listen to a network without TLS.
    pub insecure: bool,
}

/// A configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is larger than any configuration.
    #[error("{} is larger than {MAX_FILE_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    /// Not TOML of this form.
    #[error("{}: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: Box<toml::de::Error>,
    },
    /// Something needed is said nowhere.
    #[error("{0}")]
    Missing(&'static str),
    /// Well-formed, but makes no sense.
    #[error("{0}")]
    Invalid(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    fleet: Option<FleetId>,
    data: Option<PathBuf>,
    http: Option<SocketAddr>,
    enrolment: Option<Policy>,
    broker: BrokerFile,
    alerts: alerts::AlertsFile,
    triggers: Vec<TriggerRule>,
    review: ReviewFile,
    reports: ReportsFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ReportsFile {
    #[serde(with = "span::optional")]
    raw: Option<Millis>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ReviewFile {
    #[serde(with = "span::optional")]
    keep: Option<Millis>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BrokerFile {
    listen: Option<SocketAddr>,
    max_sessions: Option<u32>,
    url: Option<String>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    tls: Option<TlsFiles>,
    insecure: bool,
}

impl Config {
    /// Reads the file, if there is one, and puts the flags over it.
    pub fn load(file: Option<&Path>, flags: Flags) -> Result<Self, ConfigError> {
        let file = match file {
            Some(path) => {
                let malformed =
                    |source| ConfigError::Malformed { path: path.to_owned(), source: Box::new(source) };
                toml::from_str(&read(path)?).map_err(malformed)?
            }
            None => File::default(),
        };
        Self::merge(file, flags)
    }

    fn merge(file: File, flags: Flags) -> Result<Self, ConfigError> {
        let of_file = BrokerFile {
            user: flags.broker_user.or(file.broker.user),
            password_file: flags.broker_password_file.or(file.broker.password_file),
            tls: flags.tls.or(file.broker.tls),
            insecure: flags.insecure || file.broker.insecure,
            ..file.broker
        };
        let broker = choose_broker(of_file, flags.mqtt, flags.broker)?;
        let default_http = SocketAddr::from(([127, 0, 0, 1], 8080));
        Ok(Self {
            fleet: flags
                .fleet
                .or(file.fleet)
                .ok_or(ConfigError::Missing("which fleet? Say `fleet = \"…\"` or --fleet"))?,
            data: flags
                .data
                .or(file.data)
                .ok_or(ConfigError::Missing("where is everything kept? Say `data = \"…\"` or --data"))?,
            http: flags.http.or(file.http).unwrap_or(default_http),
            enrolment: flags.enrolment.or(file.enrolment).unwrap_or_default(),
            broker,
            keep_samples: within(
                "review.keep",
                file.review.keep,
                KEEP_SAMPLES,
                (Millis::from_secs(1), KEEP_LONGEST),
            )?,
            raw_reports: within("reports.raw", file.reports.raw, RAW, (RAW_SHORTEST, RAW_LONGEST))?,
            alerts: file.alerts.check(file.triggers)?,
        })
    }
}

/// What the file says, or the default; refused where it is too short or too long.
fn within(
    name: &str,
    said: Option<Millis>,
    default: Millis,
    (shortest, longest): (Millis, Millis),
) -> Result<Millis, ConfigError> {
    let value = said.unwrap_or(default);
    if value < shortest || value > longest {
        let (shortest, longest) = (span::text(shortest), span::text(longest));
        return Err(ConfigError::Invalid(format!("{name} is {shortest} to {longest}")));
    }
    Ok(value)
}

fn choose_broker(
    file: BrokerFile,
    listen: Option<SocketAddr>,
    url: Option<String>,
) -> Result<BrokerChoice, ConfigError> {
    if listen.is_some() && url.is_some() || file.listen.is_some() && file.url.is_some() {
        let both =
            "either an embedded broker (broker.listen, --mqtt) or an external one (broker.url, --broker)";
        return Err(ConfigError::Invalid(both.into()));
    }
    // A flag decides the kind, whatever the file says.
    let url = if listen.is_some() { None } else { url.or_else(|| file.url.clone()) };
    let Some(url) = url else {
        let default = SocketAddr::from(([127, 0, 0, 1], 1883));
        let max_sessions = file.max_sessions.unwrap_or(DEFAULT_MAX_SESSIONS);
        if !(2..=1_000_000).contains(&max_sessions) {
            return Err(ConfigError::Invalid("broker.max_sessions must be 2 to 1000000".into()));
        }
        let listen = listen.or(file.listen).unwrap_or(default);
        if !listen.ip().is_loopback() && file.tls.is_none() && !file.insecure {
            return Err(ConfigError::Invalid(format!(
                "without TLS whoever reaches {listen} may call itself any device: give it certificates with \
                 --tls, let it listen on 127.0.0.1, or say --insecure"
            )));
        }
        return Ok(BrokerChoice::Embedded { listen, max_sessions, tls: file.tls });
    };
    let (host, port) = parse_url(&url, file.tls.is_some())?;
    Ok(BrokerChoice::External(ExternalBroker {
        host,
        port,
        user: file.user.unwrap_or_else(|| SERVER_USER.into()),
        password_file: file.password_file,
        tls: file.tls,
    }))
}

/// A scheme, where there is one, agrees with whether there are TLS files.
fn parse_url(url: &str, tls: bool) -> Result<(String, u16), ConfigError> {
    let scheme = if tls { "mqtts://" } else { "mqtt://" };
    let refused = || {
        let files = if tls { "with" } else { "without" };
        ConfigError::Invalid(format!("`{url}` is not a broker {files} TLS files: write {scheme}host:port"))
    };
    let address = url.strip_prefix(scheme).unwrap_or(url).trim_end_matches('/');
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| refused())?),
        None => (address, if tls { 8883 } else { 1883 }),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host.contains(['/', '@', ' ']) {
        return Err(refused());
    }
    Ok((host.to_owned(), port))
}

/// Reads a small text file.
pub fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge(path.to_owned()));
    }
    std::fs::read_to_string(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, flags: Flags) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("server.toml");
        std::fs::write(&path, text).expect("written");
        Config::load(Some(&path), flags)
    }

    #[test]
    fn a_misspelt_key_is_named() {
        for text in ["flet = 'f'", "fleet = 'f'\n[broker]\nlisen = '127.0.0.1:1'"] {
            let error = load(text, Flags::default()).expect_err("refused").to_string();
            assert!(error.contains("unknown field `fl") || error.contains("unknown field `li"), "{error}");
        }
    }

    #[test]
    fn flags_go_before_the_file() {
        let text = "fleet = 'f'\ndata = '/d'\n[broker]\nurl = 'mqtt://b:99'\n";
        let config = load(text, Flags::default()).expect("loads");
        let expected = ExternalBroker {
            host: "b".into(),
            port: 99,
            user: SERVER_USER.into(),
            password_file: None,
            tls: None,
        };
        assert!(matches!(config.broker, BrokerChoice::External(broker) if broker == expected));
        let mqtt = Some(SocketAddr::from(([127, 0, 0, 1], 5)));
        let config = load(text, Flags { mqtt, ..Flags::default() }).expect("loads");
        assert!(matches!(config.broker, BrokerChoice::Embedded { listen, .. } if Some(listen) == mqtt));
    }

    #[test]
    fn flags_alone_suffice_and_what_is_missing_is_said() {
        let flags =
            Flags { fleet: Some("f".parse().expect("name")), data: Some("/d".into()), ..Flags::default() };
        assert!(Config::load(None, flags.clone()).is_ok());
        let error = Config::load(None, Flags { fleet: None, ..flags }).expect_err("refused");
        assert!(error.to_string().contains("--fleet"));
    }

    #[test]
    fn a_broker_without_tls_is_not_open_to_a_network_unless_told_so() {
        let text = "fleet = 'f'\ndata = '/d'\n";
        let at = |ip: [u8; 4]| Flags { mqtt: Some(SocketAddr::from((ip, 1883))), ..Flags::default() };
        for ip in [[0, 0, 0, 0], [192, 168, 0, 7]] {
            let refused = load(text, at(ip)).expect_err("anyone may be any device").to_string();
            assert!(refused.contains("--tls") && refused.contains("--insecure"), "{refused}");
            assert!(load(text, Flags { insecure: true, ..at(ip) }).is_ok());
            assert!(load(&format!("{text}broker.insecure = true\n"), at(ip)).is_ok());
            let name = PathBuf::from("x");
            let tls = Some(TlsFiles { ca: name.clone(), certificate: name.clone(), key: name });
            assert!(load(text, Flags { tls, ..at(ip) }).is_ok());
        }
        assert!(load(text, at([127, 0, 0, 1])).is_ok());
    }

    #[test]
    fn brokers_that_are_none_are_refused() {
        for bad in ["mqtt://", "http://b:1/x", "b:port", "user@b:1"] {
            assert!(parse_url(bad, false).is_err(), "{bad}");
        }
        assert!(parse_url("mqtt://b:1", true).is_err());
        assert!(parse_url("mqtts://b:1", false).is_err());
        assert_eq!(parse_url("mqtt://[::1]:7", false).expect("fine"), ("::1".to_owned(), 7));
        assert_eq!(parse_url("broker", false).expect("fine"), ("broker".to_owned(), 1883));
        assert_eq!(parse_url("mqtts://broker", true).expect("fine"), ("broker".to_owned(), 8883));
    }
}
