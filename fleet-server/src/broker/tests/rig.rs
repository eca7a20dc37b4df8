//! A broker on a free port and clients that are polled by the test itself.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{
    AsyncClient, ConnAck, ConnectReturnCode, ConnectionError, Event, EventLoop, LastWill, MqttOptions,
    NetworkOptions, Outgoing, Packet, Publish, QoS, SubscribeFilter, SubscribeReasonCode,
};
use serin_protocol::chunk::ChunkMap;
use serin_protocol::ids::{ByteCount, DeviceId, Digest, FleetId};
use serin_protocol::topic::Topic;
use tempfile::TempDir;

use crate::broker::embedded::{DEFAULT_MAX_SESSIONS, EmbeddedBroker, EmbeddedBrokerConfig};
use crate::broker::identity::{SERVER_USER, ServerPassword};
use crate::registry::objects::ObjectStore;

/// Longest that anything awaited here may take before the test fails.
const PATIENCE: Duration = Duration::from_mins(1);

const PASSWORD: &str = "the server's password";

pub(super) struct Rig {
    pub(super) folder: TempDir,
    pub(super) objects: Arc<ObjectStore>,
    pub(super) broker: EmbeddedBroker,
}

pub(super) fn fleet() -> FleetId {
    FleetId::new("f").expect("valid")
}

pub(super) fn device(name: &str) -> DeviceId {
    DeviceId::new(name).expect("valid")
}

pub(super) fn name(topic: &Topic) -> String {
    topic.name(&fleet()).as_str().to_owned()
}

pub(super) fn chunk(object: Digest, index: u32) -> String {
    name(&Topic::Chunk { object, index })
}

/// Bytes that differ from chunk to chunk.
pub(super) fn content(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

impl Rig {
    pub(super) async fn start() -> Self {
        Self::start_with(DEFAULT_MAX_SESSIONS).await
    }

    pub(super) async fn start_with(max_sessions: u32) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let objects = Arc::new(ObjectStore::open(folder.path()).expect("opens"));
        let broker = start_broker(&folder, &objects, max_sessions).await;
        Self { folder, objects, broker }
    }

    pub(super) async fn restart(self) -> Self {
        let Self { folder, objects, broker } = self;
        broker.stop().await.expect("stopped");
        let broker = start_broker(&folder, &objects, DEFAULT_MAX_SESSIONS).await;
        Self { folder, objects, broker }
    }

    pub(super) async fn server(&self) -> Client {
        self.server_named("serin-server").await
    }

    pub(super) async fn server_named(&self, client_id: &str) -> Client {
        let mut options = self.options(client_id);
        options.set_credentials(SERVER_USER, PASSWORD);
        Client::connect(options).await.expect("the server may connect")
    }

    pub(super) async fn device(&self, client_id: &str) -> Client {
        Client::connect(self.options(client_id)).await.expect("a device may connect")
    }

    /// A device whose will is a retained hello of `payload`.
    pub(super) async fn device_with_will(&self, client_id: &str, payload: &str) -> Client {
        let mut options = self.options(client_id);
        let topic = name(&Topic::Hello(device(client_id)));
        options.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, true));
        Client::connect(options).await.expect("a device may connect")
    }

    pub(super) fn options(&self, client_id: &str) -> MqttOptions {
        let address = self.broker.local_addr();
        let mut options = MqttOptions::new(client_id, address.ip().to_string(), address.port());
        options.set_max_packet_size(128 * 1024, 128 * 1024);
        options
    }

    /// Stores an object and has the server publish its chunks.
    pub(super) async fn publish_object(&self, server: &mut Client, bytes: &[u8]) -> Digest {
        let object = self.objects.put(bytes).expect("stored");
        let map = ChunkMap::new(ByteCount(bytes.len() as u64)).expect("not empty");
        for index in 0..map.count() {
            let payload = self.objects.chunk(&object, index).expect("readable").expect("present");
            server.publish(&chunk(object, index), true, payload).await;
        }
        object
    }
}

async fn start_broker(folder: &TempDir, objects: &Arc<ObjectStore>, max_sessions: u32) -> EmbeddedBroker {
    let config = EmbeddedBrokerConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        fleet: fleet(),
        objects: Arc::clone(objects),
        server_password: ServerPassword::new(PASSWORD).expect("not empty"),
        retained_dir: folder.path().join("retained"),
        max_sessions,
        tls: None,
        revoked: Arc::default(),
    };
    EmbeddedBroker::start(config).await.expect("started")
}

/// One connection. Messages that arrive while something else is awaited are kept for later.
pub(super) struct Client {
    requests: AsyncClient,
    events: EventLoop,
    arrived: VecDeque<Publish>,
}

impl Client {
    pub(super) async fn connect(options: MqttOptions) -> Result<Self, ConnectReturnCode> {
        let (requests, mut events) = AsyncClient::new(options, 1024);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        events.set_network_options(network);
        let mut client = Self { requests, events, arrived: VecDeque::new() };
        match client.poll().await {
            Ok(Packet::ConnAck(ConnAck { code: ConnectReturnCode::Success, .. })) => Ok(client),
            Err(ConnectionError::ConnectionRefused(code)) => Err(code),
            other => panic!("neither accepted nor refused: {other:?}"),
        }
    }

    async fn poll(&mut self) -> Result<Packet, ConnectionError> {
        loop {
            if let Event::Incoming(packet) = self.events.poll().await? {
                return Ok(packet);
            }
        }
    }

    /// Polls until `wanted` is satisfied by a packet.
    async fn until<T>(&mut self, mut wanted: impl FnMut(&Packet) -> Option<T>) -> T {
        let found = async {
            loop {
                let packet = self.poll().await.expect("connected");
                if let Some(found) = wanted(&packet) {
                    return found;
                }
                if let Packet::Publish(publish) = packet {
                    self.arrived.push_back(publish);
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("what is awaited comes in time")
    }

    /// Publishes and awaits the acknowledgement.
    pub(super) async fn publish(&mut self, topic: &str, retain: bool, payload: impl Into<Bytes>) {
        let payload = payload.into();
        self.requests.publish_bytes(topic, QoS::AtLeastOnce, retain, payload).await.expect("queued");
        self.until(|packet| matches!(packet, Packet::PubAck(_)).then_some(())).await;
    }

    /// Queues a message without awaiting anything.
    pub(super) fn send_unacknowledged(&self, topic: &str, payload: Vec<u8>) {
        self.requests.try_publish(topic, QoS::AtLeastOnce, false, payload).expect("queued");
    }

    /// Queues one subscription to many filters without awaiting anything.
    pub(super) fn ask(&self, filters: impl IntoIterator<Item = String>) {
        let filters = filters.into_iter().map(|filter| SubscribeFilter::new(filter, QoS::AtLeastOnce));
        self.requests.try_subscribe_many(filters).expect("queued");
    }

    /// Queues an unsubscription and a subscription without awaiting either.
    pub(super) fn slide(&self, from: Option<&str>, to: Option<&str>) {
        if let Some(topic) = from {
            self.requests.try_unsubscribe(topic).expect("queued");
        }
        if let Some(topic) = to {
            self.requests.try_subscribe(topic, QoS::AtLeastOnce).expect("queued");
        }
    }

    /// Subscribes; whether it was granted.
    pub(super) async fn subscribe(&mut self, filter: &str) -> bool {
        self.subscribe_all(&[filter]).await == [true]
    }

    pub(super) async fn subscribe_all(&mut self, filters: &[&str]) -> Vec<bool> {
        let filters =
            filters.iter().map(|filter| SubscribeFilter::new((*filter).to_owned(), QoS::AtLeastOnce));
        self.requests.subscribe_many(filters).await.expect("queued");
        let granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
        self.until(|packet| match packet {
            Packet::SubAck(ack) => Some(ack.return_codes.iter().map(granted).collect()),
            _ => None,
        })
        .await
    }

    pub(super) async fn unsubscribe(&mut self, filter: &str) {
        self.requests.unsubscribe(filter).await.expect("queued");
        self.until(|packet| matches!(packet, Packet::UnsubAck(_)).then_some(())).await;
    }

    /// The next message.
    pub(super) async fn message(&mut self) -> Publish {
        if let Some(publish) = self.arrived.pop_front() {
            return publish;
        }
        self.until(|packet| match packet {
            Packet::Publish(publish) => Some(publish.clone()),
            _ => None,
        })
        .await
    }

    /// The next message as topic and text.
    pub(super) async fn text(&mut self) -> (String, String) {
        let publish = self.message().await;
        (publish.topic, String::from_utf8_lossy(&publish.payload).into_owned())
    }

    /// Polls until the broker ends the connection.
    pub(super) async fn ended(&mut self) {
        let ended = async { while self.poll().await.is_ok() {} };
        tokio::time::timeout(PATIENCE, ended).await.expect("the connection ends in time");
    }

    /// Polls until a queued request has been written to the connection.
    pub(super) async fn sent(&mut self) {
        while !matches!(self.events.poll().await, Ok(Event::Outgoing(_)) | Err(_)) {}
    }

    /// Says goodbye, so that no will is published.
    pub(super) async fn leave(mut self) {
        self.requests.try_disconnect().expect("queued");
        while !matches!(self.events.poll().await, Ok(Event::Outgoing(Outgoing::Disconnect)) | Err(_)) {}
    }
}
