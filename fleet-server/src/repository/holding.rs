//! Uploaded metadata: roots in a chain without a gap, the newest targets, the newest of each owner. A file
//! is kept only when the keys that must sign it have signed it, and versions only grow.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serin_protocol::ids::{Digest, ReleaseId};
use serin_protocol::trust::layout::{FLEET_ROLE, statement_path};
use serin_protocol::trust::metadata::Signable;
use serin_protocol::trust::{
    Delegations, FileMeta, KeyName, Metadata, MetadataVersion, Role, Root, Snapshot, Targets, TrustError,
    UtcSeconds,
};

use crate::trust::FolderError;
use crate::trust::folder::{MAX_FILE_BYTES, read, split, write};

/// Metadata was refused or could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The files.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// It is not signed as it must be.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The name is none of a metadata file, or of one that the server makes itself.
    #[error("{0} is not the name of a metadata file that is uploaded")]
    Name(String),
    /// Something that must be there first is not.
    #[error("upload {0} first")]
    Before(&'static str),
    /// Another file of this version is kept already.
    #[error("version {version} of {role} is here with other contents")]
    Differs {
        /// Whose.
        role: Role,
        /// Which.
        version: MetadataVersion,
    },
    /// It would make this server unable to publish.
    #[error("the root does not name this server's key for {0}")]
    OtherServer(&'static str),
    /// All of it together would be refused by every device.
    #[error("not published, as devices would refuse it: {0}")]
    Refused(TrustError),
    /// Nobody delegates to this role.
    #[error("the targets metadata does not delegate to {0}")]
    NotDelegated(Role),
}

/// Names of the server's keys.
#[derive(Clone, Debug)]
pub struct ServerKeys {
    /// For snapshot.
    pub snapshot: Vec<KeyName>,
    /// For timestamp.
    pub timestamp: Vec<KeyName>,
}

/// What was uploaded.
pub(super) struct Holding {
    folder: PathBuf,
    roots: BTreeMap<MetadataVersion, Bytes>,
    newest: BTreeMap<Role, (MetadataVersion, Bytes)>,
}

impl Holding {
    pub(super) fn open(folder: &Path) -> Result<Self, RepositoryError> {
        let folder = folder.join("uploaded");
        let failed = |source: io::Error| FolderError::Io { path: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(failed)?;
        let mut holding = Self { folder: folder.clone(), roots: BTreeMap::new(), newest: BTreeMap::new() };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().into_string().unwrap_or_default();
            if let Some((version, role)) = parse_name(&name) {
                let bytes = read(&folder.join(&name))?;
                holding.remember(&role, version, bytes.into());
            }
        }
        Ok(holding)
    }

    fn remember(&mut self, role: &Role, version: MetadataVersion, bytes: Bytes) {
        if *role == Role::Root {
            self.roots.insert(version, bytes.clone());
        }
        let newer = self.newest.get(role).is_none_or(|(newest, _)| *newest < version);
        if newer {
            self.newest.insert(role.clone(), (version, bytes));
        }
    }

    pub(super) fn accept(
        &mut self,
        name: &str,
        bytes: &[u8],
        now: UtcSeconds,
        server: &ServerKeys,
    ) -> Result<(), RepositoryError> {
        let (version, role) = parse_name(name).ok_or_else(|| RepositoryError::Name(name.into()))?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(TrustError::EndlessData { role, limit: MAX_FILE_BYTES }.into());
        }
        let here = match &role {
            Role::Root => self.roots.get(&version),
            _ => self.newest.get(&role).filter(|(newest, _)| *newest == version).map(|(_, bytes)| bytes),
        };
        match here {
            Some(here) if here == bytes => return Ok(()),
            Some(_) => return Err(RepositoryError::Differs { role, version }),
            None => {}
        }
        match &role {
            Role::Root => self.check_root(version, bytes, server)?,
            Role::Targets => {
                let root = self.root()?;
                let metadata = self.check::<Targets>(&role, version, bytes, now)?;
                metadata.verify(&role, &root.keys, &root.roles.targets)?;
            }
            Role::Delegated(name) => {
                let delegations = self.delegations()?;
                let of = delegations.keys_of(name);
                let of = of.ok_or_else(|| RepositoryError::NotDelegated(role.clone()))?;
                self.check::<Targets>(&role, version, bytes, now)?.verify(&role, &delegations.keys, &of)?;
            }
            Role::Snapshot | Role::Timestamp => return Err(RepositoryError::Name(name.into())),
        }
        write(&self.folder.join(name), bytes)?;
        self.remember(&role, version, Bytes::copy_from_slice(bytes));
        Ok(())
    }

    /// The first root is taken from whoever holds the operator's token; every later one must follow from
    /// the one before. Devices decide for themselves anyway.
    fn check_root(
        &self,
        version: MetadataVersion,
        bytes: &[u8],
        server: &ServerKeys,
    ) -> Result<(), RepositoryError> {
        let role = Role::Root;
        let new = Metadata::<Root>::parse(&role, bytes)?;
        let expected = match self.newest.get(&role) {
            Some((newest, before)) => {
                let before = Metadata::<Root>::parse(&role, before)?.signed;
                new.verify(&role, &before.keys, &before.roles.root)?;
                newest.next()
            }
            None => Some(MetadataVersion::FIRST),
        };
        new.verify(&role, &new.signed.keys, &new.signed.roles.root)?;
        let found = new.signed.version;
        if found != version || Some(found) != expected {
            let expected = expected.unwrap_or(version);
            return Err(TrustError::RootVersion { expected, found }.into());
        }
        let roles = &new.signed.roles;
        for (what, of, keys) in [
            ("snapshot", &roles.snapshot, &server.snapshot),
            ("timestamp", &roles.timestamp, &server.timestamp),
        ] {
            if !keys.iter().any(|key| of.keyids.contains(key)) || of.threshold.get() > 1 {
                return Err(RepositoryError::OtherServer(what));
            }
        }
        Ok(())
    }

    fn check<T: Signable>(
        &self,
        role: &Role,
        version: MetadataVersion,
        bytes: &[u8],
        now: UtcSeconds,
    ) -> Result<Metadata<T>, RepositoryError> {
        let metadata = Metadata::<T>::parse(role, bytes)?;
        let offered = metadata.signed.version();
        if offered != version {
            let reason = format!("it is version {offered}");
            return Err(TrustError::MixAndMatch { role: role.clone(), by: role.clone(), reason }.into());
        }
        if let Some((trusted, _)) = self.newest.get(role)
            && offered < *trusted
        {
            return Err(TrustError::Rollback { role: role.clone(), trusted: *trusted, offered }.into());
        }
        let expires = metadata.signed.expires();
        if expires <= now {
            return Err(TrustError::Freeze { role: role.clone(), expires, now }.into());
        }
        Ok(metadata)
    }

    pub(super) fn root(&self) -> Result<Root, RepositoryError> {
        let (_, bytes) = self.newest.get(&Role::Root).ok_or(RepositoryError::Before("a root"))?;
        Ok(Metadata::<Root>::parse(&Role::Root, bytes)?.signed)
    }

    /// The root of this version.
    pub(super) fn root_of(&self, version: MetadataVersion) -> Result<Root, RepositoryError> {
        let bytes = self.roots.get(&version).ok_or(RepositoryError::Before("a root"))?;
        Ok(Metadata::<Root>::parse(&Role::Root, bytes)?.signed)
    }

    fn delegations(&self) -> Result<Delegations, RepositoryError> {
        let (_, bytes) = self.newest.get(&Role::Targets).ok_or(RepositoryError::Before("the targets"))?;
        Ok(Metadata::<Targets>::parse(&Role::Targets, bytes)?.signed.delegations.unwrap_or_default())
    }

    /// Whether the newest metadata of the model's owner, to whom targets still delegates, lists it.
    pub(super) fn lists(&self, id: &ReleaseId, statement: &Digest) -> bool {
        let owner = Role::named(id.model.as_str());
        let delegated =
            self.delegations().is_ok_and(|delegations| delegations.keys_of(owner.as_str()).is_some());
        let newest = self.newest.get(&owner).filter(|_| delegated);
        let targets = newest.and_then(|(_, bytes)| Metadata::<Targets>::parse(&owner, bytes).ok());
        let listed = targets.and_then(|metadata| metadata.signed.targets.get(&statement_path(id))?.sha256());
        listed == Some(*statement)
    }

    /// What a snapshot of all this says.
    pub(super) fn listing(&self) -> Result<BTreeMap<String, FileMeta>, RepositoryError> {
        self.root()?;
        self.delegations()?;
        let listed = self.newest.iter().filter(|(role, _)| **role != Role::Root);
        let listed = listed.map(|(role, (version, bytes))| (format!("{role}.json"), meta(*version, bytes)));
        Ok(listed.collect())
    }

    /// Deletes what is older than what `snapshot` lists: each owner's file would be kept for every release
    /// otherwise. Roots stay, devices follow them one by one.
    pub(super) fn forget_superseded(&self, snapshot: &Snapshot) -> Result<(), RepositoryError> {
        let failed = |source: io::Error| FolderError::Io { path: self.folder.clone(), source };
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().into_string().unwrap_or_default();
            let Some((version, role)) = parse_name(&name) else { continue };
            let listed = snapshot.meta.get(&format!("{role}.json"));
            if role != Role::Root && listed.is_some_and(|listed| version < listed.version) {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// All roots up to `root`, and the files that `snapshot` lists.
    pub(super) fn listed(&self, root: MetadataVersion, snapshot: &Snapshot) -> Vec<(String, Bytes)> {
        let roots = self.roots.range(..=root);
        let roots = roots.map(|(version, bytes)| (format!("{version}.root.json"), bytes.clone()));
        let listed = snapshot.meta.iter().filter_map(|(name, meta)| {
            let role = Role::named(name.strip_suffix(".json")?);
            Some((format!("{}.{name}", meta.version), self.of_version(&role, meta.version)?))
        });
        roots.chain(listed).collect()
    }

    fn of_version(&self, role: &Role, wanted: MetadataVersion) -> Option<Bytes> {
        match self.newest.get(role) {
            Some((version, bytes)) if *version == wanted => Some(bytes.clone()),
            // Something newer was uploaded and is not published yet.
            _ => read(&self.folder.join(format!("{wanted}.{role}.json"))).ok().map(Bytes::from),
        }
    }

    /// Who signs assignments by the targets that `snapshot` lists.
    pub(super) fn fleet_keys(&self, snapshot: &Snapshot) -> Result<Vec<KeyName>, RepositoryError> {
        let listed = snapshot.meta.get("targets.json").map(|meta| meta.version);
        let Some(bytes) = listed.and_then(|version| self.of_version(&Role::Targets, version)) else {
            return Ok(Vec::new());
        };
        let delegations = Metadata::<Targets>::parse(&Role::Targets, &bytes)?.signed.delegations;
        let of = delegations.and_then(|delegations| delegations.keys_of(FLEET_ROLE));
        Ok(of.map(|of| of.keyids).unwrap_or_default())
    }
}

/// What another file says about one of this version with these bytes.
pub(super) fn meta(version: MetadataVersion, bytes: &[u8]) -> FileMeta {
    let hashes = BTreeMap::from([("sha256".to_owned(), Digest::of(bytes).to_string())]);
    FileMeta {
        version,
        length: Some(bytes.len() as u64),
        hashes: Some(hashes),
        other: serde_json::Map::new(),
    }
}

fn parse_name(name: &str) -> Option<(MetadataVersion, Role)> {
    let (version, role) = split(name)?;
    let version = MetadataVersion(std::num::NonZeroU64::new(version)?);
    // One spelling per version.
    (name == format!("{version}.{role}.json")).then(|| (version, Role::named(role)))
}
