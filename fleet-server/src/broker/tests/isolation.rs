//! What devices may not say or hear.

use rumqttc::{ConnectReturnCode, LastWill, QoS};
use serin_protocol::ids::Digest;
use serin_protocol::topic::{FileName, Topic, uplink_filter};

use super::rig::{Client, Rig, chunk, content, device, fleet, name};

#[tokio::test]
async fn a_device_subscribes_to_nothing_but_its_own_exact_topics() {
    let rig = Rig::start().await;
    let mut device_a = rig.device("a").await;
    for refused in [
        name(&Topic::Assign(device("b"))),
        name(&Topic::Ack(device("b"))),
        name(&Topic::Hello(device("b"))),
        name(&Topic::Hello(device("a"))),
        "#".to_owned(),
        "serin/1/f/#".to_owned(),
        "serin/1/f/d/+/assign".to_owned(),
        "serin/1/f/t/+".to_owned(),
        format!("serin/1/f/b/{}/+", Digest([7; 32])),
        "serin/1/other/d/a/assign".to_owned(),
        "$share/x/serin/1/f/d/a/assign".to_owned(),
        "$SYS/#".to_owned(),
    ] {
        assert!(!device_a.subscribe(&refused).await, "{refused}");
    }
    for granted in [Topic::Assign(device("a")), Topic::Ack(device("a"))] {
        assert!(device_a.subscribe(&name(&granted)).await, "{granted:?}");
    }
}

#[tokio::test]
async fn a_device_does_not_hear_what_is_meant_for_another() {
    let rig = Rig::start().await;
    let mut server = rig.server().await;
    let (for_a, for_b) = (name(&Topic::Assign(device("a"))), name(&Topic::Assign(device("b"))));
    server.publish(&for_b, true, "secret").await;
    let mut device_a = rig.device("a").await;
    assert_eq!(device_a.subscribe_all(&[&for_b, &for_a]).await, [false, true]);
    server.publish(&for_b, true, "secret again").await;
    server.publish(&for_a, true, "for a").await;
    assert_eq!(device_a.text().await, (for_a, "for a".to_owned()));
}

#[tokio::test]
async fn a_device_speaks_only_for_itself() {
    let rig = Rig::start().await;
    let mut server = rig.server().await;
    assert!(server.subscribe(&uplink_filter(&fleet())).await);
    assert!(server.subscribe("serin/1/f/d/+/assign").await);
    assert!(server.subscribe("serin/1/f/t/+").await);
    let mut device_a = rig.device("a").await;
    for refused in [
        Topic::Hello(device("b")),
        Topic::Event(device("b")),
        Topic::Assign(device("a")),
        Topic::Assign(device("b")),
        Topic::Ack(device("a")),
        Topic::Metadata(FileName::new("root.json").expect("valid")),
    ] {
        // Acknowledged, because MQTT 3.1.1 knows no refusal, and the connection lives on.
        device_a.publish(&name(&refused), false, "forged").await;
        device_a.publish(&name(&refused), true, "forged").await;
    }
    device_a.publish("serin/1/f/d/a/up/unheard-of", false, "from the future").await;
    device_a.publish("elsewhere", true, "x").await;
    let event = name(&Topic::Event(device("a")));
    device_a.publish(&event, true, "retained where nothing is retained").await;
    device_a.publish(&event, false, "true").await;
    assert_eq!(server.text().await, (event, "true".to_owned()));
}

#[tokio::test]
async fn a_device_cannot_publish_or_withdraw_chunks() {
    let rig = Rig::start().await;
    let mut server = rig.server().await;
    let bytes = content(1000);
    let offered = rig.publish_object(&mut server, &bytes).await;
    let other = content(2000);
    let not_offered = rig.objects.put(other.as_slice()).expect("stored");
    let mut device_a = rig.device("a").await;
    device_a.publish(&chunk(offered, 0), true, "").await;
    device_a.publish(&chunk(not_offered, 0), true, other).await;
    device_a.subscribe_all(&[&chunk(not_offered, 0), &chunk(offered, 0)]).await;
    let message = device_a.message().await;
    assert_eq!((message.topic, message.payload), (chunk(offered, 0), bytes.into()));
}

#[tokio::test]
async fn an_oversize_payload_is_dropped_and_an_oversize_packet_ends_the_connection() {
    let rig = Rig::start().await;
    let mut server = rig.server().await;
    assert!(server.subscribe(&uplink_filter(&fleet())).await);
    let topic = Topic::Event(device("a"));
    let event = name(&topic);
    let mut device_a = rig.device("a").await;
    device_a.publish(&event, false, vec![7; topic.max_payload() + 1]).await;
    device_a.publish(&event, false, vec![7; topic.max_payload()]).await;
    assert_eq!(server.message().await.payload.len(), topic.max_payload());

    let mut options = rig.options("b");
    options.set_max_packet_size(1 << 20, 1 << 20);
    let mut device_b = Client::connect(options).await.expect("a device may connect");
    device_b.send_unacknowledged(&name(&Topic::Sample(device("b"))), vec![7; 200 * 1024]);
    device_b.ended().await;
}

#[tokio::test]
async fn only_the_server_is_the_server() {
    let rig = Rig::start().await;
    let attempt = async |client_id: &str, login: Option<(&str, &str)>| {
        let mut options = rig.options(client_id);
        if let Some((user, password)) = login {
            options.set_credentials(user, password);
        }
        Client::connect(options).await.err()
    };
    let refused = Some(ConnectReturnCode::BadUserNamePassword);
    assert_eq!(attempt("serin-server", Some(("serin-server", "guess"))).await, refused);
    assert_eq!(attempt("serin-server", None).await, refused);
    assert_eq!(attempt("serin-server", Some(("press-7", ""))).await, refused);
    assert_eq!(attempt("press/7", None).await, refused);
    assert_eq!(attempt("press-7", Some(("press-8", ""))).await, refused);
    assert_eq!(attempt("press-7", None).await, None);
}

#[tokio::test]
async fn a_will_is_the_devices_own_hello_or_nobody_connects() {
    let rig = Rig::start().await;
    let attempt = async |topic: Topic| {
        let mut options = rig.options("a");
        options.set_last_will(LastWill::new(name(&topic), "gone", QoS::AtLeastOnce, true));
        Client::connect(options).await.err()
    };
    let refused = Some(ConnectReturnCode::NotAuthorized);
    assert_eq!(attempt(Topic::Hello(device("b"))).await, refused);
    assert_eq!(attempt(Topic::Assign(device("a"))).await, refused);
    assert_eq!(attempt(Topic::Event(device("a"))).await, refused);
    assert_eq!(attempt(Topic::Hello(device("a"))).await, None);
}
