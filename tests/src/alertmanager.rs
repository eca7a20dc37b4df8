//! A real Prometheus Alertmanager, as an operator would run it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::process::{Running, free_port};

/// An Alertmanager on a free port that tells nobody.
pub struct Alertmanager {
    pub url: String,
    _running: Running,
}

impl Alertmanager {
    /// Starts one whose state is kept in `folder`.
    pub fn start(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let config = folder.join("alertmanager.yml");
        std::fs::write(&config, "route:\n  receiver: nobody\nreceivers:\n  - name: nobody\n")?;
        let url = format!("http://127.0.0.1:{}", free_port()?);
        let listen = url.trim_start_matches("http://");
        let mut command = Command::new("prometheus-alertmanager");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={listen}"))
            .arg("--cluster.listen-address=");
        let running = Running::start(&mut command, &folder.join("alertmanager.log"))?;
        let this = Self { url, _running: running };
        crate::until("Alertmanager is ready", Duration::from_secs(30), || {
            ureq::get(format!("{}/-/ready", this.url)).call().ok().map(drop)
        })?;
        Ok(this)
    }

    /// The alerts that ring there.
    pub fn active(&self) -> Result<Vec<Value>> {
        let url = format!("{}/api/v2/alerts?active=true", self.url);
        Ok(ureq::get(url).call()?.body_mut().read_json()?)
    }
}
