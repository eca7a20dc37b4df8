//! What the gateway costs beside the worker alone, and what it carries beside MLServer with onnxruntime: the same
//! model, the same rows, the same client, in one run. Prints tables and fails when a goal is missed.
//!
//! Then what real models take to load and run, beside onnxruntime; `MODELS=1` measures only that.
//!
//! `SECONDS` sets how long each line of throughput is measured (5).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod front;
mod http;
mod models;
mod passing;
mod report;
mod rig;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serin_tests::goals::conclude;
use serin_tests::memory::of_process;
use serin_tests::mlserver::MlServer;
use serin_tests::process::program;
use serin_tests::samples::Samples;

use crate::http::{Connection, Question};
use crate::passing::Passing;
use crate::report::{Latency, Report, Throughput};
use crate::rig::{Form, Rig};

/// Requests whose time is taken, per line.
const REQUESTS: usize = 3000;
/// Requests before that, until caches and branch predictors know the way.
const WARM_UP: usize = 300;
/// Connections that ask without a pause.
const CONNECTIONS: usize = 8;
/// Rows of a request: one as apps ask, and so many that the model computes for a millisecond.
const ROWS: [usize; 2] = [1, 256];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let passed = match arguments.get(1).map(String::as_str) {
        Some(passing::FRONT) => Some(passing::front(&arguments)),
        Some(passing::BACK) => Some(passing::back(&arguments)),
        Some(front::FRONT) => Some(front::run(&arguments)),
        _ => None,
    };
    if let Some(passed) = passed {
        return if passed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    conclude(measure_all())
}

/// Prints the tables, and answers the goals that are missed.
fn measure_all() -> Result<Vec<String>> {
    let mut missed = Vec::new();
    if std::env::var_os("MODELS").is_none() {
        let report = measure()?;
        println!("{report}");
        missed.extend(report.missed());
    }
    let target = build_folder()?;
    let models = models::measure(&target.join("python/bin/python"), &target.join("models"))?;
    println!("{models}");
    missed.extend(models.missed());
    Ok(missed)
}

/// Where everything is built, and the scripts' environments lie.
fn build_folder() -> Result<PathBuf> {
    let agent = program("serin-agent")?;
    Ok(agent.parent().and_then(Path::parent).context("no build folder")?.to_path_buf())
}

fn measure() -> Result<Report> {
    let seconds = match std::env::var("SECONDS") {
        Ok(text) => text.parse().with_context(|| format!("SECONDS={text} is no number"))?,
        Err(_) => 5,
    };
    let span = Duration::from_secs(seconds);
    eprintln!("setting up a device with one version, then taking its server away");
    let rig = Rig::new()?;
    let mut report = Report::default();
    for rows in ROWS {
        eprintln!("latency of {rows} rows");
        let bare = rig.bare(rows, WARM_UP, REQUESTS)?;
        for form in [Form::Json, Form::Raw] {
            let question = rig.question(form, rows)?;
            let (whole, answer) = latency(&question)?;
            let passing = Passing::start(&question, answer, bare.quantile(50))?;
            let limit = passing.median(WARM_UP, REQUESTS)?;
            report.latencies.push(Latency { rows, form, bare: bare.clone(), whole, limit });
        }
    }
    for form in [Form::Json, Form::Raw] {
        eprintln!("Serin, {form}, {CONNECTIONS} connections");
        let rate = throughput(&rig.question(form, 1)?, span)?;
        report.throughputs.push(Throughput { who: "Serin", form, rate });
    }
    report.memory = rig.resident()?;

    let folder = tempfile::tempdir()?;
    let peer = MlServer::start(folder.path(), "1.0.0")?;
    let address = peer.url.trim_start_matches("http://").to_owned();
    let question = Question { address, ..rig.question(Form::Json, 1)? };
    eprintln!("MLServer, one connection, then {CONNECTIONS}");
    (report.peer_latency, _) = latency(&question)?;
    let rate = throughput(&question, span)?;
    report.throughputs.push(Throughput { who: "MLServer", form: Form::Json, rate });
    report.peer_memory = of_process(peer.id())?.proportional;
    Ok(report)
}

/// Times of many requests, and the bytes of an answer.
fn latency(question: &Question) -> Result<(Samples, usize)> {
    let mut connection = Connection::open(question)?;
    for _ in 0..WARM_UP {
        connection.ask()?;
    }
    let mut samples = Samples::default();
    for _ in 0..REQUESTS {
        samples.push(connection.ask()?);
    }
    Ok((samples, connection.answer_bytes()))
}

/// Answers a second.
fn throughput(question: &Question, span: Duration) -> Result<f64> {
    let started = Instant::now();
    let ask = |question: Question| {
        move || -> Result<u64> {
            let mut connection = Connection::open(&question)?;
            let mut answers = 0;
            while started.elapsed() < span {
                connection.ask()?;
                answers += 1;
            }
            Ok(answers)
        }
    };
    let threads: Vec<_> = (0..CONNECTIONS).map(|_| std::thread::spawn(ask(question.clone()))).collect();
    let mut answers = 0;
    for thread in threads {
        answers += thread.join().ok().context("a client panicked")??;
    }
    Ok(answers as f64 / started.elapsed().as_secs_f64())
}
