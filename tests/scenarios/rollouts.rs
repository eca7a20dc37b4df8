//! Rolling out, rolling back, and the engineer on site.

use std::time::Duration;

use anyhow::Result;
use serin_tests::bundles::text;
use serin_tests::lab::{ALL_AT_ONCE, Broker, CANARY, Lab, PATIENCE};
use serin_tests::traffic::{Traffic, rows};
use serin_tests::until;

/// The main job, from the first release to an engineer's rollback without a network.
fn main_job(broker: Broker) -> Result<()> {
    let mut lab = Lab::new(broker)?;
    lab.add_devices(8)?;
    lab.first_release()?;
    assert_eq!(lab.running("1.0.0"), 8);
    let answer = lab.devices[0].infer(&rows()?[..3])?;
    assert_eq!(answer["model_version"], "1.0.0", "{answer}");

    let traffic = Traffic::start(&lab.gateways(), Duration::from_millis(15))?;
    lab.publish("digits/v2")?;
    let good = lab.server.roll_out("digits@2.0.0", CANARY)?;
    lab.server.until_rollout_is(good, "completed", PATIENCE)?;
    assert_eq!(lab.running("2.0.0"), 8);

    lab.publish("digits/v3")?;
    let bad = lab.server.roll_out("digits@3.0.0", CANARY)?;
    let rolled_back = lab.server.until_rollout_is(bad, "rolled back", PATIENCE)?;
    let verdicts = rolled_back["verdicts"].as_array().cloned().unwrap_or_default();
    let sentence = |verdict: &serde_json::Value| verdict["sentence"].as_str().unwrap_or_default().to_owned();
    let said: Vec<String> = verdicts.iter().map(sentence).collect();
    assert!(said.iter().any(|sentence| sentence.contains("predicted classes moved")), "{said:?}");
    until("everyone is back at version 2", PATIENCE, || (lab.running("2.0.0") == 8).then_some(()))?;

    let answered = traffic.answered.load(std::sync::atomic::Ordering::Relaxed);
    let failed = traffic.failed.load(std::sync::atomic::Ordering::Relaxed);
    drop(traffic);
    assert!(answered > 500, "{answered} requests were answered");
    assert_eq!(failed, 0, "requests failed while releases were switched");

    engineer_without_network(&mut lab)
}

fn engineer_without_network(lab: &mut Lab) -> Result<()> {
    // One that never saw version 3: its previous release is version 1.
    let keeps_one = |device: &serin_tests::device::Device| {
        let status = device.status().unwrap_or_default();
        status["previous"]["release"].to_string().contains("1.0.0")
    };
    let at = lab.devices.iter().position(keeps_one).expect("the control group never had version 3");
    lab.server.kill();
    drop(lab.mosquitto.take());
    let device = &mut lab.devices[at];
    let reply = device.engineer(&["rollback"])?;
    assert!(reply.to_string().contains("1.0.0"), "{reply}");
    assert!(device.runs("1.0.0"));
    let answer = device.infer(&rows()?[..1])?;
    assert_eq!(answer["model_version"], "1.0.0", "{answer}");
    // The pin and the version survive a power cut.
    device.power_off();
    device.power_on()?;
    let status = device.status()?;
    assert!(device.runs("1.0.0"), "{status:#}");
    assert!(!status["pinned_by"].is_null(), "{status:#}");
    until("it answers after the power cut", PATIENCE, || device.infer(&rows().ok()?[..1]).ok())?;
    Ok(())
}

#[test]
fn main_job_with_the_embedded_broker() -> Result<()> {
    main_job(Broker::Embedded)
}

#[test]
fn main_job_with_mosquitto() -> Result<()> {
    main_job(Broker::Mosquitto)
}

#[test]
fn a_pinned_device_refuses_the_fleet_until_it_is_unpinned_and_then_follows() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(2)?;
    lab.first_release()?;
    lab.devices[0].engineer(&["pin"])?;
    lab.publish("digits/v2")?;
    lab.server.roll_out("digits@2.0.0", serin_tests::lab::ALL_AT_ONCE)?;
    until("the other device follows", PATIENCE, || lab.devices[1].runs("2.0.0").then_some(()))?;
    assert!(lab.devices[0].runs("1.0.0"));
    lab.devices[0].engineer(&["unpin"])?;
    until("the unpinned device follows", PATIENCE, || lab.devices[0].runs("2.0.0").then_some(()))?;
    Ok(())
}

#[test]
fn a_dying_worker_on_probation_brings_the_previous_release_back() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(1)?;
    lab.first_release()?;
    lab.publish("digits/v2")?;
    let patient = serin_tests::lab::ALL_AT_ONCE.replace("duration = '1s'", "duration = '60s'");
    lab.server.roll_out("digits@2.0.0", &patient)?;
    let device = &lab.devices[0];
    let worker = until("version 2 is on probation", PATIENCE, || {
        let status = device.status().ok()?;
        (device.runs("2.0.0") && status["phase"] == "probation")
            .then(|| status["active"]["worker"]["pid"].as_i64())?
    })?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(worker)?).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    until("version 1 is back", PATIENCE, || device.runs("1.0.0").then_some(()))?;
    lab.until_told("device-01", &["2.0.0", "rolled back", "signal 9"])?;
    assert_eq!(device.infer(&rows()?[..1])?["model_version"], "1.0.0");
    Ok(())
}

#[test]
fn a_model_that_bursts_on_a_rare_row_costs_its_worker_and_no_answer() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(1)?;
    lab.first_release()?;
    lab.publish("broken/bursts")?;
    let rollout = lab.server.roll_out("digits@4.0.0", serin_tests::lab::ALL_AT_ONCE)?;
    lab.server.until_rollout_is(rollout, "completed", PATIENCE)?;
    let device = &lab.devices[0];
    let usual = &rows()?[..1];
    assert_eq!(device.infer(usual)?["model_version"], "4.0.0");
    let mut rare = usual.to_vec();
    rare[0][0] = 16.0;
    // Version 1 answers it, as version 4 died of it.
    assert_eq!(device.infer(&rare)?["model_version"], "1.0.0");
    lab.until_told("device-01", &["4.0.0", "rolled back", "memory limit"])?;
    let device = &lab.devices[0];
    assert_eq!(device.infer(usual)?["model_version"], "1.0.0");
    assert_eq!(device.infer(&rare)?["model_version"], "1.0.0");
    Ok(())
}

#[test]
fn a_row_that_makes_the_runtime_panic_is_an_error_and_costs_no_worker() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(1)?;
    lab.first_release()?;
    lab.publish("broken/picks")?;
    let rollout = lab.server.roll_out("digits@5.0.0", serin_tests::lab::ALL_AT_ONCE)?;
    lab.server.until_rollout_is(rollout, "completed", PATIENCE)?;
    let device = &lab.devices[0];
    let worker = || anyhow::Ok(device.status()?["active"]["worker"]["pid"].clone());
    let before = worker()?;
    let usual = rows()?[..2].to_vec();
    assert_eq!(device.infer(&usual)?["model_version"], "5.0.0");
    // A place that the table does not have, alone and among others.
    let mut rare = usual.clone();
    rare[1][0] = 16.0;
    for rows in [&rare[1..], &rare] {
        let error = device.infer(rows).expect_err("there is nothing to pick").to_string();
        assert!(error.contains("500"), "{error}");
        assert_eq!(device.infer(&usual)?["model_version"], "5.0.0");
    }
    assert_eq!(worker()?, before);
    assert!(device.runs("5.0.0"));
    Ok(())
}

#[test]
fn devices_that_stop_or_lose_power_are_shown_as_offline_and_come_back() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(2)?;
    let online = |lab: &Lab, name: &str| {
        let device = lab.server.json(&format!("/api/v1/devices/{name}"))?;
        anyhow::Ok(device["online"] == true)
    };
    lab.devices[0].stop();
    lab.devices[1].power_off();
    for name in ["device-01", "device-02"] {
        until("it is offline", PATIENCE, || (!online(&lab, name).ok()?).then_some(()))?;
    }
    for device in &mut lab.devices {
        device.power_on()?;
    }
    for name in ["device-01", "device-02"] {
        until("it is back", PATIENCE, || online(&lab, name).ok()?.then_some(()))?;
    }
    Ok(())
}

#[test]
fn on_a_device_with_memory_for_one_release_they_take_turns_and_no_app_hears_of_it() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(1)?;
    lab.first_release()?;
    let limit = lab.devices[0].status()?["active"]["memory_limit"].as_u64().expect("a number");
    lab.devices[0].stop();
    let config = lab.devices[0].folder.join("agent.toml");
    let text = std::fs::read_to_string(&config)?;
    std::fs::write(&config, format!("{text}models.memory = '{}B'\n", limit + limit / 2))?;
    lab.devices[0].power_on()?;
    until("version 1 answers", PATIENCE, || lab.devices[0].infer(&rows().ok()?[..1]).ok())?;

    let traffic = Traffic::start(&lab.gateways(), Duration::from_millis(5))?;
    lab.publish("digits/v2")?;
    let rollout = lab.server.roll_out("digits@2.0.0", ALL_AT_ONCE)?;
    lab.server.until_rollout_is(rollout, "completed", PATIENCE)?;
    let status = lab.devices[0].status()?;
    assert!(status["previous"]["worker"].is_null(), "there is no memory to keep it warm: {status:#}");
    lab.devices[0].engineer(&["rollback"])?;
    assert_eq!(lab.devices[0].infer(&rows()?[..1])?["model_version"], "1.0.0");
    assert_eq!(traffic.failed.load(std::sync::atomic::Ordering::Relaxed), 0);
    Ok(())
}

#[test]
fn two_groups_of_devices_get_their_releases_side_by_side() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(4)?;
    for (device, kind) in lab.devices.iter().zip(["camera", "camera", "door", "door"]) {
        lab.server.operator(&["device", "tag", &device.name, &format!("kind={kind}")])?;
    }
    lab.publish("digits/v1")?;
    lab.publish("digits/v2")?;
    // Long enough that the first is still under way when the second starts.
    let plan = |kind: &str| {
        let slow = ALL_AT_ONCE.replace("bake = '1s'", "bake = '5s'");
        format!("{slow}\n[who]\ntags = {{ kind = '{kind}' }}")
    };
    let cameras = lab.server.roll_out("digits@1.0.0", &plan("camera"))?;
    let doors = lab.server.roll_out("digits@2.0.0", &plan("door"))?;
    assert_eq!(lab.server.rollout(cameras)?["state"], "running");
    // A third would have devices of the first.
    let path = lab.folder().join("third.toml");
    std::fs::write(&path, plan("camera"))?;
    let third = ["rollout", "start", "--release", "digits@2.0.0", "--plan", text(&path)];
    let refused = lab.server.try_operator(&third)?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("a device is in one rollout at a time"), "{said}");

    for rollout in [cameras, doors] {
        lab.server.until_rollout_is(rollout, "completed", PATIENCE)?;
    }
    assert_eq!((lab.running("1.0.0"), lab.running("2.0.0")), (2, 2));
    Ok(())
}
