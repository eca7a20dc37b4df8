//! The device's own proof of a release before it answers: what its owner computed, again and again under the memory that
//! was signed, as a model can pass its first run under a limit and fail a later one.

use std::time::{Duration, Instant};

use serin_protocol::golden::Golden;
use serin_protocol::manifest::Manifest;

use super::golden::{GoldenFault, GoldenReport, golden_batches, golden_proof};
use super::process::Worker;

/// Rounds of all golden vectors that a memory limit must survive.
pub(super) const ROUNDS: usize = 20;

/// After so long no further round is begun: memory grows in the first ones, and a slow device has other things to do.
const PATIENCE: Duration = Duration::from_secs(10);

/// Proves `golden` by `worker`, in up to [`ROUNDS`] rounds. Answers what the first showed, and how many there were.
pub(crate) async fn requalify(
    worker: &Worker,
    golden: &Golden,
    manifest: &Manifest,
) -> Result<(GoldenReport, usize), GoldenFault> {
    let began = Instant::now();
    let mut report = golden_proof(worker, golden, manifest).await?;
    let mut rounds = 1;
    while rounds < ROUNDS && began.elapsed() < PATIENCE {
        report.worst = report.worst.max(golden_batches(worker, golden, manifest).await?);
        rounds += 1;
    }
    Ok((report, rounds))
}
