//! Parcels that are right, old, expired, foreign or bent, against a device's kept metadata.

use serin_protocol::chunk::ObjectRef;
use serin_protocol::ids::ByteCount;
use serin_protocol::parcel::RoleName;
use serin_protocol::trust::forge::{Repository, public};
use serin_protocol::trust::metadata::{MetadataVersion, Serial};
use serin_protocol::trust::signed::{key_table, role_keys};
use serin_protocol::trust::{TargetFile, UtcSeconds};

use super::*;
use crate::disk::seam::Files;

const NOW: UtcSeconds = UtcSeconds(1_795_000_000);

fn wall(days: u64) -> UnixMillis {
    UnixMillis((NOW.0 as u64 + days * 86_400) * 1000)
}

fn release(version: u8) -> Release {
    let object = ObjectRef { digest: Digest([version; 32]), size: ByteCount(77) };
    Release {
        id: format!("digits@{version}").parse().expect("id"),
        bundle: object,
        chunk_list: object,
        unpacked: ByteCount(10),
        memory: ByteCount(10),
        runtime: "r".parse().expect("fits"),
        targets: [].into_iter().collect(),
        profile: Digest([0; 32]),
        decoders: serin_protocol::release::Decoders::new(),
    }
}

/// A repository that lists this release.
fn listing(version: u8) -> Repository {
    let mut repository = Repository::at(NOW);
    list(&mut repository, version);
    repository
}

fn list(repository: &mut Repository, version: u8) {
    let statement = release(version).to_bytes().expect("fits");
    let listed = TargetFile::of(&statement).with_serial(Serial(u64::from(version)));
    repository.digits.targets.insert(statement_path(&release(version).id), listed);
}

fn papers(repository: &Repository, version: u8) -> Papers {
    let files = repository.files();
    let suffix = |name: &str| {
        let ends = |(file, bytes): (&String, &Vec<u8>)| file.ends_with(name).then(|| bytes.clone());
        files.iter().find_map(ends).expect("is there")
    };
    let roots = repository.roots.iter().map(|(number, bytes)| (Entry::Root(*number), bytes.clone()));
    let rest = [
        (Entry::Timestamp, suffix("timestamp.json")),
        (Entry::Snapshot, suffix(".snapshot.json")),
        (Entry::Targets, suffix(".targets.json")),
        (Entry::Delegated(RoleName::new("digits").expect("a name")), suffix(".digits.json")),
    ];
    Papers {
        release: release(version).id,
        files: roots.chain(rest).collect(),
        statement: release(version).to_bytes().expect("fits").to_vec(),
        bundle: 77,
    }
}

struct Device(tempfile::TempDir);

impl Device {
    fn of(repository: &Repository) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        std::fs::write(home.path().join("anchor.json"), &repository.roots[&1]).expect("writes");
        Self(home)
    }

    /// Each time as after a restart: only what is on disk counts.
    fn refresh(&self, days: u64, papers: &Papers) -> Result<Release, OfflineError> {
        let home = self.0.path();
        let mut store =
            TrustStore::open(Files::real(), home, &home.join("anchor.json"), None).expect("opens");
        refresh(&mut store, wall(days), papers)
    }
}

#[test]
fn a_device_that_never_had_a_network_trusts_what_is_signed_and_keeps_it() {
    let mut repository = listing(1);
    repository.next_root(|root| {
        root.keys.extend(key_table([public(9)]));
        root.roles.timestamp = role_keys([public(9).name()], std::num::NonZeroU32::MIN);
    });
    repository.signers.insert("timestamp", vec![9]);
    let device = Device::of(&repository);
    assert_eq!(device.refresh(0, &papers(&repository, 1)).expect("trusted"), release(1));
    let kept = |name: &str| device.0.path().join("trust").join(name).exists();
    let names = [
        "roots/2.json",
        "roles/timestamp.json",
        "roles/snapshot.json",
        "roles/targets.json",
        "roles/digits.json",
    ];
    assert!(names.into_iter().all(kept));
    assert_eq!(device.refresh(0, &papers(&repository, 1)).expect("again"), release(1));
}

#[test]
fn older_metadata_is_refused_as_rollback_and_what_was_newer_stays() {
    let mut repository = listing(1);
    let device = Device::of(&repository);
    let old = papers(&repository, 1);
    list(&mut repository, 2);
    repository.release();
    assert_eq!(device.refresh(0, &papers(&repository, 2)).expect("trusted"), release(2));
    let refused = device.refresh(0, &old).expect_err("older");
    assert!(matches!(refused, OfflineError::Trust(TrustError::Rollback { .. })), "{refused}");
    assert!(refused.remedy().contains("export it again"));
    assert_eq!(device.refresh(0, &papers(&repository, 2)).expect("as before"), release(2));
}

#[test]
fn expired_metadata_is_refused_as_freeze_with_its_remedy() {
    let repository = listing(1);
    let device = Device::of(&repository);
    let refused = device.refresh(4000, &papers(&repository, 1)).expect_err("expired");
    assert!(matches!(refused, OfflineError::Trust(TrustError::Freeze { .. })), "{refused}");
    assert!(refused.remedy().contains("export it again"));
}

#[test]
fn what_its_owner_does_not_list_or_no_longer_wants_is_refused() {
    let mut repository = listing(1);
    let device = Device::of(&repository);
    let refused = device.refresh(0, &papers(&repository, 2)).expect_err("not listed");
    assert!(matches!(refused, OfflineError::Trust(TrustError::UnknownTarget { .. })), "{refused}");
    list(&mut repository, 3);
    repository.digits.floor.insert("digits".into(), Serial(2));
    repository.release();
    let refused = device.refresh(0, &papers(&repository, 1)).expect_err("below the floor");
    assert!(matches!(refused, OfflineError::Trust(TrustError::BelowFloor { .. })), "{refused}");
    assert_eq!(device.refresh(0, &papers(&repository, 3)).expect("above it"), release(3));
}

#[test]
fn another_publishers_parcel_is_named_as_that() {
    let device = Device::of(&listing(1));
    let mut stranger = listing(1);
    for seeds in stranger.signers.values_mut() {
        seeds.iter_mut().for_each(|seed| *seed += 100);
    }
    stranger.root_signers.iter_mut().for_each(|seed| *seed += 100);
    stranger.roots.clear();
    stranger.root.version = MetadataVersion::FIRST;
    stranger.publish_root();
    let refused = device.refresh(0, &papers(&stranger, 1)).expect_err("foreign");
    assert!(matches!(refused, OfflineError::Foreign(_)), "{refused:?}");
}

#[test]
fn a_statement_or_bundle_other_than_the_listed_one_is_refused() {
    let repository = listing(1);
    let device = Device::of(&repository);
    let right = papers(&repository, 1);
    let other = Papers { statement: release(2).to_bytes().expect("fits").to_vec(), ..right.clone() };
    let refused = device.refresh(0, &other).expect_err("another");
    assert!(matches!(refused, OfflineError::Trust(TrustError::WrongTarget { .. })), "{refused}");
    let longer = Papers { bundle: 78, ..right.clone() };
    assert!(matches!(device.refresh(0, &longer), Err(OfflineError::Contradiction(_))));
    let mut withheld = right;
    withheld.files.retain(|(entry, _)| *entry != Entry::Snapshot);
    let device = Device::of(&repository);
    let refused = device.refresh(0, &withheld).expect_err("withheld");
    assert!(matches!(refused, OfflineError::Trust(TrustError::Missing { .. })), "{refused}");
}
