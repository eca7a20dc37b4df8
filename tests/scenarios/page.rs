//! The page in a real browser: an operator reads how a release does in each segment, a reviewer judges a sample.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use serin_tests::bundles::text;
use serin_tests::lab::{ALL_AT_ONCE, Broker, Lab, PATIENCE};
use serin_tests::process::target;
use serin_tests::traffic::{rows, truths};
use serin_tests::until;

use crate::quality::{by_site, infer, site};
use crate::tuf_interop::script;

/// Rows that the device is asked about.
const ASKED: usize = 150;

/// Rings for a segment in which the model is wrong more often than in the others.
const RIGHT_IN_EACH: &str = "
    alerts.every = '500ms'
    [[alerts.rules]]
    name = 'right'
    by = 'segment'
    when.quality = { below = '90%' }
";

/// A model whose requests are told apart by their site and may be looked at.
fn watched(folder: &Path) -> Result<()> {
    by_site(folder)?;
    let mut declaration = OpenOptions::new().append(true).open(folder.join("serin.toml"))?;
    Ok(declaration.write_all(b"[review]\nrandom = '100%'\nper_day = 4\nbytes_per_day = '64KiB'\n")?)
}

#[test]
fn an_operator_reads_segments_and_a_reviewer_judges_in_the_browser() -> Result<()> {
    let mut lab = Lab::configured(Broker::Embedded, RIGHT_IN_EACH)?;
    lab.add_device("open", "review.enabled = true")?;
    lab.publish_changed("digits/v1", watched)?;
    let rollout = lab.server.roll_out("digits@1.0.0", ALL_AT_ONCE)?;
    lab.server.until_rollout_is(rollout, "completed", PATIENCE)?;

    let (rows, truths, device) = (rows()?, truths()?, &lab.devices[0]);
    let mut labels = "id,value\n".to_owned();
    for (at, row) in rows.iter().take(ASKED).enumerate() {
        infer(device, &format!("order-{at}"), site(at), row)?;
        writeln!(labels, "order-{at},{}", truths[at])?;
    }
    let path = device.folder.join("labels.csv");
    std::fs::write(&path, labels)?;
    device.engineer(&["label", "--file", text(&path)])?;
    let drift = until("the server has heard all of it", PATIENCE, || {
        let drift = lab.server.operator(&["drift", "digits@1.0.0"]).ok()?;
        let samples = lab.server.operator(&["review", "list"]).ok()?["samples"].as_array()?.len();
        (drift["quality"]["labelled"] == ASKED && samples == 4).then_some(drift)
    })?;

    let alerts = until("the alert rings", PATIENCE, || {
        let alerts = lab.server.operator(&["alert", "list", "--all"]).ok()?;
        (!alerts["firing"].as_array()?.is_empty()).then_some(alerts)
    })?;
    let [firing] = &alerts["firing"].as_array().context("a list")?[..] else { anyhow::bail!("{alerts}") };
    assert!(firing["segment"] == "other" && firing["release"] == "digits@1.0.0", "{firing}");
    assert_eq!(firing["numbers"]["requests"], ASKED / 3, "{firing}");
    assert_eq!(alerts["watched"].as_array().map(Vec::len), Some(3), "each segment by itself: {alerts}");

    let mut browser = script("page.py");
    browser.arg(&lab.server.url).arg(lab.folder().join("server/keys/operator.token"));
    let pictures = target()?.join("pictures");
    std::fs::create_dir_all(&pictures)?;
    browser.arg(pictures);
    let output = browser.output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stdout));
    let seen: Value = serde_json::from_slice(&output.stdout).context("what the browser saw")?;

    // The page says what the interface says.
    let porto = drift["segments"].as_array().context("segments")?.iter().find(|one| one["name"] == "porto");
    let accuracy = porto.context("porto")?["quality"]["accuracy"]["value"].as_f64().context("a number")?;
    let right = seen["porto"]["right"].as_str().context("words")?;
    assert!(right.starts_with(&format!("{:.1} %", 100.0 * accuracy)), "{right} is not {accuracy}");
    assert_eq!(seen["porto"]["requests"], (ASKED / 3).to_string());
    // What the reviewer said in the browser is the server's word.
    let samples = lab.server.operator(&["review", "list"])?["samples"].clone();
    let judged: Vec<&Value> = samples
        .as_array()
        .context("samples")?
        .iter()
        .filter(|sample| !sample["judgement"].is_null())
        .collect();
    let [sample] = judged[..] else { anyhow::bail!("one is judged: {samples}") };
    assert_eq!(sample["id"], seen["judged"]);
    let word = &sample["judgement"];
    assert!(word["by"] == "ann" && word["verdict"] == "wrong" && word["class"] == 3, "{word}");
    Ok(())
}
