//! What users of a fleet do and what happens then, with the real programs, once with the embedded broker
//! and once with Mosquitto.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod alerts;
mod attacks;
mod bad_input;
mod checkup;
mod drifting_data;
mod estimators;
mod gateway_clients;
mod identity;
mod keys;
mod local_rollback;
mod never_stuck;
mod page;
mod pipeline;
mod policies;
mod power_cuts;
mod publishing;
mod quality;
mod reference;
mod review;
mod rollouts;
mod scoring;
mod service;
mod sideload;
mod tidy;
mod trials;
mod tuf_interop;
