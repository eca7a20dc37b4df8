//! How a benchmark ends: with what it missed, as its last line and its exit code.

use std::process::ExitCode;

use anyhow::Result;

/// Says which goals were missed, if any.
pub fn conclude(missed: Result<Vec<String>>) -> ExitCode {
    match missed {
        Ok(missed) if missed.is_empty() => {
            println!("goals met");
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
