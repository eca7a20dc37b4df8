//! What shows that a device made a report, in less time than a signature takes: a tag under a key that only the device and
//! its server know. To open a signed report takes some 90 µs, to open a tagged one 5 µs, and of all that devices say, reports
//! are nearly all.
//!
//! Neither side says anything for it. Each takes its own Ed25519 key and the other's public one, which the server has from
//! the device's hello and the device from trusted metadata, to the curve's other form, and works out what both have in
//! common (X25519, RFC 7748); HKDF-SHA256 (RFC 5869) draws the key from it, and the tag is HMAC-SHA256 (RFC 2104) over the
//! payload, whose first byte says what kind of message it is. One pair of keys for signatures and for this is sound
//! because what goes into either is kept apart (Thormarker 2021, <https://eprint.iacr.org/2021/509>).
//!
//! What is given up: a tag convinces its server, and nobody else. The server could itself have made it, and whoever steals
//! the server's key can make up reports of any device, until the metadata takes that key away; that thief could sign
//! assignments too, but other devices and other servers still cannot make up a report. So nothing but reports, of which
//! each counts little, may come under a tag: a kind of message must be [`Tagged`].

use core::fmt;

use alloc::boxed::Box;
use alloc::vec::Vec;
use ed25519_dalek::{SigningKey, VerifyingKey};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::envelope::{
    Envelope, KeyId, OpenError, Proof, PublicKey, SealError, Signature, Signed, body, parse_envelope,
    seal_proven, verify, write_envelope,
};
use crate::message::Report;

/// Sets this key apart from any other that might be drawn from the same secret.
const SALT: &[u8] = b"serin report tag 1: X25519, HKDF-SHA256, HMAC-SHA256";

/// A kind of message that may come under a tag.
pub trait Tagged: Signed {
    /// Reads a message from the start of `bytes` to where it stays, in the memory of one that is over if there is such a
    /// `spare`; returns what follows it.
    fn read(bytes: &[u8], spare: Option<Box<Self>>) -> postcard::Result<(Box<Self>, &[u8])>;
}

impl Tagged for Report {
    fn read(bytes: &[u8], spare: Option<Box<Self>>) -> postcard::Result<(Box<Self>, &[u8])> {
        Self::read(bytes, spare)
    }
}

/// What one device and one server key have in common. Wiped from memory when it is dropped.
#[derive(Clone)]
pub struct TagKey {
    device: KeyId,
    server: KeyId,
    secret: Zeroizing<[u8; 32]>,
}

/// Two keys have nothing in common that is secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TagKeyError {
    /// The other's public key is none.
    #[error("the bytes are not an Ed25519 public key")]
    NotAPoint,
    /// The other's key is one with which anybody has the same in common.
    #[error("a weak public key")]
    Weak,
    /// The key cannot be drawn: never, as it has the length of one hash.
    #[error("no key can be drawn")]
    Length,
}

impl TagKey {
    /// Of the device whose key `own` is, and `server`.
    pub fn of_device(own: &SigningKey, server: &PublicKey) -> Result<Self, TagKeyError> {
        Self::between(own, server, PublicKey::of(own).id(), server.id())
    }

    /// Of the server whose key `own` is, and `device`.
    pub fn of_server(own: &SigningKey, device: &PublicKey) -> Result<Self, TagKeyError> {
        Self::between(own, device, device.id(), PublicKey::of(own).id())
    }

    fn between(
        own: &SigningKey,
        other: &PublicKey,
        device: KeyId,
        server: KeyId,
    ) -> Result<Self, TagKeyError> {
        let other = VerifyingKey::from_bytes(&other.0.0).map_err(|_| TagKeyError::NotAPoint)?;
        if other.is_weak() {
            return Err(TagKeyError::Weak);
        }
        let scalar = Zeroizing::new(own.to_scalar_bytes());
        let shared = Zeroizing::new(other.to_montgomery().mul_clamped(*scalar).to_bytes());
        // RFC 7748, section 6.1: without a branch on the secret before it is known to be none.
        if bool::from(shared.ct_eq(&[0; 32])) {
            return Err(TagKeyError::Weak);
        }
        let mut secret = Zeroizing::new([0; 32]);
        // Both keys by name: a point has the same other form as its negative, and roles must not be exchanged.
        Hkdf::<Sha256>::new(Some(SALT), shared.as_slice())
            .expand_multi_info(&[&device.0.0, &server.0.0], secret.as_mut_slice())
            .map_err(|_| TagKeyError::Length)?;
        Ok(Self { device, server, secret })
    }

    /// Whose it is beside the server.
    pub const fn device(&self) -> KeyId {
        self.device
    }

    /// The server's key.
    pub const fn server(&self) -> KeyId {
        self.server
    }

    fn over(&self, payload: &[u8]) -> Hmac<Sha256> {
        // A key shorter than the hash's block is filled up with zeros (RFC 2104, section 2).
        let mut block = Zeroizing::new([0; 64]);
        block.iter_mut().zip(self.secret.iter()).for_each(|(to, from)| *to = *from);
        let mut mac = Hmac::<Sha256>::new((&*block).into());
        mac.update(payload);
        mac
    }
}

impl fmt::Debug for TagKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("TagKey");
        shown.field("device", &self.device).field("server", &self.server).finish_non_exhaustive()
    }
}

/// Puts `message` into an envelope under a tag.
pub fn seal_tagged_to_vec<T: Tagged>(message: &T, key: &TagKey) -> Result<Vec<u8>, SealError> {
    let tag = |payload: &[u8]| Proof::Tag {
        server: key.server,
        tag: key.over(payload).finalize().into_bytes().into(),
    };
    let (mut scratch, mut out) = (alloc::vec![0; T::MAX_BYTES], alloc::vec![0; T::MAX_BYTES]);
    let length = seal_proven(message, key.device, tag, &mut scratch, &mut out)?.len();
    out.truncate(length);
    out.shrink_to_fit();
    Ok(out)
}

/// For which server key an envelope is tagged; none if it is signed or no envelope of this kind. It proves nothing.
pub fn tagged_for<T: Tagged>(bytes: &[u8]) -> Option<KeyId> {
    match parse_envelope::<T>(bytes).ok()?.proof {
        Proof::Tag { server, .. } => Some(server),
        Proof::Signature(_) => None,
    }
}

/// The message in `bytes`, an envelope of the device's own, under its signature instead of what is there.
pub fn sign_instead<T: Tagged>(bytes: &[u8], key: &SigningKey) -> Result<Vec<u8>, SignInsteadError> {
    let Envelope { payload, .. } = parse_envelope::<T>(bytes)?;
    let proof = Proof::Signature(Signature::of(payload, key));
    let mut out = alloc::vec![0; T::MAX_BYTES];
    let envelope = Envelope { payload, key: PublicKey::of(key).id(), proof };
    let length = write_envelope::<T>(&envelope, &mut out)?.len();
    out.truncate(length);
    Ok(out)
}

/// An envelope cannot be signed instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignInsteadError {
    /// It is none.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is no room for a signature.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Opens what `device` made, under its signature, or under a tag that `key_of` has the key for by the name of the server's.
/// Nothing inside the payload is looked at before its proof holds. Returns the bytes of the message too.
pub fn open_tagged<'b, 'k, T: Tagged>(
    bytes: &'b [u8],
    device: &PublicKey,
    key_of: impl FnOnce(&KeyId) -> Option<&'k TagKey>,
    spare: Option<Box<T>>,
) -> Result<(Box<T>, &'b [u8]), OpenError> {
    let envelope = parse_envelope::<T>(bytes)?;
    if envelope.key != device.id() {
        return Err(OpenError::UnknownKey(envelope.key));
    }
    match &envelope.proof {
        Proof::Signature(_) => verify(&envelope, device)?,
        Proof::Tag { server, tag } => {
            let fits = |key: &&TagKey| key.server == *server && key.device == envelope.key;
            let key = key_of(server).filter(fits).ok_or(OpenError::UnknownServer(*server))?;
            // Takes as long whatever differs.
            key.over(envelope.payload).verify_slice(tag).map_err(|_| OpenError::Tag(envelope.key))?;
        }
    }
    let body = body::<T>(envelope.payload)?;
    let (message, rest) = T::read(body, spare).map_err(OpenError::Malformed)?;
    if rest.is_empty() { Ok((message, body)) } else { Err(OpenError::Trailing(rest.len())) }
}

#[cfg(test)]
#[path = "tag_tests.rs"]
mod tests;
