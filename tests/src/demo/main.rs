//! The demonstration: a server, 12 devices, real rows; a first release, a good one by canary, a bad one
//! that its gate takes back, and a field engineer's rollback without a network. Every step is checked;
//! with `DEMO_EXIT=1` the program ends by itself, successfully only if every step happened.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod story;
mod watch;

use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let started = Instant::now();
    match story::tell(started) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nthe demonstration failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
