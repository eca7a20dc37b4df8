//! What turned out to be true reaches the devices later than the predictions, and the fleet learns how right its
//! releases are, each where it was asked.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use serin_tests::bundles::text;
use serin_tests::device::Device;
use serin_tests::lab::{ALL_AT_ONCE, Broker, Lab, PATIENCE};
use serin_tests::traffic::{rows, truths};
use serin_tests::until;

/// Rows that each device is asked about.
const ASKED: usize = 150;

/// Half of the devices get the release and stay so.
const HALF: &str = "
    [strategy.canary]
    control = '50%'
    [[strategy.canary.stages]]
    share = '50%'
    bake = '1h'
    min_devices = 1
    min_requests = 1
    [[strategy.canary.stages]]
    share = '100%'
    bake = '1h'
    min_devices = 1
    min_requests = 0
    [probation]
    duration = '1s'
    max_error_rate = '5%'
    min_requests = 20
    max_worker_deaths = 1
";

/// Has a model say how torn it is, and tells its requests apart by their site, which the reference data knows too.
pub(crate) fn by_site(folder: &Path) -> Result<()> {
    let declaration = std::fs::read_to_string(folder.join("serin.toml"))?;
    let declaration = declaration.replace("classes = 10", "classes = 10\nprobabilities = \"probabilities\"");
    let watch = "
[watch.segments]
parameter = \"site\"
named = [{ name = \"lisbon\", values = [\"lisbon\"] }, { name = \"porto\", values = [\"porto\"] }]
";
    std::fs::write(folder.join("serin.toml"), format!("{declaration}{watch}"))?;
    let reference = std::fs::read_to_string(folder.join("reference.csv"))?;
    let sites = ["lisbon", "porto", ""].iter().cycle();
    let mut lines = reference.lines();
    let mut with_site = format!("{},site\n", lines.next().context("a header")?);
    lines.zip(sites).try_for_each(|(line, site)| writeln!(with_site, "{line},{site}"))?;
    Ok(std::fs::write(folder.join("reference.csv"), with_site)?)
}

pub(crate) fn infer(device: &Device, id: &str, site: &str, row: &[f32]) -> Result<Value> {
    let body = json!({
        "id": id, "parameters": { "site": site },
        "inputs": [{ "name": "pixels", "datatype": "FP32", "shape": [1, 64], "data": row }],
    });
    let url = format!("http://127.0.0.1:{}/v2/models/digits/infer", device.gateway);
    Ok(ureq::post(url).send_json(body)?.body_mut().read_json()?)
}

pub(crate) fn site(at: usize) -> &'static str {
    ["lisbon", "porto", "elsewhere"][at % 3]
}

#[test]
fn truth_arrives_late_and_the_server_shows_how_right_releases_are_by_segment() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(2)?;
    lab.publish_changed("digits/v1", by_site)?;
    let rollout = lab.server.roll_out("digits@1.0.0", ALL_AT_ONCE)?;
    lab.server.until_rollout_is(rollout, "completed", PATIENCE)?;
    lab.publish_changed("digits/v2", by_site)?;
    lab.server.roll_out("digits@2.0.0", HALF)?;
    until("one has it", PATIENCE, || (lab.running("2.0.0") == 1).then_some(()))?;

    // What is asked from now on is in windows that began with the rollout under way.
    until("both have reported since", PATIENCE, || {
        let drift = lab.server.operator(&["drift", "digits@2.0.0"]).ok()?;
        (drift["fleet"]["devices"] == 1 && drift["control"]["devices"].as_u64()? >= 1).then_some(())
    })?;

    // Both are asked the same; the truth becomes known afterwards.
    let (rows, truths) = (rows()?, truths()?);
    for device in &lab.devices {
        for (at, row) in rows.iter().take(ASKED).enumerate() {
            infer(device, &format!("order-{at}"), site(at), row)?;
        }
    }
    for device in &lab.devices {
        let mut csv = "id,value\n".to_owned();
        (1..ASKED).try_for_each(|at| writeln!(csv, "order-{at},{}", truths[at]))?;
        let path = device.folder.join("labels.csv");
        std::fs::write(&path, csv)?;
        let told = device.engineer(&["label", "--file", text(&path)])?;
        assert_eq!(told["taken"], ASKED - 1, "{told}");
        // By its name, and over HTTP, as an app would.
        let names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
        let label = json!({ "labels": [
            { "id": "order-0", "value": names[usize::from(truths[0])] },
            { "id": "order-1", "value": truths[1] },
            { "id": "order-999", "value": 1 },
        ] });
        let url = format!("http://127.0.0.1:{}/v2/labels", device.gateway);
        let told: Value = ureq::post(url).send_json(label)?.body_mut().read_json()?;
        let codes: Vec<_> =
            told["refused"].as_array().context("a list")?.iter().map(|one| &one["code"]).collect();
        assert!(told["taken"] == 1 && codes == ["known", "unknown"], "{told}");
        let unknown = device.try_engineer(&["label", "order-1000", "4"])?;
        assert_eq!(unknown.status.code(), Some(1));
        let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
        assert!(said.contains("no request of this name is remembered"), "{said}");
    }

    let drift = until("the server has heard all of it", PATIENCE, || {
        let drift = lab.server.operator(&["drift", "digits@2.0.0"]).ok()?;
        let all = |quality: &Value| quality["labelled"] == ASKED;
        (all(&drift["quality"]) && all(&drift["control_quality"])).then_some(drift)
    })?;
    let number = |value: &Value| value.as_f64().with_context(|| format!("no number: {drift}"));
    let (mine, control) = (&drift["quality"], &drift["control_quality"]);
    let (right, right_before) = (number(&mine["accuracy"]["value"])?, number(&control["accuracy"]["value"])?);
    assert!(right > 0.85 && right_before > 0.85, "{drift}");
    for quality in [mine, control] {
        assert!(number(&quality["calibration_error"])? < 0.2 && number(&quality["brier"])? < 0.2, "{drift}");
    }
    // On the same rows the difference is what it is; that few labels leave room on both sides of it.
    let difference = &mine["against_control"];
    let (low, high) = (number(&difference["low"])?, number(&difference["high"])?);
    assert!((number(&difference["value"])? - (right - right_before)).abs() < 1e-9, "{drift}");
    assert!(low < right - right_before - 0.02 && high > right - right_before + 0.02, "{drift}");
    assert!(number(&drift["entropy"]["psi"])? >= 0.0 && drift["entropy"]["seen"] == ASKED, "{drift}");
    let segments = drift["segments"].as_array().context("a list")?;
    let shown: Vec<_> =
        segments.iter().map(|one| (&one["name"], &one["requests"], &one["quality"]["labelled"])).collect();
    let expected = [json!("lisbon"), json!("porto"), json!("other")];
    let third = json!(ASKED / 3);
    assert_eq!(shown, expected.iter().map(|name| (name, &third, &third)).collect::<Vec<_>>());
    let porto = lab.server.operator(&["drift", "digits@2.0.0", "--segment", "porto"])?;
    assert_eq!(porto["name"], "porto");
    Ok(())
}

/// Tells one device that the request's class was 3, and returns how many labels were taken, and why not.
fn label(device: &Device, id: &str) -> Result<(u64, Vec<String>)> {
    let label = json!({ "labels": [{ "id": id, "value": 3 }] });
    let url = format!("http://127.0.0.1:{}/v2/labels", device.gateway);
    let told: Value = ureq::post(url).send_json(label)?.body_mut().read_json()?;
    let refused = told["refused"].as_array().context("a list")?;
    let codes = refused.iter().map(|one| one["code"].as_str().unwrap_or_default().to_owned());
    Ok((told["taken"].as_u64().context("a number")?, codes.collect()))
}

#[test]
fn a_label_finds_its_prediction_after_the_agent_was_restarted() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(1)?;
    lab.first_release()?;
    let rows = rows()?;
    for (at, row) in rows.iter().take(6).enumerate() {
        infer(&lab.devices[0], &format!("order-{at}"), "lisbon", row)?;
    }
    assert_eq!(label(&lab.devices[0], "order-0")?, (1, vec![]));

    lab.devices[0].stop();
    lab.devices[0].power_on()?;
    until("it answers again", PATIENCE, || lab.devices[0].runs("1.0.0").then_some(()))?;
    assert_eq!(label(&lab.devices[0], "order-0")?, (0, vec!["known".to_owned()]), "it counts once");
    assert_eq!(label(&lab.devices[0], "order-1")?, (1, vec![]));

    // Its release is not the active one any more, and the device is started anew once more.
    lab.publish("digits/v2")?;
    let rollout = lab.server.roll_out("digits@2.0.0", ALL_AT_ONCE)?;
    lab.server.until_rollout_is(rollout, "completed", PATIENCE)?;
    infer(&lab.devices[0], "order-6", "lisbon", &rows[6])?;
    lab.devices[0].stop();
    lab.devices[0].power_on()?;
    assert_eq!(label(&lab.devices[0], "order-2")?, (1, vec![]));
    assert_eq!(label(&lab.devices[0], "order-6")?, (1, vec![]));
    let labelled = |release: &str, count: u64| {
        until(&format!("the server knows of {count} labels of {release}"), PATIENCE, || {
            let drift = lab.server.operator(&["drift", release]).ok()?;
            (drift["quality"]["labelled"] == count).then_some(())
        })
    };
    labelled("digits@1.0.0", 3)?;
    labelled("digits@2.0.0", 1)?;

    // What was told of is on disk with the report that counts it: without a stop, too, it counts once.
    lab.devices[0].power_off();
    lab.devices[0].power_on()?;
    assert_eq!(label(&lab.devices[0], "order-2")?, (0, vec!["known".to_owned()]));
    assert_eq!(label(&lab.devices[0], "order-3")?, (1, vec![]));
    labelled("digits@1.0.0", 4)?;

    // A journal that cannot be read takes them along, and nothing else.
    lab.devices[0].stop();
    std::fs::write(lab.devices[0].folder.join("journal/conf"), b"no configuration of sled's")?;
    lab.devices[0].power_on()?;
    assert_eq!(label(&lab.devices[0], "order-4")?, (0, vec!["unknown".to_owned()]));
    until("it answers as ever", PATIENCE, || infer(&lab.devices[0], "order-7", "lisbon", &rows[7]).ok())?;
    assert!(lab.devices[0].runs("2.0.0"));
    assert_eq!(label(&lab.devices[0], "order-7")?, (1, vec![]));
    Ok(())
}
