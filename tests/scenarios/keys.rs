//! Keys are changed, stolen and kept elsewhere: the real command line, server and agent, and python-tuf beside
//! them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use ed25519_dalek::SigningKey;
use rumqttc::{Client, Event, Incoming, MqttOptions, QoS};
use serde_json::Value;
use serin_protocol::ids::Digest;
use serin_protocol::trust::metadata::TimestampMeta;
use serin_protocol::trust::{FileMeta, Metadata, MetadataVersion, Role, Snapshot, Timestamp};
use serin_tests::bundles::{fleet, text};
use serin_tests::lab::{ALL_AT_ONCE, Broker, Lab, PATIENCE};
use serin_tests::server::{FLEET, Server};
use tempfile::TempDir;

use crate::tuf_interop::script;

/// Far above any version that the server gives.
const ABSURD: u64 = 1 << 52;

fn data(lab: &Lab) -> PathBuf {
    lab.folder().join("server")
}

/// New keys of the server, named and signed by the publishers.
fn rotate_online(lab: &mut Lab) -> Result<()> {
    let made = fleet(&["keys", "rotate-online", "--data", text(&data(lab)), "--json"])?;
    let made: Vec<Value> = serde_json::from_str(&made)?;
    lab.server.crash_and_restart()?;
    for successor in &made {
        let word = |value: &Value| value.as_str().map(str::to_owned).context("a text");
        let (role, key) = (word(&successor["role"])?, word(&successor["key"])?);
        let old = word(&successor["before"][0])?;
        lab.owner.publisher(&["rotate", &role, "--add", &key, "--remove", &old])?;
        let by = if role == "fleet" { "targets" } else { "root" };
        lab.owner.sign(by, by)?;
    }
    lab.server.operator(&["trust", "publish", "--trust", text(&lab.owner.trust())]).map(drop)
}

fn second_release(lab: &Lab) -> Result<()> {
    lab.publish("digits/v2")?;
    let rollout = lab.server.roll_out("digits@2.0.0", ALL_AT_ONCE)?;
    lab.server.until_rollout_is(rollout, "completed", PATIENCE)?;
    assert_eq!(lab.running("2.0.0"), lab.devices.len());
    Ok(())
}

/// What python-tuf says to the release, at a time such as `+0 days`.
fn python_reads(lab: &Lab, version: &str, at: &str) -> Result<std::result::Result<(), String>> {
    let read = script("tuf_read.py");
    let mut command = Command::new("faketime");
    command.arg(at).arg(read.get_program()).args(read.get_args()).env("DONT_FAKE_MONOTONIC", "1");
    command.arg(lab.owner.root()).arg(format!("{}/tuf", lab.server.url));
    let read = command.arg(format!("models/digits/{version}.release")).output()?;
    let said = String::from_utf8_lossy(&read.stderr).into_owned();
    Ok(if read.status.success() { Ok(()) } else { Err(said) })
}

#[test]
fn a_fleet_follows_when_every_key_is_changed_and_an_owner_forbids_what_is_old() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(1)?;
    lab.first_release()?;
    rotate_online(&mut lab)?;
    // The publishers' own.
    for (role, old) in [("root", "root"), ("targets", "targets"), ("digits", "owner")] {
        let new = lab.owner.key(&format!("{old}-2"));
        fleet(&["keys", "generate", "--out", text(&new)])?;
        let public = |key: &Path| key.with_added_extension("pub");
        let (add, remove) = (public(&new), public(&lab.owner.key(old)));
        lab.owner.publisher(&["rotate", role, "--add", text(&add), "--remove", text(&remove)])?;
        match role {
            "root" => {
                let both = [text(&lab.owner.key("root")).to_owned(), text(&new).to_owned()];
                lab.owner.publisher(&["sign", "root", "--key", &both[0], &both[1]])?;
            }
            "targets" => {
                lab.owner.sign("root", "root-2")?;
                lab.owner.sign("targets", "targets-2")?;
            }
            _ => {
                lab.owner.sign("targets", "targets-2")?;
                lab.owner.sign("digits", "owner-2")?;
            }
        }
        lab.server.operator(&["trust", "publish", "--trust", text(&lab.owner.trust())])?;
    }
    assert_eq!(python_reads(&lab, "1.0.0", "+0 days")?, Ok(()));
    lab.owner.publisher(&["renew", "digits", "--expires", "30"])?;
    lab.owner.sign("digits", "owner-2")?;
    std::fs::rename(lab.owner.key("owner-2"), lab.owner.key("owner"))?;
    second_release(&lab)?;
    assert_eq!(python_reads(&lab, "2.0.0", "+0 days")?, Ok(()));
    let late = python_reads(&lab, "2.0.0", "+3 days")?.expect_err("the timestamp has expired");
    assert!(late.contains("expired"), "{late}");

    lab.owner.publisher(&["floor", "digits@2.0.0"])?;
    lab.owner.sign("digits", "owner")?;
    lab.server.operator(&["trust", "publish", "--trust", text(&lab.owner.trust())])?;
    lab.server.roll_out("digits@1.0.0", ALL_AT_ONCE)?;
    lab.until_told("device-01", &["floor"])?;
    assert_eq!(lab.running("2.0.0"), 1);
    Ok(())
}

/// The key of the server for `role`, as a thief has it.
fn stolen(lab: &Lab, role: &str) -> Result<SigningKey> {
    let text = std::fs::read_to_string(data(lab).join(format!("keys/{role}.key")))?;
    let seed: Digest = text.trim().parse()?;
    Ok(SigningKey::from_bytes(&seed.0))
}

/// Says it in the server's place, and waits until the broker has it.
fn say(port: u16, messages: &[(String, Vec<u8>)]) -> Result<()> {
    let mut options = MqttOptions::new("thief", "127.0.0.1", port);
    options.set_max_packet_size(300_000, 300_000);
    let (client, mut connection) = Client::new(options, 10);
    for (file, bytes) in messages {
        client.publish(format!("serin/1/{FLEET}/t/{file}"), QoS::AtLeastOnce, true, bytes.clone())?;
    }
    let mut taken = 0;
    for event in connection.iter() {
        if matches!(event?, Event::Incoming(Incoming::PubAck(_))) {
            taken += 1;
            if taken == messages.len() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Whether some file that the device trusts says this.
fn keeps(folder: &Path, what: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            keeps(&path, what)
        } else {
            std::fs::read_to_string(path).is_ok_and(|text| text.contains(what))
        }
    })
}

#[test]
fn a_fleet_whose_online_keys_were_stolen_and_versions_exhausted_recovers_with_new_keys() -> Result<()> {
    let mut lab = Lab::new(Broker::Mosquitto)?;
    lab.add_devices(1)?;
    lab.first_release()?;
    let timestamp = lab.server.get("/tuf/metadata/timestamp.json")?;
    let mut timestamp = Metadata::<Timestamp>::parse(&Role::Timestamp, timestamp.as_bytes())?.signed;
    let listed = timestamp.meta.snapshot.version;
    let snapshot = lab.server.get(&format!("/tuf/metadata/{listed}.snapshot.json"))?;
    let mut snapshot = Metadata::<Snapshot>::parse(&Role::Snapshot, snapshot.as_bytes())?.signed;
    lab.server.kill();
    let absurd = MetadataVersion(ABSURD.try_into()?);
    (snapshot.version, timestamp.version) = (absurd, absurd);
    let mut snapshot = Metadata::unsigned(&Role::Snapshot, snapshot)?;
    snapshot.sign(&Role::Snapshot, &stolen(&lab, "snapshot")?)?;
    let meta = FileMeta { version: absurd, length: None, hashes: None, ..timestamp.meta.snapshot };
    timestamp.meta = TimestampMeta { snapshot: meta };
    let mut timestamp = Metadata::unsigned(&Role::Timestamp, timestamp)?;
    timestamp.sign(&Role::Timestamp, &stolen(&lab, "timestamp")?)?;
    let files = [
        (format!("{ABSURD}.snapshot.json"), snapshot.to_bytes()),
        ("timestamp.json".to_owned(), timestamp.to_bytes()),
    ];
    say(lab.server.mqtt, &files)?;
    let trusted = lab.devices[0].folder.join("trust");
    serin_tests::until("the device has swallowed it", PATIENCE, || {
        keeps(&trusted, &ABSURD.to_string()).then_some(())
    })?;

    rotate_online(&mut lab)?;
    second_release(&lab)?;
    assert!(!keeps(&trusted, &ABSURD.to_string()), "nothing of it is trusted any more");
    Ok(())
}

#[test]
fn keys_in_a_key_service_sign_by_another_tool() -> Result<()> {
    let work = TempDir::new()?;
    let at = |name: &str| work.path().join(name).to_str().map(str::to_owned).context("plain names");
    let python = |arguments: &[&str]| -> Result<()> {
        let done = script("tuf_sign.py").args(arguments).output()?;
        anyhow::ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    };
    let server = Server::start(&work.path().join("server"), None)?;
    std::fs::write(work.path().join("online.json"), server.get("/api/v1/trust/online")?)?;
    for name in ["root", "owner"] {
        python(&["make", &at(name)?, &at(&format!("{name}.pem"))?])?;
    }
    fleet(&["keys", "generate", "--out", &at("targets")?])?;
    let trust = at("trust")?;
    let run = |arguments: &[&str]| fleet(&[&["trust", "--trust", &trust], arguments].concat());
    let sign_elsewhere = |role: &str, key: &str| -> Result<()> {
        let (draft, signed) = (format!("{trust}/staged/{role}.json"), at("signed.json")?);
        python(&["sign", &at(key)?, &draft, &signed])?;
        let said = run(&["merge", role, &signed])?;
        anyhow::ensure!(said.contains("complete"), "{said}");
        Ok(())
    };
    let (root, targets, owner) = (at("root.pem")?, at("targets.pub")?, at("owner.pem")?);
    run(&["init", "--online", &at("online.json")?, "--root-keys", &root, "--targets-keys", &targets])?;
    sign_elsewhere("root", "root")?;
    run(&["sign", "targets", "--key", &at("targets")?])?;
    run(&["delegate", "digits", "--keys", &owner])?;
    run(&["sign", "targets", "--key", &at("targets")?])?;
    sign_elsewhere("digits", "owner")?;
    run(&["renew", "root"])?;
    sign_elsewhere("root", "root")?;
    // The server reads it as a device would before it shows it.
    server.operator(&["trust", "publish", "--trust", &trust])?;
    assert!(server.get("/tuf/metadata/2.root.json")?.contains("ecdsa-sha2-nistp256"));
    // Another key's signature does not count, and is not kept.
    run(&["renew", "digits"])?;
    python(&["sign", &at("root")?, &format!("{trust}/staged/digits.json"), &at("signed.json")?])?;
    let said = run(&["merge", "digits", &at("signed.json")?])?;
    assert!(said.contains("0 of 1"), "{said}");
    Ok(())
}
