//! Serin on a device: pulls signed releases, proves them, runs them, and can always go back.
//!
//! | room | what lives there | never there |
//! |---|---|---|
//! | [`update`] | what to do next with releases, pure | tokio, files, clocks, randomness |
//! | [`link`] | the MQTT session; transfer and outbox, pure | files |
//! | [`worker`] | one process per model, sandboxed; the handle on it | MQTT, the boot record |
//! | [`config`], [`identity`] | what is known before anything runs | |

pub mod config;
pub mod identity;
pub mod link;
pub mod update;
pub mod worker;
