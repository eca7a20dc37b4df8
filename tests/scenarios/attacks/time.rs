//! Time: metadata that is not renewed, and devices whose clock is wrong.

use anyhow::Result;
use serin_tests::adversary::{Adversary, seconds};

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
