//! A subscriber that only counts: what the server's work on reports is held against. The same client library, in a
//! process of its own, so that its processor time is its own.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rumqttc::{Client, Event, Incoming, MqttOptions, QoS};

/// The first argument that makes this program one.
pub(crate) const COMMAND: &str = "count";

/// How many messages between two words about how many came.
pub(crate) const EVERY: usize = 500;

/// `count PORT FILTER`: says `0` once subscribed, then every [`EVERY`] messages how many came; ends with its input.
pub(crate) fn count(arguments: &[String]) -> Result<()> {
    let [_, _, port, filter] = arguments else { anyhow::bail!("count PORT FILTER") };
    let mut options = MqttOptions::new("counter", "127.0.0.1", port.parse()?);
    options.set_keep_alive(Duration::from_secs(30));
    options.set_max_packet_size(260 * 1024, 260 * 1024);
    let (client, mut connection) = Client::new(options, 100);
    client.subscribe(filter, QoS::AtLeastOnce)?;
    std::thread::spawn(|| {
        // Whoever started this has ended, or wants it to end.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let mut came = 0;
    for event in connection.iter() {
        let told = match event.context("the connection")? {
            Event::Incoming(Incoming::SubAck(_)) => true,
            Event::Incoming(Incoming::Publish(_)) => {
                came += 1;
                came % EVERY == 0
            }
            Event::Incoming(_) | Event::Outgoing(_) => false,
        };
        if told {
            let mut out = std::io::stdout();
            writeln!(out, "{came}")?;
            out.flush()?;
        }
    }
    Ok(())
}
