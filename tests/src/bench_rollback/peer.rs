//! The other version by MLServer: the same models and the same requests, and the repository API's order to load it.

use std::time::Instant;

use anyhow::Result;
use serin_tests::mlserver::{MlServer, configure};

use crate::apps::{Apps, Load, Sign};
use crate::report::PeerLine;

const VERSIONS: [&str; 2] = ["1.0.0", "2.0.0"];

/// Measures `rounds` reloads.
pub(crate) fn measure(load: Load, rounds: u32) -> Result<PeerLine> {
    let folder = tempfile::tempdir()?;
    // With version 2, so that the first reload goes back.
    let server = MlServer::start(folder.path(), "2.0.0")?;
    let apps = Apps::start(&format!("{}/v2/models/digits/infer", server.url), load)?;
    let mut line = PeerLine { load, reloads: serin_tests::samples::Samples::default(), failed: 0 };
    for version in VERSIONS.iter().copied().cycle().take(usize::try_from(rounds)?) {
        let failed = apps.failed();
        apps.expect(Sign::Version(version.into()));
        let started = Instant::now();
        configure(folder.path(), version)?;
        ureq::post(format!("{}/v2/repository/models/digits/load", server.url)).send_empty()?;
        line.reloads.push(apps.first_answer()?.duration_since(started));
        apps.settle()?;
        line.failed += apps.failed() - failed;
    }
    Ok(line)
}
