//! Routes of the gateway: Open Inference Protocol V2 for everybody, `/field/v1` for the field engineer
//! on the Unix socket.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};
use serin_protocol::manifest::{Manifest, TensorSpec};
use tokio::sync::mpsc;

use super::infer::{Asked, Desk};
use super::limits::Limits;
use super::origin;
use super::refusal::{self, Answer, Refusal};
use super::router::{Infer, Router, Served};
use crate::field::FieldRequest;
use crate::field::routes as field;
use crate::worker::Worker;

/// Answers requests, whatever connection they come from.
#[derive(Debug)]
pub struct Gateway<W = Worker> {
    desk: Arc<Desk<W>>,
    field: mpsc::Sender<FieldRequest>,
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Some process of this device, over TCP.
    Loopback,
    /// A process of this local user, over the Unix socket.
    Local {
        /// Its user id, as the kernel says.
        uid: u32,
    },
}

/// What a path stands for.
#[derive(Debug, PartialEq, Eq)]
enum Route<'p> {
    Server,
    Live,
    Ready,
    Model(Asked),
    ModelReady(Asked),
    Infer(Asked),
    Field(&'p str),
    Unknown,
}

impl<'p> Route<'p> {
    fn parse(path: &'p str) -> Self {
        let asked = |model: &str, version: Option<&str>| Asked {
            model: model.to_owned(),
            version: version.map(str::to_owned),
        };
        let mut levels = path.split('/');
        // A path starts with a slash; more levels than the longest route has are none of ours.
        if levels.next() != Some("") {
            return Self::Unknown;
        }
        let levels: Vec<&str> = levels.take(7).collect();
        match levels.as_slice() {
            ["v2"] => Self::Server,
            ["v2", "health", "live"] => Self::Live,
            ["v2", "health", "ready"] => Self::Ready,
            ["v2", "models", model] => Self::Model(asked(model, None)),
            ["v2", "models", model, "ready"] => Self::ModelReady(asked(model, None)),
            ["v2", "models", model, "infer"] => Self::Infer(asked(model, None)),
            ["v2", "models", model, "versions", version] => Self::Model(asked(model, Some(version))),
            ["v2", "models", model, "versions", version, "ready"] => {
                Self::ModelReady(asked(model, Some(version)))
            }
            ["v2", "models", model, "versions", version, "infer"] => Self::Infer(asked(model, Some(version))),
            ["field", "v1", command] => Self::Field(command),
            _ => Self::Unknown,
        }
    }
}

impl<W> Gateway<W> {
    /// Answers with what `router` points to, and hands a field engineer's commands to `field`.
    pub fn new(router: Arc<Router<W>>, field: mpsc::Sender<FieldRequest>, limits: Limits) -> Arc<Self> {
        Arc::new(Self { desk: Arc::new(Desk::new(router, limits)), field })
    }

    /// The bounds.
    pub fn limits(&self) -> &Limits {
        &self.desk.limits
    }

    fn asked(&self, asked: &Asked) -> Result<Arc<Served<W>>, Refusal> {
        let Some(served) = self.desk.router.current() else {
            return Err(Refusal::unavailable(self.desk.router.why_not()));
        };
        asked.check(served.release())?;
        Ok(served)
    }
}

impl<W: Infer> Gateway<W> {
    pub(super) async fn answer(self: Arc<Self>, peer: Peer, request: Request<Incoming>) -> Answer {
        self.route(peer, request).await.unwrap_or_else(Refusal::into_answer)
    }

    async fn route(&self, peer: Peer, request: Request<Incoming>) -> Result<Answer, Refusal> {
        if peer == Peer::Loopback {
            origin::check(request.uri(), request.headers())?;
        }
        let (head, body) = request.into_parts();
        let get = || if head.method == Method::GET { Ok(()) } else { Err(Refusal::wrong_method("GET")) };
        match Route::parse(head.uri.path()) {
            Route::Server => get().map(|()| ok(&server())),
            Route::Live => get().map(|()| ok(&json!({ "live": true }))),
            Route::Ready => {
                get()?;
                let ready = self.desk.router.current().is_some();
                let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                Ok(refusal::json(status, json!({ "ready": ready }).to_string().into()))
            }
            Route::Model(asked) => {
                get()?;
                Ok(ok(&model(self.asked(&asked)?.manifest())))
            }
            Route::ModelReady(asked) => {
                get()?;
                let name = self.asked(&asked)?.release().model.to_string();
                Ok(ok(&json!({ "name": name, "ready": true })))
            }
            Route::Infer(asked) if head.method == Method::POST => {
                Arc::clone(&self.desk).infer(asked, body).await
            }
            Route::Infer(_) => Err(Refusal::wrong_method("POST")),
            Route::Field(command) => match peer {
                Peer::Local { uid } => field::answer(&self.field, uid, &head, command, body).await,
                Peer::Loopback => {
                    Err(Refusal::not_found("field commands are taken on the agent's Unix socket only"))
                }
            },
            Route::Unknown => Err(Refusal::not_found(format!("there is no {}", head.uri.path()))),
        }
    }
}

fn ok(value: &Value) -> Answer {
    refusal::json(StatusCode::OK, value.to_string().into())
}

fn server() -> Value {
    json!({ "name": "serin-agent", "version": env!("CARGO_PKG_VERSION"), "extensions": [] })
}

fn model(manifest: &Manifest) -> Value {
    let tensors = |specs: &[TensorSpec]| specs.iter().map(tensor).collect::<Vec<_>>();
    json!({
        "name": manifest.model,
        "versions": [manifest.version],
        "platform": "tract_onnx",
        "inputs": tensors(&manifest.inputs),
        "outputs": tensors(&manifest.outputs),
    })
}

/// As the protocol has it, with the names of features as a parameter.
fn tensor(spec: &TensorSpec) -> Value {
    let TensorSpec { name, datatype, shape, features } = spec;
    if features.is_empty() {
        json!({ "name": name, "datatype": datatype, "shape": shape })
    } else {
        json!({ "name": name, "datatype": datatype, "shape": shape, "parameters": { "features": features } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_routes_or_unknown() {
        let asked = |version: Option<&str>| Asked { model: "m".into(), version: version.map(Into::into) };
        assert_eq!(Route::parse("/v2"), Route::Server);
        assert_eq!(Route::parse("/v2/models/m/infer"), Route::Infer(asked(None)));
        assert_eq!(Route::parse("/v2/models/m/versions/1/infer"), Route::Infer(asked(Some("1"))));
        assert_eq!(Route::parse("/v2/models/m/versions/1/ready"), Route::ModelReady(asked(Some("1"))));
        assert_eq!(Route::parse("/field/v1/status"), Route::Field("status"));
        for unknown in ["", "/", "v2", "/v2/", "/v3", "/v2/models", "/v2/models/m/infer/", "*", "//v2"] {
            assert_eq!(Route::parse(unknown), Route::Unknown, "{unknown}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_a_route(path in ".{0,60}") {
            let _ = Route::parse(&path);
        }
    }
}
