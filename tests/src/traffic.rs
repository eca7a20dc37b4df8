//! Live traffic: real rows, sent to every device as apps on it would.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::bundles::fixtures;

/// The digits that the rows of `digits/traffic.csv` are.
pub fn truths() -> Result<Vec<u8>> {
    let text = std::fs::read_to_string(fixtures().join("digits/traffic.csv"))?;
    let truth = |line: &str| line.rsplit(',').next().unwrap_or_default().trim().parse();
    text.lines().skip(1).map(|line| truth(line).with_context(|| line.to_owned())).collect()
}

/// The rows of `digits/traffic.csv` without their truth.
pub fn rows() -> Result<Vec<Vec<f32>>> {
    read(&fixtures().join("digits/traffic.csv"))
}

fn read(path: &Path) -> Result<Vec<Vec<f32>>> {
    let text = std::fs::read_to_string(path)?;
    let row = |line: &str| -> Result<Vec<f32>> {
        let numbers: Result<Vec<f32>, _> = line.split(',').take(64).map(str::parse).collect();
        numbers.with_context(|| line.to_owned())
    };
    text.lines().skip(1).map(row).collect()
}

/// Threads that ask devices about rows until the value is dropped.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    pub answered: Arc<AtomicU64>,
    pub failed: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Sends one row every `pause` to each of the gateways at `ports`. Devices without a model yet
    /// answer with an error, which counts as failed only if `answered` is not zero for that device.
    pub fn start(ports: &[u16], pause: Duration) -> Result<Self> {
        let rows = Arc::new(rows()?);
        let stop = Arc::new(AtomicBool::new(false));
        let (answered, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut threads = Vec::new();
        for (lane, port) in ports.iter().copied().enumerate() {
            let (rows, stop) = (Arc::clone(&rows), Arc::clone(&stop));
            let (answered, failed) = (Arc::clone(&answered), Arc::clone(&failed));
            threads.push(std::thread::spawn(move || {
                let agent: ureq::Agent = ureq::Agent::config_builder()
                    .timeout_global(Some(Duration::from_secs(10)))
                    .build()
                    .into();
                let url = format!("http://127.0.0.1:{port}/v2/models/digits/infer");
                let mut seen = false;
                for row in rows.iter().cycle().skip(lane * 41) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let body = serde_json::json!({"inputs": [{
                        "name": "pixels", "datatype": "FP32", "shape": [1, 64], "data": row,
                    }]});
                    match agent.post(&url).send_json(body) {
                        Ok(mut answer) => {
                            // Reading it whole lets the connection be used again.
                            let _ = answer.body_mut().read_to_vec();
                            seen = true;
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(_) if seen => {
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(_) => {}
                    }
                    std::thread::sleep(pause);
                }
            }));
        }
        Ok(Self { stop, answered, failed, threads })
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
