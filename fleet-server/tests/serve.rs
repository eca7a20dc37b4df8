//! The real server process with real MQTT clients as devices and the real command line as operator.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

#[path = "serve/device.rs"]
mod device;
#[path = "serve/publisher.rs"]
mod publisher;
#[path = "serve/release.rs"]
mod release;
#[path = "serve/server.rs"]
mod server;

use std::process::Stdio;
use std::time::Duration;

use rumqttc::{Client, Event, Incoming, QoS};
use serde_json::Value;
use serin_protocol::chunk::ChunkMap;
use serin_protocol::topic::{FileName, Topic};

use device::{FakeDevice, fleet, options};
use release::{Packed, pack};
use server::{Server, until};

const ALL_AT_ONCE: &str = "
    [[strategy.canary.stages]]
    share = '100%'
    bake = '200ms'
    min_devices = 1
    min_requests = 0
";

const CANARY: &str = "
    [strategy.canary]
    control = '30%'
    [[strategy.canary.stages]]
    share = '33%'
    bake = '1s'
    min_devices = 2
    min_requests = 60
    [[strategy.canary.stages]]
    share = '100%'
    bake = '300ms'
    min_devices = 2
    min_requests = 60
    [gates.predictions]
    threshold = 0.5
    hard = 0.5
    on_breach = 'roll_back'
";

fn devices(server: &Server) -> Vec<Value> {
    server.get("/api/v1/devices")["devices"].as_array().expect("a list").clone()
}

fn running(server: &Server, release: &str) -> usize {
    devices(server).iter().filter(|device| device["active"] == release).count()
}

/// The devices that were ever told anything about `release`.
fn touched(server: &Server, release: &str) -> usize {
    let about = |event: &Value| event["release"] == release;
    let of_device = |device: &&Value| {
        let detail = server.get(&format!("/api/v1/devices/{}", device["id"].as_str().expect("an id")));
        detail["events"].as_array().expect("a list").iter().any(about)
    };
    devices(server).iter().filter(of_device).count()
}

/// Subscribes to a topic and returns what is retained there.
fn fetch(port: u16, topics: &[Topic]) -> Vec<Vec<u8>> {
    let (client, mut connection) = Client::new(options("edge-fetches", port), 100);
    let names: Vec<_> = topics.iter().map(|topic| topic.name(&fleet()).as_str().to_owned()).collect();
    let mut found = vec![None; names.len()];
    for name in &names {
        client.try_subscribe(name, QoS::AtLeastOnce).expect("queued");
    }
    until("all is fetched", || {
        if let Ok(Ok(Event::Incoming(Incoming::Publish(publish)))) =
            connection.recv_timeout(Duration::from_millis(50))
        {
            let at = names.iter().position(|name| *name == publish.topic).expect("asked for");
            found[at] = Some(publish.payload.to_vec());
        }
        found.iter().all(Option::is_some).then_some(())
    });
    found.into_iter().map(Option::unwrap_or_default).collect()
}

fn chunk_topics(packed: &Packed) -> Vec<Topic> {
    let object = packed.release.bundle;
    let count = ChunkMap::new(object.size).expect("not empty").count();
    (0..count).map(|index| Topic::Chunk { object: object.digest, index }).collect()
}

#[test]
fn a_canary_survives_a_server_crash_and_a_bad_release_is_taken_back_by_its_gate() {
    let folder = tempfile::tempdir().expect("folder");
    let mut server = Server::start(folder.path(), None);
    let first_release = pack("1", 1000);
    let profile = first_release.profile.clone();
    let _devices: Vec<_> = (1..=6).map(|number| FakeDevice::start(number, &server, &profile)).collect();
    let online = |server: &Server| devices(server).iter().filter(|device| device["online"] == true).count();
    until("six devices are there", || (online(&server) == 6).then_some(()));

    // A first release, to all at once.
    server.publish(&first_release);
    let first = server.roll_out("digits@1", ALL_AT_ONCE);
    server.until_rollout_is(first, "completed");
    assert_eq!(running(&server, "digits@1"), 6);

    // A better one by canary; the plug is pulled as soon as the canary has it.
    server.publish(&pack("2", 300_000));
    let second = server.roll_out("digits@2", CANARY);
    until("the canary has it", || (running(&server, "digits@2") == 2).then_some(()));
    let before = server.rollout(second);
    assert_eq!(before["stage"], 0);
    server.crash_and_restart();
    let after = server.rollout(second);
    assert_eq!((&after["stage"], &after["entered"]), (&before["stage"], &before["entered"]));
    assert_eq!(after["devices"]["exposed"], 2);
    let done = server.until_rollout_is(second, "completed");
    until("all devices say that they run it", || (running(&server, "digits@2") == 6).then_some(()));
    let verdicts = done["verdicts"].as_array().expect("a list");
    assert!(verdicts.iter().any(|verdict| verdict["decision"] == "promote"), "{verdicts:#?}");

    // A broken one; somebody watches.
    server.publish(&pack(device::BROKEN, 1000));
    let third = server.roll_out("digits@3", CANARY);
    let number = third.to_string();
    let watch = server.command(&["rollout", "status", &number, "--watch"]).stdout(Stdio::piped()).spawn();
    let watch = watch.expect("starts");
    let over = server.until_rollout_is(third, "rolled back");
    let verdicts = over["verdicts"].to_string();
    assert!(verdicts.contains("predicted classes"), "{verdicts}");
    assert!(verdicts.contains("2 devices returned within"), "how long it took is on record: {verdicts}");
    until("all devices are back", || (running(&server, "digits@2") == 6).then_some(()));
    assert_eq!(touched(&server, "digits@3"), 2, "only the canary ever had it");
    let watched = watch.wait_with_output().expect("ends by itself");
    let watched = String::from_utf8_lossy(&watched.stdout);
    assert!(watched.contains("rolled back"), "{watched}");

    let drift = server.get("/api/v1/drift?release=digits@3");
    assert_eq!(drift["fleet"]["devices"], 2);
    assert!(drift["against_control"]["psi"].as_f64().expect("a distance") > 0.5, "{drift:#}");
    assert!(drift["control"]["requests"].as_u64().expect("a number") > 0);
    let metrics = server.text("/metrics");
    assert!(metrics.contains("serin_devices_online 6"), "{metrics}");

    // A device that comes later gets what the fleet runs.
    let _late = FakeDevice::start(9, &server, &profile);
    until("the late device has it too", || (running(&server, "digits@2") == 7).then_some(()));
}

#[test]
fn only_the_operator_changes_things_and_mistakes_are_explained() {
    let folder = tempfile::tempdir().expect("folder");
    let server = Server::start(folder.path(), None);
    let refused = |arguments: &[&str], set: &dyn Fn(&mut std::process::Command)| -> Value {
        let mut command = server.command(&[arguments, &["--json"]].concat());
        set(&mut command);
        let output = command.output().expect("runs");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")["error"].clone()
    };
    let keep = |_: &mut std::process::Command| {};
    let code = |error: &Value| error["details"]["code"].as_str().unwrap_or_default().to_owned();

    let wrong = folder.path().join("wrong.token");
    std::fs::write(&wrong, "0".repeat(64)).expect("written");
    let start = ["rollout", "start", "--release", "digits@1"];
    let error = refused(&start, &|command| {
        command.env_remove("SERIN_TOKEN_FILE");
    });
    assert_eq!(code(&error), "token_missing");
    let error = refused(&start, &|command| {
        command.env("SERIN_TOKEN_FILE", &wrong);
    });
    assert_eq!(code(&error), "token_wrong");
    assert_eq!(code(&refused(&start, &keep)), "not_found");
    assert_eq!(code(&refused(&["rollout", "pause", "7"], &keep)), "not_found");

    // A release that nobody lists.
    let strange = pack("1", 100);
    let path = folder.path().join("x.serin");
    std::fs::write(&path, &strange.bundle).expect("written");
    std::fs::write(path.with_added_extension("release"), &strange.statement).expect("written");
    let publish = ["release", "publish", path.to_str().expect("plain")];
    assert_eq!(code(&refused(&publish, &keep)), "not_listed");
    std::fs::write(path.with_added_extension("release"), b"\x01").expect("written");
    assert_eq!(code(&refused(&publish, &keep)), "statement_refused");
    // A bundle other than the one listed.
    let own = pack("2", 100);
    server.list(&own);
    std::fs::write(path.with_added_extension("release"), &own.statement).expect("written");
    assert_eq!(code(&refused(&publish, &keep)), "bundle_missing");

    // A plan with a misspelt word, found before it is sent.
    let plan = folder.path().join("plan.toml");
    std::fs::write(&plan, "alhpa = '1%'").expect("written");
    let with_plan = [&start[..], &["--plan", plan.to_str().expect("plain")]].concat();
    let error = refused(&with_plan, &keep);
    assert!(error["message"].as_str().expect("words").contains("alhpa"), "{error}");

    let page = server.text("/");
    assert!(page.contains("<main"), "the page is there");
    assert!(server.text("/api/v1/openapi").contains("/api/v1/rollouts"));
}

#[test]
fn what_devices_say_wrongly_is_counted_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let server = Server::start(folder.path(), None);
    // What nobody keeps is lost where it is said before the server listens.
    until("it listens", || server.text("/metrics").contains("serin_broker_connected 1").then_some(()));
    let (client, mut connection) = Client::new(options("edge-1", server.mqtt), 100);
    let topic = |topic: Topic| topic.name(&fleet()).as_str().to_owned();
    let own: serin_protocol::ids::DeviceId = "edge-1".parse().expect("name");
    let sends = [
        (topic(Topic::Hello(own.clone())), b"not an envelope".to_vec()),
        (topic(Topic::Event(own.clone())), vec![1, 2, 3]),
        (topic(Topic::Report(own)), Vec::new()),
    ];
    for (topic, payload) in sends {
        client.try_publish(topic, QoS::AtLeastOnce, false, payload).expect("queued");
    }
    let mut taken = 0;
    until("the broker has them", || {
        if let Ok(Ok(Event::Incoming(Incoming::PubAck(_)))) =
            connection.recv_timeout(Duration::from_millis(50))
        {
            taken += 1;
        }
        (taken == 3).then_some(())
    });
    until("all three are counted", || {
        let metrics = server.text("/metrics");
        let malformed = metrics.contains("serin_messages_refused_total{reason=\"malformed\"} 1");
        let unknown = metrics.contains("serin_messages_refused_total{reason=\"unknown_device\"} 2");
        (malformed && unknown).then_some(())
    });
    assert!(devices(&server).is_empty());
}

#[test]
fn a_forgotten_device_is_gone_from_the_broker_too() {
    let folder = tempfile::tempdir().expect("folder");
    let mut server = Server::start(folder.path(), None);
    let device = FakeDevice::start(1, &server, &release::profile());
    until("it is there", || (devices(&server).len() == 1).then_some(()));
    drop(device);
    until("it is gone", || (devices(&server)[0]["online"] == false).then_some(()));
    server.operator(&["device", "forget", "edge-1"]);
    assert!(devices(&server).is_empty());
    server.crash_and_restart();
    let _other = FakeDevice::start(2, &server, &release::profile());
    until("another is there", || (devices(&server).len() == 1).then_some(()));
    assert_eq!(devices(&server)[0]["id"], "edge-2");
    assert!(!server.text("/metrics").contains("malformed"));
}

#[test]
fn devices_fetch_a_release_from_the_broker_after_the_server_has_crashed() {
    let folder = tempfile::tempdir().expect("folder");
    let mut server = Server::start(folder.path(), None);
    let packed = pack("1", 400_000);
    server.publish(&packed);
    server.crash_and_restart();
    let statement =
        Topic::Metadata(FileName::of_release(&serin_protocol::ids::Digest::of(&packed.statement)));
    assert_eq!(fetch(server.mqtt, &[statement]), std::slice::from_ref(&packed.statement));
    assert_eq!(fetch(server.mqtt, &chunk_topics(&packed)).concat(), packed.bundle);
}

#[test]
fn a_broker_that_forgets_everything_is_given_what_devices_miss() {
    let folder = tempfile::tempdir().expect("folder");
    let mut broker = server::Mosquitto::start(folder.path());
    let server = Server::start(folder.path(), Some(broker.port));
    let packed = pack("1", 400_000);
    // Every chunk is read back before it counts as published.
    server.publish(&packed);
    assert_eq!(fetch(broker.port, &chunk_topics(&packed)).concat(), packed.bundle);

    broker.crash_and_restart();
    let statement =
        Topic::Metadata(FileName::of_release(&serin_protocol::ids::Digest::of(&packed.statement)));
    assert_eq!(fetch(broker.port, &[statement]), std::slice::from_ref(&packed.statement));
    let asking = device::Asking::start(&server, &packed);
    assert_eq!(fetch(broker.port, &chunk_topics(&packed)).concat(), packed.bundle);
    drop(asking);
}

#[test]
fn other_tools_read_metadata_under_any_host_name_and_nothing_else() {
    use std::io::{Read as _, Write as _};
    let folder = tempfile::tempdir().expect("folder");
    let server = Server::start(folder.path(), None);
    server.publish(&pack("1", 1000));
    let status = |path: &str, host: &str| {
        let mut stream =
            std::net::TcpStream::connect(server.url.trim_start_matches("http://")).expect("connected");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("asked");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("answered");
        String::from_utf8_lossy(&answer).split(' ').nth(1).map(ToOwned::to_owned)
    };
    let is = |status: Option<String>, code: &str| assert_eq!(status.as_deref(), Some(code));
    for host in ["localhost", "updates.example"] {
        is(status("/tuf/metadata/timestamp.json", host), "200");
    }
    is(status("/tuf/targets/models/m/1.release", "updates.example"), "421");
    is(status("/api/v1/devices", "updates.example"), "421");
    is(status("/api/v1/devices", "localhost"), "200");
}
