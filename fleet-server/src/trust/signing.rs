//! Signatures on drafts: made here, merged from elsewhere, and counted. A draft with enough of them becomes the
//! role's metadata.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ed25519_dalek::SigningKey;
use serin_protocol::envelope::PublicKey;
use serin_protocol::trust::metadata::Signable;
use serin_protocol::trust::signed::Signature;
use serin_protocol::trust::{Key, KeyName, Metadata, MetadataVersion, Role, RoleKeys, Root, Targets};

use super::folder::{FolderError, Standing, TrustFolder, read, write};

type KeyTable = BTreeMap<KeyName, Key>;

impl TrustFolder {
    /// Adds the signature of `key` to the draft of `role`.
    pub fn sign(&self, role: &Role, key: &SigningKey) -> Result<Standing, FolderError> {
        match role {
            Role::Root => self.sign_as::<Root>(role, key),
            _ => self.sign_as::<Targets>(role, key),
        }
    }

    fn sign_as<T: Signable>(&self, role: &Role, key: &SigningKey) -> Result<Standing, FolderError> {
        let mut draft: Metadata<T> = self.draft(role)?.ok_or_else(|| FolderError::NoDraft(role.clone()))?;
        self.is_next(
            role,
            draft.signed.version(),
            self.newest::<T>(role).map(|newest| newest.signed.version()),
        )?;
        let name = Key::ed25519(&PublicKey::of(key)).name();
        if !self.signers_of(role)?.iter().any(|(_, of)| of.keyids.contains(&name)) {
            return Err(FolderError::ForeignKey { key: name, role: role.clone() });
        }
        draft.sign(role, key)?;
        self.keep(role, &draft)?;
        self.settle::<T>(role)
    }

    /// Takes over the signatures in `file`, the same draft signed elsewhere. A draft that is not here yet
    /// is taken as it is.
    pub fn merge(&self, role: &Role, file: &Path) -> Result<Standing, FolderError> {
        match role {
            Role::Root => self.merge_as::<Root>(role, file),
            _ => self.merge_as::<Targets>(role, file),
        }
    }

    fn merge_as<T: Signable>(&self, role: &Role, file: &Path) -> Result<Standing, FolderError> {
        let theirs = Metadata::<T>::parse(role, &read(file)?)?;
        let mut ours = match self.draft::<T>(role)? {
            Some(ours) => ours,
            None => self.next_from_elsewhere(role, theirs.clone())?,
        };
        if ours.canonical(role)? != theirs.canonical(role)? {
            return Err(FolderError::OtherDraft { path: file.into(), role: role.clone() });
        }
        // A root says itself who signs it, so it must be here first.
        if !self.draft_path(role).exists() {
            let mut bare = ours.clone();
            bare.signatures.clear();
            self.keep(role, &bare)?;
        }
        ours.signatures = self.valid(role, &ours, ours.signatures.iter().chain(&theirs.signatures))?;
        self.keep(role, &ours)?;
        self.settle::<T>(role)
    }

    /// Of `signatures` those of keys that may sign `role` and did sign `draft`, one of each.
    fn valid<'a, T: Signable>(
        &self,
        role: &Role,
        draft: &Metadata<T>,
        signatures: impl Iterator<Item = &'a Signature>,
    ) -> Result<Vec<Signature>, FolderError> {
        let message = draft.canonical(role)?;
        let of = self.signers_of(role)?;
        let verifies = |signature: &Signature| {
            let keys = of.iter().filter(|(_, of)| of.keyids.contains(&signature.keyid));
            let mut keys = keys.filter_map(|(keys, _)| keys.get(&signature.keyid)?.verifier());
            keys.any(|key| key.verifies(&message, &signature.sig))
        };
        let mut valid: Vec<Signature> = Vec::new();
        for signature in signatures.filter(|signature| verifies(signature)) {
            if valid.iter().all(|one| one.keyid != signature.keyid) {
                valid.push(signature.clone());
            }
        }
        Ok(valid)
    }

    /// `draft`, if it would be the next version of `role`.
    fn next_from_elsewhere<T: Signable>(
        &self,
        role: &Role,
        draft: Metadata<T>,
    ) -> Result<Metadata<T>, FolderError> {
        let newest = self.newest::<T>(role).map(|newest| newest.signed.version());
        self.is_next(role, draft.signed.version(), newest)?;
        Ok(draft)
    }

    /// Whether `version` comes next after `newest`, if there is one. A file from elsewhere could say any.
    fn is_next(
        &self,
        role: &Role,
        version: MetadataVersion,
        newest: Result<MetadataVersion, FolderError>,
    ) -> Result<(), FolderError> {
        let next = match newest {
            Ok(newest) => newest.next(),
            Err(FolderError::NoRole(_)) => Some(MetadataVersion::FIRST),
            Err(error) => return Err(error),
        };
        if Some(version) == next {
            return Ok(());
        }
        let folder = self.path().display();
        Err(FolderError::Invalid(format!(
            "version {version} of {role} is not the one after that in {folder}"
        )))
    }

    /// Whether what `role` has signed would no longer count under the keys that count from the drafts on.
    pub(super) fn outdated(&self, role: &Role) -> Result<bool, FolderError> {
        let newest = match self.newest::<Targets>(role) {
            Ok(newest) => newest,
            Err(FolderError::NoRole(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        let of = self.signers_of(role)?;
        Ok(of.iter().any(|(keys, of)| newest.verify(role, keys, of).is_err()))
    }

    /// Makes the draft the role's metadata once every threshold is reached.
    fn settle<T: Signable>(&self, role: &Role) -> Result<Standing, FolderError> {
        let draft: Metadata<T> = self.draft(role)?.ok_or_else(|| FolderError::NoDraft(role.clone()))?;
        for (keys, of) in self.signers_of(role)? {
            let valid = draft.signers(role, &keys, &of)?.len();
            let threshold = of.threshold.get() as usize;
            if valid < threshold {
                return Ok(Standing::Waiting { valid, threshold });
            }
        }
        let name = format!("{}.{role}.json", draft.signed.version());
        let path = self.path().join("metadata").join(name);
        write(&path, &draft.to_bytes())?;
        let staged = self.draft_path(role);
        fs::remove_file(&staged).map_err(|source| FolderError::Io { path: staged, source })?;
        Ok(Standing::Complete(path))
    }

    /// Who must sign the draft of `role`, each with its threshold: for a root the keys of the root before
    /// it and its own (specification, section 5.3.4).
    pub(super) fn signers_of(&self, role: &Role) -> Result<Vec<(KeyTable, RoleKeys)>, FolderError> {
        match role {
            Role::Root => {
                let draft = self.draft::<Root>(role)?.ok_or_else(|| FolderError::NoDraft(role.clone()))?;
                let mut roots = vec![draft.signed];
                match self.newest::<Root>(role) {
                    Ok(before) => roots.push(before.signed),
                    Err(FolderError::NoRole(_)) => {}
                    Err(error) => return Err(error),
                }
                Ok(roots.into_iter().map(|root| (root.keys, root.roles.root)).collect())
            }
            // A draft above it counts already: what is signed now comes after it.
            Role::Targets => {
                let root = match self.draft::<Root>(&Role::Root)? {
                    Some(draft) => draft.signed,
                    None => self.root()?,
                };
                Ok(vec![(root.keys, root.roles.targets)])
            }
            Role::Delegated(name) => {
                let delegations = match self.draft::<Targets>(&Role::Targets)? {
                    Some(draft) => draft.signed.delegations,
                    None => self.newest::<Targets>(&Role::Targets)?.signed.delegations,
                };
                let delegations = delegations.unwrap_or_default();
                let of = delegations.keys_of(name).ok_or_else(|| FolderError::NoRole(role.clone()))?;
                Ok(vec![(delegations.keys, of)])
            }
            Role::Timestamp | Role::Snapshot => {
                Err(FolderError::Invalid(format!("{role} is signed by the server, not here")))
            }
        }
    }
}
