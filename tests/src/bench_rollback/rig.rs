//! The device that goes back and forth: two proven versions, no server, and an engineer who is connected.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use serin_agent::field::client::Client;
use serin_agent::field::{FieldReply, Status};
use serin_tests::device::Device;
use serin_tests::lab::{ALL_AT_ONCE, Broker, Lab, PATIENCE};
use serin_tests::until;
use tokio::runtime::Runtime;

/// Whether the previous version has a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Previous {
    /// It has.
    Warm,
    /// Memory is enough for one worker only.
    Cold,
}

impl fmt::Display for Previous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
        })
    }
}

/// The device and those around it.
pub(crate) struct Rig {
    lab: Lab,
    runtime: Runtime,
    engineer: Client,
    pub(crate) previous: Previous,
}

impl Rig {
    /// A device on which version 1 and then version 2 passed their probation.
    pub(crate) fn new() -> Result<Self> {
        let mut lab = Lab::new(Broker::Embedded)?;
        lab.add_device("bench", "")?;
        lab.first_release()?;
        lab.publish("digits/v2")?;
        let rollout = lab.server.roll_out("digits@2.0.0", ALL_AT_ONCE)?;
        lab.server.until_rollout_is(rollout, "completed", PATIENCE)?;
        // What a fleet does to a device at the same time is another matter; and a server on the same disk
        // would write there too.
        lab.server.kill();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let device = lab.devices.first().context("no device")?;
        let engineer = runtime.block_on(Client::connect(&device.folder.join("agent.sock")))?;
        Ok(Self { lab, runtime, engineer, previous: Previous::Warm })
    }

    pub(crate) fn device(&self) -> &Device {
        self.lab.devices.first().expect("it was added")
    }

    /// Starts the agent anew, with the memory that it takes to have the previous version's worker or not,
    /// and a window of telemetry as devices have it by default.
    pub(crate) fn prepare(&mut self, previous: Previous) -> Result<()> {
        let memory = match previous {
            Previous::Warm => String::new(),
            Previous::Cold => {
                let status = self.status()?;
                let slots = status.active.iter().chain(&status.previous);
                let most = slots.map(|slot| slot.memory_limit.0).max().context("nothing runs")?;
                format!("models.memory = '{most}B'\n")
            }
        };
        let path = self.device().folder.join("agent.toml");
        let ours = |line: &&str| line.starts_with("models.memory") || line.starts_with("telemetry.window");
        let before = std::fs::read_to_string(&path)?;
        let mut config = before.lines().filter(|line| !ours(line)).collect::<Vec<_>>().join("\n");
        config.push('\n');
        config.push_str(&memory);
        std::fs::write(&path, config)?;
        let device = self.lab.devices.first_mut().context("no device")?;
        // Orderly, as it is no crash.
        device.stop();
        device.power_on()?;
        let socket = device.folder.join("agent.sock");
        self.engineer = self.runtime.block_on(Client::connect(&socket))?;
        self.previous = previous;
        self.until_ready().map(drop)
    }

    /// Waits until the active version answers and the previous one is as it should be.
    pub(crate) fn until_ready(&mut self) -> Result<Status> {
        let wanted = self.previous == Previous::Warm;
        until(&format!("the previous worker is {}", self.previous), PATIENCE, || {
            let status = self.status().ok()?;
            let up = status.active.as_ref().is_some_and(|slot| slot.worker.is_some());
            let previous = status.previous.as_ref().is_some_and(|slot| slot.worker.is_some() == wanted);
            (up && previous).then_some(status)
        })
    }

    pub(crate) fn status(&mut self) -> Result<Status> {
        match self.runtime.block_on(self.engineer.field("status", None))? {
            FieldReply::Status(status) => Ok(*status),
            other => bail!("this is no status: {other:?}"),
        }
    }

    /// The engineer's command, over the connection that is there.
    pub(crate) fn roll_back(&mut self) -> Result<()> {
        match self.runtime.block_on(self.engineer.field("rollback", Some(Bytes::new())))? {
            FieldReply::RolledBack(_) => Ok(()),
            other => bail!("this is no rollback: {other:?}"),
        }
    }

    /// A file of the boot record's size, in its folder.
    pub(crate) fn yardstick(&self) -> Result<Yardstick> {
        let folder = self.device().folder.join("boot");
        let size = std::fs::metadata(folder.join("boot.a"))?.len();
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(folder.join("yardstick"))?;
        let yardstick = Yardstick { file, bytes: vec![7; usize::try_from(size)?] };
        // The first write makes the file longer, which later ones do not.
        yardstick.write()?;
        Ok(yardstick)
    }
}

/// What the disk alone takes to make a boot record durable.
pub(crate) struct Yardstick {
    file: File,
    bytes: Vec<u8>,
}

impl Yardstick {
    /// One write in place and one fdatasync.
    pub(crate) fn write(&self) -> Result<Duration> {
        let started = Instant::now();
        self.file.write_all_at(&self.bytes, 0)?;
        self.file.sync_data()?;
        Ok(started.elapsed())
    }
}

/// Ends a process at once.
pub(crate) fn kill(pid: u32) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("no process")?;
    Ok(kill_process(pid, Signal::KILL)?)
}
