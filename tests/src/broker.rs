//! Mosquitto, as an operator would run it.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::bundles::{fleet, text};
use crate::certificates::Certificates;
use crate::process::{Running, free_port};
use crate::server::FLEET;

/// A Mosquitto broker on a free port.
pub struct Mosquitto {
    pub port: u16,
    folder: PathBuf,
    running: Running,
}

impl Mosquitto {
    /// Starts one whose state is kept in `folder`.
    pub fn start(folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let config = folder.join("mosquitto.conf");
        std::fs::write(
            &config,
            format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\n\
                 message_size_limit 270000\nmax_queued_messages 10000\nlog_type error\nlog_type warning\n"
            ),
        )?;
        let running = launch(folder, port)?;
        Ok(Self { port, folder: folder.into(), running })
    }

    /// Starts one as `serin-fleet broker` says, with mutual TLS and access rules.
    pub fn start_secure(folder: &Path, certificates: &Certificates) -> Result<Self> {
        let port = free_port()?;
        let files = folder.join("mosquitto");
        std::fs::create_dir_all(&files)?;
        for (from, to) in [
            (certificates.authority().join("ca.crt"), "ca.crt"),
            (certificates.authority().join("crl.pem"), "crl.pem"),
            (certificates.certificate("broker"), "broker.crt"),
            (certificates.key("broker"), "broker.key"),
        ] {
            std::fs::copy(from, files.join(to))?;
        }
        std::fs::write(files.join("serin.acl"), fleet(&["broker", "acl", "--fleet", FLEET])?)?;
        let printed = fleet(&["broker", "config", "--folder", text(&files), "--port", &port.to_string()])?;
        // Where this machine differs from one set up for it: the address, the folder, the user.
        let config = printed
            .replace(&format!("listener {port}"), &format!("listener {port} 127.0.0.1"))
            .replace("/var/lib/mosquitto/", &format!("{}/", text(&files)));
        std::fs::write(folder.join("mosquitto.conf"), format!("{config}user root\nlog_type all\n"))?;
        let running = launch(folder, port)?;
        Ok(Self { port, folder: folder.into(), running })
    }

    /// Gives it the authority's list of revoked certificates anew, as an operator would, and restarts it.
    pub fn take_list(&mut self, certificates: &Certificates) -> Result<()> {
        let list = certificates.authority().join("crl.pem");
        std::fs::copy(list, self.folder.join("mosquitto/crl.pem"))?;
        self.running.stop();
        self.running = launch(&self.folder, self.port)?;
        Ok(())
    }

    /// Everything it said so far.
    pub fn said(&self) -> String {
        self.running.said()
    }

    /// Pulls the plug and starts it again: it keeps nothing.
    pub fn crash_and_restart(&mut self) -> Result<()> {
        self.running.kill();
        self.running = launch(&self.folder, self.port)?;
        Ok(())
    }
}

fn launch(folder: &Path, port: u16) -> Result<Running> {
    // Debian keeps it where only root's path leads.
    let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"];
    let program = program.iter().find(|path| Path::new(path).exists()).copied().unwrap_or("mosquitto");
    let mut command = Command::new(program);
    command.arg("-c").arg(folder.join("mosquitto.conf"));
    let mut running = Running::start(&mut command, &folder.join("mosquitto.log"))?;
    crate::until("mosquitto listens", Duration::from_secs(10), || {
        TcpStream::connect(("127.0.0.1", port))
            .ok()
            .map(drop)
            .or_else(|| (!running.is_running()).then_some(()))
    })?;
    anyhow::ensure!(running.is_running(), "mosquitto ended: {}", running.said());
    Ok(running)
}
