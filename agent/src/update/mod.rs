//! What to do next with releases, as pure functions: no tokio, no files, no clock, no randomness.
//!
//! `machine` turns events into effects; `record` is what must survive a power cut; `admission` decides
//! before the first byte is fetched; `policy` decides when an update may go on; `crash_loop` blames somebody for
//! restarts, `local_rollback` the active release for what it does; `effect` names what the shell is to carry out, `shell` hands one to the other.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod admission;
pub mod crash_loop;
pub mod effect;
pub mod local_rollback;
pub mod machine;
pub mod policy;
pub mod record;
pub mod shell;
