//! The client against a broker that tells the truth, is slow, forgets, or lies.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serin_protocol::envelope::PublicKey;
use serin_protocol::trust::forge::{Repository, key, public};
use serin_protocol::trust::metadata::Serial;
use serin_protocol::trust::signed::{key_table, role_keys};
use serin_protocol::trust::{TargetFile, UtcSeconds};

use super::*;
use crate::disk::seam::Files;

const NOW: UtcSeconds = UtcSeconds(1_795_000_000);
const STATEMENT: &[u8] = b"statement";

const REFRESHED: Effect = Effect::Refreshed { keys_changed: false };
const FIRST: Effect = Effect::Refreshed { keys_changed: true };

pub(super) fn at(seconds: u64) -> Now {
    let wall = UnixMillis((NOW.0 as u64 + seconds) * 1000);
    Now { wall, elapsed: Millis::from_secs(seconds) }
}

pub(super) fn target() -> ReleaseRef {
    ReleaseRef { id: "digits@1".parse().expect("name"), statement: Digest::of(STATEMENT) }
}

/// A repository that lists the release as its owner's first.
pub(super) fn listing() -> Repository {
    let mut repository = Repository::at(NOW);
    list(&mut repository);
    repository
}

fn list(repository: &mut Repository) {
    let listed = TargetFile::of(STATEMENT).with_serial(Serial(1));
    repository.digits.targets.insert("models/digits/1.release".into(), listed);
}

/// A new root that gives the timestamp another key.
pub(super) fn next_root(repository: &mut Repository, timestamp: u8) {
    repository.signers.insert("timestamp", vec![timestamp]);
    repository.next_root(|root| {
        root.keys.extend(key_table([public(timestamp)]));
        root.roles.timestamp = role_keys([public(timestamp).name()], NonZeroU32::MIN);
    });
}

pub(super) struct Device {
    pub(super) home: tempfile::TempDir,
    pub(super) client: Client,
    pub(super) asked: Vec<String>,
    pub(super) floor: Option<RootFloor>,
    pub(super) recovered: bool,
}

impl Device {
    pub(super) fn new(repository: &Repository) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        std::fs::write(home.path().join("anchor.json"), &repository.roots[&1]).expect("writes");
        let client = Self::client(home.path());
        Self { home, client, asked: Vec::new(), floor: None, recovered: false }
    }

    pub(super) fn client(home: &std::path::Path) -> Client {
        Self::client_above(home, None)
    }

    /// A client whose boot record knows `floor`.
    pub(super) fn client_above(home: &std::path::Path, floor: Option<RootFloor>) -> Client {
        let store = TrustStore::open(Files::real(), home, &home.join("anchor.json"), floor).expect("opens");
        Client::new(store, Jitter::new(1))
    }

    /// Answers every question from `files`, in order; returns what is not a question.
    pub(super) fn serve(&mut self, files: &BTreeMap<String, Vec<u8>>, now: Now, effects: Effects) -> Effects {
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
                Effect::RootTrusted { floor, recovered } => {
                    self.floor = Some(floor);
                    self.recovered |= recovered;
                }
                Effect::Leave(_) => {}
                other => said.push(other),
            }
        }
        said
    }

    pub(super) fn connect(&mut self, repository: &Repository, seconds: u64) -> Effects {
        self.client.disconnected();
        let effects = self.client.connected(at(seconds));
        self.serve(&repository.files(), at(seconds), effects)
    }

    pub(super) fn search(&mut self, repository: &Repository, seconds: u64) -> Effects {
        let effects = self.client.search(at(seconds), target());
        self.serve(&repository.files(), at(seconds), effects)
    }

    /// Lets time pass until nothing is due.
    pub(super) fn wait(&mut self, repository: &Repository, mut seconds: u64, until: u64) -> Effects {
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
    let repository = listing();
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
    let repository = listing();
    let mut device = Device::new(&repository);
    device.connect(&repository, 0);
    assert!(device.client.fleet_keys(at(86_399).wall).is_some());
    assert!(device.client.fleet_keys(at(86_400).wall).is_none());
}

#[test]
fn a_frozen_repository_is_reported_once_and_refuses_the_search() {
    let mut repository = listing();
    repository.timestamp.expires = NOW.plus_days(-1);
    let mut device = Device::new(&repository);
    assert_eq!(device.connect(&repository, 0), []);
    let mut said = device.search(&repository, 0);
    said.extend(device.wait(&repository, 0, 40));
    let [Effect::Refuse(reported), Effect::Unlisted(_, why)] = said.as_slice() else { panic!("{said:?}") };
    assert!(reported.as_str().starts_with("freeze: timestamp"), "{reported}");
    assert!(why.as_str().starts_with("freeze: timestamp"), "{why}");
    repository.timestamp.expires = NOW.plus_days(1);
    repository.release();
    let said = device.wait(&repository, 40, 400);
    assert_eq!(said, [FIRST]);
    assert_eq!(device.client.problem(), None);
}

#[test]
fn a_timestamp_that_never_comes_is_called_withheld() {
    let repository = listing();
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
    let repository = listing();
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
    let mut repository = listing();
    repository.digits.targets.clear();
    let mut device = Device::new(&repository);
    device.connect(&repository, 0);
    assert_eq!(device.search(&repository, 0), [REFRESHED]);
    list(&mut repository);
    repository.release();
    let files = repository.files();
    let file = FileName::new("timestamp.json").expect("name");
    let effects = device.client.message(at(5), &file, &files["timestamp.json"].clone().into());
    assert_eq!(device.serve(&files, at(5), effects), [REFRESHED, Effect::Listed(target())]);
}

#[test]
fn what_is_not_listed_is_refused_by_name() {
    let refusal = |change: fn(&mut Repository), assigned: ReleaseRef| {
        let mut repository = listing();
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
    let unknown = refusal(|repository| repository.digits.targets.clear(), target());
    assert!(unknown.starts_with("no trusted role lists"), "{unknown}");
    let below =
        refusal(|repository| repository.digits.floor = [("digits".into(), Serial(2))].into(), target());
    assert!(below.starts_with("rollback:") && below.contains("below the floor 2"), "{below}");
    let forged = refusal(|repository| drop(repository.signers.insert("digits", vec![9])), target());
    assert!(forged.starts_with("arbitrary content: digits"), "{forged}");
    let foreign = refusal(|repository| drop(repository.signers.insert("digits", vec![6])), target());
    assert!(foreign.starts_with("wrong role: digits"), "{foreign}");
    let other = refusal(|_| (), ReleaseRef { statement: Digest::of(b"other"), ..target() });
    assert!(other.starts_with("mix-and-match"), "{other}");
}

#[test]
fn roots_are_followed_even_when_the_new_timestamp_comes_first() {
    let mut repository = listing();
    let mut device = Device::new(&repository);
    device.connect(&repository, 0);
    for timestamp in 10..15 {
        next_root(&mut repository, timestamp);
    }
    repository.release();
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
    let mut repository = listing();
    let mut device = Device::new(&repository);
    device.connect(&repository, 0);
    next_root(&mut repository, 7);
    let second = FileName::new("2.root.json").expect("name");
    device.client.message(at(1), &second, &repository.roots[&2].clone().into());
    assert!(device.client.fleet_keys(at(1).wall).is_none());
}

#[test]
fn kept_roots_count_only_as_a_chain_from_the_configured_one() {
    let mut repository = listing();
    let mut device = Device::new(&repository);
    next_root(&mut repository, 7);
    next_root(&mut repository, 8);
    device.connect(&repository, 0);
    let reopened = |device: &Device| Device::client(device.home.path()).store.root().to_vec();
    assert_eq!(reopened(&device), repository.roots[&3]);

    // A root whose keys nobody in the chain knows.
    let second = device.home.path().join("trust/roots/2.json");
    let mut forged = Repository::at(NOW);
    forged.root_signers = vec![99];
    forged.next_root(|root| {
        root.keys = key_table([99, 2, 3, 4].map(public));
        root.roles.root = role_keys([public(99).name()], NonZeroU32::MIN);
    });
    std::fs::write(&second, &forged.roots[&2]).expect("writes");
    assert_eq!(reopened(&device), repository.roots[&1], "the chain ends where it is broken");
    std::fs::write(&second, b"{").expect("writes");
    assert_eq!(reopened(&device), repository.roots[&1]);
    // It is mended by the next refresh.
    device.client = Device::client(device.home.path());
    device.connect(&repository, 1);
    assert_eq!(reopened(&device), repository.roots[&3]);

    // An installer may bring a newer one.
    let anchor = device.home.path().join("anchor.json");
    std::fs::write(&anchor, &repository.roots[&2]).expect("writes");
    assert_eq!(reopened(&device), repository.roots[&3]);
    assert!(!second.exists(), "what it made superfluous is gone");
    for (bytes, named) in
        [(b"{}".as_slice(), "malformed root"), (vec![b' '; 130_000].as_slice(), "more than")]
    {
        std::fs::write(&anchor, bytes).expect("writes");
        let refused =
            TrustStore::open(Files::real(), device.home.path(), &anchor, None).expect_err("no root");
        assert!(
            refused.to_string().contains(named) && refused.to_string().contains("trust.root"),
            "{refused}"
        );
    }
    std::fs::remove_file(&anchor).expect("removes");
    let refused =
        TrustStore::open(Files::real(), device.home.path(), &anchor, None).expect_err("nothing there");
    assert!(refused.to_string().contains("put the first root.json"), "{refused}");
}
