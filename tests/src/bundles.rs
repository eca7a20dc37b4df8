//! Packed and signed releases of the fixture models, made by the real command line, once per lab.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::program;
use crate::server::Server;

/// Where the fixture models are.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// One who holds every key of a repository, with bundles and trust folder in one folder.
pub struct Owner {
    folder: PathBuf,
}

impl Owner {
    /// An owner whose files are in `folder`.
    pub fn new(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let owner = Self { folder: folder.into() };
        for name in ["root", "targets", "owner"] {
            fleet(&["keys", "generate", "--out", text(&owner.key(name))])?;
        }
        Ok(owner)
    }

    /// The private key of `root`, `targets` or `owner`.
    pub fn key(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder of signed metadata.
    pub fn trust(&self) -> PathBuf {
        self.folder.join("trust")
    }

    /// The root that devices are shipped with.
    pub fn root(&self) -> PathBuf {
        self.trust().join("metadata/1.root.json")
    }

    /// Begins the repository of this server: the owner speaks for the model `digits`.
    pub fn begin(&self, server: &Server) -> Result<()> {
        std::fs::write(self.folder.join("online.json"), server.get("/api/v1/trust/online")?)?;
        let public = |name: &str| self.key(name).with_added_extension("pub");
        let [root, targets, owner] = ["root", "targets", "owner"].map(public);
        let online = self.folder.join("online.json");
        let keys = ["--root-keys", text(&root), "--targets-keys", text(&targets)];
        self.publisher(&[&["init", "--online", text(&online)], &keys[..]].concat())?;
        self.sign("root", "root")?;
        self.sign("targets", "targets")?;
        self.publisher(&["delegate", "digits", "--keys", text(&owner)])?;
        self.sign("targets", "targets")?;
        self.sign("digits", "owner")
    }

    /// Runs `serin-fleet trust`.
    pub fn publisher(&self, arguments: &[&str]) -> Result<String> {
        fleet(&[&["trust", "--trust", text(&self.trust())], arguments].concat())
    }

    /// Signs the draft of `role`, which must be enough.
    pub fn sign(&self, role: &str, key: &str) -> Result<()> {
        let said = self.publisher(&["sign", role, "--key", text(&self.key(key))])?;
        anyhow::ensure!(said.contains("complete"), "{said}");
        Ok(())
    }

    /// Packs and signs the fixture model `model` (such as `digits/v1`) and returns the bundle's path.
    pub fn release(&self, model: &str) -> Result<PathBuf> {
        self.release_changed(model, |_| Ok(()))
    }

    /// The same after `change` in a copy of its folder.
    pub fn release_changed(&self, model: &str, change: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let bundle = self.pack_changed(model, change)?;
        let (key, trust) = (self.key("owner"), self.trust());
        fleet(&["release", "sign", text(&bundle), "--key", text(&key), "--trust", text(&trust)])?;
        Ok(bundle)
    }

    /// The same with more lines before and behind those of its `serin.toml`.
    pub fn release_with(&self, model: &str, before: &str, behind: &str) -> Result<PathBuf> {
        self.release_changed(model, |folder| {
            let declaration = folder.join("serin.toml");
            let lines = std::fs::read_to_string(&declaration)?;
            Ok(std::fs::write(&declaration, format!("{before}\n{lines}\n{behind}"))?)
        })
    }

    /// Packs the fixture model `model` and returns the bundle's path.
    pub fn pack(&self, model: &str) -> Result<PathBuf> {
        self.pack_changed(model, |_| Ok(()))
    }

    fn pack_changed(&self, model: &str, change: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let source = self.folder.join(model.replace('/', "-"));
        copy_folder(&fixtures().join(model), &source)?;
        change(&source)?;
        let bundle = source.with_extension("serin");
        fleet(&["bundle", "pack", text(&source), "-o", text(&bundle)])?;
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

pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
