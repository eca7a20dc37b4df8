//! `serin-fleet`: hands over to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    serin_fleet_server::cli::run()
}
