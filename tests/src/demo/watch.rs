//! Prints what the server says as it happens: a line per transition and verdict, a bar per transfer.

use std::io::{BufRead as _, BufReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

/// A thread that follows the server's live stream until the server is gone.
pub(crate) struct Watch {
    quiet: Arc<AtomicBool>,
}

impl Watch {
    pub(crate) fn start(url: &str, started: Instant) -> Result<Self> {
        let quiet = Arc::new(AtomicBool::new(false));
        let mut stream = ureq::get(format!("{url}/api/v1/stream")).call()?;
        let hush = Arc::clone(&quiet);
        std::thread::spawn(move || {
            let reader = BufReader::new(stream.body_mut().as_reader());
            let mut transfers = Transfers::default();
            for line in reader.lines() {
                let Ok(line) = line else { return };
                let Some(data) = line.strip_prefix("data:") else { continue };
                if hush.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(notice) = serde_json::from_str::<Value>(data.trim()) {
                    transfers.show(&notice, started);
                }
            }
        });
        Ok(Self { quiet })
    }

    pub(crate) fn stop(&self) {
        self.quiet.store(true, Ordering::Relaxed);
    }
}

/// The bar of the release being fetched: one step a device.
#[derive(Default)]
struct Transfers {
    bar: Option<(String, ProgressBar)>,
}

impl Transfers {
    fn show(&mut self, notice: &Value, started: Instant) {
        let text = |pointer: &str| notice.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let time = started.elapsed().as_secs_f64();
        if let Some(sentence) = notice.pointer("/verdict/sentence").and_then(Value::as_str) {
            self.print(&format!("{time:6.1}s    verdict: {} — {sentence}", text("/verdict/decision")));
        } else if !text("/text").is_empty() {
            self.count(text("/release"), text("/phase"));
            self.print(&format!("{time:6.1}s    {}  {}", text("/device"), text("/text")));
        } else if !text("/state").is_empty() {
            self.print(&format!("{time:6.1}s    rollout is {}", text("/state")));
        }
    }

    /// A device begins or ends a transfer.
    fn count(&mut self, release: &str, phase: &str) {
        match phase {
            "fetching" => {
                let same = self.bar.as_ref().is_some_and(|(of, bar)| of == release && !bar.is_finished());
                if !same {
                    let style = ProgressStyle::with_template("         {msg} {bar:24} {pos}/{len} devices");
                    let bar = ProgressBar::new(0).with_message(format!("fetching {release}"));
                    self.bar = Some((
                        release.to_owned(),
                        bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())),
                    ));
                }
                if let Some((_, bar)) = &self.bar {
                    bar.inc_length(1);
                }
            }
            "verified" => {
                if let Some((_, bar)) = &self.bar {
                    bar.inc(1);
                    if Some(bar.position()) == bar.length() {
                        bar.finish_and_clear();
                    }
                }
            }
            _ => {}
        }
    }

    /// Above the bar; without a terminal indicatif prints no bar, and the line goes out as it is.
    fn print(&self, line: &str) {
        match &self.bar {
            Some((_, bar)) if !bar.is_finished() && !bar.is_hidden() => bar.println(line),
            Some(_) | None => println!("{line}"),
        }
    }
}
