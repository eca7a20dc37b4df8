//! Time: metadata that is not renewed, and devices whose clock is wrong.

use anyhow::{Context as _, Result};
use serin_tests::adversary::{Adversary, seconds};
use serin_tests::device::Provision;
use serin_tests::lab::{ALL_AT_ONCE, Broker, Lab, PATIENCE};

#[test]
fn a_frozen_repository_is_noticed() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let second = adversary.v2.clone();
    adversary.repository.timestamp.expires = seconds().plus_days(-1);
    adversary.release(&second)?;
    adversary.refuses_v2(&["freeze: timestamp expired at"])?;
    adversary.repository.timestamp.expires = seconds().plus_days(1);
    adversary.repository.release();
    adversary.publish()?;
    adversary.accepts_v2()
}

#[test]
fn expired_snapshots_and_targets_freeze_nobody_unnoticed() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let second = adversary.v2.clone();
    let (past, future) = (seconds().plus_days(-1), seconds().plus_days(1));
    adversary.repository.snapshot.expires = past;
    adversary.release(&second)?;
    adversary.refuses_v2(&["freeze: snapshot expired at"])?;
    adversary.repository.snapshot.expires = future;
    let repository = &mut adversary.repository;
    repository.targets.expires = past;
    repository.targets.version = repository.targets.version.next().expect("more");
    repository.release();
    adversary.publish()?;
    adversary.refuses_v2(&["freeze: targets expired at"])?;
    let repository = &mut adversary.repository;
    repository.targets.expires = future;
    repository.targets.version = repository.targets.version.next().expect("more");
    repository.release();
    adversary.publish()?;
    adversary.accepts_v2()
}

#[test]
fn a_clock_in_1970_keeps_nobody_from_a_broker_with_tls() -> Result<()> {
    let mut lab = Lab::secure(Broker::Embedded)?;
    let certificates = lab.certificates.as_ref().context("it is a secure lab")?;
    certificates.issue("sleeper", &[])?;
    let clock = Some("@1970-01-02 00:00:00".to_owned());
    let provision = Provision { extra: certificates.lines("sleeper"), clock, ..lab.provision() };
    // It has never seen a signed time.
    lab.add_provisioned("sleeper", &provision)?;
    lab.first_release()?;
    assert_eq!(lab.running("1.0.0"), 1);
    // And after a power cut.
    lab.devices[0].power_off();
    lab.devices[0].power_on()?;
    lab.publish("digits/v2")?;
    let rollout = lab.server.roll_out("digits@2.0.0", ALL_AT_ONCE)?;
    lab.server.until_rollout_is(rollout, "completed", PATIENCE)?;
    assert_eq!(lab.running("2.0.0"), 1);
    Ok(())
}

#[test]
fn an_owner_who_does_not_renew_releases_nothing() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let second = adversary.v2.clone();
    adversary.repository.digits.expires = seconds().plus_days(-1);
    adversary.release(&second)?;
    adversary.refuses_v2(&["freeze: digits expired at"])
}

#[test]
fn a_clock_in_1970_does_not_thaw_what_has_expired() -> Result<()> {
    // The assignment's signed time is a floor for the clock.
    let mut adversary = Adversary::begin_with("", Some("@1970-01-02 00:00:00"))?;
    let second = adversary.v2.clone();
    adversary.repository.timestamp.expires = seconds().plus_days(-1);
    adversary.release(&second)?;
    adversary.refuses_v2(&["freeze: timestamp expired at"])?;
    // It survives a power cut.
    adversary.device.power_off();
    adversary.device.power_on()?;
    adversary.forget_heard();
    adversary.until_told(&["refused", "freeze: timestamp expired at"])
}

#[test]
fn a_clock_in_2100_stops_updates_and_nothing_else() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let second = adversary.v2.clone();
    adversary.device.stop();
    adversary.device.clock = Some("@2100-01-01 00:00:00".into());
    adversary.device.power_on()?;
    adversary.release(&second)?;
    adversary.assign(&second)?;
    adversary.until_told(&["refused", "freeze: root expired at"])?;
    adversary.still_runs_v1()?;
    // Somebody sets the clock.
    adversary.device.stop();
    adversary.device.clock = None;
    adversary.device.power_on()?;
    adversary.until_runs("2.0.0")
}
