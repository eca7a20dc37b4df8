//! The second half of `make simulate`: whole fleets of real update machines on virtual disks and a virtual
//! network, led by the real engine. Fails when one does not end as it must.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod fleet;
mod node;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;
use serin_tests::sim::broker::Broker;
use serin_tests::sim::publisher::{Published, repository};

use self::fleet::Fleet;

/// Failures that are shown.
const SHOWN: usize = 20;

/// Plays three rollouts over each of some fleets.
#[derive(Parser)]
struct Arguments {
    /// How many fleets.
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    /// The seed of the first.
    #[arg(long, default_value_t = 1)]
    from: u64,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let seeds: Vec<u64> = (arguments.from..arguments.from.saturating_add(arguments.seeds)).collect();
    let folder = tempfile::tempdir()?;
    let pack = |model: &str| Published::pack(model, folder.path());
    let releases = [pack("digits/v1")?, pack("digits/v2")?, pack("digits/v3")?];
    let broker = Broker::new(repository(&releases), &releases);
    let started = Instant::now();
    let bar = ProgressBar::new(seeds.len() as u64)
        .with_style(ProgressStyle::with_template("{pos}/{len} fleets {wide_bar} {eta}")?);
    let played = seeds.into_par_iter().map(|seed| {
        let played = Fleet::new(seed, &releases, &broker).and_then(|mut fleet| {
            fleet.play()?;
            Ok(fleet.handled)
        });
        bar.inc(1);
        played.map_err(|error| format!("seed {seed}: {error:#}"))
    });
    let played: Vec<_> = played.collect();
    bar.finish_and_clear();
    let events: usize = played.iter().filter_map(|played| played.as_ref().ok()).sum();
    let fleets = played.len();
    let failed: Vec<String> = played.into_iter().filter_map(Result::err).collect();
    println!(
        "{fleets} fleets of real update machines, three rollouts each on failing disks and links: {} ended as they must, \
         {events} events, {:.0} s",
        fleets - failed.len(),
        started.elapsed().as_secs_f64()
    );
    for failure in failed.iter().take(SHOWN) {
        println!("FAILED {failure}");
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
