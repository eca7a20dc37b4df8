//! What a draft changes, in words: nobody signs what they have not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use serin_protocol::trust::{DelegatedRole, Role, RoleKeys, Root, TargetFile, Targets};

use super::folder::{FolderError, TrustFolder};

impl TrustFolder {
    /// What the draft of `role` changes against its newest metadata, a line for each thing.
    pub fn changes(&self, role: &Role) -> Result<Vec<String>, FolderError> {
        let none = || FolderError::NoDraft(role.clone());
        match role {
            Role::Root => {
                let draft = self.draft::<Root>(role)?.ok_or_else(none)?.signed;
                Ok(of_root(known(self.newest::<Root>(role))?.map(|file| file.signed).as_ref(), &draft))
            }
            Role::Targets | Role::Delegated(_) | Role::Timestamp | Role::Snapshot => {
                let draft = self.draft::<Targets>(role)?.ok_or_else(none)?.signed;
                Ok(of_targets(known(self.newest::<Targets>(role))?.map(|file| file.signed).as_ref(), &draft))
            }
        }
    }
}

fn known<T>(newest: Result<T, FolderError>) -> Result<Option<T>, FolderError> {
    match newest {
        Ok(newest) => Ok(Some(newest)),
        Err(FolderError::NoRole(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn of_root(before: Option<&Root>, draft: &Root) -> Vec<String> {
    let mut lines = vec![
        moved("version", before.map(|root| root.version), draft.version),
        moved("expires", before.map(|root| root.expires), draft.expires),
    ];
    let roles = |root: &Root| {
        let of = &root.roles;
        let named = [
            ("root", &of.root),
            ("targets", &of.targets),
            ("snapshot", &of.snapshot),
            ("timestamp", &of.timestamp),
        ];
        named.map(|(name, of)| (name.to_owned(), signers(of)))
    };
    let old = before.map(|root| BTreeMap::from(roles(root))).unwrap_or_default();
    lines.extend(changed("signs for", &old, &BTreeMap::from(roles(draft))));
    let other = before.is_some_and(|root| {
        let mut same = draft.clone();
        (same.version, same.expires) = (root.version, root.expires);
        (same.roles, same.keys) = (root.roles.clone(), root.keys.clone());
        same != *root
    });
    lines.extend(other.then(|| "~ fields change that this program does not know".to_owned()));
    lines
}

fn of_targets(before: Option<&Targets>, draft: &Targets) -> Vec<String> {
    let mut lines = vec![
        moved("version", before.map(|targets| targets.version), draft.version),
        moved("expires", before.map(|targets| targets.expires), draft.expires),
    ];
    let listed = |targets: &Targets| -> BTreeMap<String, String> {
        targets.targets.iter().map(|(path, file)| (path.clone(), contents(file))).collect()
    };
    let floors = |targets: &Targets| -> BTreeMap<String, String> {
        targets.floor.iter().map(|(model, serial)| (model.clone(), format!("number {serial}"))).collect()
    };
    let owners = |targets: &Targets| -> BTreeMap<String, String> {
        let roles = targets.delegations.iter().flat_map(|delegations| &delegations.roles);
        roles.map(|role| (role.name.clone(), owner(role))).collect()
    };
    let old = |of: &dyn Fn(&Targets) -> BTreeMap<String, String>| before.map(of).unwrap_or_default();
    lines.extend(changed("lists", &old(&listed), &listed(draft)));
    lines.extend(changed("forbids what is older than", &old(&floors), &floors(draft)));
    lines.extend(changed("delegates to", &old(&owners), &owners(draft)));
    let order = |targets: &Targets| -> Vec<String> {
        let roles = targets.delegations.iter().flat_map(|delegations| &delegations.roles);
        roles.map(|role| role.name.clone()).collect()
    };
    let other = before.is_some_and(|targets| {
        let mut same = draft.clone();
        (same.version, same.expires) = (targets.version, targets.expires);
        (same.targets, same.floor) = (targets.targets.clone(), targets.floor.clone());
        let succinct = |of: &Targets| of.delegations.as_ref().and_then(|of| of.succinct_roles.clone());
        let reordered = order(draft) != order(targets) && owners(draft) == owners(targets);
        let hidden = reordered || succinct(draft) != succinct(targets);
        same.delegations.clone_from(&targets.delegations);
        hidden || same != *targets
    });
    lines.extend(other.then(|| "~ fields change that are not shown here".to_owned()));
    lines
}

fn moved<T: Copy + Display + PartialEq>(what: &str, before: Option<T>, now: T) -> String {
    match before {
        Some(before) if before == now => format!("  {what} {now}"),
        Some(before) => format!("~ {what} {before}, now {now}"),
        None => format!("+ {what} {now}"),
    }
}

fn changed(what: &str, before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let line = |name: &String| match (before.get(name), now.get(name)) {
        (Some(old), Some(new)) if old == new => None,
        (Some(old), Some(new)) => Some(format!("~ {what} {name}: {new}; before {old}")),
        (None, Some(new)) => Some(format!("+ {what} {name}: {new}")),
        (Some(old), None) => Some(format!("- {what} {name}: {old}")),
        (None, None) => None,
    };
    names.into_iter().filter_map(line).collect()
}

fn signers(of: &RoleKeys) -> String {
    let names: Vec<&str> = of.keyids.iter().map(serin_protocol::trust::KeyName::as_str).collect();
    format!("{} of {}", of.threshold, names.join(" "))
}

fn owner(role: &DelegatedRole) -> String {
    let names: Vec<&str> = role.keyids.iter().map(serin_protocol::trust::KeyName::as_str).collect();
    let paths = role.paths.iter().chain(&role.path_hash_prefixes).flatten().cloned().collect::<Vec<_>>();
    let last = if role.terminating { ", nobody after it is asked" } else { "" };
    format!("{} of {} for {}{last}", role.threshold, names.join(" "), paths.join(" "))
}

fn contents(file: &TargetFile) -> String {
    let digest = file.sha256().map_or_else(|| "without SHA-256".to_owned(), |digest| digest.to_string());
    format!("{digest}, {} bytes, number {}", file.length, file.serial())
}
