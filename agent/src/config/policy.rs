//! The configuration's `[policy]`: when updates may go on, as an operator writes it.

use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use serin_protocol::ids::{ByteCount, Millis};

use super::{size, span};
use crate::update::policy::budget::LEAST_DAILY;
use crate::update::policy::window::{MAX_WINDOWS, Window, Windows};
use crate::update::policy::{Limits, Metered, Policy};

/// Most metered interfaces: a device has a handful.
const MAX_INTERFACES: usize = 16;

/// When updates may go on. Nothing is held up by what is not written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// Name of the time zone of windows and days, as in `Europe/Berlin`, or a rule as in
    /// `CET-1CEST,M3.5.0,M10.5.0/3` where the system has no time zones; the system's own by default.
    time_zone: Option<String>,
    /// Nothing is fetched at all: every link is paid by the byte.
    metered: bool,
    /// Nothing is fetched while a default route goes over one of these interfaces, as in `wwan*`.
    metered_interfaces: Vec<String>,
    /// Bytes of releases to be fetched per day at most.
    #[serde(deserialize_with = "some_size")]
    daily_bytes: Option<ByteCount>,
    /// What must hold to fetch.
    fetch: LimitsConfig,
    /// What must hold to install.
    install: LimitsConfig,
    /// How often conditions are looked at: 1 second to 1 hour.
    #[serde(deserialize_with = "span")]
    look_every: Duration,
    /// Where `sys` and `proc` are found: `/`, but for tests and containers.
    root: PathBuf,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsConfig {
    windows: Vec<Window>,
    mains: bool,
    #[serde(deserialize_with = "percent")]
    min_battery: Option<u8>,
    max_celsius: Option<i16>,
    #[serde(deserialize_with = "some_size")]
    min_free: Option<ByteCount>,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            time_zone: None,
            metered: false,
            metered_interfaces: Vec::new(),
            daily_bytes: None,
            fetch: LimitsConfig::default(),
            install: LimitsConfig::default(),
            look_every: Duration::from_secs(30),
            root: "/".into(),
        }
    }
}

/// The `[policy]` was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// There is no such time zone.
    #[error(
        "policy.time_zone: {name:?} is not known here: {why}; write a name that is below /usr/share/zoneinfo, or a \
         rule like \"CET-1CEST,M3.5.0,M10.5.0/3\""
    )]
    TimeZone {
        /// What was written.
        name: String,
        /// Why it is none.
        why: String,
    },
    /// Too many windows for one step.
    #[error("policy.{step}.windows: {count} windows, at most {MAX_WINDOWS} are allowed")]
    Windows {
        /// Which step.
        step: &'static str,
        /// How many.
        count: usize,
    },
    /// A budget with which nothing could be fetched.
    #[error("policy.daily_bytes: must be at least {} bytes", LEAST_DAILY.0)]
    Daily,
    /// Looked at too often or too seldom.
    #[error("policy.look_every: must be between 1s and 1h")]
    LookEvery,
    /// Not the names of interfaces.
    #[error(
        "policy.metered_interfaces: at most {MAX_INTERFACES} names like \"eth0\" or \"wwan*\" are allowed"
    )]
    Interfaces,
}

impl PolicyConfig {
    /// What is allowed.
    pub fn policy(&self) -> Result<Policy, PolicyError> {
        let names = &self.metered_interfaces;
        if names.len() > MAX_INTERFACES || names.iter().any(|name| !is_pattern(name)) {
            return Err(PolicyError::Interfaces);
        }
        let metered = match (self.metered, names.is_empty()) {
            (true, _) => Metered::All,
            (false, false) => Metered::Over(names.clone()),
            (false, true) => Metered::None,
        };
        if self.daily_bytes.is_some_and(|daily| daily < LEAST_DAILY) {
            return Err(PolicyError::Daily);
        }
        Ok(Policy {
            metered,
            daily: self.daily_bytes,
            fetch: self.fetch.limits("fetch")?,
            install: self.install.limits("install")?,
        })
    }

    /// The time zone of windows and days. As in C a system that names none has UTC.
    pub fn zone(&self) -> Result<TimeZone, PolicyError> {
        let Some(name) = &self.time_zone else {
            return Ok(TimeZone::try_system().unwrap_or(TimeZone::UTC));
        };
        // A rule has an offset, a misspelt name has none.
        let found = TimeZone::get(name).or_else(|error| TimeZone::posix(name).map_err(|_| error));
        found.map_err(|error| PolicyError::TimeZone { name: name.clone(), why: error.to_string() })
    }

    /// How often conditions are looked at.
    pub const fn look_every(&self) -> Millis {
        Millis(self.look_every.as_millis() as u64)
    }

    /// Where `sys` and `proc` are found.
    pub const fn root(&self) -> &PathBuf {
        &self.root
    }

    /// As it may be shown to others.
    pub fn shown(&self) -> Value {
        json!({
            "time_zone": self.time_zone,
            "metered": self.metered,
            "metered_interfaces": self.metered_interfaces,
            "daily_bytes": self.daily_bytes,
            "fetch": self.fetch.shown(),
            "install": self.install.shown(),
            "look_every_ms": self.look_every(),
        })
    }

    pub(super) fn check(&self) -> Result<(), PolicyError> {
        self.policy()?;
        self.zone()?;
        if !(Duration::from_secs(1)..=Duration::from_hours(1)).contains(&self.look_every) {
            return Err(PolicyError::LookEvery);
        }
        Ok(())
    }
}

impl LimitsConfig {
    fn shown(&self) -> Value {
        json!({
            "windows": self.windows.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "mains": self.mains,
            "min_battery": self.min_battery,
            "max_celsius": self.max_celsius,
            "min_free": self.min_free,
        })
    }

    fn limits(&self, step: &'static str) -> Result<Limits, PolicyError> {
        let count = self.windows.len();
        let windows = Windows::new(self.windows.clone()).ok_or(PolicyError::Windows { step, count })?;
        Ok(Limits {
            windows,
            mains: self.mains,
            battery: self.min_battery,
            celsius: self.max_celsius,
            free: self.min_free,
        })
    }
}

fn is_pattern(text: &str) -> bool {
    let name = text.strip_suffix('*').unwrap_or(text);
    let legal = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b'*';
    !text.is_empty() && name.len() < 16 && name.bytes().all(legal)
}

fn some_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ByteCount>, D::Error> {
    size(deserializer).map(Some)
}

fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let number = text.strip_suffix('%').and_then(|number| number.parse::<u8>().ok());
    let number = number.filter(|number| *number <= 100);
    let wrong = || serde::de::Error::custom(format!("{text:?} is not a share like \"40%\""));
    number.map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<PolicyConfig, String> {
        let config: PolicyConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn without_a_word_nothing_is_held_up() {
        assert!(
            parse("")
                .and_then(|config| config.policy().map_err(|e| e.to_string()))
                .expect("empty")
                .is_empty()
        );
    }

    #[test]
    fn a_policy_is_read_as_written() {
        let config = parse(
            "time_zone = 'CET-1CEST,M3.5.0,M10.5.0/3'\ndaily_bytes = '50MiB'\nmetered_interfaces = ['wwan*']\n\
             [fetch]\nmin_free = '1GiB'\n[install]\nwindows = ['Mon-Fri 22:00-05:00', '01:00-02:30']\nmains = true\n\
             min_battery = '40%'\nmax_celsius = 70\n",
        );
        let policy = config.expect("right").policy().expect("right");
        assert_eq!(policy.daily, Some(ByteCount::from_mib(50)));
        assert_eq!(policy.metered, Metered::Over(vec!["wwan*".into()]));
        assert_eq!(policy.fetch.free, Some(ByteCount::from_mib(1024)));
        let Limits { windows, mains, battery, celsius, free } = policy.install;
        assert_eq!((mains, battery, celsius, free), (true, Some(40), Some(70), None));
        assert!(windows != Windows::default());
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        for (text, named) in [
            ("time_zone = 'Europe/Atlantis'", "zoneinfo"),
            ("daily_bytes = '5KiB'", "at least 1048576 bytes"),
            ("metered_interfaces = ['w*n']", "wwan*"),
            ("look_every = '2h'", "between 1s and 1h"),
            ("install.windows = ['Mon 22-5']", "Mon-Fri 22:00-05:00"),
            ("install.windows = ['Mo 22:00-05:00']", "Mon, Tue"),
            ("install.windows = ['05:00-05:00']", "00:00-24:00"),
            ("fetch.min_battery = '140%'", "40%"),
            ("fetch.max_temperature = 3", "max_temperature"),
        ] {
            let message = parse(text).expect_err(text);
            assert!(message.contains(named), "{message}");
        }
        let many = format!("fetch.windows = {:?}", vec!["01:00-02:00"; MAX_WINDOWS + 1]);
        assert!(parse(&many).expect_err("many").contains("at most 14"));
    }
}
