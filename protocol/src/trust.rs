//! Who may say what a device runs: a transport-free client of The Update Framework, specification 1.0.x
//! (JSON metadata, canonical JSON signatures).
//!
//! | module | what lives there |
//! |---|---|
//! | [`canonical`] | the one byte form of a JSON value that signatures cover |
//! | [`time`] | expiry dates |
//! | [`key`] | Ed25519 and ECDSA P-256 keys, their names, their signatures |
//! | [`metadata`] | root, timestamp, snapshot and targets as types |
//! | [`signed`] | the envelope `{signatures, signed}`, thresholds |
//! | [`delegation`] | who else may speak for which targets |
//! | [`layout`] | where a fleet's releases stand among the targets |
//! | [`pattern`] | which paths a delegation covers |
//! | [`session`] | one refresh: bytes in, next wanted file or verdict out |
//! | `forge` | a publisher for tests, whose files can be bent (feature `forge`) |
//! | [`error`] | refusals, named after the attack they stop |
//!
//! Nothing here reads a clock, a file or a socket. A device feeds [`Session`] from MQTT, other clients from
//! HTTP or a USB stick; the order of checks is the specification's section 5.

pub mod canonical;
pub mod delegation;
pub mod error;
#[cfg(any(test, feature = "forge"))]
pub mod forge;
pub mod key;
pub mod layout;
pub mod metadata;
pub mod pattern;
pub mod session;
pub mod signed;
pub mod time;

pub use self::delegation::{DelegatedRole, Delegations, SuccinctRoles};
pub use self::error::TrustError;
pub use self::key::{Key, KeyName};
pub use self::metadata::{
    FileMeta, MetadataVersion, Role, RoleKeys, Root, Serial, Snapshot, TargetFile, Targets, Timestamp,
};
pub use self::session::{Accepted, Fetch, Found, Limits, Next, Session};
pub use self::signed::Metadata;
pub use self::time::UtcSeconds;
