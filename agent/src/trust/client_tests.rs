//! The client against a broker that tells the truth, is slow, forgets, or lies.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use ed25519_dalek::SigningKey;
use serde_json::Map;
use serin_protocol::envelope::PublicKey;
use serin_protocol::trust::metadata::{Serial, Signable, TimestampMeta, TopLevelRoles};
use serin_protocol::trust::signed::{key_table, role_keys};
use serin_protocol::trust::{
    DelegatedRole, Delegations, FileMeta, Key, Metadata, MetadataVersion, Root, Snapshot, TargetFile,
    Targets, Timestamp,
};

use super::*;
use crate::disk::seam::Files;

const NOW: UtcSeconds = UtcSeconds(1_795_000_000);
const STATEMENT: &[u8] = b"statement";

const REFRESHED: Effect = Effect::Refreshed { keys_changed: false };
const FIRST: Effect = Effect::Refreshed { keys_changed: true };

fn at(seconds: u64) -> Now {
    let wall = UnixMillis((NOW.0 as u64 + seconds) * 1000);
    Now { wall, elapsed: Millis::from_secs(seconds) }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(seed: u8) -> Key {
    Key::ed25519(&PublicKey::of(&key(seed)))
}

fn target() -> ReleaseRef {
    ReleaseRef { id: "digits@1".parse().expect("name"), statement: Digest::of(STATEMENT) }
}

fn sealed<T: Signable>(role: &str, content: T, seeds: &[u8]) -> Vec<u8> {
    let role = Role::named(role);
    let mut file = Metadata::unsigned(&role, content).expect("serializes");
    for seed in seeds {
        file.sign(&role, &key(*seed)).expect("signs");
    }
    file.to_bytes()
}

fn meta(version: u64, bytes: &[u8]) -> FileMeta {
    let hashes = BTreeMap::from([("sha256".to_owned(), Digest::of(bytes).to_string())]);
    FileMeta {
        version: number(version),
        length: Some(bytes.len() as u64),
        hashes: Some(hashes),
        other: Map::new(),
    }
}

fn number(version: u64) -> MetadataVersion {
    serde_json::from_value(version.into()).expect("at least 1")
}

fn delegated(name: &str, seed: u8, path: &str) -> DelegatedRole {
    DelegatedRole {
        name: name.into(),
        keyids: vec![public(seed).name()],
        threshold: NonZeroU32::MIN,
        terminating: true,
        paths: Some(vec![path.into()]),
        path_hash_prefixes: None,
        other: Map::new(),
    }
}

fn targets(version: u64, targets: BTreeMap<String, TargetFile>, delegations: Option<Delegations>) -> Targets {
    Targets {
        kind: "targets".into(),
        spec_version: "1.0.31".into(),
        version: number(version),
        expires: NOW.plus_days(30),
        targets,
        delegations,
        floor: BTreeMap::new(),
        other: Map::new(),
    }
}

/// What a broker says: keys 1 root, 2 timestamp, 3 snapshot, 4 targets, 5 owner, 6 fleet.
struct Repository {
    roots: Vec<Vec<u8>>,
    timestamp_key: u8,
    version: u64,
    listed: bool,
    floor: u64,
    timestamp_days: i64,
    owner_key: u8,
}

impl Repository {
    fn new() -> Self {
        let mut repository = Self {
            roots: Vec::new(),
            timestamp_key: 2,
            version: 1,
            listed: true,
            floor: 0,
            timestamp_days: 1,
            owner_key: 5,
        };
        repository.next_root(2);
        repository
    }

    fn next_root(&mut self, timestamp: u8) {
        self.timestamp_key = timestamp;
        let role = |seed: u8| role_keys([public(seed).name()], NonZeroU32::MIN);
        let root = Root {
            kind: "root".into(),
            spec_version: "1.0.31".into(),
            version: number(self.roots.len() as u64 + 1),
            expires: NOW.plus_days(365),
            consistent_snapshot: true,
            keys: key_table([1, timestamp, 3, 4].map(public)),
            roles: TopLevelRoles {
                root: role(1),
                timestamp: role(timestamp),
                snapshot: role(3),
                targets: role(4),
                other: Map::new(),
            },
            other: Map::new(),
        };
        self.roots.push(sealed("root", root, &[1]));
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let version = self.version;
        let path = target().id;
        let listed = TargetFile::of(STATEMENT).with_serial(Serial(1));
        let listed = self.listed.then(|| (format!("models/digits/{}.release", path.version), listed));
        let mut digits = targets(version, listed.into_iter().collect(), None);
        digits.floor.insert("digits".into(), Serial(self.floor));
        let digits = sealed("digits", digits, &[self.owner_key]);
        let delegations = Delegations {
            keys: key_table([5, 6].map(public)),
            roles: vec![delegated("fleet", 6, "assignments/*"), delegated("digits", 5, "models/digits/*")],
            ..Delegations::default()
        };
        let top = sealed("targets", targets(version, BTreeMap::new(), Some(delegations)), &[4]);
        let snapshot = Snapshot {
            kind: "snapshot".into(),
            spec_version: "1.0.31".into(),
            version: number(version),
            expires: NOW.plus_days(7),
            meta: [
                ("targets.json".to_owned(), meta(version, &top)),
                ("digits.json".to_owned(), meta(version, &digits)),
            ]
            .into(),
            other: Map::new(),
        };
        let snapshot = sealed("snapshot", snapshot, &[3]);
        let timestamp = Timestamp {
            kind: "timestamp".into(),
            spec_version: "1.0.31".into(),
            version: number(version),
            expires: NOW.plus_days(self.timestamp_days),
            meta: TimestampMeta { snapshot: meta(version, &snapshot) },
            other: Map::new(),
        };
        let mut files = BTreeMap::from([
            ("timestamp.json".to_owned(), sealed("timestamp", timestamp, &[self.timestamp_key])),
            (format!("{version}.snapshot.json"), snapshot),
            (format!("{version}.targets.json"), top),
            (format!("{version}.digits.json"), digits),
        ]);
        for (index, root) in self.roots.iter().enumerate() {
            files.insert(format!("{}.root.json", index + 1), root.clone());
        }
        files
    }
}

struct Device {
    home: tempfile::TempDir,
    client: Client,
    asked: Vec<String>,
}

impl Device {
    fn new(repository: &Repository) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        std::fs::write(home.path().join("anchor.json"), &repository.roots[0]).expect("writes");
        let client = Self::client(home.path());
        Self { home, client, asked: Vec::new() }
    }

    fn client(home: &std::path::Path) -> Client {
        let store = TrustStore::open(Files::real(), home, &home.join("anchor.json")).expect("opens");
        Client::new(store, Jitter::new(1))
    }

    /// Answers every question from `files`, in order; returns what is not a question.
    fn serve(&mut self, files: &BTreeMap<String, Vec<u8>>, now: Now, effects: Effects) -> Effects {
        let mut effects = std::collections::VecDeque::from(effects);
        let mut said = Effects::new();
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Ask(file) => {
                    self.asked.push(file.as_str().into());
                    if let Some(bytes) = files.get(file.as_str()) {
                        effects.extend(self.client.message(now, &file, &bytes.clone().into()));
                    }
                }
                Effect::Leave(_) => {}
                other => said.push(other),
            }
        }
        said
    }

    fn connect(&mut self, repository: &Repository, seconds: u64) -> Effects {
        self.client.disconnected();
        let effects = self.client.connected(at(seconds));
        self.serve(&repository.files(), at(seconds), effects)
    }

    fn search(&mut self, repository: &Repository, seconds: u64) -> Effects {
        let effects = self.client.search(at(seconds), target());
        self.serve(&repository.files(), at(seconds), effects)
    }

    /// Lets time pass until nothing is due.
    fn wait(&mut self, repository: &Repository, mut seconds: u64, until: u64) -> Effects {
        let mut said = Effects::new();
        while seconds < until {
            seconds += 1;
            let effects = self.client.tick(at(seconds));
            said.extend(self.serve(&repository.files(), at(seconds), effects));
        }
        said
    }
}

#[test]
fn a_first_connection_learns_who_assigns_and_a_search_who_releases() {
    let repository = Repository::new();
    let mut device = Device::new(&repository);
    assert!(device.client.fleet_keys(at(0).wall).is_none());
    assert_eq!(device.connect(&repository, 0), [FIRST]);
    assert_eq!(device.asked, ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]);
    let fleet = PublicKey::of(&key(6)).id();
    assert!(device.client.fleet_keys(at(0).wall).expect("trusted").find(&fleet).is_some());
    assert_eq!(device.search(&repository, 1), [REFRESHED, Effect::Listed(target())]);
    assert_eq!(device.client.next_deadline(), None);

    // After a restart only what may have changed is asked for.
    device.client = Device::client(device.home.path());
    device.asked.clear();
    let search = device.client.search(at(2), target());
    assert_eq!(search, []);
    assert_eq!(device.connect(&repository, 3), [FIRST, Effect::Listed(target())]);
    assert_eq!(device.asked, ["2.root.json", "timestamp.json"]);
}

#[test]
fn nobody_is_trusted_beyond_the_first_expiry() {
    let repository = Repository::new();
    let mut device = Device::new(&repository);
    device.connect(&repository, 0);
    assert!(device.client.fleet_keys(at(86_399).wall).is_some());
    assert!(device.client.fleet_keys(at(86_400).wall).is_none());
}

#[test]
fn a_frozen_repository_is_reported_once_and_refuses_the_search() {
    let mut repository = Repository::new();
    repository.timestamp_days = -1;
    let mut device = Device::new(&repository);
    assert_eq!(device.connect(&repository, 0), []);
    let mut said = device.search(&repository, 0);
    said.extend(device.wait(&repository, 0, 40));
    let [Effect::Refuse(reported), Effect::Unlisted(_, why)] = said.as_slice() else { panic!("{said:?}") };
    assert!(reported.as_str().starts_with("freeze: timestamp"), "{reported}");
    assert!(why.as_str().starts_with("freeze: timestamp"), "{why}");
    repository.timestamp_days = 1;
    repository.version = 2;
    let said = device.wait(&repository, 40, 400);
    assert_eq!(said, [FIRST]);
    assert_eq!(device.client.problem(), None);
}

#[test]
fn a_timestamp_that_never_comes_is_called_withheld() {
    let repository = Repository::new();
    let mut device = Device::new(&repository);
    device.client.connected(at(0));
    device.client.search(at(0), target());
    let nothing = BTreeMap::new();
    let mut said = Effects::new();
    for seconds in 0..60 {
        let effects = device.client.tick(at(seconds));
        said.extend(device.serve(&nothing, at(seconds), effects));
    }
    let why = Detail::new("withheld: the repository has no timestamp");
    assert_eq!(said, [Effect::Unlisted(target(), why.clone()), Effect::Refuse(why)]);
}

#[test]
fn a_withheld_file_is_named_and_waits_for_nothing_offline() {
    let repository = Repository::new();
    let mut device = Device::new(&repository);
    device.connect(&repository, 0);
    let mut files = repository.files();
    files.remove("1.digits.json");
    let effects = device.client.search(at(0), target());
    device.serve(&files, at(0), effects);
    device.client.disconnected();
    assert_eq!(device.client.next_deadline(), None);
    let effects = device.client.connected(at(1000));
    let mut said = device.serve(&files, at(1000), effects);
    for seconds in 1000..1030 {
        let effects = device.client.tick(at(seconds));
        said.extend(device.serve(&files, at(seconds), effects));
    }
    let why = Detail::new("withheld: the repository has no digits");
    assert_eq!(said, [REFRESHED, Effect::Unlisted(target(), why)]);
}

#[test]
fn a_release_listed_a_moment_later_is_found_then() {
    let mut repository = Repository::new();
    repository.listed = false;
    let mut device = Device::new(&repository);
    device.connect(&repository, 0);
    assert_eq!(device.search(&repository, 0), [REFRESHED]);
    repository.listed = true;
    repository.version = 2;
    let files = repository.files();
    let file = FileName::new("timestamp.json").expect("name");
    let effects = device.client.message(at(5), &file, &files["timestamp.json"].clone().into());
    assert_eq!(device.serve(&files, at(5), effects), [REFRESHED, Effect::Listed(target())]);
}

#[test]
fn what_is_not_listed_is_refused_by_name() {
    let refusal = |change: fn(&mut Repository), assigned: ReleaseRef| {
        let mut repository = Repository::new();
        change(&mut repository);
        let mut device = Device::new(&repository);
        device.connect(&repository, 0);
        let effects = device.client.search(at(0), assigned);
        let mut said = device.serve(&repository.files(), at(0), effects);
        said.extend(device.wait(&repository, 0, 25));
        match said.last() {
            Some(Effect::Unlisted(_, why)) => why.as_str().to_owned(),
            other => panic!("{other:?}"),
        }
    };
    let unknown = refusal(|repository| repository.listed = false, target());
    assert!(unknown.starts_with("no trusted role lists"), "{unknown}");
    let below = refusal(|repository| repository.floor = 2, target());
    assert!(below.starts_with("rollback:") && below.contains("below the floor 2"), "{below}");
    let forged = refusal(|repository| repository.owner_key = 9, target());
    assert!(forged.starts_with("arbitrary content: digits"), "{forged}");
    let foreign = refusal(|repository| repository.owner_key = 6, target());
    assert!(foreign.starts_with("wrong role: digits"), "{foreign}");
    let other = refusal(|_| (), ReleaseRef { statement: Digest::of(b"other"), ..target() });
    assert!(other.starts_with("mix-and-match"), "{other}");
}

#[test]
fn roots_are_followed_even_when_the_new_timestamp_comes_first() {
    let mut repository = Repository::new();
    let mut device = Device::new(&repository);
    device.connect(&repository, 0);
    for timestamp in 10..15 {
        repository.next_root(timestamp);
    }
    repository.version = 2;
    // The timestamp's new key is nobody's yet.
    let files = repository.files();
    let file = FileName::new("timestamp.json").expect("name");
    let effects = device.client.message(at(1), &file, &files["timestamp.json"].clone().into());
    assert_eq!(device.serve(&files, at(1), effects), []);
    assert!(device.client.problem().is_some_and(|problem| problem.starts_with("arbitrary content")));
    let second = FileName::new("2.root.json").expect("name");
    let effects = device.client.message(at(1), &second, &files["2.root.json"].clone().into());
    assert_eq!(device.serve(&files, at(1), effects), [FIRST]);
    assert_eq!(device.client.watched, FileName::new("7.root.json").ok());
    assert_eq!(device.client.problem(), None);
}

#[test]
fn a_new_root_ends_the_trust_in_the_old_keys_at_once() {
    let mut repository = Repository::new();
    let mut device = Device::new(&repository);
    device.connect(&repository, 0);
    repository.next_root(7);
    let second = FileName::new("2.root.json").expect("name");
    device.client.message(at(1), &second, &repository.roots[1].clone().into());
    assert!(device.client.fleet_keys(at(1).wall).is_none());
}

#[test]
fn the_anchor_counts_when_nothing_newer_is_kept() {
    let mut repository = Repository::new();
    let mut device = Device::new(&repository);
    repository.next_root(7);
    device.connect(&repository, 0);
    let root = device.home.path().join("trust/root.json");
    assert_eq!(std::fs::read(&root).expect("kept"), repository.roots[1]);
    device.client = Device::client(device.home.path());
    assert_eq!(std::fs::read(&root).expect("kept"), repository.roots[1], "the older anchor changes nothing");

    std::fs::write(&root, b"{").expect("writes");
    device.client = Device::client(device.home.path());
    assert_eq!(std::fs::read(&root).expect("kept"), repository.roots[0], "a damaged one is replaced");
    std::fs::write(device.home.path().join("anchor.json"), &repository.roots[1]).expect("writes");
    device.client = Device::client(device.home.path());
    assert_eq!(std::fs::read(&root).expect("kept"), repository.roots[1], "a newer anchor counts");
    std::fs::remove_dir_all(device.home.path().join("trust")).expect("removes");
    std::fs::remove_file(device.home.path().join("anchor.json")).expect("removes");
    let anchor = device.home.path().join("anchor.json");
    let refused = TrustStore::open(Files::real(), device.home.path(), &anchor).expect_err("nothing there");
    assert!(refused.to_string().contains("trust.root"), "{refused}");
}
