//! The server's own MQTT session, to the embedded broker or any other. One task polls one connection; a
//! broken one is thrown away whole, and what is retained is said again at the next.

use std::time::Duration;

use bytes::Bytes;
use rumqttc::{AsyncClient, Event, EventLoop, Incoming, MqttOptions, QoS};
use serin_protocol::ids::FleetId;
use serin_protocol::topic::{Topic, uplink_filter};
use tokio::sync::mpsc;
use tracing::{info, warn};

/// Largest packet either way: a metadata file of 256 KiB with its topic.
const MAX_PACKET_BYTES: usize = 260 * 1024;
/// Requests handed to the client and not yet written. Senders wait beyond that.
const MAX_REQUESTS: usize = 256;
/// Messages from devices that wait to be taken in; when ingest lags, the socket is read no further.
pub const MAX_MESSAGES: usize = 1024;
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// First wait before connecting again; doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Which broker, and as whom.
#[derive(Clone)]
pub struct LinkConfig {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User name and password.
    pub credentials: Option<(String, String)>,
    /// Client id; unique at the broker.
    pub client_id: String,
    /// The fleet.
    pub fleet: FleetId,
}

/// What happens on the link.
pub enum LinkEvent {
    /// Connected and subscribed to everything devices say.
    Connected(Session),
    /// A message from a device.
    Message(String, Bytes),
}

/// One connection, for publishing.
#[derive(Clone)]
pub struct Session {
    client: AsyncClient,
    fleet: FleetId,
}

/// The connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection to the broker is gone")]
pub struct Gone;

impl Session {
    /// Publishes at least once, waiting while too much is on its way. Never call it from what polls.
    pub async fn publish(&self, topic: &Topic, payload: Vec<u8>, retain: bool) -> Result<(), Gone> {
        let name = topic.name(&self.fleet);
        self.client.publish(name.as_str(), QoS::AtLeastOnce, retain, payload).await.map_err(|_| Gone)
    }
}

/// Keeps a link up until the receiver is dropped.
pub fn start(config: LinkConfig) -> mpsc::Receiver<LinkEvent> {
    let (events, receiver) = mpsc::channel(MAX_MESSAGES);
    tokio::spawn(async move {
        let mut wait = FIRST_WAIT;
        while let Some(connected) = run_session(&config, &events).await {
            wait = if connected { FIRST_WAIT } else { (wait * 2).min(LONGEST_WAIT) };
            tokio::time::sleep(wait).await;
        }
    });
    receiver
}

/// One connection from first to last packet: whether it ever stood, or `None` when nobody listens.
async fn run_session(config: &LinkConfig, events: &mpsc::Sender<LinkEvent>) -> Option<bool> {
    let (client, mut eventloop) = open(config);
    let filter = uplink_filter(&config.fleet);
    let mut connected = false;
    loop {
        let event = tokio::select! {
            event = eventloop.poll() => event,
            () = events.closed() => return None,
        };
        match event {
            Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                info!(host = config.host, port = config.port, "connected to the broker");
                connected = true;
                if client.try_subscribe(filter.as_str(), QoS::AtLeastOnce).is_err() {
                    return Some(connected);
                }
                let session = Session { client: client.clone(), fleet: config.fleet.clone() };
                events.send(LinkEvent::Connected(session)).await.ok()?;
            }
            Ok(Event::Incoming(Incoming::Publish(publish))) => {
                events.send(LinkEvent::Message(publish.topic, publish.payload)).await.ok()?;
            }
            Ok(_) => {}
            Err(error) => {
                warn!(%error, "no connection to the broker");
                return Some(connected);
            }
        }
    }
}

pub(super) fn open(config: &LinkConfig) -> (AsyncClient, EventLoop) {
    let mut mqtt = MqttOptions::new(&config.client_id, &config.host, config.port);
    mqtt.set_keep_alive(KEEP_ALIVE);
    mqtt.set_clean_session(true);
    mqtt.set_max_packet_size(MAX_PACKET_BYTES, MAX_PACKET_BYTES);
    if let Some((user, password)) = &config.credentials {
        mqtt.set_credentials(user, password);
    }
    let (client, mut eventloop) = AsyncClient::new(mqtt, MAX_REQUESTS);
    let mut network = eventloop.network_options();
    // Otherwise every round waits about 44 ms for a delayed acknowledgement.
    network.set_tcp_nodelay(true);
    eventloop.set_network_options(network);
    (client, eventloop)
}
