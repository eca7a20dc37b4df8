//! `/field/v1/*`: a field engineer's commands as HTTP, on the Unix socket only.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serin_protocol::enrolment::TokenError;
use serin_protocol::ids::{Millis, Version};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::command::{FieldCommand, FieldOutcome, FieldRequest, MAX_HISTORY};
use super::reply::{FieldCode, FieldError, FieldReply};
use super::sideload;
use crate::gateway::body;
use crate::gateway::refusal::{Answer, Refusal, json};
use crate::logs::Wanted;
use crate::update::machine::MAX_HOLD;

/// A command's body is a version at most.
const MAX_BODY_BYTES: usize = 4096;
/// Time for that body.
const RECEIVE: Duration = Duration::from_secs(10);
/// Time for the supervisor's answer. A rollback to a release that has no worker waits for one to load,
/// which is bounded by the configured load deadline, a minute by default.
const REPLY: Duration = Duration::from_secs(90);
/// Entries of a history unless told otherwise: a screenful.
const DEFAULT_HISTORY: usize = 20;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RollbackBody {
    to: Option<Version>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HoldBody {
    seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnrollBody {
    token: String,
}

/// Last level of a command's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Status,
    History,
    Rollback,
    Pin,
    Unpin,
    Hold,
    Doctor,
    Verify,
    Enroll,
    Sideload,
    Logs,
    Configuration,
}

impl Verb {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "status" => Self::Status,
            "history" => Self::History,
            "rollback" => Self::Rollback,
            "pin" => Self::Pin,
            "unpin" => Self::Unpin,
            "hold" => Self::Hold,
            "doctor" => Self::Doctor,
            "verify" => Self::Verify,
            "enroll" => Self::Enroll,
            "sideload" => Self::Sideload,
            "logs" => Self::Logs,
            "configuration" => Self::Configuration,
            _ => return None,
        })
    }

    const fn method(self) -> (Method, &'static str) {
        match self {
            Self::Status | Self::History | Self::Doctor | Self::Verify | Self::Logs | Self::Configuration => {
                (Method::GET, "GET")
            }
            Self::Rollback | Self::Pin | Self::Unpin | Self::Hold | Self::Enroll | Self::Sideload => {
                (Method::POST, "POST")
            }
        }
    }
}

/// Hands the command `name` of user `uid` to the supervisor and waits for his answer.
pub(crate) async fn answer(
    supervisor: &mpsc::Sender<FieldRequest>,
    uid: u32,
    head: &Parts,
    name: &str,
    body: Incoming,
) -> Result<Answer, Refusal> {
    let Some(verb) = Verb::parse(name) else {
        let message = format!("there is no command {name}");
        let next = "agent and command line are of different versions; update the older one";
        return Ok(error(&FieldError::new(FieldCode::UnknownCommand, message, next)));
    };
    let (method, allowed) = verb.method();
    if head.method != method {
        return Err(Refusal::wrong_method(allowed));
    }
    if verb == Verb::Sideload {
        let outcome = sideload::answer(supervisor, uid, body).await;
        return Ok(answered(&outcome));
    }
    let budget = Arc::new(Semaphore::new(MAX_BODY_BYTES));
    let body = body::read(body, MAX_BODY_BYTES, RECEIVE, &budget).await?;
    let command = match parse(verb, head.uri.query(), &body.bytes) {
        Ok(command) => command,
        Err(message) => {
            let next = format!("see `serin-agent {name} --help`");
            return Ok(error(&FieldError::new(FieldCode::BadRequest, message, next)));
        }
    };
    Ok(answered(&ask(supervisor, uid, command).await))
}

fn answered(outcome: &FieldOutcome) -> Answer {
    match outcome {
        Ok(reply) => respond(StatusCode::OK, reply),
        Err(refusal) => error(refusal),
    }
}

fn parse(verb: Verb, query: Option<&str>, body: &[u8]) -> Result<FieldCommand, String> {
    match verb {
        Verb::Status => Ok(FieldCommand::Status),
        Verb::History => Ok(FieldCommand::History { limit: limit(query)? }),
        Verb::Rollback if body.is_empty() => Ok(FieldCommand::Rollback { to: None }),
        Verb::Rollback => {
            let RollbackBody { to } =
                serde_json::from_slice(body).map_err(|error| format!("malformed request: {error}"))?;
            Ok(FieldCommand::Rollback { to })
        }
        Verb::Pin => Ok(FieldCommand::Pin),
        Verb::Unpin => Ok(FieldCommand::Unpin),
        Verb::Hold => {
            let HoldBody { seconds } =
                serde_json::from_slice(body).map_err(|error| format!("malformed request: {error}"))?;
            let longest = MAX_HOLD.0 / 1000;
            if seconds == 0 || seconds > longest {
                return Err(format!(
                    "a hold lasts a second at least and {} days at most",
                    longest / (24 * 3600)
                ));
            }
            Ok(FieldCommand::Hold { span: Millis::from_secs(seconds) })
        }
        Verb::Doctor => Ok(FieldCommand::Doctor),
        Verb::Verify => Ok(FieldCommand::Verify),
        Verb::Logs => wanted(query).map(FieldCommand::Logs),
        Verb::Configuration => Ok(FieldCommand::Configuration),
        Verb::Sideload => Err("a release comes as it is read".into()),
        Verb::Enroll => {
            let EnrollBody { token } =
                serde_json::from_slice(body).map_err(|error| format!("malformed request: {error}"))?;
            Ok(FieldCommand::Enroll { token: token.parse().map_err(|error: TokenError| error.to_string())? })
        }
    }
}

fn wanted(query: Option<&str>) -> Result<Wanted, String> {
    let query = query.unwrap_or_default();
    let last = query.strip_prefix("last=").and_then(|number| number.parse().ok()).map(Wanted::Last);
    let after = query.strip_prefix("after=").and_then(|number| number.parse().ok()).map(Wanted::After);
    last.or(after).ok_or_else(|| "logs take last=NUMBER or after=NUMBER".into())
}

fn limit(query: Option<&str>) -> Result<usize, String> {
    let Some(query) = query else {
        return Ok(DEFAULT_HISTORY);
    };
    let number = query.strip_prefix("limit=").and_then(|number| number.parse().ok());
    number
        .filter(|limit| (1..=MAX_HISTORY).contains(limit))
        .ok_or_else(|| format!("a history takes limit=1 to limit={MAX_HISTORY}"))
}

async fn ask(
    supervisor: &mpsc::Sender<FieldRequest>,
    uid: u32,
    command: FieldCommand,
) -> Result<FieldReply, FieldError> {
    let answer = hand_over(supervisor, uid, command)?;
    match tokio::time::timeout(REPLY, answer).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(stopping()),
        Err(_) => {
            let message = format!("no answer within {} seconds; it may still happen", REPLY.as_secs());
            Err(FieldError::new(FieldCode::Timeout, message, "look at `serin-agent status`"))
        }
    }
}

/// Gives the supervisor a command; his answer comes later.
pub(super) fn hand_over(
    supervisor: &mpsc::Sender<FieldRequest>,
    uid: u32,
    command: FieldCommand,
) -> Result<oneshot::Receiver<FieldOutcome>, FieldError> {
    let (reply, answer) = oneshot::channel();
    supervisor.try_send(FieldRequest { uid, command, reply }).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => {
            FieldError::new(FieldCode::Busy, "too many commands at once", "try again in a moment")
        }
        mpsc::error::TrySendError::Closed(_) => stopping(),
    })?;
    Ok(answer)
}

pub(super) fn stopping() -> FieldError {
    FieldError::new(FieldCode::Stopping, "the agent is stopping", "try again in a moment")
}

fn error(error: &FieldError) -> Answer {
    let status = match error.code {
        FieldCode::NothingActive
        | FieldCode::NoPrevious
        | FieldCode::Condemned
        | FieldCode::NotHere
        | FieldCode::Already
        | FieldCode::NotTrusted
        | FieldCode::NotAdmitted
        | FieldCode::NotInstalled
        | FieldCode::NotEnrolled => StatusCode::CONFLICT,
        FieldCode::Storage | FieldCode::NotStarted => StatusCode::INTERNAL_SERVER_ERROR,
        FieldCode::BadRequest | FieldCode::BadFile => StatusCode::BAD_REQUEST,
        FieldCode::UnknownCommand => StatusCode::NOT_FOUND,
        FieldCode::Busy | FieldCode::Stopping | FieldCode::NotConnected => StatusCode::SERVICE_UNAVAILABLE,
        FieldCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
    };
    respond(status, error)
}

fn respond<T: serde::Serialize>(status: StatusCode, value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(text) => json(status, text.into()),
        Err(error) => Refusal::internal(error.to_string()).into_answer(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_parsed_with_their_bounds() {
        let history = |query| match parse(Verb::History, query, b"") {
            Ok(FieldCommand::History { limit }) => Some(limit),
            _ => None,
        };
        assert_eq!(history(None), Some(DEFAULT_HISTORY));
        assert_eq!(history(Some("limit=5")), Some(5));
        for bad in ["limit=0", "limit=1001", "limit=-1", "limit=", "other=1"] {
            assert!(parse(Verb::History, Some(bad), b"").is_err(), "{bad}");
        }
        let rollback = |body: &[u8]| match parse(Verb::Rollback, None, body) {
            Ok(FieldCommand::Rollback { to }) => Some(to),
            _ => None,
        };
        assert_eq!(rollback(b"{}"), Some(None));
        let to = Some("1.0.0".parse().expect("version"));
        assert_eq!(rollback(br#"{"to":"1.0.0"}"#), Some(to));
        for bad in [&b"{\"to\":\"a b\"}"[..], b"{\"too\":\"1\"}", b"[", b"\xFF"] {
            assert!(parse(Verb::Rollback, None, bad).is_err(), "{bad:?}");
        }
    }
}
