//! `serin-agent`: reads the command line and hands over to the library.

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serin_agent::config::{Config, ConfigError};
use serin_agent::field::cli::{Console, Exit};
use serin_agent::logs::Logs;
use serin_agent::supervisor::StartError;
use serin_agent::worker::{panics_are_caught, prepare, qualify, serve};
use serin_agent::{field, scoring, supervisor};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Serin on this device: runs the models that its fleet releases, and lets whoever is on site look, ask and go back.
///
/// Exit codes: 0 done, 1 refused, 2 wrong usage, 3 no agent answers.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// The running agent's Unix socket.
    #[arg(long, global = true, default_value = "/var/lib/serin/agent.sock", env = "SERIN_SOCKET")]
    socket: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the agent.
    Run(RunArgs),
    /// Runs one model in a sandbox; the agent starts this itself.
    #[command(hide = true)]
    Worker(serve::WorkerArgs),
    /// Tells what loading rewrites in a model; `qualify` starts this itself.
    #[command(hide = true)]
    Prepare(prepare::PrepareArgs),
    /// Loads an unpacked release, proves its golden vectors and measures what it needs.
    Qualify(qualify::QualifyArgs),
    #[command(flatten)]
    Scoring(scoring::cli::ScoringCli),
    #[command(flatten)]
    Field(field::cli::FieldCli),
}

#[derive(clap::Args)]
struct RunArgs {
    /// The configuration file.
    #[arg(long, default_value = "/etc/serin/agent.toml")]
    config: PathBuf,
    /// Least severe messages shown: error, warn, info, debug or trace.
    #[arg(long, default_value = "info", env = "SERIN_LOG")]
    log: LevelFilter,
}

/// A panic that nobody catches ends the process: what was left half done is made good when it is started again. A task that
/// ended alone would be missing without anybody knowing.
fn end_with_panics() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        if !panics_are_caught() {
            std::process::abort();
        }
    }));
}

fn main() -> ExitCode {
    end_with_panics();
    let Cli { socket, command } = Cli::parse();
    match command {
        // Before any runtime or thread is started: a worker has one thread and little memory.
        Command::Worker(args) => serve::run(&args),
        Command::Prepare(args) => prepare::run(&args),
        Command::Qualify(args) => qualify::run(&args),
        Command::Run(args) => run(&args),
        Command::Scoring(command) => wait_for(scoring::cli::run(command, &socket, &mut Console::standard())),
        Command::Field(command) => wait_for(field::cli::run(command, &socket, &mut Console::standard())),
    }
}

fn run(args: &RunArgs) -> ExitCode {
    let colour =
        std::env::var_os("NO_COLOR").is_none() && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let logs = Logs::default();
    let shown = tracing_subscriber::fmt::layer().with_ansi(colour).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(args.log).with(shown).with(logs.layer()).init();
    match start(args, logs) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", in_words(&error));
            if let Some(next) = next(&error) {
                eprintln!("next: {next}");
            }
            ExitCode::FAILURE
        }
    }
}

/// The error with its causes, each said once: most say theirs themselves.
fn in_words(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |said, cause| {
        let cause = cause.to_string();
        if said.contains(&cause) { said } else { format!("{said}: {cause}") }
    })
}

/// What to do about it.
fn next(error: &anyhow::Error) -> Option<String> {
    let configured = error.downcast_ref::<ConfigError>().map(ConfigError::next);
    configured.or_else(|| error.downcast_ref::<StartError>()?.next())
}

fn start(args: &RunArgs, logs: Logs) -> anyhow::Result<()> {
    let config = Config::read(&args.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(supervisor::run(config, logs))?;
    Ok(())
}

/// A command to the agent that is running.
fn wait_for(command: impl Future<Output = Exit>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(command).into(),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
