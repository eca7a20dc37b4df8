//! The agent as a service: what systemd hears, and when it stops hearing.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use serin_tests::device::Device;
use serin_tests::lab::{Broker, Lab};

/// What comes next.
fn hear(manager: &UnixDatagram) -> Result<String> {
    let mut text = [0; 256];
    let length = manager.recv(&mut text).context("nothing is said")?;
    Ok(String::from_utf8_lossy(&text[..length]).into_owned())
}

#[test]
fn the_service_manager_hears_that_the_agent_is_up_alive_and_hanging() -> Result<()> {
    let lab = Lab::new(Broker::Embedded)?;
    let socket = lab.folder().join("notify");
    let manager = UnixDatagram::bind(&socket)?;
    manager.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut provision = lab.provision();
    let address = socket.to_str().context("a plain name")?.to_owned();
    provision.environment =
        vec![("NOTIFY_SOCKET".into(), address), ("WATCHDOG_USEC".into(), "2000000".into())];
    let mut device = Device::start(&lab.folder(), "device-01", &provision)?;
    assert_eq!(hear(&manager)?, "READY=1\n");
    for _ in 0..3 {
        assert_eq!(hear(&manager)?, "WATCHDOG=1\n");
    }
    // A loop that does not go round says nothing.
    let pid = Pid::from_raw(i32::try_from(device.id().context("it runs")?)?).context("a process")?;
    kill_process(pid, Signal::STOP)?;
    manager.set_nonblocking(true)?;
    while hear(&manager).is_ok() {}
    manager.set_nonblocking(false)?;
    manager.set_read_timeout(Some(Duration::from_secs(3)))?;
    assert!(hear(&manager).is_err(), "it hangs");
    kill_process(pid, Signal::CONT)?;
    manager.set_read_timeout(Some(Duration::from_secs(20)))?;
    assert_eq!(hear(&manager)?, "WATCHDOG=1\n");
    device.stop();
    let mut last = hear(&manager)?;
    while last == "WATCHDOG=1\n" {
        last = hear(&manager)?;
    }
    assert_eq!(last, "STOPPING=1\n");
    Ok(())
}

#[test]
fn the_watchdog_is_not_pinged_while_a_job_on_the_disk_does_not_end() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    let socket = lab.folder().join("notify");
    let manager = UnixDatagram::bind(&socket)?;
    manager.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut provision = lab.provision();
    let address = socket.to_str().context("a plain name")?.to_owned();
    provision.environment =
        vec![("NOTIFY_SOCKET".into(), address), ("WATCHDOG_USEC".into(), "1000000".into())];
    provision.extra = "models.job_deadline = '20s'".into();
    lab.add_provisioned("device-01", &provision)?;
    lab.first_release()?;
    // A file that never comes to its end: whoever reads it hangs in the kernel.
    let releases = lab.devices[0].folder.join("releases");
    let release = std::fs::read_dir(&releases)?.next().context("a release")??.path();
    let manifest = release.join("manifest.json");
    std::fs::rename(&manifest, release.join("aside"))?;
    let made = std::process::Command::new("mkfifo").arg(&manifest).status()?;
    anyhow::ensure!(made.success(), "mkfifo");
    let pid = lab.devices[0].id();
    let mut hanging = lab.devices[0].begin_engineer(&["verify"])?;
    // It is pinged at first, then no more, though the loop goes round.
    manager.set_read_timeout(Some(Duration::from_secs(3)))?;
    while hear(&manager).is_ok() {}
    assert_eq!(lab.devices[0].status()?["phase"], "idle");
    assert_eq!(lab.devices[0].id(), pid);
    // The other end opens and closes: the job ends, badly, and all is well again.
    drop(std::fs::OpenOptions::new().write(true).open(&manifest)?);
    manager.set_read_timeout(Some(Duration::from_secs(20)))?;
    assert_eq!(hear(&manager)?, "WATCHDOG=1\n");
    hanging.wait()?;
    Ok(())
}

/// How often its threads went to sleep so far, but for those of the database, which look for work each second.
fn sleeps(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.path();
        if std::fs::read_to_string(thread.join("comm"))?.starts_with("sled-io") {
            continue;
        }
        let status = std::fs::read_to_string(thread.join("status"))?;
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sum += count.context("Linux tells")?.trim().parse::<u64>()?;
    }
    Ok(sum)
}

#[test]
fn a_device_at_rest_is_left_alone() -> Result<()> {
    // A release that answers and nothing else going on: what is due comes once a minute, and the broker's pings as often.
    const SPAN: Duration = Duration::from_secs(5);
    const MOST: u64 = 4;
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_device("device-01", "")?;
    lab.first_release()?;
    let device = &mut lab.devices[0];
    device.stop();
    device.report_seldom()?;
    device.power_on()?;
    let pid = device.id().context("it runs")?;
    let mut counts = Vec::new();
    let rests = || {
        let before = sleeps(pid).ok()?;
        std::thread::sleep(SPAN);
        counts.push(sleeps(pid).ok()?.saturating_sub(before));
        counts.last().is_some_and(|count| *count <= MOST).then_some(())
    };
    let rested = serin_tests::until("it rests", Duration::from_mins(1), rests);
    rested.with_context(|| format!("it woke {counts:?} times in {SPAN:?} each"))
}
