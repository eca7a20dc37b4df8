//! A gateway that refuses what it is told to, and what is asked of it then.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header::HeaderValue};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{UnixListener, UnixStream};

use super::*;
use crate::field::FieldCommand;
use crate::field::cli::tests::supervise;
use crate::gateway::refusal::WORKER_DIED;

/// What it says to the first values of a request's rows; nothing when it answers them.
type Judge = dyn Fn(&[Value]) -> Option<(u16, String)> + Send + Sync;

/// An agent's double: it answers each row of two values with the first of them, unless its judge refuses the request.
pub(in crate::scoring) struct Double {
    folder: tempfile::TempDir,
    /// How many rows each request had.
    asked: Arc<Mutex<Vec<usize>>>,
}

impl Double {
    pub(in crate::scoring) fn open(
        datatype: &'static str,
        judge: impl Fn(&[Value]) -> Option<(u16, String)> + Send + Sync + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let listener = UnixListener::bind(folder.path().join("agent.sock")).expect("bound");
        let (judge, asked): (Arc<Judge>, Arc<Mutex<Vec<usize>>>) = (Arc::new(judge), Arc::default());
        let seen = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, datatype, Arc::clone(&judge), Arc::clone(&seen)));
            }
        });
        Self { folder, asked }
    }

    pub(in crate::scoring) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub(in crate::scoring) fn socket(&self) -> std::path::PathBuf {
        self.path("agent.sock")
    }

    /// Rows of each request since this was asked last.
    pub(in crate::scoring) fn asked(&self) -> Vec<usize> {
        std::mem::take(&mut self.asked.lock().expect("whole"))
    }

    async fn scorer(&self) -> Scorer {
        let mut client = Client::connect(&self.socket()).await.expect("listening");
        let model = Model::look_up(&mut client, "sums").await.expect("known");
        Scorer::new(model, &self.socket(), client)
    }

    /// One that asks about as many rows at once as may be.
    async fn hasty(&self) -> Scorer {
        let mut scorer = self.scorer().await;
        while scorer.rows_at_once() < 256 {
            scorer.pace.answered(scorer.pace.rows(), Duration::ZERO);
        }
        scorer
    }
}

async fn serve(stream: UnixStream, datatype: &'static str, judge: Arc<Judge>, seen: Arc<Mutex<Vec<usize>>>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (judge, seen) = (Arc::clone(&judge), Arc::clone(&seen));
        async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.expect("whole").to_bytes();
            let (status, json) = match path.as_str() {
                "/field/v1/status" => (200, json!(supervise(&FieldCommand::Status).expect("known"))),
                path if path.ends_with("/infer") => {
                    let body: Value = serde_json::from_slice(&body).expect("JSON");
                    let input = &body["inputs"][0];
                    let rows: Vec<Value> =
                        input["data"].as_array().expect("values").iter().step_by(2).cloned().collect();
                    assert_eq!(input["shape"][0], rows.len());
                    seen.lock().expect("whole").push(rows.len());
                    if let Some((status, message)) = judge(&rows) {
                        (status, json!({ "error": message }))
                    } else {
                        let output = json!({ "name": "a", "shape": [rows.len()], "data": rows });
                        (200, json!({ "model_version": "1", "outputs": [output] }))
                    }
                }
                _ => {
                    let parameters = json!({ "features": ["a", "b"] });
                    let input = json!({ "name": "x", "datatype": datatype, "shape": [-1, 2], "parameters": parameters });
                    (200, json!({ "inputs": [input] }))
                }
            };
            let died = json["error"].as_str().is_some_and(|why| why.starts_with("the worker died: "));
            let mut answer = Response::new(Full::new(Bytes::from(json.to_string())));
            if died {
                answer.headers_mut().insert(WORKER_DIED, HeaderValue::from_static("true"));
            }
            *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
            Ok::<_, Infallible>(answer)
        }
    });
    // Whoever asked may be gone.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Refuses requests with any of `rows`.
pub(in crate::scoring) fn refusing(
    rows: &'static [u64],
    status: u16,
    message: &'static str,
) -> impl Fn(&[Value]) -> Option<(u16, String)> + Send + Sync + 'static {
    move |asked| {
        let is_bad = |row: &Value| row.as_u64().is_some_and(|row| rows.contains(&row));
        asked.iter().any(is_bad).then(|| (status, message.to_owned()))
    }
}

fn rows(count: u64) -> Vec<Row> {
    (0..count).map(|row| Row { line: Some(row + 1), values: Ok(vec![json!(row), json!(0)]) }).collect()
}

/// The numbers of the rows that have no answer; all others have their own.
fn refused(verdicts: &[Verdict]) -> Vec<usize> {
    let mut refused = Vec::new();
    for (at, verdict) in verdicts.iter().enumerate() {
        match verdict {
            Ok(answer) => assert_eq!(answer.object()["a"], at),
            Err(_) => refused.push(at),
        }
    }
    refused
}

async fn answer(scorer: &mut Scorer, count: u64) -> Vec<Verdict> {
    let rows = rows(count);
    let answering = scorer.answer(&rows, true);
    let answered = tokio::time::timeout(Duration::from_secs(20), answering).await.expect("an end");
    answered.expect("answered")
}

#[tokio::test]
async fn the_rows_that_a_request_is_refused_for_are_found_and_the_others_are_answered() {
    for status in [400, 413, 500] {
        let double = Double::open("INT64", refusing(&[300, 301, 511], status, "an unknown category"));
        let mut scorer = double.hasty().await;
        let verdicts = answer(&mut scorer, 512).await;
        assert_eq!(refused(&verdicts), [300, 301, 511]);
        let expected = RowFault::Refused { status, message: "an unknown category".into() };
        assert_eq!(verdicts[300].as_ref().expect_err("refused"), &expected);
        let asked = double.asked();
        assert!(asked.len() <= 2 + 3 * 2 * 8, "{asked:?}");
    }
}

#[tokio::test]
async fn what_a_worker_died_of_is_not_asked_again_as_it_was() {
    let double = Double::open("INT64", refusing(&[300], 503, "the worker died: killed by signal 6"));
    let mut scorer = double.hasty().await;
    assert_eq!(refused(&answer(&mut scorer, 512).await), [300]);
    // One worker for the request, and one for the row.
    let asked = double.asked();
    assert_eq!(asked.iter().filter(|rows| **rows > 1).copied().collect::<Vec<_>>(), [256, 256]);
    assert_eq!(asked.len(), 2 + 256);
}

#[tokio::test]
async fn a_number_of_rows_that_killed_a_worker_is_not_asked_about_again() {
    let died =
        |rows: &[Value]| (rows.len() > 100).then(|| (503, "the worker died: memory limit reached".into()));
    let double = Double::open("INT64", died);
    let mut scorer = double.hasty().await;
    assert_eq!(refused(&answer(&mut scorer, 2000).await), [0_usize; 0]);
    let deadly: Vec<usize> = double.asked().into_iter().filter(|rows| *rows > 100).collect();
    assert_eq!(deadly, [256, 128]);
}

#[tokio::test]
async fn what_is_only_busy_is_asked_again() {
    let tries = Mutex::new(0);
    let double = Double::open("INT64", move |_| {
        let mut tries = tries.lock().expect("whole");
        *tries += 1;
        let message = "the worker died before it came to this request: memory limit reached";
        (*tries <= 2).then(|| (503, message.into()))
    });
    let mut scorer = double.scorer().await;
    assert_eq!(refused(&answer(&mut scorer, 1).await), [0_usize; 0]);
    assert_eq!(double.asked(), [1, 1, 1]);
}

#[tokio::test]
async fn rows_are_divided_by_their_bytes_and_one_that_is_too_large_stands_alone() {
    let double = Double::open("BYTES", |_| None);
    let mut scorer = double.hasty().await;
    let text = |length: usize| Row { line: None, values: Ok(vec![json!("x".repeat(length)), json!("")]) };
    let mut large: Vec<Row> = (0..8).map(|_| text(1 << 20)).collect();
    // Written with six characters for each.
    large.push(Row { line: None, values: Ok(vec![json!("\u{1}".repeat(2 << 20)), json!("")]) });
    let verdicts = scorer.answer(&large, true).await.expect("answered");
    assert_eq!(double.asked(), [3, 3, 2]);
    assert!(verdicts[..8].iter().all(Result::is_ok));
    let fault = verdicts[8].as_ref().expect_err("too large");
    assert!(matches!(fault, RowFault::Refused { status: 413, .. }), "{fault:?}");
}

#[tokio::test]
async fn nothing_is_asked_behind_a_row_that_is_refused_where_it_ends_all() {
    let double = Double::open("INT64", refusing(&[3], 400, "no"));
    let mut scorer = double.hasty().await;
    let verdicts = scorer.answer(&rows(200), false).await.expect("answered");
    assert_eq!((verdicts.len(), refused(&verdicts)), (4, vec![3]));
}

#[tokio::test]
async fn a_slow_model_is_asked_about_few_rows() {
    let double = Double::open("INT64", |rows| {
        // The model's own time, which nothing else tells the end of.
        std::thread::sleep(Duration::from_millis(20 * rows.len() as u64));
        None
    });
    let mut scorer = double.scorer().await;
    assert_eq!(refused(&answer(&mut scorer, 60).await), [0_usize; 0]);
    // Sixteen take more than a quarter of a second.
    let asked = double.asked();
    assert!(asked.iter().all(|rows| *rows <= 16), "{asked:?}");
}
