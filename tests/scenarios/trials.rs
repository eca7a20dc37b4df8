//! A release tried on one device beside the one that answers there: as a shadow, then as an arm, then for good.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use serin_tests::lab::{ALL_AT_ONCE, Broker, Lab, PATIENCE};
use serin_tests::traffic::{Traffic, rows};
use serin_tests::until;

fn phase_of(lab: &Lab) -> Result<String> {
    let status = lab.devices.first().context("a device")?.status()?;
    Ok(status["phase"].as_str().unwrap_or_default().to_owned())
}

/// The version that answers a request of this key.
fn version_for(port: u16, key: &str, row: &[f32]) -> Result<String> {
    let body = json!({ "inputs": [{ "name": "pixels", "datatype": "FP32", "shape": [1, 64], "data": row }] });
    let url = format!("http://127.0.0.1:{port}/v2/models/digits/infer");
    let mut answer = ureq::post(&url).header("Serin-Request-Key", key).send_json(body)?;
    let answer: Value = answer.body_mut().read_json()?;
    Ok(answer["model_version"].as_str().context("a version")?.to_owned())
}

/// In the shadow on nearly all devices first, then for good.
const BY_SHADOW: &str = "
    [strategy.shadow]
    control = '5%'
    share = '95%'
    bake = '3s'
    min_devices = 2
    min_pairs = 100
    max_disagreement = '40%'
    [[strategy.shadow.stages]]
    share = '100%'
    bake = '1s'
    min_devices = 1
    min_requests = 0
    [probation]
    duration = '1s'
    max_error_rate = '5%'
    min_requests = 20
    max_worker_deaths = 1
";

#[test]
fn a_rollout_by_shadow_asks_devices_before_it_changes_what_they_answer() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(5)?;
    lab.first_release()?;
    lab.publish("digits/v2")?;
    let traffic = Traffic::start(&lab.gateways(), Duration::from_millis(5))?;
    let rollout = lab.server.roll_out("digits@2.0.0", BY_SHADOW)?;
    until("one is shadowing", PATIENCE, || {
        let told =
            |name: &str| Some(lab.server.events(name).ok()?.iter().any(|event| event.contains("on trial")));
        lab.devices.iter().any(|device| told(&device.name) == Some(true)).then_some(())
    })?;
    assert_eq!(lab.running("1.0.0"), 5, "nothing changes for apps meanwhile");
    lab.server.until_rollout_is(rollout, "completed", PATIENCE)?;
    assert_eq!(lab.running("2.0.0"), 5);
    let verdicts = lab.server.rollout(rollout)?["verdicts"].to_string();
    assert!(verdicts.contains("in the shadow it disagreed in"), "{verdicts}");
    assert_eq!(traffic.failed.load(Ordering::Relaxed), 0);
    Ok(())
}

#[test]
fn operator_tries_a_release_as_a_shadow_and_as_an_arm_before_anybody_depends_on_it() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_device("kiosk", "")?;
    lab.first_release()?;
    lab.publish("digits/v2")?;
    let traffic = Traffic::start(&lab.gateways(), Duration::from_millis(5))?;

    // Everything it is asked is answered by version 1; version 2 computes the same.
    lab.server.operator(&["trial", "start", "kiosk", "digits@2.0.0", "--for", "1h"])?;
    lab.until_told("kiosk", &["digits@2.0.0", "warming", "on trial"])?;
    let comparison = until("the shadow is compared", PATIENCE, || {
        let shadow = lab.server.operator(&["trial", "show", "digits@2.0.0"]).ok()?;
        let comparison = shadow["comparisons"][0].clone();
        (comparison["requests"].as_u64()? >= 100).then_some(comparison)
    })?;
    assert_eq!(comparison["with"], "digits@1.0.0");
    assert!(comparison["agreement"].as_f64().context("compared")? > 0.8, "{comparison}");
    assert!(comparison["time_ratio_p50"].as_f64().is_some(), "{comparison}");
    assert!(lab.devices[0].runs("1.0.0"));
    let drift = lab.server.json("/api/v1/drift?release=digits@2.0.0")?;
    assert_eq!(drift["fleet"]["requests"], 0, "a shadow's work is nobody's answers");

    assert_eq!(traffic.failed.load(Ordering::Relaxed), 0);
    drop(traffic);

    // A power cut does not end the trial.
    let device = &mut lab.devices[0];
    device.power_off();
    device.power_on()?;
    until("it goes on", PATIENCE, || (phase_of(&lab).ok()? == "shadowing").then_some(()))?;
    let traffic = Traffic::start(&lab.gateways(), Duration::from_millis(5))?;

    // As an arm it answers the same half of all keys every time.
    let order = ["trial", "start", "kiosk", "digits@2.0.0", "--as", "arm", "--share", "50%"];
    lab.server.operator(&order)?;
    let (port, rows) = (lab.devices[0].gateway, rows()?);
    let answers = until("both answer", PATIENCE, || {
        let ask = |key: u8| version_for(port, &key.to_string(), &rows[usize::from(key)]).ok();
        let versions: Option<Vec<String>> = (0..20).map(ask).collect();
        versions.filter(|versions| versions.iter().any(|version| version == "2.0.0"))
    })?;
    assert!(answers.iter().any(|version| version == "1.0.0"), "{answers:?}");
    for (key, version) in (0_u8..).zip(&answers) {
        assert_eq!(version_for(port, &key.to_string(), &rows[0])?, *version, "key {key} stays where it is");
    }

    // Rolled out, it answers at once: it is here and proved.
    let fetched = |lab: &Lab| -> Result<usize> {
        let events = lab.server.events("kiosk")?;
        Ok(events.iter().filter(|event| event.contains("begins now")).count())
    };
    let before = fetched(&lab)?;
    let rollout = lab.server.roll_out("digits@2.0.0", ALL_AT_ONCE)?;
    lab.server.until_rollout_is(rollout, "completed", PATIENCE)?;
    assert!(lab.devices[0].runs("2.0.0"));
    lab.until_told("kiosk", &["digits@2.0.0", "on trial", "probation"])?;
    assert_eq!(fetched(&lab)?, before, "nothing was fetched again");
    assert_eq!(traffic.failed.load(Ordering::Relaxed), 0);
    Ok(())
}
