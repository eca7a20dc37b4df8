//! How long a device takes to go back: from the field engineer's command to the first answer of the previous
//! version, with its worker warm or cold, with and without other traffic; beside it, in the same rounds, a
//! restart of the active worker, and one write and fdatasync of a file of the boot record's size, faster than
//! which nothing durable can be. Prints a table and fails when the goal is missed.
//!
//! `ROUNDS` sets how often it goes back per line with a warm worker (120; a third of it with a cold one);
//! `PEER=1` measures MLServer too, if it is installed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod apps;
mod peer;
mod report;
mod rig;
mod rounds;

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::apps::Load;
use crate::report::Report;
use crate::rig::{Previous, Rig};

/// Enough for a 99th percentile that is not the worst of all.
const ROUNDS: u32 = 120;
/// A line with a cold worker has this part of the rounds: each costs a start, and goes slower.
const COLD_PART: u32 = 3;
/// Connections of apps that ask without a pause.
const CONNECTIONS: usize = 8;
/// Rollbacks by the whole program, per line with a warm worker.
const PROCESSES: u32 = 30;

fn main() -> ExitCode {
    match measure() {
        Ok(report) => {
            println!("{report}");
            if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("the benchmark failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<Report> {
    let rounds = match std::env::var("ROUNDS") {
        Ok(text) => text.parse().with_context(|| format!("ROUNDS={text} is no number"))?,
        Err(_) => ROUNDS,
    };
    eprintln!("setting up a device with two versions, then taking its server away");
    let mut rig = Rig::new()?;
    let mut report = Report::default();
    for (previous, rounds) in [(Previous::Warm, rounds), (Previous::Cold, rounds.div_ceil(COLD_PART))] {
        rig.prepare(previous)?;
        for load in [Load::Idle, Load::Connections(CONNECTIONS)] {
            eprintln!("previous worker {previous}, {load}: {rounds} rounds");
            let mut line = rounds::measure(&mut rig, load, rounds)?;
            if previous == Previous::Warm {
                rounds::measure_processes(&mut rig, load, PROCESSES, &mut line)?;
            }
            report.lines.push(line);
        }
    }
    if std::env::var_os("PEER").is_some() {
        for load in [Load::Idle, Load::Connections(CONNECTIONS)] {
            eprintln!("MLServer, {load}");
            report.peers.push(peer::measure(load, rounds.div_ceil(COLD_PART))?);
        }
    }
    Ok(report)
}
