//! Serin on a device: pulls signed releases, proves them, runs them, and can always go back.
//!
//! | room | what lives there | never there |
//! |---|---|---|
//! | [`update`] | what to do next with releases, pure | tokio, files, clocks, randomness |
//! | [`disk`] | what must survive a power cut, behind one seam to the files | decisions |
//! | [`link`] | the MQTT session; transfer and outbox, pure | files |
//! | [`trust`] | who may say what runs: trusted metadata, refreshed from the broker | the update machine |
//! | [`worker`] | one process per model, sandboxed; the handle on it | MQTT, the boot record |
//! | [`conditions`] | power, heat and links around the device, from `/sys` and `/proc` | decisions |
//! | [`gateway`] | the pointer to the release that answers; the Open Inference Protocol | MQTT, the disk |
//! | [`telemetry`] | sketches of what a release does, window by window | requests, MQTT |
//! | [`field`] | the engineer on site: commands, replies | decisions |
//! | [`review`] | rows that people may look at: which, what is left out, what waits | the disk, MQTT |
//! | [`scoring`] | files, lines and topics scored in bulk, through the gateway | the disk, models |
//! | [`supervisor`] | the loop that carries effects out | decisions |
//! | [`logs`] | the last lines the agent logged | |
//! | [`config`], [`identity`] | what is known before anything runs | |
//! | `resident` | memory that is not needed now, given back | |
//! | `folder` | folders that others may pass through, and nothing else for others | |
//! | [`shelter`] | a folder in memory for when the disk fails | |

pub mod conditions;
pub mod config;
pub mod disk;
pub mod field;
mod folder;
pub mod gateway;
pub mod identity;
pub mod link;
pub mod logs;
mod resident;
pub mod review;
pub mod scoring;
pub mod shelter;
pub mod supervisor;
pub mod telemetry;
pub mod trust;
pub mod update;
pub mod worker;
