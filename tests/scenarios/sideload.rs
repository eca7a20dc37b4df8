//! A release on a stick, for a device without a network; and what else an engineer does there reaches the
//! office when the link is back.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;
use serin_tests::bundles::text;
use serin_tests::device::Device;
use serin_tests::lab::{Broker, Lab, PATIENCE};
use serin_tests::traffic::rows;
use serin_tests::until;

fn export(lab: &Lab, release: &str, name: &str) -> Result<PathBuf> {
    let stick = lab.folder().join(name);
    lab.server.operator(&["release", "export", release, "-o", text(&stick)])?;
    Ok(stick)
}

/// The refusal as JSON; the command must be refused.
fn refused(device: &Device, stick: &Path) -> Result<Value> {
    let output = device.try_engineer(&["sideload", text(stick), "--json"])?;
    anyhow::ensure!(!output.status.success(), "{} was taken", stick.display());
    serde_json::from_slice(&output.stderr)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

fn changed(stick: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<PathBuf> {
    let mut bytes = std::fs::read(stick)?;
    change(&mut bytes);
    let path = stick.with_file_name(name);
    std::fs::write(&path, bytes)?;
    Ok(path)
}

#[test]
fn field_engineer_brings_a_release_on_a_stick_without_network() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(1)?;
    lab.publish("digits/v1")?;
    let old = export(&lab, "digits@1.0.0", "old.parcel")?;
    lab.publish("digits/v2")?;
    let first = export(&lab, "digits@1.0.0", "first.parcel")?;
    let second = export(&lab, "digits@2.0.0", "second.parcel")?;
    lab.server.kill();

    // Nothing was ever assigned.
    let device = &lab.devices[0];
    let reply = device.engineer(&["sideload", text(&first)])?;
    assert!(reply["reply"] == "sideloaded" && device.runs("1.0.0"), "{reply}");
    assert_eq!(device.infer(&rows()?[..1])?["model_version"], "1.0.0");

    // What must not be taken is refused by name, and nothing changes.
    let tampered = changed(&second, "tampered.parcel", |bytes| {
        let at = bytes.len() - 100;
        bytes[at] ^= 1;
    })?;
    let cut = changed(&second, "cut.parcel", |bytes| bytes.truncate(bytes.len() - 100))?;
    for (stick, code, words) in [
        (&old, "not_trusted", "rollback"),
        (&tampered, "not_installed", "digest"),
        (&cut, "not_installed", "cut off"),
        (&PathBuf::from("/bin/sh"), "bad_file", "no file of"),
    ] {
        let refusal = refused(device, stick)?;
        assert_eq!(refusal["code"], code, "{refusal}");
        let message = refusal["message"].as_str().unwrap_or_default();
        assert!(message.contains(words), "{refusal}");
        assert!(refusal["next"].as_str().is_some_and(|next| !next.is_empty()), "{refusal}");
        assert!(device.runs("1.0.0"));
    }

    let reply = device.engineer(&["sideload", text(&second)])?;
    assert!(reply["reply"] == "sideloaded" && device.runs("2.0.0"), "{reply}");
    let status = device.status()?;
    assert!(!status["pinned_by"].is_null(), "{status:#}");
    lab.devices[0].power_off();
    lab.devices[0].power_on()?;
    let device = &lab.devices[0];
    until("it answers after the power cut", PATIENCE, || device.infer(&rows().ok()?[..1]).ok())?;
    assert!(device.runs("2.0.0"));

    // The office hears of it when the link is back, and leaves the device alone.
    lab.server.crash_and_restart()?;
    lab.until_told("device-01", &["brought digits@1.0.0"])?;
    lab.until_told("device-01", &["brought digits@2.0.0"])?;
    lab.until_told("device-01", &["Sideload", "rollback"])?;
    let shown = until("the pin is shown", PATIENCE, || {
        let shown = lab.server.json("/api/v1/devices/device-01").ok()?;
        (shown["pinned"] == true && shown["active"] == "digits@2.0.0").then_some(shown)
    })?;
    assert_eq!(shown["online"], true, "{shown:#}");
    let rollout = lab.server.roll_out("digits@1.0.0", serin_tests::lab::ALL_AT_ONCE)?;
    until("the rollout counts it as pinned", PATIENCE, || {
        let shown = lab.server.json(&format!("/api/v1/rollouts/{rollout}")).ok()?;
        (shown["devices"]["pinned"] == 1).then_some(())
    })?;
    let device = &lab.devices[0];
    assert!(device.runs("2.0.0"));
    device.engineer(&["unpin"])?;
    until("the unpinned device follows the fleet", PATIENCE, || device.runs("1.0.0").then_some(()))?;
    Ok(())
}

#[test]
fn another_publishers_release_is_refused_and_the_office_hears_of_it() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(1)?;
    let other = Lab::new(Broker::Embedded)?;
    other.publish("digits/v1")?;
    let stick = export(&other, "digits@1.0.0", "foreign.parcel")?;
    let refusal = refused(&lab.devices[0], &stick)?;
    assert_eq!(refusal["code"], "not_trusted", "{refusal}");
    assert!(refusal["message"].to_string().contains("another publisher"), "{refusal}");
    lab.until_told("device-01", &["another publisher"])?;
    Ok(())
}

#[test]
fn a_release_too_large_for_the_device_is_refused_with_the_numbers() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_device("device-01", "models.memory = '1MiB'")?;
    lab.publish("digits/v1")?;
    let stick = export(&lab, "digits@1.0.0", "large.parcel")?;
    let refusal = refused(&lab.devices[0], &stick)?;
    assert_eq!(refusal["code"], "not_admitted", "{refusal}");
    assert!(refusal["message"].to_string().contains("the budget is 1048576"), "{refusal}");
    Ok(())
}

#[test]
fn what_an_engineer_does_offline_reaches_the_office_with_his_user_id() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(1)?;
    lab.until_told("device-01", &["enrolled it"])?;
    lab.first_release()?;
    lab.publish("digits/v2")?;
    let stick = export(&lab, "digits@2.0.0", "second.parcel")?;
    lab.server.kill();
    let device = &lab.devices[0];
    device.engineer(&["pin"])?;
    device.engineer(&["unpin"])?;
    device.engineer(&["hold", "--for", "8h"])?;
    device.engineer(&["sideload", text(&stick)])?;
    device.engineer(&["rollback"])?;
    lab.server.crash_and_restart()?;
    let uid = format!("(user {})", rustix::process::getuid().as_raw());
    for act in
        ["pinned digits@1.0.0", "gave it back", "lets nothing change", "brought digits@2.0.0", "went back"]
    {
        lab.until_told("device-01", &[act, &uid])?;
    }
    Ok(())
}

#[test]
fn the_support_bundle_has_everything_but_what_is_secret() -> Result<()> {
    let mut lab = Lab::secure(Broker::Embedded)?;
    lab.add_devices(1)?;
    lab.first_release()?;
    let device = &lab.devices[0];
    let mut row = rows()?.remove(0);
    row[0] = 7.531_862;
    device.infer(&[row])?;
    let token = lab.server.operator(&["device", "invite", "device-01"])?;
    let token = token["token"].as_str().context("a token")?.to_owned();
    // Whatever comes of it.
    device.try_engineer(&["enroll", "--token", &token])?;
    let path = lab.folder().join("office.json.zst");
    device.engineer(&["support-bundle", "-o", text(&path)])?;
    let bundle = String::from_utf8(zstd::decode_all(std::fs::File::open(&path)?)?)?;
    let parsed: Value = serde_json::from_str(&bundle)?;
    for part in
        ["status", "history", "doctor", "verify", "configuration", "logs", "kernel", "memory", "program"]
    {
        assert!(!parsed[part].is_null(), "{part} is missing");
    }
    assert!(parsed["logs"]["lines"].as_array().is_some_and(|lines| !lines.is_empty()));
    assert_eq!(parsed["configuration"]["broker"]["tls"]["key"], "given");
    let secret = token.rsplit('-').next().context("a secret")?;
    let mut secrets = vec![secret.to_owned(), "7.53186".into(), "PRIVATE KEY".into(), "device.key".into()];
    let key = std::fs::read(device.folder.join("device.key"))?;
    secrets.push(key.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")));
    secrets.extend(String::from_utf8(key).ok().map(|text| text.trim().to_owned()));
    for secret in &secrets {
        assert!(!bundle.contains(secret.as_str()), "{secret} is in the bundle");
    }
    Ok(())
}

#[test]
fn an_engineer_reads_what_the_agent_logged() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(1)?;
    let output = lab.devices[0].try_engineer(&["logs", "-n", "500", "--json"])?;
    let lines = String::from_utf8(output.stdout)?;
    let first: Value = serde_json::from_str(lines.lines().next().context("a line")?)?;
    assert_eq!(first["number"], 1, "{first}");
    assert!(lines.contains("connected"), "{lines}");
    Ok(())
}

#[test]
fn only_what_devices_would_take_is_exported() -> Result<()> {
    let lab = Lab::new(Broker::Embedded)?;
    lab.publish("digits/v1")?;
    let path = lab.folder().join("x.parcel");
    let output = lab.server.try_operator(&["release", "export", "digits@9.9.9", "-o", text(&path)])?;
    assert!(!output.status.success() && !path.exists());
    export(&lab, "digits@1.0.0", "x.parcel")?;
    let before = std::fs::read(&path)?;
    let again = lab.server.try_operator(&["release", "export", "digits@1.0.0", "-o", text(&path)])?;
    assert!(!again.status.success(), "never over another file");
    assert_eq!(std::fs::read(&path)?, before);
    Ok(())
}
