//! HTTP over the agent's Unix socket, from the field engineer's side.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body, Frame, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header;
use hyper::http::request::Builder;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::reply::{FieldError, FieldReply};
use crate::gateway::binary::JSON_LENGTH;
use crate::gateway::refusal::WORKER_DIED;
use crate::shelter;

/// Time for the agent to accept; it only has to look up from what it is doing.
const CONNECT: Duration = Duration::from_secs(5);
/// Time for an answer, a little more than the agent allows itself.
const ANSWER: Duration = Duration::from_secs(100);
/// Time for all of a sideload, a little more than the agent allows itself.
const SIDELOAD: Duration = Duration::from_secs(2 * 3700);
/// Bytes of a file that are read at a time.
const PIECE: usize = 64 * 1024;
/// Largest answer in bytes: the 64 MiB a worker may answer, written as JSON.
const MAX_ANSWER_BYTES: usize = 256 << 20;

async fn reach(socket: &Path) -> io::Result<UnixStream> {
    let reached = tokio::time::timeout(CONNECT, UnixStream::connect(socket)).await;
    reached.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

type Sent = UnsyncBoxBody<Bytes, io::Error>;

/// A connection to the running agent.
#[derive(Debug)]
pub struct Client {
    sender: SendRequest<Sent>,
}

/// Why there is no answer, or not the one hoped for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No agent answers on the socket.
    #[error("no agent answers on {socket}: {source}")]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or the answer took too long.
    #[error("the agent did not answer: {0}")]
    Broken(String),
    /// The agent refused a field command.
    #[error(transparent)]
    Refused(FieldError),
    /// The agent refused an inference.
    #[error("{message}")]
    Failed {
        /// Status of the answer.
        status: u16,
        /// Why.
        message: String,
    },
    /// A worker died of an inference, or hung on it: another one would, too.
    #[error("{message}")]
    Deadly {
        /// How it died.
        message: String,
    },
    /// The answer is not understood.
    #[error("the agent's answer is not understood: {0}")]
    Malformed(String),
}

/// What helps whoever could not reach the agent at `socket`.
pub(super) fn way_in(socket: &Path, why: io::ErrorKind) -> String {
    if why != io::ErrorKind::PermissionDenied {
        return "start the agent with `serin-agent run --config FILE`, or name its socket".into();
    }
    let closed = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let parent = socket.parent().filter(|parent| !parent.as_os_str().is_empty());
    let Some(folder) = parent.filter(|_| fs::symlink_metadata(socket).is_err_and(closed)) else {
        let socket = socket.display();
        return format!("run this as root or as a member of the socket's group (`stat -c %G {socket}`)");
    };
    let passable = fs::metadata(folder).map_or(true, |folder| folder.mode() & 0o010 != 0);
    let folder = folder.display();
    if passable {
        format!("run this as root or as a member of the group of {folder} (`stat -c %G {folder}`)")
    } else {
        // The agent leaves one that is there as somebody made it.
        format!("run this as root; `chmod g+x {folder}` lets the members of its group in, too")
    }
}

impl Client {
    /// Connects to the agent whose socket is at `socket`, or in memory where the disk did not take it.
    pub async fn connect(socket: &Path) -> Result<Self, ClientError> {
        let connected = match reach(socket).await {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                match shelter::socket(socket) {
                    // What is wrong with the place that was asked for says more.
                    Some(elsewhere) => reach(&elsewhere).await.map_err(|_| error),
                    None => Err(error),
                }
            }
            tried => tried,
        };
        let stream =
            connected.map_err(|source| ClientError::Unreachable { socket: socket.into(), source })?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        // Its errors come back through the request they belong to.
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// Gives a field command: `GET` without a body, `POST` with one.
    pub async fn field(&mut self, command: &str, body: Option<Bytes>) -> Result<FieldReply, ClientError> {
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let path = format!("/field/v1/{command}");
        let body = Full::new(body.unwrap_or_default());
        let answered =
            self.exchange(method, &path, body.map_err(|never| match never {}).boxed_unsync(), ANSWER);
        field_reply(&answered.await?)
    }

    /// Posts `size` bytes of `file` as they are read, and tells `sent` how many have gone.
    pub(super) async fn sideload(
        &mut self,
        file: File,
        size: u64,
        sent: impl FnMut(u64) + Send + Unpin + 'static,
    ) -> Result<FieldReply, ClientError> {
        let body = FileBody { file, size, left: size, sent };
        let answered = self.exchange(Method::POST, "/field/v1/sideload", body.boxed_unsync(), SIDELOAD);
        field_reply(&answered.await?)
    }

    /// Asks the gateway; `None` gets, `Some` posts. The answer's JSON as it came.
    pub async fn gateway(&mut self, path: &str, body: Option<Bytes>) -> Result<Bytes, ClientError> {
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let body = Full::new(body.unwrap_or_default()).map_err(|never| match never {}).boxed_unsync();
        self.exchange(method, path, body, ANSWER).await?.success()
    }

    /// Asks for an inference: a request as JSON, and behind it the raw values that it says come so.
    ///
    /// # Errors
    /// The gateway does not answer, or refuses.
    pub async fn infer(&mut self, path: &str, json: String, raw: &[u8]) -> Result<Bytes, ClientError> {
        if raw.is_empty() {
            return self.gateway(path, Some(json.into())).await;
        }
        let length = json.len();
        let mut body = json.into_bytes();
        body.extend(raw);
        let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
        let request = request(Method::POST, path).header(JSON_LENGTH, length);
        self.carry(request, body, ANSWER).await?.success()
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        body: Sent,
        patience: Duration,
    ) -> Result<Answered, ClientError> {
        let request = request(method, path).header(header::CONTENT_TYPE, "application/json");
        self.carry(request, body, patience).await
    }

    async fn carry(
        &mut self,
        request: Builder,
        body: Sent,
        patience: Duration,
    ) -> Result<Answered, ClientError> {
        let request = request.body(body).map_err(|error| ClientError::Malformed(error.to_string()))?;
        let exchange = async {
            self.sender.ready().await.map_err(|error| broken(&error))?;
            let response = self.sender.send_request(request).await.map_err(|error| broken(&error))?;
            let status = response.status();
            let deadly = response.headers().contains_key(WORKER_DIED);
            let answer = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            let answer = answer.map_err(|error| {
                let too_large = error.downcast_ref::<LengthLimitError>().is_some();
                let why = if too_large { "it is too large".into() } else { error.to_string() };
                ClientError::Broken(why)
            })?;
            Ok(Answered { status, deadly, body: answer.to_bytes() })
        };
        match tokio::time::timeout(patience, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ClientError::Broken(format!("nothing came within {} seconds", patience.as_secs()))),
        }
    }
}

fn request(method: Method, path: &str) -> Builder {
    Request::builder().method(method).uri(path).header(header::HOST, "localhost")
}

fn field_reply(answered: &Answered) -> Result<FieldReply, ClientError> {
    if answered.status.is_success() {
        return parse(&answered.body);
    }
    match serde_json::from_slice::<FieldError>(&answered.body) {
        Ok(error) => Err(ClientError::Refused(error)),
        Err(_) => Err(answered.failed()),
    }
}

/// A file as a body. This process has nothing else to do than to wait for the stick.
struct FileBody<F> {
    file: File,
    size: u64,
    left: u64,
    sent: F,
}

impl<F: FnMut(u64) + Unpin> Body for FileBody<F> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut piece = vec![0; PIECE.min(usize::try_from(self.left).unwrap_or(PIECE))];
        let read = match self.file.read(&mut piece) {
            Ok(0) => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
            Ok(read) => read,
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        piece.truncate(read);
        self.left = self.left.saturating_sub(read as u64);
        let sent = self.size.saturating_sub(self.left);
        (self.sent)(sent);
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Parses an answer.
pub(crate) fn parse<T: DeserializeOwned>(answer: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(answer).map_err(|error| ClientError::Malformed(error.to_string()))
}

/// An answer as it came.
struct Answered {
    status: StatusCode,
    /// Whether it says that a worker died of what was asked.
    deadly: bool,
    body: Bytes,
}

impl Answered {
    fn success(self) -> Result<Bytes, ClientError> {
        if self.status.is_success() { Ok(self.body) } else { Err(self.failed()) }
    }

    fn failed(&self) -> ClientError {
        #[derive(serde::Deserialize)]
        struct Failure {
            error: String,
        }
        let message = serde_json::from_slice::<Failure>(&self.body)
            .map_or_else(|_| format!("the agent answered {}", self.status), |failure| failure.error);
        if self.deadly {
            return ClientError::Deadly { message };
        }
        ClientError::Failed { status: self.status.as_u16(), message }
    }
}

fn broken(error: &hyper::Error) -> ClientError {
    ClientError::Broken(error.to_string())
}
