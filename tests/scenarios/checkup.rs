//! What an engineer on site learns about a device that is well, cut off, or damaged.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result};
use serde_json::Value;
use serin_tests::device::Device;
use serin_tests::lab::{Broker, Lab, PATIENCE};
use serin_tests::until;

/// The level of each line, by what was looked at, and the exit code.
fn ask(device: &Device, command: &str) -> Result<(Value, Option<i32>)> {
    let output = device.try_engineer(&[command, "--json"])?;
    let answer: Value = serde_json::from_slice(&output.stdout).context("an answer")?;
    let lines = answer["lines"].as_array().cloned().unwrap_or_default();
    let level = |line: Value| (line["what"].as_str().unwrap_or_default().to_owned(), line["level"].clone());
    Ok((lines.into_iter().map(level).collect::<serde_json::Map<_, _>>().into(), output.status.code()))
}

#[test]
fn an_engineer_is_told_what_is_wrong_and_what_to_do() -> Result<()> {
    let mut lab = Lab::secure(Broker::Embedded)?;
    lab.add_devices(1)?;
    lab.first_release()?;
    let device = &lab.devices[0];
    // Events are acknowledged within a moment.
    let (levels, code) = until("all is well", PATIENCE, || {
        let (levels, code) = ask(device, "doctor").ok()?;
        (levels["fleet"] == "ok").then_some((levels, code))
    })?;
    for what in ["model", "rollback", "broker", "certificates", "trust", "clock", "disk"] {
        assert_eq!(levels[what], "ok", "{levels}");
    }
    assert_eq!(code, Some(0), "{levels}");
    let (levels, code) = ask(device, "verify")?;
    assert_eq!((&levels["active"], code), (&"ok".into(), Some(0)));

    lab.server.kill();
    let device = &lab.devices[0];
    let (levels, code) = until("the broker is missed", PATIENCE, || {
        let (levels, code) = ask(device, "doctor").ok()?;
        (levels["broker"] == "fail").then_some((levels, code))
    })?;
    assert_eq!((&levels["model"], code), (&"ok".into(), Some(1)), "the model answers all the same");

    // A bit has turned on the disk.
    let largest = std::fs::read_dir(device.folder.join("files"))?
        .filter_map(|entry| Some((entry.as_ref().ok()?.metadata().ok()?.len(), entry.ok()?.path())))
        .max()
        .context("files are there")?;
    let mut bytes = std::fs::read(&largest.1)?;
    bytes[100] ^= 1;
    std::fs::write(&largest.1, bytes)?;
    let output = device.try_engineer(&["verify"])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("fail  active") && said.contains("next: have the fleet roll it out again"),
        "{said}"
    );
    Ok(())
}

/// What the agent has made is for its user alone, but for the way to the socket.
#[test]
fn only_the_socket_is_for_others() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(1)?;
    lab.first_release()?;
    let ours = ["agent.toml", "agent.log", "agent.sock"];
    let mut folders = vec![lab.devices[0].folder.clone()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let (path, found) = (entry.path(), entry.metadata()?);
            if ours.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            assert_eq!(found.permissions().mode() & 0o077, 0, "{}", path.display());
            seen += 1;
            if found.is_dir() {
                folders.push(path);
            }
        }
    }
    assert!(seen > 10, "{seen}");
    let socket = std::fs::metadata(lab.devices[0].folder.join("agent.sock"))?;
    assert_eq!(socket.permissions().mode() & 0o777, 0o660);
    Ok(())
}
