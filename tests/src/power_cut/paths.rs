//! The ways in which a device changes what it runs, each from a disk on which it begins to the last operation
//! on it.

use std::path::Path as FilePath;

use crate::sim::broker::Broker;
use crate::sim::device::{Device, factory_disk};
use crate::sim::publisher::{Published, repository};
use anyhow::{Context as _, Result};
use serin_agent::disk::virtual_disk::{Loss, VirtualDisk};
use serin_agent::update::effect::FieldOrder;
use serin_protocol::ids::Digest;
use serin_protocol::message::Phase;
use serin_protocol::trust::forge::public;
use serin_protocol::trust::signed::{key_table, role_keys};

/// What all paths begin with: three releases of one model.
pub struct Stock {
    pub releases: [Published; 3],
}

/// A way in which a device changes what it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    FirstInstall,
    Install,
    Commit,
    CommitAndCollect,
    LocalRollback,
    FleetRollback,
    Sideload,
    KeyRotation,
    Cancel,
    Supersede,
    Pin,
}

/// A path about to be taken.
pub struct Scene {
    /// What the broker has while it is taken.
    pub broker: Broker,
    /// What it says later, where a path has two acts.
    pub later: Option<Broker>,
    /// What an engineer has on a stick.
    pub brought: Published,
    /// The disk it begins on; all of it durable.
    pub disk: VirtualDisk,
    /// The release that runs before; none on a device that is new.
    pub old: Option<Digest>,
    /// The release that runs when everything went well.
    pub new: Digest,
}

impl Stock {
    /// Packs the releases with the real programs in `folder`, and shows that a real worker runs each.
    pub fn pack(folder: &FilePath) -> Result<Self> {
        let pack = |model: &str| Published::pack(model, folder);
        let stock = Self { releases: [pack("digits/v1")?, pack("digits/v2")?, pack("digits/v3")?] };
        for (index, published) in stock.releases.iter().enumerate() {
            let mut broker = stock.broker();
            broker.assign_run(published);
            let disk = factory_disk(&broker)?;
            let mut device = Device::power_on(&disk, &broker)?;
            device.connect();
            device.until_idle();
            anyhow::ensure!(device.serving == Some(published.digest), "{:?}", device.said);
            let unpacked = folder.join(format!("unpacked-{index}"));
            published.dump(&device, &unpacked)?;
            published.prove(&unpacked).with_context(|| published.release.id.to_string())?;
        }
        Ok(stock)
    }

    fn broker(&self) -> Broker {
        Broker::new(repository(&self.releases), &self.releases)
    }
}

impl Path {
    pub const ALL: [Self; 11] = [
        Self::FirstInstall,
        Self::Install,
        Self::Commit,
        Self::CommitAndCollect,
        Self::LocalRollback,
        Self::FleetRollback,
        Self::Sideload,
        Self::KeyRotation,
        Self::Cancel,
        Self::Supersede,
        Self::Pin,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::FirstInstall => "first install",
            Self::Install => "install",
            Self::Commit => "commit",
            Self::CommitAndCollect => "garbage collection",
            Self::LocalRollback => "local rollback",
            Self::FleetRollback => "fleet rollback",
            Self::Sideload => "sideload",
            Self::KeyRotation => "key rotation",
            Self::Cancel => "cancel",
            Self::Supersede => "supersede",
            Self::Pin => "pin",
        }
    }

    /// Brings a device to where the path begins.
    pub fn scene(self, stock: &Stock) -> Result<Scene> {
        let [v1, v2, v3] = &stock.releases;
        let mut broker = stock.broker();
        let disk = factory_disk(&broker)?;
        let mut later = None;
        let (old, new) = match self {
            Self::FirstInstall => {
                broker.assign_run(v1);
                (None, v1)
            }
            Self::Install => {
                install(&disk, &mut broker, v1)?;
                broker.assign_run(v2);
                (Some(v1), v2)
            }
            Self::Commit => {
                install(&disk, &mut broker, v1)?;
                broker.assign_run(v2);
                try_out(&disk, &broker, v2)?;
                (Some(v1), v2)
            }
            Self::CommitAndCollect => {
                install(&disk, &mut broker, v1)?;
                install(&disk, &mut broker, v2)?;
                broker.assign_run(v3);
                try_out(&disk, &broker, v3)?;
                (Some(v2), v3)
            }
            Self::LocalRollback => {
                install(&disk, &mut broker, v1)?;
                install(&disk, &mut broker, v2)?;
                (Some(v2), v1)
            }
            Self::FleetRollback => {
                install(&disk, &mut broker, v1)?;
                install(&disk, &mut broker, v2)?;
                broker.assign_rollback(&v2.release.id, v1.reference());
                (Some(v2), v1)
            }
            Self::Sideload => {
                install(&disk, &mut broker, v1)?;
                (Some(v1), v2)
            }
            Self::KeyRotation => {
                install(&disk, &mut broker, v1)?;
                rotate(&mut broker);
                broker.assign_run(v2);
                (Some(v1), v2)
            }
            Self::Cancel => {
                install(&disk, &mut broker, v1)?;
                broker.assign_run(v2);
                broker.lose_last_chunk(v2);
                let mut cancelled = broker.clone();
                cancelled.assign_stay();
                later = Some(cancelled);
                (Some(v1), v1)
            }
            Self::Supersede => {
                install(&disk, &mut broker, v1)?;
                broker.assign_run(v2);
                broker.lose_last_chunk(v2);
                let mut superseded = broker.clone();
                superseded.assign_run(v3);
                later = Some(superseded);
                (Some(v1), v3)
            }
            Self::Pin => {
                install(&disk, &mut broker, v1)?;
                (Some(v1), v1)
            }
        };
        disk.power_on(Loss::Nothing);
        let brought = v2.clone();
        Ok(Scene { broker, later, brought, disk, old: old.map(|old| old.digest), new: new.digest })
    }

    /// Takes the path on a device that was just switched on, for as long as it has power.
    pub fn take(self, device: &mut Device, scene: &Scene) {
        match self {
            Self::FirstInstall
            | Self::Install
            | Self::Commit
            | Self::CommitAndCollect
            | Self::FleetRollback
            | Self::KeyRotation => {
                device.connect();
                device.until_idle();
            }
            Self::LocalRollback => {
                let to = scene.broker.statement(scene.new).map(|release| release.id.version.clone());
                device.order(FieldOrder::Rollback { to });
                device.until_idle();
            }
            Self::Sideload => {
                device.sideload(&scene.brought);
                device.until_idle();
            }
            Self::Pin => {
                device.order(FieldOrder::Pin);
                device.until_idle();
            }
            Self::Cancel | Self::Supersede => {
                device.connect();
                device.until_phase(Phase::Fetching);
                device.hear(scene.later.as_ref().unwrap_or(&scene.broker));
                device.until_idle();
            }
        }
    }
}

/// Has a device run `published` for good.
fn install(disk: &VirtualDisk, broker: &mut Broker, published: &Published) -> Result<()> {
    broker.assign_run(published);
    let mut device = Device::power_on(disk, broker)?;
    device.connect();
    device.until_idle();
    let active = device.machine.record().active.as_ref().map(|slot| slot.statement);
    anyhow::ensure!(active == Some(published.digest), "{:?}", device.said);
    Ok(())
}

/// Has a device run `published` on probation.
fn try_out(disk: &VirtualDisk, broker: &Broker, published: &Published) -> Result<()> {
    let mut device = Device::power_on(disk, broker)?;
    device.connect();
    device.until_phase(Phase::Probation);
    anyhow::ensure!(device.serving == Some(published.digest), "{:?}", device.said);
    Ok(())
}

/// Gives root, timestamp and fleet other keys, in two steps.
fn rotate(broker: &mut Broker) {
    const ROOT: u8 = 11;
    const TIMESTAMP: u8 = 12;
    const FLEET: u8 = 16;
    let repository = std::sync::Arc::make_mut(&mut broker.repository);
    repository.root_signers = vec![1, ROOT];
    repository.next_root(|root| {
        root.keys.extend(key_table([public(ROOT)]));
        root.roles.root = role_keys([public(ROOT).name()], root.roles.root.threshold);
    });
    repository.root_signers = vec![ROOT];
    repository.signers.insert("timestamp", vec![TIMESTAMP]);
    repository.next_root(|root| {
        root.keys.extend(key_table([public(TIMESTAMP)]));
        root.roles.timestamp = role_keys([public(TIMESTAMP).name()], root.roles.timestamp.threshold);
    });
    if let Some(delegations) = &mut repository.targets.delegations {
        delegations.keys.extend(key_table([public(FLEET)]));
        for role in delegations.roles.iter_mut().filter(|role| role.name == "fleet") {
            role.keyids = vec![public(FLEET).name()];
        }
    }
    repository.targets.version = repository.targets.version.next().expect("not the last");
    repository.release();
    broker.fleet_key = FLEET;
    broker.publish_metadata();
}
