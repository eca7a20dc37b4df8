//! Who else may speak for which targets (specification, section 4.5; augmentation proposal 15).

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::key::{Key, KeyName};
use super::metadata::RoleKeys;
use super::pattern;
use crate::ids::Digest;

/// Roles that speak for a part of the targets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Delegations {
    /// All keys by name.
    pub keys: BTreeMap<KeyName, Key>,
    /// The roles, in the order in which they are asked.
    #[serde(default)]
    pub roles: Vec<DelegatedRole>,
    /// Or many roles of equal rank, by hash of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succinct_roles: Option<SuccinctRoles>,
    /// Fields this program does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A role that speaks for the targets whose paths match.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DelegatedRole {
    /// Its name.
    pub name: String,
    /// Names of its keys.
    pub keyids: Vec<KeyName>,
    /// Distinct keys that must sign, at least 1.
    pub threshold: core::num::NonZeroU32,
    /// Whether nobody after it is asked about a path it matches.
    pub terminating: bool,
    /// Patterns of paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<String>>,
    /// Or prefixes of the SHA-256 of paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hash_prefixes: Option<Vec<String>>,
    /// Fields this program does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// 2^`bit_length` roles with the same keys, each for the paths whose SHA-256 begins with its number
/// (TUF augmentation proposal 15): what repositories with very many targets use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuccinctRoles {
    /// Names of their keys.
    pub keyids: Vec<KeyName>,
    /// Distinct keys that must sign, at least 1.
    pub threshold: core::num::NonZeroU32,
    /// Bits of the hash that select the role, 1 to 32.
    pub bit_length: u32,
    /// Names are `<name_prefix>-<number in hexadecimal>`.
    pub name_prefix: String,
    /// Fields this program does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl SuccinctRoles {
    /// The role that speaks for `path`; none when the number of bits makes no sense.
    pub fn role_for(&self, path: &str) -> Option<String> {
        let [first, second, third, fourth, ..] = Digest::of(path.as_bytes()).0;
        let unused = 32_u32.checked_sub(self.bit_length)?;
        let number = u32::from_be_bytes([first, second, third, fourth]).checked_shr(unused)?;
        Some(self.name(number))
    }

    fn name(&self, number: u32) -> String {
        // As many digits as the highest number has.
        let digits = self.bit_length.div_ceil(4) as usize;
        alloc::format!("{}-{number:0digits$x}", self.name_prefix)
    }

    /// Whether `name` is one of these roles.
    fn contains(&self, name: &str) -> bool {
        let number = name.strip_prefix(self.name_prefix.as_str()).and_then(|rest| rest.strip_prefix('-'));
        let number = number.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        number.is_some_and(|number| {
            (1..=32).contains(&self.bit_length)
                && u64::from(number) < 1 << self.bit_length
                && self.name(number) == name
        })
    }
}

impl DelegatedRole {
    /// Whether it speaks for `path`.
    pub fn covers(&self, path: &str) -> bool {
        let by_pattern = self.paths.iter().flatten().any(|pattern| pattern::matches(pattern, path));
        by_pattern || pattern::hash_matches(self.path_hash_prefixes.iter().flatten(), path)
    }
}

impl Delegations {
    /// The role of this name.
    pub fn role(&self, name: &str) -> Option<&DelegatedRole> {
        self.roles.iter().find(|role| role.name == name)
    }

    /// The keys of the role of this name.
    pub fn keys_of(&self, name: &str) -> Option<RoleKeys> {
        let (keyids, threshold) = match (self.role(name), &self.succinct_roles) {
            (Some(role), _) => (&role.keyids, role.threshold),
            (None, Some(bins)) if bins.contains(name) => (&bins.keyids, bins.threshold),
            _ => return None,
        };
        Some(RoleKeys { keyids: keyids.clone(), threshold, other: Map::new() })
    }

    /// The roles that speak for `path` in the order in which they are asked, and whether nobody is asked
    /// after them.
    pub fn covering(&self, path: &str) -> Vec<(String, bool)> {
        let listed = self.roles.iter().filter(|role| role.covers(path));
        let bin = self.succinct_roles.as_ref().and_then(|bins| bins.role_for(path));
        listed.map(|role| (role.name.clone(), role.terminating)).chain(bin.map(|name| (name, true))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_numbered_as_the_proposal_says() {
        let bins = |bit_length| SuccinctRoles {
            keyids: Vec::new(),
            threshold: core::num::NonZeroU32::MIN,
            bit_length,
            name_prefix: "bin".into(),
            other: Map::new(),
        };
        for (bits, path, name) in [
            (1, "boo", "bin-0"),
            (1, "too", "bin-1"),
            (2, "foo", "bin-0"),
            (2, "too", "bin-2"),
            (8, "bar", "bin-fc"),
        ] {
            assert_eq!(bins(bits).role_for(path).as_deref(), Some(name));
            assert!(bins(bits).contains(name));
        }
        for (bits, name) in
            [(2, "bin-4"), (8, "bin-f"), (8, "bin-FC"), (8, "bin-0fc"), (0, "bin-0"), (33, "bin-0")]
        {
            assert!(!bins(bits).contains(name), "{bits} {name}");
        }
        assert_eq!((bins(0).role_for("foo"), bins(33).role_for("foo")), (None, None));
    }
}
