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
//! | [`store`] | what must survive | decisions |
//! | [`authority`] | certificates for fleets without an authority of their own | who may run what |
//! | [`api`] | REST, live stream, metrics, page: domain types become HTTP types here | decisions |
//! | [`cli`] | the same nouns for a terminal | |

pub mod api;
pub mod authority;
pub mod broker;
pub mod bundle;
pub mod cli;
pub mod config;
pub mod durable;
pub mod fleet;
pub mod ingest;
pub mod registry;
pub mod repository;
pub mod rollout;
pub mod serve;
pub mod stats;
pub mod store;
pub mod trust;
