//! `serin-fleet`: hands over to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    // What a panic left half done is made good when the server is started again. A task that ended alone would be missing
    // without anybody knowing.
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
    serin_fleet_server::cli::run()
}
