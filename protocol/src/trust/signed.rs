//! The envelope around metadata, `{signatures, signed}`, and the counting of signatures against a
//! threshold (specification, section 4.2).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::canonical::to_canonical;
use super::error::TrustError;
use super::key::{self, Key, KeyName, Verifier};
use super::metadata::{Role, RoleKeys, Signable};
use crate::envelope::PublicKey;

/// Most signatures on one file: a check of one costs up to a millisecond on a small device.
pub const MAX_SIGNATURES: usize = 64;

/// One signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The key that made it.
    pub keyid: KeyName,
    /// The signature in hexadecimal.
    pub sig: String,
}

/// A metadata file: what is signed, and by whom. Reading one checks its form and nothing else; call
/// [`Metadata::verify`] before believing it.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata<T> {
    /// The content.
    pub signed: T,
    /// The signatures, as they stand in the file.
    pub signatures: Vec<Signature>,
    value: Value,
}

#[derive(Deserialize)]
struct File {
    signatures: Vec<Signature>,
    signed: Value,
}

#[derive(Serialize)]
struct FileOut<'a> {
    signatures: &'a [Signature],
    signed: &'a Value,
}

impl<T: Signable> Metadata<T> {
    /// Reads the file of `role`.
    pub fn parse(role: &Role, bytes: &[u8]) -> Result<Self, TrustError> {
        let malformed = |reason: String| TrustError::Malformed { role: role.clone(), reason };
        let File { signatures, signed: value } =
            serde_json::from_slice(bytes).map_err(|error| malformed(format!("{error}")))?;
        if signatures.len() > MAX_SIGNATURES {
            return Err(malformed(format!("{} signatures, at most {MAX_SIGNATURES}", signatures.len())));
        }
        let twice = |(at, signature): (usize, &Signature)| {
            signatures.iter().take(at).any(|earlier| earlier.keyid == signature.keyid)
        };
        if signatures.iter().enumerate().any(twice) {
            return Err(malformed("a key signs twice".into()));
        }
        let kind = value.get("_type").and_then(Value::as_str).unwrap_or_default();
        if kind != T::TYPE {
            return Err(malformed(format!("it is of type {kind:?}, not {:?}", T::TYPE)));
        }
        let specification = value.get("spec_version").and_then(Value::as_str).unwrap_or_default();
        if specification.split('.').next() != Some("1") {
            return Err(malformed(format!("specification version {specification:?}, not 1.x")));
        }
        let signed = T::deserialize(&value).map_err(|error| malformed(format!("{error}")))?;
        Ok(Self { signed, signatures, value })
    }

    /// Content that nobody has signed yet.
    pub fn unsigned(role: &Role, signed: T) -> Result<Self, TrustError> {
        let value = serde_json::to_value(&signed)
            .map_err(|error| TrustError::Malformed { role: role.clone(), reason: format!("{error}") })?;
        Ok(Self { signed, signatures: Vec::new(), value })
    }

    /// The bytes that signatures cover.
    pub fn canonical(&self, role: &Role) -> Result<Vec<u8>, TrustError> {
        to_canonical(&self.value)
            .map_err(|error| TrustError::Malformed { role: role.clone(), reason: format!("{error}") })
    }

    /// Adds a signature by `key`, or renews the one it made before.
    pub fn sign(&mut self, role: &Role, key: &SigningKey) -> Result<(), TrustError> {
        let keyid = Key::ed25519(&PublicKey::of(key)).name();
        let sig = key::sign(key, &self.canonical(role)?);
        self.signatures.retain(|signature| signature.keyid != keyid);
        self.signatures.push(Signature { keyid, sig });
        Ok(())
    }

    /// The file.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Strings, integers and maps with string keys always have a JSON form.
        serde_json::to_vec(&FileOut { signatures: &self.signatures, signed: &self.value }).unwrap_or_default()
    }

    /// The keys of `of` with a valid signature here, each counted once however often it is listed or
    /// signs, and under however many names.
    pub fn signers(
        &self,
        role: &Role,
        keys: &BTreeMap<KeyName, Key>,
        of: &RoleKeys,
    ) -> Result<Vec<KeyName>, TrustError> {
        let message = self.canonical(role)?;
        let mut counted: Vec<(KeyName, Verifier)> = Vec::new();
        for signature in &self.signatures {
            if !of.keyids.contains(&signature.keyid) {
                continue;
            }
            let Some(verifier) = keys.get(&signature.keyid).and_then(Key::verifier) else { continue };
            if counted.iter().all(|(_, other)| *other != verifier)
                && verifier.verifies(&message, &signature.sig)
            {
                counted.push((signature.keyid.clone(), verifier));
            }
        }
        Ok(counted.into_iter().map(|(name, _)| name).collect())
    }

    /// Succeeds when at least the threshold of distinct keys of `of` have signed.
    pub fn verify(
        &self,
        role: &Role,
        keys: &BTreeMap<KeyName, Key>,
        of: &RoleKeys,
    ) -> Result<(), TrustError> {
        let signers = self.signers(role, keys, of)?;
        if signers.len() >= of.threshold.get() as usize {
            return Ok(());
        }
        if signers.is_empty()
            && let Some(key) = self.foreign_signer(role, keys, of)?
        {
            return Err(TrustError::WrongRole { role: role.clone(), key });
        }
        let valid = u32::try_from(signers.len()).unwrap_or(u32::MAX);
        Err(TrustError::Arbitrary { role: role.clone(), valid, threshold: of.threshold.get() })
    }

    /// A key that is known and has signed this, but does not belong to the role.
    fn foreign_signer(
        &self,
        role: &Role,
        keys: &BTreeMap<KeyName, Key>,
        of: &RoleKeys,
    ) -> Result<Option<KeyName>, TrustError> {
        let message = self.canonical(role)?;
        let foreign = self.signatures.iter().find(|signature| {
            !of.keyids.contains(&signature.keyid)
                && keys
                    .get(&signature.keyid)
                    .and_then(Key::verifier)
                    .is_some_and(|verifier| verifier.verifies(&message, &signature.sig))
        });
        Ok(foreign.map(|signature| signature.keyid.clone()))
    }
}

/// `keys` as metadata lists them, by name.
pub fn key_table(keys: impl IntoIterator<Item = Key>) -> BTreeMap<KeyName, Key> {
    keys.into_iter().map(|key| (key.name(), key)).collect()
}

/// Keys of a role by name, with a threshold.
pub fn role_keys(keyids: impl IntoIterator<Item = KeyName>, threshold: core::num::NonZeroU32) -> RoleKeys {
    RoleKeys { keyids: keyids.into_iter().collect(), threshold, other: Map::new() }
}
