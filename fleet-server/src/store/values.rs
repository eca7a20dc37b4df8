//! Values as `sled` keeps them: JSON, or as they came over the wire; what cannot be read is named.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serin_protocol::message::Report;
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

pub(super) fn from_wire<'a, T: Deserialize<'a>>(
    what: &'static str,
    name: &str,
    bytes: &'a [u8],
) -> Result<T, StoreError> {
    postcard::from_bytes(bytes).map_err(|error| unreadable(what, name, &error.to_string()))
}

/// A report as on the wire, where it need not be moved any more.
pub(super) fn report_from_wire(device: &str, bytes: &[u8]) -> Result<Box<Report>, StoreError> {
    match Report::read(bytes) {
        Ok((report, _)) => Ok(report),
        Err(error) => Err(unreadable("report of", device, &error.to_string())),
    }
}

pub(super) fn unreadable(what: &'static str, name: &str, why: &str) -> StoreError {
    StoreError::Unreadable { what, name: name.into(), why: why.into() }
}
