//! What the agent takes of a device: the size of its program, and the memory of supervisor and worker with one model
//! active, connected over mutual TLS; and what a device takes of the fleet server. Prints a table and fails when a goal is missed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod registered;

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serin_tests::device::Device;
use serin_tests::goals::conclude;
use serin_tests::lab::{Broker, Lab};
use serin_tests::memory::{Memory, of_process};
use serin_tests::process::program;
use serin_tests::traffic::{Traffic, rows};

/// Devices measured, one after the other; the median counts.
const RUNS: usize = 3;
/// Requests that warm a device up.
const WARM_UP: usize = 200;
/// After warming up, until the agent has given back what starting and its first reports took.
const SETTLING: Duration = Duration::from_secs(30);
/// Samples of a process, one a second, for the minute in which one report falls; the median counts.
const SAMPLES: usize = 60;
/// Of the supervisor while nobody asks, as the memory of others is given; in bytes.
const SUPERVISOR_GOAL: u64 = 6 << 20;
/// Of the program, in bytes.
const PROGRAM_GOAL: u64 = 12_000_000;
/// Of the fleet server's memory for each device, in bytes.
const PER_DEVICE_GOAL: f64 = 2048.0;
/// Between two requests of the device with traffic.
const PAUSE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    conclude(measure())
}

/// Prints the table, and answers the goals that are missed.
fn measure() -> Result<Vec<String>> {
    let agent = std::fs::metadata(program("serin-agent")?)?.len();
    let server = std::fs::metadata(program("serin-fleet")?)?.len();
    let mut lab = Lab::secure(Broker::Embedded)?;
    lab.add_device("device-1", "")?;
    lab.first_release()?;
    let (mut idle, mut busy) = (Runs::default(), Runs::default());
    for run in 1..=RUNS {
        eprintln!("run {run} of {RUNS}: {SAMPLES} s idle, as long with a request every {PAUSE:?}");
        let device = lab.devices.first_mut().context("no device")?;
        device.stop();
        device.report_seldom()?;
        device.power_on()?;
        let rows = rows()?;
        for row in rows.iter().cycle().take(WARM_UP) {
            serin_tests::until("the model answers", serin_tests::lab::PATIENCE, || {
                device.infer(std::slice::from_ref(row)).ok()
            })?;
        }
        std::thread::sleep(SETTLING);
        idle.take(device)?;
        let traffic = Traffic::start(&[device.gateway], PAUSE)?;
        busy.take(device)?;
        drop(traffic);
    }
    let mut table = String::new();
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    writeln!(table, "| what | result | goal |\n|---|---|---|")?;
    writeln!(
        table,
        "| stripped `serin-agent` | {:.1} MB | ≤ {} MB |",
        megabytes(agent),
        megabytes(PROGRAM_GOAL)
    )?;
    writeln!(table, "| stripped `serin-fleet` | {:.1} MB | — |", megabytes(server))?;
    let goal = format!("≤ {:.0} MiB", mebibytes(SUPERVISOR_GOAL));
    for (what, processes, goal) in [
        ("supervisor, idle", &idle.supervisor, goal.as_str()),
        ("supervisor, 10 requests a second", &busy.supervisor, "—"),
        ("worker of the digits, idle", &idle.worker, "—"),
        ("worker of the digits, 10 requests a second", &busy.worker, "—"),
    ] {
        let memory = median(processes);
        let (whole, written) = (mebibytes(memory.proportional), mebibytes(memory.written));
        writeln!(table, "| {what} | {whole:.1} MiB PSS, {written:.1} of it private and written | {goal} |")?;
    }
    eprintln!("registering thousands of devices");
    let per_device = registered::measure()?;
    let goal = PER_DEVICE_GOAL;
    writeln!(
        table,
        "| fleet server, for each device registered | {per_device:.0} bytes, private and written | ≤ {goal:.0} |"
    )?;
    println!("{table}");
    let mut missed = Vec::new();
    if per_device > PER_DEVICE_GOAL {
        missed.push(format!("{per_device:.0} bytes of the server's memory for each device"));
    }
    let supervisor = median(&idle.supervisor).proportional;
    if supervisor > SUPERVISOR_GOAL {
        missed.push(format!("supervisor: {:.1} MiB", mebibytes(supervisor)));
    }
    if agent > PROGRAM_GOAL {
        missed.push(format!("program: {:.1} MB", megabytes(agent)));
    }
    Ok(missed)
}

/// Samples of all runs.
#[derive(Default)]
struct Runs {
    supervisor: Vec<Memory>,
    worker: Vec<Memory>,
}

impl Runs {
    /// Watches a device for a minute.
    fn take(&mut self, device: &Device) -> Result<()> {
        let supervisor = device.id().context("it does not run")?;
        let worker = device.status()?["active"]["worker"]["pid"].as_u64().context("no worker")?;
        for _ in 0..SAMPLES {
            std::thread::sleep(Duration::from_secs(1));
            self.supervisor.push(of_process(supervisor)?);
            self.worker.push(of_process(u32::try_from(worker)?)?);
        }
        Ok(())
    }
}

/// The sample in the middle by its share.
fn median(samples: &[Memory]) -> Memory {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by_key(|memory| memory.proportional);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
