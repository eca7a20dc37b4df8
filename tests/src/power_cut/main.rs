//! `make power-cut`: prints the matrix of update paths, operations and what can happen at them, and fails
//! unless every cell was survived.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serin_tests::kill_loop;
use serin_tests::power_cut::matrix::Mishap;
use serin_tests::power_cut::paths::{Path, Stock};
use serin_tests::power_cut::{Row, row};

/// Cuts the power at every operation of every update path.
#[derive(Parser)]
struct Arguments {
    /// Only paths whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Kills of real agents during real rollouts, after the matrix.
    #[arg(long, default_value_t = 30)]
    kills: u32,
    /// Where the moments of these kills come from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Failed cells that are shown of each path.
    #[arg(long, default_value_t = 10)]
    show: usize,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let wanted = |path: &Path| arguments.only.as_ref().is_none_or(|only| path.name().contains(only));
    let folder = tempfile::tempdir()?;
    println!("packing three releases and running each in a real worker …");
    let stock = Stock::pack(folder.path())?;
    let mut rows = Vec::new();
    for path in Path::ALL.into_iter().filter(wanted) {
        let style = ProgressStyle::with_template("{prefix:20} {pos} cells {elapsed}")?;
        let bar = ProgressBar::new_spinner().with_style(style).with_prefix(path.name());
        rows.push(row(path, &stock, 1, || bar.inc(1))?);
        bar.finish_and_clear();
    }
    print(&rows);
    for failure in rows.iter().flat_map(|row| row.failures.iter().take(arguments.show)) {
        println!("  {failure}");
    }
    let cells: usize = rows.iter().flat_map(|row| &row.tallies).map(|tally| tally.cells).sum();
    let failed: usize = rows.iter().map(|row| row.failures.len()).sum();
    if arguments.kills > 0 {
        kill(arguments.kills, arguments.seed)?;
    }
    println!("power-cut: {} of {cells} cells survived, {} kills", cells - failed, arguments.kills);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Kills real agents; an error is one that did not come back as it must.
fn kill(kills: u32, seed: u64) -> Result<()> {
    let style = ProgressStyle::with_template("{prefix:20} {msg} {elapsed}")?;
    let bar = ProgressBar::new_spinner().with_style(style).with_prefix("kill -9");
    let report = kill_loop::run(kills, seed, &mut |line| bar.set_message(line.to_owned()))?;
    bar.finish_and_clear();
    println!("{kills} kills of real agents, by the phase they were in: {:?}", report.kills);
    println!(
        "ends of their rollouts: {:?}; slowest to answer again: {:.1?}",
        report.outcomes, report.slowest
    );
    Ok(())
}

/// One line a path: its operations, and for each mishap how many cells were survived of how many.
fn print(rows: &[Row]) {
    print!("{:20} {:>6} {:>7}", "path", "ops", "changes");
    Mishap::ALL.iter().for_each(|mishap| print!(" {:>14}", mishap.name()));
    println!();
    for row in rows {
        print!("{:20} {:>6} {:>7}", row.path.name(), row.operations, row.changes);
        for tally in &row.tallies {
            print!(" {:>14}", format!("{}/{}", tally.survived(), tally.cells));
        }
        println!();
    }
    let total = |count: fn(&serin_tests::power_cut::Tally) -> usize| -> usize {
        rows.iter().flat_map(|row| &row.tallies).map(count).sum()
    };
    println!(
        "of all: {} updates completed after all, {} were rejected with a reason",
        total(|tally| tally.completed),
        total(|tally| tally.rejected)
    );
}
