//! One refresh of the trusted metadata and the search for targets in it (specification, section 5): a
//! state machine that says which file it wants next, takes its bytes, and answers with what to keep.
//!
//! The time is fixed when the session begins. Files that were trusted before are asked for first: they
//! are floors for versions even when they have expired, and spare a transfer when they are still current.

mod lookup;
mod refresh;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use self::lookup::Lookup;
use super::delegation::Delegations;
use super::error::TrustError;
use super::key::Key;
use super::metadata::{
    FileMeta, MetadataVersion, Role, RoleKeys, Root, Snapshot, TargetFile, Targets, Timestamp,
};
use super::signed::Metadata;
use super::time::UtcSeconds;
use crate::envelope::PublicKey;

/// Largest files and longest chains a client takes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// New roots in one refresh; a longer chain goes on with the next refresh.
    pub roots: u32,
    /// Delegated roles on the way to one target.
    pub delegations: u32,
    /// Bytes of a root.
    pub root: u64,
    /// Bytes of a timestamp: a few hundred with one signature.
    pub timestamp: u64,
    /// Bytes of a snapshot.
    pub snapshot: u64,
    /// Bytes of targets metadata.
    pub targets: u64,
}

impl Limits {
    /// For a device, whose files arrive as one MQTT message of at most 120 KiB each.
    pub const DEVICE: Self = Self {
        roots: 1024,
        delegations: 32,
        root: 120 * 1024,
        timestamp: 16 * 1024,
        snapshot: 120 * 1024,
        targets: 120 * 1024,
    };
    /// For programs on larger machines that read any repository over HTTP.
    pub const HTTP: Self = Self {
        roots: 1024,
        delegations: 32,
        root: 512_000,
        timestamp: 16_384,
        snapshot: 2_000_000,
        targets: 5_000_000,
    };
}

/// What a session wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The trusted file of this role that was kept before, if there is one: answer with
    /// [`Session::local`].
    Local(Role),
    /// A file of the repository: answer with [`Session::fetched`] or [`Session::missing`].
    Fetch(Fetch),
    /// Nothing: the refresh is complete, or the search has its answer.
    Done,
}

/// A metadata file in the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Whose file.
    pub role: Role,
    /// The version in its name, `<version>.<role>.json`; without one it is `<role>.json`.
    pub version: Option<MetadataVersion>,
    /// Most bytes to read. Hand over what came up to one byte beyond and it is refused by name.
    pub limit: u64,
}

impl Fetch {
    /// The file's name, the role's name passed through `quote`, which makes it fit for a URL, a topic or
    /// a folder.
    pub fn file_name<S: core::fmt::Display>(&self, quote: impl FnOnce(&str) -> S) -> String {
        let role = quote(self.role.as_str());
        match self.version {
            Some(version) => alloc::format!("{version}.{role}.json"),
            None => alloc::format!("{role}.json"),
        }
    }
}

/// What to do with a file that was just handed over. The order matters: forget, then keep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Accepted {
    /// Files to delete durably, before anything is kept: the recovery from a fast-forward attack
    /// (section 5.3.11).
    pub forget: Vec<Role>,
    /// Keep the bytes as the trusted file of this role. None when they say nothing new.
    pub keep: Option<Role>,
}

/// A target that a trusted role lists.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The role that speaks for it.
    pub role: Role,
    /// Its path.
    pub path: String,
    /// Its size and hashes.
    pub file: TargetFile,
    /// Whether its file's name carries its hash.
    pub consistent_snapshot: bool,
}

impl Found {
    /// The path of its file below the repository's targets folder: with consistent snapshots the name
    /// is `<hash>.<name>` (section 3.6).
    pub fn file_path(&self) -> String {
        let hash = self.file.hashes.get("sha256").or_else(|| self.file.hashes.values().next());
        match (self.consistent_snapshot, hash, self.path.rsplit_once('/')) {
            (true, Some(hash), Some((folder, name))) => alloc::format!("{folder}/{hash}.{name}"),
            (true, Some(hash), None) => alloc::format!("{hash}.{}", self.path),
            _ => self.path.clone(),
        }
    }

    /// Succeeds when `bytes` are the target.
    pub fn check(&self, bytes: &[u8]) -> Result<(), TrustError> {
        self.file.check(bytes).map_err(|reason| TrustError::WrongTarget { path: self.path.clone(), reason })
    }
}

#[derive(Debug)]
enum Step {
    NextRoot,
    LocalTimestamp,
    FetchTimestamp,
    LocalSnapshot,
    FetchSnapshot,
    LocalTargets { role: Role, delegator: Role },
    FetchTargets { role: Role, delegator: Role },
    Done,
}

/// One refresh, and searches after it.
#[derive(Debug)]
pub struct Session {
    now: UtcSeconds,
    limits: Limits,
    root: Root,
    /// No refresh ends with an older root.
    root_floor: MetadataVersion,
    roots_read: u32,
    timestamp: Option<Timestamp>,
    snapshot: Option<Snapshot>,
    /// Targets metadata by role, with the role that delegated to it when it was verified.
    targets: BTreeMap<Role, (Role, Targets)>,
    step: Step,
    lookup: Option<Lookup>,
}

impl Session {
    /// Begins a refresh at `now` from a root that is trusted already: the one shipped with the device, or
    /// the last one kept. It must be signed by its own threshold; it may have expired.
    pub fn begin(root: &[u8], now: UtcSeconds, limits: Limits) -> Result<Self, TrustError> {
        let root = Metadata::<Root>::parse(&Role::Root, root)?;
        root.verify(&Role::Root, &root.signed.keys, &root.signed.roles.root)?;
        Ok(Self {
            now,
            limits,
            root: root.signed,
            root_floor: MetadataVersion::FIRST,
            roots_read: 0,
            timestamp: None,
            snapshot: None,
            targets: BTreeMap::new(),
            step: Step::NextRoot,
            lookup: None,
        })
    }

    /// The same, for who has trusted the root of this version before: a refresh whose chain ends below it
    /// fails. It is for clients whose kept root may have been damaged.
    #[must_use]
    pub fn not_below(mut self, root: MetadataVersion) -> Self {
        self.root_floor = root;
        self
    }

    /// What is wanted now.
    pub fn next(&self) -> Next {
        match &self.step {
            Step::NextRoot => Next::Fetch(Fetch {
                role: Role::Root,
                version: self.root.version.next(),
                limit: self.limits.root,
            }),
            Step::LocalTimestamp => Next::Local(Role::Timestamp),
            Step::FetchTimestamp => {
                Next::Fetch(Fetch { role: Role::Timestamp, version: None, limit: self.limits.timestamp })
            }
            Step::LocalSnapshot => Next::Local(Role::Snapshot),
            Step::FetchSnapshot => {
                let meta = self.timestamp.as_ref().map(|timestamp| &timestamp.meta.snapshot);
                Next::Fetch(self.fetch_listed(Role::Snapshot, meta, self.limits.snapshot))
            }
            Step::LocalTargets { role, .. } => Next::Local(role.clone()),
            Step::FetchTargets { role, .. } => {
                Next::Fetch(self.fetch_listed(role.clone(), self.listed(role), self.limits.targets))
            }
            Step::Done => Next::Done,
        }
    }

    /// Answers [`Next::Local`]. A kept file that no longer holds is no error: it is fetched anew.
    pub fn local(&mut self, bytes: Option<&[u8]>) -> Result<(), TrustError> {
        match core::mem::replace(&mut self.step, Step::Done) {
            Step::LocalTimestamp => self.local_timestamp(bytes),
            Step::LocalSnapshot => self.local_snapshot(bytes),
            Step::LocalTargets { role, delegator } => {
                return self.local_targets(role, delegator, bytes);
            }
            other => {
                self.step = other;
                return Err(TrustError::OutOfTurn);
            }
        }
        Ok(())
    }

    /// Answers [`Next::Fetch`] with the file's bytes. After an error the session is over; what was kept
    /// before it stays trusted.
    pub fn fetched(&mut self, bytes: &[u8]) -> Result<Accepted, TrustError> {
        if let Next::Fetch(fetch) = self.next()
            && bytes.len() as u64 > fetch.limit
        {
            return Err(TrustError::EndlessData { role: fetch.role, limit: fetch.limit });
        }
        match &self.step {
            Step::NextRoot => self.next_root(bytes),
            Step::FetchTimestamp => self.fetched_timestamp(bytes),
            Step::FetchSnapshot => self.fetched_snapshot(bytes),
            Step::FetchTargets { role, delegator } => {
                let (role, delegator) = (role.clone(), delegator.clone());
                self.accept_targets(role.clone(), delegator, bytes)?;
                Ok(Accepted { forget: Vec::new(), keep: Some(role) })
            }
            _ => Err(TrustError::OutOfTurn),
        }
    }

    /// Answers [`Next::Fetch`]: the repository does not have the file. That ends the chain of roots and
    /// is an error everywhere else.
    pub fn missing(&mut self) -> Result<(), TrustError> {
        match (&self.step, self.next()) {
            (Step::NextRoot, _) => self.end_of_roots(),
            (_, Next::Fetch(fetch)) => Err(TrustError::Missing { role: fetch.role }),
            _ => Err(TrustError::OutOfTurn),
        }
    }

    /// Begins the search for a target; it may want delegated roles' files. Valid once the refresh is
    /// [`Next::Done`].
    pub fn find(&mut self, path: &str) -> Result<(), TrustError> {
        if !matches!(self.step, Step::Done) || !self.targets.contains_key(&Role::Targets) {
            return Err(TrustError::OutOfTurn);
        }
        self.lookup = Some(Lookup::new(path));
        self.continue_lookup();
        Ok(())
    }

    /// The answer of the search, once it is [`Next::Done`]: the target, or that nobody who may speak for
    /// the path lists it.
    pub fn found(&self) -> Result<Found, TrustError> {
        let lookup = self.lookup.as_ref().ok_or(TrustError::OutOfTurn)?;
        let (role, file) = lookup.answer.clone().ok_or(TrustError::OutOfTurn)??;
        Ok(Found {
            role,
            path: lookup.path.clone(),
            file,
            consistent_snapshot: self.root.consistent_snapshot,
        })
    }

    /// Succeeds unless the role that speaks for this target, or one of those that delegated to it up to the
    /// top-level targets, has set a floor above it. A target `models/<model>/…` is below the floor of its model when its serial is.
    pub fn check_floor(&self, found: &Found) -> Result<(), TrustError> {
        let Some(model) = super::layout::model_of(&found.path) else { return Ok(()) };
        // Delegations may form a ring: whoever was verified is asked at most once.
        let step = |(role, _): &(&Role, &Targets)| self.verified_targets(&self.targets.get(*role)?.0);
        let speakers = core::iter::successors(self.verified_targets(&found.role), step);
        let speakers = speakers.take(self.targets.len()).map(|(_, targets)| targets);
        let floor = speakers.filter_map(|targets| targets.floor.get(model)).max().copied();
        let (serial, floor) = (found.file.serial(), floor.unwrap_or_default());
        if serial < floor {
            return Err(TrustError::BelowFloor { path: found.path.clone(), serial, floor });
        }
        Ok(())
    }

    /// The trusted root.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The trusted timestamp, once it is known.
    pub fn timestamp(&self) -> Option<&Timestamp> {
        self.timestamp.as_ref()
    }

    /// The trusted snapshot, once it is known.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// The trusted targets metadata of `role`, once it was needed.
    pub fn targets(&self, role: &Role) -> Option<&Targets> {
        self.targets.get(role).map(|(_, targets)| targets)
    }

    fn verified_targets(&self, role: &Role) -> Option<(&Role, &Targets)> {
        self.targets.get_key_value(role).map(|(role, (_, targets))| (role, targets))
    }

    /// The Ed25519 keys that may sign for the role `name`, to which top-level targets delegates.
    /// Empty when it does not, and when more than one key must sign: what they sign carries one signature.
    pub fn delegated_keys(&self, name: &str) -> Vec<PublicKey> {
        let delegations = self.targets(&Role::Targets).and_then(|targets| targets.delegations.as_ref());
        let Some((delegations, role)) = delegations.and_then(|all| all.role(name).map(|role| (all, role)))
        else {
            return Vec::new();
        };
        if role.threshold.get() > 1 {
            return Vec::new();
        }
        role.keyids.iter().filter_map(|name| delegations.keys.get(name)?.as_ed25519()).collect()
    }

    fn fetch_listed(&self, role: Role, meta: Option<&FileMeta>, cap: u64) -> Fetch {
        let limit = meta.and_then(|meta| meta.length).map_or(cap, |length| length.min(cap));
        let version = meta.map(|meta| meta.version).filter(|_| self.root.consistent_snapshot);
        Fetch { role, version, limit }
    }

    /// What the snapshot says about `role`.
    fn listed(&self, role: &Role) -> Option<&FileMeta> {
        self.snapshot.as_ref()?.meta.get(&alloc::format!("{role}.json"))
    }

    fn check_expiry(&self, role: &Role, expires: UtcSeconds) -> Result<(), TrustError> {
        if expires <= self.now {
            return Err(TrustError::Freeze { role: role.clone(), expires, now: self.now });
        }
        Ok(())
    }

    /// The keys that `delegator` gives to `role`.
    fn keys_for(&self, role: &Role, delegator: &Role) -> Option<(&BTreeMap<super::KeyName, Key>, RoleKeys)> {
        let roles = &self.root.roles;
        let top = match role {
            Role::Root => &roles.root,
            Role::Timestamp => &roles.timestamp,
            Role::Snapshot => &roles.snapshot,
            Role::Targets => &roles.targets,
            Role::Delegated(name) => {
                let delegations: &Delegations = self.targets(delegator)?.delegations.as_ref()?;
                return Some((&delegations.keys, delegations.keys_of(name)?));
            }
        };
        Some((&self.root.keys, top.clone()))
    }
}

#[cfg(test)]
mod tests;
