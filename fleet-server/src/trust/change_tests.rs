//! A publisher's year: begin, delegate, release, rotate; and what is refused on the way.

use ed25519_dalek::SigningKey;
use serin_protocol::envelope::PublicKey;
use serin_protocol::trust::{Metadata, Serial};

use super::*;
use crate::trust::folder::Standing;

const EXPIRY: Expiry = Expiry { now: UtcSeconds(1_790_000_000), days: None };

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(seed: u8) -> Key {
    Key::ed25519(&PublicKey::of(&key(seed)))
}

fn keys(seeds: &[u8], threshold: u32) -> Keys {
    let threshold = NonZeroU32::new(threshold).expect("not zero");
    Keys { keys: seeds.iter().map(|seed| public(*seed)).collect(), threshold }
}

fn online() -> Online {
    let name = |seed| vec![public(seed).name()];
    Online {
        keys: key_table([20, 21, 22].map(public)),
        snapshot: name(20),
        timestamp: name(21),
        fleet: name(22),
    }
}

fn id(version: &str) -> ReleaseId {
    ReleaseId { model: "digits".parse().expect("name"), version: version.parse().expect("name") }
}

/// Root 2 of {1, 2, 3}, targets {4}, owner of digits 2 of {5, 6}, all signed.
fn begun() -> (tempfile::TempDir, TrustFolder) {
    let home = tempfile::tempdir().expect("a folder");
    let folder = TrustFolder::at(home.path());
    folder.begin(&keys(&[1, 2, 3], 2), &keys(&[4], 1), &online(), EXPIRY).expect("begins");
    let waiting = folder.sign(&Role::Root, &key(1)).expect("signs");
    assert_eq!(waiting, Standing::Waiting { valid: 1, threshold: 2 });
    complete(folder.sign(&Role::Root, &key(3)));
    complete(folder.sign(&Role::Targets, &key(4)));
    folder.delegate(&id("1").model, &keys(&[5, 6], 2), EXPIRY).expect("delegates");
    complete(folder.sign(&Role::Targets, &key(4)));
    assert!(matches!(folder.sign(&owner_role(), &key(5)), Ok(Standing::Waiting { .. })));
    complete(folder.sign(&owner_role(), &key(6)));
    (home, folder)
}

fn owner_role() -> Role {
    Role::named("digits")
}

fn complete(standing: Result<Standing, FolderError>) {
    let standing = standing.expect("is taken");
    assert!(matches!(standing, Standing::Complete(_)), "{standing:?}");
}

fn release(folder: &TrustFolder, version: &str) -> Result<Role, FolderError> {
    folder.add_release(&id(version), version.as_bytes(), TargetFile::of(b"bundle"), EXPIRY)
}

#[test]
fn nothing_is_complete_below_the_threshold_or_with_one_key_twice() {
    let (_home, folder) = begun();
    let role = release(&folder, "1").expect("stages");
    for _ in 0..2 {
        let again = folder.sign(&role, &key(5)).expect("signs");
        assert_eq!(again, Standing::Waiting { valid: 1, threshold: 2 });
    }
    assert!(matches!(folder.sign(&role, &key(4)), Err(FolderError::ForeignKey { .. })));
    assert!(matches!(release(&folder, "2"), Err(FolderError::Unfinished(_))));
    complete(folder.sign(&role, &key(6)));
    assert_eq!(
        folder.files().expect("lists"),
        ["1.root.json", "1.digits.json", "2.digits.json", "1.targets.json", "2.targets.json"]
    );
}

#[test]
fn partial_signatures_made_on_two_machines_are_merged() {
    let (_home, folder) = begun();
    let role = release(&folder, "1").expect("stages");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let carried = elsewhere.path().join("digits.json");
    let mut theirs: Metadata<Targets> = folder.draft(&role).expect("reads").expect("waits");
    theirs.sign(&role, &key(6)).expect("signs");
    std::fs::write(&carried, theirs.to_bytes()).expect("writes");
    folder.sign(&role, &key(5)).expect("signs");

    let mut other = theirs.signed.clone();
    other.targets.clear();
    let mut other = Metadata::unsigned(&role, other).expect("serializes");
    other.sign(&role, &key(6)).expect("signs");
    let forged = elsewhere.path().join("other.json");
    std::fs::write(&forged, other.to_bytes()).expect("writes");
    assert!(matches!(folder.merge(&role, &forged), Err(FolderError::OtherDraft { .. })));

    complete(folder.merge(&role, &carried));
    // The old draft again: it is not the next version any more.
    assert!(matches!(folder.merge(&role, &carried), Err(FolderError::Invalid(_))));
}

#[test]
fn a_new_root_needs_the_old_keys_and_the_new_ones() {
    let (_home, folder) = begun();
    let rotation =
        Rotation { add: vec![public(7)], remove: vec![public(3).name()], threshold: NonZeroU32::new(2) };
    folder.rotate(&Role::Root, &rotation, EXPIRY).expect("stages");
    assert!(matches!(folder.sign(&Role::Root, &key(7)), Ok(Standing::Waiting { .. })));
    assert!(matches!(folder.sign(&Role::Root, &key(3)), Ok(Standing::Waiting { .. })));
    complete(folder.sign(&Role::Root, &key(1)));
    let root: Metadata<Root> = folder.newest(&Role::Root).expect("there");
    assert_eq!(root.signed.version, MetadataVersion::FIRST.next().expect("more"));
    assert!(!root.signed.keys.contains_key(&public(3).name()), "a key that signs nothing is not kept");
}

#[test]
fn a_role_is_never_left_with_fewer_keys_than_must_sign() {
    let (_home, folder) = begun();
    let remove = Rotation { remove: vec![public(5).name()], ..Rotation::default() };
    let refused = folder.rotate(&owner_role(), &remove, EXPIRY);
    assert!(matches!(refused, Err(FolderError::Invalid(_))), "{refused:?}");
    let stranger = Rotation { remove: vec![public(9).name()], ..Rotation::default() };
    assert!(matches!(folder.rotate(&Role::Targets, &stranger, EXPIRY), Err(FolderError::Invalid(_))));
    assert!(folder.drafts().expect("lists").is_empty());
}

#[test]
fn a_published_version_cannot_be_given_other_contents() {
    let (_home, folder) = begun();
    let role = release(&folder, "1").expect("stages");
    folder.sign(&role, &key(5)).expect("signs");
    complete(folder.sign(&role, &key(6)));
    let again = folder.add_release(&id("1"), b"other", TargetFile::of(b"bundle"), EXPIRY);
    assert!(matches!(again, Err(FolderError::Invalid(_))), "{again:?}");
    assert!(matches!(folder.set_floor(&id("2"), EXPIRY), Err(FolderError::Invalid(_))));
    folder.set_floor(&id("1"), EXPIRY).expect("stages");
    let draft: Metadata<Targets> = folder.draft(&role).expect("reads").expect("waits");
    assert_eq!(draft.signed.floor.get("digits"), Some(&Serial(1)));
    folder.sign(&role, &key(5)).expect("signs");
    complete(folder.sign(&role, &key(6)));
    release(&folder, "0.9").expect("stages");
    let draft: Metadata<Targets> = folder.draft(&role).expect("reads").expect("waits");
    let serial = |version| draft.signed.targets.get(&statement_path(&id(version))).map(TargetFile::serial);
    assert_eq!(
        (serial("1"), serial("0.9")),
        (Some(Serial(1)), Some(Serial(2))),
        "in the order they were made"
    );
}

#[test]
fn models_named_like_a_role_have_no_owner() {
    let (_home, folder) = begun();
    for name in ["root", "targets", "snapshot", "timestamp", "fleet"] {
        let refused = folder.delegate(&name.parse().expect("name"), &keys(&[5], 1), EXPIRY);
        assert!(matches!(refused, Err(FolderError::Invalid(_))), "{name}");
    }
    let again = folder.begin(&keys(&[1], 1), &keys(&[4], 1), &online(), EXPIRY);
    assert!(matches!(again, Err(FolderError::Exists(_))));
}

#[test]
fn an_owner_who_comes_back_goes_on_from_the_old_version() {
    let (_home, folder) = begun();
    folder.undelegate(&id("1").model, EXPIRY).expect("stages");
    complete(folder.sign(&Role::Targets, &key(4)));
    assert!(matches!(folder.sign(&owner_role(), &key(5)), Err(FolderError::NoDraft(_))));
    folder.delegate(&id("1").model, &keys(&[8], 1), EXPIRY).expect("stages");
    complete(folder.sign(&Role::Targets, &key(4)));
    complete(folder.sign(&owner_role(), &key(8)));
    let names = folder.files().expect("lists");
    assert!(names.contains(&"2.digits.json".to_owned()), "{names:?}");
}

#[test]
fn whoever_loses_a_key_signs_anew_with_the_ones_left() {
    let (_home, folder) = begun();
    let rotate = |role: &Role, add: u8, remove: u8| {
        let rotation =
            Rotation { add: vec![public(add)], remove: vec![public(remove).name()], threshold: None };
        folder.rotate(role, &rotation, EXPIRY).expect("stages");
    };
    rotate(&Role::Targets, 7, 4);
    assert_eq!(folder.drafts().expect("lists"), [Role::Root, Role::Targets]);
    // The new key counts before the root is complete, the old one no longer.
    assert!(matches!(folder.sign(&Role::Targets, &key(4)), Err(FolderError::ForeignKey { .. })));
    complete(folder.sign(&Role::Targets, &key(7)));
    for seed in 1..=3 {
        if matches!(folder.sign(&Role::Root, &key(seed)), Ok(Standing::Complete(_))) {
            break;
        }
    }
    assert!(folder.drafts().expect("lists").is_empty(), "the root is complete");

    rotate(&owner_role(), 8, 5);
    assert_eq!(folder.drafts().expect("lists"), [Role::Targets, owner_role()]);
    complete(folder.sign(&Role::Targets, &key(7)));
    folder.sign(&owner_role(), &key(6)).expect("signs");
    complete(folder.sign(&owner_role(), &key(8)));
    // Whoever only gains a key has nothing to sign anew.
    let gain = Rotation { add: vec![public(9)], ..Rotation::default() };
    folder.rotate(&owner_role(), &gain, EXPIRY).expect("stages");
    assert_eq!(folder.drafts().expect("lists"), [Role::Targets]);
}

#[test]
fn a_bad_signature_gives_way_to_a_good_one() {
    let (home, folder) = begun();
    let role = release(&folder, "1").expect("stages");
    let carried = home.path().join("carried.json");
    let mut good: Metadata<Targets> = folder.draft(&role).expect("reads").expect("waits");
    good.sign(&role, &key(6)).expect("signs");
    let mut bad = good.clone();
    bad.signatures[0].sig = "00".repeat(64);
    for (file, valid) in [(&bad, 0), (&good, 1), (&bad, 1)] {
        std::fs::write(&carried, file.to_bytes()).expect("writes");
        let standing = folder.merge(&role, &carried).expect("merges");
        assert_eq!(standing, Standing::Waiting { valid, threshold: 2 });
    }
    complete(folder.sign(&role, &key(5)));
}

#[test]
fn a_draft_that_skips_a_version_is_not_signed() {
    let (_home, folder) = begun();
    let role = release(&folder, "1").expect("stages");
    let mut draft = folder.draft::<Targets>(&role).expect("reads").expect("waits").signed;
    draft.version = MetadataVersion(std::num::NonZeroU64::MAX);
    let forged = Metadata::unsigned(&role, draft).expect("serializes");
    std::fs::write(folder.draft_path(&role), forged.to_bytes()).expect("writes");
    let refused = folder.sign(&role, &key(5));
    assert!(matches!(refused, Err(FolderError::Invalid(_))), "{refused:?}");
}

#[test]
fn whoever_signs_is_shown_what_changes() {
    let (_home, folder) = begun();
    let role = release(&folder, "1").expect("stages");
    let changes = folder.changes(&role).expect("waits");
    let has = |changes: &[String], words: &str| changes.iter().any(|line| line.contains(words));
    assert!(
        has(&changes, "~ version 1, now 2") && has(&changes, "+ lists models/digits/1.release"),
        "{changes:?}"
    );
    folder.sign(&role, &key(5)).expect("signs");
    complete(folder.sign(&role, &key(6)));
    folder.set_floor(&id("1"), EXPIRY).expect("stages");
    let changes = folder.changes(&role).expect("waits");
    assert!(has(&changes, "+ forbids what is older than digits: number 1"), "{changes:?}");
    assert!(!has(&changes, "lists"), "{changes:?}");
    let rotation = Rotation { add: vec![public(7)], remove: vec![public(3).name()], threshold: None };
    folder.rotate(&Role::Root, &rotation, EXPIRY).expect("stages");
    let changes = folder.changes(&Role::Root).expect("waits");
    assert!(has(&changes, &format!("~ signs for root: 2 of {}", public(1).name())), "{changes:?}");
    assert!(!has(&changes, "fields change") && !has(&changes, "signs for targets"), "{changes:?}");
    assert!(matches!(folder.changes(&Role::Targets), Err(FolderError::NoDraft(_))));
}
