//! Sessions: who may have one, how many, and what ends them.

use serin_protocol::topic::{Topic, uplink_filter};

use super::rig::{Rig, chunk, content, device, fleet, name};

#[tokio::test]
async fn a_device_that_vanishes_leaves_its_will() {
    let rig = Rig::start().await;
    let mut server = rig.server().await;
    assert!(server.subscribe(&uplink_filter(&fleet())).await);
    let hello = name(&Topic::Hello(device("a")));
    let mut device_a = rig.device_with_will("a", "gone").await;
    device_a.publish(&hello, true, "here").await;
    assert_eq!(server.text().await, (hello.clone(), "here".to_owned()));
    drop(device_a);
    assert_eq!(server.text().await, (hello.clone(), "gone".to_owned()));
    // And it is retained, for a server that comes later.
    let mut later = rig.server_named("serin-server-2").await;
    assert!(later.subscribe(&hello).await);
    assert_eq!(later.text().await, (hello, "gone".to_owned()));
}

#[tokio::test]
async fn a_device_that_says_goodbye_leaves_no_will() {
    let rig = Rig::start().await;
    let mut server = rig.server().await;
    assert!(server.subscribe(&uplink_filter(&fleet())).await);
    let hello = name(&Topic::Hello(device("a")));
    rig.device_with_will("a", "gone").await.leave().await;
    rig.device("b").await.publish(&name(&Topic::Event(device("b"))), false, "later").await;
    assert_ne!(server.text().await.0, hello);
}

#[tokio::test]
async fn a_new_session_takes_over_and_the_old_ones_will_is_not_published() {
    let rig = Rig::start().await;
    let mut server = rig.server().await;
    assert!(server.subscribe(&uplink_filter(&fleet())).await);
    let (hello, assign) = (name(&Topic::Hello(device("a"))), name(&Topic::Assign(device("a"))));
    let mut old = rig.device_with_will("a", "gone").await;
    assert!(old.subscribe(&assign).await);

    let mut new = rig.device_with_will("a", "gone").await;
    new.publish(&hello, true, "here").await;
    old.ended().await;
    assert!(new.subscribe(&assign).await);
    server.publish(&assign, true, "for the new one").await;
    assert_eq!(new.text().await, (assign, "for the new one".to_owned()));

    assert_eq!(server.text().await, (hello.clone(), "here".to_owned()));
    let mut later = rig.server_named("serin-server-2").await;
    assert!(later.subscribe(&hello).await);
    assert_eq!(later.text().await.1, "here");
    // The one that is there still has a will.
    drop(new);
    assert_eq!(server.text().await, (hello, "gone".to_owned()));
}

#[tokio::test]
async fn a_stop_ends_every_session_without_wills_and_frees_the_port() {
    let rig = Rig::start().await;
    let address = rig.broker.local_addr();
    let hello = name(&Topic::Hello(device("a")));
    let mut device_a = rig.device_with_will("a", "gone").await;
    device_a.publish(&hello, true, "here").await;
    let rig = rig.restart().await;
    device_a.ended().await;
    assert!(std::net::TcpListener::bind(address).is_ok() || rig.broker.local_addr() == address);
    let mut server = rig.server().await;
    assert!(server.subscribe(&hello).await);
    assert_eq!(server.text().await.1, "here");
}

#[tokio::test]
async fn a_device_that_asks_for_more_than_it_takes_is_hung_up_on_and_may_come_back() {
    let rig = Rig::start().await;
    let mut server = rig.server().await;
    let object = rig.publish_object(&mut server, &content(1000)).await;
    let mut greedy = rig.device("a").await;
    greedy.ask(std::iter::repeat_n(chunk(object, 0), 1000));
    greedy.ended().await;
    let mut again = rig.device("a").await;
    for _ in 0..1000 {
        assert!(again.subscribe(&chunk(object, 0)).await);
        assert_eq!(again.message().await.payload.len(), 1000);
    }
}

#[tokio::test]
async fn a_port_or_a_folder_in_use_is_an_error() {
    use crate::broker::embedded::{BrokerError, EmbeddedBroker, EmbeddedBrokerConfig};
    use crate::broker::identity::ServerPassword;

    let rig = Rig::start().await;
    let config = |retained_dir: &str, listen| EmbeddedBrokerConfig {
        listen,
        fleet: fleet(),
        objects: rig.objects.clone(),
        server_password: ServerPassword::new("x").expect("not empty"),
        retained_dir: rig.folder.path().join(retained_dir),
        max_sessions: 1,
        tls: None,
        revoked: std::sync::Arc::default(),
    };
    let port_taken = EmbeddedBroker::start(config("other", rig.broker.local_addr())).await;
    assert!(matches!(port_taken, Err(BrokerError::Listen { .. })));
    let folder_taken = EmbeddedBroker::start(config("retained", ([127, 0, 0, 1], 0).into())).await;
    assert!(matches!(folder_taken, Err(BrokerError::InUse(_))));
}

#[tokio::test]
async fn the_session_limit_refuses_the_next_device_and_lets_the_known_one_back() {
    use crate::broker::tests::rig::Client;

    let rig = Rig::start_with(2).await;
    let _first = rig.device("a").await;
    let _second = rig.device("b").await;
    assert!(Client::connect(rig.options("c")).await.is_err());
    assert!(Client::connect(rig.options("a")).await.is_ok());
}
