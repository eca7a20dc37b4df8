//! Metadata that is genuine and out of place: older, from the future, mixed, withheld, endless, oddly named.

use anyhow::Result;
use serin_protocol::trust::forge::{Repository, delegated, meta, public, targets_of, version};
use serin_protocol::trust::metadata::{Role, TargetFile};
use serin_protocol::trust::signed::{key_table, role_keys};
use serin_tests::adversary::{Adversary, seconds};
use serin_tests::lab::PATIENCE;

#[test]
fn an_older_root_is_refused_also_by_a_device_whose_newer_one_is_damaged() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let old = adversary.repository.files();
    adversary.repository.next_root(|_| ());
    adversary.repository.next_root(|_| ());
    adversary.repository.release();
    adversary.publish()?;
    let roots = adversary.device.folder.join("trust/roots");
    serin_tests::until("the device trusts the third root", PATIENCE, || {
        roots.join("3.json").exists().then_some(())
    })?;

    // A genuine root in the place of a newer one.
    let second = adversary.repository.roots[&2].clone();
    adversary.say_file("4.root.json", &second)?;
    adversary
        .until_told(&["refused", "rollback: root version 2 is offered, version 3 is trusted already"])?;
    adversary.say_file("4.root.json", b"")?;

    // The disk loses a root, and the broker shows what there was before it.
    adversary.device.power_off();
    std::fs::write(roots.join("2.json"), b"damaged")?;
    adversary.say_file("2.root.json", b"")?;
    adversary.say_files(&old)?;
    adversary.forget_heard();
    adversary.device.power_on()?;
    adversary
        .until_told(&["refused", "rollback: root version 1 is offered, version 3 is trusted already"])?;
    adversary.still_runs_v1()?;
    let second = adversary.v2.clone();
    adversary.release(&second)?;
    adversary.accepts_v2()?;
    assert_eq!(std::fs::read(roots.join("2.json"))?, adversary.repository.roots[&2]);
    Ok(())
}

#[test]
fn a_delegate_with_the_name_of_a_root_does_not_take_its_place() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    adversary.repository.next_root(|_| ());
    let repository = &mut adversary.repository;
    let delegations = repository.targets.delegations.as_mut().expect("delegates");
    delegations.roles.insert(0, delegated("2.root", &[5], &["models/digits/*"], false));
    repository.targets.version = repository.targets.version.next().expect("more");
    repository.snapshot.meta.insert("2.root.json".into(), meta(1));
    repository.signers.insert("2.root", vec![5]);
    let nothing = targets_of(repository.root.expires, std::collections::BTreeMap::new(), None);
    let theirs = repository.signed(&Role::named("2.root"), &nothing);
    adversary.say_file("1.2.root.json", &theirs)?;
    let second = adversary.v2.clone();
    adversary.release(&second)?;
    adversary.accepts_v2()?;
    let trust = adversary.device.folder.join("trust");
    assert_eq!(std::fs::read(trust.join("roles/2.root.json"))?, theirs);
    assert_eq!(std::fs::read(trust.join("roots/2.json"))?, adversary.repository.roots[&2]);
    // After a restart the chain goes as far as before.
    adversary.device.power_off();
    adversary.device.power_on()?;
    assert!(!adversary.device.said().contains("a kept root is not what it was"));
    Ok(())
}

type Change = fn(&mut Repository, &Repository);

#[test]
fn older_metadata_is_refused_role_by_role_and_after_a_restart() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let older = adversary.repository.clone();
    let repository = &mut adversary.repository;
    for _ in 0..5 {
        repository.release();
    }
    repository.targets.version = version(5);
    adversary.publish()?;
    adversary.until_trusts(version(5))?;
    let newest = adversary.repository.clone();

    let attacks: [(u64, &str, Change); 4] = [
        (0, "rollback: timestamp version", |repository, older| {
            repository.timestamp = older.timestamp.clone();
        }),
        (1, "rollback: snapshot version", |repository, older| {
            repository.snapshot.version = older.snapshot.version;
        }),
        (2, "rollback: targets version", |repository, older| repository.targets = older.targets.clone()),
        (3, "rollback: digits version", |repository, older| repository.digits = older.digits.clone()),
    ];
    for (number, named, change) in attacks {
        adversary.repository = newest.clone();
        adversary.repository.timestamp.version = version(100 + number);
        adversary.repository.snapshot.version = version(100 + number);
        change(&mut adversary.repository, &older);
        adversary.device.power_off();
        adversary.forget_heard();
        adversary.device.power_on()?;
        adversary.publish()?;
        adversary.until_told(&["refused", "metadata", named])?;
        adversary.still_runs_v1()?;
    }
    // What was refused left no trace: the honest repository is taken as before.
    adversary.repository = newest;
    adversary.repository.timestamp.version = version(200);
    adversary.repository.snapshot.version = version(200);
    let second = adversary.v2.clone();
    adversary.release(&second)?;
    adversary.accepts_v2()
}

#[test]
fn a_fast_forward_ends_with_the_key_that_did_it() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let honest = adversary.repository.clone();
    adversary.repository.timestamp.version = version(1 << 40);
    adversary.repository.snapshot.version = version(1 << 40);
    adversary.publish()?;
    adversary.until_trusts(honest.targets.version)?;
    adversary.repository = honest;
    adversary.repository.release();
    adversary.publish()?;
    adversary.until_told(&["refused", "rollback: timestamp version"])?;
    adversary.still_runs_v1()?;

    for role in ["timestamp", "snapshot"] {
        adversary.repository.signers.insert(role, vec![40]);
    }
    adversary.repository.next_root(|root| {
        root.keys.extend(key_table([public(40)]));
        let fresh = role_keys([public(40).name()], std::num::NonZeroU32::MIN);
        (root.roles.timestamp, root.roles.snapshot) = (fresh.clone(), fresh);
    });
    let second = adversary.v2.clone();
    adversary.release(&second)?;
    adversary.accepts_v2()
}

#[test]
fn files_that_were_never_published_together_are_a_mix() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    // Two genuine files of one version; the snapshot is about the other.
    let mut other = adversary.repository.clone();
    other.release();
    let signed = other.signed(&Role::named("digits"), &other.digits);
    let second = adversary.v2.clone();
    adversary.release(&second)?;
    let name = format!("{}.digits.json", adversary.repository.digits.version);
    adversary.say_file(&name, &signed)?;
    adversary.refuses_v2(&["mix-and-match: digits is not what the signed snapshot says"])
}

#[test]
fn a_withheld_file_is_named() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let second = adversary.v2.clone();
    let name = format!("{}.digits.json", adversary.repository.digits.version.next().expect("more"));
    adversary.repository.bent.insert(name, None);
    adversary.release(&second)?;
    adversary.refuses_v2(&["withheld: the repository has no digits"])
}

#[test]
fn endless_metadata_is_cut_off() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let mut timestamp = adversary.repository.files()["timestamp.json"].clone();
    timestamp.resize(17 * 1024, b' ');
    adversary.say_file("timestamp.json", &timestamp)?;
    adversary.until_told(&["refused", "endless data: timestamp has more than the 16384 bytes"])?;
    adversary.say_file("timestamp.json", &vec![b' '; 125 * 1024])?;
    adversary.until_told(&["refused", "128000 bytes", "at most 122880"])?;
    adversary.still_runs_v1()?;
    adversary.publish()?;
    let second = adversary.v2.clone();
    adversary.release(&second)?;
    adversary.accepts_v2()
}

#[test]
fn names_are_no_way_out_of_the_folder() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let second = adversary.v2.clone();
    let honest = adversary.repository.clone();
    let evil = "../../evil";
    let repository = &mut adversary.repository;
    let delegations = repository.targets.delegations.as_mut().expect("delegates");
    delegations.roles.insert(0, delegated(evil, &[5], &["models/digits/*"], false));
    repository.targets.version = repository.targets.version.next().expect("more");
    let path = "models/digits/../../../evil";
    repository.digits.targets.insert(path.into(), TargetFile::of(b"evil"));
    repository.snapshot.meta.insert(format!("{evil}.json"), meta(1));
    adversary.release(&second)?;
    adversary.refuses_v2(&["path trick: the role ../../evil has no name that a file may have"])?;

    // A delegate that calls itself a role of the root's.
    // What a snapshot has listed it must go on listing.
    let listed = adversary.repository.snapshot.clone();
    adversary.repository = honest;
    let repository = &mut adversary.repository;
    repository.snapshot = listed;
    let delegations = repository.targets.delegations.as_mut().expect("delegates");
    delegations.roles.push(delegated("timestamp", &[5], &["models/digits/*"], false));
    repository.targets.version = version(9);
    for _ in 0..3 {
        repository.release();
    }
    adversary.publish()?;
    adversary.until_told(&["refused", "malformed targets", "delegates to the name"])?;
    adversary.still_runs_v1()?;
    let mut names = std::fs::read_dir(adversary.device.folder.join("trust/roles"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    assert_eq!(names, ["digits.json", "snapshot.json", "targets.json", "timestamp.json"]);
    Ok(())
}

#[test]
fn what_is_written_over_the_trusted_files_is_not_believed() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    adversary.device.stop();
    // A whole repository of the attacker's, consistent in itself.
    let mut theirs = Repository::at(seconds());
    theirs.root_signers = vec![99];
    theirs.next_root(|root| {
        root.keys = key_table([99, 98].map(public));
        let role = |seed: u8| role_keys([public(seed).name()], std::num::NonZeroU32::MIN);
        root.roles.root = role(99);
        (root.roles.timestamp, root.roles.snapshot, root.roles.targets) = (role(98), role(98), role(98));
    });
    for role in ["timestamp", "snapshot", "targets", "digits"] {
        theirs.signers.insert(role, vec![98]);
    }
    let trust = adversary.device.folder.join("trust");
    let files = theirs.files();
    for (kept, said) in [
        ("roots/2.json", "2.root.json"),
        ("roles/timestamp.json", "timestamp.json"),
        ("roles/snapshot.json", "1.snapshot.json"),
        ("roles/targets.json", "1.targets.json"),
        ("roles/digits.json", "1.digits.json"),
    ] {
        std::fs::write(trust.join(kept), &files[said])?;
    }
    adversary.device.power_on()?;
    adversary.still_runs_v1()?;
    let second = adversary.v2.clone();
    adversary.release(&second)?;
    adversary.accepts_v2()?;
    assert!(adversary.device.said().contains("a kept root is not what it was"));

    // Cut off in the middle, and emptied.
    adversary.device.stop();
    for (name, kept) in [("roles/timestamp.json", 100), ("roles/targets.json", 0)] {
        let bytes = std::fs::read(trust.join(name))?;
        std::fs::write(trust.join(name), &bytes[..kept])?;
    }
    adversary.device.power_on()?;
    let first = adversary.v1.clone();
    adversary.assign(&first)?;
    adversary.until_runs("1.0.0")
}
