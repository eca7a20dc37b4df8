//! One cell: a path is taken, something happens at one operation on its disk, and the device is looked at
//! when it is on again.

use crate::sim::device::Device;
use anyhow::{Context as _, Result, ensure};
use serin_agent::disk::seam::Operation;
use serin_agent::disk::virtual_disk::{Fault, Loss, Step, Trouble, TroubleKind, VirtualDisk};
use serin_agent::update::effect::FieldOutcome;
use serin_protocol::message::{EventKind, Phase};

use super::paths::{Path, Scene};

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// The process is killed.
    Killed,
    /// The power is cut, and with it goes all that was not synced.
    Unsynced,
    /// The power is cut; names are there, but not the bytes behind them.
    Hollow,
    /// The power is cut; of what was not synced some is there, in any order.
    Scrambled(u64),
    /// The process is killed in the middle of a write.
    Torn,
    /// The power is cut in the middle of a write, and some of what was not synced is gone.
    TornAndScrambled(u64),
    /// The operation fails.
    Fails(Fault),
    /// It and all that would change anything fail, across a restart, until the disk is repaired.
    KeepsFailing(Fault),
}

impl Mishap {
    pub const ALL: [Self; 13] = [
        Self::Killed,
        Self::Unsynced,
        Self::Hollow,
        Self::Scrambled(1),
        Self::Scrambled(2),
        Self::Torn,
        Self::TornAndScrambled(3),
        Self::Fails(Fault::NoSpace),
        Self::Fails(Fault::Broken),
        Self::Fails(Fault::ReadOnly),
        Self::KeepsFailing(Fault::NoSpace),
        Self::KeepsFailing(Fault::Broken),
        Self::KeepsFailing(Fault::ReadOnly),
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Unsynced => "unsynced lost",
            Self::Hollow => "bytes lost",
            Self::Scrambled(1) => "scrambled",
            Self::Scrambled(_) => "scrambled too",
            Self::Torn => "torn",
            Self::TornAndScrambled(_) => "torn+scrambled",
            Self::Fails(Fault::NoSpace) => "ENOSPC",
            Self::Fails(Fault::Broken) => "EIO",
            Self::Fails(Fault::ReadOnly) => "EROFS",
            Self::KeepsFailing(Fault::NoSpace) => "disk full",
            Self::KeepsFailing(Fault::Broken) => "disk dead",
            Self::KeepsFailing(Fault::ReadOnly) => "read-only",
        }
    }

    /// Whether this can happen at `step`. What only reads can fail, but a cut before it is the same as one
    /// before the next change.
    pub fn applies(self, step: &Step) -> bool {
        match self {
            Self::Killed | Self::Unsynced | Self::Hollow | Self::Scrambled(_) | Self::KeepsFailing(_) => {
                step.changes()
            }
            Self::Torn | Self::TornAndScrambled(_) => step.operation == Operation::Write,
            Self::Fails(Fault::Broken) => true,
            Self::Fails(Fault::NoSpace | Fault::ReadOnly) => step.changes(),
        }
    }

    const fn kind(self) -> TroubleKind {
        match self {
            Self::Killed | Self::Unsynced | Self::Hollow | Self::Scrambled(_) => TroubleKind::Cut,
            Self::Torn | Self::TornAndScrambled(_) => TroubleKind::Torn,
            Self::Fails(fault) => TroubleKind::Once(fault),
            Self::KeepsFailing(fault) => TroubleKind::FromNowOn(fault),
        }
    }

    /// What is lost with the power, when it goes at operation `at`. None when it does not.
    const fn loss(self, at: usize) -> Option<Loss> {
        match self {
            Self::Killed | Self::Torn => Some(Loss::Nothing),
            Self::Unsynced => Some(Loss::Everything),
            Self::Hollow => Some(Loss::Bytes),
            Self::Scrambled(seed) | Self::TornAndScrambled(seed) => {
                Some(Loss::Some(seed.wrapping_mul(1_000_003).wrapping_add(at as u64)))
            }
            Self::Fails(_) | Self::KeepsFailing(_) => None,
        }
    }
}

/// How the update ended after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The device runs what the path was to bring.
    Completed,
    /// It runs what it ran before, and has said why.
    Rejected,
}

/// The operations of a path when nothing goes wrong.
pub fn steps(path: Path, scene: &Scene) -> Result<Vec<Step>> {
    let disk = scene.disk.copy();
    let mut device = Device::power_on(&disk, &scene.broker)?;
    path.take(&mut device, scene);
    ensure!(device.serving == Some(scene.new), "without any mishap: {:?}", device.said);
    Ok(disk.log())
}

/// Takes a path, has `mishap` happen at operation `at`, and looks at what is left.
///
/// # Errors
/// The device did not come back as it must.
pub fn survive(path: Path, scene: &Scene, at: usize, mishap: Mishap) -> Result<Outcome> {
    let disk = scene.disk.copy();
    disk.expect(Trouble { at, kind: mishap.kind() });
    let mut said = Vec::new();
    let acknowledged = match Device::power_on(&disk, &scene.broker) {
        Ok(mut device) => {
            path.take(&mut device, scene);
            if disk.is_powered() {
                running(&device, scene).context("while the disk failed")?;
            }
            said.append(&mut device.said);
            device.replies.iter().any(|reply| matches!(reply, Ok(outcome) if is_final(outcome)))
        }
        // The service manager starts it again.
        Err(_) => false,
    };
    if let Some(loss) = mishap.loss(at) {
        ensure!(!disk.is_powered(), "operation {at} was never reached");
        disk.power_on(loss);
    }
    if matches!(mishap, Mishap::KeepsFailing(_)) {
        match Device::power_on(&disk, &scene.broker) {
            Ok(device) => running(&device, scene).context("switched on with a failing disk")?,
            // A device that never ran anything has nothing to go on with.
            Err(_) if scene.old.is_none() => {}
            Err(error) => return Err(error.context("switched on with a failing disk")),
        }
        disk.repair();
    }
    alone(&disk, path, scene, acknowledged, &mut said)?;
    finish(&disk, path, scene, said)
}

/// Whether the engineer was told that it is done, rather than begun.
const fn is_final(outcome: &FieldOutcome) -> bool {
    match outcome {
        FieldOutcome::RolledBack { .. } | FieldOutcome::Pinned(_) => true,
        FieldOutcome::Unpinned | FieldOutcome::Held(_) | FieldOutcome::Sideloading => false,
    }
}

/// Switches the device on without a link: a verified model answers, and nothing is half done.
fn alone(
    disk: &VirtualDisk,
    path: Path,
    scene: &Scene,
    acknowledged: bool,
    said: &mut Vec<EventKind>,
) -> Result<()> {
    disk.repair();
    let mut device = Device::power_on(disk, &scene.broker).context("switched on again")?;
    running(&device, scene).context("switched on again")?;
    for (name, slot) in device.slots() {
        device.verify(slot.statement).with_context(|| format!("slot {name}, {}", slot.release))?;
    }
    if acknowledged {
        let record = device.machine.record();
        ensure!(device.serving == Some(scene.new), "an order was confirmed and is undone: {said:?}");
        ensure!(record.pinned_by.is_some(), "{}: the confirmed pin is gone", path.name());
    }
    said.append(&mut device.said);
    Ok(())
}

/// Either of the two releases answers, and every byte of it is what its owner signed.
fn running(device: &Device, scene: &Scene) -> Result<()> {
    let Some(serving) = device.serving else {
        ensure!(scene.old.is_none(), "nothing answers; {:?}", device.said);
        return Ok(());
    };
    ensure!(Some(serving) == scene.old || serving == scene.new, "a third release answers");
    device.verify(serving).context("what answers is not what was signed")
}

/// Lets the device go on with a link: the update completes or is rejected with a reason, and leaves nothing
/// behind.
fn finish(disk: &VirtualDisk, path: Path, scene: &Scene, mut said: Vec<EventKind>) -> Result<Outcome> {
    let mut device = Device::power_on(disk, &scene.broker).context("switched on once more")?;
    path.take(&mut device, scene);
    device.until_idle();
    said.append(&mut device.said);
    let rejected = said.iter().any(|said| {
        matches!(said, EventKind::Transition { to: Phase::Rejected | Phase::RolledBack, reason: Some(_), .. })
    });
    ensure!(device.machine.record().attempt.is_none(), "the update is still unfinished: {said:?}");
    running(&device, scene).context("in the end")?;
    let outcome = if device.serving == Some(scene.new) {
        Outcome::Completed
    } else {
        ensure!(rejected, "not completed and no reason given: {said:?}");
        Outcome::Rejected
    };
    tidy(&device)?;
    Ok(outcome)
}

/// Nothing is on the disk but what a slot names.
fn tidy(device: &Device) -> Result<()> {
    let named: Vec<_> = device.slots().into_iter().map(|(_, slot)| slot.statement).collect();
    for unpacked in device.unpacked()? {
        ensure!(named.contains(&unpacked), "release {unpacked} is in no slot and still here");
    }
    for folder in ["staging", "partial"] {
        let left = device.folder(folder)?;
        ensure!(left.is_empty(), "{folder}/ still has {left:?}");
    }
    Ok(())
}
