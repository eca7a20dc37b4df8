//! The server's own MQTT session, with the embedded broker or any other: one thread polls and forwards requests, and
//! whoever needs to know awaits the broker's confirmation.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
pub use rumqttc::Transport;
use rumqttc::{AsyncClient, Event, EventLoop, Incoming, MqttOptions, Outgoing, Publish, QoS};
use serin_protocol::ids::FleetId;
use serin_protocol::topic::{Topic, TopicError, uplink_filter};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::pace::{self, Pace};

/// Largest packet either way: a metadata file of 256 KiB with its topic.
const MAX_PACKET_BYTES: usize = 260 * 1024;
/// Requests handed to the MQTT client and not yet written; the forwarder waits beyond it.
const CLIENT_QUEUE: usize = 64;
/// Messages that may wait for the forwarder: a burst of assignments and acknowledgements to a whole fleet,
/// about 1 KiB each. What does not fit is sent again when its device speaks.
const MAX_WAITING: usize = 16_384;
/// Messages on their way to ingest; when it lags, the socket is read no further.
const MAX_ARRIVED: usize = 4096;
/// Publications not yet confirmed by the broker.
const IN_FLIGHT: u16 = 64;
/// A vanished broker is noticed after one and a half of these.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// First wait before connecting again; doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// See [`FIRST_WAIT`]: the server is one client, its broker can bear it.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Where and as whom to connect.
#[derive(Clone)]
pub struct LinkOptions {
    /// Broker host.
    pub host: String,
    /// Broker port.
    pub port: u16,
    /// MQTT client id.
    pub client_id: String,
    /// User and password.
    pub credentials: Option<(String, Zeroizing<String>)>,
    /// The fleet.
    pub fleet: FleetId,
    /// Plain TCP, or TLS.
    pub transport: Transport,
    /// Spreads reconnections: each wait is prolonged by this share of itself, in percent.
    pub jitter_percent: u32,
}

/// What arrives.
#[derive(Debug)]
pub enum Arrival {
    /// Connected and subscribed; what may have been lost meanwhile is to be said again.
    Connected,
    /// A message on one of our topics.
    Message {
        /// Where.
        topic: Topic,
        /// What.
        payload: Bytes,
        /// Whether the broker had kept it from before this session.
        kept: bool,
    },
    /// A message on something that is not our topic.
    Strange(TopicError),
}

/// The connection is gone, or too much waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the broker cannot be reached now")]
pub struct LinkDown;

enum Request {
    Publish { topic: Topic, payload: Bytes, retain: bool, confirm: Option<oneshot::Sender<()>> },
    Subscribe(Topic),
    Unsubscribe(Topic),
}

/// The way to the broker. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    requests: mpsc::Sender<Request>,
    connected: watch::Receiver<bool>,
    wanted: Arc<Mutex<HashMap<Topic, oneshot::Sender<Bytes>>>>,
}

impl Link {
    /// Sends without waiting for anything.
    pub fn send(&self, topic: Topic, payload: Bytes, retain: bool) -> Result<(), LinkDown> {
        let request = Request::Publish { topic, payload, retain, confirm: None };
        self.requests.try_send(request).map_err(|_| LinkDown)
    }

    /// Publishes a retained message and waits until the broker has it.
    pub async fn retain(&self, topic: Topic, payload: Bytes) -> Result<(), LinkDown> {
        let (confirm, confirmed) = oneshot::channel();
        let request = Request::Publish { topic, payload, retain: true, confirm: Some(confirm) };
        self.requests.send(request).await.map_err(|_| LinkDown)?;
        confirmed.await.map_err(|_| LinkDown)
    }

    /// Publishes a retained message behind all that was sent before, without waiting. What is returned ends when the
    /// broker has it, or with an error when that cannot be known any more.
    pub fn retain_soon(&self, topic: Topic, payload: Bytes) -> Result<oneshot::Receiver<()>, LinkDown> {
        let (confirm, confirmed) = oneshot::channel();
        let request = Request::Publish { topic, payload, retain: true, confirm: Some(confirm) };
        self.requests.try_send(request).map_err(|_| LinkDown)?;
        Ok(confirmed)
    }

    /// Asks the broker for the retained message on a topic; `None` when it has none within `patience`.
    pub async fn fetch(&self, topic: &Topic, patience: Duration) -> Result<Option<Bytes>, LinkDown> {
        let (found, answer) = oneshot::channel();
        lock(&self.wanted).insert(topic.clone(), found);
        self.requests.send(Request::Subscribe(topic.clone())).await.map_err(|_| LinkDown)?;
        let answer = tokio::time::timeout(patience, answer).await;
        lock(&self.wanted).remove(topic);
        self.requests.send(Request::Unsubscribe(topic.clone())).await.map_err(|_| LinkDown)?;
        match answer {
            Ok(Ok(bytes)) => Ok(Some(bytes)),
            Ok(Err(_)) => Err(LinkDown),
            Err(_) => Ok(None),
        }
    }

    /// Whether the session stands.
    pub fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }

    /// Waits until the session stands; false when the link has ended.
    pub async fn connected(&self) -> bool {
        let mut connected = self.connected.clone();
        connected.wait_for(|connected| *connected).await.is_ok()
    }
}

/// Keeps a link up until the receiver is dropped, on a thread of its own: it is the only one that may sleep.
///
/// # Errors
///
/// There is no thread to be had, or nothing to wait for sockets with.
pub fn start(options: LinkOptions) -> std::io::Result<(Link, mpsc::Receiver<Arrival>)> {
    let (requests, waiting) = mpsc::channel(MAX_WAITING);
    let (arrivals, arrived) = mpsc::channel(MAX_ARRIVED);
    let (standing, connected) = watch::channel(false);
    let wanted = Arc::<Mutex<HashMap<_, _>>>::default();
    let link = Link { requests, connected, wanted: Arc::clone(&wanted) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let kept = keep(options, (waiting, arrivals, standing), wanted);
    std::thread::Builder::new().name("link".into()).spawn(move || runtime.block_on(kept))?;
    Ok((link, arrived))
}

async fn keep(
    options: LinkOptions,
    (mut waiting, arrivals, standing): (mpsc::Receiver<Request>, mpsc::Sender<Arrival>, watch::Sender<bool>),
    wanted: Arc<Mutex<HashMap<Topic, oneshot::Sender<Bytes>>>>,
) {
    let mut wait = FIRST_WAIT;
    loop {
        let session = Session::open(&options, Arc::clone(&wanted));
        let ended = session.run(&mut waiting, &arrivals, &standing).await;
        let _ = standing.send(false);
        // Whoever waits for a retained message asks again over the next session.
        lock(&wanted).clear();
        match ended {
            Ended::NobodyListens => return,
            Ended::Lost { error, stood } => {
                warn!(%error, "the connection to the broker is lost");
                wait = if stood { FIRST_WAIT } else { (wait * 2).min(LONGEST_WAIT) };
            }
        }
        tokio::time::sleep(wait + wait * options.jitter_percent.min(100) / 100).await;
    }
}

enum Ended {
    Lost { error: String, stood: bool },
    NobodyListens,
}

type Confirmations = Arc<Mutex<VecDeque<Option<oneshot::Sender<()>>>>>;

struct Session {
    client: AsyncClient,
    events: EventLoop,
    fleet: FleetId,
    /// One per publication handed to the client and not yet written, in order.
    handed: Confirmations,
    /// By packet number, written and not yet confirmed.
    written: HashMap<u16, oneshot::Sender<()>>,
    wanted: Arc<Mutex<HashMap<Topic, oneshot::Sender<Bytes>>>>,
}

impl Session {
    fn open(options: &LinkOptions, wanted: Arc<Mutex<HashMap<Topic, oneshot::Sender<Bytes>>>>) -> Self {
        let mut mqtt = MqttOptions::new(&options.client_id, &options.host, options.port);
        mqtt.set_transport(options.transport.clone());
        mqtt.set_keep_alive(KEEP_ALIVE);
        mqtt.set_clean_session(true);
        mqtt.set_inflight(IN_FLIGHT);
        mqtt.set_max_packet_size(MAX_PACKET_BYTES, MAX_PACKET_BYTES);
        if let Some((user, password)) = &options.credentials {
            mqtt.set_credentials(user, password.as_str());
        }
        let (client, mut events) = AsyncClient::new(mqtt, CLIENT_QUEUE);
        let mut network = events.network_options();
        // Without it every round waits about 44 ms for a delayed acknowledgement.
        network.set_tcp_nodelay(true);
        events.set_network_options(network);
        Self {
            client,
            events,
            fleet: options.fleet.clone(),
            handed: Arc::default(),
            written: HashMap::new(),
            wanted,
        }
    }

    async fn run(
        mut self,
        waiting: &mut mpsc::Receiver<Request>,
        arrivals: &mpsc::Sender<Arrival>,
        standing: &watch::Sender<bool>,
    ) -> Ended {
        let mut stood = false;
        // What was said while there was no session is said again by whoever still means it.
        let forward = forward(self.client.clone(), self.fleet.clone(), Arc::clone(&self.handed), waiting);
        tokio::pin!(forward);
        let mut pace = Pace::new(Instant::now());
        loop {
            // With no event left the client reads the socket.
            if self.events.state.events.is_empty() && pace.waits(Instant::now()) {
                // The thread itself: awaited, every message would wake it only to be told to go on waiting.
                std::thread::sleep(pace::MOMENT);
            }
            let event = tokio::select! {
                () = &mut forward, if stood => return Ended::NobodyListens,
                () = arrivals.closed() => return Ended::NobodyListens,
                event = self.events.poll() => event,
            };
            let arrival = match event {
                Err(error) => return Ended::Lost { error: error.to_string(), stood },
                Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                    // The client's queue is empty, so that this fits.
                    let filter = uplink_filter(&self.fleet);
                    if self.client.try_subscribe(filter.as_str(), QoS::AtLeastOnce).is_err() {
                        return Ended::Lost { error: "cannot subscribe".into(), stood };
                    }
                    None
                }
                Ok(Event::Incoming(Incoming::SubAck(_))) if !stood => {
                    stood = true;
                    info!("connected to the broker");
                    let _ = standing.send(true);
                    Some(Arrival::Connected)
                }
                Ok(Event::Incoming(Incoming::Publish(publish))) => {
                    pace.came();
                    self.arrived(publish)
                }
                Ok(Event::Outgoing(Outgoing::Publish(packet))) => {
                    if let Some(confirm) = lock(&self.handed).pop_front().flatten() {
                        self.written.insert(packet, confirm);
                    }
                    None
                }
                Ok(Event::Incoming(Incoming::PubAck(ack))) => {
                    if let Some(confirm) = self.written.remove(&ack.pkid) {
                        // Nobody waits any more: then nobody needs to know.
                        let _ = confirm.send(());
                    }
                    None
                }
                Ok(_) => None,
            };
            if let Some(arrival) = arrival
                && arrivals.send(arrival).await.is_err()
            {
                return Ended::NobodyListens;
            }
        }
    }

    fn arrived(&self, publish: Publish) -> Option<Arrival> {
        let Publish { topic, payload, retain: kept, .. } = publish;
        match Topic::parse(&self.fleet, &topic) {
            Ok(topic) => match lock(&self.wanted).remove(&topic) {
                Some(found) => {
                    let _ = found.send(payload);
                    None
                }
                // A retained message that nobody waits for any more.
                None if topic.device().is_none() => None,
                None => Some(Arrival::Message { topic, payload, kept }),
            },
            Err(error) => Some(Arrival::Strange(error)),
        }
    }
}

/// Hands requests to the client in order; may wait for it, which the polling task must not.
async fn forward(
    client: AsyncClient,
    fleet: FleetId,
    handed: Confirmations,
    waiting: &mut mpsc::Receiver<Request>,
) {
    while let Some(request) = waiting.recv().await {
        let taken = match request {
            Request::Publish { topic, payload, retain, confirm } => {
                // Before the client has it: the confirmation may be faster than this task.
                lock(&handed).push_back(confirm);
                let name = topic.name(&fleet);
                client.publish_bytes(name.as_str(), QoS::AtLeastOnce, retain, payload).await
            }
            Request::Subscribe(topic) => {
                client.subscribe(topic.name(&fleet).as_str(), QoS::AtLeastOnce).await
            }
            Request::Unsubscribe(topic) => client.unsubscribe(topic.name(&fleet).as_str()).await,
        };
        if taken.is_err() {
            // The session has ended; the polling task says so.
            return std::future::pending().await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
