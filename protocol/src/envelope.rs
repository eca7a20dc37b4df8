//! The envelope around every message: `version byte · postcard {payload, key id, proof}`.
//!
//! The proof is a signature; of reports it may be a tag instead ([`crate::tag`]). What it is made over, the payload, is
//! itself `purpose byte · postcard(message)`, so that a proof made for one kind of message can never be taken for another.
//! Verification is `verify_strict` (no small-order keys, no malleable signatures).

use core::fmt;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::Digest;

/// First byte of every payload.
pub const WIRE_VERSION: u8 = 3;

/// Largest message inside an envelope, in bytes: a telemetry report.
pub const MAX_MESSAGE_BYTES: usize = 32 * 1024;

/// What an envelope adds to its payload: version, length, key id, proof, rounded up.
pub const OVERHEAD_BYTES: usize = 128;

/// A message that travels signed.
pub trait Signed: Serialize + for<'de> Deserialize<'de> {
    /// Domain separator, unique per kind of message, never reused.
    const PURPOSE: u8;
    /// Largest envelope of this kind in bytes.
    const MAX_BYTES: usize;
}

/// An Ed25519 public key: 32 bytes, hex in JSON and text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PublicKey(pub(crate) Digest);

/// SHA-256 of the public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(pub Digest);

impl PublicKey {
    /// The public half of `key`.
    pub fn of(key: &SigningKey) -> Self {
        Self(Digest(key.verifying_key().to_bytes()))
    }

    /// The name by which signatures refer to this key.
    pub fn id(&self) -> KeyId {
        KeyId(Digest::of(&self.0.0))
    }
}

impl core::str::FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes: Digest = text.parse().map_err(|_| KeyError::Text)?;
        VerifyingKey::from_bytes(&bytes.0).map_err(|_| KeyError::NotAPoint)?;
        Ok(Self(bytes))
    }
}

/// Why a text is not a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not hexadecimal of the right length.
    #[error("an Ed25519 public key is written as 64 lower-case hexadecimal digits")]
    Text,
    /// The bytes are no point of the curve.
    #[error("the bytes are not an Ed25519 public key")]
    NotAPoint,
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The keys that may sign one kind of message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRing<const N: usize>(heapless::Vec<PublicKey, N>);

impl<const N: usize> KeyRing<N> {
    /// A ring of `keys`, each counted once; `None` when there are more than `N`.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>) -> Option<Self> {
        let mut ring = heapless::Vec::<PublicKey, N>::new();
        for key in keys {
            if !ring.contains(&key) {
                ring.push(key).ok()?;
            }
        }
        Some(Self(ring))
    }

    /// The key named `id`.
    pub fn find(&self, id: &KeyId) -> Option<&PublicKey> {
        self.0.iter().find(|key| key.id() == *id)
    }

    /// The key, if there is one and no other.
    pub fn only(&self) -> Option<&PublicKey> {
        match self.0.as_slice() {
            [key] => Some(key),
            _ => None,
        }
    }
}

/// A message could not be put into an envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The message does not fit its size cap or the buffer.
    #[error("the message does not fit into {limit} bytes")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
    },
}

/// An envelope was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Larger than its kind may be.
    #[error("the message has {actual} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
        /// Bytes received.
        actual: usize,
    },
    /// Not a single byte.
    #[error("the message is empty")]
    Empty,
    /// A version this program does not speak.
    #[error("wire version {0} is not supported, only {WIRE_VERSION}")]
    Version(u8),
    /// The bytes are not what they should be.
    #[error("malformed message: {0}")]
    Malformed(postcard::Error),
    /// Something follows the message.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
    /// Signed by a key that may not sign this.
    #[error("signed by the unknown key {0}")]
    UnknownKey(KeyId),
    /// The signature is wrong.
    #[error("the signature of key {0} is wrong")]
    Signature(KeyId),
    /// Under a tag, where only a signature counts.
    #[error("under a tag, where only a signature counts")]
    Tagged,
    /// Under a tag that no key here can have made.
    #[error("tagged for the server key {0}, under which nothing is taken here")]
    UnknownServer(KeyId),
    /// The tag is wrong.
    #[error("the tag of key {0} is wrong")]
    Tag(KeyId),
    /// Signed for another purpose.
    #[error("signed for purpose {found}, expected {expected}")]
    Purpose {
        /// The purpose asked for.
        expected: u8,
        /// The purpose signed.
        found: u8,
    },
}

/// An Ed25519 signature.
pub(crate) struct Signature([u8; 64]);

impl Signature {
    /// Of `key` over `payload`.
    pub(crate) fn of(payload: &[u8], key: &SigningKey) -> Self {
        Self(key.sign(payload).to_bytes())
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor;
        impl Visitor<'_> for BytesVisitor {
            type Value = Signature;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Signature, E> {
                bytes.try_into().map(Signature).map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }
        deserializer.deserialize_bytes(BytesVisitor).map_err(D::Error::custom)
    }
}

/// What shows who made a payload. Append only: postcard numbers the variants.
#[derive(Serialize, Deserialize)]
pub(crate) enum Proof {
    /// By the device or the server.
    Signature(Signature),
    /// By the device, or by the server whose key this is ([`crate::tag`]).
    Tag {
        /// The server's key.
        server: KeyId,
        /// HMAC-SHA256 over the payload.
        tag: [u8; 32],
    },
}

/// All behind the version byte.
#[derive(Serialize, Deserialize)]
pub(crate) struct Envelope<'a> {
    pub(crate) payload: &'a [u8],
    /// Of the sender.
    pub(crate) key: KeyId,
    pub(crate) proof: Proof,
}

/// Signs `message` with `key` into `out`, using `scratch` for the payload; returns the envelope.
///
/// `scratch` and `out` need [`Signed::MAX_BYTES`] each.
pub fn seal<'a, T: Signed>(
    message: &T,
    key: &SigningKey,
    scratch: &mut [u8],
    out: &'a mut [u8],
) -> Result<&'a [u8], SealError> {
    let sign = |payload: &[u8]| Proof::Signature(Signature::of(payload, key));
    seal_proven(message, PublicKey::of(key).id(), sign, scratch, out)
}

/// [`seal`] with any proof, made over the payload.
pub(crate) fn seal_proven<'a, T: Signed>(
    message: &T,
    key: KeyId,
    prove: impl FnOnce(&[u8]) -> Proof,
    scratch: &mut [u8],
    out: &'a mut [u8],
) -> Result<&'a [u8], SealError> {
    let too_large = || SealError::TooLarge { limit: T::MAX_BYTES };
    let (purpose, body) = scratch.split_first_mut().ok_or_else(too_large)?;
    *purpose = T::PURPOSE;
    let length = 1 + postcard::to_slice(message, body).map_err(|_| too_large())?.len();
    let payload = scratch.get(..length).ok_or_else(too_large)?;
    write_envelope::<T>(&Envelope { payload, key, proof: prove(payload) }, out)
}

/// Writes the version and `envelope` into `out`.
pub(crate) fn write_envelope<'a, T: Signed>(
    envelope: &Envelope<'_>,
    out: &'a mut [u8],
) -> Result<&'a [u8], SealError> {
    let too_large = || SealError::TooLarge { limit: T::MAX_BYTES };
    let (version, body) = out.split_first_mut().ok_or_else(too_large)?;
    *version = WIRE_VERSION;
    let length = 1 + postcard::to_slice(envelope, body).map_err(|_| too_large())?.len();
    if length > T::MAX_BYTES {
        return Err(too_large());
    }
    out.get(..length).ok_or_else(too_large)
}

/// [`seal`] into a fresh vector.
#[cfg(feature = "alloc")]
pub fn seal_to_vec<T: Signed>(message: &T, key: &SigningKey) -> Result<alloc::vec::Vec<u8>, SealError> {
    let mut scratch = alloc::vec![0; T::MAX_BYTES];
    let mut out = alloc::vec![0; T::MAX_BYTES];
    let length = seal(message, key, &mut scratch, &mut out)?.len();
    out.truncate(length);
    out.shrink_to_fit();
    Ok(out)
}

/// Checks size, version, signature and purpose, then decodes the message. Nothing inside the payload
/// is looked at before its signature holds.
pub fn open<T: Signed, const N: usize>(bytes: &[u8], keys: &KeyRing<N>) -> Result<T, OpenError> {
    let envelope = parse_envelope::<T>(bytes)?;
    let key = *keys.find(&envelope.key).ok_or(OpenError::UnknownKey(envelope.key))?;
    verify(&envelope, &key)?;
    decode_all(body::<T>(envelope.payload)?)
}

/// Whose key an envelope names, which proves nothing before it is opened.
pub fn named_key<T: Signed>(bytes: &[u8]) -> Result<KeyId, OpenError> {
    Ok(parse_envelope::<T>(bytes)?.key)
}

/// Decodes a message that brings its own key, and returns both: the signature proves possession of
/// the key and nothing about who holds it. For a device's first hello only.
pub fn open_self_signed<T: Signed>(
    bytes: &[u8],
    key_of: impl Fn(&T) -> PublicKey,
) -> Result<(T, PublicKey), OpenError> {
    let envelope = parse_envelope::<T>(bytes)?;
    let claimed: T = decode_all(body::<T>(envelope.payload)?)?;
    let key = key_of(&claimed);
    if key.id() != envelope.key {
        return Err(OpenError::UnknownKey(envelope.key));
    }
    verify(&envelope, &key)?;
    Ok((claimed, key))
}

pub(crate) fn parse_envelope<T: Signed>(bytes: &[u8]) -> Result<Envelope<'_>, OpenError> {
    if bytes.len() > T::MAX_BYTES {
        return Err(OpenError::TooLarge { limit: T::MAX_BYTES, actual: bytes.len() });
    }
    let (version, body) = bytes.split_first().ok_or(OpenError::Empty)?;
    if *version != WIRE_VERSION {
        return Err(OpenError::Version(*version));
    }
    decode_all(body)
}

/// Succeeds if the payload is signed by `key`.
pub(crate) fn verify(envelope: &Envelope<'_>, key: &PublicKey) -> Result<(), OpenError> {
    let Proof::Signature(signature) = &envelope.proof else { return Err(OpenError::Tagged) };
    let wrong = |_| OpenError::Signature(envelope.key);
    let verifier = VerifyingKey::from_bytes(&key.0.0).map_err(wrong)?;
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    verifier.verify_strict(envelope.payload, &signature).map_err(wrong)
}

/// The message in a payload, if it is of this kind.
pub(crate) fn body<T: Signed>(payload: &[u8]) -> Result<&[u8], OpenError> {
    let (purpose, body) = payload.split_first().ok_or(OpenError::Empty)?;
    if *purpose != T::PURPOSE {
        return Err(OpenError::Purpose { expected: T::PURPOSE, found: *purpose });
    }
    Ok(body)
}

fn decode_all<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, OpenError> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(OpenError::Malformed)?;
    if rest.is_empty() { Ok(value) } else { Err(OpenError::Trailing(rest.len())) }
}

#[cfg(test)]
#[cfg(feature = "alloc")]
#[path = "envelope_tests.rs"]
mod tests;
