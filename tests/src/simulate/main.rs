//! `make simulate`: plays rollouts over generated fleets, by the real engine, and fails when an invariant or a
//! promise is broken. A seed makes one rollout, always the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod draw;
mod judges;
mod report;
mod run;
mod world;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;

use self::judges::Judge;
use self::report::Outcome;
use self::run::{Driver, Run};
use self::world::{Harm, Setting};

/// Every so many seeds other judges watch the same streams too.
const JUDGED: u64 = 4;

/// Failures that are shown.
const SHOWN: usize = 20;

/// Plays rollouts over generated fleets.
#[derive(Parser)]
struct Arguments {
    /// How many.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Only this one, told step by step.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        return tell(seed);
    }
    let started = Instant::now();
    let seeds: Vec<u64> = (arguments.from..arguments.from.saturating_add(arguments.seeds)).collect();
    let style = ProgressStyle::with_template("{pos}/{len} rollouts {wide_bar} {eta}")?;
    let bar = ProgressBar::new(seeds.len() as u64).with_style(style);
    // In the order of their seeds, whichever core plays which.
    let played = seeds.into_par_iter().map(|seed| {
        let outcome = play(seed);
        bar.inc(1);
        outcome
    });
    let outcomes: Vec<_> = played.collect();
    bar.finish_and_clear();
    let events: usize =
        outcomes.iter().filter_map(|outcome| outcome.ran.as_ref().ok()).map(|ran| ran.events).sum();
    println!("{} rollouts, {events} events, {:.0} s", outcomes.len(), started.elapsed().as_secs_f64());
    let missed = report::report(&outcomes);
    for miss in missed.iter().take(SHOWN) {
        println!("MISSED {miss}");
    }
    if missed.is_empty() {
        println!("\nevery invariant held and every promise was kept");
        return Ok(ExitCode::SUCCESS);
    }
    println!("\n{} missed; `simulate --seed N` tells one seed's story", missed.len());
    Ok(ExitCode::FAILURE)
}

fn play(seed: u64) -> Outcome {
    let setting = Setting::of(seed);
    let engine = Run::new(seed, Driver::Engine, watched(seed), &mut |_, _| ()).and_then(Run::play);
    let judged = watched(seed).then(|| {
        let (_, stages) = Run::new(seed, Driver::Clock, true, &mut |_, _| ()).and_then(Run::play)?;
        let compared: Vec<_> = stages.iter().take(2).map(|(_, points)| points).collect();
        anyhow::Ok(Judge::ALL.map(|judge| (judge, judge.stops(&compared))))
    });
    let (judged, failed) = match judged.transpose() {
        Ok(judged) => (judged.map(BTreeMap::from), None),
        Err(error) => (None, Some(format!("by the clock: {error:#}"))),
    };
    let ran = engine.map(|(ran, _)| ran).map_err(|error| format!("{error:#}"));
    Outcome { seed, setting, ran: failed.map_or(ran, Err), judged }
}

/// Whether other judges look at what this seed makes.
fn watched(seed: u64) -> bool {
    let setting = Setting::of(seed);
    let compares = matches!(setting.harm, Harm::Nothing | Harm::Errors) && !setting.is_small();
    compares && seed.is_multiple_of(JUDGED)
}

fn tell(seed: u64) -> Result<ExitCode> {
    println!("{:?}", Setting::of(seed));
    let mut first = None;
    let mut say = |at: serin_protocol::ids::UnixMillis, text: String| {
        let begin = *first.get_or_insert(at);
        println!("{:8.1} min  {text}", at.since(begin).0 as f64 / 60_000.0);
    };
    let (ran, _) = Run::new(seed, Driver::Engine, watched(seed), &mut say)?.play()?;
    println!("{:?} after {} looks, {:.1} % had it at most", ran.end, ran.looks, 100.0 * ran.exposed);
    Ok(ExitCode::SUCCESS)
}
