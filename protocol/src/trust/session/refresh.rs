//! The checks of each file in a refresh, in the order of the specification, sections 5.3 to 5.6.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;

use super::{Accepted, Session, Step};
use crate::trust::error::TrustError;
use crate::trust::metadata::{
    FileMeta, Role, RoleKeys, Root, Signable, Snapshot, Targets, Timestamp, check_hashes,
};
use crate::trust::signed::Metadata;

impl Session {
    /// Section 5.3: a new root is signed by the threshold of the trusted one and by its own, and its
    /// version is the next.
    pub(super) fn next_root(&mut self, bytes: &[u8]) -> Result<Accepted, TrustError> {
        if self.roots_read >= self.limits.roots {
            return Err(TrustError::EndlessRoots { limit: self.limits.roots });
        }
        let new = Metadata::<Root>::parse(&Role::Root, bytes)?;
        new.verify(&Role::Root, &self.root.keys, &self.root.roles.root)?;
        new.verify(&Role::Root, &new.signed.keys, &new.signed.roles.root)?;
        let (trusted, offered) = (self.root.version, new.signed.version);
        if offered <= trusted {
            return Err(TrustError::Rollback { role: Role::Root, trusted, offered });
        }
        if Some(offered) != trusted.next() {
            let expected = trusted.next().unwrap_or(trusted);
            return Err(TrustError::RootVersion { expected, found: offered });
        }
        // 5.3.11. A role lost a key: whoever held it may have signed absurdly high versions.
        let lost_key =
            |old: &RoleKeys, fresh: &RoleKeys| old.keyids.iter().any(|key| !fresh.keyids.contains(key));
        let (old, fresh) = (&self.root.roles, &new.signed.roles);
        let recovered =
            lost_key(&old.timestamp, &fresh.timestamp) || lost_key(&old.snapshot, &fresh.snapshot);
        let forget = if recovered { vec![Role::Timestamp, Role::Snapshot] } else { Vec::new() };
        self.root = new.signed;
        self.roots_read += 1;
        if self.root.version.next().is_none() {
            self.end_of_roots()?;
        }
        Ok(Accepted { forget, keep: Some(Role::Root) })
    }

    /// Section 5.3.10: only the last root of the chain must not have expired.
    pub(super) fn end_of_roots(&mut self) -> Result<(), TrustError> {
        let (trusted, offered) = (self.root_floor, self.root.version);
        if offered < trusted {
            return Err(TrustError::Rollback { role: Role::Root, trusted, offered });
        }
        self.check_expiry(&Role::Root, self.root.expires)?;
        self.step = Step::LocalTimestamp;
        Ok(())
    }

    pub(super) fn local_timestamp(&mut self, bytes: Option<&[u8]>) {
        self.timestamp = bytes.and_then(|bytes| self.verified(&Role::Timestamp, bytes).ok());
        self.step = Step::FetchTimestamp;
    }

    /// Section 5.4.
    pub(super) fn fetched_timestamp(&mut self, bytes: &[u8]) -> Result<Accepted, TrustError> {
        let new: Timestamp = self.verified(&Role::Timestamp, bytes)?;
        let mut keep = Some(Role::Timestamp);
        if let Some(old) = &self.timestamp {
            if new.version < old.version {
                let (trusted, offered) = (old.version, new.version);
                return Err(TrustError::Rollback { role: Role::Timestamp, trusted, offered });
            }
            let (trusted, offered) = (old.meta.snapshot.version, new.meta.snapshot.version);
            if new.version == old.version {
                keep = None;
            } else if offered < trusted {
                return Err(TrustError::Rollback { role: Role::Snapshot, trusted, offered });
            }
        }
        let current = match (&self.timestamp, &keep) {
            (Some(old), None) => old,
            _ => &new,
        };
        self.check_expiry(&Role::Timestamp, current.expires)?;
        if keep.is_some() {
            self.timestamp = Some(new);
        }
        self.step = Step::LocalSnapshot;
        Ok(Accepted { forget: Vec::new(), keep })
    }

    /// A kept snapshot is a floor for every version it lists, whether or not it is still the current one.
    pub(super) fn local_snapshot(&mut self, bytes: Option<&[u8]>) {
        self.snapshot = bytes.and_then(|bytes| self.verified(&Role::Snapshot, bytes).ok());
        let wanted = self.timestamp.as_ref().map(|timestamp| timestamp.meta.snapshot.version);
        let current = self.snapshot.as_ref().is_some_and(|snapshot| {
            Some(snapshot.version) == wanted && self.check_expiry(&Role::Snapshot, snapshot.expires).is_ok()
        });
        self.step = if current { Step::top_level_targets() } else { Step::FetchSnapshot };
    }

    /// Section 5.5.
    pub(super) fn fetched_snapshot(&mut self, bytes: &[u8]) -> Result<Accepted, TrustError> {
        let meta = self.timestamp.as_ref().map(|timestamp| timestamp.meta.snapshot.clone());
        let meta = meta.ok_or(TrustError::OutOfTurn)?;
        check_listed(&Role::Snapshot, &Role::Timestamp, &meta, bytes)?;
        let new: Snapshot = self.verified(&Role::Snapshot, bytes)?;
        check_version(&Role::Snapshot, &Role::Timestamp, &meta, &new)?;
        for (file, old) in self.snapshot.iter().flat_map(|snapshot| &snapshot.meta) {
            let role = Role::named(file.strip_suffix(".json").unwrap_or(file));
            let Some(listed) = new.meta.get(file) else { return Err(TrustError::Disappeared { role }) };
            if listed.version < old.version {
                let (trusted, offered) = (old.version, listed.version);
                return Err(TrustError::Rollback { role, trusted, offered });
            }
        }
        self.check_expiry(&Role::Snapshot, new.expires)?;
        self.snapshot = Some(new);
        self.step = Step::top_level_targets();
        Ok(Accepted { forget: Vec::new(), keep: Some(Role::Snapshot) })
    }

    pub(super) fn local_targets(
        &mut self,
        role: Role,
        delegator: Role,
        bytes: Option<&[u8]>,
    ) -> Result<(), TrustError> {
        if self.listed(&role).is_none() {
            return Err(TrustError::MixAndMatch {
                role,
                by: Role::Snapshot,
                reason: "it is not listed".to_string(),
            });
        }
        if let Some(bytes) = bytes
            && self.accept_targets(role.clone(), delegator.clone(), bytes).is_ok()
        {
            return Ok(());
        }
        self.step = Step::FetchTargets { role, delegator };
        Ok(())
    }

    /// Section 5.6, for top-level and delegated targets alike.
    pub(super) fn accept_targets(
        &mut self,
        role: Role,
        delegator: Role,
        bytes: &[u8],
    ) -> Result<(), TrustError> {
        let unlisted = || TrustError::MixAndMatch {
            role: role.clone(),
            by: Role::Snapshot,
            reason: "it is not listed".into(),
        };
        let meta = self.listed(&role).cloned().ok_or_else(unlisted)?;
        check_listed(&role, &Role::Snapshot, &meta, bytes)?;
        let new: Targets = self.verified_by(&role, &delegator, bytes)?;
        check_version(&role, &Role::Snapshot, &meta, &new)?;
        check_delegations(&role, &new)?;
        self.check_expiry(&role, new.expires)?;
        self.targets.insert(role, (delegator, new));
        self.step = Step::Done;
        self.continue_lookup();
        Ok(())
    }

    fn verified<T: Signable>(&self, role: &Role, bytes: &[u8]) -> Result<T, TrustError> {
        self.verified_by(role, &Role::Root, bytes)
    }

    fn verified_by<T: Signable>(&self, role: &Role, delegator: &Role, bytes: &[u8]) -> Result<T, TrustError> {
        let metadata = Metadata::<T>::parse(role, bytes)?;
        let (keys, of) = self.keys_for(role, delegator).ok_or(TrustError::OutOfTurn)?;
        metadata.verify(role, keys, &of)?;
        Ok(metadata.signed)
    }
}

impl Step {
    pub(super) const fn top_level_targets() -> Self {
        Self::LocalTargets { role: Role::Targets, delegator: Role::Root }
    }
}

fn check_listed(role: &Role, by: &Role, meta: &FileMeta, bytes: &[u8]) -> Result<(), TrustError> {
    let mismatch = |reason: String| TrustError::MixAndMatch { role: role.clone(), by: by.clone(), reason };
    if let Some(length) = meta.length
        && length != bytes.len() as u64
    {
        return Err(mismatch(format!("{} bytes instead of {length}", bytes.len())));
    }
    meta.hashes.as_ref().map_or(Ok(()), |hashes| check_hashes(hashes, bytes).map_err(mismatch))
}

fn check_version(role: &Role, by: &Role, meta: &FileMeta, new: &impl Signable) -> Result<(), TrustError> {
    if new.version() == meta.version {
        return Ok(());
    }
    let reason = format!("version {} instead of {}", new.version(), meta.version);
    Err(TrustError::MixAndMatch { role: role.clone(), by: by.clone(), reason })
}

/// A delegation to a top-level role's name would let a delegate write that role's file; one to a name
/// given twice is ambiguous.
fn check_delegations(role: &Role, targets: &Targets) -> Result<(), TrustError> {
    let roles = targets.delegations.as_ref().map_or(&[][..], |delegations| &delegations.roles);
    let malformed = |reason: String| TrustError::Malformed { role: role.clone(), reason };
    for (index, delegated) in roles.iter().enumerate() {
        let name = &delegated.name;
        if name.is_empty() || !matches!(Role::named(name), Role::Delegated(_)) {
            return Err(malformed(format!("it delegates to the name {name:?}")));
        }
        if roles.iter().take(index).any(|earlier| earlier.name == *name) {
            return Err(malformed(format!("it delegates to {name:?} twice")));
        }
        if delegated.paths.is_some() == delegated.path_hash_prefixes.is_some() {
            return Err(malformed(format!(
                "delegation {name:?} must have either paths or path_hash_prefixes"
            )));
        }
    }
    Ok(())
}
