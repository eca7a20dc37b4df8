//! Apps on the device that ask its gateway, each over one connection that it keeps, and notice the first
//! answer that shows what is waited for.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serin_tests::lab::PATIENCE;
use serin_tests::traffic::rows;
use serin_tests::until;

/// Longest that a single answer may take; a worker's own deadline is below it.
const ANSWER: Duration = Duration::from_secs(10);

/// What else is asked meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// Nothing.
    Idle,
    /// This many apps ask, the next row as soon as there is an answer.
    Connections(usize),
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("idle"),
            Self::Connections(count) => write!(f, "{count} connections"),
        }
    }
}

/// What an answer must show.
#[derive(Clone, Debug)]
pub(crate) enum Sign {
    /// It is of this version.
    Version(String),
    /// It was asked for after this moment.
    AskedAfter(Instant),
}

impl Sign {
    fn is_in(&self, answer: &Answer) -> bool {
        match self {
            Self::Version(version) => *version == answer.version,
            Self::AskedAfter(moment) => answer.asked > *moment,
        }
    }
}

struct Answer {
    asked: Instant,
    came: Instant,
    version: String,
}

/// One connection to a server that speaks the Open Inference Protocol.
struct Connection {
    agent: ureq::Agent,
    url: String,
    body: Arc<str>,
}

impl Connection {
    fn new(url: &str, body: &Arc<str>) -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(ANSWER));
        Self { agent: config.build().into(), url: url.into(), body: Arc::clone(body) }
    }

    fn ask(&self) -> Result<Answer> {
        let asked = Instant::now();
        let request = self.agent.post(&self.url).header("content-type", "application/json");
        // The reason of a refusal is in its body.
        let request = request.config().http_status_as_error(false).build();
        let mut response = request.send(&*self.body)?;
        let text = response.body_mut().read_to_string()?;
        let came = Instant::now();
        ensure!(response.status().is_success(), "{}: {text}", response.status());
        let value: serde_json::Value = serde_json::from_str(&text)?;
        let version = value["model_version"].as_str().context("no version")?.to_owned();
        Ok(Answer { asked, came, version })
    }
}

/// The apps.
pub(crate) struct Apps {
    shared: Arc<Shared>,
    /// Asks while nobody else does.
    own: Connection,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    failed: AtomicU64,
    /// Requests that came to an end, one way or another, per connection.
    ended: Vec<AtomicU64>,
    watch: Mutex<Watch>,
    seen: Condvar,
}

#[derive(Default)]
struct Watch {
    sign: Option<Sign>,
    first: Option<Instant>,
    /// Why a request failed last.
    failure: Option<String>,
}

impl Apps {
    /// Apps that ask `url` about one row of 64 pixels.
    pub(crate) fn start(url: &str, load: Load) -> Result<Self> {
        let row = rows()?.swap_remove(0);
        let body = serde_json::json!({"inputs": [{
            "name": "pixels", "datatype": "FP32", "shape": [1, 64], "data": row,
        }]});
        let body: Arc<str> = body.to_string().into();
        let count = match load {
            Load::Idle => 0,
            Load::Connections(count) => count,
        };
        let ended = (0..count).map(|_| AtomicU64::new(0)).collect();
        let shared = Arc::new(Shared { ended, ..Shared::default() });
        let spawn = |lane| {
            let (shared, connection) = (Arc::clone(&shared), Connection::new(url, &body));
            std::thread::spawn(move || shared.ask_on(lane, &connection))
        };
        let threads = (0..count).map(spawn).collect();
        let apps = Self { shared, own: Connection::new(url, &body), threads };
        apps.settle()?;
        Ok(apps)
    }

    /// From now on, the first answer with this sign is waited for.
    pub(crate) fn expect(&self, sign: Sign) {
        let mut watch = self.shared.watch();
        (watch.sign, watch.first) = (Some(sign), None);
    }

    /// When the first answer with the sign had come. While idle, this asks.
    pub(crate) fn first_answer(&self) -> Result<Instant> {
        let started = Instant::now();
        loop {
            if self.threads.is_empty() {
                self.shared.take(self.own.ask());
            }
            let watch = self.shared.watch();
            // Woken by the answer; while idle there is nothing to sleep for.
            let pause = if self.threads.is_empty() { Duration::ZERO } else { PATIENCE };
            let unseen = |watch: &mut Watch| watch.first.is_none();
            let watch = self.shared.seen.wait_timeout_while(watch, pause, unseen);
            let (watch, _) = watch.unwrap_or_else(PoisonError::into_inner);
            if let Some(first) = watch.first {
                return Ok(first);
            }
            let (sign, failure) = (&watch.sign, &watch.failure);
            ensure!(started.elapsed() < PATIENCE, "no answer with {sign:?}; last failure: {failure:?}");
        }
    }

    /// Waits until every app is through with what it had asked, and once more.
    pub(crate) fn settle(&self) -> Result<()> {
        let counts = || self.shared.ended.iter().map(|count| count.load(Ordering::Relaxed));
        let wanted: Vec<u64> = counts().map(|count| count + 2).collect();
        until("every app was answered", PATIENCE, || {
            counts().zip(&wanted).all(|(count, wanted)| count >= *wanted).then_some(())
        })
    }

    /// Requests that failed so far.
    pub(crate) fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Why a request failed last.
    pub(crate) fn last_failure(&self) -> Option<String> {
        self.shared.watch().failure.clone()
    }

    /// Requests that came to an end so far.
    pub(crate) fn ended(&self) -> u64 {
        self.shared.ended.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

impl Drop for Apps {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn ask_on(&self, lane: usize, connection: &Connection) {
        while !self.stop.load(Ordering::Relaxed) {
            self.take(connection.ask());
            if let Some(count) = self.ended.get(lane) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn take(&self, answer: Result<Answer>) {
        match answer {
            Ok(answer) => {
                let mut watch = self.watch();
                if watch.first.is_none() && watch.sign.as_ref().is_some_and(|sign| sign.is_in(&answer)) {
                    watch.first = Some(answer.came);
                    self.seen.notify_all();
                }
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                self.watch().failure = Some(format!("{error:#}"));
            }
        }
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
