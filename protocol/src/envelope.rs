//! The signed envelope around every message: `version byte · postcard {payload, key id, signature}`.
//!
//! The signed payload is itself `purpose byte · postcard(message)`, so that a signature made for one
//! kind of message can never be taken for another. Verification is `verify_strict` (no small-order
//! keys, no malleable signatures).

use core::fmt;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::Digest;

/// First byte of every payload.
pub const WIRE_VERSION: u8 = 3;

/// Largest message inside an envelope, in bytes: a telemetry report.
pub const MAX_MESSAGE_BYTES: usize = 32 * 1024;

/// What an envelope adds to its payload: version, length, key id, signature, rounded up.
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
pub struct PublicKey(Digest);

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
    /// Signed for another purpose.
    #[error("signed for purpose {found}, expected {expected}")]
    Purpose {
        /// The purpose asked for.
        expected: u8,
        /// The purpose signed.
        found: u8,
    },
}

struct Signature([u8; 64]);

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

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    payload: &'a [u8],
    key: KeyId,
    signature: Signature,
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
    let too_large = SealError::TooLarge { limit: T::MAX_BYTES };
    let (purpose, body) = scratch.split_first_mut().ok_or_else(|| too_large.clone())?;
    *purpose = T::PURPOSE;
    let length = 1 + postcard::to_slice(message, body).map_err(|_| too_large.clone())?.len();
    let payload = scratch.get(..length).ok_or_else(|| too_large.clone())?;
    let envelope = Envelope {
        payload,
        key: PublicKey::of(key).id(),
        signature: Signature(key.sign(payload).to_bytes()),
    };
    let (version, body) = out.split_first_mut().ok_or_else(|| too_large.clone())?;
    *version = WIRE_VERSION;
    let length = 1 + postcard::to_slice(&envelope, body).map_err(|_| too_large.clone())?.len();
    if length > T::MAX_BYTES {
        return Err(too_large);
    }
    out.get(..length).ok_or(too_large)
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
    verified(&envelope, &key)
}

/// Decodes a message that brings its own key, and returns both: the signature proves possession of
/// the key and nothing about who holds it. For a device's first hello only.
pub fn open_self_signed<T: Signed>(
    bytes: &[u8],
    key_of: impl Fn(&T) -> PublicKey,
) -> Result<(T, PublicKey), OpenError> {
    let envelope = parse_envelope::<T>(bytes)?;
    let claimed: T = decode_payload(envelope.payload)?;
    let key = key_of(&claimed);
    if key.id() != envelope.key {
        return Err(OpenError::UnknownKey(envelope.key));
    }
    Ok((verified(&envelope, &key)?, key))
}

fn parse_envelope<T: Signed>(bytes: &[u8]) -> Result<Envelope<'_>, OpenError> {
    if bytes.len() > T::MAX_BYTES {
        return Err(OpenError::TooLarge { limit: T::MAX_BYTES, actual: bytes.len() });
    }
    let (version, body) = bytes.split_first().ok_or(OpenError::Empty)?;
    if *version != WIRE_VERSION {
        return Err(OpenError::Version(*version));
    }
    decode_all(body)
}

fn verified<T: Signed>(envelope: &Envelope<'_>, key: &PublicKey) -> Result<T, OpenError> {
    let wrong = OpenError::Signature(envelope.key);
    let verifier = VerifyingKey::from_bytes(&key.0.0).map_err(|_| wrong.clone())?;
    let signature = ed25519_dalek::Signature::from_bytes(&envelope.signature.0);
    verifier.verify_strict(envelope.payload, &signature).map_err(|_| wrong)?;
    decode_payload(envelope.payload)
}

fn decode_payload<T: Signed>(payload: &[u8]) -> Result<T, OpenError> {
    let (purpose, body) = payload.split_first().ok_or(OpenError::Empty)?;
    if *purpose != T::PURPOSE {
        return Err(OpenError::Purpose { expected: T::PURPOSE, found: *purpose });
    }
    decode_all(body)
}

fn decode_all<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, OpenError> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(OpenError::Malformed)?;
    if rest.is_empty() { Ok(value) } else { Err(OpenError::Trailing(rest.len())) }
}

#[cfg(test)]
#[cfg(feature = "alloc")]
mod tests {
    use super::*;
    use crate::message::Ack;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Other(u64);
    impl Signed for Other {
        const PURPOSE: u8 = 250;
        const MAX_BYTES: usize = 256;
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn ring(seed: u8) -> KeyRing<2> {
        KeyRing::new([PublicKey::of(&key(seed))]).expect("fits")
    }

    #[test]
    fn a_sealed_message_opens_with_its_key_only() {
        let sealed = seal_to_vec(&Other(7), &key(1)).expect("seals");
        assert_eq!(open::<Other, 2>(&sealed, &ring(1)), Ok(Other(7)));
        assert!(matches!(open::<Other, 2>(&sealed, &ring(2)), Err(OpenError::UnknownKey(_))));
    }

    #[test]
    fn a_signature_for_one_purpose_is_refused_for_another() {
        let sealed = seal_to_vec(&Other(7), &key(1)).expect("seals");
        let refused = open::<Ack, 2>(&sealed, &ring(1));
        assert_eq!(refused, Err(OpenError::Purpose { expected: Ack::PURPOSE, found: 250 }));
    }

    #[test]
    fn oversized_empty_and_future_messages_are_named() {
        assert_eq!(open::<Other, 2>(&[], &ring(1)), Err(OpenError::Empty));
        assert_eq!(open::<Other, 2>(&[9, 0], &ring(1)), Err(OpenError::Version(9)));
        let refused = open::<Other, 2>(&[1; 257], &ring(1));
        assert_eq!(refused, Err(OpenError::TooLarge { limit: 256, actual: 257 }));
        let mut sealed = seal_to_vec(&Other(7), &key(1)).expect("seals");
        sealed.push(0);
        assert_eq!(open::<Other, 2>(&sealed, &ring(1)), Err(OpenError::Trailing(1)));
    }

    proptest! {
        #[test]
        fn any_changed_bit_is_refused(value: u64, at: prop::sample::Index, bit in 0..8_u8) {
            let mut sealed = seal_to_vec(&Other(value), &key(1)).expect("seals");
            let position = at.index(sealed.len());
            sealed[position] ^= 1 << bit;
            prop_assert!(open::<Other, 2>(&sealed, &ring(1)).is_err());
        }

        #[test]
        fn any_bytes_are_refused_without_a_crash(bytes: Vec<u8>) {
            prop_assert!(open::<Other, 2>(&bytes, &ring(1)).is_err());
        }
    }
}
