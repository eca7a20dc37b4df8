//! Mosquitto, as an operator would run it.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::process::{Running, free_port};

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
