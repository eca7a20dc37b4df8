//! A whole fleet on this machine: broker, server, owner, devices.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;

use crate::broker::Mosquitto;
use crate::bundles::{Owner, text};
use crate::certificates::Certificates;
use crate::device::{Device, Provision};
use crate::server::{CONFIG, Server};

/// Longest that anything awaited may take on a slow, busy machine; it normally comes within seconds.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// Which broker the fleet uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broker {
    /// The one inside the server.
    Embedded,
    /// A Mosquitto beside it.
    Mosquitto,
}

/// Everyone at once: what a first release in a small fleet needs.
pub const ALL_AT_ONCE: &str = "
    [[strategy.canary.stages]]
    share = '100%'
    bake = '1s'
    min_devices = 1
    min_requests = 0
    [probation]
    duration = '1s'
    max_error_rate = '5%'
    min_requests = 20
    max_worker_deaths = 1
";

/// A quarter first, then all, if predictions stay where the control's are.
pub const CANARY: &str = "
    [strategy.canary]
    control = '25%'
    [[strategy.canary.stages]]
    share = '25%'
    bake = '3s'
    min_devices = 2
    min_requests = 100
    [[strategy.canary.stages]]
    share = '100%'
    bake = '2s'
    min_devices = 2
    min_requests = 100
    [gates.error_rate]
    max_ratio = 1.5
    floor = '2%'
    hard_max = '20%'
    [gates.latency]
    max_share = '60%'
    floor = '20ms'
    [gates.predictions]
    threshold = 0.5
    hard = 0.5
    on_breach = 'roll_back'
    [probation]
    duration = '1s'
    max_error_rate = '5%'
    min_requests = 20
    max_worker_deaths = 1
";

/// A fleet and the folder it lives in.
pub struct Lab {
    pub devices: Vec<Device>,
    pub server: Server,
    pub owner: Owner,
    pub mosquitto: Option<Mosquitto>,
    /// What everybody proves themselves with; none in a lab without TLS.
    pub certificates: Option<Certificates>,
    provision: Provision,
    folder: TempDir,
}

impl Lab {
    /// A server, a broker, an owner, and no device yet.
    pub fn new(broker: Broker) -> Result<Self> {
        Self::with(broker, false, None)
    }

    /// The same with a configuration file of the server.
    pub fn configured(broker: Broker, config: &str) -> Result<Self> {
        Self::with(broker, false, Some(config))
    }

    /// The same with mutual TLS.
    pub fn secure(broker: Broker) -> Result<Self> {
        Self::with(broker, true, None)
    }

    fn with(broker: Broker, tls: bool, config: Option<&str>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let certificates =
            if tls { Some(Certificates::new(&folder.path().join("certificates"))?) } else { None };
        let owner = Owner::new(&folder.path().join("owner"))?;
        let mosquitto = match broker {
            Broker::Embedded => None,
            Broker::Mosquitto => Some(match &certificates {
                Some(certificates) => Mosquitto::start_secure(folder.path(), certificates)?,
                None => Mosquitto::start(folder.path())?,
            }),
        };
        let files = certificates.as_ref().map(Certificates::server);
        let external = mosquitto.as_ref().map(|mosquitto| mosquitto.port);
        if let Some(config) = config {
            let server = folder.path().join("server");
            std::fs::create_dir_all(&server)?;
            std::fs::write(server.join(CONFIG), config)?;
        }
        let server = Server::start_with(&folder.path().join("server"), external, files.as_deref())?;
        owner.begin(&server)?;
        server.operator(&["trust", "publish", "--trust", text(&owner.trust())])?;
        let provision = Provision {
            mqtt: server.mqtt,
            root: owner.root(),
            extra: String::new(),
            clock: None,
            environment: Vec::new(),
        };
        Ok(Self { devices: Vec::new(), server, owner, mosquitto, certificates, provision, folder })
    }

    /// Where everything lies.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().into()
    }

    /// What a new device is configured with.
    pub fn provision(&self) -> Provision {
        self.provision.clone()
    }

    /// Adds a device with further configuration lines.
    pub fn add_device(&mut self, name: &str, extra: &str) -> Result<&mut Device> {
        let mut lines = extra.to_owned();
        if let Some(certificates) = &self.certificates {
            certificates.issue(name, &[])?;
            lines = format!("{lines}\n{}", certificates.lines(name));
        }
        let provision = Provision { extra: lines, ..self.provision() };
        self.add_provisioned(name, &provision)
    }

    /// Adds a device configured otherwise.
    pub fn add_provisioned(&mut self, name: &str, provision: &Provision) -> Result<&mut Device> {
        let device = Device::start(self.folder.path(), name, provision)?;
        self.devices.push(device);
        self.enroll(name)?;
        self.until_online(name)?;
        self.devices.last_mut().ok_or_else(|| anyhow::anyhow!("just added"))
    }

    /// Adds `count` devices.
    pub fn add_devices(&mut self, count: usize) -> Result<()> {
        (1..=count).try_for_each(|number| self.add_device(&format!("device-{number:02}"), "").map(drop))
    }

    /// An operator makes a token, an engineer brings it.
    fn enroll(&self, name: &str) -> Result<()> {
        let token = self.server.operator(&["device", "invite", name])?;
        let token = token["token"].as_str().unwrap_or_default().to_owned();
        let device = self.devices.iter().find(|device| device.name == name);
        let device = device.ok_or_else(|| anyhow::anyhow!("{name} is no device here"))?;
        // The link may not be there yet.
        crate::until(&format!("{name} enrols"), PATIENCE, || {
            let tried = device.try_engineer(&["enroll", "--token", &token, "--json"]).ok()?;
            let error = String::from_utf8_lossy(&tried.stderr).into_owned();
            let later = error.contains("not_connected");
            (!later).then(|| if tried.status.success() { Ok(()) } else { Err(anyhow::anyhow!(error)) })
        })?
    }

    fn until_online(&self, name: &str) -> Result<()> {
        crate::until(&format!("the server knows {name}"), PATIENCE, || {
            let device = self.server.json(&format!("/api/v1/devices/{name}")).ok()?;
            (device["online"] == true).then_some(())
        })
    }

    /// Packs, signs and publishes a fixture model.
    pub fn publish(&self, model: &str) -> Result<()> {
        self.server.publish(&self.owner.release(model)?, &self.owner.trust())
    }

    /// The same after `change` in a copy of the model's folder.
    pub fn publish_changed(&self, model: &str, change: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        self.server.publish(&self.owner.release_changed(model, change)?, &self.owner.trust())
    }

    /// Rolls the first release out to everyone and waits until they run it.
    pub fn first_release(&self) -> Result<()> {
        self.publish("digits/v1")?;
        let rollout = self.server.roll_out("digits@1.0.0", ALL_AT_ONCE)?;
        self.server.until_rollout_is(rollout, "completed", PATIENCE)?;
        Ok(())
    }

    /// How many devices answer with this version.
    pub fn running(&self, version: &str) -> usize {
        self.devices.iter().filter(|device| device.runs(version)).count()
    }

    /// Ports of all gateways.
    pub fn gateways(&self) -> Vec<u16> {
        self.devices.iter().map(|device| device.gateway).collect()
    }

    /// Waits until a device has told the server something that contains all of `words`.
    pub fn until_told(&self, device: &str, words: &[&str]) -> Result<String> {
        crate::until(&format!("{device} tells of {words:?}"), PATIENCE, || {
            let events = self.server.events(device).ok()?;
            events.into_iter().find(|event| words.iter().all(|word| event.contains(word)))
        })
    }
}
