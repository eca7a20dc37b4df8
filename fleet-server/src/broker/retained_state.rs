//! What is retained, in memory: the same whether it is read from the log or said by a publisher.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serin_protocol::chunk::{ChunkMap, ChunkSet};
use serin_protocol::ids::{Digest, FleetId};
use serin_protocol::topic::Topic;
use tracing::warn;

use super::retained_log::Record;
use crate::registry::objects::ObjectStore;

/// Everything retained in one fleet.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Small messages by topic.
    pub(super) small: BTreeMap<String, Small>,
    /// Chunks on offer by object; never an empty set.
    pub(super) offers: HashMap<Digest, Box<ChunkSet>>,
    devices: Usage,
    server: Usage,
}

/// A small message.
#[derive(Debug, Clone)]
pub(super) struct Small {
    pub(super) qos: u8,
    pub(super) payload: Bytes,
}

/// What the small messages of one writer come to.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Usage {
    pub(super) messages: usize,
    /// Topics and payloads.
    pub(super) bytes: usize,
}

impl State {
    /// Takes over one record of the log.
    pub(super) fn apply(&mut self, fleet: &FleetId, objects: &ObjectStore, record: Record<'_>) {
        match record {
            Record::Keep { topic, qos, payload } => match Topic::parse(fleet, topic) {
                Ok(parsed) => self.keep(topic, &parsed, qos, payload),
                Err(error) => warn!(topic, %error, "a retained message of another fleet was left out"),
            },
            Record::Forget { topic } => self.forget(fleet, topic),
            Record::Offer { object, index } => {
                if let Some(map) = map_of(objects, object) {
                    self.offer(object, map, index);
                }
            }
            Record::Withdraw { object, index } => self.withdraw(object, index),
            Record::Offers { object, chunks } => {
                if map_of(objects, object).is_some_and(|map| map.count() == chunks.count()) {
                    self.offers.insert(object, chunks);
                }
            }
        }
    }

    pub(super) fn keep(&mut self, topic: &str, parsed: &Topic, qos: u8, payload: &[u8]) {
        // Copied, because `payload` is a slice of a read buffer that may be a hundred times larger.
        let small = Small { qos, payload: Bytes::copy_from_slice(payload) };
        let old = self.small.insert(topic.to_owned(), small);
        let usage = self.usage(parsed).replace(topic, old.as_ref(), Some(payload.len()));
        *self.usage_mut(parsed) = usage;
    }

    pub(super) fn forget(&mut self, fleet: &FleetId, topic: &str) {
        let Some(old) = self.small.remove(topic) else {
            return;
        };
        if let Ok(parsed) = Topic::parse(fleet, topic) {
            *self.usage_mut(&parsed) = self.usage(&parsed).replace(topic, Some(&old), None);
        }
    }

    pub(super) fn offer(&mut self, object: Digest, map: ChunkMap, index: u32) {
        self.offers.entry(object).or_insert_with(|| Box::new(ChunkSet::empty(map))).insert(index);
    }

    pub(super) fn withdraw(&mut self, object: Digest, index: u32) {
        let Some(chunks) = self.offers.get_mut(&object) else {
            return;
        };
        chunks.remove(index);
        if chunks.is_empty() {
            self.offers.remove(&object);
        }
    }

    pub(super) fn usage(&self, topic: &Topic) -> Usage {
        if written_by_device(topic) { self.devices } else { self.server }
    }

    fn usage_mut(&mut self, topic: &Topic) -> &mut Usage {
        if written_by_device(topic) { &mut self.devices } else { &mut self.server }
    }

    /// What a log needs at least, estimated: records are little more than what they carry.
    pub(super) fn live_bytes(&self) -> u64 {
        (self.devices.bytes + self.server.bytes + self.offers.len() * 64) as u64
    }

    /// The shortest log that leads here.
    pub(super) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let small = self.small.iter().map(|(topic, small)| Record::Keep {
            topic,
            qos: small.qos,
            payload: &small.payload,
        });
        let offers = self
            .offers
            .iter()
            .map(|(object, chunks)| Record::Offers { object: *object, chunks: chunks.clone() });
        small.chain(offers)
    }
}

impl Usage {
    /// The usage once the message on `topic` is replaced by one with `payload` bytes, or removed.
    pub(super) fn replace(self, topic: &str, old: Option<&Small>, payload: Option<usize>) -> Self {
        let size = |payload: usize| topic.len() + payload;
        let gone = old.map_or(0, |old| size(old.payload.len()));
        Self {
            messages: self.messages + usize::from(payload.is_some()) - usize::from(old.is_some()),
            bytes: self.bytes + payload.map_or(0, size) - gone,
        }
    }
}

/// The cut of an object whose chunks are on offer; `None` when it left the store meanwhile.
fn map_of(objects: &ObjectStore, object: Digest) -> Option<ChunkMap> {
    match objects.chunk_map(&object) {
        Ok(map) => map,
        Err(error) => {
            warn!(%object, %error, "an object on offer cannot be read");
            None
        }
    }
}

fn written_by_device(topic: &Topic) -> bool {
    match topic {
        Topic::Hello(_) | Topic::Event(_) | Topic::Report(_) | Topic::Sample(_) | Topic::Enrol(_) => true,
        Topic::Metadata(_)
        | Topic::Chunk { .. }
        | Topic::Assign(_)
        | Topic::Ack(_)
        | Topic::Enrolled(_)
        | Topic::Pause(_) => false,
    }
}
