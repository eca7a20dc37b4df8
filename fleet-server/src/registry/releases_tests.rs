//! What a release must be to be believed.

use super::*;
use crate::registry::made;

/// What is said otherwise than it is.
type Change = fn(&mut Release);

/// As if an owner had listed whatever comes.
const ANY: &Listed = &|_, _| true;

fn store() -> (tempfile::TempDir, ObjectStore) {
    let folder = tempfile::tempdir().expect("folder");
    let store = ObjectStore::open(folder.path()).expect("opens");
    (folder, store)
}

/// What becomes of a release whose statement says what `change` makes of it.
fn checked_with(change: impl FnOnce(&mut Release)) -> Result<Checked, ReleaseError> {
    let (_folder, store) = store();
    let mut packed = made::pack("1", 100_000);
    store.put(packed.bundle.as_slice()).expect("stored");
    change(&mut packed.release);
    let statement = packed.release.to_bytes().expect("fits");
    check(&store, &statement, ANY)
}

#[test]
fn a_release_that_is_what_it_says_is_accepted_with_its_chunk_list() {
    let (_folder, store) = store();
    let packed = made::pack("1", 200_000);
    store.put(packed.bundle.as_slice()).expect("stored");
    let checked = check(&store, &packed.statement, ANY).expect("accepted");
    assert_eq!(checked.release, packed.release);
    assert_eq!(Profile::parse(&checked.profile), Ok(packed.profile));
    let list = store.chunk(&packed.release.chunk_list.digest, 0).expect("readable").expect("there");
    assert_eq!(list, made::chunk_list(&packed.bundle));
}

#[test]
fn what_no_owner_lists_is_refused_and_a_bundle_must_be_there() {
    let (_folder, store) = store();
    let packed = made::pack("1", 10);
    let expected = Digest::of(&packed.statement);
    let listed = move |id: &ReleaseId, digest: &Digest| id.to_string() == "digits@1" && *digest == expected;
    assert!(matches!(check(&store, &packed.statement, &listed), Err(ReleaseError::NoBundle(_))));
    let other = made::pack("1", 20);
    assert!(matches!(check(&store, &other.statement, &listed), Err(ReleaseError::NotListed(_))));
    let mut cut = packed.statement;
    cut.pop();
    assert!(matches!(check(&store, &cut, ANY), Err(ReleaseError::Statement(_))));
}

#[test]
fn a_statement_that_contradicts_its_bundle_is_refused_by_name() {
    assert!(checked_with(|_| {}).is_ok());
    let changes: [(&str, Change); 6] = [
        ("model and version", |release| release.id = "digits@2".parse().expect("id")),
        ("reference profile", |release| release.profile = Digest([9; 32])),
        ("runtime", |release| release.runtime = "other".parse().expect("fits")),
        ("memory limit", |release| release.memory = ByteCount(1)),
        ("bytes", |release| release.bundle.size = ByteCount(7)),
        ("list of chunks", |release| release.chunk_list.digest = Digest([9; 32])),
    ];
    for (name, change) in changes {
        let error = checked_with(change).expect_err(name).to_string();
        assert!(error.contains(name), "{name}: {error}");
    }
}

#[test]
fn a_bundle_that_unpacks_to_more_than_is_signed_is_cut_off() {
    // 100 MB of zeros in a few kilobytes, said to be a card of a few bytes.
    let (_folder, store) = store();
    let mut packed = made::pack("1", 10);
    let bomb = zstd::encode_all(io::repeat(0).take(100_000_000), 3).expect("compresses");
    let digest = store.put(bomb.as_slice()).expect("stored");
    packed.release.bundle = ObjectRef { digest, size: ByteCount(bomb.len() as u64) };
    let statement = packed.release.to_bytes().expect("fits");
    let refused = check(&store, &statement, ANY);
    assert!(matches!(refused, Err(ReleaseError::Container(_))), "{refused:?}");
}

#[test]
fn a_bundle_cut_off_or_changed_anywhere_is_refused() {
    let packed = made::pack("1", 3000);
    for at in (0..packed.bundle.len()).step_by(97) {
        let (_folder, store) = store();
        let mut changed = packed.bundle.clone();
        changed[at] ^= 1;
        for bundle in [&packed.bundle[..at], &changed] {
            let Ok(digest) = store.put(bundle) else { continue };
            let mut release = packed.release.clone();
            release.bundle = ObjectRef { digest, size: ByteCount(bundle.len() as u64) };
            let statement = release.to_bytes().expect("fits");
            assert!(check(&store, &statement, ANY).is_err(), "at {at}");
        }
    }
}
