//! `serin-agent stream --mqtt`: a message in, a message out, in order. A message is acknowledged only when its
//! answer is at the broker, so that none is lost when this or the agent ends; it may then be answered twice.

mod delivery;
mod inbox;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttc::{
    AsyncClient, Event, EventLoop, Incoming, MqttOptions, QoS, SubscribeReasonCode, matches, valid_filter,
    valid_topic,
};
use serde_json::{Value, json};
use serin_protocol::ids::{Digest, Millis, ModelName};
use tokio::sync::mpsc;

use super::shape::MAX_REQUEST_BYTES;
use super::stream::{answers, look_up, row_of};
use crate::field::cli::{CliError, Console};
use crate::link::backoff::{Backoff, Jitter};
use delivery::{MAX_UNACKNOWLEDGED, deliver};
use inbox::{End, Inbox, Put};

/// Messages answered at once: no more than may be unacknowledged.
const AT_ONCE: usize = MAX_UNACKNOWLEDGED;
/// Requests handed to the client and not yet written; when there are more, they are waited for.
const REQUESTS: usize = 2 * AT_ONCE;
/// Largest answer: a row of 65,536 values with 16 characters each.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// Largest packet that is sent: such a message, the longest topic there may be, and what goes before them.
const MAX_PACKET_BYTES: usize = MAX_MESSAGE_BYTES + (1 << 16) + 16;
/// Largest packet that is received: a row with files of images as base64, and more. What no row may be is answered with an
/// error, as one that is not acknowledged would come again and again; only beyond this the connection is given up.
const MAX_RECEIVED_BYTES: usize = 16 << 20;
/// Between two tries of a broker that is not there.
const RECONNECT: Backoff = Backoff { first: Millis::from_secs(1), cap: Millis::from_secs(30) };
/// A connection that ends so soon was perhaps ended by another one of the same name.
const BRIEF: Duration = Duration::from_secs(10);
/// Between two notes on dropped messages, which may be thousands a second.
const TELL_EVERY: Duration = Duration::from_secs(10);

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

/// Name of a session for these topics: what it is subscribed to is what it is called. With what is added to it no longer
/// than every broker takes (MQTT 3.1.1, 3.1.3.1).
pub(super) fn name_for(from: &str, to: &str) -> String {
    let digest = Digest::of(format!("{from}\0{to}").as_bytes()).to_string();
    format!("serin-{}", digest.get(..8).unwrap_or_default())
}

/// Answers messages until it is ended.
pub(super) async fn run(
    ends: &Ends<'_>,
    model: Option<&ModelName>,
    socket: &Path,
    console: &mut Console,
) -> Result<(), CliError> {
    check(ends)?;
    let mut scorer = look_up(model, socket).await?;
    // The broker keeps what comes while this is away.
    let (input, input_loop) = connect(ends, ends.client_id, false)?;
    // Apart, as answers must go out while nothing more is taken in.
    let (output, output_loop) = connect(ends, &format!("{}-out", ends.client_id), true)?;
    let inbox = Arc::new(Inbox::default());
    let (outgoing, to_deliver) = mpsc::channel(AT_ONCE);
    let (told, mut delivered) = mpsc::channel(AT_ONCE);
    let heard = format!("answering {} on {} at {}", ends.from, ends.to, ends.broker);
    tokio::spawn(take_in(input.clone(), input_loop, ends.from.to_owned(), Arc::clone(&inbox), heard));
    tokio::spawn(deliver(output, output_loop, ends.to.to_owned(), to_deliver, told));
    let gone = || CliError::Stopped {
        message: "the connection to the broker has ended".into(),
        next: "run this again".into(),
    };
    let mut tell = Instant::now();
    loop {
        let some = match inbox.take(scorer.rows_at_once().min(AT_ONCE), MAX_REQUEST_BYTES).await {
            Ok(some) => some,
            Err(end) => return Err(ended(&end, ends)),
        };
        if Instant::now() >= tell
            && let Some((fresh, all)) = inbox.dropped()
        {
            console.note(&format!(
                "{fresh} messages that nobody wants acknowledged (QoS 0) came faster than they are answered and were \
                 dropped, {all} in all"
            ))?;
            tell = Instant::now() + TELL_EVERY;
        }
        let rows: Vec<_> =
            some.iter().map(|message| row_of(message.payload(), &scorer.model().shape)).collect();
        for (answer, asked) in answers(&mut scorer, &rows).await?.into_iter().zip(&some) {
            outgoing.send(message(answer, &asked.publish.topic)).await.map_err(|_| gone())?;
        }
        for message in some {
            // In their order.
            delivered.recv().await.ok_or_else(gone)?;
            // Over another connection it would acknowledge another message.
            if inbox.is_current(&message) {
                input.ack(&message.publish).await.map_err(|_| gone())?;
            }
        }
    }
}

fn ended(end: &End, ends: &Ends<'_>) -> CliError {
    match end {
        End::Overrun => CliError::Stopped {
            message: format!(
                "the broker sends more than {} messages or {} MiB without waiting for their answers",
                inbox::MAX_MESSAGES,
                inbox::MAX_BYTES >> 20
            ),
            next: "have it hold back: max_inflight_messages in Mosquitto".into(),
        },
        End::Refused => CliError::Stopped {
            message: format!(
                "the broker at {} does not let {:?} hear {}",
                ends.broker, ends.client_id, ends.from
            ),
            next: "have its access list allow it: to read what --from says, and to write what --to says"
                .into(),
        },
    }
}

/// What is published as `answer` to a message on `topic`.
fn message(mut answer: Value, topic: &str) -> String {
    answer["topic"] = topic.into();
    let text = answer.to_string();
    if text.len() <= MAX_MESSAGE_BYTES {
        return text;
    }
    let why = format!("the answer has {} bytes, a message has at most {MAX_MESSAGE_BYTES}", text.len());
    json!({ "error": why, "topic": topic }).to_string()
}

/// Refuses topics that no broker would take.
fn check(ends: &Ends<'_>) -> Result<(), CliError> {
    let wrong = |topic: &str, next: &str| CliError::Usage {
        message: format!("{topic:?} is no such topic"),
        next: next.into(),
    };
    if !valid_filter(ends.from) {
        return Err(wrong(ends.from, "name the topic of rows as in --from 'camera/+/row'"));
    }
    if ends.to.is_empty() || !valid_topic(ends.to) {
        return Err(wrong(ends.to, "name the topic of answers without wildcards, as in --to camera/class"));
    }
    if matches(ends.to, ends.from) {
        return Err(CliError::Usage {
            message: format!(
                "{} is among {}: each answer would be answered in its turn, without end",
                ends.to, ends.from
            ),
            next: "name another topic for answers".into(),
        });
    }
    Ok(())
}

fn connect(ends: &Ends<'_>, client_id: &str, clean: bool) -> Result<(AsyncClient, EventLoop), CliError> {
    let wrong = || CliError::Usage {
        message: format!("{:?} is not HOST:PORT", ends.broker),
        next: "name the broker as in --mqtt 127.0.0.1:1883".into(),
    };
    let (host, port) = ends.broker.rsplit_once(':').ok_or_else(wrong)?;
    let mut options = MqttOptions::new(client_id, host, port.parse().map_err(|_| wrong())?);
    options.set_clean_session(clean);
    options.set_manual_acks(true);
    options.set_max_packet_size(MAX_RECEIVED_BYTES, MAX_PACKET_BYTES);
    Ok(AsyncClient::new(options, REQUESTS))
}

/// Takes messages in until there is no room for one that must not be dropped. The connection is never left unread to slow
/// the broker down, for then neither acknowledgements nor pings would go out.
///
/// `heard` is said once when the broker has granted `topic`.
async fn take_in(
    client: AsyncClient,
    mut eventloop: EventLoop,
    topic: String,
    inbox: Arc<Inbox>,
    heard: String,
) {
    let mut absence = Absence::new(1);
    let mut heard = Some(heard);
    let mut strange = false;
    loop {
        absence.wait().await;
        match eventloop.poll().await {
            Ok(Event::Incoming(Incoming::ConnAck(connected))) => {
                absence.is_over();
                if connected.session_present {
                    inbox.resumed();
                }
                // A full queue of requests is not to be had right after connecting.
                let _ = client.try_subscribe(&topic, QoS::AtLeastOnce);
            }
            Ok(Event::Incoming(Incoming::SubAck(granted))) => {
                if granted.return_codes.contains(&SubscribeReasonCode::Failure) {
                    return inbox.refuse();
                }
                if let Some(heard) = heard.take() {
                    eprintln!("note: {heard}");
                }
            }
            // The session has subscribed to other topics before.
            Ok(Event::Incoming(Incoming::Publish(message))) if !matches(&message.topic, &topic) => {
                if !std::mem::replace(&mut strange, true) {
                    eprintln!(
                        "note: messages on {} are dropped: a stream of this name asked for them; another --client-id \
                         does not get them",
                        message.topic
                    );
                }
                // Should there be no room for it, it comes again.
                let _ = client.try_ack(&message);
            }
            Ok(Event::Incoming(Incoming::Publish(message))) => {
                if inbox.put(message) == Put::Overrun {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => {
                // What still came over the old connection belongs to it.
                for event in std::mem::take(&mut eventloop.state.events) {
                    if let Event::Incoming(Incoming::Publish(message)) = event
                        && inbox.put(message) == Put::Overrun
                    {
                        return;
                    }
                }
                inbox.cut();
                // It is subscribed anew anyway.
                eventloop.pending.clear();
                absence.begins(&error);
            }
        }
    }
}

/// A broker that is not there.
pub(super) struct Absence {
    failures: u32,
    /// When the broker came back, if it is there.
    since: Option<Instant>,
    /// Connections that broke soon after they were made, one after another.
    brief: u32,
    /// Until it is tried again.
    pause: Option<Duration>,
    jitter: Jitter,
}

impl Absence {
    pub(super) fn new(of: u64) -> Self {
        // Without randomness connections are only less spread.
        let jitter = Jitter::new(getrandom::u64().unwrap_or_default() ^ of);
        Self { failures: 0, since: None, brief: 0, pause: None, jitter }
    }

    pub(super) fn is_over(&mut self) {
        self.failures = 0;
        self.since = Some(Instant::now());
    }

    pub(super) fn begins(&mut self, error: &rumqttc::ConnectionError) {
        self.failures = self.failures.saturating_add(1);
        let wait = RECONNECT.wait(self.failures, &mut self.jitter);
        let was_brief = self.since.take().is_some_and(|since| since.elapsed() < BRIEF);
        self.brief = if was_brief { self.brief.saturating_add(1) } else { 0 };
        let perhaps =
            if self.brief >= 2 { "; does another stream run under the same --client-id?" } else { "" };
        eprintln!(
            "note: the broker cannot be reached: {error}; trying again in {} s{perhaps}",
            wait.0.div_ceil(1000)
        );
        self.pause = Some(Duration::from_millis(wait.0));
    }

    /// Waits as long as the broker is better left alone.
    pub(super) async fn wait(&mut self) {
        if let Some(pause) = self.pause.take() {
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests;
