//! A broker that is no broker: what it hears, and what comes of its silence.

use crate::scoring::shape::{Column, RowShape};
use bytes::BytesMut;
use rumqttc::{ConnAck, ConnectReturnCode, Packet, PubAck, Publish, SubAck, Subscribe};
use serin_protocol::tensor::DataType;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A connection as the broker has it.
struct Connection {
    stream: TcpStream,
    bytes: BytesMut,
}

impl Connection {
    async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().await.expect("a client");
        let mut connection = Self { stream, bytes: BytesMut::new() };
        let Packet::Connect(connect) = connection.next().await else { panic!("no greeting") };
        assert!(connect.clean_session);
        connection.say(&Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false))).await;
        connection
    }

    async fn next(&mut self) -> Packet {
        loop {
            if let Ok(packet) = Packet::read(&mut self.bytes, MAX_PACKET_BYTES) {
                return packet;
            }
            let read = self.stream.read_buf(&mut self.bytes).await.expect("readable");
            assert!(read > 0, "it went away");
        }
    }

    async fn published(&mut self) -> Publish {
        match self.next().await {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?}"),
        }
    }

    async fn say(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, MAX_RECEIVED_BYTES).expect("small enough");
        self.stream.write_all(&bytes).await.expect("writable");
    }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    (listener, address)
}

fn ends(broker: &str) -> Ends<'_> {
    Ends { broker, from: "rows", to: "answers", client_id: "test" }
}

/// Takes in the rows of `ends`, up to the question for them, which is not answered yet.
async fn subscriber(listener: &TcpListener, ends: &Ends<'_>) -> (Connection, Subscribe, Arc<Inbox>) {
    let (client, eventloop) = connect(ends, "test", true).expect("an address");
    let inbox = Arc::new(Inbox::default());
    tokio::spawn(take_in(client, eventloop, "rows".into(), Arc::clone(&inbox), String::new()));
    let mut broker = Connection::accept(listener).await;
    let Packet::Subscribe(subscribe) = broker.next().await else { panic!("it does not subscribe") };
    (broker, subscribe, inbox)
}

async fn answers_survive_a_broker_that_forgets() {
    let (listener, address) = listen().await;
    let (client, eventloop) = connect(&ends(&address), "test-out", true).expect("an address");
    let (outgoing, to_deliver) = mpsc::channel(AT_ONCE);
    let (told, mut delivered) = mpsc::channel(AT_ONCE);
    tokio::spawn(deliver(client, eventloop, "answers".into(), to_deliver, told));
    for answer in ["1", "2", "3"] {
        outgoing.send(answer.to_owned()).await.expect("taken");
    }
    let mut first = Connection::accept(&listener).await;
    for answer in ["1", "2", "3"] {
        let published = first.published().await;
        assert_eq!(published.payload, answer);
        if answer == "1" {
            first.say(&Packet::PubAck(PubAck::new(published.pkid))).await;
        }
    }
    delivered.recv().await.expect("acknowledged");
    drop(first);
    outgoing.send("4".to_owned()).await.expect("taken");
    let mut second = Connection::accept(&listener).await;
    for answer in ["2", "3", "4"] {
        let published = second.published().await;
        assert_eq!(published.payload, answer);
        second.say(&Packet::PubAck(PubAck::new(published.pkid))).await;
        delivered.recv().await.expect("acknowledged");
    }
}

#[tokio::test]
async fn what_a_broker_did_not_acknowledge_it_is_told_again_though_it_has_forgotten_the_session() {
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, answers_survive_a_broker_that_forgets()).await.expect("an end");
}

async fn what_no_row_is_as_large_as_is_received() {
    let (listener, address) = listen().await;
    let (mut broker, _, inbox) = subscriber(&listener, &ends(&address)).await;
    let large = format!("[{}0]", "0,".repeat(1 << 20));
    for (pkid, text) in [(1, large.as_str()), (2, "[1]")] {
        let publish = Publish::new("rows", QoS::AtLeastOnce, text);
        broker.say(&Packet::Publish(Publish { pkid, ..publish })).await;
    }
    let column = Column { name: None, datatype: DataType::Fp32, is_image: false };
    let shape = RowShape { columns: vec![column] };
    for is_row in [false, true] {
        let message = inbox.take(1, usize::MAX).await.expect("room").remove(0);
        assert_eq!(row_of(message.payload(), &shape).values.is_ok(), is_row);
    }
}

async fn a_topic_that_is_not_granted_ends_it() {
    let (listener, address) = listen().await;
    let ends = ends(&address);
    let (mut broker, subscribe, inbox) = subscriber(&listener, &ends).await;
    // What an older session asked for is acknowledged, and not answered.
    let publish = Publish::new("old/row", QoS::AtLeastOnce, "[1]");
    broker.say(&Packet::Publish(Publish { pkid: 7, ..publish })).await;
    let Packet::PubAck(acknowledged) = broker.next().await else { panic!("it is not acknowledged") };
    assert_eq!(acknowledged.pkid, 7);
    let codes = vec![SubscribeReasonCode::Failure];
    broker.say(&Packet::SubAck(SubAck::new(subscribe.pkid, codes))).await;
    let end = inbox.take(1, usize::MAX).await.expect_err("nothing comes");
    let CliError::Stopped { message, .. } = ended(&end, &ends) else { panic!("another error") };
    assert!(message.contains("rows") && message.contains(&address), "{message}");
}

#[tokio::test]
async fn a_topic_that_the_broker_does_not_grant_ends_the_stream_and_older_ones_are_not_answered() {
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, a_topic_that_is_not_granted_ends_it()).await.expect("an end");
}

#[tokio::test]
async fn a_message_that_no_row_is_as_large_as_is_received_and_answered_with_an_error() {
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, what_no_row_is_as_large_as_is_received()).await.expect("an end");
}

#[test]
fn an_answer_that_no_message_holds_is_an_error() {
    let fits = json!({ "a": "x".repeat(MAX_MESSAGE_BYTES - 20) });
    let fitting = message(fits, "t");
    assert_eq!(fitting.len(), MAX_MESSAGE_BYTES);
    let large = json!({ "a": "x".repeat(MAX_MESSAGE_BYTES - 19) });
    assert!(message(large, "t").starts_with("{\"error\":\"the answer has 1048577 bytes"));
    let publish = Publish::new("t".repeat(u16::MAX.into()), QoS::AtLeastOnce, fitting);
    let mut bytes = BytesMut::new();
    Packet::Publish(Publish { pkid: 1, ..publish }).write(&mut bytes, MAX_PACKET_BYTES).expect("fits");
}

#[test]
fn topics_that_no_broker_takes_are_refused() {
    let ends = |from, to| Ends { broker: "127.0.0.1:1", from, to, client_id: "test" };
    assert!(check(&ends("camera/+/row", "camera/class")).is_ok());
    for (from, to) in [
        ("", "a"),
        ("a/#/b", "a"),
        ("a", "b/+"),
        ("a", ""),
        ("a", "a"),
        ("camera/#", "camera/class"),
        ("+/b", "a/b"),
    ] {
        assert!(check(&ends(from, to)).is_err(), "{from:?} {to:?}");
    }
}

#[test]
fn other_topics_have_another_session() {
    let name = name_for("camera/+/row", "camera/class");
    assert!(name.len() <= 23 - "-out".len() && name == name_for("camera/+/row", "camera/class"), "{name}");
    assert_ne!(name, name_for("camera/+/row", "class"));
    assert_ne!(name_for("a", "bc"), name_for("ab", "c"));
}
