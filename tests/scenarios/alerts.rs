//! What an owner is told of a model in the field, and how training is asked for: with a real Alertmanager, and with a
//! webhook that fails first.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use serin_tests::alertmanager::Alertmanager;
use serin_tests::bundles::text;
use serin_tests::device::Device;
use serin_tests::lab::{Broker, Lab, PATIENCE};
use serin_tests::receiver::{Receiver, Taken};
use serin_tests::traffic::rows;
use serin_tests::until;

const SECRET: &str = "correct horse battery staple";

fn secret_file(folder: &Path) -> Result<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join("hook.secret");
    std::fs::write(&path, SECRET)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(text(&path).to_owned())
}

/// Asks a device about all rows, some at a time, each changed.
fn ask(device: &Device, change: impl Fn(f32) -> f32) -> Result<()> {
    let rows: Vec<Vec<f32>> = rows()?.into_iter().map(|row| row.into_iter().map(&change).collect()).collect();
    for some in rows.chunks(16) {
        let body = json!({ "inputs": [{
            "name": "pixels", "datatype": "FP32", "shape": [some.len(), 64], "data": some,
        }]});
        let url = format!("http://127.0.0.1:{}/v2/models/digits/infer", device.gateway);
        ureq::post(&url).send_json(body)?;
    }
    Ok(())
}

/// What a webhook was told of a rule, as its states.
fn told(receiver: &Receiver, rule: &str) -> Vec<String> {
    let alerts = |taken: &Taken| taken.body["alerts"].as_array().cloned().unwrap_or_default();
    let taken = receiver.taken();
    let of_rule =
        taken.iter().flat_map(alerts).filter(|alert| alert["rule"] == rule && alert["kind"] == "breach");
    of_rule.filter_map(|alert| Some(alert["state"].as_str()?.to_owned())).collect()
}

fn state_of(lab: &Lab, rule: &str) -> Option<String> {
    let alerts = lab.server.json("/api/v1/alerts").ok()?;
    let watched = alerts["watched"].as_array()?.iter().find(|watched| watched["rule"] == rule)?.clone();
    Some(watched["state"].as_str()?.to_owned())
}

#[test]
fn an_owner_is_told_that_a_model_drifts() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let alertmanager = Alertmanager::start(folder.path())?;
    let pager = Receiver::start(2)?;
    let config = format!(
        "alerts.every = '500ms'
         alerts.receivers.am = {{ alertmanager = '{}', repeat = '1s' }}
         alerts.receivers.pager = {{ webhook = '{}', secret_file = '{}' }}
         alerts.owners.digits = {{ receivers = ['am', 'pager'], contact = 'vision@example.com' }}",
        alertmanager.url,
        pager.url,
        secret_file(folder.path())?,
    );
    let mut lab = Lab::configured(Broker::Embedded, &config)?;
    lab.add_device("kiosk", "")?;
    lab.first_release()?;
    let rules = folder.path().join("rules.toml");
    std::fs::write(
        &rules,
        "[[rules]]
         name = 'drifts'
         severity = 'critical'
         runbook = 'https://wiki.example/drift'
         when.feature_drift = { above = 0.25 }",
    )?;
    lab.server.operator(&["alert", "rules", "--add", text(&rules)])?;

    // As trained: nothing rings, and that nothing is known yet is no fine either.
    until("it is looked at", PATIENCE, || state_of(&lab, "drifts").filter(|state| state == "no_data"))?;
    ask(&lab.devices[0], |pixel| pixel)?;
    until("it is fine", PATIENCE, || state_of(&lab, "drifts").filter(|state| state == "fine"))?;

    // The camera is upside down in brightness.
    for _ in 0..3 {
        ask(&lab.devices[0], |pixel| 16.0 - pixel)?;
    }
    let alert = until("Alertmanager rings", PATIENCE, || alertmanager.active().ok()?.into_iter().next())?;
    assert_eq!(alert["labels"]["alertname"], "drifts");
    assert_eq!(alert["labels"]["owner"], "digits");
    assert_eq!(alert["labels"]["release"], "digits@1.0.0");
    assert_eq!(alert["annotations"]["contact"], "vision@example.com");
    assert_eq!(alert["annotations"]["runbook_url"], "https://wiki.example/drift");

    // The webhook failed twice, and then was told once, signed.
    until("the webhook is told", PATIENCE, || (told(&pager, "drifts") == ["firing"]).then_some(()))?;
    assert_eq!(pager.refused(), 2);
    let taken = pager.taken();
    assert!(taken.iter().all(|taken| taken.is_signed_with(SECRET)), "{taken:?}");
    assert!(!taken[0].is_signed_with("another secret of the same kind"));
    let alert = &taken[0].body["alerts"][0];
    assert!(alert["value"].as_f64().context("a distance")? > 0.25, "{alert}");
    assert!(alert["numbers"]["requests"].as_u64().context("counted")? > 100, "{alert}");
    assert!(alert["moved"][0]["name"].as_str().context("a feature")?.starts_with('p'), "{alert}");
    lab.server.operator(&["alert", "test", "pager"])?;

    // An engineer takes it over: nobody is told for a while, and it is still shown.
    let silence = ["alert", "silence", "--match", "rule=drifts", "--for", "1h", "--reason", "new camera"];
    let silence = lab.server.operator(&[&silence[..], &["--author", "ann"]].concat())?;
    let listed = lab.server.operator(&["alert", "list"])?;
    assert_eq!(listed["firing"][0]["silenced_by"], silence["id"]);
    assert_eq!(listed["silences"][0]["author"], "ann");
    lab.server.operator(&["alert", "unsilence", &silence["id"].to_string()])?;

    // Without the rule it is over, there too.
    lab.server.operator(&["alert", "rules", "--remove", "drifts"])?;
    until("Alertmanager is quiet", PATIENCE, || alertmanager.active().ok()?.is_empty().then_some(()))?;
    until("the webhook hears it", PATIENCE, || {
        (told(&pager, "drifts") == ["firing", "resolved"]).then_some(())
    })?;
    let notes = lab.server.operator(&["alert", "history"])?["notes"].clone();
    let changes: Vec<&Value> =
        notes.as_array().context("notes")?.iter().map(|note| &note["change"]).collect();
    assert_eq!(changes, ["fired", "gone"], "{notes}");
    assert!(!lab.server.said().contains(SECRET));
    Ok(())
}

#[test]
fn a_device_that_falls_silent_is_noticed_once_even_if_the_server_crashes_meanwhile() -> Result<()> {
    let pager = Receiver::start(0)?;
    let config = format!(
        "alerts.every = '500ms'
         alerts.default = ['pager']
         alerts.receivers.pager.webhook = '{}'
         [[alerts.rules]]
         name = 'silent'
         window = '15s'
         when.coverage = {{ below = '100%' }}",
        pager.url,
    );
    let mut lab = Lab::configured(Broker::Embedded, &config)?;
    lab.add_devices(2)?;
    lab.first_release()?;
    until("both report", PATIENCE, || state_of(&lab, "silent").filter(|state| state == "fine"))?;
    lab.devices[1].power_off();
    until("it is told", PATIENCE, || (told(&pager, "silent").last()? == "firing").then_some(()))?;
    let before = told(&pager, "silent").len();

    lab.server.crash_and_restart()?;
    until("it is known again", PATIENCE, || state_of(&lab, "silent").filter(|state| state == "firing"))?;
    lab.devices[1].power_on()?;
    until("it is over", PATIENCE, || (told(&pager, "silent").last()? == "resolved").then_some(()))?;
    let heard = told(&pager, "silent");
    assert_eq!(heard.get(before..).context("more")?, ["resolved"], "{heard:?}");
    let refused = lab.server.try_operator(&["alert", "rules", "--remove", "silent"])?;
    assert!(!refused.status.success(), "it stands in the configuration");
    Ok(())
}

#[test]
fn drift_asks_for_training_and_the_next_version_answers() -> Result<()> {
    let pipeline = Receiver::start(1)?;
    let config = format!(
        "alerts.every = '500ms'
         alerts.receivers.ci.webhook = '{}'
         [[triggers]]
         name = 'drift'
         models = ['digits']
         receivers = ['ci']
         when.feature_drift = {{ above = 0.25 }}",
        pipeline.url,
    );
    let mut lab = Lab::configured(Broker::Embedded, &config)?;
    lab.add_device("kiosk", "")?;
    lab.first_release()?;
    for _ in 0..3 {
        ask(&lab.devices[0], |pixel| 16.0 - pixel)?;
    }
    let call = until("the pipeline is called", PATIENCE, || pipeline.taken().into_iter().next())?;
    let trigger = &call.body["trigger"];
    assert_eq!((&trigger["id"], &trigger["release"]), (&json!("lab-1"), &json!("digits@1.0.0")));
    assert_eq!(trigger["lineage"]["git_commit"], "8cdeb562fb4380a0b8603df4772dc00a896940be");
    assert!(trigger["evidence"]["value"].as_f64().context("a distance")? > 0.25, "{trigger}");

    lab.server.operator(&["trigger", "ack", "lab-1", "--by", "ci"])?;
    let state = |lab: &Lab| -> Result<Value> {
        Ok(lab.server.operator(&["trigger", "list"])?["triggers"][0]["state"].clone())
    };
    assert_eq!(state(&lab)?, "acknowledged");
    let bundle = lab.owner.release_with("digits/v2", "answers = 'lab-1'", "")?;
    lab.server.publish(&bundle, &lab.owner.trust())?;
    assert_eq!(state(&lab)?, "answered");
    assert_eq!(lab.server.operator(&["trigger", "list"])?["triggers"][0]["answered_by"], "digits@2.0.0");
    assert_eq!(pipeline.taken().len(), 1, "asked once");
    Ok(())
}
