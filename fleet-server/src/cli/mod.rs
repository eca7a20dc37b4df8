//! The operator's command line: one file per noun. Results go to standard output, everything else to
//! standard error; with `--json` both are JSON on standard output.

mod alert;
mod broker;
mod bundle;
mod ca;
mod client;
mod device;
mod drift;
mod export;
mod failure;
mod keys;
mod orders;
mod plans;
mod release;
mod review;
mod rollout;
mod serve;
mod table;
mod trial;
mod trigger;
mod trust;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Failure;

/// Signed model bundles, staged rollouts, and the fleet that runs them.
///
/// Exit codes: 0 done, 1 refused or failed, 2 wrong usage.
#[derive(Parser)]
#[command(name = "serin-fleet", version)]
struct Cli {
    /// Print results and errors as JSON on standard output.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make signing keys.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Pack, sign, verify and inspect model bundles.
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    /// Say who may release what: keys, owners, signatures. Works without a network.
    Trust(trust::TrustArgs),
    /// Make certificates for TLS, in a fleet that has no authority of its own.
    #[command(subcommand)]
    Ca(ca::CaCommand),
    /// Print what your own MQTT broker must be told.
    #[command(subcommand)]
    Broker(broker::BrokerCommand),
    /// Run the fleet server.
    Serve(serve::ServeArgs),
    /// Look at devices.
    Device(device::DeviceArgs),
    /// Publish releases and look at them.
    Release(release::ReleaseArgs),
    /// Try a release on one device, beside the one that answers there.
    Trial(trial::TrialArgs),
    /// How far what a release sees and says has moved, and how right it is, over the last hour.
    Drift(drift::DriftArgs),
    /// What rings, by which rules, who is told, and who is not for a while.
    Alert(alert::AlertArgs),
    /// What asked for training, and which release answers.
    Trigger(trigger::TriggerArgs),
    /// Samples of what models were asked: look at them and judge.
    Review(review::ReviewArgs),
    /// Start rollouts, watch and steer them.
    Rollout(rollout::RolloutArgs),
}

/// What a command says when it is done.
struct Report {
    /// For people, without a line end.
    text: String,
    /// For programs.
    json: serde_json::Value,
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        Command::Keys(command) => keys::run(command),
        Command::Bundle(command) => bundle::run(command),
        Command::Trust(arguments) => trust::run(arguments),
        Command::Ca(command) => ca::run(command),
        Command::Broker(command) => Ok(broker::run(command)),
        Command::Serve(arguments) => return serve::run(arguments, cli.json),
        Command::Device(arguments) => device::run(arguments),
        Command::Release(arguments) => release::run(arguments, cli.json),
        Command::Trial(arguments) => trial::run(arguments),
        Command::Drift(arguments) => drift::run(arguments),
        Command::Alert(arguments) => alert::run(arguments),
        Command::Trigger(arguments) => trigger::run(arguments),
        Command::Review(arguments) => review::run(arguments),
        Command::Rollout(arguments) => rollout::run(arguments, cli.json),
    };
    match outcome {
        Ok(report) => {
            failure::print(&if cli.json { report.json.to_string() } else { report.text });
            ExitCode::SUCCESS
        }
        Err(failure) => {
            failure.show(cli.json);
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn json_may_stand_anywhere() {
        for words in [
            ["serin-fleet", "--json", "keys", "generate", "--out", "k"],
            ["serin-fleet", "keys", "generate", "--out", "k", "--json"],
        ] {
            assert!(Cli::try_parse_from(words).expect("known").json);
        }
    }
}
