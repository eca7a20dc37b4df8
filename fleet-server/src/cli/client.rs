//! Talks to a server's API.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body, SendBody};
use zeroize::Zeroizing;

use super::Failure;

/// How long a server may take to begin its answer. Checking a large bundle takes a while.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long connecting may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer read, in bytes: a list of 250,000 devices.
const MAX_ANSWER_BYTES: u64 = 256 * 1024 * 1024;
/// Largest token file, in bytes.
const MAX_TOKEN_BYTES: u64 = 4096;

/// Which server, and as whom.
#[derive(Args)]
pub(super) struct ClientArgs {
    /// The server's address.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "SERIN_SERVER",
        default_value = "http://127.0.0.1:8080"
    )]
    server: String,
    /// File with the operator's token; `SERIN_TOKEN` may hold the token itself.
    #[arg(long, global = true, value_name = "FILE", env = "SERIN_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// A connection to a server.
pub(super) struct Client {
    agent: Agent,
    server: String,
    token: Option<Zeroizing<String>>,
}

impl Client {
    pub(super) fn new(arguments: &ClientArgs) -> Result<Self, Failure> {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .build();
        Ok(Self {
            agent: agent.into(),
            server: arguments.server.trim_end_matches('/').to_owned(),
            token: token(arguments)?,
        })
    }

    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let request = self.authorized(self.agent.get(format!("{}{path}", self.server)));
        self.answer(request.call())
    }

    /// A file of at most `limit` bytes; none when the server does not have it.
    pub(super) fn bytes(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Failure> {
        let Some(reader) = self.reader(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        reader.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(Failure::new)?;
        if bytes.len() as u64 > limit {
            return Err(Failure::about(path, format!("more than {limit} bytes")));
        }
        Ok(Some(bytes))
    }

    /// A file as it comes; none when the server does not have it.
    pub(super) fn reader(&self, path: &str) -> Result<Option<impl Read + use<>>, Failure> {
        let request = self.authorized(self.agent.get(format!("{}{path}", self.server)));
        let response = request.call().map_err(|error| self.unreachable(&error))?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !response.status().is_success() {
            return Err(refusal(response));
        }
        Ok(Some(response.into_body().into_reader()))
    }

    pub(super) fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Failure> {
        let request = self.authorized(self.agent.post(format!("{}{path}", self.server)));
        self.answer(request.header("Content-Type", "application/json").send(body.to_string()))
    }

    /// Posts what is answered with nothing.
    pub(super) fn send(&self, path: &str, body: &Value) -> Result<(), Failure> {
        let request = self.authorized(self.agent.post(format!("{}{path}", self.server)));
        let response = request.header("Content-Type", "application/json").send(body.to_string());
        let response = response.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() { Ok(()) } else { Err(refusal(response)) }
    }

    pub(super) fn post_bytes<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T, Failure> {
        let request = self.authorized(self.agent.post(format!("{}{path}", self.server)));
        self.answer(request.header("Content-Type", "application/octet-stream").send(body))
    }

    /// Sends `size` bytes as they are read.
    pub(super) fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        size: u64,
        mut body: impl Read,
    ) -> Result<T, Failure> {
        let request = self.authorized(self.agent.put(format!("{}{path}", self.server)));
        let request = request.header("Content-Type", "application/octet-stream");
        let request = request.header("Content-Length", size.to_string());
        self.answer(request.send(SendBody::from_reader(&mut body)))
    }

    pub(super) fn delete(&self, path: &str) -> Result<(), Failure> {
        let request = self.authorized(self.agent.delete(format!("{}{path}", self.server)));
        let response = request.call().map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() { Ok(()) } else { Err(refusal(response)) }
    }

    /// Opens the live stream.
    pub(super) fn stream(&self) -> Result<impl Read + use<>, Failure> {
        let request = self.authorized(self.agent.get(format!("{}/api/v1/stream", self.server)));
        let response = request.call().map_err(|error| self.unreachable(&error))?;
        if !response.status().is_success() {
            return Err(refusal(response));
        }
        Ok(response.into_body().into_reader())
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.token {
            Some(token) => request.header("Authorization", format!("Bearer {}", token.as_str())),
            None => request,
        }
    }

    fn answer<T: DeserializeOwned>(
        &self,
        response: Result<Response<Body>, ureq::Error>,
    ) -> Result<T, Failure> {
        let mut response = response.map_err(|error| self.unreachable(&error))?;
        if !response.status().is_success() {
            return Err(refusal(response));
        }
        let reader = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).reader();
        serde_json::from_reader(reader)
            .map_err(|error| Failure::new(format!("the server's answer makes no sense: {error}")))
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        let hint = "start one with `serin-fleet serve`, or say where it is with --server or SERIN_SERVER";
        Failure::about(&self.server, error).hint(Some(hint.into()))
    }
}

fn token(arguments: &ClientArgs) -> Result<Option<Zeroizing<String>>, Failure> {
    if let Some(path) = &arguments.token_file {
        let about = |error: std::io::Error| Failure::about(path.display(), error);
        let mut text = Zeroizing::new(String::new());
        let file = std::fs::File::open(path).map_err(about)?;
        file.take(MAX_TOKEN_BYTES).read_to_string(&mut text).map_err(about)?;
        return Ok(Some(Zeroizing::new(text.trim().to_owned())));
    }
    Ok(std::env::var("SERIN_TOKEN").ok().map(|token| Zeroizing::new(token.trim().to_owned())))
}

/// What the server said, in its own words.
fn refusal(mut response: Response<Body>) -> Failure {
    let status = response.status();
    let body: Value = response.body_mut().read_json().unwrap_or(Value::Null);
    let word = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
    let message = word("error").unwrap_or_else(|| format!("the server answered {status}"));
    let hint = match word("code").as_deref() {
        Some("token_missing" | "token_wrong") => {
            Some("give the operator's token with --token-file or SERIN_TOKEN_FILE; it is in keys/operator.token on the server".into())
        }
        _ => word("next"),
    };
    Failure::new(message).hint(hint).details(json!({ "status": status.as_u16(), "code": word("code") }))
}
