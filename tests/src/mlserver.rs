//! MLServer with onnxruntime in Serin's place: the same models, asked by the same protocol.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::bundles::{fixtures, text};
use crate::lab::PATIENCE;
use crate::process::{Running, free_port, program};
use crate::until;

/// A server that runs.
pub struct MlServer {
    pub url: String,
    running: Running,
}

impl MlServer {
    /// Starts it in `folder` with this version of the digits.
    pub fn start(folder: &Path, version: &str) -> Result<Self> {
        let [http, grpc, metrics] = [free_port()?, free_port()?, free_port()?];
        // In its own process, as its documentation advises for models this light; without a line per request.
        let settings = json!({
            "host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics,
            "parallel_workers": 0, "debug": false,
        });
        fs::write(folder.join("settings.json"), settings.to_string())?;
        fs::copy(scripts().join("onnx_model.py"), folder.join("onnx_model.py"))?;
        configure(folder, version)?;
        let mut command = Command::new(installed()?);
        command.arg("start").arg(folder).current_dir(folder).env("PYTHONPATH", folder);
        let running = Running::start(&mut command, &folder.join("server.log"))?;
        let url = format!("http://127.0.0.1:{http}");
        let ready = format!("{url}/v2/models/digits/ready");
        until("MLServer is ready", PATIENCE, || ureq::get(&ready).call().ok())
            .with_context(|| running.said())?;
        Ok(Self { url, running })
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.running.id()
    }
}

/// Has it serve this version from its next load on.
pub fn configure(folder: &Path, version: &str) -> Result<()> {
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
