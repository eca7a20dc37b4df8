//! Refusals of metadata and targets, each named after the attack it stops (TUF specification, section
//! 1.5.2).

use alloc::string::String;

use super::key::KeyName;
use super::metadata::{MetadataVersion, Role, Serial};
use super::time::UtcSeconds;

/// Why metadata or a target is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Endless data: more bytes than were announced or than any such file may have.
    #[error("endless data: {role} has more than the {limit} bytes allowed")]
    EndlessData {
        /// Whose file.
        role: Role,
        /// Bytes allowed.
        limit: u64,
    },
    /// Endless data: a chain of roots that does not end.
    #[error("endless data: more than {limit} new roots in one refresh; the rest is fetched by the next one")]
    EndlessRoots {
        /// Roots read in one refresh.
        limit: u32,
    },
    /// The file cannot be read as what it should be.
    #[error("malformed {role}: {reason}")]
    Malformed {
        /// Whose file.
        role: Role,
        /// What is wrong with it.
        reason: String,
    },
    /// Arbitrary software: too few valid signatures by the role's own keys.
    #[error("arbitrary content: {role} carries {valid} valid signatures of {threshold} required")]
    Arbitrary {
        /// Whose file.
        role: Role,
        /// Distinct keys of the role that signed it.
        valid: u32,
        /// Distinct keys required.
        threshold: u32,
    },
    /// Signed, but by a key that belongs to another role.
    #[error("wrong role: {role} is signed by key {key}, which may not sign for it")]
    WrongRole {
        /// Whose file.
        role: Role,
        /// The key that signed.
        key: KeyName,
    },
    /// Rollback: older than what is trusted already.
    #[error("rollback: {role} version {offered} is offered, version {trusted} is trusted already")]
    Rollback {
        /// Whose version.
        role: Role,
        /// The version trusted.
        trusted: MetadataVersion,
        /// The version offered.
        offered: MetadataVersion,
    },
    /// Rollback: the snapshot no longer lists a role it listed before.
    #[error("rollback: the snapshot no longer lists {role}")]
    Disappeared {
        /// The role.
        role: Role,
    },
    /// Freeze: the metadata has expired, so newer metadata is being withheld or nobody renewed it.
    #[error("freeze: {role} expired at {expires}, it is {now}")]
    Freeze {
        /// Whose file.
        role: Role,
        /// When it expired.
        expires: UtcSeconds,
        /// The time this refresh began.
        now: UtcSeconds,
    },
    /// Mix-and-match: a file that was never published together with the others.
    #[error("mix-and-match: {role} is not what the signed {by} says: {reason}")]
    MixAndMatch {
        /// Whose file.
        role: Role,
        /// Which role's metadata describes it.
        by: Role,
        /// The difference.
        reason: String,
    },
    /// Rollback: a target that its owner no longer wants installed.
    #[error("rollback: {path} is number {serial} of its owner's releases, below the floor {floor}")]
    BelowFloor {
        /// The target.
        path: String,
        /// Its place among its owner's releases.
        serial: Serial,
        /// The lowest that may be installed.
        floor: Serial,
    },
    /// A root that does not follow the one trusted.
    #[error("rollback: root version {expected} was expected, version {found} is offered")]
    RootVersion {
        /// The version that follows the trusted one.
        expected: MetadataVersion,
        /// The version in the file.
        found: MetadataVersion,
    },
    /// Withheld: the repository does not have a file it must have.
    #[error("withheld: the repository has no {role}")]
    Missing {
        /// Whose file.
        role: Role,
    },
    /// More delegations on the way to a target than are followed.
    #[error("endless data: more than {limit} delegations lead to the target {path}")]
    EndlessDelegations {
        /// Roles visited.
        limit: u32,
        /// The target.
        path: String,
    },
    /// No role that may speak for the path lists it.
    #[error("no trusted role lists the target {path}")]
    UnknownTarget {
        /// The target.
        path: String,
    },
    /// Arbitrary software: a target that is not the one signed.
    #[error("arbitrary content: the target {path} is not the one that was signed: {reason}")]
    WrongTarget {
        /// The target.
        path: String,
        /// The difference.
        reason: String,
    },
    /// The caller answered a question that was not asked.
    #[error("a file was given that is not wanted now")]
    OutOfTurn,
}
