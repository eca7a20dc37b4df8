//! Answers on their way to a broker: published in order, and over each new connection again until they are acknowledged.

use std::collections::VecDeque;
use std::mem;
use std::pin::pin;

use rumqttc::{AsyncClient, Event, EventLoop, Incoming, QoS};
use tokio::sync::mpsc;

use super::Absence;

/// Answers that may be unacknowledged. The client holds 100 (`inflight`), and knows them apart only below that.
pub(super) const MAX_UNACKNOWLEDGED: usize = 64;

/// Publishes `answers` on `topic` and tells of each one that is acknowledged, until nobody listens. The session is clean: a
/// broker has nothing to keep for it, and what was not acknowledged is kept here, whether the broker was restarted or not.
pub(super) async fn deliver(
    client: AsyncClient,
    mut eventloop: EventLoop,
    topic: String,
    mut answers: mpsc::Receiver<String>,
    delivered: mpsc::Sender<()>,
) {
    let mut absence = Absence::new(2);
    let mut unacknowledged: VecDeque<String> = VecDeque::new();
    let mut connected = false;
    // Whether the client took it: it has room for all that are unacknowledged.
    let publish =
        |answer: &String| client.try_publish(&topic, QoS::AtLeastOnce, false, answer.as_str()).is_ok();
    loop {
        let event = {
            // It is not begun anew for each answer, for it may be in the middle of a packet.
            let mut polled = pin!(async {
                absence.wait().await;
                eventloop.poll().await
            });
            loop {
                tokio::select! {
                    event = &mut polled => break event,
                    answer = answers.recv(), if unacknowledged.len() < MAX_UNACKNOWLEDGED => {
                        let Some(answer) = answer else { return };
                        if connected && !publish(&answer) {
                            return;
                        }
                        unacknowledged.push_back(answer);
                    }
                }
            }
        };
        let mut acknowledged = 0;
        match event {
            Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                absence.is_over();
                connected = true;
                if !unacknowledged.iter().all(publish) {
                    return;
                }
            }
            Ok(event) => acknowledged = usize::from(is_acknowledgement(&event)),
            Err(error) => {
                connected = false;
                // What the old connection still said must not be taken for words of the next one.
                let last = mem::take(&mut eventloop.state.events);
                acknowledged = last.iter().filter(|event| is_acknowledgement(event)).count();
                eventloop.pending.clear();
                eventloop.state.collision = None;
                absence.begins(&error);
            }
        }
        for _ in 0..acknowledged {
            // The broker acknowledges answers in their order.
            if unacknowledged.pop_front().is_some() && delivered.send(()).await.is_err() {
                return;
            }
        }
    }
}

const fn is_acknowledgement(event: &Event) -> bool {
    matches!(event, Event::Incoming(Incoming::PubAck(_)))
}
