//! `serin-agent`: reads the command line and hands over to the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serin_agent::worker::{qualify, serve};

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one model in a sandbox; the agent starts this itself.
    #[command(hide = true)]
    Worker(serve::WorkerArgs),
    /// Loads an unpacked release, proves its golden vectors and measures what it needs.
    Qualify(qualify::QualifyArgs),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        // Before any runtime or thread is started: a worker has one thread and little memory.
        Command::Worker(args) => serve::run(&args),
        Command::Qualify(args) => qualify::run(&args),
    }
}
