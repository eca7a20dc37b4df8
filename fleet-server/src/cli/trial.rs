//! `serin-fleet trial`.

use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};
use serin_protocol::ids::{BasisPoints, ReleaseId};
use serin_protocol::message::ratio_bins;

use super::client::{Client, ClientArgs};
use super::device::seconds;
use super::table::table;
use super::{Failure, Report};
use crate::rollout::notation::share;

#[derive(Args)]
pub(super) struct TrialArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: TrialCommand,
}

#[derive(Subcommand)]
enum TrialCommand {
    /// Have a device try a release beside the one that answers there. Afterwards all is as before.
    Start {
        /// The device's id.
        device: String,
        /// The release, as MODEL@VERSION.
        release: ReleaseId,
        /// How it is tried.
        #[arg(long = "as", value_name = "HOW", default_value = "shadow")]
        mode: Mode,
        /// Of requests, or of keys, such as 20% [default: 100% for a shadow, 10% for an arm].
        #[arg(long, value_name = "SHARE", value_parser = share::parse)]
        share: Option<BasisPoints>,
        /// How long, such as 90m, 24h or 7d.
        #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = seconds)]
        span: u64,
    },
    /// How a release did as a shadow in the last hour, over all devices that tried it.
    Show {
        /// The release, as MODEL@VERSION.
        release: ReleaseId,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// It computes what the active release has answered; its agreement is reported, its answers go to nobody.
    Shadow,
    /// It answers a share of the requests, always those of the same keys (header Serin-Request-Key, else the id).
    Arm,
}

#[derive(Deserialize)]
struct Comparison {
    with: String,
    requests: u64,
    agreement: Option<f64>,
    failed: u64,
    dropped: u64,
    distance_p99: Option<f64>,
    time_ratio_p50: Option<f64>,
}

#[derive(Deserialize)]
struct Shadowed {
    devices: usize,
    comparisons: Vec<Comparison>,
}

pub(super) fn run(arguments: &TrialArgs) -> Result<Report, Failure> {
    let client = Client::new(&arguments.client)?;
    match &arguments.command {
        TrialCommand::Start { device, release, mode, share, span } => {
            let mode = match mode {
                Mode::Shadow => "shadow",
                Mode::Arm => "arm",
            };
            let share = share.map(|share| f64::from(share.0) / 10_000.0);
            let order =
                json!({ "release": release.to_string(), "mode": mode, "share": share, "seconds": span });
            let json: Value = client.post(&format!("/api/v1/devices/{device}/trial"), &order)?;
            Ok(Report { text: format!("told {device} to try {release}; see `device show {device}`"), json })
        }
        TrialCommand::Show { release } => {
            let json: Value = client.get(&format!("/api/v1/shadow?release={release}"))?;
            let shadowed = serde_json::from_value(json.clone()).map_err(Failure::new)?;
            Ok(Report { text: show(release, &shadowed), json })
        }
    }
}

fn show(release: &ReleaseId, shadowed: &Shadowed) -> String {
    if shadowed.comparisons.is_empty() {
        return format!("no device has reported on {release} as a shadow in the last hour");
    }
    let at_most = |value: Option<f64>| value.map_or_else(|| "-".into(), |value| format!("≤ {value:.3}"));
    // Where both were timed, what has no value lies beyond the scale.
    let slower = ratio_bins().edges().last().map_or_else(|| "-".into(), |edge| format!("> {edge:.3}"));
    let time = |comparison: &Comparison| match comparison.time_ratio_p50 {
        None if comparison.requests > 0 => slower.clone(),
        ratio => at_most(ratio),
    };
    let row = |comparison: &Comparison| {
        vec![
            comparison.with.clone(),
            comparison.requests.to_string(),
            comparison.agreement.map_or_else(|| "-".into(), |share| format!("{:.2}%", share * 100.0)),
            at_most(comparison.distance_p99),
            time(comparison),
            comparison.failed.to_string(),
            comparison.dropped.to_string(),
        ]
    };
    let rows: Vec<_> = shadowed.comparisons.iter().map(row).collect();
    let heads = ["BESIDE", "REQUESTS", "AGREED", "APART (99%)", "TIME (50%)", "FAILED", "NOT COMPARED"];
    format!("{release} on {} devices\n{}", shadowed.devices, table(&heads, &rows))
}
