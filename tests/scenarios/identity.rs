//! Who may come to the broker, and as whom.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use rumqttc::{Client, Connection, Event, Incoming, MqttOptions, QoS, TlsConfiguration, Transport};
use serde_json::Value;
use serin_tests::certificates::Certificates;
use serin_tests::device::Device;
use serin_tests::lab::{Broker, Lab, PATIENCE};
use serin_tests::server::FLEET;

/// Connects with the certificate of `name`, or none, calling itself `client_id`.
fn connect(
    lab: &Lab,
    certificates: &Certificates,
    name: Option<&str>,
    client_id: &str,
) -> Result<(Client, Connection)> {
    let mut options = MqttOptions::new(client_id, "127.0.0.1", lab.server.mqtt);
    // Chunks are larger than the client's own limit.
    options.set_max_packet_size(1 << 20, 1 << 20);
    let read = |path| std::fs::read(path);
    let client_auth = match name {
        Some(name) => Some((read(certificates.certificate(name))?, read(certificates.key(name))?)),
        None => None,
    };
    let ca = std::fs::read(certificates.authority().join("ca.crt"))?;
    let tls = TlsConfiguration::Simple { ca, alpn: None, client_auth };
    options.set_transport(Transport::tls_with_config(tls));
    // Nobody takes requests from the queue before it is polled.
    Ok(Client::new(options, 32))
}

/// Whether the broker lets it in.
fn enters(connection: &mut Connection) -> Result<bool> {
    match connection.recv_timeout(Duration::from_secs(20)).map_err(|_| anyhow!("no answer"))? {
        Ok(Event::Incoming(Incoming::ConnAck(_))) => Ok(true),
        Ok(event) => Err(anyhow!("{event:?}")),
        Err(_) => Ok(false),
    }
}

/// What arrives until `last` does.
fn until_arrives(connection: &mut Connection, last: &str) -> Result<Vec<String>> {
    let (mut topics, started) = (Vec::new(), Instant::now());
    while started.elapsed() < PATIENCE {
        let event = connection
            .recv_timeout(Duration::from_secs(20))
            .map_err(|_| anyhow!("only {topics:?} arrive"))??;
        if let Event::Incoming(Incoming::Publish(publish)) = event {
            topics.push(publish.topic.clone());
            if publish.topic == last {
                return Ok(topics);
            }
        }
    }
    Err(anyhow!("{last} does not arrive, {topics:?} do"))
}

fn install_provider() {
    // The second time it is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn certificates_decide_who_comes_in(broker: Broker) -> Result<()> {
    install_provider();
    let mut lab = Lab::secure(broker)?;
    lab.add_devices(2)?;
    lab.first_release()?;
    assert_eq!(lab.running("1.0.0"), 2);

    let certificates = lab.certificates.as_ref().context("it is a secure lab")?;
    certificates.issue("intruder", &[])?;
    let stranger = Certificates::new(&lab.folder().join("elsewhere"))?;
    stranger.issue("device-01", &[])?;
    // Without a certificate, and with one of another authority.
    assert!(!enters(&mut connect(&lab, certificates, None, "device-01")?.1)?);
    let mut options = MqttOptions::new("device-01", "127.0.0.1", lab.server.mqtt);
    let ca = std::fs::read(certificates.authority().join("ca.crt"))?;
    let shown =
        (std::fs::read(stranger.certificate("device-01"))?, std::fs::read(stranger.key("device-01"))?);
    let tls = TlsConfiguration::Simple { ca, alpn: None, client_auth: Some(shown) };
    options.set_transport(Transport::tls_with_config(tls));
    assert!(!enters(&mut Client::new(options, 10).1)?);

    // Its own topics are closed to everybody else, and what it says in another's name goes nowhere.
    let (client, mut connection) = connect(&lab, certificates, Some("intruder"), "intruder")?;
    assert!(enters(&mut connection)?);
    let base = format!("serin/1/{FLEET}");
    client.publish(format!("{base}/d/device-01/assign"), QoS::AtLeastOnce, true, "forged")?;
    client.publish(format!("{base}/t/timestamp.json"), QoS::AtLeastOnce, true, "forged")?;
    client.publish(format!("{base}/d/device-01/up/hello"), QoS::AtLeastOnce, true, "forged")?;
    client.subscribe(format!("{base}/d/device-01/assign"), QoS::AtLeastOnce)?;
    client.subscribe(format!("{base}/t/timestamp.json"), QoS::AtLeastOnce)?;
    let last = format!("{base}/t/timestamp.json");
    assert_eq!(until_arrives(&mut connection, &last)?, [last]);
    let timestamp = lab.server.get("/tuf/metadata/timestamp.json")?;
    assert!(!timestamp.contains("forged"));
    assert_eq!(lab.running("1.0.0"), 2);
    let online = lab.server.json("/api/v1/devices/device-01")?;
    assert_eq!(online["online"], true);
    Ok(())
}

#[test]
fn certificates_decide_who_comes_in_to_the_embedded_broker() -> Result<()> {
    certificates_decide_who_comes_in(Broker::Embedded)
}

#[test]
fn certificates_decide_who_comes_in_to_a_mosquitto_as_we_configure_it() -> Result<()> {
    certificates_decide_who_comes_in(Broker::Mosquitto)
}

#[test]
fn a_device_cannot_take_anothers_name() -> Result<()> {
    install_provider();
    let mut lab = Lab::secure(Broker::Embedded)?;
    lab.add_devices(1)?;
    let certificates = lab.certificates.as_ref().context("it is a secure lab")?;
    certificates.issue("intruder", &[])?;
    assert!(!enters(&mut connect(&lab, certificates, Some("intruder"), "device-01")?.1)?);
    assert!(!enters(&mut connect(&lab, certificates, Some("intruder"), "serin-server")?.1)?);
    assert!(enters(&mut connect(&lab, certificates, Some("intruder"), "intruder")?.1)?);
    Ok(())
}

#[test]
fn a_device_that_takes_anothers_name_at_mosquitto_throws_nobody_out() -> Result<()> {
    install_provider();
    let mut lab = Lab::secure(Broker::Mosquitto)?;
    lab.add_devices(1)?;
    let certificates = lab.certificates.as_ref().context("it is a secure lab")?;
    certificates.issue("intruder", &[])?;
    let mut sessions = Vec::new();
    for victim in ["device-01", "serin-server", &format!("serin-server-{FLEET}")] {
        let (client, mut connection) = connect(&lab, certificates, Some("intruder"), victim)?;
        assert!(enters(&mut connection)?, "as itself, whatever it says");
        sessions.push((client, connection));
    }
    lab.first_release()?;
    assert_eq!(lab.running("1.0.0"), 1);
    // The broker says so when a session takes another's place: only the intruder's did.
    let said = lab.mosquitto.as_ref().context("it is there")?.said();
    let replaced: Vec<&str> = said.lines().filter(|line| line.contains("already connected")).collect();
    assert!(!replaced.is_empty(), "{said}");
    for line in replaced {
        assert!(line.contains("Client intruder "), "{line}");
    }
    Ok(())
}

#[test]
fn a_broker_that_the_authority_does_not_know_is_not_spoken_to() -> Result<()> {
    let mut lab = Lab::secure(Broker::Embedded)?;
    lab.add_devices(1)?;
    let stranger = Certificates::new(&lab.folder().join("elsewhere"))?;
    stranger.issue("device-01", &[])?;
    lab.devices[0].stop();
    let config = lab.devices[0].folder.join("agent.toml");
    let text = std::fs::read_to_string(&config)?;
    let certificates = lab.certificates.as_ref().context("it is a secure lab")?;
    let (ours, theirs) = (certificates.authority(), stranger.authority());
    let text = text.replace(&ours.display().to_string(), &theirs.display().to_string());
    std::fs::write(&config, text)?;
    lab.devices[0].power_on()?;
    let look = || {
        lab.devices[0]
            .status()
            .is_ok_and(|status| status.to_string().contains("invalid peer certificate"))
            .then_some(())
    };
    let looked = serin_tests::until("the device says why", Duration::from_secs(20), look);
    looked.with_context(|| {
        format!("{}\n{:#}", lab.devices[0].said(), lab.devices[0].status().unwrap_or_default())
    })
}

#[test]
fn a_device_becomes_one_of_the_fleet_by_a_token_and_is_cut_off_by_a_word() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(1)?;
    let stranger = Device::start(&lab.folder(), "stranger", &lab.provision())?;
    let enroll = |token: &str| -> Result<String> {
        let tried = serin_tests::until("the link is there", PATIENCE, || {
            let tried = stranger.try_engineer(&["enroll", "--token", token, "--json"]).ok()?;
            (!String::from_utf8_lossy(&tried.stderr).contains("not_connected")).then_some(tried)
        })?;
        Ok(String::from_utf8_lossy(&[tried.stdout, tried.stderr].concat()).into_owned())
    };
    let invite = |words: &[&str]| -> Result<String> {
        let made = lab.server.operator(&[&["device", "invite"], words].concat())?;
        Ok(made["token"].as_str().context("a token")?.to_owned())
    };
    let doctor = || -> Result<String> {
        Ok(String::from_utf8_lossy(&stranger.try_engineer(&["doctor"])?.stdout).into_owned())
    };
    let bound = invite(&["device-02"])?;
    assert!(enroll(&bound)?.contains("the token is for another device"));
    assert!(enroll("serin-1-2")?.contains("a claim token is written as"));
    let made_up = format!("serin-{}-{}", "0".repeat(16), "0".repeat(64));
    assert!(enroll(&made_up)?.contains("the token is not valid here"));
    let known = lab.server.json("/api/v1/devices")?;
    assert_eq!(known["devices"].as_array().map(Vec::len), Some(1), "{known}");
    assert!(doctor()?.contains("warn  fleet     not enrolled"), "{}", doctor()?);
    assert!(doctor()?.contains("next: `serin-agent enroll`"), "{}", doctor()?);
    assert_eq!(stranger.status()?["not_enrolled"], true);
    let token = invite(&[])?;
    assert!(enroll(&token)?.contains("\"reply\":\"enrolled\""));
    assert_eq!(stranger.status()?["not_enrolled"], false);
    serin_tests::until("the server knows the stranger", PATIENCE, || {
        (lab.server.json("/api/v1/devices/stranger").ok()?["online"] == true).then_some(())
    })?;

    lab.server.operator(&["device", "revoke", "stranger"])?;
    serin_tests::until("the broker has thrown it out", PATIENCE, || {
        let status = stranger.status().ok()?;
        let out = status["link"]["connected"] == false && status["link"]["last_error"] != Value::Null;
        out.then_some(())
    })?;
    serin_tests::until("the engineer is told whom to ask", PATIENCE, || {
        let said = doctor().ok()?;
        (said.contains("does not let this device in") && said.contains("device show stranger")).then_some(())
    })?;
    assert!(!doctor()?.contains("not enrolled"), "{}", doctor()?);
    let shown = lab.server.json("/api/v1/devices/stranger")?;
    assert_eq!((&shown["revoked"], &shown["online"]), (&true.into(), &false.into()));
    // The others are still there.
    lab.first_release()?;
    assert_eq!(lab.running("1.0.0"), 1);
    assert_eq!(stranger.active(), None);
    Ok(())
}

#[test]
fn a_revoked_certificate_opens_no_mosquitto() -> Result<()> {
    install_provider();
    let mut lab = Lab::secure(Broker::Mosquitto)?;
    lab.add_devices(1)?;
    let certificates = lab.certificates.as_ref().context("it is a secure lab")?;
    certificates.issue("leaver", &[])?;
    assert!(enters(&mut connect(&lab, certificates, Some("leaver"), "leaver")?.1)?);
    certificates.revoke("leaver")?;
    lab.mosquitto.as_mut().context("it is there")?.take_list(certificates)?;
    assert!(!enters(&mut connect(&lab, certificates, Some("leaver"), "leaver")?.1)?);
    // The fleet goes on: the broker is given everything again.
    lab.first_release()?;
    assert_eq!(lab.running("1.0.0"), 1);
    Ok(())
}

#[test]
fn a_revoked_certificate_opens_no_embedded_broker_and_its_session_ends() -> Result<()> {
    install_provider();
    let mut lab = Lab::secure(Broker::Embedded)?;
    lab.add_devices(2)?;
    let certificates = lab.certificates.as_ref().context("it is a secure lab")?;
    certificates.revoke("device-02")?;
    let list = certificates.authority().join("crl.pem");
    std::fs::copy(list, certificates.server().join("crl.pem"))?;
    let connected = |lab: &Lab, index: usize| {
        let status = lab.devices[index].status().unwrap_or_default();
        status["link"]["connected"] == true
    };
    serin_tests::until("the session has ended", PATIENCE, || (!connected(&lab, 1)).then_some(()))?;
    assert!(!enters(&mut connect(&lab, certificates, Some("device-02"), "device-02")?.1)?);
    assert!(connected(&lab, 0), "the others stay");
    // A new certificate opens it again: another one was taken back.
    std::fs::remove_file(certificates.certificate("device-02"))?;
    std::fs::remove_file(certificates.key("device-02"))?;
    certificates.issue("device-02", &[])?;
    assert!(enters(&mut connect(&lab, certificates, Some("device-02"), "device-02")?.1)?);

    // A device that is revoked is out, whatever its certificate says.
    lab.server.operator(&["device", "revoke", "device-01"])?;
    serin_tests::until("the broker has thrown it out", PATIENCE, || (!connected(&lab, 0)).then_some(()))?;
    assert!(!enters(&mut connect(&lab, certificates, Some("device-01"), "device-01")?.1)?);
    Ok(())
}

#[test]
fn nobody_reads_at_mosquitto_what_is_between_another_device_and_the_server() -> Result<()> {
    install_provider();
    let mut lab = Lab::secure(Broker::Mosquitto)?;
    lab.add_devices(1)?;
    lab.first_release()?;
    let certificates = lab.certificates.as_ref().context("it is a secure lab")?;
    certificates.issue("intruder", &[])?;
    let (client, mut connection) = connect(&lab, certificates, Some("intruder"), "intruder")?;
    assert!(enters(&mut connection)?);
    let base = format!("serin/1/{FLEET}");
    let others = [
        "assign",
        "ack",
        "enrolled",
        "pause",
        "up/hello",
        "up/event",
        "up/report",
        "up/enrol",
        "#",
        "+",
        "up/+",
    ];
    for topic in others {
        client.subscribe(format!("{base}/d/device-01/{topic}"), QoS::AtLeastOnce)?;
    }
    for filter in
        ["#", "+/+/+/d/#", "$SYS/#"].map(str::to_owned).into_iter().chain([format!("{base}/d/+/assign")])
    {
        client.subscribe(filter, QoS::AtLeastOnce)?;
    }
    let last = format!("{base}/t/timestamp.json");
    let mut heard = until_arrives(&mut connection, &last)?;
    // Something is said in both directions, and then something to all.
    lab.devices[0].engineer(&["pin"])?;
    lab.until_told("device-01", &["pin"])?;
    lab.server.operator(&["trust", "publish", "--trust", serin_tests::bundles::text(&lab.owner.trust())])?;
    heard.extend(until_arrives(&mut connection, &last)?);
    let strange = heard
        .iter()
        .find(|topic| !topic.starts_with(&format!("{base}/t/")) && !topic.starts_with(&format!("{base}/b/")));
    assert_eq!(strange, None);
    Ok(())
}
