//! What must be refused, by name, reported upstream where there is an upstream, while the device goes on
//! answering with the version it had.

use std::time::Duration;

use anyhow::{Result, anyhow};
use rumqttc::{Client, Event, Incoming, MqttOptions, QoS};
use serin_protocol::envelope::WIRE_VERSION;
use serin_tests::bundles::{Owner, text};
use serin_tests::device::{Device, Provision};
use serin_tests::lab::{ALL_AT_ONCE, Broker, Lab, PATIENCE};
use serin_tests::server::FLEET;
use serin_tests::traffic::rows;

fn still_answers(lab: &Lab, version: &str) -> Result<()> {
    let answer = lab.devices[0].infer(&rows()?[..1])?;
    assert_eq!(answer["model_version"], version, "{answer}");
    Ok(())
}

/// Publishes as anybody could at a broker without access rules.
fn publish_as_anybody(port: u16, messages: &[(String, Vec<u8>)]) -> Result<()> {
    let mut options = MqttOptions::new("anybody", "127.0.0.1", port);
    options.set_max_packet_size(300_000, 300_000);
    let (client, mut connection) = Client::new(options, 100);
    for (topic, payload) in messages {
        client.publish(topic, QoS::AtLeastOnce, false, payload.clone())?;
    }
    let mut acknowledged = 0;
    while acknowledged < messages.len() {
        let event = connection
            .recv_timeout(Duration::from_secs(10))
            .map_err(|_| anyhow!("no answer from the broker"))??;
        acknowledged += usize::from(matches!(event, Event::Incoming(Incoming::PubAck(_))));
    }
    Ok(())
}

#[test]
fn malformed_forged_and_oversized_messages_are_refused_and_the_device_goes_on() -> Result<()> {
    let mut lab = Lab::new(Broker::Mosquitto)?;
    lab.add_devices(1)?;
    lab.first_release()?;
    let assign = format!("serin/1/{FLEET}/d/device-01/assign");
    let ack = format!("serin/1/{FLEET}/d/device-01/ack");
    let messages = [
        (assign.clone(), vec![WIRE_VERSION, 255, 255, 255]),
        (assign.clone(), vec![9; 20]),
        (assign, vec![1; 5000]),
        (ack, [&[WIRE_VERSION][..], b"nonsense"].concat()),
    ];
    publish_as_anybody(lab.server.mqtt, &messages)?;
    for words in
        [["refused", "malformed"], ["refused", "version 9"], ["refused", "at most 1024"], ["refused", "Ack"]]
    {
        lab.until_told("device-01", &words)?;
    }
    still_answers(&lab, "1.0.0")
}

#[test]
fn a_model_too_large_for_the_memory_budget_is_refused_with_the_numbers() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    // Room for version 1, and not for version 2 beside it; taking turns is not wanted.
    lab.add_device("device-01", "models.memory = '2MiB'\nmodels.swap = 'hot'")?;
    lab.first_release()?;
    lab.publish("digits/v2")?;
    lab.server.roll_out("digits@2.0.0", ALL_AT_ONCE)?;
    lab.until_told("device-01", &["2.0.0", "rejected", "bytes of memory", "2097152"])?;
    still_answers(&lab, "1.0.0")
}

#[test]
fn a_device_of_another_publisher_follows_nobody_here() -> Result<()> {
    let lab = Lab::new(Broker::Embedded)?;
    let other = Owner::new(&lab.folder().join("other"))?;
    other.begin(&lab.server)?;
    let provision = Provision { root: other.root(), ..lab.provision() };
    let device = Device::start(&lab.folder(), "device-01", &provision)?;
    lab.publish("digits/v1")?;
    let token = lab.server.operator(&["device", "invite"])?;
    let token = token["token"].as_str().unwrap_or_default().to_owned();
    let tried = serin_tests::until("the link is there", PATIENCE, || {
        let tried = device.try_engineer(&["enroll", "--token", &token]).ok()?;
        let error = String::from_utf8_lossy(&tried.stderr).into_owned();
        (!error.contains("cannot be reached")).then_some(error)
    })?;
    // The fleet may take it in; its answer, and what it orders, are not this device's fleet's.
    assert!(tried.contains("no answer that this device trusts: arbitrary content: targets"), "{tried}");
    lab.server.roll_out("digits@1.0.0", ALL_AT_ONCE)?;
    lab.until_told("device-01", &["refused", "arbitrary content", "targets"])?;
    assert_eq!(device.active(), None);
    Ok(())
}

#[test]
fn a_release_signed_by_a_stranger_is_not_published() -> Result<()> {
    let lab = Lab::new(Broker::Embedded)?;
    let stranger = Owner::new(&lab.folder().join("stranger"))?;
    stranger.begin(&lab.server)?;
    let bundle = stranger.release("digits/v1")?;
    let refused = |arguments: &[&str], why: &str| -> Result<()> {
        let output = lab.server.try_operator(arguments)?;
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(error.contains(why), "{error}");
        Ok(())
    };
    refused(&["release", "publish", text(&bundle)], "no owner's metadata here lists digits@1.0.0")?;
    refused(&["trust", "publish", "--trust", text(&stranger.trust())], "version 1 of root is here")
}

#[test]
fn a_changed_bundle_is_not_published() -> Result<()> {
    let lab = Lab::new(Broker::Embedded)?;
    let bundle = lab.owner.release("digits/v1")?;
    lab.server.operator(&["trust", "publish", "--trust", text(&lab.owner.trust())])?;
    let mut bytes = std::fs::read(&bundle)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&bundle, bytes)?;
    let output = lab.server.try_operator(&["release", "publish", text(&bundle)])?;
    assert_eq!(output.status.code(), Some(1));
    Ok(())
}

#[test]
fn a_misspelt_key_in_a_configuration_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("agent.toml");
    std::fs::write(&config, "device = 'a'\nmodels.memroy = '1MiB'\n")?;
    for (program, arguments) in [
        ("serin-agent", ["run", "--config", text(&config)]),
        ("serin-fleet", ["serve", "--config", text(&config)]),
    ] {
        let program = serin_tests::process::program(program)?;
        let output = std::process::Command::new(&program).args(arguments).output()?;
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("memroy") || error.contains("device"), "{error}");
    }
    Ok(())
}
