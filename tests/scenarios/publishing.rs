//! From the owners' laptops to anyone who reads the repository: the real command line, the real server,
//! python-tuf over HTTP and an MQTT client.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use rumqttc::{Client, Connection, Event, Incoming, MqttOptions, QoS};
use serin_tests::broker::Mosquitto;
use serin_tests::bundles::{Owner, fleet, text};
use serin_tests::server::{FLEET, Server};
use tempfile::TempDir;

use crate::tuf_interop::script;

/// A trust folder with one key each for root and targets, and two owners of `digits` who must both sign.
fn begin(work: &Path, server: &Server) -> Result<()> {
    let at = |name: &str| work.join(name).to_str().map(str::to_owned).context("plain names");
    for name in ["root", "targets", "ann", "bob"] {
        fleet(&["keys", "generate", "--out", &at(name)?])?;
    }
    std::fs::write(work.join("online.json"), server.get("/api/v1/trust/online")?)?;
    let [root, targets, ann, bob] = [at("root.pub")?, at("targets.pub")?, at("ann.pub")?, at("bob.pub")?];
    let trust = at("trust")?;
    let run = |arguments: &[&str]| fleet(&[&["trust", "--trust", &trust], arguments].concat());
    run(&["init", "--online", &at("online.json")?, "--root-keys", &root, "--targets-keys", &targets])?;
    run(&["sign", "root", "--key", &at("root")?])?;
    run(&["sign", "targets", "--key", &at("targets")?])?;
    run(&["delegate", "digits", "--keys", &ann, &bob, "--threshold", "2"])?;
    run(&["sign", "targets", "--key", &at("targets")?])?;
    let done = run(&["sign", "digits", "--key", &at("ann")?, &at("bob")?])?;
    anyhow::ensure!(done.contains("complete"), "{done}");
    Ok(())
}

/// One who reads `t/<file>`.
struct Reader {
    _client: Client,
    connection: Connection,
}

impl Reader {
    fn of(port: u16, file: &str) -> Result<Self> {
        let mut options = MqttOptions::new("reader", "127.0.0.1", port);
        options.set_max_packet_size(300_000, 300_000);
        let (client, connection) = Client::new(options, 10);
        client.subscribe(format!("serin/1/{FLEET}/t/{file}"), QoS::AtLeastOnce)?;
        Ok(Self { _client: client, connection })
    }

    /// Waits until the broker hands out these bytes.
    fn until_said(&mut self, expected: &[u8]) -> Result<()> {
        loop {
            let event = self.connection.recv_timeout(Duration::from_secs(20));
            let event = event.map_err(|_| anyhow!("it is not said"))??;
            if let Event::Incoming(Incoming::Publish(publish)) = event
                && publish.payload == expected
            {
                return Ok(());
            }
        }
    }
}

#[test]
fn a_release_signed_offline_by_two_owners_is_read_with_python_tuf() -> Result<()> {
    let work = TempDir::new()?;
    let server = Server::start(&work.path().join("server"), None)?;
    let bundle = Owner::new(&work.path().join("owner"))?.pack("digits/v1")?;
    begin(work.path(), &server)?;

    let (trust, ann, bob) = (work.path().join("trust"), work.path().join("ann"), work.path().join("bob"));
    let half = fleet(&["release", "sign", text(&bundle), "--key", text(&ann), "--trust", text(&trust)])?;
    assert!(half.contains("1 of 2"), "{half}");
    let publish = ["trust", "publish", "--trust", text(&trust)];
    server.operator(&publish)?;
    let first_root = trust.join("metadata/1.root.json");
    let url = format!("{}/tuf", server.url);
    let path = "models/digits/1.0.0.release";
    let read = || script("tuf_read.py").arg(&first_root).args([url.as_str(), path]).output();
    let nobody = read()?;
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("nobody lists"), "{nobody:?}");

    // The other owner's machine has only the draft.
    let carried = work.path().join("elsewhere/staged");
    std::fs::create_dir_all(&carried)?;
    std::fs::copy(trust.join("staged/digits.json"), carried.join("digits.json"))?;
    let copied = work.path().join("elsewhere");
    std::fs::create_dir_all(copied.join("metadata"))?;
    for entry in std::fs::read_dir(trust.join("metadata"))? {
        let entry = entry?;
        std::fs::copy(entry.path(), copied.join("metadata").join(entry.file_name()))?;
    }
    let signed = fleet(&["trust", "sign", "digits", "--key", text(&bob), "--trust", text(&copied)])?;
    assert!(signed.contains("complete"), "{signed}");
    let theirs = copied.join("metadata/2.digits.json");
    let merged = fleet(&["trust", "merge", "digits", text(&theirs), "--trust", text(&trust)])?;
    assert!(merged.contains("complete"), "{merged}");
    server.publish(&bundle, &trust)?;

    let statement = read()?;
    assert!(statement.status.success(), "{}", String::from_utf8_lossy(&statement.stderr));
    assert_eq!(statement.stdout, std::fs::read(bundle.with_added_extension("release"))?);
    let whole = script("tuf_read.py")
        .arg(&first_root)
        .args([url.as_str(), "models/digits/1.0.0.tar.zst"])
        .output()?;
    assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
    assert_eq!(whole.stdout, std::fs::read(&bundle)?);

    // Devices find the same files at the broker.
    for file in ["timestamp.json", "1.root.json", "2.digits.json"] {
        let bytes = server.get(&format!("/tuf/metadata/{file}"))?;
        Reader::of(server.mqtt, file)?.until_said(bytes.as_bytes())?;
    }

    // An owner takes it back, and the broker forgets what is superseded.
    let listed = server.get("/tuf/metadata/2.digits.json")?;
    let mut reader = Reader::of(server.mqtt, "2.digits.json")?;
    reader.until_said(listed.as_bytes())?;
    let keys = [text(&ann), text(&bob)];
    fleet(&[&["release", "withdraw", "digits@1.0.0", "--trust", text(&trust), "--key"], &keys[..]].concat())?;
    server.operator(&publish)?;
    let nobody = read()?;
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("nobody lists"), "{nobody:?}");
    reader.until_said(b"")?;
    Ok(())
}

#[test]
fn a_broker_that_forgets_everything_is_given_the_repository_again() -> Result<()> {
    let work = TempDir::new()?;
    let mut broker = Mosquitto::start(work.path())?;
    let server = Server::start(&work.path().join("server"), Some(broker.port))?;
    begin(work.path(), &server)?;
    server.operator(&["trust", "publish", "--trust", text(&work.path().join("trust"))])?;
    let timestamp = server.get("/tuf/metadata/timestamp.json")?;
    Reader::of(broker.port, "timestamp.json")?.until_said(timestamp.as_bytes())?;
    broker.crash_and_restart()?;
    Reader::of(broker.port, "timestamp.json")?.until_said(timestamp.as_bytes())
}
