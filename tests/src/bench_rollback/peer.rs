//! MLServer with onnxruntime in Serin's place: the same models and the same requests, and the repository API's
//! order to load the other version.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use serin_tests::bundles::{fixtures, text};
use serin_tests::lab::PATIENCE;
use serin_tests::process::{Running, free_port, program};
use serin_tests::until;

use crate::apps::{Apps, Load, Sign};
use crate::report::PeerLine;

const VERSIONS: [&str; 2] = ["1.0.0", "2.0.0"];

/// Measures `rounds` reloads.
pub(crate) fn measure(load: Load, rounds: u32) -> Result<PeerLine> {
    let folder = tempfile::tempdir()?;
    let server = start(folder.path())?;
    let apps = Apps::start(&format!("{}/v2/models/digits/infer", server.url), load)?;
    let mut line = PeerLine { load, reloads: crate::samples::Samples::default(), failed: 0 };
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

struct Peer {
    url: String,
    _running: Running,
}

/// Starts it with version 2, so that the first reload goes back.
fn start(folder: &Path) -> Result<Peer> {
    let [http, grpc, metrics] = [free_port()?, free_port()?, free_port()?];
    // In its own process, as its documentation advises for models this light; without a line per request.
    let settings = json!({
        "host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics,
        "parallel_workers": 0, "debug": false,
    });
    fs::write(folder.join("settings.json"), settings.to_string())?;
    fs::copy(scripts().join("onnx_model.py"), folder.join("onnx_model.py"))?;
    configure(folder, "2.0.0")?;
    let mut command = Command::new(installed()?);
    command.arg("start").arg(folder).current_dir(folder).env("PYTHONPATH", folder);
    let running = Running::start(&mut command, &folder.join("server.log"))?;
    let url = format!("http://127.0.0.1:{http}");
    let ready = format!("{url}/v2/models/digits/ready");
    until("MLServer is ready", PATIENCE, || ureq::get(&ready).call().ok()).with_context(|| running.said())?;
    Ok(Peer { url, _running: running })
}

fn configure(folder: &Path, version: &str) -> Result<()> {
    let major = version.split('.').next().unwrap_or_default();
    let model = fixtures().join(format!("digits/v{major}/model.onnx"));
    let settings = json!({
        "name": "digits", "implementation": "onnx_model.OnnxModel",
        "parameters": { "uri": text(&model), "version": version },
    });
    Ok(fs::write(folder.join("model-settings.json"), settings.to_string())?)
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python")
}

/// Beside the build, where `tests/peer.sh` puts it.
fn installed() -> Result<PathBuf> {
    let agent = program("serin-agent")?;
    let target = agent.parent().and_then(Path::parent).context("no build folder")?;
    let mlserver = target.join("peer/bin/mlserver");
    ensure!(mlserver.exists(), "{} is missing: run tests/peer.sh first", mlserver.display());
    Ok(mlserver)
}
