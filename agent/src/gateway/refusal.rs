//! Errors as the Open Inference Protocol writes them: a status and `{"error": "…"}`.

use bytes::buf::Chain;
use bytes::{Buf as _, Bytes};
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

/// The body of every response is here as a whole: JSON, and raw values behind it, which are sent from where they lie.
pub(crate) type Answer = Response<Full<Chain<Bytes, Bytes>>>;

/// Seconds after which asking again makes sense: a queue has moved, a worker has been replaced.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Says that a worker died of the request or hung on it: asked again as it is, it would cost another one.
pub(crate) const WORKER_DIED: header::HeaderName = header::HeaderName::from_static("serin-worker-died");

/// A request that is not answered, and why.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
    header: Option<(header::HeaderName, HeaderValue)>,
    close: bool,
    deadly: bool,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), header: None, close: false, deadly: false }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn wrong_method(allowed: &'static str) -> Self {
        let header = Some((header::ALLOW, HeaderValue::from_static(allowed)));
        let message = format!("possible here: {allowed}");
        Self { header, ..Self::new(StatusCode::METHOD_NOT_ALLOWED, message) }
    }

    /// The caller asks for more than fits; later it may.
    pub(crate) fn too_many(message: impl Into<String>) -> Self {
        let header = Some((header::RETRY_AFTER, RETRY_AFTER));
        Self { header, ..Self::new(StatusCode::TOO_MANY_REQUESTS, message) }
    }

    /// The device cannot answer at this moment.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        let header = Some((header::RETRY_AFTER, RETRY_AFTER));
        Self { header, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// An extension of the protocol that is not here.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// For the log. The message is for the caller alone: it may repeat what he sent.
    pub(crate) const fn status(&self) -> StatusCode {
        self.status
    }

    /// Nothing more is read from this connection.
    pub(crate) fn closing(self) -> Self {
        Self { close: true, ..self }
    }

    /// A worker died of what was asked.
    pub(crate) fn deadly(self) -> Self {
        Self { deadly: true, ..self }
    }

    pub(crate) fn into_answer(self) -> Answer {
        let body = serde_json::json!({ "error": self.message }).to_string();
        let mut answer = json(self.status, body.into());
        if let Some((name, value)) = self.header {
            answer.headers_mut().insert(name, value);
        }
        if self.deadly {
            answer.headers_mut().insert(WORKER_DIED, HeaderValue::from_static("true"));
        }
        if self.close {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

/// A response of JSON.
pub(crate) fn json(status: StatusCode, body: Bytes) -> Answer {
    with_raw(status, body, Bytes::new(), "application/json")
}

/// A response of JSON and raw values behind it.
pub(crate) fn with_raw(status: StatusCode, json: Bytes, raw: Bytes, kind: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(json.chain(raw)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
