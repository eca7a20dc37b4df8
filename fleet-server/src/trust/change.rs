//! What a publisher wants to change. Each change stages the next version of one role's metadata; nothing
//! counts before enough keys have signed it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use serde_json::Map;
use serin_protocol::ids::{ModelName, ReleaseId};
use serin_protocol::topic::FileName;
use serin_protocol::trust::layout::{FLEET_ROLE, bundle_path, statement_path};
use serin_protocol::trust::metadata::{Signable, TopLevelRoles};
use serin_protocol::trust::signed::{key_table, role_keys};
use serin_protocol::trust::{
    DelegatedRole, Delegations, Key, KeyName, MetadataVersion, Role, RoleKeys, Root, TargetFile, Targets,
    UtcSeconds,
};

use super::folder::{FolderError, TrustFolder};

/// Specification version written into metadata.
pub const SPEC_VERSION: &str = "1.0.31";

/// Most roles that targets delegates to: each is a file in the snapshot, which is one message.
pub const MAX_DELEGATIONS: usize = 256;

/// Until when new metadata holds.
#[derive(Clone, Copy, Debug)]
pub struct Expiry {
    /// Now.
    pub now: UtcSeconds,
    /// Days from now; without it 365 for root, 180 for targets, 90 for owners: the rarer the keys are
    /// taken out of the safe, the longer.
    pub days: Option<u32>,
}

impl Expiry {
    fn of(self, role: &Role) -> UtcSeconds {
        let usual = match role {
            Role::Root => 365,
            Role::Targets => 180,
            _ => 90,
        };
        self.now.plus_days(self.days.map_or(usual, i64::from))
    }
}

/// Keys that the server holds and which roles they sign, as the server prints them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Online {
    /// The keys by name.
    pub keys: BTreeMap<KeyName, Key>,
    /// Who signs snapshot.
    pub snapshot: Vec<KeyName>,
    /// Who signs timestamp.
    pub timestamp: Vec<KeyName>,
    /// Who signs assignments.
    pub fleet: Vec<KeyName>,
}

/// Offline keys of one role.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The keys.
    pub keys: Vec<Key>,
    /// How many must sign.
    pub threshold: NonZeroU32,
}

impl Keys {
    fn role(&self) -> Result<RoleKeys, FolderError> {
        enough(role_keys(key_table(self.keys.iter().cloned()).into_keys(), self.threshold))
    }
}

/// A change of who signs for a role.
#[derive(Clone, Debug, Default)]
pub struct Rotation {
    /// Keys that may sign from now on.
    pub add: Vec<Key>,
    /// Keys that may no longer.
    pub remove: Vec<KeyName>,
    /// How many must sign; as before without it.
    pub threshold: Option<NonZeroU32>,
}

impl Rotation {
    fn apply(&self, keys: &mut BTreeMap<KeyName, Key>, of: &mut RoleKeys) -> Result<(), FolderError> {
        if let Some(absent) = self.remove.iter().find(|name| !of.keyids.contains(name)) {
            return Err(FolderError::Invalid(format!("key {absent} does not sign for this role")));
        }
        of.keyids.retain(|name| !self.remove.contains(name));
        for (name, key) in key_table(self.add.iter().cloned()) {
            if !of.keyids.contains(&name) {
                of.keyids.push(name.clone());
            }
            keys.insert(name, key);
        }
        of.threshold = self.threshold.unwrap_or(of.threshold);
        *of = enough(of.clone())?;
        Ok(())
    }
}

/// A threshold that its keys can reach.
fn enough(of: RoleKeys) -> Result<RoleKeys, FolderError> {
    if of.keyids.len() < of.threshold.get() as usize {
        let (keys, threshold) = (of.keyids.len(), of.threshold);
        return Err(FolderError::Invalid(format!(
            "{threshold} signatures are needed and {keys} keys can sign"
        )));
    }
    Ok(of)
}

/// Keeps the keys that some role still names.
fn forget_unused<'a>(keys: &mut BTreeMap<KeyName, Key>, roles: impl Iterator<Item = &'a KeyName>) {
    let used: Vec<KeyName> = roles.cloned().collect();
    keys.retain(|name, _| used.contains(name));
}

impl TrustFolder {
    /// Stages the first root and the first targets, which delegates `assignments/*` to the server.
    pub fn begin(
        &self,
        root: &Keys,
        targets: &Keys,
        online: &Online,
        expiry: Expiry,
    ) -> Result<(), FolderError> {
        if !self.files()?.is_empty() || !self.drafts()?.is_empty() {
            return Err(FolderError::Exists(self.path().into()));
        }
        let one = |names: &[KeyName]| enough(role_keys(names.iter().cloned(), NonZeroU32::MIN));
        let roles = TopLevelRoles {
            root: root.role()?,
            timestamp: one(&online.timestamp)?,
            snapshot: one(&online.snapshot)?,
            targets: targets.role()?,
            other: Map::new(),
        };
        let offline = [&root.keys, &targets.keys].into_iter().flatten().cloned();
        let mut keys = key_table(offline);
        keys.extend(online.keys.clone());
        let named = [&roles.root, &roles.timestamp, &roles.snapshot, &roles.targets];
        forget_unused(&mut keys, named.iter().flat_map(|of| &of.keyids));
        if named.iter().flat_map(|of| &of.keyids).any(|name| !keys.contains_key(name)) {
            return Err(FolderError::Invalid("the server names a key that it does not show".into()));
        }
        self.stage(
            &Role::Root,
            Root {
                kind: "root".into(),
                spec_version: SPEC_VERSION.into(),
                version: MetadataVersion::FIRST,
                expires: expiry.of(&Role::Root),
                consistent_snapshot: true,
                keys,
                roles,
                other: Map::new(),
            },
        )?;
        let mut fleet_keys = online.keys.clone();
        forget_unused(&mut fleet_keys, online.fleet.iter());
        let fleet = delegated(FLEET_ROLE, &one(&online.fleet)?, "assignments/*");
        let mut first = empty(expiry.of(&Role::Targets));
        first.delegations =
            Some(Delegations { keys: fleet_keys, roles: vec![fleet], ..Delegations::default() });
        self.stage(&Role::Targets, first)
    }

    /// Stages targets with one more owner, who speaks for `models/<model>/*`, and the owner's first, empty
    /// metadata.
    pub fn delegate(&self, model: &ModelName, keys: &Keys, expiry: Expiry) -> Result<(), FolderError> {
        let role = owner(model)?;
        let mut targets = self.next_targets(&Role::Targets, expiry)?;
        let delegations = targets.delegations.get_or_insert_default();
        if delegations.role(role.as_str()).is_some() {
            return Err(FolderError::Invalid(format!(
                "{model} has an owner; `trust rotate {model}` changes keys"
            )));
        }
        if delegations.roles.len() >= MAX_DELEGATIONS {
            return Err(FolderError::Invalid(format!("more than {MAX_DELEGATIONS} owners")));
        }
        delegations.roles.push(delegated(role.as_str(), &keys.role()?, &format!("models/{model}/*")));
        delegations.keys.extend(key_table(keys.keys.iter().cloned()));
        self.stage(&Role::Targets, targets)?;
        // An owner who was undelegated goes on from the old version: versions never go back.
        match self.next_targets(&role, expiry) {
            Ok(again) => self.stage(&role, again),
            Err(FolderError::NoRole(_)) => self.stage(&role, empty(expiry.of(&role))),
            Err(error) => Err(error),
        }
    }

    /// Stages targets without the owner of `model`: from then on devices accept none of its releases.
    pub fn undelegate(&self, model: &ModelName, expiry: Expiry) -> Result<(), FolderError> {
        let role = owner(model)?;
        let mut targets = self.next_targets(&Role::Targets, expiry)?;
        let delegations = targets.delegations.get_or_insert_default();
        if delegations.role(role.as_str()).is_none() {
            return Err(FolderError::NoRole(role));
        }
        delegations.roles.retain(|delegated| delegated.name != role.as_str());
        let Delegations { keys, roles, .. } = delegations;
        forget_unused(keys, roles.iter().flat_map(|role| &role.keyids));
        self.stage(&Role::Targets, targets)
    }

    /// Stages what changes who signs for `role`: a new root for the top-level roles, new targets for an
    /// owner or the fleet server. If what the role has signed would count no longer, its next version is
    /// staged too, for the new keys to sign: published without it, nobody would follow.
    pub fn rotate(&self, role: &Role, rotation: &Rotation, expiry: Expiry) -> Result<(), FolderError> {
        if let Role::Delegated(name) = role {
            let mut targets = self.next_targets(&Role::Targets, expiry)?;
            let Delegations { keys, roles, .. } = targets.delegations.get_or_insert_default();
            let delegated = roles.iter_mut().find(|role| role.name == *name);
            let delegated = delegated.ok_or_else(|| FolderError::NoRole(role.clone()))?;
            let mut of = role_keys(delegated.keyids.clone(), delegated.threshold);
            rotation.apply(keys, &mut of)?;
            (delegated.keyids, delegated.threshold) = (of.keyids, of.threshold);
            forget_unused(keys, roles.iter().flat_map(|role| &role.keyids));
            self.stage(&Role::Targets, targets)?;
            return self.stage_again(role, expiry);
        }
        let mut root = self.newest::<Root>(&Role::Root)?.signed;
        let TopLevelRoles { root: roots, timestamp, snapshot, targets, .. } = &mut root.roles;
        let of = match role {
            Role::Root => &mut *roots,
            Role::Timestamp => &mut *timestamp,
            Role::Snapshot => &mut *snapshot,
            Role::Targets | Role::Delegated(_) => &mut *targets,
        };
        rotation.apply(&mut root.keys, of)?;
        let named = [&*roots, &*timestamp, &*snapshot, &*targets];
        forget_unused(&mut root.keys, named.into_iter().flat_map(|of| &of.keyids));
        root.version = following(role, root.version)?;
        root.expires = expiry.of(&Role::Root);
        self.stage(&Role::Root, root)?;
        if *role == Role::Targets { self.stage_again(role, expiry) } else { Ok(()) }
    }

    /// A draft that waits already is signed by the new keys as it is.
    fn stage_again(&self, role: &Role, expiry: Expiry) -> Result<(), FolderError> {
        if self.draft_path(role).exists() || !self.outdated(role)? {
            return Ok(());
        }
        let again = self.next_targets(role, expiry)?;
        self.stage(role, again)
    }

    /// Stages owner's metadata with one more release: its statement and its bundle.
    pub fn add_release(
        &self,
        id: &ReleaseId,
        statement: &[u8],
        bundle: TargetFile,
        expiry: Expiry,
    ) -> Result<Role, FolderError> {
        let role = owner(&id.model)?;
        let mut targets = self.next_targets(&role, expiry)?;
        let listed = targets.targets.get(&statement_path(id));
        if listed.is_some_and(|listed| listed.check(statement).is_err()) {
            return Err(FolderError::Invalid(format!(
                "{id} is listed with other contents; give it another version"
            )));
        }
        let highest = targets.targets.values().map(TargetFile::serial).chain(targets.floor.values().copied());
        let serial = listed.map_or_else(|| highest.max().unwrap_or_default().next(), TargetFile::serial);
        targets.targets.insert(statement_path(id), TargetFile::of(statement).with_serial(serial));
        targets.targets.insert(bundle_path(id), bundle);
        self.stage(&role, targets)?;
        Ok(role)
    }

    /// Stages the owner's metadata without this release.
    pub fn withdraw(&self, id: &ReleaseId, expiry: Expiry) -> Result<Role, FolderError> {
        let role = owner(&id.model)?;
        let mut targets = self.next_targets(&role, expiry)?;
        if targets.targets.remove(&statement_path(id)).is_none() {
            return Err(FolderError::Invalid(format!("{id} is not listed")));
        }
        targets.targets.remove(&bundle_path(id));
        self.stage(&role, targets)?;
        Ok(role)
    }

    /// Stages the owner's word that nothing released before `id` may be installed any more.
    pub fn set_floor(&self, id: &ReleaseId, expiry: Expiry) -> Result<Role, FolderError> {
        let role = owner(&id.model)?;
        let mut targets = self.next_targets(&role, expiry)?;
        let Some(listed) = targets.targets.get(&statement_path(id)) else {
            return Err(FolderError::Invalid(format!("{id} is not listed, so nothing could be installed")));
        };
        targets.floor.insert(id.model.to_string(), listed.serial());
        self.stage(&role, targets)?;
        Ok(role)
    }

    /// Stages the same content of `role` with a new expiry.
    pub fn renew(&self, role: &Role, expiry: Expiry) -> Result<(), FolderError> {
        if *role == Role::Root {
            return self.rotate(role, &Rotation::default(), expiry);
        }
        let targets = self.next_targets(role, expiry)?;
        self.stage(role, targets)
    }

    /// The newest targets metadata of `role` as its next version; none while a draft waits.
    fn next_targets(&self, role: &Role, expiry: Expiry) -> Result<Targets, FolderError> {
        if self.draft_path(role).exists() {
            return Err(FolderError::Unfinished(role.clone()));
        }
        let mut targets = self.newest::<Targets>(role)?.signed;
        targets.version = following(role, targets.version())?;
        targets.expires = expiry.of(role);
        Ok(targets)
    }
}

/// The role of a model's owner: it has the model's name, unless that is another role's.
pub fn owner(model: &ModelName) -> Result<Role, FolderError> {
    let role = Role::named(model.as_str());
    let free = matches!(role, Role::Delegated(_)) && model.as_str() != FLEET_ROLE;
    if !free || FileName::new(&format!("1.{model}.json")).is_err() {
        return Err(FolderError::Invalid(format!("a model named {model} cannot have an owner of its own")));
    }
    Ok(role)
}

fn following(role: &Role, version: MetadataVersion) -> Result<MetadataVersion, FolderError> {
    version.next().ok_or_else(|| FolderError::Invalid(format!("{role} has no versions left")))
}

fn delegated(name: &str, of: &RoleKeys, paths: &str) -> DelegatedRole {
    DelegatedRole {
        name: name.into(),
        keyids: of.keyids.clone(),
        threshold: of.threshold,
        terminating: true,
        paths: Some(vec![paths.into()]),
        path_hash_prefixes: None,
        other: Map::new(),
    }
}

fn empty(expires: UtcSeconds) -> Targets {
    Targets {
        kind: "targets".into(),
        spec_version: SPEC_VERSION.into(),
        version: MetadataVersion::FIRST,
        expires,
        targets: BTreeMap::new(),
        delegations: None,
        floor: BTreeMap::new(),
        other: Map::new(),
    }
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
