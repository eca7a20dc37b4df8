//! Routes of the gateway: Open Inference Protocol V2 for everybody, `/field/v1` for the field engineer
//! on the Unix socket.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::infer::Desk;
use super::limits::Limits;
use super::refusal::{self, Answer, Refusal};
use super::remember::Remembered;
use super::route::{Asked, Route};
use super::router::{Infer, Router, Served};
use super::{describe, origin};
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

impl<W> Gateway<W> {
    /// Answers with what `router` points to, and hands a field engineer's commands to `field`.
    pub fn new(router: Arc<Router<W>>, field: mpsc::Sender<FieldRequest>, limits: Limits) -> Arc<Self> {
        Arc::new(Self { desk: Arc::new(Desk::new(router, limits)), field })
    }

    /// The bounds.
    pub fn limits(&self) -> &Limits {
        &self.desk.limits
    }

    /// What was predicted lately, for whoever keeps it over a restart.
    pub(crate) fn remembered(&self) -> Arc<Remembered> {
        Arc::clone(&self.desk.remembered)
    }

    fn asked(&self, asked: &Asked) -> Result<Arc<Served<W>>, Refusal> {
        let served = match self.desk.named_arm(asked) {
            Some(arm) => arm,
            None => self.current()?,
        };
        asked.check(served.release(), |other| self.desk.router.is_warm(other))?;
        Ok(served)
    }

    /// All releases that answer: the active one, and what shares the work with it.
    fn answering(&self) -> Vec<Arc<Served<W>>> {
        let active = self.desk.router.current();
        let beside = self.desk.router.beside();
        let arm = beside.as_ref().and_then(|beside| beside.answers());
        active.iter().chain(arm).map(Arc::clone).collect()
    }

    /// Those whose counts are asked for.
    fn counted(&self, asked: Option<&Asked>) -> Result<Vec<Arc<Served<W>>>, Refusal> {
        let Some(asked) = asked else {
            self.current()?;
            return Ok(self.answering());
        };
        let served = self.asked(asked)?;
        let same = |other: &Arc<Served<W>>| other.release().model == served.release().model;
        match asked.version {
            Some(_) => Ok(vec![served]),
            None => Ok(self.answering().into_iter().filter(same).collect()),
        }
    }

    fn current(&self) -> Result<Arc<Served<W>>, Refusal> {
        self.desk.router.current().ok_or_else(|| Refusal::unavailable(self.desk.router.why_not()))
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
        // An answer to HEAD goes without its body.
        let gets = matches!(head.method, Method::GET | Method::HEAD);
        let get = || if gets { Ok(()) } else { Err(Refusal::wrong_method("GET, HEAD")) };
        match Route::parse(head.uri.path()) {
            Route::Server => get().map(|()| ok(&describe::server())),
            Route::Live => get().map(|()| ok(&json!({ "live": true }))),
            Route::Ready => {
                get()?;
                let ready = self.desk.router.current().is_some();
                let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                Ok(refusal::json(status, json!({ "ready": ready }).to_string().into()))
            }
            Route::Model(asked) => {
                get()?;
                let served = self.asked(&asked)?;
                let releases = self.answering();
                let releases = releases.iter().map(|served| served.release());
                let versions = releases.filter(|release| release.model == served.release().model);
                let versions: Vec<_> = versions.map(|release| &release.version).collect();
                Ok(ok(&describe::model(served.manifest(), &versions, |input| served.formats(input))))
            }
            Route::ModelReady(asked) => {
                get()?;
                let name = self.asked(&asked)?.release().model.to_string();
                Ok(ok(&json!({ "name": name, "ready": true })))
            }
            Route::Infer(asked) if head.method == Method::POST => {
                Ok(Arc::clone(&self.desk).infer(asked, &head.headers, body).await)
            }
            Route::Statistics(asked) => {
                get()?;
                let counted = self.counted(asked.as_ref())?;
                let each = counted.iter().map(|served| {
                    let snapshot = served.recording().lock().snapshot();
                    describe::statistics(served.release(), &snapshot)
                });
                Ok(ok(&json!({ "model_stats": each.collect::<Vec<_>>() })))
            }
            Route::Repository if head.method == Method::POST => {
                let answering = self.answering();
                Ok(ok(&describe::repository(answering.iter().map(|served| served.release()))))
            }
            Route::Labels if head.method == Method::POST => self.desk.labels(body).await,
            Route::Infer(_) | Route::Repository | Route::Labels => Err(Refusal::wrong_method("POST")),
            Route::Unsupported(what) => Err(Refusal::unsupported(format!("{what} not supported here"))),
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
