//! `serin-fleet broker`: what your own broker must be told.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;
use serin_protocol::ids::{DeviceId, FleetId};

use super::Report;
use crate::broker::mosquitto;

#[derive(Subcommand)]
pub(super) enum BrokerCommand {
    /// Print Mosquitto's access list: who may read and write which topic.
    Acl {
        /// The fleet.
        #[arg(long)]
        fleet: FleetId,
        /// Devices that are revoked: they get nothing.
        #[arg(long, value_name = "DEVICE", num_args = 1..)]
        revoked: Vec<DeviceId>,
    },
    /// Print Mosquitto's configuration of a listener with mutual TLS and that access list.
    Config {
        /// Folder on the broker's machine with ca.crt, broker.crt, broker.key, crl.pem and serin.acl.
        #[arg(long, value_name = "FOLDER", default_value = "/etc/mosquitto/serin")]
        folder: PathBuf,
        /// Where it listens.
        #[arg(long, default_value_t = 8883)]
        port: u16,
    },
}

pub(super) fn run(command: &BrokerCommand) -> Report {
    let text = match command {
        BrokerCommand::Acl { fleet, revoked } => mosquitto::access_list(fleet, revoked),
        BrokerCommand::Config { folder, port } => mosquitto::configuration(folder, *port),
    };
    let json = json!({ "text": text });
    Report { text: text.trim_end().to_owned(), json }
}
