//! Many devices that only speak, over one connection: what a fleet server has to do with them is real, they are not.

use std::time::Duration;

use anyhow::{Context as _, Result};
use ed25519_dalek::SigningKey;
use rumqttc::{Client, Event, Incoming, MqttOptions, QoS};
use serin_protocol::envelope::{PublicKey, seal_to_vec};
use serin_protocol::ids::{BootId, ByteCount, DeviceId, Digest, FleetId, ReleaseId};
use serin_protocol::message::{Hello, Presence, Turn};
use serin_protocol::topic::Topic;

use crate::lab::PATIENCE;
use crate::server::FLEET;

/// One connection over which all devices speak: the lab's broker asks nobody who they are.
pub struct Publisher {
    client: Client,
    acknowledged: std::sync::mpsc::Receiver<()>,
    open: usize,
}

impl Publisher {
    /// Publications not yet acknowledged.
    const OPEN: usize = 100;

    pub fn connect(port: u16) -> Self {
        let mut options = MqttOptions::new("fleet-of-many", "127.0.0.1", port);
        options.set_max_packet_size(260 * 1024, 260 * 1024);
        options.set_inflight(u16::MAX);
        let (client, mut connection) = Client::new(options, Self::OPEN * 2);
        let (tell, acknowledged) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Incoming::PubAck(_))) if tell.send(()).is_ok() => {}
                    Ok(Event::Incoming(Incoming::PubAck(_))) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        });
        Self { client, acknowledged, open: 0 }
    }

    pub fn publish(&mut self, topic: String, payload: Vec<u8>) -> Result<()> {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload)?;
        self.open += 1;
        while self.open >= Self::OPEN {
            self.acknowledged.recv_timeout(PATIENCE).context("the broker does not acknowledge")?;
            self.open -= 1;
        }
        Ok(())
    }

    /// Waits for an acknowledgement, or a moment.
    pub fn wait(&mut self, moment: Duration) {
        if self.acknowledged.recv_timeout(moment).is_ok() {
            self.open = self.open.saturating_sub(1);
        }
    }
}

pub fn device(number: usize) -> Result<DeviceId> {
    Ok(DeviceId::new(&format!("edge-{number}"))?)
}

pub fn key(number: usize) -> SigningKey {
    SigningKey::from_bytes(&Digest::of(&number.to_le_bytes()).0)
}

fn fleet() -> Result<FleetId> {
    Ok(FleetId::new(FLEET)?)
}

pub fn topic(topic: &Topic) -> Result<String> {
    Ok(topic.name(&fleet()?).as_str().to_owned())
}

pub fn hello(number: usize, key: &SigningKey, active: &ReleaseId) -> Result<Vec<u8>> {
    let hello = Hello {
        device: device(number)?,
        fleet: fleet()?,
        key: PublicKey::of(key),
        boot: BootId(1),
        turn: Turn { connection: 1, number: 1 },
        presence: Presence::Online,
        agent: "0.1".parse().ok().context("a version")?,
        target: "linux-x86_64".parse()?,
        memory_budget: ByteCount::from_mib(64),
        free_space: ByteCount::from_mib(512),
        sequence: serin_protocol::ids::SequenceNumber(0),
        active: Some(active.clone()),
        previous: None,
        candidate: None,
        pinned: false,
        decoders: serin_protocol::release::Decoders::new(),
    };
    Ok(seal_to_vec(&hello, key)?)
}
