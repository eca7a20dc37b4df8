//! The part of the configuration about alerts: receivers with their secrets, owners, rules.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serin_protocol::ids::{Millis, ModelName};
use zeroize::Zeroizing;

use super::{ConfigError, read};
use crate::alert::rule::check_all;
use crate::alert::{Rule, alertmanager};
use crate::fleet::alerts::AlertParts;
use crate::notify::keeper::LONGEST_PAUSE;
use crate::notify::receiver::{Endpoint, Ownership, Receiver, ReceiverName, Routes, Speaks};
use crate::rollout::notation::span;
use crate::trigger::{self, TriggerRule};

/// Most receivers: each may keep a connection.
const MAX_RECEIVERS: usize = 64;
/// Shortest secret in bytes; below it a signature can be guessed from one message.
const MIN_SECRET_BYTES: usize = 16;
/// How often a webhook is told again what goes on.
const REPEAT: Millis = Millis::from_secs(4 * 3600);
/// How often rules are looked at.
const EVERY: Millis = Millis::from_secs(30);

/// What the configuration says about alerts.
#[derive(Clone, Debug, Default)]
pub struct AlertConfig {
    /// How often rules are looked at.
    pub every: Millis,
    /// Receivers, owners and rules.
    pub parts: AlertParts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AlertsFile {
    every: Option<String>,
    default: Vec<ReceiverName>,
    receivers: BTreeMap<ReceiverName, ReceiverFile>,
    owners: BTreeMap<ModelName, Ownership>,
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiverFile {
    webhook: Option<String>,
    alertmanager: Option<String>,
    secret_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    repeat: Option<String>,
}

impl AlertsFile {
    pub(super) fn check(self, triggers: Vec<TriggerRule>) -> Result<AlertConfig, ConfigError> {
        let invalid = |error: &dyn std::fmt::Display| ConfigError::Invalid(format!("alerts: {error}"));
        let every = self.every.as_deref().map_or(Ok(EVERY), span::parse).map_err(|error| invalid(&error))?;
        if every < Millis(100) || u128::from(every.0) > LONGEST_PAUSE.as_millis() {
            return Err(invalid(&"every is 100ms to 2m"));
        }
        if self.receivers.len() > MAX_RECEIVERS {
            return Err(invalid(&format!("there are more than {MAX_RECEIVERS} receivers")));
        }
        check_all(&self.rules).map_err(|error| invalid(&error))?;
        let receivers = self.receivers.into_iter().map(|(name, file)| {
            let receiver = file.check(&name)?;
            Ok((name, receiver))
        });
        let receivers: BTreeMap<_, _> = receivers.collect::<Result<_, ConfigError>>()?;
        let of_owners = self.owners.values().flat_map(|owner| &owner.receivers);
        let of_rules = self.rules.iter().flat_map(|rule| &rule.receivers);
        let unknown = self.default.iter().chain(of_owners).chain(of_rules);
        if let Some(name) = unknown.into_iter().find(|name| !receivers.contains_key(name)) {
            return Err(invalid(&format!("there is no receiver {name}; add [alerts.receivers.{name}]")));
        }
        trigger::rule::check_all(&triggers).map_err(ConfigError::Invalid)?;
        for (rule, name) in
            triggers.iter().flat_map(|rule| rule.receivers.iter().map(move |name| (rule, name)))
        {
            if receivers.get(name).is_none_or(|receiver| receiver.kind() != "webhook") {
                let words = format!("trigger {}: {name} is no webhook among [alerts.receivers]", rule.name);
                return Err(ConfigError::Invalid(words));
            }
        }
        let routes = Arc::new(Routes { receivers, owners: self.owners, default: self.default });
        Ok(AlertConfig { every, parts: AlertParts { routes, rules: self.rules, triggers } })
    }
}

impl ReceiverFile {
    fn check(self, name: &ReceiverName) -> Result<Receiver, ConfigError> {
        let invalid =
            |error: &dyn std::fmt::Display| ConfigError::Invalid(format!("alerts.receivers.{name}: {error}"));
        let secret = self.secret_file.as_deref().map(read_secret).transpose()?;
        let (url, speaks, default) = match (self.webhook, self.alertmanager) {
            (Some(url), None) => (url, Speaks::Webhook { secret }, REPEAT),
            (None, Some(_)) if secret.is_some() => {
                return Err(invalid(&"Alertmanager does not check signatures: secret_file is for webhooks"));
            }
            (None, Some(url)) => (url, Speaks::Alertmanager, alertmanager::RESEND),
            (Some(_), Some(_)) | (None, None) => {
                return Err(invalid(
                    &"say where it is: either webhook = \"https://…\" or alertmanager = \"…\"",
                ));
            }
        };
        let repeat = self.repeat.as_deref().map_or(Ok(default), span::parse);
        let repeat = repeat.map_err(|error| invalid(&error))?;
        let longest = match speaks {
            // An alert that is not said again in time ends by itself there.
            Speaks::Alertmanager => Millis(alertmanager::LASTS.0 / 2),
            Speaks::Webhook { .. } => Millis::from_secs(7 * 24 * 3600),
        };
        if repeat < Millis::from_secs(1) || repeat > longest {
            return Err(invalid(&format!("repeat is 1s to {}", span::text(longest))));
        }
        let endpoint = Endpoint::new(&url).map_err(|error| invalid(&error))?;
        let authorities = self.ca.as_deref().map(read).transpose()?.map(String::into_bytes);
        Ok(Receiver { endpoint, speaks, authorities, repeat })
    }
}

fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    let text = Zeroizing::new(read(path)?);
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let mode = std::fs::metadata(path).map_err(failed)?.mode();
    if mode & 0o077 != 0 {
        let path = path.display();
        let words =
            format!("{path}: mode {:o} lets others read the secret; run chmod 600 {path}", mode & 0o7777);
        return Err(ConfigError::Invalid(words));
    }
    let secret = Zeroizing::new(text.trim().as_bytes().to_vec());
    if secret.len() < MIN_SECRET_BYTES {
        let words = format!("{}: a secret has {MIN_SECRET_BYTES} bytes at least", path.display());
        return Err(ConfigError::Invalid(words));
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn check(text: &str) -> Result<AlertConfig, String> {
        let file: AlertsFile = toml::from_str(text).map_err(|error| error.to_string())?;
        file.check(Vec::new()).map_err(|error| error.to_string())
    }

    #[test]
    fn receivers_owners_and_rules_fit_together() {
        let config = check(
            "every = '10s'
             default = ['am']
             receivers.am.alertmanager = 'http://127.0.0.1:9093'
             receivers.pager.webhook = 'https://hooks.example/x'
             owners.digits = { receivers = ['pager'], contact = 'digits@example.com' }
             [[rules]]
             name = 'slow'
             when.latency = { above = '50ms' }",
        )
        .expect("sensible");
        let routes = &config.parts.routes;
        let rule = config.parts.rules.first().expect("one");
        let of = |release: &str| {
            let group = crate::alert::Group::of_release(&release.parse().expect("release"));
            routes.of(rule, &group).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!((of("digits@1"), of("other@1")), (vec!["pager".to_owned()], vec!["am".to_owned()]));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            ("default = ['am']", "there is no receiver am"),
            ("receivers.a = {}", "say where it is"),
            ("receivers.a.webhook = 'http://hooks.example/'", "no address to send to"),
            ("receivers.a = { alertmanager = 'https://am.example', repeat = '1h' }", "repeat is 1s to 2m30s"),
            ("every = '1ms'", "every is"),
            ("[[rules]]\nname = 'a'\nwhen.rollbacks = {}\nreceivers = ['b']", "there is no receiver b"),
            ("[[rules]]\nname = 'a'\nwhen.rollbacks = {}\nwindow = '0s'", "rule a: window is"),
        ] {
            let error = check(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, "0123456789abcdef\n").expect("written");
        let set =
            |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("ours");
        set(0o644);
        assert!(read_secret(&path).expect_err("open to all").to_string().contains("chmod 600"));
        set(0o600);
        assert_eq!(read_secret(&path).expect("private").as_slice(), b"0123456789abcdef");
        std::fs::write(&path, "short").expect("written");
        assert!(read_secret(&path).is_err());
    }
}
