//! Real rollouts on real agents that are killed at random moments, again and again: whatever the moment, the
//! agent comes back, runs a release that it verified, and the rollout comes to its end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serin_agent::link::backoff::Jitter;

use crate::device::Device;
use crate::lab::{ALL_AT_ONCE, Broker, Lab, PATIENCE};
use crate::traffic::rows;
use crate::until;

/// Devices that are killed.
const DEVICES: usize = 2;
/// Half of the kills come within this after a rollout began, to hit transfer, unpacking and proving: the update of
/// a fixture model comes to its probation within half a second.
const SOON: u64 = 600;
/// The others come within this: the probation, its end, and the quiet after it.
const LATE: u64 = 4000;
/// The agents must not take the kills for a crash loop of their own.
const NO_CRASH_LOOP: &str = "crash_loop = { restarts = 100, window = '1s' }";
/// The releases that are rolled out in turn. A device keeps two, so that each must be transferred anew.
const VERSIONS: [&str; 3] = ["1.0.0", "2.0.0", "3.0.0"];

/// What a kill loop saw.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Kills by the phase that the update was in, as `status` had it just before.
    pub kills: BTreeMap<String, u32>,
    /// Rollouts by their end.
    pub outcomes: BTreeMap<String, u32>,
    /// Slowest return from a kill to an answered inference.
    pub slowest: Duration,
}

/// Kills agents `kills` times while releases are rolled out to them, back and forth. The moments follow from
/// `seed` as far as the machine's speed lets them. An error is a device that did not survive, or a rollout
/// without an end.
pub fn run(kills: u32, seed: u64, progress: &mut dyn FnMut(&str)) -> Result<Report> {
    let mut jitter = Jitter::new(seed);
    let mut report = Report::default();
    let mut lab = Lab::new(Broker::Embedded)?;
    for number in 1..=DEVICES {
        lab.add_device(&format!("device-{number:02}"), NO_CRASH_LOOP)?;
    }
    lab.first_release()?;
    lab.publish("digits/v2")?;
    lab.publish("digits/v3")?;
    let mut rollout = begin(&lab)?;
    for kill in 1..=kills {
        if let Some(end) = ended(&lab, rollout)? {
            *report.outcomes.entry(end).or_default() += 1;
            rollout = begin(&lab)?;
        }
        let longest = if jitter.below(2) == 0 { SOON } else { LATE };
        std::thread::sleep(Duration::from_millis(jitter.below(longest)));
        let at = usize::try_from(jitter.below(DEVICES as u64))?;
        let device = lab.devices.get_mut(at).context("a device")?;
        let phase = device.status()?["phase"].as_str().unwrap_or("?").to_owned();
        device.power_off();
        let killed = Instant::now();
        let version = survived(device).with_context(|| format!("kill {kill}, in phase {phase}"))?;
        report.slowest = report.slowest.max(killed.elapsed());
        progress(&format!("kill {kill} of {kills}: {} in phase {phase}, runs {version}", device.name));
        *report.kills.entry(phase).or_default() += 1;
    }
    let end = until("the last rollout is decided", PATIENCE, || ended(&lab, rollout).ok().flatten())
        .with_context(|| {
            let phases =
                lab.devices.iter().map(|device| device.status().unwrap_or_default()["phase"].clone());
            let rollout = lab.server.rollout(rollout).unwrap_or_default();
            format!("phases {:?}, {rollout:#}", phases.collect::<Vec<_>>())
        })?;
    *report.outcomes.entry(end).or_default() += 1;
    for device in &lab.devices {
        whole(device)?;
    }
    Ok(report)
}

/// Rolls out the release that follows the one that most devices run.
fn begin(lab: &Lab) -> Result<u64> {
    let most = (0..VERSIONS.len()).max_by_key(|at| VERSIONS.get(*at).map(|version| lab.running(version)));
    let next = most.map_or(0, |most| (most + 1) % VERSIONS.len());
    let version = VERSIONS.get(next).context("a version")?;
    let plan = ALL_AT_ONCE.replace("duration = '1s'", "duration = '2s'");
    lab.server.roll_out(&format!("digits@{version}"), &plan)
}

/// How the rollout ended, if it did.
fn ended(lab: &Lab, rollout: u64) -> Result<Option<String>> {
    let state = lab.server.rollout(rollout)?["state"].as_str().unwrap_or_default().to_owned();
    Ok(["completed", "rolled back", "aborted"].contains(&state.as_str()).then_some(state))
}

/// Starts a killed device again; the version that answers.
fn survived(device: &mut Device) -> Result<String> {
    // Waits until the agent answers `status`.
    device.power_on()?;
    let active = device.active().context("no release is active any more")?;
    ensure!(VERSIONS.contains(&active.as_str()), "version {active} is active, which was never rolled out");
    let row = rows()?.into_iter().take(1).collect::<Vec<_>>();
    let answer = until("it answers an inference", PATIENCE, || device.infer(&row).ok())?;
    let version = answer["model_version"].as_str().unwrap_or_default().to_owned();
    ensure!(VERSIONS.contains(&version.as_str()), "{answer} is no answer of a release here");
    whole(device)?;
    Ok(version)
}

/// Every file of every slot is what was signed.
fn whole(device: &Device) -> Result<()> {
    let checked = device.engineer(&["verify"])?;
    let lines = checked["lines"].as_array().cloned().unwrap_or_default();
    ensure!(!lines.is_empty(), "{checked}");
    ensure!(lines.iter().all(|line| line["level"] == "ok"), "{checked:#}");
    Ok(())
}
