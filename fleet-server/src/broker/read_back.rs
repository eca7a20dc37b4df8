//! Reading chunks back after publishing them. A broker acknowledges what it then drops (too large, denied,
//! lost in a crash before its next save), so that a release is ready only when every chunk has come back.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{Event, Incoming, QoS};
use serin_protocol::chunk::ChunkMap;
use serin_protocol::ids::Digest;
use serin_protocol::topic::Topic;

use super::link::{LinkConfig, open};

/// Chunks asked for at a time.
const WINDOW: usize = 8;
/// Silence after which what is still missing counts as missing. A retained message comes at once.
const SILENCE: Duration = Duration::from_secs(5);

/// The chunks of `object` that the broker does not deliver as `expected` says. Everything when the
/// broker cannot be reached.
pub(super) async fn missing_chunks(
    config: &LinkConfig,
    object: Digest,
    map: ChunkMap,
    expected: impl Fn(u32) -> Option<Bytes>,
) -> BTreeSet<u32> {
    let mut missing: BTreeSet<u32> = (0..map.count()).collect();
    let mut to_ask = 0..map.count();
    let reader = LinkConfig { client_id: format!("{}-reader", config.client_id), ..config.clone() };
    let (client, mut eventloop) = open(&reader);
    let topic = |index: u32| Topic::Chunk { object, index }.name(&config.fleet);
    while !missing.is_empty() {
        let Ok(Ok(event)) = tokio::time::timeout(SILENCE, eventloop.poll()).await else { break };
        let free = match event {
            Event::Incoming(Incoming::ConnAck(_)) => WINDOW,
            Event::Incoming(Incoming::Publish(publish)) => {
                match Topic::parse(&config.fleet, &publish.topic) {
                    Ok(Topic::Chunk { object: of, index }) if of == object => {
                        if expected(index).is_some_and(|bytes| bytes == publish.payload) {
                            missing.remove(&index);
                        }
                        // The queue holds the window's requests many times over.
                        let _ = client.try_unsubscribe(topic(index).as_str());
                        1
                    }
                    Ok(_) | Err(_) => 0,
                }
            }
            _ => 0,
        };
        for index in to_ask.by_ref().take(free) {
            let _ = client.try_subscribe(topic(index).as_str(), QoS::AtLeastOnce);
        }
    }
    let _ = client.try_disconnect();
    // Lets the goodbye be written; the connection is over either way.
    let _ = tokio::time::timeout(Duration::from_millis(200), eventloop.poll()).await;
    missing
}
