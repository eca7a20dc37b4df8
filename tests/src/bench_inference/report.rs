//! What came out, as the tables in `BENCHMARKS.md`, and whether it is good enough.

use std::fmt;
use std::time::Duration;

use serin_tests::samples::Samples;

use crate::rig::Form;

/// A model that computes for less than this may be delayed by [`SMALL_GOAL`], one that computes longer by
/// [`LARGE_GOAL`] of its time.
const LARGE: Duration = Duration::from_millis(1);
/// See [`LARGE`].
const SMALL_GOAL: Duration = Duration::from_micros(50);
/// See [`LARGE`].
const LARGE_GOAL: f64 = 0.05;
/// Requests a second, as a multiple of the peer's.
const RATE_GOAL: f64 = 5.0;

/// One connection.
#[derive(Debug)]
pub(crate) struct Latency {
    pub(crate) rows: usize,
    pub(crate) form: Form,
    /// In pipeline and model.
    pub(crate) bare: Samples,
    /// From request to answer.
    pub(crate) whole: Samples,
    /// Of two processes that pass as many bytes on and do nothing else.
    pub(crate) limit: Duration,
}

impl Latency {
    fn added(&self) -> Duration {
        self.whole.quantile(50).saturating_sub(self.bare.quantile(50))
    }

    fn is_good(&self) -> bool {
        self.added() <= allowed(self.bare.quantile(50))
    }
}

/// What the gateway may add to a model that computes so long.
pub(crate) fn allowed(computes: Duration) -> Duration {
    if computes < LARGE { SMALL_GOAL } else { computes.mul_f64(LARGE_GOAL) }
}

/// Many connections.
#[derive(Debug)]
pub(crate) struct Throughput {
    pub(crate) who: &'static str,
    pub(crate) form: Form,
    /// Answers a second.
    pub(crate) rate: f64,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) latencies: Vec<Latency>,
    pub(crate) throughputs: Vec<Throughput>,
    pub(crate) peer_latency: Samples,
    /// Bytes of agent and worker.
    pub(crate) memory: (u64, u64),
    pub(crate) peer_memory: u64,
}

impl Report {
    fn peer_rate(&self) -> f64 {
        self.throughputs.iter().find(|line| line.who != "Serin").map_or(f64::NAN, |line| line.rate)
    }

    /// Goals that are missed, in words.
    pub(crate) fn missed(&self) -> Vec<String> {
        let slow = self.latencies.iter().filter(|line| line.form == Form::Raw && !line.is_good());
        let mut missed: Vec<String> = slow
            .map(|line| format!("{} rows, {}: the gateway adds {:?}", line.rows, line.form, line.added()))
            .collect();
        let peer = self.peer_rate();
        let json = self.throughputs.iter().find(|line| line.who == "Serin" && line.form == Form::Json);
        // Not a number is no goal met.
        if !json.is_some_and(|line| line.rate >= RATE_GOAL * peer) {
            missed.push(format!("fewer than {RATE_GOAL} times the peer's requests a second"));
        }
        missed
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "one connection, p50 / p99 in ms\n")?;
        writeln!(
            f,
            "| rows | tensors | pipeline and model | whole request | added, median | of it for passing the bytes on | whole ÷ model |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        for line in &self.latencies {
            let Latency { rows, form, bare, whole, limit } = line;
            let (added, times) = (line.added().as_micros(), whole.times(bare));
            let limit = limit.as_micros();
            writeln!(f, "| {rows} | {form} | {bare} | {whole} | {added} µs | {limit} µs | {times:.2} |")?;
        }
        writeln!(f, "\nMLServer, 1 row, JSON: {}\n", self.peer_latency)?;
        writeln!(f, "| 8 connections | tensors | answers/s | ÷ MLServer |")?;
        writeln!(f, "|---|---|---|---|")?;
        for Throughput { who, form, rate } in &self.throughputs {
            writeln!(f, "| {who} | {form} | {rate:.0} | {:.1} |", rate / self.peer_rate())?;
        }
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (agent, worker) = self.memory;
        writeln!(
            f,
            "\nPSS: agent {:.1} MiB, worker {:.1} MiB; MLServer {:.1} MiB, {:.1} times both",
            mebibytes(agent),
            mebibytes(worker),
            mebibytes(self.peer_memory),
            self.peer_memory as f64 / (agent + worker) as f64,
        )?;
        Ok(())
    }
}
