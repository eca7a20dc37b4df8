//! Who signed: strangers, other roles, too few, one twice, keys taken back.

use anyhow::Result;
use serin_protocol::trust::forge::{Repository, public};
use serin_protocol::trust::signed::{key_table, role_keys};
use serin_tests::adversary::Adversary;

#[test]
fn arbitrary_software_of_a_stranger_is_refused() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let second = adversary.v2.clone();
    adversary.repository.signers.insert("digits", vec![99]);
    adversary.release(&second)?;
    adversary.refuses_v2(&["arbitrary content: digits carries 0 valid signatures of 1"])
}

#[test]
fn software_that_nobody_lists_is_refused() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let second = adversary.v2.clone();
    adversary.hand_out(&second)?;
    adversary.refuses_v2(&["no trusted role lists the target models/digits/2.0.0.release"])
}

#[test]
fn a_key_of_another_role_does_not_release() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let second = adversary.v2.clone();
    adversary.repository.signers.insert("digits", vec![6]);
    adversary.release(&second)?;
    adversary.refuses_v2(&["wrong role: digits"])
}

#[test]
fn below_the_threshold_and_one_key_many_times_do_not_count() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let repository = &mut adversary.repository;
    let delegations = repository.targets.delegations.as_mut().expect("delegates");
    delegations.keys.extend(key_table([public(7)]));
    // The owner's key under a second name.
    delegations.keys.insert("another".into(), public(5));
    let digits = delegations.roles.iter_mut().find(|role| role.name == "digits").expect("delegated");
    digits.keyids = vec![public(5).name(), public(7).name(), "another".into()];
    digits.threshold = std::num::NonZeroU32::new(2).expect("two");
    repository.targets.version = repository.targets.version.next().expect("more");
    let second = adversary.v2.clone();
    adversary.release(&second)?;
    adversary.refuses_v2(&["arbitrary content: digits carries 1 valid signatures of 2"])?;

    // The only signature twice, once under the second name.
    adversary.repository.release();
    let role = serin_protocol::trust::Role::named("digits");
    let signed = adversary.repository.signed(&role, &adversary.repository.digits);
    let mut doubled: serde_json::Value = serde_json::from_slice(&signed)?;
    let mut again = doubled["signatures"][0].clone();
    again["keyid"] = "another".into();
    doubled["signatures"].as_array_mut().expect("a list").push(again);
    let name = format!("{}.digits.json", adversary.repository.digits.version);
    adversary.repository.hashes = false;
    adversary.repository.bent.insert(name, Some(serde_json::to_vec(&doubled)?));
    adversary.publish()?;
    adversary.refuses_v2(&["arbitrary content: digits carries 1 valid signatures of 2"])?;

    // And once more under its own.
    let mut twice: serde_json::Value = serde_json::from_slice(&signed)?;
    let again = twice["signatures"][0].clone();
    twice["signatures"].as_array_mut().expect("a list").push(again);
    let name = format!("{}.digits.json", adversary.repository.digits.version);
    adversary.repository.bent.insert(name, Some(serde_json::to_vec(&twice)?));
    adversary.publish()?;
    adversary.refuses_v2(&["malformed digits: a key signs twice"])?;

    adversary.repository.bent.clear();
    adversary.repository.signers.insert("digits", vec![5, 7]);
    adversary.repository.release();
    adversary.publish()?;
    adversary.accepts_v2()
}

#[test]
fn a_new_root_is_signed_by_the_old_keys_and_by_the_new_ones_or_refused() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let honest = adversary.repository.clone();
    for (signers, named) in [
        (vec![50], "arbitrary content: root carries 0 valid signatures of 1"),
        (vec![1], "wrong role: root is signed by key"),
    ] {
        adversary.repository = honest.clone();
        adversary.repository.root_signers = signers;
        hand_root_over(&mut adversary.repository);
        adversary.forget_heard();
        adversary.publish()?;
        adversary.until_told(&["refused", "metadata", named])?;
        adversary.still_runs_v1()?;
    }
    assert!(!adversary.device.folder.join("trust/roots/2.json").exists());
    adversary.repository = honest;
    adversary.repository.root_signers = vec![1, 50];
    hand_root_over(&mut adversary.repository);
    let second = adversary.v2.clone();
    adversary.release(&second)?;
    adversary.accepts_v2()?;
    let kept = std::fs::read(adversary.device.folder.join("trust/roots/2.json"))?;
    assert_eq!(kept, adversary.repository.roots[&2]);
    Ok(())
}

/// The next root gives the role of the root to another key.
fn hand_root_over(repository: &mut Repository) {
    repository.next_root(|root| {
        root.keys.extend(key_table([public(50)]));
        root.roles.root = role_keys([public(50).name()], std::num::NonZeroU32::MIN);
    });
}

#[test]
fn a_chain_of_thirty_roots_is_followed_link_by_link() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    for step in 0..30_u8 {
        let (old, fresh) = (if step == 0 { 1 } else { 100 + step - 1 }, 100 + step);
        adversary.repository.root_signers = vec![old, fresh];
        adversary.repository.next_root(|root| {
            root.keys.extend(key_table([public(fresh)]));
            root.roles.root = role_keys([public(fresh).name()], std::num::NonZeroU32::MIN);
        });
    }
    let second = adversary.v2.clone();
    adversary.release(&second)?;
    adversary.accepts_v2()?;
    let kept = std::fs::read(adversary.device.folder.join("trust/roots/31.json"))?;
    assert_eq!(kept, adversary.repository.roots[&31]);
    Ok(())
}

#[test]
fn a_key_that_was_taken_back_releases_and_assigns_nothing() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let delegations = adversary.repository.targets.delegations.as_mut().expect("delegates");
    delegations.keys = key_table([8, 9].map(public));
    for role in &mut delegations.roles {
        role.keyids = vec![public(if role.name == "fleet" { 9 } else { 8 }).name()];
    }
    let mut ours = adversary.repository.targets.version;
    ours = ours.next().expect("more");
    adversary.repository.targets.version = ours;
    adversary.repository.signers.insert("digits", vec![8]);
    adversary.repository.release();
    adversary.publish()?;

    // Listed by the owner's new key, assigned by the fleet's old one.
    let second = adversary.v2.clone();
    adversary.release(&second)?;
    adversary.until_trusts(ours)?;
    adversary.assign(&second)?;
    adversary.assign_as(9);
    adversary.until_told(&["refused", "assignment", "unknown key"])?;
    adversary.still_runs_v1()?;

    // Assigned by the fleet's new key, listed by the owner's old one.
    adversary.repository.signers.insert("digits", vec![5]);
    adversary.repository.release();
    adversary.publish()?;
    adversary.refuses_v2(&["arbitrary content: digits carries 0 valid signatures of 1"])
}
