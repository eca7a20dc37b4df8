//! Values as `sled` keeps them: JSON, or as they came over the wire; what cannot be read is named.

use std::mem;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sled::Tree;

use super::StoreError;

pub(super) fn all<T: DeserializeOwned>(tree: &Tree, what: &'static str) -> Result<Vec<T>, StoreError> {
    let read = |entry: sled::Result<(sled::IVec, sled::IVec)>| {
        let (key, value) = entry?;
        from_json(what, &String::from_utf8_lossy(&key), &value)
    };
    tree.iter().map(read).collect()
}

pub(super) fn one<T: DeserializeOwned>(
    tree: &Tree,
    what: &'static str,
    name: &str,
) -> Result<Option<T>, StoreError> {
    tree.get(name)?.map(|value| from_json(what, name, &value)).transpose()
}

pub(super) fn json<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| unreadable(what, "", &error.to_string()))
}

pub(super) fn from_json<T: DeserializeOwned>(
    what: &'static str,
    name: &str,
    bytes: &[u8],
) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| unreadable(what, name, &error.to_string()))
}

pub(super) fn wire<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, StoreError> {
    postcard::to_allocvec(value).map_err(|error| unreadable(what, "", &error.to_string()))
}

/// Writes `value` behind what is in `into`.
pub(super) fn wire_to<T: Serialize>(
    what: &'static str,
    value: &T,
    into: &mut Vec<u8>,
) -> Result<(), StoreError> {
    let written = postcard::to_extend(value, mem::take(into));
    *into = written.map_err(|error| unreadable(what, "", &error.to_string()))?;
    Ok(())
}

pub(super) fn from_wire<'a, T: Deserialize<'a>>(
    what: &'static str,
    name: &str,
    bytes: &'a [u8],
) -> Result<T, StoreError> {
    postcard::from_bytes(bytes).map_err(|error| unreadable(what, name, &error.to_string()))
}

pub(super) fn unreadable(what: &'static str, name: &str, why: &str) -> StoreError {
    StoreError::Unreadable { what, name: name.into(), why: why.into() }
}
