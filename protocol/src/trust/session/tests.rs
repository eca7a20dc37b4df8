//! The attacks of the specification's section 1.5.2 against one session, on repositories made here.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::vec;

use proptest::prelude::*;
use serde_json::Map;

use super::{Accepted, Limits, Next, Session};
use crate::envelope::PublicKey;
use crate::ids::Digest;
use crate::trust::delegation::Delegations;
use crate::trust::forge::{Repository, delegated, key, meta, public, some, targets_of, version};
use crate::trust::metadata::{Role, Root, Serial, TargetFile};
use crate::trust::signed::{Metadata, key_table, role_keys};
use crate::trust::{TrustError, UtcSeconds};

const NOW: UtcSeconds = UtcSeconds(1_795_000_000);
const PATH: &str = "models/digits/1.0.0.release";

/// One release is listed.
fn listing() -> Repository {
    let mut repository = Repository::at(NOW);
    repository.digits.targets.insert(PATH.into(), TargetFile::of(b"statement"));
    repository
}

/// A device's kept files.
#[derive(Clone, Default, PartialEq, Debug)]
struct Kept(BTreeMap<Role, Vec<u8>>);

impl Kept {
    fn shipped(repository: &Repository) -> Self {
        Self([(Role::Root, repository.roots[&1].clone())].into())
    }

    fn version(&self, role: &Role) -> u64 {
        let value: serde_json::Value = serde_json::from_slice(&self.0[role]).expect("is JSON");
        value["signed"]["version"].as_u64().expect("a number")
    }

    /// Refreshes, then looks for `path`; returns the files fetched and the target.
    fn pull(
        &mut self,
        repository: &Repository,
        now: UtcSeconds,
        path: &str,
    ) -> (Vec<String>, Result<super::Found, TrustError>) {
        let files = repository.files();
        let mut asked = Vec::new();
        let result = (|| {
            let mut session = Session::begin(&self.0[&Role::Root], now, Limits::DEVICE)?;
            self.drive(&mut session, &files, &mut asked)?;
            session.find(path)?;
            self.drive(&mut session, &files, &mut asked)?;
            session.found()
        })();
        (asked, result)
    }

    fn drive(
        &mut self,
        session: &mut Session,
        files: &BTreeMap<String, Vec<u8>>,
        asked: &mut Vec<String>,
    ) -> Result<(), TrustError> {
        loop {
            match session.next() {
                Next::Done => return Ok(()),
                Next::Local(role) => session.local(self.0.get(&role).map(Vec::as_slice))?,
                Next::Fetch(fetch) => {
                    let name = fetch.file_name(ToString::to_string);
                    asked.push(name.clone());
                    let Some(bytes) = files.get(&name) else {
                        session.missing()?;
                        continue;
                    };
                    let Accepted { forget, keep } = session.fetched(bytes)?;
                    for role in forget {
                        self.0.remove(&role);
                    }
                    if let Some(role) = keep {
                        self.0.insert(role, bytes.clone());
                    }
                }
            }
        }
    }

    fn refused(&mut self, repository: &Repository) -> TrustError {
        self.pull(repository, NOW, PATH).1.expect_err("is an attack")
    }
}

#[test]
fn a_target_is_found_through_its_owner_and_nothing_is_fetched_twice() {
    let repository = listing();
    let mut kept = Kept::shipped(&repository);
    let (asked, found) = kept.pull(&repository, NOW, PATH);
    assert_eq!(
        asked,
        ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json", "1.digits.json"]
    );
    let found = found.expect("is there");
    assert_eq!(found.role, Role::Delegated("digits".into()));
    assert_eq!(found.file_path(), format!("models/digits/{}.1.0.0.release", Digest::of(b"statement")));
    assert_eq!(found.check(b"statement"), Ok(()));
    assert!(matches!(found.check(b"statemenT"), Err(TrustError::WrongTarget { .. })));
    assert!(matches!(found.check(b"statement "), Err(TrustError::WrongTarget { .. })));

    let (asked, again) = kept.pull(&repository, NOW, PATH);
    assert_eq!(asked, ["2.root.json", "timestamp.json"]);
    assert_eq!(again, Ok(found));
}

#[test]
fn what_lies_below_a_floor_is_refused_whoever_set_it() {
    let refusal = |own: u64, offline: u64| {
        let mut repository = listing();
        let listed = TargetFile::of(b"statement").with_serial(Serial(3));
        repository.digits.targets.insert(PATH.into(), listed);
        repository.digits.floor.insert("digits".into(), Serial(own));
        repository.targets.floor.insert("digits".into(), Serial(offline));
        repository.targets.floor.insert("others".into(), Serial(99));
        let mut kept = Kept::shipped(&repository);
        let mut session = Session::begin(&kept.0[&Role::Root], NOW, Limits::DEVICE).expect("holds");
        let (files, mut asked) = (repository.files(), Vec::new());
        kept.drive(&mut session, &files, &mut asked).expect("holds");
        session.find(PATH).expect("in turn");
        kept.drive(&mut session, &files, &mut asked).expect("holds");
        session.check_floor(&session.found().expect("is listed"))
    };
    let below =
        |floor| Err(TrustError::BelowFloor { path: PATH.into(), serial: Serial(3), floor: Serial(floor) });
    assert_eq!(refusal(0, 0), Ok(()));
    assert_eq!(refusal(3, 3), Ok(()));
    assert_eq!(refusal(4, 0), below(4));
    assert_eq!(refusal(3, 5), below(5));
}

#[test]
fn whoever_delegates_to_the_speaker_may_set_a_floor_for_it() {
    let mut repository = listing();
    let listed = TargetFile::of(b"statement").with_serial(Serial(3));
    let digits = std::mem::take(&mut repository.digits.targets);
    assert_eq!(digits.len(), 1);
    repository.digits.floor.insert("digits".into(), Serial(4));
    repository.digits.delegations = Some(Delegations {
        keys: key_table([public(7)]),
        succinct_roles: None,
        roles: vec![delegated("team", &[7], &["models/digits/*"], true)],
        other: Map::new(),
    });
    repository.signers.insert("team", vec![7]);
    let team = targets_of(repository.targets.expires, [(PATH.into(), listed)].into(), None);
    repository.snapshot.meta.insert("team.json".into(), meta(1));
    let mut files = repository.files();
    files.insert("1.team.json".into(), repository.signed(&Role::named("team"), &team));
    let mut kept = Kept::shipped(&repository);
    let mut session = Session::begin(&kept.0[&Role::Root], NOW, Limits::DEVICE).expect("holds");
    let mut asked = Vec::new();
    kept.drive(&mut session, &files, &mut asked).expect("holds");
    session.find(PATH).expect("in turn");
    kept.drive(&mut session, &files, &mut asked).expect("holds");
    let found = session.found().expect("is listed");
    assert_eq!(found.role, Role::named("team"));
    let below = TrustError::BelowFloor { path: PATH.into(), serial: Serial(3), floor: Serial(4) };
    assert_eq!(session.check_floor(&found), Err(below));
}

#[test]
fn no_refresh_ends_below_a_root_that_was_trusted_before() {
    let mut repository = listing();
    repository.next_root(|_| ());
    let drive = |floor: u64, files: &BTreeMap<String, Vec<u8>>| {
        let mut kept = Kept::shipped(&repository);
        let session = Session::begin(&kept.0[&Role::Root], NOW, Limits::DEVICE).expect("holds");
        kept.drive(&mut session.not_below(version(floor)), files, &mut Vec::new())
    };
    let all = repository.files();
    let mut without = all.clone();
    without.remove("2.root.json");
    assert_eq!(drive(2, &all), Ok(()));
    assert_eq!(drive(1, &without), Ok(()));
    let (trusted, offered) = (version(2), version(1));
    assert_eq!(drive(2, &without), Err(TrustError::Rollback { role: Role::Root, trusted, offered }));
}

#[test]
fn a_path_outside_the_owners_is_nobodys() {
    let mut repository = listing();
    repository.digits.targets.insert("models/other/1".into(), TargetFile::of(b"x"));
    let mut kept = Kept::shipped(&repository);
    for path in ["models/other/1", "models/digits/none", "assignments/1"] {
        let refused = kept.pull(&repository, NOW, path).1;
        let accepted = [
            Err(TrustError::UnknownTarget { path: path.into() }),
            // Whoever may speak for a path must be listed in the snapshot.
            Err(TrustError::MixAndMatch {
                role: Role::Delegated("fleet".into()),
                by: Role::Snapshot,
                reason: "it is not listed".into(),
            }),
        ];
        assert!(accepted.contains(&refused), "{path}: {refused:?}");
    }
}

#[test]
fn arbitrary_software_is_refused_for_every_role() {
    for role in ["timestamp", "snapshot", "targets", "digits"] {
        let mut repository = listing();
        repository.signers.insert(role, vec![99]);
        let refused = Kept::shipped(&repository).refused(&repository);
        assert_eq!(refused, TrustError::Arbitrary { role: Role::named(role), valid: 0, threshold: 1 });
        repository.signers.insert(role, Vec::new());
        let refused = Kept::shipped(&repository).refused(&repository);
        assert_eq!(refused, TrustError::Arbitrary { role: Role::named(role), valid: 0, threshold: 1 });
    }
}

#[test]
fn a_key_of_another_role_is_named() {
    for (role, foreign) in [("timestamp", 3), ("snapshot", 2), ("targets", 3), ("digits", 6)] {
        let mut repository = listing();
        repository.signers.insert(role, vec![foreign]);
        let refused = Kept::shipped(&repository).refused(&repository);
        assert_eq!(refused, TrustError::WrongRole { role: Role::named(role), key: public(foreign).name() });
    }
}

#[test]
fn below_the_threshold_and_one_key_many_times_do_not_count() {
    let mut repository = listing();
    repository.root.keys.extend(key_table([public(7)]));
    repository.root.roles.targets = role_keys([public(4).name(), public(7).name()], some(2));
    repository.publish_root();
    let below = TrustError::Arbitrary { role: Role::Targets, valid: 1, threshold: 2 };
    assert_eq!(Kept::shipped(&repository).refused(&repository), below);

    // The same signature twice.
    let mut file = Metadata::unsigned(&Role::Targets, repository.targets.clone()).expect("serializes");
    file.sign(&Role::Targets, &key(4)).expect("signs");
    file.signatures.push(file.signatures[0].clone());
    repository.hashes = false;
    repository.bent.insert("1.targets.json".into(), Some(file.to_bytes()));
    let twice = TrustError::Malformed { role: Role::Targets, reason: "a key signs twice".into() };
    assert_eq!(Kept::shipped(&repository).refused(&repository), twice);
    file.signatures.pop();

    // The same key under a second name.
    repository.root.keys.insert("another".into(), public(4));
    repository.root.roles.targets = role_keys([public(4).name(), "another".into()], some(2));
    repository.publish_root();
    let mut second = file.signatures[0].clone();
    second.keyid = "another".into();
    file.signatures.push(second);
    repository.bent.insert("1.targets.json".into(), Some(file.to_bytes()));
    assert_eq!(Kept::shipped(&repository).refused(&repository), below);

    repository.root.roles.targets = role_keys([public(4).name(), public(7).name()], some(2));
    repository.publish_root();
    repository.bent.clear();
    repository.signers.insert("targets", vec![7, 4]);
    assert!(Kept::shipped(&repository).pull(&repository, NOW, PATH).1.is_ok());
}

#[test]
fn a_chain_of_thirty_roots_is_followed_and_every_link_must_hold() {
    let mut repository = listing();
    let mut kept = Kept::shipped(&repository);
    for step in 0..30_u8 {
        let (old, fresh) = (if step == 0 { 1 } else { 100 + step - 1 }, 100 + step);
        repository.root_signers = vec![old, fresh];
        repository.next_root(|root| {
            root.keys.extend(key_table([public(fresh)]));
            root.roles.root = role_keys([public(fresh).name()], some(1));
            // Only the last of the chain must not have expired.
            root.expires = if step < 29 { NOW.plus_days(-1) } else { NOW.plus_days(1) };
        });
    }
    let mut cut = kept.clone();
    assert!(kept.pull(&repository, NOW, PATH).1.is_ok());
    assert_eq!(kept.version(&Role::Root), 31);

    // One link signed by the new key alone.
    let mut file = Metadata::<Root>::parse(&Role::Root, &repository.roots[&15]).expect("parses");
    file.signatures.retain(|signature| signature.keyid == public(113).name());
    repository.roots.insert(15, file.to_bytes());
    // The old root does not know the new key: its signature is nobody's.
    assert_eq!(cut.refused(&repository), TrustError::Arbitrary { role: Role::Root, valid: 0, threshold: 1 });
    assert_eq!(cut.version(&Role::Root), 14);
}

#[test]
fn a_root_must_follow_the_trusted_one() {
    let mut repository = listing();
    repository.next_root(|_| ());
    let first = repository.roots[&1].clone();
    let mut kept = Kept::shipped(&repository);
    repository.roots.insert(2, first);
    let rollback = TrustError::Rollback { role: Role::Root, trusted: version(1), offered: version(1) };
    assert_eq!(kept.refused(&repository), rollback);
    repository.root.version = version(4);
    repository.publish_root();
    let skipped = repository.roots.remove(&4).expect("is there");
    repository.roots.insert(2, skipped);
    let skipped = TrustError::RootVersion { expected: version(2), found: version(4) };
    assert_eq!(kept.refused(&repository), skipped);
}

#[test]
fn roots_without_end_are_cut_off_and_go_on_with_the_next_refresh() {
    let mut repository = listing();
    (0..5).for_each(|_| repository.next_root(|_| ()));
    let mut kept = Kept::shipped(&repository);
    let files = repository.files();
    let limits = Limits { roots: 3, ..Limits::DEVICE };
    let mut session = Session::begin(&kept.0[&Role::Root], NOW, limits).expect("trusted");
    let refused = kept.drive(&mut session, &files, &mut Vec::new());
    assert_eq!(refused, Err(TrustError::EndlessRoots { limit: 3 }));
    assert_eq!(kept.version(&Role::Root), 4);
    let mut session = Session::begin(&kept.0[&Role::Root], NOW, limits).expect("trusted");
    assert_eq!(kept.drive(&mut session, &files, &mut Vec::new()), Ok(()));
}

#[test]
fn a_revoked_key_signs_nothing_any_more() {
    let mut repository = listing();
    repository.next_root(|root| {
        root.keys.extend(key_table([public(8)]));
        root.roles.targets = role_keys([public(8).name()], some(1));
    });
    let refused = Kept::shipped(&repository).refused(&repository);
    assert_eq!(refused, TrustError::WrongRole { role: Role::Targets, key: public(4).name() });
    repository.signers.insert("targets", vec![8]);
    assert!(Kept::shipped(&repository).pull(&repository, NOW, PATH).1.is_ok());
}

#[test]
fn no_role_can_be_rolled_back_not_even_by_its_own_key_or_after_it_expired() {
    let mut repository = listing();
    repository.targets.version = version(2);
    (0..3).for_each(|_| repository.release());
    let mut kept = Kept::shipped(&repository);
    assert!(kept.pull(&repository, NOW, PATH).1.is_ok());

    let later = NOW.plus_days(20);
    for hashes in [true, false] {
        let mut fresh = repository.clone();
        fresh.hashes = hashes;
        fresh.timestamp.expires = later.plus_days(1);
        fresh.snapshot.expires = later.plus_days(1);

        let mut attack = fresh.clone();
        attack.timestamp.version = version(3);
        let refused = kept.clone().pull(&attack, later, PATH).1;
        let (trusted, offered) = (version(4), version(3));
        assert_eq!(refused, Err(TrustError::Rollback { role: Role::Timestamp, trusted, offered }));

        fresh.timestamp.version = version(9);
        let mut attack = fresh.clone();
        attack.snapshot.version = version(3);
        let refused = kept.clone().pull(&attack, later, PATH).1;
        assert_eq!(refused, Err(TrustError::Rollback { role: Role::Snapshot, trusted, offered }));

        fresh.snapshot.version = version(9);
        let mut attack = fresh.clone();
        attack.digits.version = version(3);
        let refused = kept.clone().pull(&attack, later, PATH).1;
        let role = Role::Delegated("digits".into());
        assert_eq!(refused, Err(TrustError::Rollback { role, trusted, offered }));

        let mut attack = fresh.clone();
        attack.targets.version = version(1);
        let refused = kept.clone().pull(&attack, later, PATH).1;
        let (trusted, offered) = (version(2), version(1));
        assert_eq!(refused, Err(TrustError::Rollback { role: Role::Targets, trusted, offered }));
        assert!(kept.clone().pull(&fresh, later, PATH).1.is_ok());
    }
}

#[test]
fn a_role_cannot_disappear_from_the_snapshot() {
    let mut repository = listing();
    let mut kept = Kept::shipped(&repository);
    repository.snapshot.meta.insert("old.json".into(), meta(1));
    assert!(kept.pull(&repository, NOW, PATH).1.is_ok());
    repository.snapshot.meta.remove("old.json");
    repository.release();
    assert_eq!(kept.refused(&repository), TrustError::Disappeared { role: Role::Delegated("old".into()) });
}

type Freeze = fn(&mut Repository, UtcSeconds);

#[test]
fn a_frozen_repository_is_refused_and_an_expired_file_is_not_kept() {
    let long_ago = NOW.plus_days(-1);
    let attacks: [(&str, Freeze); 4] = [
        ("timestamp", |repository, date| repository.timestamp.expires = date),
        ("snapshot", |repository, date| repository.snapshot.expires = date),
        ("targets", |repository, date| repository.targets.expires = date),
        ("digits", |repository, date| repository.digits.expires = date),
    ];
    for (name, freeze) in attacks {
        let mut repository = listing();
        freeze(&mut repository, long_ago);
        let mut kept = Kept::shipped(&repository);
        let role = Role::named(name);
        let frozen = TrustError::Freeze { role: role.clone(), expires: long_ago, now: NOW };
        assert_eq!(kept.refused(&repository), frozen);
        assert!(!kept.0.contains_key(&role));
        // Valid to the last second.
        freeze(&mut repository, UtcSeconds(NOW.0 + 1));
        repository.release();
        assert!(kept.pull(&repository, NOW, PATH).1.is_ok());
    }
    let mut repository = listing();
    repository.next_root(|root| root.expires = long_ago);
    let mut kept = Kept::shipped(&repository);
    assert_eq!(
        kept.refused(&repository),
        TrustError::Freeze { role: Role::Root, expires: long_ago, now: NOW }
    );
    assert_eq!(kept.version(&Role::Root), 2);
}

#[test]
fn a_clock_in_2100_sees_a_freeze_and_one_in_1970_still_sees_rollbacks() {
    let mut repository = listing();
    repository.release();
    let mut kept = Kept::shipped(&repository);
    let refused = kept.pull(&repository, UtcSeconds(4_102_444_800), PATH).1;
    assert!(matches!(refused, Err(TrustError::Freeze { role: Role::Root, .. })));
    assert!(kept.pull(&repository, UtcSeconds(0), PATH).1.is_ok());
    let attack = listing();
    assert!(matches!(kept.pull(&attack, UtcSeconds(0), PATH).1, Err(TrustError::Rollback { .. })));
}

#[test]
fn a_fast_forward_is_recovered_from_by_rotating_the_online_keys() {
    for (role, seed) in [("timestamp", 2_u8), ("snapshot", 3)] {
        let mut repository = listing();
        let honest = repository.clone();
        repository.timestamp.version = version(u64::MAX);
        repository.snapshot.version = version(u64::MAX);
        repository.digits.version = version(u64::MAX);
        let mut kept = Kept::shipped(&repository);
        assert!(kept.pull(&repository, NOW, PATH).1.is_ok());

        let mut recovered = honest;
        assert!(matches!(kept.refused(&recovered), TrustError::Rollback { .. }));
        recovered.next_root(|root| {
            root.keys.extend(key_table([public(50)]));
            let keys = role_keys([public(50).name()], some(1));
            if role == "timestamp" { root.roles.timestamp = keys } else { root.roles.snapshot = keys }
        });
        recovered.signers.insert(role, vec![50]);
        assert!(kept.pull(&recovered, NOW, PATH).1.is_ok(), "key {seed} rotated");
        assert_eq!(kept.version(&Role::Timestamp), 1);
    }
}

#[test]
fn files_that_were_never_published_together_are_refused() {
    for hashes in [true, false] {
        let mut repository = listing();
        repository.hashes = hashes;
        let old = repository.files();
        repository.release();
        repository.targets.version = version(2);
        for name in ["snapshot", "targets", "digits"] {
            let mut attack = repository.clone();
            attack.bent.insert(format!("2.{name}.json"), Some(old[&format!("1.{name}.json")].clone()));
            let refused = Kept::shipped(&attack).refused(&attack);
            assert!(
                matches!(&refused, TrustError::MixAndMatch { role, .. } if role.as_str() == name),
                "{refused}"
            );
        }
    }
}

#[test]
fn endless_and_withheld_files_are_named() {
    for (name, role) in [
        ("timestamp.json", Role::Timestamp),
        ("1.snapshot.json", Role::Snapshot),
        ("1.targets.json", Role::Targets),
        ("1.digits.json", Role::Delegated("digits".into())),
    ] {
        let mut repository = listing();
        repository.bent.insert(name.into(), None);
        assert_eq!(
            Kept::shipped(&repository).refused(&repository),
            TrustError::Missing { role: role.clone() }
        );
        repository.bent.insert(name.into(), Some(vec![b' '; 200_000]));
        let refused = Kept::shipped(&repository).refused(&repository);
        assert!(matches!(refused, TrustError::EndlessData { role: named, .. } if named == role));
    }
    let mut repository = listing();
    repository.roots.insert(2, vec![b' '; 200_000]);
    let refused = Kept::shipped(&repository).refused(&repository);
    assert_eq!(refused, TrustError::EndlessData { role: Role::Root, limit: Limits::DEVICE.root });
}

#[test]
fn tampered_kept_files_are_fetched_anew_and_a_tampered_root_is_refused() {
    let repository = listing();
    let mut kept = Kept::shipped(&repository);
    assert!(kept.pull(&repository, NOW, PATH).1.is_ok());
    let honest = kept.clone();
    for role in [Role::Timestamp, Role::Snapshot, Role::Targets, Role::Delegated("digits".into())] {
        let mut kept = honest.clone();
        let text = String::from_utf8(kept.0[&role].clone())
            .expect("is text")
            .replace("\"version\":1", "\"version\":9");
        kept.0.insert(role.clone(), text.into_bytes());
        assert!(kept.pull(&repository, NOW, PATH).1.is_ok());
        assert_eq!(kept, honest, "{role}");
    }
    let mut kept = honest;
    let text = String::from_utf8(kept.0[&Role::Root].clone())
        .expect("is text")
        .replace("\"version\":1", "\"version\":9");
    kept.0.insert(Role::Root, text.into_bytes());
    assert!(matches!(kept.refused(&repository), TrustError::Arbitrary { role: Role::Root, .. }));
}

#[test]
fn delegations_to_top_level_names_and_cycles_are_harmless() {
    for name in ["root", "snapshot", "timestamp", "targets", ""] {
        let mut repository = listing();
        let delegations = repository.targets.delegations.as_mut().expect("there are some");
        delegations.roles.push(delegated(name, &[5], &["*"], false));
        let refused = Kept::shipped(&repository).refused(&repository);
        assert!(matches!(refused, TrustError::Malformed { role: Role::Targets, .. }), "{name}");
    }
    let mut repository = listing();
    repository.digits.delegations = Some(Delegations {
        keys: key_table([public(5)]),
        roles: vec![delegated("digits", &[5], &["models/digits/*"], false)],
        succinct_roles: None,
        other: Map::new(),
    });
    let refused = Kept::shipped(&repository).pull(&repository, NOW, "models/digits/none").1;
    assert_eq!(refused, Err(TrustError::UnknownTarget { path: "models/digits/none".into() }));
}

#[test]
fn the_fleets_keys_come_from_targets_and_only_with_a_threshold_of_one() {
    let mut repository = listing();
    for threshold in [1, 2] {
        repository.targets.delegations.as_mut().expect("some").roles[0].threshold = some(threshold);
        let mut kept = Kept::shipped(&repository);
        let mut session = Session::begin(&kept.0[&Role::Root], NOW, Limits::DEVICE).expect("trusted");
        kept.drive(&mut session, &repository.files(), &mut Vec::new()).expect("is current");
        let expected = if threshold == 1 { vec![PublicKey::of(&key(6))] } else { Vec::new() };
        assert_eq!(session.delegated_keys("fleet"), expected);
        assert_eq!(session.delegated_keys("nobody"), []);
    }
}

#[test]
fn questions_out_of_turn_are_refused() {
    let repository = listing();
    let mut session = Session::begin(&repository.roots[&1], NOW, Limits::DEVICE).expect("trusted");
    assert_eq!(session.local(None), Err(TrustError::OutOfTurn));
    assert_eq!(session.find(PATH), Err(TrustError::OutOfTurn));
    assert_eq!(session.found(), Err(TrustError::OutOfTurn));
}

proptest! {
    #[test]
    fn any_bytes_in_place_of_any_file_are_refused_and_never_kept(which in 0..5_usize, bytes: Vec<u8>) {
        let mut repository = listing();
        let name = ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json", "1.digits.json"][which];
        repository.bent.insert(name.into(), Some(bytes.clone()));
        let mut kept = Kept::shipped(&repository);
        prop_assert!(kept.pull(&repository, NOW, PATH).1.is_err());
        prop_assert!(kept.0.values().all(|file| *file != bytes));
    }

    #[test]
    fn one_changed_byte_anywhere_in_signed_content_is_refused(which in 0..4_usize, at: prop::sample::Index, bit in 0..7_u8) {
        let mut repository = listing();
        repository.hashes = false;
        let name = ["timestamp.json", "1.snapshot.json", "1.targets.json", "1.digits.json"][which];
        let mut bytes = repository.files()[name].clone();
        // The signed content is the second member; what precedes it are signatures.
        let start = bytes.windows(8).position(|window| window == b"\"signed\"").expect("is there") + 9;
        let position = start + at.index(bytes.len() - start - 1);
        bytes[position] ^= 1 << bit;
        repository.bent.insert(name.into(), Some(bytes));
        prop_assert!(Kept::shipped(&repository).pull(&repository, NOW, PATH).1.is_err());
    }
}
