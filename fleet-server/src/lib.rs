//! Serin's fleet server: registry, rollouts, ingest, broker, and the operator's command line.
//!
//! | room | what lives there | never there |
//! |---|---|---|
//! | [`config`], [`serve`] | how a server is set up, started and stopped | |
//! | [`bundle`] | from a model folder to a signed release, and back | running a model |
//! | [`registry`] | bundles as objects on disk, and the check of a release | |
//! | [`broker`] | the embedded broker, the server's own MQTT session, publishing | decisions |
//! | [`ingest`] | from bytes on a topic to what a device said, or a named refusal: pure | files, clocks |
//! | [`fleet`] | the only door through which anything changes | HTTP, MQTT |
//! | [`rollout`] | plan, cohorts, engine, gates, verdicts: pure | tokio, files, clocks, randomness |
//! | [`stats`] | distances and permutation tests: pure | the same |
//! | [`alert`] | rules, what the fleet shows held against them, silences: pure | HTTP, files, clocks |
//! | [`trigger`] | what asks for training, and which release answers: pure | HTTP, files, clocks |
//! | [`review`] | the queue of samples that people look at, and the seal they lie under: pure | who may look |
//! | [`notify`] | receivers, what is not delivered yet, and delivering it | what is said |
//! | [`store`] | what must survive | decisions |
//! | [`authority`] | certificates for fleets without an authority of their own | who may run what |
//! | [`api`] | REST, live stream, metrics, page: domain types become HTTP types here | decisions |
//! | [`cli`] | the same nouns for a terminal | |

#[cfg(feature = "server")]
pub mod alert;
#[cfg(feature = "server")]
pub mod api;
#[cfg(feature = "server")]
pub mod authority;
#[cfg(feature = "server")]
pub mod broker;
#[cfg(feature = "server")]
pub mod bundle;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod durable;
#[cfg(feature = "server")]
pub mod fleet;
#[cfg(feature = "server")]
pub mod ingest;
#[cfg(feature = "server")]
pub mod notify;
#[cfg(feature = "server")]
pub mod registry;
#[cfg(feature = "server")]
pub mod repository;
#[cfg(feature = "server")]
pub mod review;
pub mod rollout;
#[cfg(feature = "server")]
pub mod serve;
pub mod stats;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "server")]
pub mod trigger;
#[cfg(feature = "server")]
pub mod trust;
