//! Who can be told, and who is told what: receivers by name, the receivers of each owner, and those of everybody else.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use core::fmt;
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serin_protocol::ids::{Millis, ModelName};
use ureq::http::Uri;
use zeroize::Zeroizing;

use crate::alert::alertmanager;
use crate::alert::reading::Group;
use crate::alert::rule::Rule;

/// Longest address in bytes.
const MAX_URL_BYTES: usize = 2000;

/// A receiver's name: 1 to 64 characters `A-Z a-z 0-9 . _ -`, starting with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReceiverName(String);

/// Why something about receivers is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiverError {
    /// Not a name.
    #[error("`{0}` is no name: write 1 to 64 characters A-Z a-z 0-9 . _ -, beginning with a letter or digit")]
    Name(String),
    /// Not an address that may be spoken to.
    #[error(
        "{0} is no address to send to: write https://…, or http:// for this machine only, without user or fragment"
    )]
    Address(String),
}

impl ReceiverName {
    /// Parses `text`.
    pub fn new(text: &str) -> Result<Self, ReceiverError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let starts_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if starts_well && text.len() <= 64 && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ReceiverError::Name(text.chars().take(80).collect()))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReceiverName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for ReceiverName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ReceiverName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// An address that may be spoken to: over TLS, or on this machine.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    url: String,
    host: String,
    on_this_machine: bool,
}

impl Endpoint {
    /// Parses `text`.
    pub fn new(text: &str) -> Result<Self, ReceiverError> {
        let refused = || {
            // The path of a webhook may be its secret.
            let head = text.split('/').take(3).collect::<Vec<_>>().join("/");
            ReceiverError::Address(head.chars().take(80).collect())
        };
        if text.len() > MAX_URL_BYTES || text.contains('#') {
            return Err(refused());
        }
        let uri: Uri = text.parse().map_err(|_| refused())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(refused)?.to_owned();
        let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let on_this_machine =
            name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        match uri.scheme_str() {
            Some("https") if !has_user => {}
            Some("http") if !has_user && on_this_machine => {}
            Some(_) | None => return Err(refused()),
        }
        Ok(Self { url: text.to_owned(), host, on_this_machine })
    }

    /// The whole address: not for logs.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its host, for people.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether it is on this machine, where no proxy is asked.
    pub const fn is_on_this_machine(&self) -> bool {
        self.on_this_machine
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({}/…)", self.host)
    }
}

/// How a receiver is told.
#[derive(Clone)]
pub enum Speaks {
    /// JSON of this server's own form, signed where there is a secret.
    Webhook {
        /// The key of the signature.
        secret: Option<Zeroizing<Vec<u8>>>,
    },
    /// Alertmanager's API, version 2.
    Alertmanager,
}

/// One that can be told.
#[derive(Clone)]
pub struct Receiver {
    /// Where.
    pub endpoint: Endpoint,
    /// How.
    pub speaks: Speaks,
    /// PEM of the authorities it is checked with instead of the system's.
    pub authorities: Option<Vec<u8>>,
    /// How often it is told again what goes on.
    pub repeat: Millis,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Receiver {
    /// The word for how it is told.
    pub const fn kind(&self) -> &'static str {
        match self.speaks {
            Speaks::Webhook { .. } => "webhook",
            Speaks::Alertmanager => "alertmanager",
        }
    }
}

/// Of one owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ownership {
    /// Who is told of alerts; those of everybody else if none is named.
    pub receivers: Vec<ReceiverName>,
    /// Whom to ask, for people.
    pub contact: Option<String>,
}

/// Who is told what.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// By name.
    pub receivers: BTreeMap<ReceiverName, Receiver>,
    /// Of owners: the delegation that signs a model's releases.
    pub owners: BTreeMap<ModelName, Ownership>,
    /// Of owners that are not named.
    pub default: Vec<ReceiverName>,
}

impl Routes {
    /// Who is told of an alert of `rule` about `group`.
    pub fn of(&self, rule: &Rule, group: &Group) -> Vec<ReceiverName> {
        let owner = self.owners.get(&group.owner).map(|owner| &owner.receivers);
        let owner = owner.filter(|receivers| !receivers.is_empty()).unwrap_or(&self.default);
        let named = if rule.receivers.is_empty() { owner } else { &rule.receivers };
        // One that a rule names and nobody configured is told nothing.
        named.iter().filter(|name| self.receivers.contains_key(name)).cloned().collect()
    }

    /// Whom to ask about a group.
    pub fn contact(&self, group: &Group) -> Option<String> {
        self.owners.get(&group.owner)?.contact.clone()
    }

    /// How often a receiver is told again what goes on.
    pub fn repeat_every(&self, name: &ReceiverName) -> Millis {
        self.receivers.get(name).map_or(alertmanager::RESEND, |receiver| receiver.repeat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tls_or_this_machine_is_spoken_to() {
        for good in
            ["https://hooks.example/a?b=c", "http://127.0.0.1:9093", "http://[::1]:1/x", "http://localhost/"]
        {
            assert!(Endpoint::new(good).is_ok(), "{good}");
        }
        for bad in [
            "http://hooks.example/",
            "http://127.0.0.1.example/",
            "http://169.254.169.254/latest",
            "ftp://localhost/",
            "https://user:word@hooks.example/",
            "http://localhost@evil.example/",
            "https:///x",
            "hooks.example",
            "https://hooks.example/#x",
            "file:///etc/passwd",
        ] {
            assert!(Endpoint::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_secret_part_of_an_address_is_not_shown() {
        let endpoint = Endpoint::new("https://hooks.example/services/T0/SECRET").expect("good");
        assert!(!format!("{endpoint:?}").contains("SECRET"));
        let error = Endpoint::new("http://hooks.example/services/SECRET").expect_err("no TLS");
        assert!(!error.to_string().contains("SECRET"), "{error}");
    }
}
