//! Documents: what rooms keep in forms of their own, by shelf and name. One tree holds them all, so that whatever is
//! changed together is there together, or not at all.

use sled::{Batch, Tree};

use super::StoreError;

/// Kinds of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    /// Alerts: where they stand, and the rules that operators added.
    Alerts,
    /// What happened to alerts.
    Notes,
    /// What is not delivered yet.
    Deliveries,
    /// Triggers of training.
    Triggers,
    /// What is known of review samples.
    Samples,
    /// Their contents, encrypted.
    SampleContents,
    /// Who looked at them.
    SampleViews,
    /// Devices that the broker still keeps something of and should not.
    Clearings,
}

impl Shelf {
    /// Never given to another kind.
    const fn number(self) -> u8 {
        match self {
            Self::Alerts => 1,
            Self::Notes => 2,
            Self::Deliveries => 3,
            Self::Triggers => 4,
            Self::Samples => 5,
            Self::SampleContents => 6,
            Self::SampleViews => 7,
            Self::Clearings => 8,
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentChange {
    /// Where.
    pub shelf: Shelf,
    /// Its name.
    pub name: String,
    /// The document; none takes it away.
    pub document: Option<Vec<u8>>,
}

impl DocumentChange {
    /// Puts `value` as JSON.
    pub fn put(
        shelf: Shelf,
        name: impl Into<String>,
        value: &impl serde::Serialize,
    ) -> Result<Self, StoreError> {
        let document = super::values::json("document", value)?;
        Ok(Self { shelf, name: name.into(), document: Some(document) })
    }

    /// Takes one away.
    pub fn remove(shelf: Shelf, name: impl Into<String>) -> Self {
        Self { shelf, name: name.into(), document: None }
    }
}

/// A name for a number, in whose order documents come.
pub fn numbered(number: u64) -> String {
    format!("{number:020}")
}

/// Reads a document that was put as JSON.
pub fn read<T: serde::de::DeserializeOwned>(name: &str, document: &[u8]) -> Result<T, StoreError> {
    super::values::from_json("document", name, document)
}

fn key(shelf: Shelf, name: &str) -> Vec<u8> {
    let mut key = vec![shelf.number()];
    key.extend(name.as_bytes());
    key
}

pub(super) fn put(tree: &Tree, changes: &[DocumentChange]) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    for DocumentChange { shelf, name, document } in changes {
        match document {
            Some(document) => batch.insert(key(*shelf, name), document.as_slice()),
            None => batch.remove(key(*shelf, name)),
        }
    }
    Ok(tree.apply_batch(batch)?)
}

pub(super) fn one(tree: &Tree, shelf: Shelf, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(tree.get(key(shelf, name))?.map(|bytes| bytes.to_vec()))
}

pub(super) fn all(tree: &Tree, shelf: Shelf) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let entries = tree.scan_prefix([shelf.number()]).map(|entry| {
        let (key, document) = entry?;
        let name = String::from_utf8_lossy(key.get(1..).unwrap_or_default()).into_owned();
        Ok((name, document.to_vec()))
    });
    entries.collect()
}
