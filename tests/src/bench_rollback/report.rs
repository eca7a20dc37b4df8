//! What came out, as the table in `BENCHMARKS.md`, and whether it is good enough.

use std::fmt;
use std::time::Duration;

use crate::apps::Load;
use crate::rig::Previous;
use serin_tests::samples::Samples;

/// The 99th percentile of a rollback with a warm worker under load may be this long.
const GOAL: Duration = Duration::from_millis(20);

/// One situation.
#[derive(Debug)]
pub(crate) struct Line {
    previous: Previous,
    load: Load,
    /// From the engineer's command to the first answer of the previous version.
    pub(crate) rollbacks: Samples,
    /// From the command to the agent's reply to it.
    pub(crate) replies: Samples,
    pub(crate) failed_rollbacks: u64,
    /// From the death of the active worker to the first answer to a request that began after it.
    pub(crate) restarts: Samples,
    pub(crate) failed_restarts: u64,
    /// Write and fdatasync.
    pub(crate) writes: Samples,
    /// `serin-agent rollback`, from start to end.
    pub(crate) processes: Samples,
    /// Requests that apps made all the while.
    pub(crate) answered: u64,
    /// Why a request failed.
    pub(crate) failure: Option<String>,
}

impl Line {
    pub(crate) fn new(previous: Previous, load: Load) -> Self {
        Self {
            previous,
            load,
            rollbacks: Samples::default(),
            replies: Samples::default(),
            failed_rollbacks: 0,
            restarts: Samples::default(),
            failed_restarts: 0,
            writes: Samples::default(),
            processes: Samples::default(),
            answered: 0,
            failure: None,
        }
    }

    fn is_goal(&self) -> bool {
        self.previous == Previous::Warm && self.load != Load::Idle
    }
}

/// MLServer in one situation.
#[derive(Debug)]
pub(crate) struct PeerLine {
    pub(crate) load: Load,
    /// From the request to load the other version to its first answer.
    pub(crate) reloads: Samples,
    pub(crate) failed: u64,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) lines: Vec<Line>,
    pub(crate) peers: Vec<PeerLine>,
}

impl Report {
    /// Whether the goal is met and no request failed because of a rollback.
    pub(crate) fn is_good(&self) -> bool {
        let met = |line: &Line| !line.is_goal() || line.rollbacks.quantile(99) <= GOAL;
        self.lines.iter().all(|line| line.failed_rollbacks == 0 && met(line))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "p50 / p99 in ms, failed requests in brackets; ratios of medians\n")?;
        writeln!(
            f,
            "| previous worker | load | rollbacks | command to first answer | command to reply | restart of the \
             worker | write + fdatasync | restart ÷ rollback | rollback ÷ write |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|")?;
        for line in &self.lines {
            let Line { previous, load, rollbacks, replies, restarts, writes, .. } = line;
            let (failed, failed_restarts) = (line.failed_rollbacks, line.failed_restarts);
            writeln!(
                f,
                "| {previous} | {load} | {} | {rollbacks} ({failed}) | {replies} | {restarts} ({failed_restarts}) | \
                 {writes} | {:.1} | {:.1} |",
                rollbacks.count(),
                restarts.times(rollbacks),
                rollbacks.times(writes),
            )?;
        }
        writeln!(f)?;
        for Line { previous, load, processes, answered, failure, .. } in &self.lines {
            if processes.count() > 0 {
                let count = processes.count();
                writeln!(
                    f,
                    "{previous}, {load}: {processes} for the whole `serin-agent rollback` ({count})"
                )?;
            }
            if *answered > 0 {
                writeln!(f, "{previous}, {load}: apps made {answered} requests")?;
            }
            if let Some(failure) = failure {
                writeln!(f, "{previous}, {load}: what a rollback failed last: {failure}")?;
            }
        }
        for PeerLine { load, reloads, failed } in &self.peers {
            let count = reloads.count();
            writeln!(f, "MLServer, reload, {load}: {reloads} ({failed} failed; {count} reloads)")?;
        }
        let verdict = if self.is_good() { "met" } else { "MISSED" };
        write!(f, "goal {verdict}: warm under load p99 at most {} ms, no failed request", GOAL.as_millis())
    }
}
