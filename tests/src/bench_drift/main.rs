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

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let done = match arguments.get(1).map(String::as_str) {
        Some(subscriber::COMMAND) => subscriber::count(&arguments).map(|()| Vec::new()),
        _ => measure(),
    };
    match done {
        Ok(missed) if missed.is_empty() => {
            if arguments.len() == 1 {
                println!("goals met");
            }
            ExitCode::SUCCESS
        }
        Ok(missed) => {
            println!("goals MISSED: {}", missed.join("; "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("the benchmark failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the tables, and answers the goals that are missed.
fn measure() -> Result<Vec<String>> {
    let mut missed = sketches::measure()?;
    missed.extend(ingest::measure()?);
    missed.extend(detection::measure()?);
    Ok(missed)
}
