//! `serin-agent stream --mqtt`: a message in, a message out, in order. A message is acknowledged only when its
//! answer is at the broker, so that none is lost when this or the agent ends; it may then be answered twice.

use std::path::Path;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, EventLoop, Incoming, MqttOptions, Publish, QoS};
use serin_protocol::ids::{Millis, ModelName};
use tokio::sync::mpsc;

use super::stream::{answers, look_up, row_of};
use crate::field::cli::{CliError, Console};
use crate::link::backoff::{Backoff, Jitter};

/// Messages taken from the broker and not yet answered. It is the broker that holds the rest back, as none is
/// acknowledged before: Mosquitto after 20. The connection is never left unread to slow it down, for then neither
/// acknowledgements nor pings would go out.
const MAX_UNANSWERED: usize = 4096;
/// Messages answered at once.
const AT_ONCE: usize = 64;
/// Requests handed to the client and not yet written; when there are more, they are waited for.
const REQUESTS: usize = 2 * AT_ONCE;
/// Largest message either way: a row of 65,536 values with 16 characters each.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// Between two tries of a broker that is not there.
const RECONNECT: Backoff = Backoff { first: Millis::from_secs(1), cap: Millis::from_secs(30) };

/// Where rows come from and answers go.
pub(super) struct Ends<'a> {
    /// `HOST:PORT` of the broker.
    pub(super) broker: &'a str,
    /// Topic of rows.
    pub(super) from: &'a str,
    /// Topic of answers.
    pub(super) to: &'a str,
    /// Name of the session.
    pub(super) client_id: &'a str,
}

/// Answers messages until it is ended.
pub(super) async fn run(
    ends: &Ends<'_>,
    model: Option<&ModelName>,
    socket: &Path,
    console: &mut Console,
) -> Result<(), CliError> {
    let mut scorer = look_up(model, socket).await?;
    let (input, input_loop) = connect(ends, ends.client_id)?;
    // Apart, as answers must go out while nothing more is taken in.
    let (output, output_loop) = connect(ends, &format!("{}-out", ends.client_id))?;
    let (messages, mut coming) = mpsc::unbounded_channel();
    let (taken, mut acknowledged) = mpsc::channel(AT_ONCE);
    tokio::spawn(take_in(input.clone(), input_loop, ends.from.to_owned(), messages));
    tokio::spawn(send_out(output_loop, taken));
    console.note(&format!("answering {} on {} at {}", ends.from, ends.to, ends.broker))?;
    let mut some: Vec<Publish> = Vec::new();
    while coming.recv_many(&mut some, scorer.rows_at_once().min(AT_ONCE)).await > 0 {
        if coming.len() > MAX_UNANSWERED {
            return Err(CliError::Usage {
                message: format!(
                    "the broker sends more than {MAX_UNANSWERED} messages without waiting for one answer"
                ),
                next: "have it hold back: max_inflight_messages in Mosquitto".into(),
            });
        }
        let rows: Vec<_> = some.iter().map(|message| row_of(&message.payload, &scorer.model().shape)).collect();
        let gone = |_| CliError::Usage {
            message: "the connection to the broker has ended".into(),
            next: "run this again".into(),
        };
        for answer in answers(&mut scorer, &rows).await? {
            output.publish(ends.to, QoS::AtLeastOnce, false, answer.to_string()).await.map_err(gone)?;
        }
        for message in some.drain(..) {
            // The broker acknowledges answers in their order.
            if acknowledged.recv().await.is_none() {
                return Ok(());
            }
            input.ack(&message).await.map_err(gone)?;
        }
    }
    Ok(())
}

fn connect(ends: &Ends<'_>, client_id: &str) -> Result<(AsyncClient, EventLoop), CliError> {
    let wrong = || CliError::Usage {
        message: format!("{:?} is not HOST:PORT", ends.broker),
        next: "name the broker as in --mqtt 127.0.0.1:1883".into(),
    };
    let (host, port) = ends.broker.rsplit_once(':').ok_or_else(wrong)?;
    let mut options = MqttOptions::new(client_id, host, port.parse().map_err(|_| wrong())?);
    // The broker keeps what comes while this is away.
    options.set_clean_session(false);
    options.set_manual_acks(true);
    options.set_max_packet_size(MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES);
    Ok(AsyncClient::new(options, REQUESTS))
}

/// Passes messages on until nobody wants them.
async fn take_in(
    client: AsyncClient,
    mut eventloop: EventLoop,
    topic: String,
    messages: mpsc::UnboundedSender<Publish>,
) {
    let mut absence = Absence::new(1);
    loop {
        match eventloop.poll().await {
            Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                absence.is_over();
                // A full queue of requests is not to be had right after connecting.
                let _ = client.try_subscribe(&topic, QoS::AtLeastOnce);
            }
            Ok(Event::Incoming(Incoming::Publish(message))) => {
                if messages.send(message).is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => absence.wait(&error).await,
        }
    }
}

/// Tells of each answer that has arrived, until nobody listens.
async fn send_out(mut eventloop: EventLoop, taken: mpsc::Sender<()>) {
    let mut absence = Absence::new(2);
    loop {
        match eventloop.poll().await {
            Ok(Event::Incoming(Incoming::ConnAck(_))) => absence.is_over(),
            Ok(Event::Incoming(Incoming::PubAck(_))) => {
                if taken.send(()).await.is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => absence.wait(&error).await,
        }
    }
}

/// A broker that is not there.
struct Absence {
    failures: u32,
    jitter: Jitter,
}

impl Absence {
    fn new(of: u64) -> Self {
        // Without randomness connections are only less spread.
        Self { failures: 0, jitter: Jitter::new(getrandom::u64().unwrap_or_default() ^ of) }
    }

    const fn is_over(&mut self) {
        self.failures = 0;
    }

    async fn wait(&mut self, error: &rumqttc::ConnectionError) {
        self.failures = self.failures.saturating_add(1);
        let wait = RECONNECT.wait(self.failures, &mut self.jitter);
        eprintln!("note: the broker cannot be reached: {error}; trying again in {} s", wait.0.div_ceil(1000));
        tokio::time::sleep(Duration::from_millis(wait.0)).await;
    }
}
