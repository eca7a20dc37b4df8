//! People look at what a model was asked: only where owner and device both allow it, and only at what they let go.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use serin_tests::lab::{ALL_AT_ONCE, Broker, Lab, PATIENCE};
use serin_tests::traffic::Traffic;
use serin_tests::until;

#[test]
fn a_reviewer_sees_only_what_the_policy_allows() -> Result<()> {
    let mut lab = Lab::configured(Broker::Embedded, "review.keep = '40s'\nalerts.every = '500ms'")?;
    lab.add_device("open", "review.enabled = true\nreview.redact = ['p01']")?;
    lab.add_device("closed", "")?;
    let review = "[review]\nrandom = '100%'\nredact = ['p00']\nper_day = 4\nbytes_per_day = '64KiB'\n";
    let bundle = lab.owner.release_with("digits/v1", "", review)?;
    lab.server.publish(&bundle, &lab.owner.trust())?;
    let rollout = lab.server.roll_out("digits@1.0.0", ALL_AT_ONCE)?;
    lab.server.until_rollout_is(rollout, "completed", PATIENCE)?;
    let traffic = Traffic::start(&lab.gateways(), Duration::from_millis(20))?;
    let samples = until("the day's budget is used", PATIENCE, || {
        let samples = lab.server.operator(&["review", "list"]).ok()?["samples"].as_array()?.clone();
        (samples.len() == 4).then_some(samples)
    })?;
    assert!(samples.iter().all(|sample| sample["device"] == "open"), "{samples:?}");
    assert!(samples.iter().all(|sample| sample["reason"] == "random"));

    // Without the operator's token nobody sees contents, here or elsewhere.
    let id = samples[0]["id"].as_str().context("a name")?.to_owned();
    let url = format!("{}/api/v1/review/{id}/show", lab.server.url);
    let error = ureq::post(&url).send_json(serde_json::json!({ "by": "eve" })).expect_err("no token");
    assert!(error.to_string().contains("401"), "{error}");

    let shown = lab.server.operator(&["review", "show", &id, "--by", "ann"])?;
    let pixels = shown["inputs"][0]["data"].as_array().context("values")?;
    assert_eq!(pixels.len(), 64);
    assert!(pixels[0].is_null() && pixels[1].is_null(), "left out by owner and device: {pixels:?}");
    assert!(pixels[2..].iter().all(Value::is_number), "{pixels:?}");
    let judge = ["review", "judge", &id, "wrong", "--class", "3", "--by", "ann"];
    assert_eq!(lab.server.operator(&judge)?["judgement"]["verdict"], "wrong");
    let views = lab.server.operator(&["review", "views"])?["views"].clone();
    let acts: Vec<(&Value, &Value)> =
        views.as_array().context("views")?.iter().map(|view| (&view["by"], &view["act"])).collect();
    assert_eq!(acts.len(), 2, "{views}");
    assert_eq!(acts[0].0, "ann");

    // After their time they are gone, looked at or not.
    drop(traffic);
    until("they are deleted", PATIENCE, || {
        let samples = lab.server.operator(&["review", "list"]).ok()?["samples"].as_array()?.clone();
        samples.is_empty().then_some(())
    })?;
    Ok(())
}
