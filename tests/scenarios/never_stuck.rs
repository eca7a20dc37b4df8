//! A device that keeps crashing, one that is asked to hold back, one that is offline for long.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serin_tests::device::may_mount;
use serin_tests::lab::{ALL_AT_ONCE, Broker, Lab, PATIENCE};
use serin_tests::traffic::{Traffic, rows};
use serin_tests::until;

const TWO_ARE_A_LOOP: &str = "crash_loop = { restarts = 2, window = '10m' }";

/// What the gateway says when nothing answers.
fn refusal(gateway: u16) -> Result<(u16, String)> {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut answer = agent.get(format!("http://127.0.0.1:{gateway}/v2/models/digits")).call()?;
    Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?))
}

#[test]
fn an_agent_that_keeps_crashing_goes_back_and_then_runs_nothing_until_it_is_told_to() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_device("device-01", TWO_ARE_A_LOOP)?;
    lab.first_release()?;
    lab.publish("digits/v2")?;
    let rollout = lab.server.roll_out("digits@2.0.0", ALL_AT_ONCE)?;
    lab.server.until_rollout_is(rollout, "completed", PATIENCE)?;
    let crash = |lab: &mut Lab| -> Result<()> {
        for _ in 0..2 {
            lab.devices[0].power_off();
            lab.devices[0].power_on()?;
        }
        Ok(())
    };
    crash(&mut lab)?;
    assert!(lab.devices[0].runs("1.0.0"), "{:#}", lab.devices[0].status()?);
    lab.until_told("device-01", &["previous release"])?;
    until("version 1 answers", PATIENCE, || lab.devices[0].infer(&rows().ok()?[..1]).ok())?;

    crash(&mut lab)?;
    let status = lab.devices[0].status()?;
    assert!(status["safe_mode"] == true && status["active"]["worker"].is_null(), "{status:#}");
    let (code, why) = refusal(lab.devices[0].gateway)?;
    assert!(code == 503 && why.contains("safe mode"), "{code} {why}");
    let doctor = lab.devices[0].try_engineer(&["doctor"])?;
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("safe mode"));
    lab.until_told("device-01", &["safe mode"])?;
    let seen = |lab: &Lab| lab.server.json("/api/v1/devices/device-01");
    until("the server shows it", PATIENCE, || (seen(&lab).ok()?["safe_mode"] == true).then_some(()))?;

    // What was taken back comes back only by name.
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(said.contains("2.0.0 was taken back") && said.contains("rollback --to 2.0.0"), "{said}");
    let refused = lab.devices[0].try_engineer(&["rollback"])?;
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{why}");
    assert!(
        why.contains("the agent was started") && why.contains("next: `serin-agent rollback --to 2.0.0`"),
        "{why}"
    );
    let reply = lab.devices[0].engineer(&["rollback", "--to", "2.0.0"])?;
    assert!(reply.to_string().contains("2.0.0"), "{reply}");
    assert_eq!(lab.devices[0].infer(&rows()?[..1])?["model_version"], "2.0.0");
    until("the server shows it", PATIENCE, || (seen(&lab).ok()?["safe_mode"] == false).then_some(()))?;
    Ok(())
}

#[test]
fn a_device_that_is_asked_to_hold_back_transfers_nothing_until_it_is_told_to_go_on() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(1)?;
    lab.first_release()?;
    lab.server.operator(&["device", "pause", "device-01", "--for", "1h"])?;
    let paused = |lab: &Lab| {
        let status = lab.devices[0].status().unwrap_or_default();
        !status["paused_until"].is_null()
    };
    until("it holds back", PATIENCE, || paused(&lab).then_some(()))?;
    // Said again after a restart.
    lab.devices[0].stop();
    lab.devices[0].power_on()?;
    until("it still holds back", PATIENCE, || paused(&lab).then_some(()))?;

    lab.publish("digits/v2")?;
    let rollout = lab.server.roll_out("digits@2.0.0", ALL_AT_ONCE)?;
    until("the order is heard", PATIENCE, || {
        let status = lab.devices[0].status().ok()?;
        (status["candidate"]["version"] == "2.0.0").then_some(())
    })?;
    // Orders of an engineer are carried out, and wait to be told.
    lab.devices[0].engineer(&["hold", "--for", "1s"])?;
    let status = lab.devices[0].status()?;
    assert!(status["events_waiting"].as_u64() > Some(0), "{status:#}");
    // A second later nothing has come of what a link without a pause brings in milliseconds.
    until("the hold is over", PATIENCE, || {
        lab.devices[0].status().ok()?["held_until"].is_null().then_some(())
    })?;
    let status = lab.devices[0].status()?;
    assert_eq!(status["candidate"]["version"], "2.0.0", "{status:#}");
    assert!(lab.devices[0].runs("1.0.0"));
    for file in std::fs::read_dir(lab.devices[0].folder.join("partial"))? {
        assert_eq!(file?.metadata()?.len(), 0, "nothing was fetched");
    }

    lab.server.operator(&["device", "resume", "device-01"])?;
    lab.server.until_rollout_is(rollout, "completed", PATIENCE)?;
    assert!(lab.devices[0].runs("2.0.0"));
    let too_long = lab.server.try_operator(&["device", "pause", "device-01", "--for", "25h"])?;
    assert!(!too_long.status.success());
    Ok(())
}

/// Events of the device by number, as the server has them.
fn numbers(lab: &Lab) -> Result<Vec<(u64, String)>> {
    let detail = lab.server.json("/api/v1/devices/device-01")?;
    let events = detail["events"].as_array().context("events")?;
    let event = |event: &serde_json::Value| Some((event["number"].as_u64()?, event["kind"].as_str()?.into()));
    Ok(events.iter().filter_map(event).collect())
}

#[test]
fn everything_that_happened_offline_is_told_once_and_what_was_dropped_is_counted() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_device("device-01", "telemetry.backlog = '6KiB'")?;
    lab.first_release()?;
    let told = |lab: &Lab| {
        until("everything is told", PATIENCE, || {
            let status = lab.devices[0].status().ok()?;
            (status["link"]["connected"] == true && status["events_waiting"] == 0).then_some(())
        })
    };
    told(&lab)?;
    let before = numbers(&lab)?;

    lab.server.kill();
    let traffic = Traffic::start(&lab.gateways(), Duration::from_millis(50))?;
    for round in 0..12 {
        lab.devices[0].engineer(&["pin"])?;
        lab.devices[0].engineer(&["unpin"])?;
        match round % 4 {
            1 => {
                lab.devices[0].power_off();
                lab.devices[0].power_on()?;
            }
            3 => {
                lab.devices[0].stop();
                lab.devices[0].power_on()?;
            }
            _ => {}
        }
    }
    // Every window is a report: the budget is for two or three.
    until("reports are dropped", PATIENCE, || {
        let said = std::fs::read_to_string(lab.devices[0].folder.join("journal.losses")).ok()?;
        let dropped: u32 = said.trim().split(' ').next_back()?.parse().ok()?;
        (dropped > 0).then_some(())
    })?;
    drop(traffic);

    lab.server.crash_and_restart()?;
    told(&lab)?;
    let check = |lab: &Lab| -> Result<Vec<(u64, String)>> {
        let events = numbers(lab)?;
        let count = |kind: &str| events.iter().filter(|(_, of)| of == kind).count();
        assert_eq!((count("pinned"), count("unpinned")), (12, 12), "{events:?}");
        assert!(count("reports_dropped") >= 1, "{events:?}");
        assert!(
            events.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1),
            "numbered without gaps: {events:?}"
        );
        assert_eq!(events[..before.len()], before[..], "nothing told before has changed");
        Ok(events)
    };
    check(&lab)?;
    // Told anew by a device that lost its acknowledgement, and asked anew by a server that lost its session.
    lab.devices[0].power_off();
    lab.devices[0].power_on()?;
    lab.server.crash_and_restart()?;
    told(&lab)?;
    check(&lab)?;
    Ok(())
}

#[test]
fn a_device_whose_disk_has_become_read_only_goes_on_serving_and_telling() -> Result<()> {
    if !may_mount() {
        eprintln!("skipped: no mounts of one's own on this machine");
        return Ok(());
    }
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(1)?;
    lab.first_release()?;
    lab.devices[0].stop();
    lab.devices[0].power_on_with_a_read_only_disk()?;
    until("it answers", PATIENCE, || lab.devices[0].infer(&rows().ok()?[..1]).ok())?;
    lab.until_told("device-01", &["events are kept in memory", "Read-only"])?;
    let doctor = lab.devices[0].try_engineer(&["doctor"])?;
    let said = String::from_utf8_lossy(&doctor.stdout);
    assert!(!doctor.status.success() && said.contains("takes no events"), "{said}");
    // What cannot be written down is not done, and its refusal says so.
    let refused = lab.devices[0].try_engineer(&["pin"])?;
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && why.contains("Read-only"), "{why}");

    lab.devices[0].stop();
    lab.devices[0].power_on()?;
    assert!(lab.devices[0].try_engineer(&["pin"])?.status.success());
    lab.until_told("device-01", &["pinned"])?;
    lab.publish("digits/v2")?;
    lab.devices[0].engineer(&["unpin"])?;
    let rollout = lab.server.roll_out("digits@2.0.0", ALL_AT_ONCE)?;
    lab.server.until_rollout_is(rollout, "completed", PATIENCE)?;
    Ok(())
}
