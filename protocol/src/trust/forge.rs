//! A publisher whose files can be bent in any way: what attacks are made of in tests, here and in the
//! programs that use this crate (feature `forge`). Its keys are known to everybody.

#![allow(clippy::expect_used, reason = "tests are told at once")]
#![allow(clippy::missing_panics_doc, reason = "it is for tests")]

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use ed25519_dalek::SigningKey;
use serde_json::Map;

use super::delegation::{DelegatedRole, Delegations};
use super::metadata::{
    FileMeta, MetadataVersion, Role, Root, Signable, Snapshot, TargetFile, Targets, Timestamp, TimestampMeta,
    TopLevelRoles,
};
use super::signed::{Metadata, key_table, role_keys};
use super::{Key, UtcSeconds};
use crate::envelope::PublicKey;
use crate::ids::Digest;

/// The key that this seed makes.
pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// Its public half.
pub fn public(seed: u8) -> Key {
    Key::ed25519(&PublicKey::of(&key(seed)))
}

/// A version, at least 1.
pub fn version(number: u64) -> MetadataVersion {
    serde_json::from_value(number.into()).expect("at least 1")
}

/// A threshold, at least 1.
pub fn some(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("not zero")
}

/// A publisher with one key seed per role (root 1, timestamp 2, snapshot 3, targets 4, the owner of
/// `digits` 5, fleet 6), whose next files can be bent in any way.
#[derive(Clone, Debug)]
pub struct Repository {
    /// The next root's content.
    pub root: Root,
    /// Seeds of the keys that sign roots.
    pub root_signers: Vec<u8>,
    /// Content; what it says about the snapshot is filled in.
    pub timestamp: Timestamp,
    /// Content; what it says about targets is filled in.
    pub snapshot: Snapshot,
    /// Content.
    pub targets: Targets,
    /// The owner's content.
    pub digits: Targets,
    /// Seeds of the keys that sign, by role.
    pub signers: BTreeMap<&'static str, Vec<u8>>,
    /// Whether files are listed with length and hash.
    pub hashes: bool,
    /// Signed roots by version.
    pub roots: BTreeMap<u64, Vec<u8>>,
    /// Files by name, in place of what would be made; none for one that is withheld.
    pub bent: BTreeMap<String, Option<Vec<u8>>>,
}

/// The first targets metadata of a role.
pub fn targets_of(
    expires: UtcSeconds,
    targets: BTreeMap<String, TargetFile>,
    delegations: Option<Delegations>,
) -> Targets {
    Targets {
        kind: "targets".into(),
        spec_version: "1.0.31".into(),
        version: MetadataVersion::FIRST,
        expires,
        targets,
        delegations,
        floor: BTreeMap::new(),
        other: Map::new(),
    }
}

/// A delegation to keys made from `seeds`, one of which must sign.
pub fn delegated(name: &str, seeds: &[u8], paths: &[&str], terminating: bool) -> DelegatedRole {
    DelegatedRole {
        name: name.into(),
        keyids: seeds.iter().map(|seed| public(*seed).name()).collect(),
        threshold: some(1),
        terminating,
        paths: Some(paths.iter().map(ToString::to_string).collect()),
        path_hash_prefixes: None,
        other: Map::new(),
    }
}

/// A file of this version, without length and hash.
pub fn meta(number: u64) -> FileMeta {
    FileMeta { version: version(number), length: None, hashes: None, other: Map::new() }
}

impl Repository {
    /// A repository at `now` that delegates `assignments/*` to fleet and `models/digits/*` to digits, which
    /// lists nothing yet.
    pub fn at(now: UtcSeconds) -> Self {
        let role = |seed: u8| role_keys([public(seed).name()], some(1));
        let root = Root {
            kind: "root".into(),
            spec_version: "1.0.31".into(),
            version: MetadataVersion::FIRST,
            expires: now.plus_days(365),
            consistent_snapshot: true,
            keys: key_table([1, 2, 3, 4].map(public)),
            roles: TopLevelRoles {
                root: role(1),
                timestamp: role(2),
                snapshot: role(3),
                targets: role(4),
                other: Map::new(),
            },
            other: Map::new(),
        };
        let mut repository = Self {
            root,
            root_signers: vec![1],
            timestamp: Timestamp {
                kind: "timestamp".into(),
                spec_version: "1.0.31".into(),
                version: MetadataVersion::FIRST,
                expires: now.plus_days(1),
                meta: TimestampMeta { snapshot: meta(1) },
                other: Map::new(),
            },
            snapshot: Snapshot {
                kind: "snapshot".into(),
                spec_version: "1.0.31".into(),
                version: MetadataVersion::FIRST,
                expires: now.plus_days(7),
                meta: [("targets.json".into(), meta(1)), ("digits.json".into(), meta(1))].into(),
                other: Map::new(),
            },
            targets: targets_of(
                now.plus_days(30),
                BTreeMap::new(),
                Some(Delegations {
                    keys: key_table([5, 6].map(public)),
                    succinct_roles: None,
                    roles: vec![
                        delegated("fleet", &[6], &["assignments/*"], true),
                        delegated("digits", &[5], &["models/digits/*"], true),
                    ],
                    other: Map::new(),
                }),
            ),
            digits: targets_of(now.plus_days(30), BTreeMap::new(), None),
            signers: [
                ("timestamp", vec![2]),
                ("snapshot", vec![3]),
                ("targets", vec![4]),
                ("digits", vec![5]),
            ]
            .into(),
            hashes: true,
            roots: BTreeMap::new(),
            bent: BTreeMap::new(),
        };
        repository.publish_root();
        repository
    }

    /// Signs the root as it is now.
    pub fn publish_root(&mut self) {
        let mut file = Metadata::unsigned(&Role::Root, self.root.clone()).expect("serializes");
        for seed in &self.root_signers {
            file.sign(&Role::Root, &key(*seed)).expect("signs");
        }
        self.roots.insert(self.root.version.0.get(), file.to_bytes());
    }

    /// Signs a root of the next version.
    pub fn next_root(&mut self, change: impl FnOnce(&mut Root)) {
        self.root.version = self.root.version.next().expect("not the last");
        change(&mut self.root);
        self.publish_root();
    }

    /// `content` as the keys of `role` sign it.
    pub fn signed<T: Signable + Clone>(&self, role: &Role, content: &T) -> Vec<u8> {
        let mut file = Metadata::unsigned(role, content.clone()).expect("serializes");
        for seed in self.signers.get(role.as_str()).into_iter().flatten() {
            file.sign(role, &key(*seed)).expect("signs");
        }
        file.to_bytes()
    }

    fn describe(&self, number: MetadataVersion, bytes: &[u8]) -> FileMeta {
        let hashes = [("sha256".to_string(), Digest::of(bytes).to_string())].into();
        let (length, hashes) =
            if self.hashes { (Some(bytes.len() as u64), Some(hashes)) } else { (None, None) };
        FileMeta { version: number, length, hashes, other: Map::new() }
    }

    /// Counts the versions of owner, snapshot and timestamp up.
    pub fn release(&mut self) {
        self.digits.version = self.digits.version.next().expect("not the last");
        self.snapshot.version = self.snapshot.version.next().expect("not the last");
        self.timestamp.version = self.timestamp.version.next().expect("not the last");
    }

    /// All current files by name.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (number, bytes) in &self.roots {
            files.insert(format!("{number}.root.json"), bytes.clone());
        }
        let mut snapshot = self.snapshot.clone();
        for (name, content) in [("targets", &self.targets), ("digits", &self.digits)] {
            let bytes = self.signed(&Role::named(name), content);
            snapshot.meta.insert(format!("{name}.json"), self.describe(content.version, &bytes));
            files.insert(format!("{}.{name}.json", content.version), bytes);
        }
        let bytes = self.signed(&Role::Snapshot, &snapshot);
        let mut timestamp = self.timestamp.clone();
        timestamp.meta.snapshot = self.describe(snapshot.version, &bytes);
        files.insert(format!("{}.snapshot.json", snapshot.version), bytes);
        files.insert("timestamp.json".into(), self.signed(&Role::Timestamp, &timestamp));
        for (name, bent) in &self.bent {
            match bent {
                Some(bytes) => files.insert(name.clone(), bytes.clone()),
                None => files.remove(name),
            };
        }
        files
    }
}
