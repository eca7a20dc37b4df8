//! A fleet's certificates, made by the real command line.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::bundles::{fleet, text};

/// An authority and what it issued, in one folder: `ca/`, and every device's files by its name.
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// An authority with certificates for a fleet server and for a broker on this machine.
    pub fn new(folder: &Path) -> Result<Self> {
        let made = Self { folder: folder.into() };
        fleet(&["ca", "init", "--ca", text(&made.authority())])?;
        made.issue("serin-server", &["--host", "127.0.0.1"])?;
        made.issue("broker", &["--host", "127.0.0.1"])?;
        let server = made.server();
        std::fs::create_dir_all(&server)?;
        std::fs::copy(made.authority().join("ca.crt"), server.join("ca.crt"))?;
        std::fs::copy(made.certificate("serin-server"), server.join("server.crt"))?;
        std::fs::copy(made.key("serin-server"), server.join("server.key"))?;
        Ok(made)
    }

    /// The folder of the authority.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca")
    }

    /// The folder that a fleet server is given.
    pub fn server(&self) -> PathBuf {
        self.folder.join("server")
    }

    /// Makes a certificate.
    pub fn issue(&self, name: &str, more: &[&str]) -> Result<()> {
        let into = ["--ca", text(&self.authority()), "--out", text(&self.folder)].map(str::to_owned);
        let into: Vec<&str> = into.iter().map(String::as_str).collect();
        fleet(&[&["ca", "issue", name], &into[..], more].concat()).map(drop)
    }

    /// Takes a name's certificates back.
    pub fn revoke(&self, name: &str) -> Result<()> {
        fleet(&["ca", "revoke", name, "--ca", text(&self.authority())]).map(drop)
    }

    pub fn certificate(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.crt"))
    }

    pub fn key(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.key"))
    }

    /// The lines of a device's configuration.
    pub fn lines(&self, name: &str) -> String {
        format!(
            "broker.tls.ca = '{}'\nbroker.tls.certificate = '{}'\nbroker.tls.key = '{}'\n",
            text(&self.authority().join("ca.crt")),
            text(&self.certificate(name)),
            text(&self.key(name)),
        )
    }
}
