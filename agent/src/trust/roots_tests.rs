//! The chain of roots on disk: what is in its way, what damages it, where it ends.

use super::tests::{Device, at, listing, next_root, target};
use super::*;
use crate::disk::seam::Files;
use crate::trust::store::MAX_ROOTS;
use serin_protocol::trust::TargetFile;
use serin_protocol::trust::forge::{Repository, delegated, meta};

#[test]
fn damaged_roots_are_fetched_anew_and_nobody_is_trusted_below_them() {
    let mut repository = listing();
    next_root(&mut repository, 7);
    next_root(&mut repository, 8);
    let mut device = Device::new(&repository);
    device.connect(&repository, 0);
    let floor = device.floor.expect("told");
    assert_eq!(floor.version.0.get(), 3);
    assert!(device.recovered, "the timestamp's key was taken back");

    let kept = device.home.path().join("trust/roots/2.json");
    std::fs::write(&kept, b"damaged").expect("writes");
    // A broker that shows an old repository to whom it believes to have forgotten.
    let mut old = listing();
    old.roots.insert(2, repository.roots[&2].clone());
    device.client = Device::client_above(device.home.path(), Some(floor));
    let mut said = device.connect(&old, 1);
    said.extend(device.wait(&old, 1, 40));
    let [Effect::Refuse(why)] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(why.as_str(), "rollback: root version 2 is offered, version 3 is trusted already");
    assert!(device.client.fleet_keys(at(40).wall).is_none());

    let said = device.wait(&repository, 40, 400);
    assert_eq!(said, [Effect::Refreshed { keys_changed: true }]);
    assert_eq!(std::fs::read(&kept).expect("mended"), repository.roots[&2]);
    // Another configured root is another chain.
    let other = RootFloor { configured: Digest::of(b"another"), ..floor };
    let fresh = Device::new(&repository);
    let client = Device::client_above(fresh.home.path(), Some(other));
    assert_eq!(client.store.root_floor().version.0.get(), 1);
}

#[test]
fn a_delegate_with_the_name_of_a_root_overwrites_none() {
    let mut repository = listing();
    next_root(&mut repository, 7);
    let mut device = Device::new(&repository);
    let delegations = repository.targets.delegations.as_mut().expect("delegates");
    delegations.roles.insert(0, delegated("2.root", &[5], &["models/digits/*"], false));
    repository.snapshot.meta.insert("2.root.json".into(), meta(1));
    let role = Role::Delegated("2.root".into());
    repository.signers.insert("2.root", vec![5]);
    let mut files = repository.files();
    files.insert("1.2.root.json".into(), {
        let nothing = serin_protocol::trust::forge::targets_of(repository.root.expires, [].into(), None);
        repository.signed(&role, &nothing)
    });
    let effects = device.client.connected(at(0));
    device.serve(&files, at(0), effects);
    let effects = device.client.search(at(0), target());
    let said = device.serve(&files, at(0), effects);
    assert!(said.contains(&Effect::Listed(target())), "{said:?}");
    assert!(device.home.path().join("trust/roles/2.root.json").exists(), "it was read and kept");
    let reopened = Device::client(device.home.path());
    assert_eq!(reopened.store.root(), repository.roots[&2]);
}

#[test]
fn what_an_older_agent_kept_in_one_folder_is_moved() {
    let mut repository = listing();
    next_root(&mut repository, 7);
    let mut device = Device::new(&repository);
    device.connect(&repository, 0);
    device.search(&repository, 0);
    let trust = device.home.path().join("trust");
    let back = |from: &str, to: &str| std::fs::rename(trust.join(from), trust.join(to)).expect("moves");
    back("roots/2.json", "2.root.json");
    for role in ["timestamp", "snapshot", "targets", "digits"] {
        back(&format!("roles/{role}.json"), &format!("{role}.json"));
    }
    std::fs::write(trust.join("timestamp.new"), b"cut off").expect("writes");
    device.client = Device::client(device.home.path());
    device.asked.clear();
    device.connect(&repository, 1);
    device.search(&repository, 1);
    assert_eq!(device.asked, ["3.root.json", "timestamp.json"], "nothing is asked for anew");
    let left = std::fs::read_dir(&trust).expect("is there").map(|entry| entry.expect("reads").file_name());
    let mut left: Vec<_> = left.collect();
    left.sort();
    assert_eq!(left, ["roles", "roots"]);
}

#[test]
fn a_chain_of_roots_ends_at_1024_however_many_refreshes_bring_it() {
    let home = tempfile::tempdir().expect("a folder");
    let mut repository = Repository::at(utc(at(0).wall));
    let anchor = home.path().join("anchor.json");
    std::fs::write(&anchor, &repository.roots[&1]).expect("writes");
    let open = || TrustStore::open(Files::real(), home.path(), &anchor, None).expect("opens");
    let mut store = open();
    for _ in 0..MAX_ROOTS {
        repository.next_root(|_| ());
        let (version, bytes) = repository.roots.pop_last().expect("made");
        store.keep(&Role::Root, &bytes).expect("within the bound");
        assert_eq!(store.root_floor().version.0.get(), version);
    }
    repository.next_root(|_| ());
    let (_, bytes) = repository.roots.pop_last().expect("made");
    let refused = store.keep(&Role::Root, &bytes).expect_err("beyond it").to_string();
    assert!(refused.contains("more than 1024 roots") && refused.contains("trust.root"), "{refused}");
    assert_eq!(open().root_floor().version.0.get(), MAX_ROOTS + 1);
    // An installer's newer root begins anew.
    std::fs::write(&anchor, &bytes).expect("writes");
    let mut store = open();
    assert_eq!(std::fs::read_dir(home.path().join("trust/roots")).expect("is there").count(), 0);
    repository.next_root(|_| ());
    let (_, bytes) = repository.roots.pop_last().expect("made");
    store.keep(&Role::Root, &bytes).expect("a new beginning");
}

#[test]
fn an_order_from_beyond_the_metadata_that_names_its_signer_is_refused() {
    let repository = listing();
    let mut device = Device::new(&repository);
    device.connect(&repository, 0);
    assert_eq!(device.client.check_issued(at(86_399).wall), Ok(()));
    for beyond in [at(86_400).wall, UnixMillis(u64::MAX)] {
        let refused = device.client.check_issued(beyond).expect_err("beyond");
        assert!(refused.as_str().contains("the metadata it rests on ends at"), "{refused}");
    }
}

#[test]
fn what_is_kept_says_which_releases_lie_below_their_owners_floor() {
    use serin_protocol::trust::metadata::Serial;
    let mut repository = listing();
    let second = TargetFile::of(b"second").with_serial(Serial(2));
    repository.digits.targets.insert("models/digits/2.release".into(), second);
    repository.digits.floor = [("digits".into(), Serial(2))].into();
    let mut device = Device::new(&repository);
    device.connect(&repository, 0);
    assert_eq!(device.client.below_floor(&target().id), None, "the owner's metadata was not read yet");
    device.search(&repository, 0);
    let client = Device::client_above(device.home.path(), device.floor);
    let why = client.below_floor(&target().id).expect("below");
    assert!(why.as_str().contains("number 1 of its owner's releases, below the floor 2"), "{why}");
    assert_eq!(client.below_floor(&"digits@2".parse().expect("name")), None);
    assert_eq!(client.below_floor(&"digits@3".parse().expect("name")), None);
}
