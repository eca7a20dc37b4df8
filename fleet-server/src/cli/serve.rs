//! `serin-fleet serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serin_protocol::ids::FleetId;
use tracing::level_filters::LevelFilter;

use super::Failure;
use crate::broker::tls::TlsFiles;
use crate::config::{Config, Flags};
use crate::fleet::enrolment::Policy;

/// How long what is under way may take after the server has stopped.
const LAST_WORDS: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(super) struct ServeArgs {
    /// Configuration file (TOML). Flags go before it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for everything that must survive.
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Name of the fleet.
    #[arg(long)]
    fleet: Option<FleetId>,
    /// Where API and page listen [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
    /// Where the embedded broker listens [default: 127.0.0.1:1883].
    #[arg(long, value_name = "ADDRESS", conflicts_with = "broker")]
    mqtt: Option<SocketAddr>,
    /// Use this broker instead, as HOST:PORT or mqtt://HOST:PORT.
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// User name at that broker.
    #[arg(long, value_name = "NAME")]
    broker_user: Option<String>,
    /// File with the password at that broker.
    #[arg(long, value_name = "FILE")]
    broker_password_file: Option<PathBuf>,
    /// Who becomes one of the fleet: `token` for whoever shows a claim token, `open` for whoever comes
    /// first under a name [default: token].
    #[arg(long, value_name = "POLICY")]
    enrolment: Option<Policy>,
    /// Folder with ca.crt, server.crt and server.key: devices prove themselves to the embedded broker by
    /// certificates, or the server to yours.
    #[arg(long, value_name = "FOLDER")]
    tls: Option<PathBuf>,
    /// Let the embedded broker listen to a network without TLS: whoever reaches it may call itself any device.
    #[arg(long)]
    insecure: bool,
    /// Least severe messages logged: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "SERIN_LOG")]
    log: LevelFilter,
}

pub(super) fn run(arguments: &ServeArgs, json: bool) -> ExitCode {
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_max_level(arguments.log)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .init();
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.show(json);
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &ServeArgs) -> Result<(), Failure> {
    let flags = Flags {
        fleet: arguments.fleet.clone(),
        data: arguments.data.clone(),
        http: arguments.http,
        enrolment: arguments.enrolment,
        mqtt: arguments.mqtt,
        broker: arguments.broker.clone(),
        broker_user: arguments.broker_user.clone(),
        broker_password_file: arguments.broker_password_file.clone(),
        insecure: arguments.insecure,
        tls: arguments.tls.as_ref().map(|folder| TlsFiles {
            ca: folder.join("ca.crt"),
            certificate: folder.join("server.crt"),
            key: folder.join("server.key"),
        }),
    };
    // Before the runtime: a wrong configuration starts nothing.
    let config = Config::load(arguments.config.as_deref(), flags).map_err(Failure::new)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::new)?;
    let outcome = runtime.block_on(crate::serve::run(config)).map_err(Failure::new);
    // A receiver that does not answer holds nobody up: what is under way is delivered again at the next start.
    runtime.shutdown_timeout(LAST_WORDS);
    outcome
}
