//! What the sketches of a device cost beside those of datasketches and whylogs on the same rows, what the server makes of
//! reports beside a subscriber that only counts them, and how soon drift is found in data known to drift. Prints tables
//! and fails when a goal is missed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod detection;
mod ingest;
mod sketches;
mod subscriber;

use std::process::ExitCode;

use anyhow::Result;
use serin_tests::goals::conclude;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|command| command == subscriber::COMMAND) {
        return if subscriber::count(&arguments).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    conclude(measure())
}

/// Prints the tables, and answers the goals that are missed.
fn measure() -> Result<Vec<String>> {
    let mut missed = sketches::measure()?;
    missed.extend(ingest::measure()?);
    missed.extend(detection::measure()?);
    Ok(missed)
}
