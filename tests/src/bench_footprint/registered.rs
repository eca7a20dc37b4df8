//! What a device that is registered takes of the fleet server's memory.

use anyhow::{Context as _, Result};
use serin_fleet_server::bundle::open::read_bundle;
use serin_protocol::topic::Topic;
use serin_tests::lab::{Broker, Lab, PATIENCE};
use serin_tests::many_devices::{Publisher, device, hello, key, topic};
use serin_tests::memory::of_process;

/// Devices after which it is looked at first: what the server needs for any is there then.
const FIRST: usize = 1_000;
/// Devices after which it is looked at again.
const LAST: usize = 11_000;
/// Hellos under way at most, well below what a broker queues for one subscriber.
const UNDER_WAY: usize = 500;

/// Bytes of the server's own memory for each device.
pub(crate) fn measure() -> Result<f64> {
    let lab = Lab::configured(Broker::Mosquitto, "enrolment = 'open'")?;
    let bundle = lab.owner.release("digits/v1")?;
    lab.server.publish(&bundle, &lab.owner.trust())?;
    let release = read_bundle(&bundle)?.manifest.id();
    let mut publisher = Publisher::connect(lab.server.mqtt);
    let mut register = |from: usize, to: usize| -> Result<u64> {
        for number in from..to {
            let hello = hello(number, &key(number), &release)?;
            publisher.publish(topic(&Topic::Hello(device(number)?))?, hello)?;
            if (number + 1) % UNDER_WAY == 0 {
                until_heard(&lab, number + 1)?;
            }
        }
        Ok(of_process(lab.server.id())?.written)
    };
    let first = register(0, FIRST)?;
    let last = register(FIRST, LAST)?;
    Ok(last.saturating_sub(first) as f64 / (LAST - FIRST) as f64)
}

fn until_heard(lab: &Lab, hellos: usize) -> Result<()> {
    serin_tests::until("the server has heard all devices", PATIENCE, || {
        let text = lab.server.get("/metrics").ok()?;
        let line =
            text.lines().find_map(|line| line.strip_prefix("serin_messages_total{kind=\"hello\"} "))?;
        (line.trim().parse::<usize>().ok()? >= hellos).then_some(())
    })
    .context("hellos were lost")
}
