//! Packed and signed releases of the fixture models, made by the real command line, once per lab.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::program;

/// Where the fixture models are.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Keys and bundles of one owner, in one folder.
pub struct Owner {
    folder: PathBuf,
}

impl Owner {
    /// An owner whose files are in `folder`.
    pub fn new(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let owner = Self { folder: folder.into() };
        fleet(&["keys", "generate", "--out", text(&owner.key())])?;
        Ok(owner)
    }

    pub fn key(&self) -> PathBuf {
        self.folder.join("owner.key")
    }

    /// The public half, in hexadecimal.
    pub fn public(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.folder.join("owner.key.pub"))?.trim().to_owned())
    }

    /// Packs and signs the fixture model `model` (such as `digits/v1`) and returns the bundle's path.
    pub fn release(&self, model: &str) -> Result<PathBuf> {
        let source = self.folder.join(model.replace('/', "-"));
        copy_folder(&fixtures().join(model), &source)?;
        let bundle = source.with_extension("serin");
        fleet(&["bundle", "pack", text(&source), "-o", text(&bundle)])?;
        fleet(&["bundle", "sign", text(&bundle), "--key", text(&self.key())])?;
        Ok(bundle)
    }
}

/// Runs `serin-fleet`, which must succeed, and returns what it printed.
pub fn fleet(arguments: &[&str]) -> Result<String> {
    let output = Command::new(program("serin-fleet")?).args(arguments).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "serin-fleet {arguments:?}: {error}");
    String::from_utf8(output.stdout).context("not text")
}

/// A path as command line argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
