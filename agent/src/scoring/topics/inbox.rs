//! Messages that came from a broker and are not answered yet, bounded by count and by bytes.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rumqttc::{Publish, QoS};
use tokio::sync::Notify;

/// Messages that may wait. It is the broker that holds back the rest of those it wants acknowledged: Mosquitto after 20.
pub(super) const MAX_MESSAGES: usize = 4096;
/// Bytes that may wait: those 20 messages of up to a mebibyte and half as much again, or a few with large images.
pub(super) const MAX_BYTES: usize = 32 << 20;

/// A message, and over which connection it came.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) publish: Publish,
    connection: u64,
}

impl Message {
    pub(super) const fn payload(&self) -> &Bytes {
        &self.publish.payload
    }

    /// Whether the broker sends it again until it is acknowledged.
    fn comes_again(&self) -> bool {
        self.publish.qos != QoS::AtMostOnce
    }

    fn bytes(&self) -> usize {
        self.publish.topic.len() + self.publish.payload.len()
    }
}

/// What has become of a message that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// It waits.
    Waits,
    /// There is no room, and nobody wants it acknowledged.
    Dropped,
    /// There is no room, though the broker should have waited for acknowledgements.
    Overrun,
}

/// Why no more comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// There was no room for a message that must not be dropped.
    Overrun,
    /// The broker does not let this one hear what it is to answer.
    Refused,
}

/// Messages that wait.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Message>,
    bytes: usize,
    /// Number of the connection.
    connection: u64,
    /// Messages that found no room, and of them those that were not told of yet.
    dropped: u64,
    untold: u64,
    end: Option<End>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that may panic is done under it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a message in.
    pub(super) fn put(&self, publish: Publish) -> Put {
        let mut waiting = self.lock();
        let message = Message { publish, connection: waiting.connection };
        let bytes = message.bytes();
        let put = if waiting.messages.len() < MAX_MESSAGES && waiting.bytes.saturating_add(bytes) <= MAX_BYTES
        {
            waiting.bytes += bytes;
            waiting.messages.push_back(message);
            Put::Waits
        } else if message.comes_again() {
            waiting.end = Some(End::Overrun);
            Put::Overrun
        } else {
            waiting.dropped += 1;
            waiting.untold += 1;
            Put::Dropped
        };
        drop(waiting);
        self.changed.notify_one();
        put
    }

    /// No more is to be had from the broker, which refuses it.
    pub(super) fn refuse(&self) {
        self.lock().end = Some(End::Refused);
        self.changed.notify_one();
    }

    /// The connection has ended: what came over it is not to be acknowledged any more.
    pub(super) fn cut(&self) {
        self.lock().connection += 1;
    }

    /// The broker knows the session, and sends again what was not acknowledged.
    pub(super) fn resumed(&self) {
        let mut waiting = self.lock();
        waiting.messages.retain(|message| !message.comes_again());
        waiting.bytes = waiting.messages.iter().map(Message::bytes).sum();
    }

    /// Whether `message` came over the connection there is now.
    pub(super) fn is_current(&self, message: &Message) -> bool {
        self.lock().connection == message.connection
    }

    /// The next messages, as soon as there are any: at most `most`, and no more than one beyond `bytes`.
    pub(super) async fn take(&self, most: usize, bytes: usize) -> Result<Vec<Message>, End> {
        loop {
            let taken = self.lock().take(most, bytes)?;
            if !taken.is_empty() {
                return Ok(taken);
            }
            self.changed.notified().await;
        }
    }

    /// Messages dropped since this was asked last, and all of them; none if there is nothing new.
    pub(super) fn dropped(&self) -> Option<(u64, u64)> {
        let mut waiting = self.lock();
        let untold = std::mem::take(&mut waiting.untold);
        (untold > 0).then_some((untold, waiting.dropped))
    }
}

impl Waiting {
    fn take(&mut self, most: usize, bytes: usize) -> Result<Vec<Message>, End> {
        if let Some(end) = &self.end {
            return Err(end.clone());
        }
        let (mut taken, mut size) = (Vec::new(), 0);
        while taken.len() < most
            && size < bytes
            && let Some(message) = self.messages.pop_front()
        {
            size += message.bytes();
            taken.push(message);
        }
        self.bytes -= size;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(qos: QoS, bytes: usize) -> Publish {
        Publish::new("t", qos, vec![b'1'; bytes])
    }

    #[tokio::test]
    async fn what_nobody_acknowledges_is_dropped_where_there_is_no_room_and_counted() {
        let inbox = Inbox::default();
        for _ in 0..MAX_MESSAGES {
            assert_eq!(inbox.put(message(QoS::AtMostOnce, 1)), Put::Waits);
        }
        assert_eq!(inbox.put(message(QoS::AtMostOnce, 1)), Put::Dropped);
        assert_eq!((inbox.dropped(), inbox.dropped()), (Some((1, 1)), None));
        assert_eq!(inbox.take(64, usize::MAX).await.expect("room").len(), 64);
        assert_eq!(inbox.put(message(QoS::AtLeastOnce, 1)), Put::Waits);
    }

    #[tokio::test]
    async fn bytes_are_bounded_too_and_no_message_is_lost_that_must_not_be() {
        let inbox = Inbox::default();
        let large = 1 << 20;
        let put = |qos| inbox.put(message(qos, large));
        assert_eq!((0..40).filter(|_| put(QoS::AtMostOnce) == Put::Waits).count(), 31);
        assert_eq!(inbox.take(64, 4 * large).await.expect("room").len(), 4);
        assert_eq!((0..4).filter(|_| put(QoS::AtLeastOnce) == Put::Waits).count(), 4);
        assert_eq!(put(QoS::AtLeastOnce), Put::Overrun);
        assert_eq!(inbox.take(64, large).await.expect_err("no room"), End::Overrun);
    }

    #[tokio::test]
    async fn what_a_broker_sends_again_does_not_wait_twice() {
        let inbox = Inbox::default();
        inbox.put(message(QoS::AtLeastOnce, 1));
        inbox.put(message(QoS::AtLeastOnce, 2));
        let first = inbox.take(1, 10).await.expect("room").pop().expect("one");
        assert!(inbox.is_current(&first));
        inbox.cut();
        assert!(!inbox.is_current(&first));
        inbox.put(message(QoS::AtMostOnce, 3));
        inbox.resumed();
        let left = inbox.take(9, 10).await.expect("room");
        assert_eq!(left.iter().map(|message| message.payload().len()).collect::<Vec<_>>(), [3]);
    }
}
