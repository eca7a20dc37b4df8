//! Metadata and drafts as files. `metadata/<version>.<role>.json` is signed by its threshold and never
//! changes; `staged/<role>.json` is the next version while it waits for signatures.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serin_protocol::topic::FileName;
use serin_protocol::trust::metadata::Signable;
use serin_protocol::trust::{KeyName, Metadata, Role, Root, TargetFile, Targets, TrustError};

use crate::durable;

/// Largest metadata file: one message of the embedded broker, which devices must be able to read.
pub const MAX_FILE_BYTES: u64 = 120 * 1024;

/// Something in a trust folder is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder is in use already.
    #[error("{} already holds a repository", .0.display())]
    Exists(PathBuf),
    /// There is no metadata of this role.
    #[error("there is no metadata of the role {0} here")]
    NoRole(Role),
    /// There is nothing to sign.
    #[error("no draft of {0} waits for signatures")]
    NoDraft(Role),
    /// A draft is not finished.
    #[error("a draft of {0} still waits for signatures")]
    Unfinished(Role),
    /// The key has no say in this role.
    #[error("key {key} may not sign {role}")]
    ForeignKey {
        /// The key.
        key: KeyName,
        /// The role.
        role: Role,
    },
    /// Two drafts of one version say different things.
    #[error("{} is another draft of {role} than the one here", path.display())]
    OtherDraft {
        /// The file.
        path: PathBuf,
        /// The role.
        role: Role,
    },
    /// Larger than devices accept.
    #[error("{role} would have {bytes} bytes, devices accept {MAX_FILE_BYTES}; withdraw old releases")]
    TooLarge {
        /// The role.
        role: Role,
        /// Its size.
        bytes: u64,
    },
    /// A name or number makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The metadata itself is refused.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

impl FolderError {
    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoRole(Role::Root) => Some("make a repository with `serin-fleet trust init`".into()),
            Self::NoRole(role @ Role::Delegated(_)) => {
                Some(format!("delegate to it with `serin-fleet trust delegate {role}`"))
            }
            Self::Unfinished(role) => {
                Some(format!("sign it with `serin-fleet trust sign {role} --key PATH`, or delete the draft"))
            }
            Self::ForeignKey { .. } => Some("`serin-fleet trust show` lists who may sign what".into()),
            _ => None,
        }
    }
}

/// How far a draft is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// So many distinct keys have signed, so many must.
    Waiting {
        /// Signatures that count.
        valid: usize,
        /// Signatures needed.
        threshold: usize,
    },
    /// It is the role's metadata now, in this file.
    Complete(PathBuf),
}

/// A publisher's folder.
#[derive(Clone, Debug)]
pub struct TrustFolder {
    path: PathBuf,
}

impl TrustFolder {
    /// The folder at `path`, which need not exist yet.
    pub fn at(path: &Path) -> Self {
        Self { path: path.into() }
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of all complete metadata files, roots first, then by name.
    pub fn files(&self) -> Result<Vec<String>, FolderError> {
        let mut names = names_in(&self.path.join("metadata"))?;
        names.retain(|name| split(name).is_some());
        names.sort_by_key(|name| {
            split(name).map(|(version, role)| (role != "root", role.to_owned(), version))
        });
        Ok(names)
    }

    /// What a server needs, in the order in which it can check it: all roots, the newest targets, the
    /// newest metadata of every owner.
    pub fn to_upload(&self) -> Result<Vec<String>, FolderError> {
        let mut newest = std::collections::BTreeMap::new();
        for name in self.files()? {
            if let Some((version, role)) = split(&name) {
                let rank = match role {
                    "root" => (0, version, String::new()),
                    "targets" => (1, 0, String::new()),
                    owner => (2, 0, owner.to_owned()),
                };
                let known = newest.entry(rank).or_insert((version, name.clone()));
                *known = known.clone().max((version, name));
            }
        }
        Ok(newest.into_values().map(|(_, name)| name).collect())
    }

    /// Bytes of a complete metadata file.
    pub fn file(&self, name: &str) -> Result<Vec<u8>, FolderError> {
        read(&self.path.join("metadata").join(name))
    }

    /// The newest metadata of `role`.
    pub fn newest<T: Signable>(&self, role: &Role) -> Result<Metadata<T>, FolderError> {
        let versions = self.files()?;
        let newest = versions
            .iter()
            .filter_map(|name| split(name).filter(|(_, of)| *of == role.as_str()).map(|at| (at.0, name)))
            .max();
        let (_, name) = newest.ok_or_else(|| FolderError::NoRole(role.clone()))?;
        Ok(Metadata::parse(role, &self.file(name)?)?)
    }

    /// The draft of `role`, if one waits.
    pub fn draft<T: Signable>(&self, role: &Role) -> Result<Option<Metadata<T>>, FolderError> {
        let path = self.draft_path(role);
        if !path.exists() {
            return Ok(None);
        }
        Ok(Some(Metadata::parse(role, &read(&path)?)?))
    }

    /// Roles with a draft, by name.
    pub fn drafts(&self) -> Result<Vec<Role>, FolderError> {
        let names = names_in(&self.path.join("staged"))?;
        let mut roles: Vec<Role> =
            names.iter().filter_map(|name| name.strip_suffix(".json").map(Role::named)).collect();
        roles.sort();
        Ok(roles)
    }

    /// Stages `content` as the next version of `role`; a draft that waits already is an error.
    pub fn stage<T: Signable>(&self, role: &Role, content: T) -> Result<(), FolderError> {
        if self.draft_path(role).exists() {
            return Err(FolderError::Unfinished(role.clone()));
        }
        let draft = Metadata::unsigned(role, content)?;
        self.keep(role, &draft)
    }

    /// The newest root, or the draft of the first.
    pub(super) fn root(&self) -> Result<Root, FolderError> {
        match (self.newest::<Root>(&Role::Root), self.draft::<Root>(&Role::Root)?) {
            (Ok(root), _) => Ok(root.signed),
            (Err(FolderError::NoRole(_)), Some(draft)) => Ok(draft.signed),
            (Err(error), _) => Err(error),
        }
    }

    /// The target at `path`, as the complete metadata of `owner` lists it.
    pub fn listed(&self, owner: &Role, path: &str) -> Result<TargetFile, FolderError> {
        let metadata = self.newest::<Targets>(owner)?;
        for (keys, of) in self.signers_of(owner)? {
            metadata.verify(owner, &keys, &of)?;
        }
        let unlisted = || FolderError::Invalid(format!("{path} is not listed by {owner}"));
        metadata.signed.targets.get(path).cloned().ok_or_else(unlisted)
    }

    pub(super) fn keep<T: Signable>(&self, role: &Role, draft: &Metadata<T>) -> Result<(), FolderError> {
        let bytes = draft.to_bytes();
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(FolderError::TooLarge { role: role.clone(), bytes: bytes.len() as u64 });
        }
        write(&self.draft_path(role), &bytes)
    }

    /// Where the draft of `role` is, to be carried to those who sign.
    pub fn draft_path(&self, role: &Role) -> PathBuf {
        self.path.join("staged").join(format!("{role}.json"))
    }
}

/// Version and role in the name of a metadata file; nothing for other names.
pub(crate) fn split(name: &str) -> Option<(u64, &str)> {
    FileName::new(name).ok()?;
    let (version, role) = name.strip_suffix(".json")?.split_once('.')?;
    Some((version.parse().ok()?, role))
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FolderError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    // One byte more than allowed shows that there is more.
    let opened = fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    opened.map_err(|source| FolderError::Io { path: path.into(), source })?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(FolderError::Invalid(format!("{}: larger than {MAX_FILE_BYTES} bytes", path.display())));
    }
    Ok(bytes)
}

/// Replaces the file at `path` whole or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), FolderError> {
    durable::replace(path, bytes).map_err(|source| FolderError::Io { path: path.into(), source })
}

/// Names of the files in `folder`; none when it is not there.
fn names_in(folder: &Path) -> Result<Vec<String>, FolderError> {
    let failed = |source| FolderError::Io { path: folder.into(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let names = entries.map(|entry| Ok(entry.map_err(failed)?.file_name().into_string().unwrap_or_default()));
    names.collect()
}
