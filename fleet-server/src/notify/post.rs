//! Carries one delivery to its receiver over HTTP, and says what came of it. Redirects are not followed, answers are
//! not read beyond their status, and neither addresses nor secrets are logged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use serin_protocol::ids::{FleetId, UnixMillis};
use sha2::Sha256;
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::outbox::{Content, Delivery, Outcome};
use super::receiver::{Receiver, ReceiverName, Routes, Speaks};
use crate::alert::{alertmanager, webhook};

/// How long one attempt may take as a whole.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long connecting may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Longest explanation kept.
const MAX_WHY: usize = 200;

/// Speaks to all receivers.
pub struct Poster {
    fleet: FleetId,
    routes: Arc<Routes>,
    agents: BTreeMap<ReceiverName, Agent>,
}

/// A receiver's file of authorities holds no certificate.
#[derive(Debug, thiserror::Error)]
#[error("the authorities of receiver {0}: {1}")]
pub struct AuthoritiesError(ReceiverName, String);

impl Poster {
    /// Speaks for `fleet` to the receivers of `routes`.
    pub fn new(fleet: FleetId, routes: Arc<Routes>) -> Result<Self, AuthoritiesError> {
        let agents = routes.receivers.iter().map(|(name, receiver)| {
            let agent = agent(receiver).map_err(|why| AuthoritiesError(name.clone(), why))?;
            Ok((name.clone(), agent))
        });
        let agents = agents.collect::<Result<_, _>>()?;
        Ok(Self { fleet, routes, agents })
    }

    /// Tries one delivery. Waits for the network.
    pub fn post(&self, delivery: &Delivery, now: UnixMillis) -> Outcome {
        let (Some(receiver), Some(agent)) =
            (self.routes.receivers.get(&delivery.to), self.agents.get(&delivery.to))
        else {
            return Outcome::Refused("it is not configured any more".into());
        };
        let (url, body, signature) = match (&receiver.speaks, &delivery.content) {
            (Speaks::Alertmanager, Content::Alerts(alerts)) => {
                let base = receiver.endpoint.url().trim_end_matches('/');
                let body = alertmanager::body(alerts, &self.fleet, now).to_string();
                (format!("{base}/api/v2/alerts"), body, None)
            }
            (Speaks::Alertmanager, Content::Call(_)) => {
                return Outcome::Refused("Alertmanager takes alerts only".into());
            }
            (Speaks::Webhook { secret }, content) => {
                let body = self.webhook(delivery, content, now).to_string();
                let signature = secret.as_ref().and_then(|secret| sign(secret, now, &body));
                (receiver.endpoint.url().to_owned(), body, signature)
            }
        };
        let mut request = agent
            .post(&url)
            .header("Content-Type", "application/json")
            .header("Serin-Delivery", format!("{}-{}", self.fleet, delivery.id));
        if let Some(signature) = signature {
            request = request.header("Serin-Signature", signature);
        }
        match request.send(body) {
            Ok(answer) => outcome(answer.status().as_u16()),
            Err(error) => {
                // Some errors quote the address, whose path may be a secret.
                let why = error.to_string().replace(&url, receiver.endpoint.host());
                Outcome::Later(why.chars().take(MAX_WHY).collect())
            }
        }
    }

    fn webhook(&self, delivery: &Delivery, content: &Content, now: UnixMillis) -> Value {
        let mut body = json!({
            "version": 1,
            "fleet": self.fleet,
            "delivery": delivery.id,
            "sent": now.0,
        });
        if let Some(fields) = body.as_object_mut() {
            match content {
                Content::Alerts(alerts) => {
                    fields.insert("alerts".into(), alerts.iter().map(webhook::alert).collect());
                }
                Content::Call(Value::Object(call)) => fields.extend(call.clone()),
                Content::Call(other) => {
                    fields.insert("call".into(), other.clone());
                }
            }
        }
        body
    }
}

fn agent(receiver: &Receiver) -> Result<Agent, String> {
    let roots = match &receiver.authorities {
        None => RootCerts::PlatformVerifier,
        Some(pem) => {
            let items = parse_pem(pem).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
            let certificates = items.into_iter().filter_map(|item| match item {
                PemItem::Certificate(certificate) => Some(certificate),
                _ => None,
            });
            let certificates: Vec<Certificate<'static>> = certificates.collect();
            if certificates.is_empty() {
                return Err("no certificate in it".into());
            }
            RootCerts::Specific(Arc::new(certificates))
        }
    };
    let tls = TlsConfig::builder()
        .root_certs(roots)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(PATIENCE))
        .timeout_connect(Some(CONNECT_PATIENCE))
        .user_agent(concat!("serin-fleet/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls);
    if receiver.endpoint.is_on_this_machine() {
        config = config.proxy(None);
    }
    Ok(config.build().into())
}

fn outcome(status: u16) -> Outcome {
    match status {
        200..=299 => Outcome::Taken,
        300..=399 => Outcome::Refused(format!("it answered {status}: redirects are not followed")),
        400 | 405 | 406 | 410 | 411 | 413 | 415 | 422 => Outcome::Refused(format!("it answered {status}")),
        _ => Outcome::Later(format!("it answered {status}")),
    }
}

/// `t=<seconds since 1970>,v1=<HMAC-SHA256 of "<seconds>.<body>", hexadecimal>`: with the time under the signature, an
/// old message cannot be passed off as new.
fn sign(secret: &[u8], now: UnixMillis, body: &str) -> Option<String> {
    let seconds = now.0 / 1000;
    // Any length of key will do.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    mac.update(format!("{seconds}.").as_bytes());
    mac.update(body.as_bytes());
    Some(format!("t={seconds},v1={}", hex::encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
#[path = "post_tests.rs"]
mod tests;
