//! MQTT between the server and its devices.
//!
//! The broker is the fleet's content network: whatever a device may need lies there as a retained message
//! and subscribing is getting. [`embedded`] runs a broker inside the server process; any other broker can
//! take its place by configuration.
//!
//! - [`embedded`]: start and stop.
//! - [`identity`]: who is connecting (the only place that believes a claim).
//! - [`access`]: who may say and hear what (pure).
//! - [`retained`]: what subscribing gets: small messages from memory, chunks from the object store.
//! - `retained_log`, `retained_state`: how that survives a restart, and what it is in memory.
//! - [`revoked`]: devices that are cut off.
//! - `withdrawn`: certificates that their authority took back.
//! - `limits`: what one session may hold.
//! - `uplink`, `downlink`: how devices are slowed to the server's pace, and asked to take what they ask for.
//! - [`link`]: the server's own session, with this broker or any other.
//! - [`tls`]: the files both sides prove themselves with.
//! - [`mosquitto`]: what a Mosquitto must be told.
//! - [`publish`]: brings releases to the broker, once.
//! - `hooks`: the wiring of all this into the MQTT engine.

pub mod access;
mod downlink;
pub mod embedded;
mod hooks;
pub mod identity;
mod limits;
pub mod link;
pub mod mosquitto;
mod pace;
pub mod publish;
pub mod retained;
mod retained_log;
mod retained_state;
pub mod revoked;
pub mod tls;
mod uplink;
mod withdrawn;

#[cfg(test)]
mod tests;
