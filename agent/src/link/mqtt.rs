//! The MQTT session: one task polls one connection and hands what happens to the supervisor. A broken
//! connection is thrown away whole, so that nothing half sent is carried over; what must arrive is in
//! the outbox until the server itself has acknowledged it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
pub use rumqttc::Transport;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, Incoming, LastWill, MqttOptions,
    Outgoing, QoS,
};
use serin_protocol::ids::{DeviceId, FleetId, Millis};
use serin_protocol::topic::{Topic, TopicError};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::backoff::{Backoff, Jitter};
use super::tls;

/// Largest packet either way: a metadata file of 256 KiB with its topic.
const MAX_PACKET_BYTES: usize = 260 * 1024;
/// Requests handed to the client and not yet written: a window of 16 chunks, subscribed and
/// unsubscribed, and a burst of events.
const MAX_REQUESTS: usize = 128;
/// Events on their way to the supervisor; when it lags, the socket is read no further.
const MAX_EVENTS: usize = 64;
/// The broker notices a dead device after one and a half of these.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Before connecting again. A connection that held for [`STEADY`] begins with the first wait anew.
const RECONNECT: Backoff = Backoff { first: Millis(250), cap: Millis::from_secs(30) };
/// A connection that ends sooner counts as a failure: a broker that takes everybody in and throws everybody
/// out is not to be asked four times a second.
const STEADY: Duration = Duration::from_secs(5);

/// Makes the sealed last will of the connection with this number.
pub type Will = Box<dyn Fn(u32) -> Vec<u8> + Send + Sync>;

/// Where and as whom to connect.
pub struct LinkOptions {
    /// Broker host.
    pub host: String,
    /// Broker port.
    pub port: u16,
    /// The device, which is also the client id.
    pub device: DeviceId,
    /// The fleet.
    pub fleet: FleetId,
    /// Plain TCP, or TLS.
    pub transport: Transport,
    /// What is to be left behind by each connection.
    pub will: Will,
    /// Spreads reconnections of a fleet; give every device another.
    pub seed: u64,
}

/// What happens on the link.
#[derive(Debug)]
pub enum LinkEvent {
    /// Connected; everything is to be subscribed anew through this session.
    Connected(Session),
    /// No longer connected, or still not; the link tries again by itself.
    Disconnected(Problem),
    /// A message on one of our topics.
    Message(Topic, Bytes),
    /// A message on something that is not our topic.
    Strange(String, TopicError),
    /// The broker has taken the publication with this token.
    Delivered(u64),
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// In words.
    pub text: String,
    /// The broker is there, and does not let this device in.
    pub refused: bool,
}

impl Problem {
    fn of(error: &ConnectionError) -> Self {
        let code = match error {
            ConnectionError::ConnectionRefused(code) => Some(*code),
            // All else may be the network's fault.
            _ => None,
        };
        match code {
            Some(code @ (ConnectReturnCode::NotAuthorized | ConnectReturnCode::BadUserNamePassword)) => {
                Self { text: format!("the broker does not let this device in ({code:?})"), refused: true }
            }
            Some(_) | None => Self { text: error.to_string(), refused: tls::told_off(error) },
        }
    }
}

/// One connection, for requests. Requests never wait: what does not fit is refused and tried again later.
#[derive(Clone)]
pub struct Session {
    client: AsyncClient,
    fleet: FleetId,
    connection: u32,
    tokens: Arc<Mutex<VecDeque<Option<u64>>>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("fleet", &self.fleet).finish_non_exhaustive()
    }
}

/// Too many requests are waiting to be written, or the connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the link is busy")]
pub struct Busy;

impl Session {
    /// How many connections were begun before it, it included.
    pub const fn connection(&self) -> u32 {
        self.connection
    }

    /// Asks for a topic's retained message and all later ones.
    pub fn subscribe(&self, topic: &Topic) -> Result<(), Busy> {
        self.client.try_subscribe(topic.name(&self.fleet).as_str(), QoS::AtLeastOnce).map_err(|_| Busy)
    }

    /// Ends a subscription.
    pub fn unsubscribe(&self, topic: &Topic) -> Result<(), Busy> {
        self.client.try_unsubscribe(topic.name(&self.fleet).as_str()).map_err(|_| Busy)
    }

    /// Publishes at least once. With a `token`, [`LinkEvent::Delivered`] follows when the broker has it.
    pub fn publish(
        &self,
        topic: &Topic,
        payload: Vec<u8>,
        retain: bool,
        token: Option<u64>,
    ) -> Result<(), Busy> {
        // The polling task pops in the order in which the client's queue takes the requests.
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        self.client
            .try_publish(topic.name(&self.fleet).as_str(), QoS::AtLeastOnce, retain, payload)
            .map_err(|_| Busy)?;
        tokens.push_back(token);
        Ok(())
    }

    /// Says goodbye, so that the broker does not publish the last will.
    pub fn disconnect(&self) {
        // On failure the connection is gone already.
        let _ = self.client.try_disconnect();
    }
}

/// Keeps a link up until the receiver is dropped. While `hold` has a moment ahead, nothing is connected
/// anew; a connection that stands goes on.
pub fn start(options: LinkOptions, mut hold: watch::Receiver<Option<Instant>>) -> mpsc::Receiver<LinkEvent> {
    let (events, receiver) = mpsc::channel(MAX_EVENTS);
    tokio::spawn(async move {
        let mut jitter = Jitter::new(options.seed);
        let mut failures = 0;
        for connection in 1.. {
            let started = Instant::now();
            let Some(connected) = run_session(&options, connection, &events).await else { return };
            failures = if connected && started.elapsed() >= STEADY { 1 } else { failures + 1 };
            let wait = RECONNECT.wait(failures, &mut jitter);
            tokio::time::sleep(Duration::from_millis(wait.0)).await;
            if !held(&mut hold, &events).await {
                return;
            }
        }
    });
    receiver
}

/// Waits until nothing holds the link back; false when nobody listens any more.
async fn held(hold: &mut watch::Receiver<Option<Instant>>, events: &mpsc::Sender<LinkEvent>) -> bool {
    loop {
        let until = *hold.borrow_and_update();
        let Some(until) = until.filter(|until| *until > Instant::now()) else { return true };
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            changed = hold.changed() => if changed.is_err() { return false },
            () = events.closed() => return false,
        }
    }
}

/// One connection from first to last packet: whether it ever stood, or `None` when nobody listens.
async fn run_session(
    options: &LinkOptions,
    connection: u32,
    events: &mpsc::Sender<LinkEvent>,
) -> Option<bool> {
    let (session, mut eventloop) = open(options, connection);
    let mut unacknowledged: HashMap<u16, Option<u64>> = HashMap::new();
    let mut connected = false;
    loop {
        let event = match eventloop.poll().await {
            Ok(event) => event,
            Err(error) => {
                events.send(LinkEvent::Disconnected(Problem::of(&error))).await.ok()?;
                return Some(connected);
            }
        };
        let said = match event {
            Event::Incoming(Incoming::ConnAck(_)) => {
                connected = true;
                Some(LinkEvent::Connected(session.clone()))
            }
            Event::Incoming(Incoming::Publish(publish)) => {
                Some(match Topic::parse(&options.fleet, &publish.topic) {
                    Ok(topic) => LinkEvent::Message(topic, publish.payload),
                    Err(error) => LinkEvent::Strange(publish.topic, error),
                })
            }
            Event::Outgoing(Outgoing::Publish(packet)) => {
                let mut tokens = session.tokens.lock().unwrap_or_else(PoisonError::into_inner);
                unacknowledged.insert(packet, tokens.pop_front().flatten());
                None
            }
            // Written, and with it all before it: the broker leaves it to us to close the connection.
            Event::Outgoing(Outgoing::Disconnect) => {
                let _ = events
                    .send(LinkEvent::Disconnected(Problem { text: "goodbye".into(), refused: false }))
                    .await;
                return None;
            }
            Event::Incoming(Incoming::PubAck(ack)) => {
                unacknowledged.remove(&ack.pkid).flatten().map(LinkEvent::Delivered)
            }
            _ => None,
        };
        if let Some(said) = said {
            events.send(said).await.ok()?;
        }
    }
}

fn open(options: &LinkOptions, connection: u32) -> (Session, EventLoop) {
    let mut mqtt = MqttOptions::new(options.device.as_str(), &options.host, options.port);
    mqtt.set_transport(options.transport.clone());
    mqtt.set_keep_alive(KEEP_ALIVE);
    mqtt.set_clean_session(true);
    mqtt.set_max_packet_size(MAX_PACKET_BYTES, MAX_PACKET_BYTES);
    let topic = Topic::Hello(options.device.clone()).name(&options.fleet);
    mqtt.set_last_will(LastWill::new(topic.as_str(), (options.will)(connection), QoS::AtLeastOnce, true));
    let (client, mut eventloop) = AsyncClient::new(mqtt, MAX_REQUESTS);
    let mut network = eventloop.network_options();
    // Without it every round of the chunk window waits about 44 ms for a delayed acknowledgement.
    network.set_tcp_nodelay(true);
    eventloop.set_network_options(network);
    let session = Session { client, fleet: options.fleet.clone(), connection, tokens: Arc::default() };
    (session, eventloop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_refuses_the_device_is_told_from_a_network_that_fails() {
        let refused = |error: &ConnectionError| Problem::of(error).refused;
        for code in [ConnectReturnCode::NotAuthorized, ConnectReturnCode::BadUserNamePassword] {
            let problem = Problem::of(&ConnectionError::ConnectionRefused(code));
            assert!(problem.refused && problem.text.contains("does not let this device in"), "{problem:?}");
        }
        assert!(!refused(&ConnectionError::ConnectionRefused(ConnectReturnCode::ServiceUnavailable)));
        assert!(!refused(&ConnectionError::NetworkTimeout));
        assert!(!refused(&ConnectionError::Io(std::io::ErrorKind::ConnectionRefused.into())));
    }

    #[tokio::test]
    async fn a_link_that_is_held_back_waits_for_a_word_and_ends_with_its_listener() {
        let (say, mut hold) = watch::channel(None);
        let (events, listener) = mpsc::channel(1);
        assert!(held(&mut hold, &events).await, "nothing holds it back");
        let far = Instant::now() + Duration::from_hours(1);
        say.send_replace(Some(far));
        let release = async {
            tokio::task::yield_now().await;
            say.send_replace(None);
        };
        assert!(tokio::join!(held(&mut hold, &events), release).0);
        say.send_replace(Some(far));
        drop(listener);
        assert!(!held(&mut hold, &events).await);
    }
}
