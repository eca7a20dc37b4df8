//! Serin's fleet server: registry, rollouts, ingest, broker, and the operator's command line.
//!
//! | room | what lives there | never there |
//! |---|---|---|
//! | [`bundle`] | from a model folder to a signed release, and back | running a model |
//! | [`registry`] | bundles as objects on disk | |
//! | [`broker`] | the embedded broker, the server's own MQTT session, publishing | decisions |
//! | [`rollout`] | plan, cohorts, engine, gates, verdicts: pure | tokio, files, clocks, randomness |
//! | [`stats`] | distances and permutation tests: pure | the same |
//! | [`store`] | what must survive | decisions |
//! | [`fleet`] | the only door through which anything changes | HTTP |
//! | [`config`], [`serve`] | how a server is set up and run | |

pub mod broker;
pub mod bundle;
pub mod config;
pub mod fleet;
pub mod registry;
pub mod rollout;
// pub mod serve;
pub mod stats;
pub mod store;
