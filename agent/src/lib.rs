//! Serin on a device: pulls signed releases, proves them, runs them, and can always go back.
//!
//! | room | what lives there | never there |
//! |---|---|---|
//! | [`update`] | what to do next with releases, pure | tokio, files, clocks, randomness |
//! | [`disk`] | what must survive a power cut, behind one seam to the files | decisions |
//! | [`link`] | the MQTT session; transfer and outbox, pure | files |
//! | [`worker`] | one process per model, sandboxed; the handle on it | MQTT, the boot record |
//! | [`gateway`] | Open Inference Protocol for local apps; the pointer to the release that answers | decisions about releases |
//! | [`telemetry`] | what a release does, in sketches | the network |
//! | [`field`] | the field engineer's commands, both ends | |
//! | [`config`], [`identity`] | what is known before anything runs | |

pub mod config;
pub mod disk;
pub mod field;
pub mod gateway;
pub mod identity;
pub mod link;
pub mod telemetry;
pub mod update;
pub mod worker;
