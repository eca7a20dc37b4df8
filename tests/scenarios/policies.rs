//! Devices that may not do everything at any time: they say what they wait for, and go on by themselves.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;
use serin_tests::device::Device;
use serin_tests::lab::{ALL_AT_ONCE, Broker, Lab, PATIENCE};
use serin_tests::until;

/// What the kernel tells of a device, in a folder of the test's.
struct Surroundings(PathBuf);

impl Surroundings {
    fn new(folder: &Path) -> Result<Self> {
        let told = Self(folder.join("surroundings"));
        told.tell("class/power_supply/AC/type", "Mains")?;
        told.tell("class/power_supply/BAT0/type", "Battery")?;
        told.tell("class/power_supply/BAT0/capacity", "80")?;
        told.plug(false)?;
        told.heat(90)?;
        Ok(told)
    }

    fn plug(&self, plugged: bool) -> Result<()> {
        self.tell("class/power_supply/AC/online", if plugged { "1" } else { "0" })
    }

    fn heat(&self, celsius: u32) -> Result<()> {
        self.tell("class/thermal/thermal_zone0/temp", &(celsius * 1000).to_string())
    }

    fn tell(&self, file: &str, value: &str) -> Result<()> {
        let path = self.0.join("sys").join(file);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        // Whole at once, as the kernel does.
        fs::write(path.with_extension("new"), format!("{value}\n"))?;
        Ok(fs::rename(path.with_extension("new"), path)?)
    }
}

fn waits(device: &Device, step: &str) -> Result<Value> {
    until(&format!("it waits to {step}"), PATIENCE, || {
        let waiting = device.status().ok()?["waiting"].clone();
        (waiting["step"] == step).then_some(waiting)
    })
}

/// Bytes of unfinished downloads.
fn fetched(device: &Device) -> Result<u64> {
    let mut bytes = 0;
    for file in fs::read_dir(device.folder.join("partial"))? {
        bytes += file?.metadata()?.len();
    }
    Ok(bytes)
}

#[test]
fn a_device_fetches_on_mains_and_installs_when_cool_and_says_what_it_waits_for() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    let surroundings = Surroundings::new(&lab.folder())?;
    let policy = format!(
        "policy.root = '{}'\npolicy.look_every = '1s'\npolicy.daily_bytes = '20MiB'\npolicy.fetch.mains = true\n\
         policy.install.max_celsius = 70\n",
        surroundings.0.display()
    );
    lab.add_device("kiosk", &policy)?;
    lab.publish("digits/v1")?;
    let rollout = lab.server.roll_out("digits@1.0.0", ALL_AT_ONCE)?;

    // The fleet is told what will be fetched, how many bytes, and why not yet.
    let plan = lab.until_told("kiosk", &["digits@1.0.0", "full transfer", "not on mains"])?;
    assert!(plan.contains("bytes to fetch, 0 are here; begins later"), "{plan}");
    let device = &mut lab.devices[0];
    let waiting = waits(device, "fetch")?;
    assert_eq!(waiting["why"], "not_on_mains", "{waiting}");
    let said = String::from_utf8(device.try_engineer(&["status"])?.stdout)?;
    assert!(said.contains("to be fetched later: the device is not on mains"), "{said}");
    let advice = String::from_utf8(device.try_engineer(&["doctor"])?.stdout)?;
    assert!(advice.contains("warn  policy") && advice.contains("next: connect it to mains"), "{advice}");

    // A power cut does not change that.
    device.power_off();
    device.power_on()?;
    waits(device, "fetch")?;
    assert_eq!(fetched(device)?, 0, "nothing was fetched");

    surroundings.plug(true)?;
    lab.until_told("kiosk", &["full transfer", "begins now"])?;
    lab.until_told("kiosk", &["to be installed later", "90 °C hot, waiting for 65 °C"])?;
    let device = &mut lab.devices[0];
    waits(device, "install")?;
    assert_eq!(device.active(), None);
    assert!(device.folder.join("fetched.today").exists(), "bytes are counted");

    // What is here needs no mains to be installed.
    surroundings.plug(false)?;
    device.power_off();
    device.power_on()?;
    waits(device, "install")?;
    surroundings.heat(40)?;
    until("it is installed", PATIENCE, || device.runs("1.0.0").then_some(()))?;
    lab.server.until_rollout_is(rollout, "completed", PATIENCE)?;
    Ok(())
}
